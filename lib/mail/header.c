/*
 * Header fields in memory and how to write them. Runs in every daemon that looks into a message;
 * the text is hostile. Invariant: header_next consumes at least one byte unless the text is empty;
 * header_add writes no line end that it did not choose.
 */
#include "mail/header.h"

#include "mail/address.h"
#include "mail/base64.h"

#define FOLD_WIDTH 78

/* The line at the head of s, its end included; *text_r is it without CRLF or LF. */
static struct slice
take_line(struct slice s, struct slice *text_r)
{
	ptrdiff_t lf = slice_find(s, '\n');
	struct slice line = lf < 0 ? s : slice_sub(s, 0, (size_t)lf + 1);

	*text_r = line;
	if (lf >= 0)
		text_r->n--;
	if (text_r->n && text_r->p[text_r->n - 1] == '\r' && lf >= 0)
		text_r->n--;
	return line;
}

static bool
is_wsp(unsigned char c)
{
	return c == ' ' || c == '\t';
}

/* ftext = %d33-57 / %d59-126. */
static bool
is_name(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < 33 || s.p[i] > 126)
			return false;
	return s.n > 0;
}

enum header_step
header_next(struct slice *s, struct header_field *out_r)
{
	struct slice text, line = take_line(*s, &text);
	size_t n = line.n, end = text.n;
	ptrdiff_t colon;

	*out_r = (struct header_field){ .raw = line };
	if (!text.n) {
		*s = slice_sub(*s, n, s->n);
		return HEADER_END;
	}
	while (n < s->n && is_wsp(s->p[n])) {
		line = take_line(slice_sub(*s, n, s->n), &text);
		end = n + text.n;
		n += line.n;
	}
	out_r->raw = slice_sub(*s, 0, n);
	text = slice_sub(*s, 0, end);
	*s = slice_sub(*s, n, s->n);
	colon = slice_find(text, ':');
	if (colon < 0)
		return HEADER_MALFORMED;
	out_r->name = slice_trim(slice_sub(text, 0, (size_t)colon), false);
	if (out_r->name.p != text.p || !is_name(out_r->name))
		return HEADER_MALFORMED;
	out_r->body = slice_sub(text, (size_t)colon + 1, text.n);
	return HEADER_FIELD;
}

int
header_find(struct slice message, const char *name, struct header_field *out_r)
{
	for (;;) {
		switch (header_next(&message, out_r)) {
		case HEADER_END:
			return ERR_NOT_FOUND;
		case HEADER_FIELD:
			if (slice_caseeq_str(out_r->name, name))
				return 0;
			break;
		case HEADER_MALFORMED:
			break;
		}
	}
}

void
header_unfold(struct slice body, struct buf *out)
{
	body = slice_trim(body, true);
	for (size_t i = 0; i < body.n; i++)
		if (body.p[i] != '\r' && body.p[i] != '\n')
			buf_add_byte(out, body.p[i]);
}

/* The end of the word that begins at (blanks before it included). */
static size_t
word_end(struct slice s, size_t at)
{
	while (at < s.n && is_wsp(s.p[at]))
		at++;
	while (at < s.n && !is_wsp(s.p[at]))
		at++;
	return at;
}

void
header_add(struct buf *out, const char *name, struct slice value)
{
	size_t column = strlen(name) + 1;

	value = slice_trim(value, true);
	buf_add_str(out, name);
	buf_add_str(out, ": ");
	column++;
	for (size_t at = 0; at < value.n;) {
		size_t end = word_end(value, at);
		if (at && column + (end - at) > FOLD_WIDTH && is_wsp(value.p[at])) {
			buf_add_str(out, "\r\n");
			column = 0;
		}
		column += end - at;
		for (; at < end; at++) {
			unsigned char c = value.p[at];
			buf_add_byte(out, c == '\r' || c == '\n' || !c ? ' ' : c);
		}
	}
	buf_add_str(out, "\r\n");
}

/* At most 42 octets of text an encoded word (75 characters), never cutting a UTF-8 sequence. */
static void
add_encoded_words(struct buf *out, struct slice text)
{
	bool first = true;

	while (text.n) {
		size_t n = text.n < 42 ? text.n : 42;
		while (n < text.n && n > 1 && (text.p[n] & 0xc0) == 0x80)
			n--;
		buf_add_str(out, first ? "=?utf-8?B?" : " =?utf-8?B?");
		base64_encode(out, slice_sub(text, 0, n));
		buf_add_str(out, "?=");
		text = slice_sub(text, n, text.n);
		first = false;
	}
}

void
header_add_phrase(struct buf *out, struct slice text)
{
	bool atoms = text.n > 0, plain = true;

	for (size_t i = 0; i < text.n; i++) {
		unsigned char c = text.p[i];
		if (c >= 127 || c < 32)
			plain = false;
		if (!address_is_atext(c, false) && c != ' ')
			atoms = false;
	}
	if (!plain) {
		add_encoded_words(out, text);
	} else if (atoms) {
		buf_add(out, text);
	} else {
		buf_add_byte(out, '"');
		for (size_t i = 0; i < text.n; i++) {
			if (text.p[i] == '"' || text.p[i] == '\\')
				buf_add_byte(out, '\\');
			buf_add_byte(out, text.p[i]);
		}
		buf_add_byte(out, '"');
	}
}
