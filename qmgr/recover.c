/*
 * The walk at the start: finds what earlier starts left in the spool, a folder after the other,
 * while new messages flow. Runs in the loop of qmgr; the reading is done in the pool. Hostile
 * input: the files. What never got a footer was never acknowledged and is removed; what is damaged
 * goes to corrupt/; the rest waits for the time that its mtime says.
 */
#include "qmgr/qmgr.h"

#include <stdlib.h>
#include <sys/file.h>

#define FOLDERS_AT_ONCE 4u
#define LOCK_EVERY_MS 50

static void
gone(struct pool_op *op)
{
	struct spool_op *o = (struct spool_op *)(void *)op;

	if (op->err && op->err != -ENOENT)
		log_event(LOG_queue_walk, "file=%s reason=%s remedy=\"%s, then restart\"", o->name,
		    log_cstr(err_str(op->err)), qmgr_disk_remedy(op->err));
	spool_op_free(o);
}

static void
submit(struct qmgr *q, enum spool_kind kind, queue_id id, bool incoming)
{
	struct spool_op *o = spool_op(&q->spool, kind, id, gone, q, NULL);

	o->incoming = incoming;
	pool_submit(q->pool, &o->op);
}

static void
put_aside(struct qmgr *q, const struct spool_found *f)
{
	log_event(LOG_queue_corrupt,
	    "qid=%s reason=%s effect=\"moved to corrupt/\" remedy=\"the file begins with the "
	    "message: look at it there and save what is of use\"",
	    f->name, log_cstr(err_str(f->err)));
	q->walked.corrupt++;
	submit(q, SPOOL_CORRUPT, f->id, false);
}

static void
take(struct qmgr *q, const struct spool_found *f)
{
	const struct conf *conf = q->d->conf;
	int64_t now = qmgr_now(q), due = now + f->mtime_ms - ev_wall_us() / 1000;
	int64_t latest = now + conf->maximal_backoff_time;
	int64_t arrived = qmgr_past(q, (int64_t)(f->arrival / 1000));
	int64_t expires = message_expires(q, arrived, f->flags, !f->sender[0]);
	struct sched_msg *sm;
	struct sched_job *sj;

	if (sched_find(q->sched, f->id) || message_find(q, f->id))
		return;
	/* Its life may have ended because the machine was down, or because the clock was wrong when
	 * it came: it is tried once more before it goes back. */
	if (expires <= now && f->open_rcpts) {
		due = now;
		expires = now + conf->minimal_backoff_time;
	}
	sm = sched_add(q->sched, f->id, slice_str(f->sender), f->size, expires);
	sm->arrived = (uint32_t)(arrived / 1000);
	if (f->held)
		sched_hold(q->sched, sm);
	sj = sched_job(q->sched, sm,
	    sched_site(
		q->sched, SCHED_UNROUTED, slice_str(f->open_rcpts ? f->domain : "finished")));
	sched_job_wait(q->sched, sj, due < latest ? due : latest, slice_str(f->reason));
	sj->rcpts = (uint16_t)(f->open_rcpts < UINT16_MAX ? f->open_rcpts : UINT16_MAX);
	q->walked.recovered++;
}

static void
look(struct qmgr *q, const struct spool_found *f, bool incoming)
{
	q->walked.found++;
	if (f->junk) {
		log_event(LOG_queue_foreign,
		    "file=%s reason=\"no queue file by its name\" remedy=\"move it out of the "
		    "queue\"",
		    log_cstr(f->name));
	} else if (f->open || f->err == ERR_NOT_FOUND) {
		q->walked.removed++;
		submit(q, SPOOL_UNLINK, f->id, incoming);
	} else if (f->err == ERR_CORRUPT) {
		put_aside(q, f);
	} else if (f->err) {
		log_event(LOG_queue_walk,
		    "file=%s reason=%s effect=\"it waits for the next start\" remedy=\"%s, then "
		    "restart\"",
		    f->name, log_cstr(err_str(f->err)), qmgr_disk_remedy(f->err));
	} else {
		take(q, f);
	}
}

static void next_folder(struct qmgr *q);

static void
walked(struct pool_op *op)
{
	struct spool_op *o = (struct spool_op *)(void *)op;
	struct qmgr *q = o->owner;
	char letter[2] = { o->incoming ? 0 : queue_dir_name(o->dir), 0 };
	const char *folder = o->incoming ? "incoming" : letter;

	if (op->err)
		log_event(LOG_queue_walk,
		    "folder=%s reason=%s effect=\"its messages wait for the next start\" "
		    "remedy=\"%s, then restart\"",
		    folder, log_cstr(err_str(op->err)), qmgr_disk_remedy(op->err));
	for (size_t i = 0; i < o->n_found; i++)
		look(q, &o->found[i], o->incoming);
	if (o->more && !op->err) {
		pool_submit(q->pool, op);
	} else {
		spool_op_free(o);
		q->walk_running--;
		next_folder(q);
	}
	deliver_pump(q);
	qmgr_arm(q, sched_timer(q->sched));
}

static void
next_folder(struct qmgr *q)
{
	/* The last one is incoming/. */
	while (q->walk_dir <= QUEUE_DIRS && q->walk_running < FOLDERS_AT_ONCE) {
		struct spool_op *o = spool_op(&q->spool, SPOOL_WALK, 0, walked, q, NULL);

		o->incoming = q->walk_dir == QUEUE_DIRS;
		o->dir = q->walk_dir++;
		o->own_from = q->first_id;
		o->own_start = q->spool.start;
		q->walk_running++;
		pool_submit(q->pool, &o->op);
	}
	if (q->walk_running || !q->walking)
		return;
	q->walking = false;
	log_event(LOG_queue_recovered, "files=%zu messages=%zu removed=%zu corrupt=%zu",
	    q->walked.found, q->walked.recovered, q->walked.removed, q->walked.corrupt);
}

/*
 * The lock on the spool belongs to one qmgr at a time. In an upgrade the former one still commits
 * what its receivers bring: until it has ended, the files of its time are its own, and the walk
 * waits. New mail does not.
 */
static void
try_lock(void *ctx)
{
	struct qmgr *q = ctx;

	if (flock(q->spool.root, LOCK_EX | LOCK_NB)) {
		if (!q->lock_waited)
			log_event(LOG_queue_wait,
			    "reason=\"the qmgr before still finishes\" effect=\"its messages wait "
			    "for it\"");
		q->lock_waited = true;
		ev_timer_set(q->d->base, &q->lock_timer, LOCK_EVERY_MS, try_lock, q);
		return;
	}
	ev_timer_free(&q->lock_timer);
	next_folder(q);
}

void
recover_start(struct qmgr *q)
{
	q->walking = true;
	/* With the first turn of the loop: the probes of the jail come before any thread opens a
	 * file. */
	ev_timer_set(q->d->base, &q->lock_timer, 0, try_lock, q);
}
