/*
 * ESMTP parameters of MAIL and RCPT (RFC 5321 4.1.2, 3461, 1870, 6152, 3030, 6531, 4954), and
 * xtext. Used by the server engine, by smtp-client when it writes them, and by bounce.
 */
#ifndef SMTP_PARAMS_H
#define SMTP_PARAMS_H

#include "base/buf.h"

struct smtp_param {
	struct slice keyword, value;
	bool has_value;
};

/* Takes one parameter from the head of *s (blanks before it are skipped). 0, ERR_NOT_FOUND at the
 * end of the line, ERR_SYNTAX. utf8 allows octets above 127 in the value (RFC 6531). */
int smtp_param_next(struct slice *s, bool utf8, struct smtp_param *out_r) CHECKED;

/* Whether s is xtext (RFC 3461 4): "+" and two upper-case hex digits for what is not printable. */
bool xtext_valid(struct slice s);
/* Appends the octets. ERR_SYNTAX: nothing is appended. */
int xtext_decode(struct buf *out, struct slice s) CHECKED;
void xtext_encode(struct buf *out, struct slice s);

enum dsn_notify {
	DSN_NOTIFY_NEVER = 1,
	DSN_NOTIFY_SUCCESS = 2,
	DSN_NOTIFY_FAILURE = 4,
	DSN_NOTIFY_DELAY = 8,
};

/* A NOTIFY value; 0 in *out_r stands for no NOTIFY at all. */
int dsn_notify_parse(struct slice s, unsigned *out_r) CHECKED;
/* Appends "SUCCESS,DELAY" or the like. */
void dsn_notify_format(struct buf *out, unsigned notify);

/* "addr-type;xtext" whose decoded address is printable. */
bool dsn_orcpt_valid(struct slice s);

#endif
