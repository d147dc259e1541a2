/*
 * The way from 8-bit and binary content to 7-bit lines. Runs in smtp-client (bh-client) on content
 * that strangers wrote, on the rare way to a server without 8BITMIME or BINARYMIME. Invariants:
 * what lies between and around the parts is copied as it is; a part's body is either copied or
 * encoded as a whole; the walk follows a tree whose depth lib/mail bounds.
 */
#include "smtp/client_convert.h"

#include "mail/base64.h"
#include "mail/mime.h"

enum { LINE_MAX_7BIT = 998, LINE_ENCODED = 76, BASE64_CHUNK = 57 };

struct convert {
	struct slice in;
	struct buf *out;
};

static struct slice
range(const struct convert *c, uint64_t from, uint64_t to)
{
	return slice_sub(c->in, (size_t)from, (size_t)to);
}

/* Whether the body cannot go as it is: 8-bit bytes, NUL, bare CR or LF, long lines. Counts what
 * quoted-printable would have to quote. */
static bool
needs_encoding(struct slice body, size_t *quoted_r)
{
	size_t line = 0;
	bool needs = false;

	*quoted_r = 0;
	for (size_t i = 0; i < body.n; i++) {
		unsigned char ch = body.p[i];

		if (ch == '\r' && i + 1 < body.n && body.p[i + 1] == '\n') {
			i++;
			line = 0;
			continue;
		}
		if (ch >= 0x80 || ch == 0 || ch == '\r' || ch == '\n' || ++line > LINE_MAX_7BIT)
			needs = true;
		if (ch >= 0x7f || ch == '=' || (ch < ' ' && ch != '\t'))
			++*quoted_r;
	}
	return needs;
}

static void
put_base64(struct buf *out, struct slice body, bool last)
{
	while (body.n) {
		struct slice chunk = slice_sub(body, 0, BASE64_CHUNK);

		base64_encode(out, chunk);
		body = slice_sub(body, chunk.n, body.n);
		if (body.n || last)
			buf_add_str(out, "\r\n");
	}
}

/* One line without its end; RFC 2045 6.7: blanks at the end are quoted, lines broken at 76. */
static void
put_quoted_line(struct buf *out, struct slice line)
{
	size_t column = 0;

	for (size_t i = 0; i < line.n; i++) {
		unsigned char ch = line.p[i];
		bool blank = ch == ' ' || ch == '\t';
		bool quote = ch >= 0x7f || ch == '=' || (ch < ' ' && ch != '\t') ||
			     (blank && i + 1 == line.n);
		size_t width = quote ? 3 : 1;

		if (column + width > LINE_ENCODED - 1) {
			buf_add_str(out, "=\r\n");
			column = 0;
			if (ch == '-') { /* must not become a boundary */
				quote = true;
				width = 3;
			}
		}
		if (quote)
			buf_addf(out, "=%02X", ch);
		else
			buf_add_byte(out, ch);
		column += width;
	}
}

static void
put_quoted(struct buf *out, struct slice body)
{
	while (body.n) {
		ptrdiff_t end = slice_search(body, SLICE_LIT("\r\n"));

		put_quoted_line(out, end < 0 ? body : slice_sub(body, 0, (size_t)end));
		if (end < 0)
			return;
		buf_add_str(out, "\r\n");
		body = slice_sub(body, (size_t)end + 2, body.n);
	}
}

/* The field at the head of s with its continuation lines, cut off s. */
static struct slice
take_field(struct slice *s)
{
	size_t n = 0;

	do {
		ptrdiff_t lf = slice_find(slice_sub(*s, n, s->n), '\n');

		n = lf < 0 ? s->n : n + (size_t)lf + 1;
	} while (n < s->n && (s->p[n] == ' ' || s->p[n] == '\t'));
	struct slice field = slice_sub(*s, 0, n);

	*s = slice_sub(*s, n, s->n);
	return field;
}

static bool
is_blank_line(struct slice s)
{
	return slice_eq_str(s, "\r\n") || slice_eq_str(s, "\n");
}

/* Blanks before the colon are obsolete (RFC 5322 4.5), and mail/mime.h reads such a field too. */
static bool
is_field(struct slice field, const char *name)
{
	return slice_caseeq_str(slice_trim(slice_split(&field, ':'), false), name);
}

/* The header block with another Content-Transfer-Encoding; NULL leaves it as it is. A field that is
 * there is changed in its place and keeps its end: the last one of a header without a body has
 * none, and one more line would make a body. */
static void
put_header(struct convert *c, const struct mime_part *part, const char *encoding)
{
	struct slice rest = range(c, part->header_at, part->body_at);
	bool versioned = false, ended = false, encoded = false;

	if (!encoding) {
		buf_add(c->out, rest);
		return;
	}
	while (rest.n) {
		struct slice field = take_field(&rest);

		if (is_blank_line(field)) {
			ended = true;
			break;
		}
		versioned = versioned || is_field(field, "MIME-Version");
		if (!is_field(field, "Content-Transfer-Encoding")) {
			buf_add(c->out, field);
			continue;
		}
		buf_addf(c->out, "Content-Transfer-Encoding: %s%s", encoding,
		    field.p[field.n - 1] == '\n' ? "\r\n" : "");
		encoded = true;
	}
	if (!ended) /* nothing follows that a field would be about */
		return;
	if (part->root && !versioned) {
		buf_add_str(c->out, "MIME-Version: 1.0\r\n");
		if (!part->typed)
			buf_add_str(c->out, "Content-Type: text/plain; charset=unknown-8bit\r\n");
	}
	if (!encoded)
		buf_addf(c->out, "Content-Transfer-Encoding: %s\r\n", encoding);
	buf_add_str(c->out, "\r\n");
}

static void
put_leaf(struct convert *c, const struct mime_part *part)
{
	struct slice body = range(c, part->body_at, part->end);
	bool declared = part->encoding == MIME_8BIT || part->encoding == MIME_BINARY;
	bool text = slice_caseeq_str(part->type, "text") && part->encoding != MIME_BINARY;
	size_t quoted;

	if ((!declared && part->encoding != MIME_7BIT) || !needs_encoding(body, &quoted)) {
		put_header(c, part, declared ? "7bit" : NULL);
		buf_add(c->out, body);
	} else if (text && quoted * 6 < body.n) {
		put_header(c, part, "quoted-printable");
		put_quoted(c->out, body);
	} else {
		put_header(c, part, "base64");
		put_base64(c->out, body, part->parent == NULL);
	}
}

static void
put_part(struct convert *c, const struct mime_part *part)
{
	bool declared = part->encoding == MIME_8BIT || part->encoding == MIME_BINARY;
	uint64_t at = part->body_at;

	if (part->kind == MIME_LEAF) {
		put_leaf(c, part);
		return;
	}
	put_header(c, part, declared ? "7bit" : NULL);
	for (const struct mime_part *child = part->children; child; child = child->next) {
		buf_add(c->out, range(c, at, child->header_at));
		put_part(c, child);
		at = child->end;
	}
	buf_add(c->out, range(c, at, part->end));
}

void
client_convert(struct slice message, struct buf *out)
{
	struct mime *m = mime_new(&mime_default_limits);
	struct convert c = { message, out };
	const struct mime_part *root;

	mime_feed(m, message);
	root = mime_finish(m);
	put_part(&c, root);
	buf_add(out, range(&c, root->end, message.n));
	mime_free(&m);
}
