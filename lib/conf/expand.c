/*
 * Expansion of $name, ${name}, ${name?text}, ${name:text}, ${name?{text}:{other}} and of
 * ${{a} == {b}?{text}:{other}}, as Postfix has it. The names are answered by the caller; what they
 * give is appended as it is. Runs in master and the tools over main.cf and master.cf, and in the
 * delivery child over forward_path and the like: the text is an admin's, the values need not be.
 * Invariants: depth, steps and (by the limit of the buffer) output are bounded.
 */
#include "conf/conf.h"

#include <stdio.h>
#include <stdlib.h>

#define DEPTH_LIMIT 50
#define STEP_LIMIT 20000

struct expansion {
	conf_lookup *lookup;
	void *ctx;
	char *why;
	bool strict;
	unsigned depth, steps;
};

static int expand(struct expansion *e, struct slice text, struct buf *out);

static int
fail(struct expansion *e, int err, const char *fmt, struct slice what)
{
	snprintf(e->why, CONF_WHY, fmt, (int)(what.n > 80 ? 80 : what.n),
	    what.p ? (const char *)what.p : "");
	return err;
}

static size_t
name_length(struct slice s)
{
	size_t n = 0;

	while (n < s.n && (ascii_is_alnum(s.p[n]) || s.p[n] == '_'))
		n++;
	return n;
}

static struct slice
skip_blanks(struct slice s)
{
	while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
		s = slice_sub(s, 1, s.n);
	return s;
}

/* s begins with open: the index of the closing byte that matches it, or 0. */
static size_t
matching(struct slice s, unsigned char open, unsigned char close)
{
	size_t i, level = 0;

	for (i = 0; i < s.n; i++) {
		if (s.p[i] == open)
			level++;
		else if (s.p[i] == close && --level == 0)
			return i;
	}
	return 0;
}

/* Takes {text} from the front of *s. */
static int
take_braced(struct expansion *e, struct slice *s, struct slice *text_r)
{
	size_t end = matching(*s, '{', '}');

	if (!end)
		return fail(e, ERR_SYNTAX, "missing } behind '%.*s'", *s);
	*text_r = slice_trim(slice_sub(*s, 1, end), false);
	*s = skip_blanks(slice_sub(*s, end + 1, s->n));
	return 0;
}

/* The index of the first colon outside of braces, or s.n. */
static size_t
top_colon(struct slice s)
{
	size_t i, level = 0;

	for (i = 0; i < s.n; i++) {
		if (s.p[i] == '{')
			level++;
		else if (s.p[i] == '}' && level)
			level--;
		else if (s.p[i] == ':' && !level)
			return i;
	}
	return s.n;
}

/* What follows a name or a comparison: ?text, :text, ?text:other with or without braces. */
static int
branches(struct expansion *e, struct slice s, struct slice *yes, struct slice *no)
{
	size_t colon;
	int err;

	*yes = *no = SLICE_NULL;
	if (s.p[0] == '?') {
		s = slice_sub(s, 1, s.n);
		if (skip_blanks(s).n && skip_blanks(s).p[0] == '{') {
			s = skip_blanks(s);
			if ((err = take_braced(e, &s, yes)))
				return err;
		} else {
			colon = top_colon(s);
			*yes = slice_sub(s, 0, colon);
			s = slice_sub(s, colon, s.n);
		}
	}
	if (!s.n)
		return 0;
	if (s.p[0] != ':')
		return fail(e, ERR_SYNTAX, "expected : before '%.*s'", s);
	s = slice_sub(s, 1, s.n);
	if (skip_blanks(s).n && skip_blanks(s).p[0] == '{') {
		s = skip_blanks(s);
		if ((err = take_braced(e, &s, no)))
			return err;
		return s.n ? fail(e, ERR_SYNTAX, "unexpected '%.*s'", s) : 0;
	}
	*no = s;
	return 0;
}

static int
compare(struct slice a, struct slice b)
{
	uint64_t x, y;

	if (!slice_u64(a, UINT64_MAX, &x) && !slice_u64(b, UINT64_MAX, &y))
		return x < y ? -1 : x > y;
	return slice_cmp(a, b);
}

static const struct {
	const char *text;
	bool less, equal, greater;
} operators[] = {
	{ "==", false, true, false },
	{ "!=", true, false, true },
	{ "<=", true, true, false },
	{ ">=", false, true, true },
	{ "<", true, false, false },
	{ ">", false, false, true },
};

