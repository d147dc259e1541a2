/* Appending to a mailbox file, locked as other programs lock it. */
#ifndef LOCAL_MBOX_H
#define LOCAL_MBOX_H

#include "local/content.h"

struct mbox_options {
	bool fcntl_lock, dotlock;
	int64_t lock_ms;    /* how long a lock is waited for */
	int64_t stale_ms;   /* a lock file of this age is removed */
	int64_t size_limit; /* of the file, 0: none */
	bool owned; /* ERR_DENIED if the file belongs to somebody else: in a spool that all may
		       write, whoever makes the file first could read what comes */
};

/*
 * Appends to the file at path (made if it is missing), or to fd where fd >= 0 (opened for
 * appending; then no dotlock). from_line: "From SENDER DATE\n"; prelude: header lines with CRLF.
 * Durable when it returns 0. ERR_LIMIT: the file would get too large; ERR_TEMPORARY: locked for too
 * long. On an error the file has its former length.
 */
int mbox_append(const char *path, int fd, const struct content *c, struct slice from_line,
    struct slice prelude, const struct mbox_options *o) CHECKED;

#endif
