/*
 * Messages in memory and the state machine at work: message_event looks up a cell of the table
 * (queue/state.h) and does what it says, in the order of the bits. Runs in the loop of qmgr.
 *
 * Invariants: a message is freed only when nothing refers to it (pins, busy, jobs, answers under
 * way); while it has a sched_msg it is on the disk and acknowledged.
 */
#include "qmgr/deliver.h"

#include <stdlib.h>
#include <unistd.h>

struct message *
message_new(struct qmgr *q)
{
	struct message *m = xcalloc(1, sizeof(*m));

	m->read_fd = m->copy_fd = -1;
	m->state = MSG_RECEIVING;
	m->born_ms = qmgr_now(q);
	TAILQ_INIT(&m->jobs);
	return m;
}

struct message *
message_find(struct qmgr *q, queue_id id)
{
	char name[QUEUE_ID_SIZE];
	struct hash_node *n;

	queue_id_format(id, name);
	n = hash_find(&q->messages, slice(name, QUEUE_ID_LENGTH));
	return n ? HASH_ELEMENT(n, struct message, node) : NULL;
}

void
message_set_id(struct qmgr *q, struct message *m, queue_id id)
{
	m->env.id = id;
	queue_id_format(id, m->name);
	hash_insert(&q->messages, &m->node, slice(m->name, QUEUE_ID_LENGTH));
}

void
message_rcpts(struct message *m)
{
	m->rcpts = arena_alloc(&m->arena, m->env.n_rcpts * sizeof(*m->rcpts));
	for (size_t i = 0; i < m->env.n_rcpts; i++)
		m->counts[envelope_status(&m->arena, &m->env.rcpts[i])->state]++;
}

void
message_account(struct qmgr *q, struct message *m)
{
	size_t bytes = sizeof(*m) + m->arena.used + buf_len(&m->content);

	q->memory += bytes - m->bytes;
	m->bytes = bytes;
}

void
message_leave_direct(struct qmgr *q, struct message *m)
{
	if (!m->on_direct)
		return;
	TAILQ_REMOVE(&q->direct, m, direct);
	m->on_direct = false;
	sched_direct_leave(q->sched, &m->waiter);
	sched_direct_end(q->sched);
}

static void
message_free(struct qmgr *q, struct message *m)
{
	message_answered(q, m, 0);
	if (m->env.id)
		hash_remove(&q->messages, &m->node);
	message_leave_direct(q, m);
	for (size_t i = 0; m->rcpts && i < m->env.n_rcpts; i++)
		route_drop(q, &m->rcpts[i].route);
	if (m->read_fd >= 0) {
		close(m->read_fd);
		q->open_files--;
	}
	q->memory -= m->bytes;
	buf_free(&m->content);
	arena_free(&m->arena);
	free(m->starts);
	free(m);
}

static bool
in_use(const struct message *m)
{
	return m->pins || m->busy || m->routing || m->loading || m->n_starts || m->noticing ||
	       m->expansions || !TAILQ_EMPTY(&m->jobs) || m->waits;
}

static bool
has_ready_job(const struct message *m)
{
	for (const struct sched_job *j = m->sm ? m->sm->jobs : NULL; j; j = j->sibling)
		if (j->state == JOB_READY)
			return true;
	return false;
}

/* Frees what is over; keeps a while what will soon be sent; else only the scheduler remembers it.
 */
void
message_settle(struct qmgr *q, struct message *m)
{
	if (in_use(m) || m->is_idle)
		return;
	if (m->state == MSG_DONE) {
		message_free(q, m);
		return;
	}
	if (m->state != MSG_QUEUED && m->state != MSG_HELD)
		return;
	/* What the disk does not know yet goes there first; this comes back when it has. */
	if (m->flush_again || message_needs_flush(m)) {
		message_flush(q, m);
		return;
	}
	/* A waiting message holds no descriptor. */
	if (!has_ready_job(m) || m->read_fd >= 0 || m->bare) {
		message_free(q, m);
		return;
	}
	TAILQ_INSERT_TAIL(&q->idle, m, lru);
	m->is_idle = true;
	message_evict(q);
}

void
message_pin(struct qmgr *q, struct message *m)
{
	if (m->is_idle)
		TAILQ_REMOVE(&q->idle, m, lru);
	m->is_idle = false;
	m->pins++;
}

void
message_unpin(struct qmgr *q, struct message *m)
{
	m->pins--;
	message_settle(q, m);
}

