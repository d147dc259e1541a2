/*
 * Formatting of log records. Runs in the log daemon (bh-log). Hostile: any daemon of the suite may
 * have been taken over; a record is escaped again here so that it is one line, whatever it holds.
 */
#include "format.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char *const levels[] = { "debug", "info", "warning", "error" };

static const char *
role_name(uint8_t role)
{
	return role < ROLE_COUNT ? role_table[role].name : "?";
}

static void
add_clean(struct buf *out, struct slice s)
{
	size_t from = 0;

	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < ' ' || s.p[i] == 127) {
			buf_add(out, slice_sub(s, from, i));
			buf_addf(out, "\\x%02x", s.p[i]);
			from = i + 1;
		}
	buf_add(out, slice_sub(s, from, s.n));
}

/* Most records are of the second of the one before. */
static void
format_time(uint64_t us, char out[40])
{
	static uint64_t second = UINT64_MAX;
	static char date[32];

	if (second != us / 1000000) {
		time_t t = (time_t)(us / 1000000);
		struct tm tm;

		second = us / 1000000;
		gmtime_r(&t, &tm);
		strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	}
	snprintf(out, 40, "%s.%06uZ", date, (unsigned)(us % 1000000));
}

void
format_syslog(struct buf *out, const struct log_line *l)
{
	const struct item_log_record *r = l->record;

	buf_addf(out, "%s/%s[%u]: ", l->name, role_name(l->role), l->pid);
	if (r->level >= 2)
		buf_addf(out, "%s: ", levels[r->level > 3 ? 3 : r->level]);
	add_clean(out, r->event);
	buf_add_str(out, " ");
	add_clean(out, r->text);
}

void
format_text(struct buf *out, const struct log_line *l)
{
	char when[40];

	format_time(l->record->time, when);
	buf_addf(out, "%s %s ", when, l->host);
	format_syslog(out, l);
	buf_add_str(out, "\n");
}

/* The next key=value of a text; values are bare, or quoted as log_value() quotes, whole or in part,
 * as in from=<"a b">: else what a stranger wrote there would be keys of its own. */
static bool
next_pair(struct slice *text, struct slice *key, struct buf *value)
{
	bool quoted = false;
	size_t i;

	*text = slice_trim(*text, false);
	if (!text->n)
		return false;
	*key = slice_split(text, '=');
	buf_clear(value);
	for (i = 0; i < text->n && (quoted || text->p[i] != ' '); i++) {
		if (quoted && text->p[i] == '\\' && i + 1 < text->n &&
		    (text->p[i + 1] == '"' || text->p[i + 1] == '\\'))
			buf_add_byte(value, text->p[++i]);
		else if (text->p[i] == '"')
			quoted = !quoted;
		else
			buf_add_byte(value, text->p[i]);
	}
	*text = slice_sub(*text, i + 1, text->n);
	return true;
}

/* What is not UTF-8, which log_value() lets no honest daemon write, is shown by its octets. */
static json_t *
json_text(struct slice s)
{
	json_t *v = json_stringn(s.n ? (const char *)s.p : "", s.n);
	struct buf escaped = { 0 };

	if (v)
		return v;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] >= 0x80)
			buf_addf(&escaped, "\\x%02x", s.p[i]);
		else
			buf_add_byte(&escaped, s.p[i]);
	v = json_stringn((const char *)buf_slice(&escaped).p, buf_len(&escaped));
	buf_free(&escaped);
	return v;
}

/* A key that stands already (each event may have its own pid=) gets a "_" behind it. */
static void
add_pair(json_t *o, struct slice key, struct slice value)
{
	json_t *name = json_text(key);
	json_t *other = json_sprintf("%s_", json_string_value(name));
	bool taken = json_object_get(o, json_string_value(name));

	json_object_set_new(o, json_string_value(taken ? other : name), json_text(value));
	json_decref(name);
	json_decref(other);
}

void
format_json(struct buf *out, const struct log_line *l)
{
	const struct item_log_record *r = l->record;
	struct slice text = r->text, key;
	struct buf value = { 0 };
	char when[40], *line;
	json_t *o = json_object();

	format_time(r->time, when);
	json_object_set_new(o, "time", json_string(when));
	json_object_set_new(o, "host", json_string(l->host));
	json_object_set_new(o, "role", json_string(role_name(l->role)));
	json_object_set_new(o, "pid", json_integer(l->pid));
	json_object_set_new(o, "level", json_string(levels[r->level > 3 ? 3 : r->level]));
	json_object_set_new(o, "event", json_text(r->event));
	while (next_pair(&text, &key, &value))
		add_pair(o, key, buf_slice(&value));
	line = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER);
	if (line)
		buf_addf(out, "%s\n", line);
	free(line);
	json_decref(o);
	buf_free(&value);
}
