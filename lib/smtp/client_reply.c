/*
 * The reply reader of the outbound engine. Runs in smtp-client (bh-client) on bytes from servers
 * that nobody has to trust. Invariants: what is kept is bounded by the constants of the header; all
 * lines of a reply carry the same code; what is handed on is valid UTF-8 and holds no control
 * character but the LF between lines, so it may go into a log, a notice or a reply of our own.
 */
#include "smtp/client_reply.h"

#include "mail/domain.h"

void
client_reply_free(struct client_reply_reader *r)
{
	buf_free(&r->line);
	buf_free(&r->text);
	*r = (struct client_reply_reader){ 0 };
}

/* RFC 2034 4: status-code = class "." subject "." detail, then SP or the end of the line; the class
 * must agree with the reply code. Returns its length, 0 if there is none. */
static size_t
enhanced_length(struct slice s, unsigned code)
{
	size_t i = 2, digits;

	if (s.n < 5 || s.p[0] != '0' + code / 100 || code / 100 == 3 || s.p[1] != '.')
		return 0;
	for (digits = 0; i < s.n && ascii_is_digit(s.p[i]); i++)
		digits++;
	if (digits < 1 || digits > 3 || i >= s.n || s.p[i++] != '.')
		return 0;
	for (digits = 0; i < s.n && ascii_is_digit(s.p[i]); i++)
		digits++;
	if (digits < 1 || digits > 3 || (i < s.n && s.p[i] != ' '))
		return 0;
	return i;
}

static int
add_text(struct client_reply_reader *r, struct slice s)
{
	bool utf8 = utf8_valid(s);

	if (buf_len(&r->text) + s.n + 1 > CLIENT_REPLY_TEXT_MAX)
		return ERR_LIMIT;
	if (r->lines > 1)
		buf_add_byte(&r->text, '\n');
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = s.p[i];

		if (c == '\t')
			c = ' ';
		else if (c < ' ' || c == 0x7f || (c > 0x7f && !utf8))
			c = '?';
		buf_add_byte(&r->text, c);
	}
	return 0;
}

/* One whole line without its end: 1 if it was the last of its reply. */
static int
take_line(struct client_reply_reader *r, struct slice s)
{
	unsigned code;
	size_t n;
	int err;

	if (s.n < 3 || s.p[0] < '2' || s.p[0] > '5' || !ascii_is_digit(s.p[1]) ||
	    !ascii_is_digit(s.p[2]) || (s.n > 3 && s.p[3] != ' ' && s.p[3] != '-'))
		return ERR_SYNTAX;
	code = (unsigned)(s.p[0] - '0') * 100 + (unsigned)(s.p[1] - '0') * 10 +
	       (unsigned)(s.p[2] - '0');
	if (r->lines && code != r->code)
		return ERR_SYNTAX;
	if (++r->lines > CLIENT_REPLY_LINES_MAX)
		return ERR_LIMIT;
	r->code = code;
	bool last = s.n == 3 || s.p[3] == ' ';

	s = slice_sub(s, 4, s.n);
	n = enhanced_length(s, code);
	if (n) {
		if (!r->enhanced[0] &&
		    slice_copy(slice_sub(s, 0, n), r->enhanced, sizeof(r->enhanced)))
			return ERR_SYNTAX;
		s = slice_sub(s, n + 1, s.n);
	}
	err = add_text(r, s);
	return err ? err : last;
}

int
client_reply_read(struct client_reply_reader *r, struct slice *in, struct client_reply *reply_r)
{
	if (r->done) {
		buf_clear(&r->text);
		r->lines = r->code = 0;
		r->enhanced[0] = '\0';
		r->done = false;
	}
	while (in->n) {
		ptrdiff_t lf = slice_find(*in, '\n');
		size_t n = lf < 0 ? in->n : (size_t)lf;
		struct slice line;
		int got;

		if (buf_len(&r->line) + n > CLIENT_REPLY_LINE_MAX)
			return ERR_LIMIT;
		buf_add(&r->line, slice_sub(*in, 0, n));
		*in = slice_sub(*in, lf < 0 ? n : n + 1, in->n);
		if (lf < 0)
			return 0;
		line = buf_slice(&r->line);
		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		got = take_line(r, line);
		buf_clear(&r->line);
		if (got < 0)
			return got;
		if (got) {
			r->done = true;
			*reply_r =
			    (struct client_reply){ .code = r->code, .text = buf_slice(&r->text) };
			memcpy(reply_r->enhanced, r->enhanced, sizeof(r->enhanced));
			return 1;
		}
	}
	return 0;
}
