/*
 * Completes the bare addresses of a header field in place: "@origin" behind a local part that has
 * no domain, ".domain" behind a domain without a dot; all other bytes stay. Runs in sendmail(1), on
 * what its caller wrote. What is no address (two words, a broken quote) is left alone.
 */
#include "mail/address_list.h"

#include <string.h>

/* One element of the list, up to its comma: what was seen since its start, or since "<". */
struct element {
	size_t end; /* behind the last word */
	unsigned words, dots, ats, domain_dots;
	bool bad, literal, after_dot, angle, closed;
};

struct completion {
	struct slice in;
	const char *origin, *domain;
	struct element e;
	size_t done; /* copied up to here */
	unsigned added;
	struct buf *out;
};

static void
insert(struct completion *c, char mark, const char *text)
{
	buf_add(c->out, slice_sub(c->in, c->done, c->e.end));
	buf_addf(c->out, "%c%s", mark, text);
	c->done = c->e.end;
	c->added++;
}

static void
complete(struct completion *c)
{
	const struct element *e = &c->e;

	if (e->bad || !e->words || e->literal || e->after_dot || e->ats > 1)
		return;
	if (!e->ats && c->origin && e->words == e->dots + 1)
		insert(c, '@', c->origin);
	else if (e->ats && c->domain && !e->domain_dots)
		insert(c, '.', c->domain);
}

/* Behind the quoted string, comment or literal that begins at i; n if it does not end. */
static size_t
skip_enclosed(struct slice s, size_t i)
{
	unsigned char open = s.p[i];
	unsigned char close = open == '(' ? ')' : open == '[' ? ']' : '"';
	size_t depth = 0;

	for (; i < s.n; i++) {
		if (s.p[i] == '\\')
			i++;
		else if (open == '(' && s.p[i] == '(')
			depth++;
		else if (s.p[i] == close && (open == '(' ? --depth == 0 : depth++ > 0))
			return i + 1;
		else if (open == '[' && s.p[i] == '[')
			depth++;
	}
	return s.n + 1;
}

static bool
is_atom(unsigned char ch)
{
	return ch > 32 && ch != 127 && !strchr("()<>[]:;@\\,.\"", ch);
}

static void
take_word(struct completion *c, size_t end)
{
	struct element *e = &c->e;

	/* words side by side are a display name, unless they stand in brackets */
	if (e->closed || (e->words && !e->after_dot))
		e->bad = true;
	e->words++;
	e->after_dot = false;
	e->end = end;
}

static void
take_special(struct completion *c, unsigned char ch)
{
	struct element *e = &c->e;

	switch (ch) {
	case '<':
		c->e = (struct element){ .angle = true };
		break;
	case '>':
		complete(c);
		c->e = (struct element){ .closed = true, .bad = true };
		break;
	case ',':
	case ';':
		if (e->angle) /* an obsolete route */
			e->bad = true;
		else {
			complete(c);
			c->e = (struct element){ 0 };
		}
		break;
	case ':': /* the name of a group ends */
		c->e = (struct element){ .bad = e->angle, .angle = e->angle };
		break;
	case '.':
		e->dots += !e->ats;
		e->domain_dots += e->ats;
		e->bad |= !e->words || e->after_dot;
		e->after_dot = true;
		break;
	case '@':
		e->ats++;
		e->bad |= !e->words || e->after_dot;
		e->after_dot = true;
		break;
	default:
		e->bad = true;
	}
}

unsigned
address_complete(struct slice body, const char *origin, const char *domain, struct buf *out)
{
	struct completion c = { .in = body, .origin = origin, .domain = domain, .out = out };

	for (size_t i = 0; i < body.n;) {
		unsigned char ch = body.p[i];
		size_t end = i + 1;

		if (ch == '"' || ch == '(' || ch == '[') {
			end = skip_enclosed(body, i);
			if (end > body.n) {
				c.e.bad = true;
				break;
			}
			if (ch == '[')
				c.e.literal = true;
			if (ch != '(')
				take_word(&c, end);
		} else if (is_atom(ch)) {
			while (end < body.n && is_atom(body.p[end]))
				end++;
			take_word(&c, end);
		} else if (ch > 32) {
			take_special(&c, ch);
		}
		i = end;
	}
	if (!c.e.angle)
		complete(&c);
	buf_add(out, slice_sub(body, c.done, body.n));
	return c.added;
}
