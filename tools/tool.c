/* What the commands of bulkhead(8) share: the configuration, messages to the admin, paths of
 * programs. */
#include "tools/tool.h"

#include <stdarg.h>
#include <stdio.h>

void
tool_say(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("bulkhead: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

unsigned char
tool_shown(struct tool_shown *s, unsigned char c)
{
	if (s->left && (c & 0xc0) == 0x80) {
		s->left--;
		return s->lead == 0xc2 && c < 0xa0 ? 0xbf : c;
	}
	s->lead = c;
	s->left = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;
	return (c < 32 && c != '\n' && c != '\t') || (c >= 127 && c < 0xa0) ? '?' : c;
}

const struct conf *
tool_conf(struct tool *t)
{
	if (!t->set)
		t->set = conf_set_load(t->dir, &t->problems);
	return t->set->conf;
}

const char *
tool_program(struct tool *t, const char *name, struct arena *arena)
{
	return arena_printf(arena, "%s/%s", tool_conf(t)->daemon_directory, name);
}
