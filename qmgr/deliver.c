/*
 * The two ways of a message from its routes to its jobs: offered at once, or by the schedule. Runs
 * in the loop of qmgr. Invariant: every open recipient of a queued message that is not in flight
 * has a sched_job at its site.
 */
#include "qmgr/deliver.h"

#include <stdlib.h>

/* Recipients whose route says it all. True: done with it. */
static bool
decided(struct qmgr *q, struct message *m, size_t i)
{
	const struct route *r = m->rcpts[i].route;
	enum rcpt_state s = m->env.rcpts[i].status->state;

	if (s != RCPT_TODO && s != RCPT_DEFERRED)
		return true;
	if (!r)
		return false;
	if (r->status == 1) {
		result_set(
		    m, i, r->enhanced.n ? r->enhanced : SLICE_LIT("5.0.0"), r->text, SLICE_NULL);
		message_rcpt(q, m, i, RCPT_REFUSED);
		count(COUNT_bounces, 1);
		result_log(q, m, i, "bounced", NULL, 0, 0);
		return true;
	}
	if (r->status == 2) {
		result_set(
		    m, i, r->enhanced.n ? r->enhanced : SLICE_LIT("4.3.0"), r->text, SLICE_NULL);
		message_rcpt(q, m, i, RCPT_LATER);
		count(COUNT_deferrals, 1);
		result_log(q, m, i, "deferred", NULL, 0, 0);
		return true;
	}
	if (r->kind == ROUTE_DISCARD) {
		result_set(m, i, SLICE_LIT("2.0.0"), r->text.n ? r->text : SLICE_LIT("discarded"),
		    SLICE_NULL);
		message_rcpt(q, m, i, RCPT_DELIVERED);
		result_log(q, m, i, "sent", NULL, 0, 0);
		return true;
	}
	return false;
}

static bool
transport_deferred(const struct qmgr *q, const struct route *r)
{
	return conf_list_has(&q->d->conf->defer_transports, r->transport);
}

#define DIRECT_SITES 64u

/* The sites of a message that may go the direct way; SIZE_MAX: it may not. */
static size_t
direct_sites(struct qmgr *q, struct message *m, struct sched_site *sites[DIRECT_SITES])
{
	const struct conf *conf = q->d->conf;
	size_t n = 0;

	if (!conf->direct_delivery || q->d->stopping ||
	    m->env.n_rcpts > (size_t)conf->direct_delivery_recipients ||
	    m->env.n_rcpts > DIRECT_SITES ||
	    m->env.flags & (MAIL_HOLD | MAIL_QUEUE_FIRST | MAIL_DEFER))
		return SIZE_MAX;
	for (size_t i = 0; i < m->env.n_rcpts; i++) {
		const struct route *r = m->rcpts[i].route;
		struct sched_site *site;
		size_t k = 0;

		if (!r || r->status == 2 || r->kind == ROUTE_HOLD ||
		    m->env.rcpts[i].notify & NOTIFY_SUCCESS)
			return SIZE_MAX;
		if (r->status || r->kind == ROUTE_DISCARD)
			continue;
		if (transport_deferred(q, r) || !agents_ready(q, r))
			return SIZE_MAX;
		site = route_site(q, r);
		while (k < n && sites[k] != site)
			k++;
		if (k == n)
			sites[n++] = site;
	}
	return n;
}

/* A message to one site may wait a moment for a slot of it: half the disk work is worth that. */
enum direct_way
deliver_direct(struct qmgr *q, struct message *m)
{
	struct sched_site *sites[DIRECT_SITES];
	size_t n = direct_sites(q, m, sites);

	if (n == SIZE_MAX)
		return DIRECT_NO;
	if (sched_direct_ok(q->sched, sites, n, qmgr_now(q)))
		return DIRECT_NOW;
	if (n != 1 || !sched_direct_soon(q->sched, sites[0]))
		return DIRECT_NO;
	sched_direct_wait(q->sched, sites[0], &m->waiter);
	return DIRECT_SOON;
}

