/*
 * Notices: what is due goes to bounce, and counts as told when bounce has made it durable. Runs in
 * the loop of qmgr. A message with notices due has a sched_job at the site of notices, so they are
 * bounded, fair, and tried again like any job. Invariant: the slot says that a notice was sent only
 * after bounce reported it, so a crash between the two repeats a notice and never loses one.
 */
#include "qmgr/qmgr.h"

#include <stdlib.h>

#define NOTICE_BYTES 8000u /* of recipients in one notice: as RCPT_BYTES of job.c */
#define RETRY_MS 10000
/* RFC 3463: X.4.5, mail system congestion. */
#define UNTRIED_CODE "4.4.5"
#define UNTRIED_TEXT "not tried yet: its destination is busy, or did not answer to other mail"

static struct sched_site *
notices(struct qmgr *q)
{
	return sched_site(q->sched, SCHED_NOTICE, SLICE_LIT("notices"));
}

void
notice_schedule(struct qmgr *q, struct message *m)
{
	int64_t at = qmgr_now(q);
	bool due = false, is_new;
	struct sched_job *sj;

	/* One notice for all that fails at once: wait for what is under way, and a while for what
	 * may be soon. */
	if (!m->sm || m->noticing || m->counts[RCPT_IN_FLIGHT])
		return;
	for (size_t i = 0; i < m->env.n_rcpts && !due; i++)
		due = message_due_notices(q, m, i) != 0;
	if (!due)
		return;
	sj = sched_job(q->sched, m->sm, notices(q));
	is_new = sj->state == JOB_BUSY && !sj->running;
	if (m->counts[RCPT_TODO] && !m->counts[RCPT_DEFERRED]) {
		at += q->d->conf->minimal_backoff_time;
		if (is_new)
			sched_job_wait(q->sched, sj, at, SLICE_NULL);
	} else if (is_new || (sj->state == JOB_WAITING && !sj->reason)) {
		/* A held message may tell what is known of it: the hold is about sending. A notice
		 * that could not be made has a reason, and waits. */
		sched_job_ready(q->sched, sj);
	}
	qmgr_arm(q, at);
}

static void
finish(struct qmgr *q, struct message *m, bool later)
{
	struct sched_site *site = m->notice_site;
	struct sched_job *sj = m->sm && site ? sched_job_find(m->sm, site) : NULL;

	if (site)
		sched_release(q->sched, site, OUTCOME_UNUSED, -1, qmgr_now(q));
	m->notice_site = NULL;
	if (m->noticing)
		TAILQ_REMOVE(&q->noticing, m, notice);
	m->noticing = 0;
	if (!sj)
		return;
	sj->running--;
	if (later) {
		sched_job_wait(
		    q->sched, sj, qmgr_now(q) + RETRY_MS, SLICE_LIT("a notice could not be made"));
		qmgr_arm(q, sj->timer.due);
	} else {
		sched_job_remove(q->sched, sj);
	}
}

static unsigned int
kind_of(unsigned int bit)
{
	return bit == NOTIFY_FAILURE ? NOTICE_FAILURE
	       : bit == NOTIFY_DELAY ? NOTICE_DELAY
				     : NOTICE_SUCCESS;
}

static uint32_t
add_rcpts(struct qmgr *q, struct message *m, unsigned int bit, struct buf *out)
{
	uint32_t n = 0;

	for (size_t i = 0; i < m->env.n_rcpts && n < 64; i++) {
		const struct envelope_rcpt *r = &m->env.rcpts[i];
		char code[16];
		struct item_bounce_rcpt item = { .address = r->address,
			.orcpt = r->orcpt,
			.original = r->original,
			.text = slice_str(r->status->text),
			.remote = slice_str(r->status->remote),
			.last_attempt = r->status->last_attempt };

		m->rcpts[i].told = false;
		if (!(message_due_notices(q, m, i) & bit) || (n && buf_len(out) > NOTICE_BYTES))
			continue;
		rcpt_status_enhanced(r->status, code);
		item.enhanced = slice_str(code);
		if (r->status->state == RCPT_TODO && !item.text.n) {
			item.enhanced = SLICE_LIT(UNTRIED_CODE);
			item.text = SLICE_LIT(UNTRIED_TEXT);
		}
		item_bounce_rcpt_add(out, &item);
		m->rcpts[i].told = true;
		n++;
	}
	return n;
}

