/*
 * Decoding of what MIME encodes: transfer encodings (RFC 2045 section 6) as a stream, encoded words
 * (RFC 2047), parameters (RFC 2231), and the folding that case-insensitive search compares by (RFC
 * 5051).
 */
#ifndef MAIL_DECODE_H
#define MAIL_DECODE_H

#include "mail/charset.h"
#include "mail/mime.h"

struct transfer_decoder {
	enum mime_encoding encoding;
	uint32_t bits;         /* base64: collected so far */
	unsigned count;        /* base64: characters in bits */
	bool ended;            /* base64: padding was seen */
	bool broken;           /* something was malformed */
	unsigned char held[2]; /* quoted-printable: "=" or "=X" */
	unsigned held_len;
	size_t blanks; /* quoted-printable: blanks that a line end would drop, at most 998 */
	unsigned char blank[998];
};

void transfer_decode_start(struct transfer_decoder *d, enum mime_encoding encoding);
/* Appends what can be decoded; malformed input is passed over (base64) or taken literally
 * (quoted-printable) and noted in d->broken. 7bit, 8bit, binary and unknown go through. */
void transfer_decode(struct transfer_decoder *d, struct slice in, struct buf *out);
void transfer_decode_end(struct transfer_decoder *d, struct buf *out);

/* A header value as UTF-8: unfolded, encoded words decoded, other bytes as charset_decode does it
 * without a charset. Each output is at most three times the input. */
void decode_header(struct charsets *c, struct slice value, struct buf *out);

/* The parameter as UTF-8, its RFC 2231 pieces joined and decoded, else with encoded words decoded
 * (not in the RFCs, but met everywhere). False if there is none. */
bool decode_param(
    struct charsets *c, const struct mime_param *params, const char *name, struct buf *out);

/* i;unicode-casemap (RFC 5051): title case, full compatibility decomposition. in is UTF-8
 * (malformed bytes give U+FFFD). */
void casemap_fold(struct slice in, struct buf *out);

#endif
