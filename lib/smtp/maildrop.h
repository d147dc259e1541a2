/*
 * Files that sendmail(1) leaves in maildrop/ while the suite is down, and pickup takes in:
 *
 *   bulkhead-maildrop 1 LF
 *   KEYWORD SP VALUE LF ...     sender, recipient (1 or more), body, smtputf8, ret, envid, notify
 *   LF
 *   content as it will be sent: CRLF lines
 */
#ifndef SMTP_MAILDROP_H
#define SMTP_MAILDROP_H

#include "base/arena.h"
#include "base/buf.h"

#define MAILDROP_HEAD_MAX (4u << 20) /* octets before the content */

struct maildrop {
	struct slice sender; /* as given to sendmail(1): not canonical; empty: the null path */
	struct slice *rcpts;
	size_t count;
	bool body_8bit, smtputf8;
	unsigned ret;       /* enum smtp_ret */
	unsigned notify;    /* enum dsn_notify */
	struct slice envid; /* xtext */
	size_t content;     /* where it begins */
};

/* Appends all that stands before the content. ERR_SYNTAX: a value that holds an LF or NUL. */
int maildrop_format(struct buf *out, const struct maildrop *m) CHECKED;
/* Reads the head of a file; text borrows in, the array lives in the arena. ERR_TRUNCATED: in may be
 * too short; ERR_SYNTAX, ERR_LIMIT (more than max recipients): no such file. */
int maildrop_parse(
    struct slice in, struct arena *arena, size_t max, struct maildrop *out_r) CHECKED;

#endif
