/*
 * Decoders of mail text. Run in imapd-child (FETCH BINARY, SEARCH) on hostile messages. Invariants:
 * each is linear in its input, keeps a bounded state, and never fails: what is malformed is shown
 * as far as it goes.
 */
#include "mail/decode.h"
#include "mail/base64.h"

#include <stdio.h>
#include <unicase.h>
#include <uninorm.h>

void
transfer_decode_start(struct transfer_decoder *d, enum mime_encoding encoding)
{
	d->encoding = encoding;
	d->bits = d->count = d->held_len = 0;
	d->ended = d->broken = false;
	d->blanks = 0;
}

static void
base64_flush(struct transfer_decoder *d, struct buf *out)
{
	unsigned char three[3] = { (unsigned char)(d->bits >> 16), (unsigned char)(d->bits >> 8),
		(unsigned char)d->bits };

	buf_add(out, slice(three, d->count > 0 ? d->count - 1 : 0));
	d->bits = d->count = 0;
}

static void
base64_end(struct transfer_decoder *d, struct buf *out)
{
	if (d->count == 1)
		d->broken = true;
	d->bits <<= 6 * (4 - d->count);
	if (d->count)
		base64_flush(d, out);
	d->count = 0;
}

static void
base64_feed(struct transfer_decoder *d, struct slice in, struct buf *out)
{
	for (size_t i = 0; i < in.n; i++) {
		int six = base64_value(in.p[i]);

		if (six >= 0) {
			if (d->ended) /* a second encoding put behind the first */
				d->ended = false;
			d->bits = d->bits << 6 | (uint32_t)six;
			if (++d->count == 4)
				base64_flush(d, out);
		} else if (in.p[i] == '=') {
			base64_end(d, out);
			d->ended = true;
		} else if (in.p[i] != '\r' && in.p[i] != '\n' && in.p[i] != ' ' &&
			   in.p[i] != '\t') {
			d->broken = true;
		}
	}
}

