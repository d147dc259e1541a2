/*
 * One line of the log, as text or as JSON, in its four parts: time, role, event and the pairs.
 * Pure; used by `bulkhead trace`, which runs as who can read the log, mostly root. Hostile: the
 * values, which strangers chose.
 */
#include "tools/trace_line.h"

#include "daemon/log.h"

#include <jansson.h>

struct slice
trace_value(struct slice text, const char *key)
{
	size_t n = strlen(key), i;
	bool quoted = false;

	for (i = 0; i + n < text.n; i++) {
		if (text.p[i] == '\\')
			i++;
		else if (text.p[i] == '"')
			quoted = !quoted;
		else if (!quoted && (!i || text.p[i - 1] == ' ') && !memcmp(text.p + i, key, n) &&
			 text.p[i + n] == '=') {
			text = slice_sub(text, i + n + 1, text.n);
			return slice_split(&text, ' ');
		}
	}
	return SLICE_NULL;
}

/* DATE HOST NAME/ROLE[PID]: [LEVEL: ]EVENT KEY=VALUE...; a syslog daemon may have its own date. */
static bool
parse_text(struct slice line, struct slice out[4])
{
	ptrdiff_t bracket = slice_search(line, SLICE_LIT("]: ")), slash;
	struct slice head;

	if (bracket < 0)
		return false;
	head = slice_sub(line, 0, (size_t)bracket);
	line = slice_sub(line, (size_t)bracket + 3, line.n);
	slash = slice_rfind(head, '/');
	if (slash < 0)
		return false;
	out[0] = head;
	out[0] = ascii_is_digit(head.p[0]) ? slice_split(&out[0], ' ') : slice_sub(head, 0, 15);
	head = slice_sub(head, (size_t)slash + 1, head.n);
	out[1] = slice_split(&head, '[');
	out[2] = slice_split(&line, ' ');
	if (slice_has_suffix(out[2], ":"))
		out[2] = slice_split(&line, ' ');
	out[3] = line;
	return true;
}

static bool
parse_json(struct slice line, struct arena *arena, struct slice out[4])
{
	json_t *o = json_loadb((const char *)line.p, line.n, 0, NULL), *v;
	static const char *const own[] = { "time", "role", "event" };
	struct buf text = { 0 };
	const char *key;
	size_t i;

	if (!json_is_object(o)) {
		json_decref(o);
		return false;
	}
	for (i = 0; i < 3; i++) {
		v = json_object_get(o, own[i]);
		out[i] =
		    arena_dup(arena, slice_str(json_is_string(v) ? json_string_value(v) : "?"));
	}
	json_object_foreach(o, key, v)
	{
		if (!strcmp(key, "time") || !strcmp(key, "role") || !strcmp(key, "event") ||
		    !strcmp(key, "host") || !strcmp(key, "pid") || !strcmp(key, "level"))
			continue;
		/* Quoted as daemons quote: a value cannot look like another key. */
		(void)buf_addf(
		    &text, "%s=%s ", key, log_cstr(json_is_string(v) ? json_string_value(v) : "?"));
	}
	out[3] = slice_trim(arena_dup(arena, buf_slice(&text)), false);
	buf_free(&text);
	json_decref(o);
	return true;
}

bool
trace_parse(struct slice line, struct arena *arena, struct slice out[4])
{
	if (line.n && line.p[0] == '{')
		return parse_json(line, arena, out);
	return line.n > 16 && parse_text(line, out);
}
