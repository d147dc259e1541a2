/*
 * Header fields as the MIME parser and IMAP read them: forgiving, since the message is there and
 * must be shown. Nothing here decodes charsets (mail/decode.h).
 */
#ifndef MAIL_MIME_PARAM_H
#define MAIL_MIME_PARAM_H

#include "base/arena.h"
#include "base/buf.h"

/* The value on one line: line ends before blanks are dropped, other CR, LF and NUL become blanks,
 * blanks at both ends are cut. In the arena. */
struct slice mime_unfold(struct slice value, struct arena *arena);

struct mime_param {
	struct slice name, value; /* unquoted, comments dropped; RFC 2231 pieces are not joined */
	struct mime_param *next;
};

/* A value of the form token ["/" token] *(";" name "=" value): Content-Type and
 * Content-Disposition. Strings live in the arena. At most max parameters are taken. Returns false
 * if there is no token at the head. subtype_r may be NULL: then no slash is looked for. */
bool mime_parse_params(struct slice value, struct arena *arena, unsigned max, struct slice *token_r,
    struct slice *subtype_r, struct mime_param **params_r);
const struct mime_param *mime_param_find(const struct mime_param *params, const char *name);

#endif
