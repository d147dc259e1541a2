/*
 * The forgiving parser of header address lists. Runs in the sender's sendmail(1), submission, imapd
 * sessions; the text is hostile. One pass, no recursion: comments are counted, not nested on the
 * stack. Invariant: every round of the loops consumes at least one byte or ends.
 */
#include "mail/address_list.h"

#include "mail/address.h"

enum token_kind { T_END, T_ATOM, T_QUOTED, T_LITERAL, T_SPECIAL };

struct token {
	enum token_kind kind;
	struct slice text; /* T_QUOTED: between the quotes; T_LITERAL: with brackets */
	unsigned char c;   /* T_SPECIAL: the byte */
};

struct parser {
	struct slice in;
	size_t at;
	struct token token;
	struct slice comment; /* the last one seen since the entry began */
	bool spaced;          /* white space or a comment stood before token */
	struct arena *arena;
	size_t max;
	struct address_list *list;
	/* the entry in hand */
	struct buf phrase, local, domain;
	size_t words;
	bool after_word, local_bad;
	bool in_group;
};

static bool
is_wsp(unsigned char c)
{
	return c == ' ' || c == '\t';
}

/* FWS: a line end counts as white space only when white space follows. */
static size_t
fold_length(struct slice s, size_t at)
{
	size_t n = at < s.n && s.p[at] == '\r' ? 1 : 0;

	if (at + n + 1 < s.n && s.p[at + n] == '\n' && is_wsp(s.p[at + n + 1]))
		return n + 1;
	return 0;
}

/* Whether a whole UTF-8 character begins there. Looks no further: the text may be long. */
static bool
utf8_begins(struct slice in, size_t at)
{
	unsigned char c = in.p[at];
	size_t n = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;

	return at + n <= in.n && utf8_valid(slice_sub(in, at, at + n));
}

/* The delimited text that begins at p->at (its opening byte included); *closed_r says whether
 * its end was there. Comments nest, the others do not. */
static struct slice
scan_delimited(struct parser *p, unsigned char open, unsigned char close, bool *closed_r)
{
	size_t start = ++p->at, depth = 1;

	for (; p->at < p->in.n; p->at++) {
		unsigned char c = p->in.p[p->at];
		size_t fold = c == '\r' || c == '\n' ? fold_length(p->in, p->at) : 0;
		if (c == '\\' && p->at + 1 < p->in.n) {
			p->at++;
			if (open == '"' && p->in.p[p->at] >= 0x80 && !utf8_begins(p->in, p->at))
				p->list->errors++;
		} else if (fold) {
			p->at += fold - 1;
		} else if (c == '\r' || c == '\n' || !c) {
			p->list->errors++;
		} else if (open == '(' && c == open) {
			depth++;
		} else if (open == '[' && c == open) {
			p->list->errors++;
		} else if (c == close && !--depth) {
			*closed_r = true;
			return slice_sub(p->in, start, p->at++);
		}
	}
	*closed_r = false;
	p->list->errors++;
	return slice_sub(p->in, start, p->at);
}

static void
skip_cfws(struct parser *p)
{
	bool closed;

	p->spaced = false;
	while (p->at < p->in.n) {
		unsigned char c = p->in.p[p->at];
		size_t fold = fold_length(p->in, p->at);
		if (is_wsp(c)) {
			p->at++;
		} else if (fold) {
			p->at += fold;
		} else if (c == '(') {
			p->comment = scan_delimited(p, '(', ')', &closed);
		} else if (!address_is_atext(c, true) && !(c && strchr(",;:<>@.\"[", c))) {
			p->list->errors++;
			p->at++;
		} else {
			return;
		}
		p->spaced = true;
	}
}

static void
next_token(struct parser *p)
{
	size_t start;
	bool closed;

	skip_cfws(p);
	start = p->at;
	if (start == p->in.n) {
		p->token = (struct token){ .kind = T_END };
		return;
	}
	if (p->in.p[start] == '"') {
		struct slice text = scan_delimited(p, '"', '"', &closed);
		p->token = (struct token){ .kind = T_QUOTED, .text = text };
	} else if (p->in.p[start] == '[') {
		struct slice text = scan_delimited(p, '[', ']', &closed);
		p->token = (struct token){ .kind = T_LITERAL };
		p->token.text = slice(text.p - 1, text.n + (closed ? 2 : 1));
	} else if (address_is_atext(p->in.p[start], true)) {
		while (p->at < p->in.n && address_is_atext(p->in.p[p->at], true))
			p->at++;
		p->token = (struct token){ .kind = T_ATOM, .text = slice_sub(p->in, start, p->at) };
	} else {
		p->token = (struct token){ .kind = T_SPECIAL, .c = p->in.p[p->at++] };
	}
}