/* Jobs for all its recipients. slot: one that is taken already, or NULL. */
static void
direct_start(struct qmgr *q, struct message *m, struct sched_site *slot)
{
	for (size_t i = 0; i < m->env.n_rcpts && m->state == MSG_DIRECT; i++) {
		struct sched_site *site;
		struct job *j;

		if (m->env.rcpts[i].status->state != RCPT_TODO || decided(q, m, i))
			continue;
		site = route_site(q, m->rcpts[i].route);
		j = job_make(q, m, i, site);
		j->direct = true;
		if (site == slot)
			slot = NULL;
		else
			sched_take(q->sched, site);
		job_dispatch(q, j);
	}
	if (slot)
		sched_release(q->sched, slot, OUTCOME_UNUSED, -1, qmgr_now(q));
	if (m->state == MSG_DIRECT)
		message_judge(q, m);
}

void
deliver_offer(struct qmgr *q, struct message *m)
{
	m->deadline = qmgr_now(q) + q->d->conf->direct_delivery_deadline;
	TAILQ_INSERT_TAIL(&q->direct, m, direct);
	m->on_direct = true;
	sched_direct_begin(q->sched);
	qmgr_arm(q, m->deadline);
	if (!m->waiter.site)
		direct_start(q, m, NULL);
}

/* Gives every open recipient that is not under way a place in the schedule. */
void
deliver_schedule(struct qmgr *q, struct message *m)
{
	struct job *j;

	if (!m->sm) {
		m->sm = sched_add(q->sched, m->env.id, m->env.sender, m->env.size,
		    message_expires(q, m->arrived, m->env.flags, !m->env.sender.n));
		m->sm->arrived = (uint32_t)(m->arrived / 1000);
	}
	if (m->holding && m->state == MSG_QUEUED)
		message_event(q, m, MSG_HOLD);
	/* Jobs that began on the direct way go on; their slots are taken already. */
	TAILQ_FOREACH(j, &m->jobs, of_msg)
		if (!j->sj) {
			j->sj = sched_job(q->sched, m->sm, j->site);
			j->sj->running++;
		}
	/* All of them first: what a site waits for follows from all of its recipients. */
	for (size_t i = 0; i < m->env.n_rcpts; i++)
		if (m->rcpts[i].route)
			(void)decided(q, m, i);
	for (size_t i = 0; i < m->env.n_rcpts; i++) {
		enum rcpt_state s = m->env.rcpts[i].status->state;
		struct sched_job *sj;

		if (!m->rcpts[i].route || (s != RCPT_TODO && s != RCPT_DEFERRED))
			continue;
		sj = sched_job(q->sched, m->sm, route_site(q, m->rcpts[i].route));
		if (sj->state == JOB_BUSY && !sj->running) {
			if (transport_deferred(q, m->rcpts[i].route) || m->env.flags & MAIL_DEFER)
				job_wait(q, m, sj, false, "waits by configuration or policy");
			else
				job_settle(q, m, sj, false);
		}
	}
	/* The policy's deferral is for the first attempt only. */
	m->env.flags &= ~(unsigned int)MAIL_DEFER;
	message_flush(q, m);
}

void
deliver_resettle(struct qmgr *q, struct message *m)
{
	for (size_t i = 0; m->sm && i < m->env.n_rcpts; i++) {
		enum rcpt_state s = m->env.rcpts[i].status->state;

		if ((s == RCPT_TODO || s == RCPT_DEFERRED) && m->rcpts[i].route)
			job_settle(q, m,
			    sched_job(q->sched, m->sm, route_site(q, m->rcpts[i].route)), false);
	}
}

/* The slot of sj is not used; what sj waits for now is the caller's to say. */
static void
give_back(struct qmgr *q, struct sched_job *sj)
{
	sj->running--;
	sched_release(q->sched, sj->site, OUTCOME_UNUSED, -1, qmgr_now(q));
}

