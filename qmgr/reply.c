/*
 * What the client hears of its message: one reply, or with LMTP one for each recipient (RFC 2033).
 * Runs in the loop of qmgr. Invariant: of a failure either the client hears, by a reply of its own
 * to that recipient, or the sender by a notice; never both, never none.
 */
#include "qmgr/qmgr.h"

#include <stdio.h>

#define RESULTS_MAX 1000u    /* of the message mail_result */
#define RESULTS_BYTES 58000u /* so that it fits one record */

static bool
one_recipient(const struct envelope_rcpt *a, const struct envelope_rcpt *b)
{
	return slice_eq(a->original, b->original) && slice_eq(a->orcpt, b->orcpt);
}

/* One RCPT may stand for several addresses, one after the other in the envelope; the client hears
 * of it when all of them have the same fate. The end of the group that begins at i. */
static size_t
group_end(const struct message *m, size_t i, bool *alike_r)
{
	const struct envelope_rcpt *all = m->env.rcpts;
	size_t k = i;

	*alike_r = true;
	for (; k < m->env.n_rcpts && one_recipient(&all[i], &all[k]); k++)
		if (all[k].status->state != all[i].status->state)
			*alike_r = false;
	return k;
}

bool
reply_tells_all(const struct message *m)
{
	bool alike = true;

	if (!(m->env.flags & MAIL_PER_RCPT) || m->env.n_rcpts > RESULTS_MAX)
		return false;
	for (size_t i = 0; i < m->env.n_rcpts && alike;)
		i = group_end(m, i, &alike);
	return alike;
}

static bool
is_told(const struct message *m, size_t i, bool kept)
{
	enum rcpt_state s = m->env.rcpts[i].status->state;

	return s == RCPT_FAILED || (!kept && s == RCPT_DONE);
}

/* The recipients that have a reply of their own. told: their slots. */
static uint32_t
choose(const struct message *m, bool kept, uint32_t told[RESULTS_MAX])
{
	uint32_t n = 0;
	bool alike;

	for (size_t i = 0, end; i < m->env.n_rcpts; i = end) {
		end = group_end(m, i, &alike);
		if (!alike || !is_told(m, i, kept) || end - i > RESULTS_MAX - n)
			continue;
		for (size_t k = i; k < end; k++)
			told[n++] = (uint32_t)k;
	}
	return n;
}

struct said {
	unsigned int code;
	const char *enhanced, *text;
};

/* Answers who waits. kept: the message is in the queue, or nothing of it is left to do. */
static void
reply(struct qmgr *q, struct message *m, struct said said, bool kept)
{
	struct msg msg = MSG_INIT(MSG_MAIL_RESULT, m->waits->id);
	uint32_t told[RESULTS_MAX];
	uint32_t n = m->env.flags & MAIL_PER_RCPT && m->rcpts ? choose(m, kept, told) : 0;
	struct buf results = { 0 };
	char codes[16];

	for (uint32_t i = 0; i < n; i++) {
		struct rcpt_status *s = m->env.rcpts[told[i]].status;
		bool failed = s->state == RCPT_FAILED;
		struct item_rcpt_result r = { .slot = told[i],
			.status = failed ? RESULT_FAILED : RESULT_DONE };

		rcpt_status_enhanced(s, codes);
		r.enhanced = failed ? slice_str(codes) : SLICE_LIT("2.0.0");
		r.text = failed ? slice_str(s->text) : SLICE_LIT("Ok: delivered");
		/* where many failed, each has less to say */
		if (r.text.n > RESULTS_BYTES / n - 32)
			r.text.n = RESULTS_BYTES / n - 32;
		item_rcpt_result_add(&results, &r);
		if (failed && kept) {
			s->notices |= NOTIFY_FAILURE;
			m->rcpts[told[i]].dirty = true;
		}
	}
	msg.mail_result.code = (uint16_t)said.code;
	msg.mail_result.enhanced = slice_str(said.enhanced);
	msg.mail_result.text = slice_str(said.text);
	msg.mail_result.queue_id = slice_str(m->name);
	msg.mail_result.session = m->env.session;
	msg.mail_result.results = msg_list(&results, n);
	(void)ipc_send(m->waits->chan, &msg);
	buf_free(&results);
	receive_forget(q, m);
}

/* The client of LMTP hears of each recipient once all have been tried, or the deadline passes. */
static bool
waits_for_each(struct qmgr *q, struct message *m)
{
	int64_t now = qmgr_now(q);

	if (!(m->env.flags & MAIL_PER_RCPT) || m->holding || q->d->stopping ||
	    (m->deadline && m->deadline <= now) ||
	    m->counts[RCPT_TODO] + m->counts[RCPT_IN_FLIGHT] == 0)
		return false;
	m->deadline = now + q->d->conf->direct_delivery_deadline;
	TAILQ_INSERT_TAIL(&q->replies, m, direct);
	m->on_replies = true;
	qmgr_arm(q, m->deadline);
	return true;
}

void
reply_ok(struct qmgr *q, struct message *m, enum msg_state was)
{
	bool direct = was == MSG_DIRECT;
	char text[64];

	if (direct || was == MSG_COMMITTING) {
		count(COUNT_messages_received, 1);
		count(direct ? COUNT_messages_direct : COUNT_messages_queued, 1);
	}
	if (!m->waits || (was == MSG_COMMITTING && waits_for_each(q, m)))
		return;
	snprintf(text, sizeof(text), "Ok: %s as %s", direct ? "delivered" : "queued", m->name);
	reply(q, m, (struct said){ 250, "2.0.0", text }, true);
}

void
reply_failed(struct qmgr *q, struct message *m)
{
	const struct rcpt_status *s = m->env.rcpts[0].status;
	char codes[16];

	/* Some were delivered: the failures have replies of their own. */
	if (m->counts[RCPT_DONE]) {
		reply_ok(q, m, MSG_DIRECT);
		return;
	}
	count(COUNT_messages_rejected, 1);
	if (!m->waits)
		return;
	rcpt_status_enhanced(s, codes);
	reply(q, m, (struct said){ 550, codes[0] == '5' ? codes : "5.0.0", s->text }, true);
}

void
reply_later(struct qmgr *q, struct message *m)
{
	struct said s = { m->refuse_code, m->refuse_enhanced, m->refuse_text };

	if (!s.code)
		s.code = qmgr_disk_reply(m->commit_err, &s.enhanced, &s.text);
	count(COUNT_messages_rejected, 1);
	if (m->waits)
		reply(q, m, s, false);
}