static bool
at_special(const struct parser *p, const char *set)
{
	return p->token.kind == T_SPECIAL && strchr(set, p->token.c);
}

/* Quoted pairs resolved, folds taken out. */
static void
add_unescaped(struct buf *out, struct slice s)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '\r' || s.p[i] == '\n')
			continue;
		if (s.p[i] == '\\' && i + 1 < s.n)
			i++;
		buf_add_byte(out, s.p[i]);
	}
}

static void
start_entry(struct parser *p)
{
	buf_clear(&p->phrase);
	buf_clear(&p->local);
	buf_clear(&p->domain);
	p->words = 0;
	p->after_word = p->local_bad = false;
	p->comment = SLICE_NULL;
}

/* One atom, quoted string or dot: part of a display name and of a local-part at once, until the
 * byte after it says which. word = atom / quoted; local-part = word *("." word). */
static void
add_word(struct parser *p)
{
	if (at_special(p, ".")) {
		if (!p->after_word)
			p->local_bad = true;
		p->after_word = false;
		buf_add_byte(&p->local, '.');
		buf_add_byte(&p->phrase, '.');
		return;
	}
	if (p->after_word)
		p->local_bad = true;
	if (buf_len(&p->phrase) && p->spaced)
		buf_add_byte(&p->phrase, ' ');
	p->after_word = true;
	p->words++;
	if (p->token.kind == T_QUOTED) {
		add_unescaped(&p->local, p->token.text);
		add_unescaped(&p->phrase, p->token.text);
	} else {
		buf_add(&p->local, p->token.text);
		buf_add(&p->phrase, p->token.text);
	}
}

/* Leaves the token behind the domain. */
static void
parse_domain(struct parser *p)
{
	bool after_atom = false, dot = false;

	buf_clear(&p->domain);
	for (;; next_token(p)) {
		if (p->token.kind == T_LITERAL) {
			if (after_atom || dot)
				p->list->errors++;
			add_unescaped(&p->domain, p->token.text);
			after_atom = true;
			dot = false;
		} else if (p->token.kind == T_ATOM) {
			if (after_atom) {
				p->list->errors++;
				return;
			}
			buf_add(&p->domain, p->token.text);
			after_atom = true;
			dot = false;
		} else if (at_special(p, ".")) {
			if (!after_atom)
				p->list->errors++;
			buf_add_byte(&p->domain, '.');
			after_atom = false;
			dot = true;
		} else {
			break;
		}
	}
	if (!buf_len(&p->domain) || dot)
		p->list->errors++;
}

static int
add_entry(struct parser *p, struct address_entry entry)
{
	struct address_entry *e;

	if (p->list->count >= p->max)
		return ERR_LIMIT;
	e = arena_alloc(p->arena, sizeof(*e));
	*e = entry;
	STAILQ_INSERT_TAIL(&p->list->entries, e, next);
	p->list->count++;
	return 0;
}

static int
finish_mailbox(struct parser *p, struct slice name, struct slice route)
{
	struct buf text;
	int err;

	if (p->local_bad || !p->words || !p->after_word)
		p->list->errors++;
	if (!p->words && !buf_len(&p->domain))
		return 0;
	buf_init(&text, 0);
	if (!name.n && p->comment.n) {
		add_unescaped(&text, p->comment);
		name = arena_dup(p->arena, buf_slice(&text));
	}
	buf_free(&text);
	err = add_entry(p, (struct address_entry){ .kind = ADDRESS_MAILBOX,
			       .name = name,
			       .route = route,
			       .local = arena_dup(p->arena, buf_slice(&p->local)),
			       .domain = arena_dup(p->arena, buf_slice(&p->domain)) });
	return err;
}