/* A slot was given to sj and the message is here with its routes: use it or give it back. */
static void
begin(struct qmgr *q, struct message *m, struct sched_job *sj)
{
	size_t first = SIZE_MAX;
	struct sched_site *site = sj->site;
	struct job *j;
	bool moved = false;

	if (site->kind == SCHED_NOTICE) {
		notice_start(q, m, sj);
		return;
	}
	if (m->state == MSG_HELD) { /* since the slot was given */
		give_back(q, sj);
		sched_job_ready(q->sched, sj); /* once it is released */
		return;
	}
	for (size_t i = 0; i < m->env.n_rcpts; i++) {
		enum rcpt_state was = m->env.rcpts[i].status->state;
		struct sched_site *now;
		bool over;

		if ((was != RCPT_TODO && was != RCPT_DEFERRED) || !m->rcpts[i].route)
			continue;
		over = decided(q, m, i);
		if (over && m->env.rcpts[i].status->state != RCPT_DEFERRED)
			continue;
		now = route_site(q, m->rcpts[i].route);
		/* Due are those of this site, and those whose route led here before and now
		 * elsewhere. */
		if (now != site && sched_job_find(m->sm, now))
			continue;
		if (!over)
			message_rcpt(q, m, i, RCPT_DUE);
		moved = moved || now != site;
		if (first == SIZE_MAX && now == site && !over)
			first = i;
	}
	if (moved)
		deliver_schedule(q, m);
	if (first == SIZE_MAX) {
		give_back(q, sj);
		if (site->kind == SCHED_UNROUTED)
			sched_job_remove(q->sched, sj);
		else
			job_settle(q, m, sj, false);
		message_judge(q, m);
		return;
	}
	j = job_make(q, m, first, site);
	j->sj = sj;
	/* More than fits into one job: the rest takes the next free slot. */
	for (size_t i = first; i < m->env.n_rcpts; i++)
		if (m->env.rcpts[i].status->state == RCPT_TODO && m->rcpts[i].route &&
		    route_site(q, m->rcpts[i].route) == site) {
			sched_job_ready(q->sched, sj);
			break;
		}
	job_dispatch(q, j);
}

/* The routes are there: of a new message, or of one whose jobs have slots. */
void
message_routed(struct qmgr *q, struct message *m)
{
	message_pin(q, m);
	if (m->state == MSG_SEALED) {
		for (size_t i = 0; i < m->env.n_rcpts; i++)
			if (m->rcpts[i].route && m->rcpts[i].route->kind == ROUTE_HOLD)
				m->env.flags |= MAIL_HOLD;
		message_event(
		    q, m, deliver_direct(q, m) == DIRECT_NO ? MSG_GO_QUEUED : MSG_GO_DIRECT);
	}
	while (m->n_starts && (m->state == MSG_QUEUED || m->state == MSG_HELD)) {
		struct sched_job *sj = m->starts[--m->n_starts].sj;

		begin(q, m, sj);
	}
	message_unpin(q, m);
}

static void
start(struct qmgr *q, struct sched_job *sj)
{
	struct message *m = message_need(q, sj->msg->id);

	message_pin(q, m);
	m->starts = xrealloc(m->starts, (m->n_starts + 1) * sizeof(*m->starts));
	m->starts[m->n_starts].sj = sj;
	m->starts[m->n_starts++].site = sj->site;
	if (!m->loading)
		route_message(q, m);
	message_unpin(q, m);
}

/* Slots for direct messages that wait for one. */
static void
pump_direct(struct qmgr *q, int *budget)
{
	struct sched_waiter *w;
	struct sched_site *site;

	while (!q->d->stopping && *budget > 0 && (w = sched_direct_next(q->sched, &site))) {
		struct message *m =
		    (struct message *)(void *)((char *)w - offsetof(struct message, waiter));

		--*budget;
		message_pin(q, m);
		direct_start(q, m, site);
		message_unpin(q, m);
	}
}

void
deliver_pump(struct qmgr *q)
{
	struct sched_job *sj;
	int budget = 500;

	/* Called from wherever a slot came free, also from within itself. */
	if (q->pumping) {
		q->pump_again = true;
		return;
	}
	q->pumping = true;
	do {
		q->pump_again = false;
		pump_direct(q, &budget);
		while (!q->d->stopping && budget-- > 0 && (sj = sched_next(q->sched, qmgr_now(q))))
			start(q, sj);
	} while (q->pump_again && budget > 0);
	q->pumping = false;
	if (budget <= 0)
		qmgr_arm(q, qmgr_now(q) + 1);
	else if (sched_timer(q->sched) != INT64_MAX)
		qmgr_arm(q, sched_timer(q->sched));
}
