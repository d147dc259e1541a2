/*
 * Logical lines of main.cf and master.cf: a line that begins with white space continues the one
 * before; empty lines and comments, also those that stand in between, are left out. Runs in master
 * and in the tools, over files that an admin wrote. Never reads past its input; NUL is data here
 * and is refused by the readers of names and values.
 */
#include "conf/conf.h"

static bool
is_blank(unsigned char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

/* The physical line at pos, without its newline; *next_r is where the next one begins. */
static struct slice
physical(struct slice in, size_t pos, size_t *next_r)
{
	struct slice rest = slice_sub(in, pos, in.n);
	ptrdiff_t nl = slice_find(rest, '\n');

	*next_r = nl < 0 ? in.n : pos + (size_t)nl + 1;
	return nl < 0 ? rest : slice_sub(rest, 0, (size_t)nl);
}

bool
conf_line_ignored(struct slice s)
{
	size_t i = 0;

	while (i < s.n && is_blank(s.p[i]))
		i++;
	return i == s.n || s.p[i] == '#';
}

static struct slice
trim_right(struct slice s)
{
	while (s.n && is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

/* Joins the continuations that follow the line that ends at lines->at. */
static void
join(struct conf_lines *lines, struct slice first, struct buf *out, struct conf_line *line)
{
	size_t next, pos = lines->at;
	unsigned number = lines->line;
	struct slice s;

	(void)buf_add(out, trim_right(first));
	while (pos < lines->in.n) {
		s = physical(lines->in, pos, &next);
		number++;
		if (!conf_line_ignored(s)) {
			if (!is_blank(s.p[0]))
				break;
			(void)buf_add_byte(out, ' ');
			(void)buf_add(out, trim_right(slice_trim(s, true)));
			lines->at = line->end = next;
			lines->line = number;
		}
		pos = next;
	}
}

bool
conf_lines_next(
    struct conf_lines *lines, struct arena *arena, struct conf_line *line_r, bool *orphan_r)
{
	struct buf joined = { 0 };
	struct slice s;
	size_t start;

	while (lines->at < lines->in.n) {
		start = lines->at;
		s = physical(lines->in, start, &lines->at);
		lines->line++;
		if (conf_line_ignored(s))
			continue;
		*orphan_r = is_blank(s.p[0]);
		line_r->line = lines->line;
		line_r->start = start;
		line_r->end = lines->at;
		join(lines, *orphan_r ? slice_trim(s, true) : s, &joined, line_r);
		line_r->text = arena_dup(arena, buf_slice(&joined));
		buf_free(&joined);
		return true;
	}
	return false;
}