static int
send_job(struct qmgr *q, struct message *m, unsigned int bit, struct msg_list rcpts)
{
	const struct envelope *e = &m->env;
	struct msg x = MSG_INIT(MSG_BOUNCE_JOB, ++q->next_id);
	struct buf extents = { 0 };
	int64_t left = message_expires(q, m->arrived, e->flags, !e->sender.n) - qmgr_now(q);
	int err;

	x.bounce_job = (struct msg_bounce_job){ .queue_id = slice_str(m->name),
		.sender = e->sender,
		.kind = (uint8_t)kind_of(bit),
		.flags = e->flags,
		.ret = (uint8_t)e->ret,
		.envid = e->envid,
		.arrival = e->arrival,
		.expires = (uint64_t)(ev_wall_us() + left * 1000),
		.size = e->size,
		.rcpts = rcpts,
		.content = m->has_content ? buf_slice(&m->content) : SLICE_NULL };
	if (!m->has_content) {
		for (size_t i = 0; i < e->n_extents; i++)
			item_extent_add(&extents,
			    &(struct item_extent){ e->extents[i].offset, e->extents[i].length });
		x.bounce_job.extents = msg_list(&extents, (uint32_t)e->n_extents);
		x.fd = m->read_fd;
	}
	m->notice_chan = q->d->peers[ROLE_BOUNCE];
	err = daemon_send(q->d, ROLE_BOUNCE, &x);
	m->notice_id = x.id;
	buf_free(&extents);
	return err;
}

void
notice_start(struct qmgr *q, struct message *m, struct sched_job *sj)
{
	static const unsigned int order[] = { NOTIFY_FAILURE, NOTIFY_SUCCESS, NOTIFY_DELAY };
	struct buf rcpts = { 0 };
	uint32_t n = 0;

	m->notice_site = sj->site;
	for (size_t k = 0; k < 3 && !n; k++) {
		buf_clear(&rcpts);
		n = add_rcpts(q, m, order[k], &rcpts);
		m->noticing = n ? order[k] : 0;
	}
	if (n)
		TAILQ_INSERT_TAIL(&q->noticing, m, notice);
	if (!n) {
		finish(q, m, false);
		message_judge(q, m);
	} else if (send_job(q, m, m->noticing, msg_list(&rcpts, n))) {
		finish(q, m, true);
	}
	buf_free(&rcpts);
}

void
notice_done(struct qmgr *q, const struct ipc_chan *ch, const struct msg *msg)
{
	bool failed = msg->bounce_done.status != 0;
	struct message *m;

	TAILQ_FOREACH(m, &q->noticing, notice)
		if (m->notice_id == msg->id && m->notice_chan == ch)
			break;
	if (!m) {
		q->odd++;
		return;
	}
	message_pin(q, m);
	if (!slice_eq_str(msg->bounce_done.about, m->name)) {
		q->odd++;
		log_event(LOG_odd_report, "qid=%s reported=%s reason=\"it names another message\"",
		    m->name, log_value(msg->bounce_done.about));
		failed = true;
		finish(q, m, true);
	} else if (failed) {
		log_event(LOG_notice_failed, "qid=%s reason=%s", m->name,
		    log_value(msg->bounce_done.text));
		finish(q, m, true);
	} else {
		log_event(LOG_notice, "qid=%s kind=%u notice=%s text=%s", m->name,
		    kind_of(m->noticing),
		    msg->bounce_done.queue_id.n ? log_value(msg->bounce_done.queue_id) : "-",
		    log_value(msg->bounce_done.text));
		for (size_t i = 0; i < m->env.n_rcpts; i++)
			if (m->rcpts[i].told) {
				m->env.rcpts[i].status->notices |= m->noticing;
				m->rcpts[i].dirty = true;
				m->rcpts[i].told = false;
			}
		finish(q, m, false);
	}
	if (m->state != MSG_DONE && !failed)
		message_judge(q, m);
	message_unpin(q, m);
	deliver_pump(q);
}

void
notice_link_down(struct qmgr *q, const struct ipc_chan *ch)
{
	struct message *m, *next;

	for (m = TAILQ_FIRST(&q->noticing); m; m = next) {
		next = TAILQ_NEXT(m, notice);
		if (m->notice_chan != ch)
			continue;
		message_pin(q, m);
		finish(q, m, true);
		message_unpin(q, m);
	}
}
