/*
 * Charsets to UTF-8 by iconv. iconv_open loads modules from disk, so the table is opened before the
 * jail (in a zygote); what is not in it counts as unknown. A table is used by one thread.
 */
#ifndef MAIL_CHARSET_H
#define MAIL_CHARSET_H

#include "base/buf.h"

struct charsets;

/* Opens every charset that mail uses and this system knows. Never fails: UTF-8 and US-ASCII need no
 * iconv. */
struct charsets *charsets_open(void);
void charsets_free(struct charsets **c);
/* How many conversions are open besides the built-in ones. */
unsigned charsets_count(const struct charsets *c);

/* Whether text in this charset (any case, aliases too) can be converted. c may be NULL: only the
 * built-in ones. */
bool charset_known(const struct charsets *c, struct slice name);

/* Appends in as UTF-8; a byte that is malformed gives U+FFFD. Of an unknown charset (or none) the
 * ASCII bytes and well-formed UTF-8 stay, the rest gives U+FFFD. ERR_NOT_FOUND then; the text is
 * there. */
int charset_decode(struct charsets *c, struct slice name, struct slice in, struct buf *out);

/* Appends well-formed UTF-8 as it is, U+FFFD for each byte that is not. */
void utf8_repair(struct slice in, struct buf *out);
/* Bytes of the code point at the head of in (1 to 4), and the code point; 0 if it is malformed or
 * cut. */
unsigned utf8_next(struct slice in, uint32_t *code_r);
void utf8_put(struct buf *out, uint32_t code);

#endif