void
message_evict(struct qmgr *q)
{
	size_t limit = (size_t)q->d->conf->qmgr_inflight_limit / 4;

	while ((q->memory > limit ||
		   q->messages.count > (size_t)q->d->conf->qmgr_message_active_limit) &&
	       !TAILQ_EMPTY(&q->idle)) {
		struct message *m = TAILQ_FIRST(&q->idle);

		TAILQ_REMOVE(&q->idle, m, lru);
		message_free(q, m);
	}
}

bool
message_rcpt(struct qmgr *q, struct message *m, size_t i, enum rcpt_event event)
{
	struct rcpt_status *s = m->env.rcpts[i].status;
	struct rcpt_step step = rcpt_step(s->state, event);

	if (step.odd) {
		q->odd++;
		log_event(LOG_odd_report, "qid=%s to=%s state=%s event=%d", m->name,
		    log_value(m->env.rcpts[i].address), rcpt_state_name(s->state), (int)event);
		return false;
	}
	if (step.next == s->state)
		return true;
	m->counts[s->state]--;
	m->counts[step.next]++;
	s->state = step.next;
	/* What a restart finds as TODO anyway is not written. */
	if (step.next != RCPT_IN_FLIGHT && step.next != RCPT_TODO)
		m->rcpts[i].dirty = true;
	return true;
}

unsigned int
message_due_notices(const struct qmgr *q, const struct message *m, size_t i)
{
	const struct envelope_rcpt *r = &m->env.rcpts[i];
	const struct rcpt_status *s = r->status;
	unsigned int due = 0, wanted = r->notify;
	const struct conf *conf = q->d->conf;

	if (!m->env.sender.n) {
		/* A notice that cannot be delivered: told to the postmaster, if at all. */
		if (s->state == RCPT_FAILED && !(m->env.flags & MAIL_POSTMASTER) &&
		    conf_list_has(&conf->notify_classes, SLICE_LIT("2bounce")))
			due = NOTIFY_FAILURE;
		return due & ~s->notices;
	}
	if (!wanted)
		wanted = NOTIFY_FAILURE | NOTIFY_DELAY;
	if (s->state == RCPT_FAILED)
		due = wanted & NOTIFY_FAILURE;
	else if (s->state == RCPT_DONE)
		due = wanted & NOTIFY_SUCCESS;
	else if (conf->delay_warning_time > 0 && s->state != RCPT_IN_FLIGHT &&
		 qmgr_now(q) - m->arrived >= conf->delay_warning_time)
		due = wanted & NOTIFY_DELAY;
	return due & ~s->notices;
}

void
message_judge(struct qmgr *q, struct message *m)
{
	unsigned int untold = 0;
	int event;

	/* Not read from the disk: nothing is known of its recipients, least of all that all are
	 * done. */
	if (!m->rcpts)
		return;
	/* Notices are for what the client has not heard. */
	if (m->on_replies) {
		if (m->counts[RCPT_TODO] + m->counts[RCPT_IN_FLIGHT])
			message_flush(q, m);
		else
			message_event(q, m, MSG_DEADLINE);
		return;
	}
	if (m->state == MSG_DIRECT)
		untold = m->counts[RCPT_FAILED];
	else if (m->state == MSG_QUEUED || m->state == MSG_HELD)
		for (size_t i = 0; i < m->env.n_rcpts; i++)
			if (m->env.rcpts[i].status->state != RCPT_DEFERRED)
				untold += message_due_notices(q, m, i) != 0;
	event = msg_judge(m->counts, untold);
	if (m->state == MSG_DIRECT && event == MSG_MIXED && reply_tells_all(m))
		event = MSG_ONLY_FAILED;
	/* The rest may wait for long for its sites: what has failed by then is told before. */
	if (event < 0 && untold && m->state != MSG_DIRECT)
		event = MSG_DEFERRAL;
	if (event >= 0)
		message_event(q, m, (enum msg_event)event);
	else
		message_flush(q, m);
}

void
message_overdue(struct qmgr *q, struct message *m)
{
	bool expired = m->expired, late = m->late;

	m->expired = m->late = false;
	if (late && m->sm) {
		m->sm->late = true;
		message_judge(q, m);
	}
	if (expired)
		message_event(q, m, MSG_EXPIRED);
}

static void
fail_rest(struct qmgr *q, struct message *m)
{
	for (size_t i = 0; i < m->env.n_rcpts; i++) {
		struct rcpt_status *s = m->env.rcpts[i].status;
		enum rcpt_state was = s->state;

		if (message_rcpt(q, m, i, RCPT_EXPIRED) && was != s->state) {
			/* The last reason stays as the diagnosis. */
			struct slice reason = s->text[0]
						  ? slice_str(arena_strdup(&m->arena, s->text))
						  : SLICE_LIT("message expired in the queue");

			rcpt_status_set(s, SLICE_LIT("5.4.7"), reason, slice_str(s->remote));
			result_log(q, m, i, "expired", NULL, 0, 0);
			count(COUNT_bounces, 1);
		}
	}
	for (struct sched_job *j = m->sm ? m->sm->jobs : NULL, *next; j; j = next) {
		next = j->sibling;
		if (j->state != JOB_BUSY && j->site->kind != SCHED_NOTICE)
			sched_job_remove(q->sched, j);
	}
}

