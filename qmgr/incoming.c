/*
 * Files of incoming/ between two users. Runs in the loop of qmgr; clean_files in a thread of the
 * pool. Invariant: a file is with one message, or in used, or in the operation, or in clean.
 */
#include "qmgr/incoming.h"

#include "qmgr/qmgr.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum {
	BATCH = 8,   /* used files that are worth a way through the pool */
	RESERVE = 4, /* clean files that there should be */
};

struct clean_op {
	struct pool_op op; /* first */
	struct qmgr *q;
	int dir;
	uint64_t size;
	size_t n;
	struct incoming_file files[INCOMING_MOST];
};

static void start_cleaning(struct qmgr *q);

static void
clean_files(struct pool_op *op)
{
	struct clean_op *o = (struct clean_op *)(void *)op;

	for (size_t i = 0; i < o->n; i++)
		incoming_clean(o->dir, &o->files[i], o->size);
}

static void
removed(struct pool_op *op)
{
	struct spool_op *o = (struct spool_op *)(void *)op;

	if (op->err && op->err != -ENOENT)
		log_event(LOG_queue_remove,
		    "qid=%s reason=%s effect=\"it stays in incoming/ until the next start\" "
		    "remedy=\"check the file system of the queue\"",
		    o->name, log_cstr(err_str(op->err)));
	spool_op_free(o);
}

static void
discard(struct qmgr *q, queue_id name)
{
	struct spool_op *o = spool_op(&q->spool, SPOOL_UNLINK, name, removed, q, NULL);

	o->incoming = true;
	o->op.quiet = true;
	pool_submit(q->pool, &o->op);
	qmgr_arm(q, qmgr_now(q) + 500);
}

static void
cleaned(struct pool_op *op)
{
	struct clean_op *o = (struct clean_op *)(void *)op;
	struct qmgr *q = o->q;
	struct incoming *in = &q->incoming;

	for (size_t i = 0; i < o->n; i++) {
		const struct incoming_file *f = &o->files[i];

		if (f->write_fd >= 0)
			in->clean[in->n_clean++] = *f;
	}
	in->cleaning = 0;
	free(o);
	if (q->d->stopping)
		incoming_stop(q);
	else
		start_cleaning(q);
}

static void
clean_now(struct qmgr *q)
{
	struct incoming *in = &q->incoming;
	struct clean_op *o;

	if (in->cleaning || !in->n_used)
		return;
	o = xcalloc(1, sizeof(*o));
	o->op.work = clean_files;
	o->op.done = cleaned;
	o->q = q;
	o->dir = q->spool.incoming;
	o->size = (uint64_t)q->d->conf->incoming_spare_size;
	for (size_t i = 0; i < in->n_used; i++)
		o->files[o->n++] = (struct incoming_file){ in->used[i], -1, -1 };
	in->cleaning = o->n;
	in->n_used = 0;
	pool_submit(q->pool, &o->op);
}

/* Some at a time; the last ones when nothing else happens. */
static void
start_cleaning(struct qmgr *q)
{
	struct incoming *in = &q->incoming;

	if (in->n_used >= BATCH || in->n_clean < RESERVE)
		clean_now(q);
	else if (in->n_used)
		qmgr_arm(q, qmgr_now(q) + 500);
}

void
incoming_tidy(struct qmgr *q)
{
	if (!q->d->stopping)
		clean_now(q);
}

bool
incoming_take(struct qmgr *q, struct incoming_file *f_r)
{
	if (!q->incoming.n_clean)
		return false;
	*f_r = q->incoming.clean[--q->incoming.n_clean];
	return true;
}

void
incoming_give(struct qmgr *q, queue_id name)
{
	struct incoming *in = &q->incoming;
	size_t most = (size_t)q->d->conf->incoming_spare_files;

	if (q->d->stopping || in->n_clean + in->n_used + in->cleaning >= most) {
		discard(q, name);
		return;
	}
	in->used[in->n_used++] = name;
	start_cleaning(q);
}

void
incoming_stop(struct qmgr *q)
{
	struct incoming *in = &q->incoming;
	struct incoming_file f;

	while (incoming_take(q, &f)) {
		close(f.write_fd);
		close(f.read_fd);
		discard(q, f.name);
	}
	while (in->n_used)
		discard(q, in->used[--in->n_used]);
}
