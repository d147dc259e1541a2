/*
 * Messages and their files: commit, slots, removal, loading. Runs in the loop of qmgr; the calls of
 * the system are made by the pool (spool.c). Invariant: at most one operation that writes runs for
 * a message (busy), so the writes to its file are in order; what gathers meanwhile follows.
 */
#include "qmgr/qmgr.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static void next_operation(struct qmgr *q, struct message *m);

static unsigned int
count_dirty(const struct message *m)
{
	unsigned int n = 0;

	for (size_t i = 0; m->rcpts && i < m->env.n_rcpts; i++)
		n += m->rcpts[i].dirty;
	return n;
}

bool
message_needs_flush(const struct message *m)
{
	return m->on_disk && (m->set_mtime || m->set_mode || count_dirty(m));
}

static int64_t
wall_of(const struct qmgr *q, int64_t internal_ms)
{
	return ev_wall_us() / 1000 + internal_ms - qmgr_now(q);
}

/* The first next attempt of its jobs, for the mtime. */
static int64_t
next_attempt(const struct qmgr *q, const struct message *m)
{
	int64_t at = INT64_MAX;

	for (const struct sched_job *j = m->sm ? m->sm->jobs : NULL; j; j = j->sibling)
		if (j->state == JOB_WAITING && j->timer.due < at)
			at = j->timer.due;
	return wall_of(q, at == INT64_MAX ? qmgr_now(q) : at);
}

static void
unlink_done(struct pool_op *op)
{
	struct spool_op *o = (struct spool_op *)(void *)op;
	struct qmgr *q = o->owner;
	struct message *m = o->ctx;

	if (op->err && op->err != -ENOENT)
		log_event(LOG_queue_remove,
		    "qid=%s reason=%s effect=\"a restart looks at it again\" remedy=\"check the "
		    "file system of the queue\"",
		    m->name, log_cstr(err_str(op->err)));
	if (op->err == -EIO && o->sync)
		q->broken = true;
	if (o->sync)
		message_answered(q, m, op->err == -ENOENT ? 0 : op->err);
	spool_op_free(o);
	next_operation(q, m);
}

void
message_unlink(struct qmgr *q, struct message *m)
{
	struct spool_op *o;

	m->want_unlink = false;
	m->has_file = m->on_disk = false;
	/* Jobs under way have descriptors of their own. */
	if (m->state == MSG_DONE && m->read_fd >= 0) {
		close(m->read_fd);
		m->read_fd = -1;
		q->open_files--;
	}
	if (m->incoming) {
		incoming_give(q, m->incoming);
		m->incoming = 0;
		return;
	}
	m->busy = true;
	o = spool_op(&q->spool, SPOOL_UNLINK, m->env.id, unlink_done, q, m);
	o->sync = m->asked;
	o->op.quiet = !o->sync;
	pool_submit(q->pool, &o->op);
	qmgr_arm(q, qmgr_now(q) + 500);
}

static void
update_done(struct pool_op *op)
{
	struct spool_op *o = (struct spool_op *)(void *)op;
	struct qmgr *q = o->owner;
	struct message *m = o->ctx;

	if (op->err == -EIO)
		q->broken = true;
	if (op->err)
		log_event(LOG_queue_update,
		    "qid=%s reason=%s effect=\"a restart may repeat a delivery\" remedy=\"check "
		    "the file system of the queue\"",
		    m->name, log_cstr(err_str(op->err)));
	if (o->sync)
		message_answered(q, m, op->err);
	spool_op_free(o);
	next_operation(q, m);
}

void
message_flush(struct qmgr *q, struct message *m)
{
	unsigned int n = count_dirty(m);
	struct spool_op *o;

	m->flush_again = false;
	if (!message_needs_flush(m))
		return;
	if (m->busy) {
		m->flush_again = true;
		return;
	}
	o = spool_op(&q->spool, SPOOL_UPDATE, m->env.id, update_done, q, m);
	o->layout = m->layout;
	o->slots = n ? xcalloc(n, sizeof(*o->slots)) : NULL;
	for (size_t i = 0; i < m->env.n_rcpts; i++)
		if (m->rcpts[i].dirty) {
			o->slots[o->n_slots].rcpt = (uint32_t)i;
			slot_encode(m->env.rcpts[i].status, m->layout.slot_size,
			    o->slots[o->n_slots++].bytes);
			m->rcpts[i].dirty = false;
		}
	if (m->set_mtime)
		o->mtime_ms = next_attempt(q, m);
	if (m->set_mode) {
		o->mode = m->holding ? QUEUE_MODE_HELD : QUEUE_MODE_VALID;
		o->sync = m->asked;
	}
	m->set_mtime = m->set_mode = false;
	m->busy = true;
	pool_submit(q->pool, &o->op);
}

