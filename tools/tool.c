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
