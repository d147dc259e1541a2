/*
 * The grammar of alias values. Runs in maps and the tools on files of the admin, and in the
 * delivery child (as the recipient, in its jail) on .forward and :include: files, which their
 * owners write: hostile. Never recursive; the number of items and their sizes are bounded.
 *
 *   list    = item *( "," item )
 *   item    = ["\"] address | "|" command | "/" path | ":include:" path
 * An item, or the command behind the bar, may stand in double quotes, in which a backslash takes
 * the next byte as it is and commas do not separate. Comments in parentheses are dropped from
 * addresses; of "Name <address>" the address counts.
 */
#include "db/alias.h"

#include "base/buf.h"

#include <stdlib.h>

struct parser {
	struct arena *arena;
	struct alias_items *out;
	size_t size, max;
	const char *wrong;
};

static bool
is_space(unsigned char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The end of the item that begins at from: the comma outside of quotes, angles and parentheses. */
static size_t
item_end(struct slice s, size_t from, const char **wrong)
{
	unsigned depth = 0;
	bool quoted = false, angle = false;
	size_t i;

	for (i = from; i < s.n; i++) {
		unsigned char c = s.p[i];

		if (c == '\\' && i + 1 < s.n)
			i++;
		else if (c == '"')
			quoted = !quoted;
		else if (quoted)
			continue;
		else if (c == '(')
			depth++;
		else if (c == ')' && depth)
			depth--;
		else if (c == '<' && !depth)
			angle = true;
		else if (c == '>' && !depth)
			angle = false;
		else if (c == ',' && !depth && !angle)
			break;
	}
	if (quoted)
		*wrong = "a quote is not closed";
	else if (depth)
		*wrong = "a parenthesis is not closed";
	else if (angle)
		*wrong = "an angle bracket is not closed";
	return i;
}

/* The end of a command or path that is not quoted as a whole: the next comma outside of quotes. */
static size_t
plain_end(struct slice s, size_t from, const char **wrong)
{
	bool quoted = false;
	size_t i;

	for (i = from; i < s.n && (quoted || s.p[i] != ','); i++) {
		if (s.p[i] == '\\' && i + 1 < s.n)
			i++;
		else if (s.p[i] == '"')
			quoted = !quoted;
	}
	if (quoted)
		*wrong = "a quote is not closed";
	return i;
}

/* If all of s is one quoted string: its content without the quoting. */
static bool
unquote(struct arena *arena, struct slice *s)
{
	unsigned char *out;
	size_t n = 0, i;

	if (s->n < 2 || s->p[0] != '"')
		return false;
	out = arena_alloc(arena, s->n);
	for (i = 1; i < s->n && s->p[i] != '"'; i++) {
		if (s->p[i] == '\\' && i + 1 < s->n)
			i++;
		out[n++] = s->p[i];
	}
	if (i != s->n - 1)
		return false;
	*s = slice(out, n);
	return true;
}

/* Drops comments and display name of an address; what is left must be one word. */
static struct slice
bare_address(struct arena *arena, struct slice s, const char **wrong)
{
	unsigned char *out = arena_alloc(arena, s.n + 1);
	size_t n = 0;
	unsigned depth = 0;
	bool quoted = false, angle = false;
	struct slice r;

	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = s.p[i];
		bool escaped = c == '\\' && i + 1 < s.n && (quoted || depth);

		if (c == '"' && !depth)
			quoted = !quoted;
		if (!quoted && !escaped && c == '(') {
			depth++;
			continue;
		}
		if (!quoted && !escaped && c == ')' && depth) {
			depth--;
			continue;
		}
		if (depth) {
			i += escaped;
			continue;
		}
		if (!quoted && c == '<') {
			n = 0;
			angle = true;
			continue;
		}
		if (!quoted && c == '>' && angle)
			break;
		out[n++] = c;
		if (escaped)
			out[n++] = s.p[++i];
	}
	r = slice_trim(slice(out, n), true);
	quoted = false;
	for (size_t i = 0; i < r.n && !*wrong; i++) {
		if (r.p[i] == '\\' && quoted)
			i++;
		else if (r.p[i] == '"')
			quoted = !quoted;
		else if (!quoted && is_space(r.p[i]))
			*wrong = "an address holds a blank (a comma is missing, or quotes)";
	}
	return r;
}

static void
add(struct parser *p, enum alias_kind kind, struct slice text)
{
	if (p->wrong)
		return;
	for (size_t i = 0; i < text.n; i++)
		if (text.p[i] < ' ' && text.p[i] != '\t')
			p->wrong = "an item holds a control character";
	if (!text.n)
		p->wrong = "an item is empty";
	else if (text.n > ALIAS_ITEM_MAX)
		p->wrong = "an item is longer than 4096 bytes";
	if (p->wrong)
		return;
	if (p->out->n == p->size) {
		size_t size = p->size ? p->size * 2 : 4;
		struct alias_item *items = arena_alloc(p->arena, size * sizeof(*items));

		if (p->out->n)
			memcpy(items, p->out->items, p->out->n * sizeof(*items));
		p->out->items = items;
		p->size = size;
	}
	p->out->items[p->out->n++] = (struct alias_item){ kind, arena_dup(p->arena, text) };
}