/* A file that cannot be read is kept for the administrator; the message ends. */
static void
put_aside(struct qmgr *q, struct message *m)
{
	struct spool_op *o = spool_op(&q->spool, SPOOL_CORRUPT, m->env.id, unlink_done, q, m);

	m->want_aside = m->flush_again = m->has_file = m->on_disk = false;
	m->busy = true;
	pool_submit(q->pool, &o->op);
}

/* After an operation: what has gathered meanwhile, in order. */
static void
next_operation(struct qmgr *q, struct message *m)
{
	m->busy = false;
	if (m->want_unlink)
		message_unlink(q, m);
	else if (m->want_aside)
		put_aside(q, m);
	else if (m->flush_again)
		message_flush(q, m);
	message_settle(q, m);
}

static void
commit_done(struct pool_op *op)
{
	struct spool_op *o = (struct spool_op *)(void *)op;
	struct qmgr *q = o->owner;
	struct message *m = o->ctx;

	message_pin(q, m);
	m->busy = false;
	m->commit_err = op->err;
	m->layout = o->layout;
	/* Without the content at hand, the next who needs the message loads it. */
	m->bare = o->n_copy > 0;
	spool_op_free(o);
	if (!m->commit_err) {
		m->on_disk = m->has_file = true;
		message_event(q, m, MSG_COMMITTED);
		expand_continue(q, m);
	} else {
		m->has_file = false;
		if (m->commit_err == -EIO && !q->broken) {
			q->broken = true;
			log_event(LOG_queue_broken,
			    "reason=\"a write or sync failed: %s\" effect=\"no message is accepted "
			    "by way "
			    "of the queue\" remedy=\"check the disk and the kernel log, then "
			    "restart, or run: bulkhead queue trust\"",
			    err_str(m->commit_err));
		}
		log_event(LOG_queue_commit,
		    "qid=%s reason=%s remedy=\"%s; the client keeps the message\"", m->name,
		    log_cstr(err_str(m->commit_err)), qmgr_disk_remedy(m->commit_err));
		message_event(q, m, MSG_COMMIT_FAILED);
	}
	expand_committed(q, m);
	if (m->want_unlink && !m->busy)
		message_unlink(q, m);
	else if (m->flush_again)
		message_flush(q, m);
	message_unpin(q, m);
	deliver_pump(q);
}

void
message_commit(struct qmgr *q, struct message *m)
{
	struct spool_op *o = spool_op(&q->spool, SPOOL_COMMIT, m->env.id, commit_done, q, m);

	message_leave_direct(q, m);
	o->new_file = m->has_content || m->copy_fd >= 0;
	if (o->new_file)
		o->content = buf_slice(&m->content);
	if (m->has_content)
		m->env.content_digest = queue_digest(o->content);
	if (m->copy_fd >= 0) {
		o->read_fd = m->copy_fd;
		m->copy_fd = -1;
		o->n_copy = m->n_copy;
		memcpy(o->copy, m->copy, sizeof(o->copy));
		m->layout.record_offset = m->env.size;
	}
	m->holding = m->env.flags & MAIL_HOLD;
	o->mode = m->holding ? QUEUE_MODE_HELD : QUEUE_MODE_VALID;
	o->offset = 0;
	o->op.err = queue_file_tail(
	    &m->env, m->has_content ? o->content.n : m->layout.record_offset, &o->tail, &o->layout);
	if (!m->has_content)
		o->offset = m->layout.record_offset;
	o->made_as = m->incoming;
	m->incoming = 0;
	for (size_t i = 0; i < m->env.n_rcpts; i++)
		m->rcpts[i].dirty = false;
	m->busy = true;
	o->op.intake = !m->from && !(m->env.flags & MAIL_NOTICE);
	if (o->op.err)
		die("envelope of %s does not fit its own format", m->name);
	pool_submit(q->pool, &o->op);
}