static int
hex_value(unsigned char c)
{
	if (ascii_is_digit(c))
		return c - '0';
	c = ascii_upper(c);
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void
qp_blanks(struct transfer_decoder *d, struct buf *out)
{
	buf_add(out, slice(d->blank, d->blanks));
	d->blanks = 0;
}

/* The byte after "=" or "=X". */
static void
qp_escape(struct transfer_decoder *d, unsigned char c, struct buf *out)
{
	if (d->held_len == 1 && c == '\n') {
		d->held_len = 0;
		return;
	}
	if (d->held_len == 2 && d->held[1] == '\r') {
		d->held_len = 0;
		if (c == '\n')
			return;
		d->broken = true;
		buf_add_byte(out, '\r');
	}
	if (d->held_len == 1) {
		/* Blanks between a soft break's "=" and the line end are dropped. */
		if (c == ' ' || c == '\t')
			return;
		if (hex_value(c) >= 0 || c == '\r') {
			d->held[d->held_len++] = c;
			return;
		}
	} else if (d->held_len == 2 && hex_value(c) >= 0) {
		buf_add_byte(out, (unsigned char)(hex_value(d->held[1]) << 4 | hex_value(c)));
		d->held_len = 0;
		return;
	}
	if (d->held_len) {
		d->broken = true;
		buf_add(out, slice(d->held, d->held_len));
		d->held_len = 0;
	}
	transfer_decode(d, slice(&c, 1), out);
}

static void
qp_feed(struct transfer_decoder *d, struct slice in, struct buf *out)
{
	for (size_t i = 0; i < in.n; i++) {
		unsigned char c = in.p[i];

		if (d->held_len) {
			qp_escape(d, c, out);
		} else if (c == '=') {
			qp_blanks(d, out);
			d->held[0] = '=';
			d->held_len = 1;
		} else if (c == ' ' || c == '\t') {
			if (d->blanks == sizeof(d->blank))
				qp_blanks(d, out);
			d->blank[d->blanks++] = c;
		} else {
			/* Blanks before a line end were added on the way (RFC 2045 section 6.7
			 * (3)). */
			if (c == '\r' || c == '\n')
				d->blanks = 0;
			else
				qp_blanks(d, out);
			buf_add_byte(out, c);
		}
	}
}

void
transfer_decode(struct transfer_decoder *d, struct slice in, struct buf *out)
{
	if (d->encoding == MIME_BASE64)
		base64_feed(d, in, out);
	else if (d->encoding == MIME_QP)
		qp_feed(d, in, out);
	else
		buf_add(out, in);
}

void
transfer_decode_end(struct transfer_decoder *d, struct buf *out)
{
	if (d->encoding == MIME_BASE64) {
		base64_end(d, out);
	} else if (d->encoding == MIME_QP) {
		if (d->held_len > 1) {
			d->broken = true;
			buf_add(out, slice(d->held, d->held_len));
		}
		d->held_len = 0;
		d->blanks = 0;
	}
}

/* --- encoded words --- */

static void
decode_q(struct slice text, struct buf *out)
{
	for (size_t i = 0; i < text.n; i++) {
		unsigned char c = text.p[i];

		if (c == '=' && i + 2 < text.n && hex_value(text.p[i + 1]) >= 0 &&
		    hex_value(text.p[i + 2]) >= 0) {
			c = (unsigned char)(hex_value(text.p[i + 1]) << 4 |
					    hex_value(text.p[i + 2]));
			i += 2;
		} else if (c == '_') {
			c = ' ';
		}
		buf_add_byte(out, c);
	}
}

struct word {
	struct slice charset, text;
	bool base64;
	size_t n; /* of the whole word */
};

/* encoded-word = "=?" charset ["*" language] "?" encoding "?" encoded-text "?=" */
static bool
read_word(struct slice in, struct word *w)
{
	struct slice rest = slice_sub(in, 2, in.n), encoding;
	ptrdiff_t at, star;

	if (in.n < 6 || in.p[0] != '=' || in.p[1] != '?')
		return false;
	at = slice_find(rest, '?');
	if (at <= 0 || at > 64)
		return false;
	w->charset = slice_sub(rest, 0, (size_t)at);
	star = slice_find(w->charset, '*');
	if (star >= 0)
		w->charset.n = (size_t)star;
	rest = slice_sub(rest, (size_t)at + 1, rest.n);
	encoding = slice_sub(rest, 0, 2);
	if (encoding.n < 2 || encoding.p[1] != '?')
		return false;
	w->base64 = ascii_upper(encoding.p[0]) == 'B';
	if (!w->base64 && ascii_upper(encoding.p[0]) != 'Q')
		return false;
	w->text = slice_sub(rest, 2, rest.n);
	at = slice_search(slice_sub(w->text, 0, 4096), SLICE_LIT("?="));
	if (at < 0)
		return false;
	w->text.n = (size_t)at;
	for (size_t i = 0; i < w->text.n; i++)
		if (w->text.p[i] == '\r' || w->text.p[i] == '\n')
			return false;
	w->n = (size_t)(w->text.p + w->text.n + 2 - in.p);
	return true;
}

/* Encoded words side by side in one charset are decoded together: a character may be cut between
 * them. */
struct pending {
	struct slice charset;
	struct buf bytes;
};

static void
flush_words(struct charsets *c, struct pending *p, struct buf *out)
{
	if (p->charset.n)
		(void)charset_decode(c, p->charset, buf_slice(&p->bytes), out);
	p->charset = SLICE_NULL;
	buf_clear(&p->bytes);
}

static void
add_word(struct charsets *c, struct pending *p, const struct word *w, struct buf *out)
{
	if (!slice_caseeq(p->charset, w->charset))
		flush_words(c, p, out);
	p->charset = w->charset;
	if (w->base64) {
		struct transfer_decoder d;

		transfer_decode_start(&d, MIME_BASE64);
		transfer_decode(&d, w->text, &p->bytes);
		transfer_decode_end(&d, &p->bytes);
	} else {
		decode_q(w->text, &p->bytes);
	}
}

static bool
is_blank(unsigned char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

void
decode_header(struct charsets *c, struct slice value, struct buf *out)
{
	struct arena arena = { 0 };
	struct pending pending = { 0 };
	struct slice in = mime_unfold(value, &arena);
	size_t from = 0, i = 0;
	bool after_word = false; /* only blanks since an encoded word */

	while (i < in.n) {
		struct word w;

		if (in.p[i] == '=' && read_word(slice_sub(in, i, in.n), &w)) {
			if (!after_word) {
				flush_words(c, &pending, out);
				utf8_repair(slice_sub(in, from, i), out);
			}
			add_word(c, &pending, &w, out);
			i += w.n;
			from = i;
			after_word = true;
			continue;
		}
		if (after_word && !is_blank(in.p[i])) {
			flush_words(c, &pending, out);
			after_word = false;
		}
		i++;
	}
	flush_words(c, &pending, out);
	if (!after_word)
		utf8_repair(slice_sub(in, from, in.n), out);
	buf_free(&pending.bytes);
	arena_free(&arena);
}

/* --- parameters --- */

static void
percent_decode(struct slice in, struct buf *out)
{
	for (size_t i = 0; i < in.n; i++) {
		if (in.p[i] == '%' && i + 2 < in.n && hex_value(in.p[i + 1]) >= 0 &&
		    hex_value(in.p[i + 2]) >= 0) {
			buf_add_byte(out,
			    (unsigned char)(hex_value(in.p[i + 1]) << 4 | hex_value(in.p[i + 2])));
			i += 2;
		} else {
			buf_add_byte(out, in.p[i]);
		}
	}
}

/* name "*" number ["*"]: the piece and whether it is percent-encoded. */
static const struct mime_param *
find_piece(const struct mime_param *params, const char *name, unsigned number, bool *encoded_r)
{
	char plain[96], star[100];

	(void)snprintf(plain, sizeof(plain), "%s*%u", name, number);
	(void)snprintf(star, sizeof(star), "%s*", plain);
	for (; params; params = params->next) {
		*encoded_r = slice_caseeq_str(params->name, star);
		if (*encoded_r || slice_caseeq_str(params->name, plain))
			return params;
	}
	return NULL;
}

/* charset "'" language "'" text */
static struct slice
cut_charset(struct slice *value)
{
	struct slice charset, rest = *value;

	if (slice_find(rest, '\'') < 0)
		return SLICE_NULL;
	charset = slice_split(&rest, '\'');
	if (slice_find(rest, '\'') < 0)
		return SLICE_NULL;
	(void)slice_split(&rest, '\'');
	*value = rest;
	return charset;
}

static bool
decode_pieces(
    struct charsets *c, const struct mime_param *params, const char *name, struct buf *out)
{
	struct buf bytes = { 0 };
	struct slice charset = SLICE_NULL;
	const struct mime_param *p;
	bool encoded, found = false;
	char star[100];

	(void)snprintf(star, sizeof(star), "%s*", name);
	p = mime_param_find(params, star);
	if (p) {
		struct slice value = p->value;

		charset = cut_charset(&value);
		percent_decode(value, &bytes);
		found = true;
	}
	for (unsigned i = 0; !p && i < 1000; i++) {
		const struct mime_param *piece = find_piece(params, name, i, &encoded);
		struct slice value;

		if (!piece)
			break;
		value = piece->value;
		if (i == 0 && encoded)
			charset = cut_charset(&value);
		if (encoded)
			percent_decode(value, &bytes);
		else
			buf_add(&bytes, value);
		found = true;
	}
	if (found)
		(void)charset_decode(c, charset, buf_slice(&bytes), out);
	buf_free(&bytes);
	return found;
}

bool
decode_param(struct charsets *c, const struct mime_param *params, const char *name, struct buf *out)
{
	const struct mime_param *p;

	if (decode_pieces(c, params, name, out))
		return true;
	p = mime_param_find(params, name);
	if (p)
		decode_header(c, p->value, out);
	return p != NULL;
}

/* --- folding --- */

/* Decomposes again what a decomposition gave; at most a few levels deep in Unicode, 18 characters
 * wide. */
static void
decompose(uint32_t code, struct buf *out, unsigned level)
{
	ucs4_t parts[UC_DECOMPOSITION_MAX_LENGTH];
	int tag;
	int n = level < 8 ? uc_decomposition(code, &tag, parts) : -1;

	if (n < 0) {
		/* A ligature gives lower-case letters: folded once more, which RFC 5051 forgot. */
		utf8_put(out, code < 0x80 ? ascii_upper((unsigned char)code) : uc_totitle(code));
		return;
	}
	for (int i = 0; i < n; i++)
		decompose(parts[i], out, level + 1);
}

void
casemap_fold(struct slice in, struct buf *out)
{
	size_t i = 0;

	while (i < in.n) {
		unsigned char ascii[256];
		size_t n = 0;
		uint32_t code;

		while (i < in.n && in.p[i] < 0x80 && n < sizeof(ascii))
			ascii[n++] = ascii_upper(in.p[i++]);
		buf_add(out, slice(ascii, n));
		if (i >= in.n || in.p[i] < 0x80)
			continue;
		n = utf8_next(slice_sub(in, i, in.n), &code);
		i += n ? n : 1;
		decompose(uc_totitle(code), out, 0);
	}
}