/* Whether the item that begins at s is a command, path or include, perhaps in quotes. */
static bool
is_special(struct slice s)
{
	if (s.n && s.p[0] == '"')
		s = slice_sub(s, 1, s.n);
	return s.n && (s.p[0] == '|' || s.p[0] == '/' || slice_has_caseprefix(s, ":include:"));
}

static void
special(struct parser *p, struct slice s)
{
	unquote(p->arena, &s);
	if (s.n && s.p[0] == '|') {
		s = slice_trim(slice_sub(s, 1, s.n), true);
		unquote(p->arena, &s);
		add(p, ALIAS_COMMAND, slice_trim(s, true));
	} else if (s.n && s.p[0] == '/') {
		add(p, ALIAS_FILE, s);
	} else if (slice_has_caseprefix(s, ":include:")) {
		s = slice_trim(slice_sub(s, 9, s.n), true);
		unquote(p->arena, &s);
		if (!s.n || s.p[0] != '/')
			p->wrong = "the path behind :include: does not begin with /";
		add(p, ALIAS_INCLUDE, s);
	} else {
		p->wrong = "text stands behind a quoted item";
	}
}

static void
address(struct parser *p, struct slice s)
{
	enum alias_kind kind = ALIAS_ADDRESS;

	s = bare_address(p->arena, s, &p->wrong);
	if (s.n > 1 && s.p[0] == '\\') {
		kind = ALIAS_SELF;
		s = slice_sub(s, 1, s.n);
	}
	if (s.n && (s.p[0] == '|' || s.p[0] == '/' || s.p[0] == ':'))
		p->wrong = "a command, path or include stands in brackets";
	add(p, kind, s);
}

/* One right-hand side. */
static void
value(struct parser *p, struct slice s)
{
	size_t at = 0;

	while (!p->wrong) {
		size_t from;

		while (at < s.n && (is_space(s.p[at]) || s.p[at] == ','))
			at++;
		if (at == s.n)
			return;
		if (p->out->n == p->max) {
			p->wrong = "there are too many items";
			return;
		}
		from = at;
		if (is_special(slice_sub(s, from, s.n))) {
			at = plain_end(s, from, &p->wrong);
			if (!p->wrong)
				special(p, slice_trim(slice_sub(s, from, at), true));
		} else {
			at = item_end(s, from, &p->wrong);
			if (!p->wrong)
				address(p, slice_sub(s, from, at));
		}
	}
}

int
alias_parse(struct arena *arena, struct slice text, bool lines, size_t max,
    struct alias_items *items_r, const char **why_r)
{
	struct parser p = { .arena = arena, .out = items_r, .max = max };
	unsigned line = 0;

	*items_r = (struct alias_items){ 0 };
	*why_r = NULL;
	if (!lines)
		value(&p, text);
	while (lines && text.n && !p.wrong) {
		struct slice s = slice_trim(slice_split(&text, '\n'), true);

		line++;
		if (s.n && s.p[0] != '#')
			value(&p, s);
	}
	if (!p.wrong)
		return 0;
	*why_r = lines ? arena_printf(arena, "line %u: %s", line, p.wrong) : p.wrong;
	return items_r->n == max ? ERR_LIMIT : ERR_SYNTAX;
}

bool
alias_is_plain(const struct alias_items *items)
{
	for (size_t i = 0; i < items->n; i++)
		if (items->items[i].kind != ALIAS_ADDRESS)
			return false;
	return true;
}

/* Cuts one word off *s into out, which has room for all of *s; false if a quote stays open. */
static bool
word(struct slice *s, unsigned char *out, size_t *n_r)
{
	unsigned char quote = 0;
	size_t n = 0, i;

	for (i = 0; i < s->n && (quote || !is_space(s->p[i])); i++) {
		unsigned char c = s->p[i];

		if (c == quote && quote)
			quote = 0;
		else if (!quote && (c == '"' || c == '\''))
			quote = c;
		else if (c == '\\' && quote != '\'' && i + 1 < s->n)
			out[n++] = s->p[++i];
		else
			out[n++] = c;
	}
	*s = slice_sub(*s, i, s->n);
	*n_r = n;
	return !quote;
}

int
alias_words(struct arena *arena, struct slice line, size_t max, char ***argv_r, size_t *argc_r)
{
	char **argv = arena_alloc(arena, (max + 1) * sizeof(*argv));
	size_t argc = 0;

	*argc_r = 0;
	if (slice_find(line, 0) >= 0)
		return ERR_SYNTAX;
	for (line = slice_trim(line, true); line.n; line = slice_trim(line, true)) {
		unsigned char *out = arena_alloc(arena, line.n + 1);
		size_t n;

		if (argc == max)
			return ERR_LIMIT;
		if (!word(&line, out, &n))
			return ERR_SYNTAX;
		argv[argc++] = (char *)out;
	}
	*argv_r = argv;
	*argc_r = argc;
	return argc ? 0 : ERR_SYNTAX;
}