/* What a message that was committed without its content knows already is read again. */
static void
reset_loaded(struct qmgr *q, struct message *m)
{
	for (size_t i = 0; m->rcpts && i < m->env.n_rcpts; i++)
		route_drop(q, &m->rcpts[i].route);
	memset(m->counts, 0, sizeof(m->counts));
	m->rcpts = NULL;
	buf_free(&m->content);
	arena_free(&m->arena);
}

static void
load_failed(struct qmgr *q, struct message *m, int err)
{
	control_not_loaded(q, m, err);
	if (err == ERR_CORRUPT || err == ERR_NOT_FOUND || err == -ENOENT) {
		m->state = MSG_DONE;
		message_unschedule(q, m);
		m->want_aside = true;
		if (!m->busy)
			put_aside(q, m);
		return;
	}
	/* No descriptor, no memory, a sick disk: whatever wanted it comes again in a while. */
	for (size_t i = 0; i < m->n_starts; i++) {
		sched_release(q->sched, m->starts[i].site, OUTCOME_UNUSED, -1, qmgr_now(q));
		m->starts[i].sj->running--;
		sched_job_wait(
		    q->sched, m->starts[i].sj, qmgr_now(q) + 10000, slice_str(err_str(err)));
	}
	m->n_starts = 0;
	m->state = MSG_DONE;
}

static void
message_loaded(struct qmgr *q, struct message *m)
{
	message_overdue(q, m);
	if (m->state != MSG_DONE)
		control_loaded(q, m);
	if (m->state != MSG_DONE && m->n_starts)
		route_message(q, m);
}

static void
load_done(struct pool_op *op)
{
	struct spool_op *o = (struct spool_op *)(void *)op;
	struct qmgr *q = o->owner;
	struct message *m = o->ctx;

	message_pin(q, m);
	m->loading = 0;
	if (op->err && m->state != MSG_DONE) {
		log_event(LOG_queue_load, "qid=%s reason=%s effect=\"%s\" remedy=\"%s\"", m->name,
		    log_cstr(err_str(op->err)),
		    op->err == ERR_CORRUPT ? "moved to corrupt/" : "tried again later",
		    op->err == ERR_CORRUPT ? "look at it there and save what is of use"
					   : qmgr_disk_remedy(op->err));
		load_failed(q, m, op->err);
	} else if (!op->err) {
		reset_loaded(q, m);
		m->arena = o->arena;
		o->arena = (struct arena){ 0 };
		m->env = o->env;
		m->bare = false;
		m->layout = o->layout;
		m->content = o->data;
		o->data = (struct buf){ 0 };
		m->has_content = o->read_fd < 0;
		m->read_fd = o->read_fd;
		o->read_fd = -1;
		q->open_files += m->read_fd >= 0;
		m->on_disk = m->has_file = true;
		message_rcpts(m);
		message_account(q, m);
	}
	spool_op_free(o);
	if (m->state != MSG_DONE)
		message_loaded(q, m);
	else
		control_not_loaded(q, m, ERR_NOT_FOUND); /* deleted while it was read */
	message_unpin(q, m);
	deliver_pump(q);
}

struct message *
message_bare(struct qmgr *q, queue_id id)
{
	struct message *m = message_find(q, id);

	if (m)
		return m;
	m = message_new(q);
	message_set_id(q, m, id);
	m->bare = m->on_disk = m->has_file = true;
	m->sm = sched_find(q->sched, id);
	m->state = m->sm && m->sm->held ? MSG_HELD : MSG_QUEUED;
	m->holding = m->state == MSG_HELD;
	m->arrived = m->sm ? (int64_t)m->sm->arrived * 1000 : m->born_ms;
	return m;
}

struct message *
message_need(struct qmgr *q, queue_id id)
{
	struct message *m = message_bare(q, id);
	struct spool_op *o;

	if (!m->bare || m->loading)
		return m;
	m->loading = 1;
	o = spool_op(&q->spool, SPOOL_LOAD, id, load_done, q, m);
	o->small = (size_t)q->d->conf->small_message_limit;
	pool_submit(q->pool, &o->op);
	return m;
}