void
message_unschedule(struct qmgr *q, struct message *m)
{
	struct job *j;

	if (m->sm)
		sched_remove(q->sched, m->sm);
	m->sm = NULL;
	TAILQ_FOREACH(j, &m->jobs, of_msg)
		j->sj = NULL;
	for (size_t i = 0; i < m->n_starts; i++)
		sched_release(q->sched, m->starts[i].site, OUTCOME_UNUSED, -1, qmgr_now(q));
	m->n_starts = 0;
	if (m->notice_site)
		sched_release(q->sched, m->notice_site, OUTCOME_UNUSED, -1, qmgr_now(q));
	m->notice_site = NULL;
}

void
message_drop(struct qmgr *q, struct message *m)
{
	message_leave_direct(q, m);
	expand_drop(q, m);
	m->want_unlink = m->has_file;
	if (m->want_unlink && !m->busy)
		message_unlink(q, m);
}

void
message_event(struct qmgr *q, struct message *m, enum msg_event event)
{
	enum msg_state was = m->state;
	struct msg_step s = msg_step(was, event);

	if (s.actions & ACT_ODD) {
		q->odd++;
		log_event(LOG_odd_event, "qid=%s state=%s event=%s", m->name, msg_state_name(was),
		    msg_event_name(event));
		return;
	}
	message_pin(q, m);
	m->state = s.next;
	log_event(LOG_queue_state, "qid=%s state=%s event=%s next=%s", m->name, msg_state_name(was),
	    msg_event_name(event), msg_state_name(s.next));
	if (s.actions & ACT_OFFER)
		deliver_offer(q, m);
	if (s.actions & ACT_COMMIT)
		message_commit(q, m);
	if (s.actions & ACT_REPLY_OK)
		reply_ok(q, m, was);
	if (s.actions & ACT_REPLY_FAILED)
		reply_failed(q, m);
	if (s.actions & ACT_REPLY_LATER)
		reply_later(q, m);
	if (s.actions & ACT_FAIL_REST)
		fail_rest(q, m);
	if (s.actions & ACT_FLUSH_SLOTS)
		message_flush(q, m);
	if (s.actions & ACT_SCHEDULE)
		deliver_schedule(q, m);
	if (s.actions & ACT_BOUNCE)
		notice_schedule(q, m);
	if (s.actions & ACT_UNSCHEDULE && s.next == MSG_HELD && m->sm)
		sched_hold(q->sched, m->sm);
	if (s.actions & ACT_FORGET_CLIENT)
		receive_forget(q, m);
	if (s.actions & ACT_STOP_NEW)
		deliver_stop_new(q, m);
	if (s.actions & (ACT_DROP | ACT_UNLINK)) {
		message_unschedule(q, m);
		message_drop(q, m);
	}
	/* The direct way may be over already; so may everything, when all was said by the slots. */
	if (s.actions & ACT_JUDGE && m->state == s.next)
		message_judge(q, m);
	message_unpin(q, m);
}

void
message_ask(struct qmgr *q, struct message *m)
{
	if (m->asked)
		return;
	m->asked = true;
	if (!q->unsure++)
		q->unsure_err = 0;
}

void
message_answered(struct qmgr *q, struct message *m, int err)
{
	if (!m->asked)
		return;
	m->asked = false;
	if (err)
		q->unsure_err = err;
	if (!--q->unsure)
		qmgr_arm(q, qmgr_now(q));
}

void
message_hold(struct qmgr *q, struct message *m, bool hold)
{
	message_pin(q, m);
	m->holding = hold;
	m->set_mode = true;
	if (!hold && m->sm)
		sched_unhold(q->sched, m->sm, qmgr_now(q));
	message_event(q, m, hold ? MSG_HOLD : MSG_RELEASE);
	message_flush(q, m);
	message_unpin(q, m);
}

int64_t
message_expires(const struct qmgr *q, int64_t arrived, unsigned int flags, bool null_sender)
{
	const struct conf *conf = q->d->conf;
	int64_t life = (flags & MAIL_NOTICE) || null_sender ? conf->bounce_queue_lifetime
							    : conf->maximal_queue_lifetime;

	return arrived + life;
}
