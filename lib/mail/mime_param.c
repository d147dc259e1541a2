/*
 * Forgiving reading of structured MIME field values. Runs in imapd-child and
 * wherever messages are looked into; every byte is hostile. Invariants: linear in the input, no
 * recursion (comments are counted), nothing is read beyond the slice.
 */
#include "mail/mime_param.h"

struct slice
mime_unfold(struct slice value, struct arena *arena)
{
	unsigned char *out = arena_alloc(arena, value.n + 1);
	size_t n = 0;

	for (size_t i = 0; i < value.n; i++) {
		unsigned char c = value.p[i];

		if (c == '\r' && i + 1 < value.n && value.p[i + 1] == '\n')
			continue;
		if (c == '\n' && i + 1 < value.n &&
		    (value.p[i + 1] == ' ' || value.p[i + 1] == '\t'))
			continue;
		out[n++] = c == '\r' || c == '\n' || !c ? ' ' : c;
	}
	return slice_trim(slice(out, n), true);
}

/* Over blanks, line ends and comments. */
static void
skip_cfws(struct slice *s)
{
	unsigned depth = 0;

	while (s->n) {
		unsigned char c = s->p[0];

		if (c == '(')
			depth++;
		else if (depth && c == ')')
			depth--;
		else if (depth && c == '\\' && s->n > 1)
			s->p++, s->n--;
		else if (!depth && c != ' ' && c != '\t' && c != '\r' && c != '\n')
			return;
		s->p++, s->n--;
	}
}

static bool
is_token(unsigned char c)
{
	return c > 32 && c != 127 && !strchr("()<>@,;:\\\"/[]?=", c);
}

static struct slice
token(struct slice *s, struct arena *arena)
{
	size_t n = 0;
	struct slice t;

	while (n < s->n && is_token(s->p[n]))
		n++;
	t = arena_dup(arena, slice_sub(*s, 0, n));
	*s = slice_sub(*s, n, s->n);
	return t;
}

/* A quoted string without its quotes; one without an end goes to the end of the value. */
static struct slice
quoted(struct slice *s, struct arena *arena)
{
	size_t n = 0, i = 1, end = 1;
	unsigned char *out;

	/* Room for this string, not for all that follows: a header has many of them. */
	while (end < s->n && s->p[end] != '"')
		end += s->p[end] == '\\' ? 2 : 1;
	out = arena_alloc(arena, (end < s->n ? end : s->n) + 1);

	for (; i < s->n && s->p[i] != '"'; i++) {
		unsigned char c = s->p[i];

		if (c == '\\' && i + 1 < s->n)
			c = s->p[++i];
		if (c == '\r' || c == '\n' || !c)
			continue;
		out[n++] = c;
	}
	*s = slice_sub(*s, i + 1, s->n);
	return slice(out, n);
}

/* An unquoted value goes up to ";" or a blank: more than a token allows, as it is met in the wild.
 */
static struct slice
loose(struct slice *s, struct arena *arena)
{
	size_t n = 0;
	struct slice v;

	while (n < s->n && s->p[n] > 32 && s->p[n] != ';')
		n++;
	v = arena_dup(arena, slice_sub(*s, 0, n));
	*s = slice_sub(*s, n, s->n);
	return v;
}

/* The length up to the next semicolon, or -1; *next keeps where it is, so that a value without one
 * is searched once. */
static ptrdiff_t
semicolon_in(struct slice s, const unsigned char **next)
{
	if (*next && *next < s.p)
		*next = memchr(s.p, ';', s.n);
	return *next ? *next - s.p : -1;
}

bool
mime_parse_params(struct slice value, struct arena *arena, unsigned max, struct slice *token_r,
    struct slice *subtype_r, struct mime_param **params_r)
{
	struct mime_param **tail = params_r;
	const unsigned char *next;

	*params_r = NULL;
	if (subtype_r)
		*subtype_r = SLICE_NULL;
	skip_cfws(&value);
	*token_r = value.n && value.p[0] == '"' ? quoted(&value, arena) : token(&value, arena);
	skip_cfws(&value);
	if (subtype_r && value.n && value.p[0] == '/') {
		value = slice_sub(value, 1, value.n);
		skip_cfws(&value);
		*subtype_r = token(&value, arena);
	}
	skip_cfws(&value);
	next = value.n ? memchr(value.p, ';', value.n) : NULL;
	for (unsigned count = 0; value.n && count < max;) {
		struct slice name, v = SLICE_NULL;
		ptrdiff_t semicolon = semicolon_in(value, &next);

		/* A first parameter without its semicolon is met in the wild. */
		if (semicolon < 0 && (*params_r || !is_token(value.p[0])))
			break;
		if (*params_r || !is_token(value.p[0]))
			value = slice_sub(value, (size_t)semicolon + 1, value.n);
		skip_cfws(&value);
		name = token(&value, arena);
		skip_cfws(&value);
		if (!name.n || !value.n || value.p[0] != '=')
			continue;
		value = slice_sub(value, 1, value.n);
		skip_cfws(&value);
		if (value.n)
			v = value.p[0] == '"' ? quoted(&value, arena) : loose(&value, arena);
		*tail = arena_alloc(arena, sizeof(**tail));
		(*tail)->name = name;
		(*tail)->value = v;
		tail = &(*tail)->next;
		count++;
		skip_cfws(&value);
	}
	return token_r->n > 0;
}

const struct mime_param *
mime_param_find(const struct mime_param *params, const char *name)
{
	for (; params; params = params->next)
		if (slice_caseeq_str(params->name, name))
			return params;
	return NULL;
}
