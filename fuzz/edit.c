/*
 * Fuzz target: edits of main.cf. Byte 0: what is done; then lines: the name, the value, and the
 * rest is the file. Checked: comments and all other lines stay byte for byte; what is read
 * afterwards is the value that was set, and of all other names what they had; an edit made twice is
 * made once.
 */
#include "tools/edit.h"
#include "fuzz/must.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct conf_raw *
read_conf(struct slice text)
{
	struct conf_raw *raw = conf_raw_new("mx.example.test");
	struct conf_problems p = { 0 };

	conf_raw_read_files(raw, false);
	conf_raw_parse(raw, "main.cf", text, &p);
	conf_problems_free(&p);
	return raw;
}

/* Each entry of a but the edited one stands in b too, with the same value. */
static void
others_kept(const struct conf_raw *a, const struct conf_raw *b, const char *name)
{
	const struct conf_entry *e, *o;

	for (size_t i = 0; (e = conf_raw_entry(a, i)); i++) {
		if (!strcmp(e->name, name))
			continue;
		o = conf_raw_find(b, e->name);
		must(o && !strcmp(o->value, e->value));
	}
}

static bool
is_comment(struct slice line)
{
	while (line.n && strchr(" \t\r\f\v", line.p[0]) && line.p[0])
		line = slice_sub(line, 1, line.n);
	return line.n && line.p[0] == '#';
}

static struct slice
next_comment(struct slice *text)
{
	while (text->n) {
		struct slice line = slice_split(text, '\n');

		if (is_comment(line))
			return line;
	}
	return SLICE_NULL;
}

static void
comments_kept(struct slice before, struct slice after)
{
	struct slice a, b;

	do {
		a = next_comment(&before);
		b = next_comment(&after);
		must(slice_eq(a, b));
	} while (a.p);
}

/* Every line is as it was, or has a # in front. */
static void
lines_kept(struct slice before, struct slice after)
{
	while (before.n || after.n) {
		struct slice a = slice_split(&before, '\n'), b = slice_split(&after, '\n');

		if (!slice_eq(a, b))
			must(b.n && b.p[0] == '#' && slice_eq(slice_sub(b, 1, b.n), a));
	}
}

static struct slice
without_newline(struct slice s)
{
	return s.n && s.p[s.n - 1] == '\n' ? slice_sub(s, 0, s.n - 1) : s;
}

static void
check(struct slice before, struct slice after, enum edit_kind kind, const char *name,
    const char *value)
{
	struct conf_raw *a = read_conf(before), *b = read_conf(after);
	const struct conf_entry *e = conf_raw_find(b, name);
	struct buf x = { 0 }, y = { 0 };

	others_kept(a, b, name);
	others_kept(b, a, name);
	if (kind == EDIT_SET) {
		must(e && !strcmp(e->value, value));
		(void)edit_text(before, EDIT_REMOVE, name, NULL, &x);
		must(edit_text(after, EDIT_REMOVE, name, NULL, &y) > 0);
		must(slice_eq(without_newline(buf_slice(&x)), without_newline(buf_slice(&y))));
	} else {
		must(!e);
	}
	if (kind == EDIT_COMMENT)
		lines_kept(before, after);
	else
		comments_kept(before, after);
	buf_free(&x);
	buf_free(&y);
	conf_raw_free(&a);
	conf_raw_free(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = slice(data + 1, size - 1), line;
	char name[101], value[200];
	struct buf once = { 0 }, twice = { 0 };
	enum edit_kind kind;

	if (!size || size > 20000)
		return 0;
	kind = (enum edit_kind)(data[0] % 3);
	line = slice_split(&text, '\n');
	for (size_t i = 0; i < line.n; i++)
		if (!ascii_is_alnum(line.p[i]) && line.p[i] != '_')
			return 0;
	if (!line.n || slice_copy(line, name, sizeof(name)))
		return 0;
	line = slice_trim(slice_split(&text, '\n'), true);
	for (size_t i = 0; i < line.n; i++)
		if (line.p[i] < ' ')
			return 0;
	if (slice_copy(line, value, sizeof(value)))
		return 0;
	(void)edit_text(text, kind, name, value, &once);
	check(text, buf_slice(&once), kind, name, value);
	(void)edit_text(buf_slice(&once), kind, name, value, &twice);
	must(slice_eq(buf_slice(&once), buf_slice(&twice)));
	buf_free(&once);
	buf_free(&twice);
	return 0;
}