static struct slice
parse_route(struct parser *p)
{
	struct buf route;
	struct slice out;

	buf_init(&route, 0);
	while (at_special(p, "@,")) {
		if (p->token.c == ',') {
			next_token(p);
			continue;
		}
		next_token(p);
		parse_domain(p);
		if (buf_len(&route))
			buf_add_byte(&route, ',');
		buf_add_byte(&route, '@');
		buf_add(&route, buf_slice(&p->domain));
	}
	buf_clear(&p->domain);
	if (at_special(p, ":"))
		next_token(p);
	else
		p->list->errors++;
	out = arena_dup(p->arena, buf_slice(&route));
	buf_free(&route);
	return out;
}

/* Skips to the byte that ends the entry, or to the end. */
static void
resync(struct parser *p, const char *set)
{
	while (p->token.kind != T_END && !at_special(p, set)) {
		p->list->errors++;
		next_token(p);
	}
}

/* angle-addr = "<" [route ":"] addr-spec ">"; the token is the "<". */
static int
parse_angle(struct parser *p)
{
	struct slice name = arena_dup(p->arena, buf_slice(&p->phrase)), route = SLICE_NULL;

	buf_clear(&p->phrase);
	buf_clear(&p->local);
	p->words = 0;
	p->after_word = p->local_bad = false;
	next_token(p);
	if (at_special(p, "@"))
		route = parse_route(p);
	for (; p->token.kind == T_ATOM || p->token.kind == T_QUOTED || at_special(p, ".");
	     next_token(p))
		add_word(p);
	if (at_special(p, "@")) {
		next_token(p);
		parse_domain(p);
	}
	resync(p, ">,;");
	if (at_special(p, ">"))
		next_token(p);
	else
		p->list->errors++;
	return finish_mailbox(p, name, route);
}

static int
start_group(struct parser *p)
{
	if (p->in_group)
		p->list->errors++;
	p->in_group = true;
	next_token(p);
	return add_entry(p, (struct address_entry){ .kind = ADDRESS_GROUP_START,
				.name = arena_dup(p->arena, buf_slice(&p->phrase)) });
}

static int
end_group(struct parser *p)
{
	next_token(p);
	if (!p->in_group) {
		p->list->errors++;
		return 0;
	}
	p->in_group = false;
	return add_entry(p, (struct address_entry){ .kind = ADDRESS_GROUP_END });
}

/* One mailbox or group start; the token is its first. */
static int
parse_entry(struct parser *p)
{
	int err;

	for (; p->token.kind == T_ATOM || p->token.kind == T_QUOTED || at_special(p, ".");
	     next_token(p))
		add_word(p);
	if (at_special(p, ":"))
		return start_group(p);
	if (at_special(p, "<")) {
		err = parse_angle(p);
	} else if (at_special(p, "@")) {
		next_token(p);
		parse_domain(p);
		err = finish_mailbox(p, SLICE_NULL, SLICE_NULL);
	} else {
		err = finish_mailbox(p, SLICE_NULL, SLICE_NULL);
	}
	if (!err)
		resync(p, ",;");
	return err;
}

static int
parse_all(struct parser *p)
{
	int err = 0;

	next_token(p);
	while (!err && p->token.kind != T_END) {
		struct slice comment = p->comment;
		if (at_special(p, ",")) {
			next_token(p);
			continue;
		}
		if (at_special(p, ";")) {
			err = end_group(p);
			continue;
		}
		start_entry(p);
		p->comment = comment;
		if (p->token.kind == T_LITERAL || at_special(p, ">")) {
			p->list->errors++;
			next_token(p);
			continue;
		}
		err = parse_entry(p);
		p->comment = SLICE_NULL;
	}
	if (!err && p->in_group) {
		p->list->errors++;
		err = end_group(p);
	}
	return err;
}

int
address_list_parse(struct slice body, struct arena *arena, size_t max, struct address_list *out_r)
{
	struct parser p = { .in = body, .arena = arena, .max = max, .list = out_r };
	int err;

	STAILQ_INIT(&out_r->entries);
	out_r->count = 0;
	out_r->errors = 0;
	if (body.n && body.p[body.n - 1] == '\n')
		out_r->errors++;
	err = parse_all(&p);
	buf_free(&p.phrase);
	buf_free(&p.local);
	buf_free(&p.domain);
	return err;
}

void
address_entry_mailbox(const struct address_entry *e, struct buf *out)
{
	address_quote_local(e->local, out);
	if (e->domain.n) {
		buf_add_byte(out, '@');
		buf_add(out, e->domain);
	}
}
