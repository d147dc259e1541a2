/* Base64 (RFC 4648 section 4), strict: for SASL exchanges and everything else that is not mail
 * text. The forgiving decoder for message bodies is mail/decode.h. */
#ifndef MAIL_BASE64_H
#define MAIL_BASE64_H

#include "base/buf.h"

/* Appends the padded form of in, one line. */
int base64_encode(struct buf *out, struct slice in);

/* Appends the decoded bytes. ERR_SYNTAX on any byte outside the alphabet, on missing or superfluous
 * padding, and on non-zero spare bits; then out is as it was. */
int base64_decode(struct buf *out, struct slice in) CHECKED;

/* The six bits of one character of the alphabet, or -1. */
int base64_value(unsigned char c);

#endif