/* {a} OP {b} at the front of *s: *result_r is its truth, *s what follows. */
static int
comparison(struct expansion *e, struct slice *s, bool *result_r)
{
	struct slice left, right;
	struct buf a = { .limit = CONF_VALUE_LIMIT }, b = { .limit = CONF_VALUE_LIMIT };
	size_t i;
	int err, order;

	if ((err = take_braced(e, s, &left)))
		return err;
	for (i = 0; i < sizeof(operators) / sizeof(operators[0]); i++)
		if (slice_has_prefix(*s, operators[i].text))
			break;
	if (i == sizeof(operators) / sizeof(operators[0]))
		return fail(e, ERR_SYNTAX, "expected == != < <= >= or > before '%.*s'", *s);
	*s = skip_blanks(slice_sub(*s, strlen(operators[i].text), s->n));
	if (!s->n || s->p[0] != '{')
		return fail(e, ERR_SYNTAX, "expected { before '%.*s'", *s);
	if (!(err = take_braced(e, s, &right)) && !(err = expand(e, left, &a)) &&
	    !(err = expand(e, right, &b))) {
		order = compare(buf_slice(&a), buf_slice(&b));
		*result_r = order < 0 ? operators[i].less
			    : order   ? operators[i].greater
				      : operators[i].equal;
	}
	buf_free(&a);
	buf_free(&b);
	return err;
}

static int
plain(struct expansion *e, struct slice name, struct buf *out)
{
	int err = e->lookup(e->ctx, name, out);

	if (err != ERR_NOT_FOUND)
		return err;
	return e->strict ? fail(e, ERR_NOT_FOUND,
			       "$%.*s is not defined: set it, or write $$ for a dollar sign", name)
			 : 0;
}

/* The text between ${ and }. */
static int
braced(struct expansion *e, struct slice s, struct buf *out)
{
	struct slice name = SLICE_NULL, yes, no;
	struct buf value = { .limit = CONF_VALUE_LIMIT };
	bool truth = false;
	int err;

	s = slice_trim(s, false);
	if (s.n && s.p[0] == '{') {
		if ((err = comparison(e, &s, &truth)))
			return err;
		if (!s.n)
			return fail(e, ERR_SYNTAX, "expected ? behind the comparison%.*s", s);
	} else {
		name = slice_sub(s, 0, name_length(s));
		s = skip_blanks(slice_sub(s, name.n, s.n));
		if (!name.n)
			return fail(e, ERR_SYNTAX, "expected a name before '%.*s'", s);
		if (!s.n)
			return plain(e, name, out);
	}
	if (s.p[0] != '?' && s.p[0] != ':')
		return fail(e, ERR_SYNTAX, "expected ? or : before '%.*s'", s);
	if ((err = branches(e, s, &yes, &no)))
		return err;
	if (name.n) {
		err = e->lookup(e->ctx, name, &value);
		truth = buf_len(&value) > 0;
		buf_free(&value);
		if (err && err != ERR_NOT_FOUND)
			return err;
	}
	return expand(e, truth ? yes : no, out);
}

/* One reference; s begins behind the dollar. *used_r: how many bytes it takes. */
static int
reference(struct expansion *e, struct slice s, struct buf *out, size_t *used_r)
{
	struct slice inner;
	size_t end;

	if (s.n && (s.p[0] == '{' || s.p[0] == '(')) {
		end = matching(s, s.p[0], s.p[0] == '{' ? '}' : ')');
		if (!end)
			return fail(e, ERR_SYNTAX, "missing } behind '$%.*s'", s);
		*used_r = end + 1;
		inner = slice_sub(s, 1, end);
		return braced(e, inner, out);
	}
	*used_r = name_length(s);
	if (!*used_r)
		return fail(e, ERR_SYNTAX, "expected a name behind $, before '%.*s'", s);
	return plain(e, slice_sub(s, 0, *used_r), out);
}

static int
expand(struct expansion *e, struct slice text, struct buf *out)
{
	ptrdiff_t dollar;
	size_t used = 0;
	int err = 0;

	if (++e->depth > DEPTH_LIMIT)
		err = fail(e, ERR_LIMIT, "nested too deep at '%.*s'", text);
	while (!err && text.n) {
		dollar = slice_find(text, '$');
		if (++e->steps > STEP_LIMIT) {
			err = fail(e, ERR_LIMIT, "too many references at '%.*s'", text);
			break;
		}
		if (dollar < 0) {
			err = buf_add(out, text);
			break;
		}
		(void)buf_add(out, slice_sub(text, 0, (size_t)dollar));
		text = slice_sub(text, (size_t)dollar + 1, text.n);
		if (text.n && text.p[0] == '$') {
			(void)buf_add_byte(out, '$');
			used = 1;
		} else {
			err = reference(e, text, out, &used);
		}
		text = slice_sub(text, used, text.n);
	}
	e->depth--;
	if (!err && out->err)
		err = fail(e, ERR_LIMIT, "the value is too long%.*s", SLICE_NULL);
	return err;
}

int
conf_expand(struct slice text, bool strict, conf_lookup *lookup, void *ctx, struct buf *out,
    char why_r[CONF_WHY])
{
	struct expansion e = { lookup, ctx, why_r, strict, 0, 0 };

	why_r[0] = '\0';
	return expand(&e, text, out);
}
