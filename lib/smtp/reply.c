/*
 * Replies, both ways. Writing runs in the receivers: text may hold what a client sent, so every
 * octet is made printable here and a reply can never hold a line end that we did not mean. Reading
 * runs in smtp-client on hostile input. Invariant: all lines of one reply bear one code.
 */
#include "smtp/reply.h"

#include <stdio.h>

struct reply
reply_make(unsigned code, const char *enhanced, const char *text)
{
	return (struct reply){ code, slice_str(enhanced), slice_str(text), NULL };
}

static size_t
digits_at(struct slice s, size_t at)
{
	size_t n = 0;

	while (at + n < s.n && n < 4 && ascii_is_digit(s.p[at + n]))
		n++;
	return n;
}

/* The length of an enhanced code at the head of s, 0 if there is none. */
static size_t
enhanced_length(struct slice s)
{
	size_t at = 1;

	if (s.n < 5 || !strchr("245", s.p[0]) || !s.p[0])
		return 0;
	for (int part = 0; part < 2; part++) {
		size_t n;
		if (at >= s.n || s.p[at] != '.')
			return 0;
		n = digits_at(s, at + 1);
		if (n < 1 || n > 3)
			return 0;
		at += 1 + n;
	}
	return at;
}

static bool
reply_enhanced_valid(struct slice s)
{
	return s.n && enhanced_length(s) == s.n;
}

static void
add_printable(struct buf *out, struct slice s, size_t max)
{
	unsigned char *p;

	if (s.n > max)
		s.n = max;
	p = buf_reserve(out, s.n);
	if (!p)
		return;
	for (size_t i = 0; i < s.n; i++)
		p[i] = s.p[i] >= 32 && s.p[i] < 127 ? s.p[i] : '?';
	buf_commit(out, s.n);
}

void
reply_format(struct buf *out, const struct reply *r, bool enhanced)
{
	struct slice rest = r->text, code = r->enhanced;
	char fallback[8], head[4];
	bool more = true;

	snprintf(head, sizeof(head), "%03u", r->code % 1000);
	enhanced = enhanced && r->code / 100 != 3;
	if (enhanced && (!reply_enhanced_valid(code) || code.p[0] != (unsigned char)head[0])) {
		snprintf(fallback, sizeof(fallback), "%c.0.0", head[0]);
		enhanced = code.n > 0;
		code = slice_str(fallback);
	}
	while (more) {
		size_t room = REPLY_LINE_MAX - 6;
		struct slice line;
		more = slice_find(rest, '\n') >= 0;
		line = slice_split(&rest, '\n');
		buf_add_str(out, head);
		buf_add_byte(out, more ? '-' : ' ');
		if (enhanced) {
			buf_add(out, code);
			buf_add_byte(out, ' ');
			room -= code.n + 1;
		}
		add_printable(out, line, room);
		buf_add_str(out, "\r\n");
	}
}

static int
start_reply(struct reply_reader *r, unsigned code, struct slice text)
{
	size_t n = enhanced_length(text);

	r->code = code;
	r->lines = 0;
	r->done = false;
	buf_clear(&r->text);
	r->enhanced[0] = '\0';
	if (n && (n == text.n || text.p[n] == ' ') && text.p[0] == '0' + code / 100)
		return slice_copy(slice_sub(text, 0, n), r->enhanced, sizeof(r->enhanced));
	return 0;
}

/* Text of one line: without the enhanced code that the first line had. */
static void
add_text(struct reply_reader *r, struct slice text)
{
	size_t limit = r->text_limit ? r->text_limit : 8192, have = buf_len(&r->text);
	size_t n = strlen(r->enhanced);

	if (n && slice_has_prefix(text, r->enhanced) && (text.n == n || text.p[n] == ' '))
		text = slice_sub(text, n + 1, text.n);
	if (r->lines > 1 && have < limit)
		buf_add_byte(&r->text, '\n');
	have = buf_len(&r->text);
	buf_add(&r->text, slice_sub(text, 0, have < limit ? limit - have : 0));
}

int
reply_read(struct reply_reader *r, struct slice line, struct reply *out_r)
{
	uint64_t code;
	bool more;
	int err;

	if (line.n < 3 || slice_u64(slice_sub(line, 0, 3), 599, &code) || code < 200 ||
	    (line.n > 3 && line.p[3] != ' ' && line.p[3] != '-'))
		return ERR_SYNTAX;
	more = line.n > 3 && line.p[3] == '-';
	line = slice_sub(line, 4, line.n);
	if (!r->lines || r->done) {
		err = start_reply(r, (unsigned)code, line);
		if (err)
			return err;
	}
	if (r->code != code)
		return ERR_SYNTAX;
	if (++r->lines > (r->line_limit ? r->line_limit : 200))
		return ERR_LIMIT;
	add_text(r, line);
	if (more)
		return 0;
	r->done = true;
	*out_r = (struct reply){ r->code, slice_str(r->enhanced), buf_slice(&r->text), NULL };
	return 1;
}

void
reply_reader_free(struct reply_reader *r)
{
	buf_free(&r->text);
}
