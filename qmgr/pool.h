/*
 * A pool of threads for what blocks: every file system call of qmgr. The loop hands over an
 * operation and gets it back, done, in a later turn; one eventfd wakes the loop for all that
 * finished meanwhile.
 */
#ifndef QMGR_POOL_H
#define QMGR_POOL_H

#include "ev/ev.h"

#include <sys/queue.h>

struct pool_op {
	STAILQ_ENTRY(pool_op) next;
	/* In a thread: touches nothing but the operation itself (and what never changes). */
	void (*work)(struct pool_op *op);
	/* In the loop, afterwards; frees the operation. */
	void (*done)(struct pool_op *op);
	int err;     /* of work: 0 or a negative error */
	bool quiet;  /* nobody waits for it: the loop is not woken, it collects it in passing */
	bool intake; /* new mail: may not have all threads (not quiet) */
};

struct pool;

/* threads: for intake; a few more are kept for all else. Dies where they cannot be started. */
struct pool *pool_new(struct event_base *base, unsigned int threads);
void pool_submit(struct pool *p, struct pool_op *op);
/* Takes back what is done, the quiet ones too. */
void pool_collect(struct pool *p);
/* Operations that are not back yet. */
size_t pool_pending(const struct pool *p);

#endif
