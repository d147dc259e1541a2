/*
 * Results of jobs, and the ends of jobs without one. Runs in the loop of qmgr. Hostile input: the
 * results; a report counts only for a recipient of a job that this very agent holds, and only if it
 * names the message and the recipient as the queue has them: a number that met the wrong job would
 * lose mail. What an agent leaves out did not happen. Invariant: an ended job has given its slot
 * back, and each of its recipients that is still open has a place in the schedule.
 */
#include "qmgr/deliver.h"
#include "queue/advice.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Milliseconds as seconds; what a clock that was set back makes negative is none. */
#define MS "%" PRId64 ".%03d"
#define MS_ARG(ms) ((ms) > 0 ? (int64_t)(ms) / 1000 : 0), ((ms) > 0 ? (int)((ms) % 1000) : 0)

#define EXPANSION_BYTES (16u << 20) /* of the addresses that a recipient may expand to */

void
result_log(const struct qmgr *q, const struct message *m, size_t i, const char *status,
    const struct job *j, uint32_t connect_ms, uint32_t transfer_ms)
{
	const struct rcpt_status *s = m->env.rcpts[i].status;
	int64_t now = qmgr_now(q), total = now - m->arrived, before = total - (now - m->born_ms);
	int64_t in_queue = j ? j->started - m->born_ms : 0;
	char code[16];
	const char *advice;

	rcpt_status_enhanced(s, code);
	advice = advice_for(code, s->text);
	log_event(LOG_delivery,
	    "qid=%s from=<%s> to=<%s> status=%s dsn=%s site=%s relay=%s delay=" MS " "
	    "delays=" MS "/" MS "/" MS "/" MS " way=%s text=%s%s%s",
	    m->name, m->env.sender.n ? log_value(m->env.sender) : "",
	    log_value(m->env.rcpts[i].address), status, code[0] ? code : "-",
	    j ? log_cstr(j->site->key + 1) : "-", s->remote[0] ? log_cstr(s->remote) : "-",
	    MS_ARG(total), MS_ARG(before), MS_ARG(in_queue), MS_ARG(connect_ms),
	    MS_ARG(transfer_ms), j && j->direct ? "direct" : "queue", log_cstr(s->text),
	    *advice ? " remedy=" : "", *advice ? log_cstr(advice) : "");
}

void
result_set(
    struct message *m, size_t i, struct slice enhanced, struct slice text, struct slice remote)
{
	struct rcpt_status *s = m->env.rcpts[i].status;

	rcpt_status_set(s, enhanced, text, remote);
	s->last_attempt = (uint64_t)ev_wall_us() / 1000000;
}

static void
job_end(struct qmgr *q, struct job *j, enum sched_outcome outcome, bool soon)
{
	struct message *m = j->msg;
	int64_t now = qmgr_now(q);
	struct sched_job *sj = j->sj;

	heap_clear(&q->deadlines, &j->deadline);
	if (j->agent)
		agent_remove(q, j->agent, j);
	for (uint32_t i = 0; i < j->n; i++)
		if (m->rcpts[j->rcpts[i]].job == j) {
			m->rcpts[j->rcpts[i]].job = NULL;
			m->rcpts[j->rcpts[i]].expansion_bytes = 0;
		}
	TAILQ_REMOVE(&m->jobs, j, of_msg);
	q->jobs[j->id & (q->n_jobs - 1)] = NULL;
	q->jobs_running--;
	sched_release(
	    q->sched, j->site, outcome, outcome == OUTCOME_UNUSED ? -1 : now - j->started, now);
	if (sj) {
		sj->running--;
		/* A recipient that has moved to another site meanwhile is scheduled there. */
		for (uint32_t i = 0; i < j->n && m->sm; i++) {
			enum rcpt_state s = m->env.rcpts[j->rcpts[i]].status->state;
			struct sched_site *site;

			if (s != RCPT_TODO && s != RCPT_DEFERRED)
				continue;
			site = route_site(q, m->rcpts[j->rcpts[i]].route);
			if (site != sj->site)
				job_settle(q, m, sched_job(q->sched, m->sm, site), soon);
		}
		job_settle(q, m, sj, soon);
	}
	route_drop(q, &j->route);
	buf_free(&j->parts);
	free(j);
}

/* After a job: the message decides, then the freed slot is used. */
static void
result_after(struct qmgr *q, struct message *m)
{
	if (m->state != MSG_DONE)
		message_judge(q, m);
	message_unpin(q, m);
	deliver_pump(q);
}

static bool
holds(const struct job *j, uint32_t slot)
{
	for (uint32_t i = 0; i < j->n; i++)
		if (j->rcpts[i] == slot)
			return true;
	return false;
}

/* The job still owes the outcome of that recipient. */
static bool
is_open(const struct message *m, uint32_t slot)
{
	return m->env.rcpts[slot].status->state == RCPT_IN_FLIGHT && !m->rcpts[slot].expanded;
}

/* What became of the recipient is not known: it is tried again. */
static void
not_known(struct qmgr *q, const struct job *j, uint32_t slot, const char *why)
{
	struct message *m = j->msg;

	result_set(m, slot, SLICE_LIT("4.3.0"), slice_str(why), SLICE_NULL);
	message_rcpt(q, m, slot, RCPT_AGENT_DIED);
	count(COUNT_deferrals, 1);
	result_log(q, m, slot, "deferred", j, 0, 0);
}

static void
odd_result(
    struct qmgr *q, const struct job *j, const struct item_rcpt_result *r, const char *reason)
{
	const struct message *m = j->msg;

	q->odd++;
	log_event(LOG_odd_report,
	    "qid=%s job=%u slot=%u to=%s state=%s reported=%s status=%u text=%s reason=\"%s\"",
	    m->name, j->id, r->slot, log_value(m->env.rcpts[r->slot].address),
	    rcpt_state_name(m->env.rcpts[r->slot].status->state), log_value(r->address), r->status,
	    log_value(r->text), reason);
}

/* The word for the log. */
static const char *
take_expansion(struct qmgr *q, struct job *j, uint32_t slot)
{
	struct message *m = j->msg;
	bool cut = m->rcpts[slot].expansion_bytes > EXPANSION_BYTES;

	m->rcpts[slot].expansion_bytes = 0;
	if (cut) {
		result_set(m, slot, SLICE_LIT("5.2.4"), slice_str(EXPAND_TOO_MANY), SLICE_NULL);
		message_rcpt(q, m, slot, RCPT_REFUSED);
		count(COUNT_bounces, 1);
		return "bounced";
	}
	expand_result(q, m, slot, msg_list(&j->parts, j->n_parts));
	return "expanded";
}

static void
one_result(struct qmgr *q, struct job *j, const struct item_rcpt_result *r, const struct msg *msg)
{
	struct message *m = j->msg;
	bool sent = msg->type == MSG_SEND_RESULT;
	uint32_t connect_ms = sent ? msg->send_result.connect_ms : 0;
	uint32_t transfer_ms =
	    sent ? msg->send_result.transfer_ms : (uint32_t)(qmgr_now(q) - j->started);
	struct rcpt_status *s = m->env.rcpts[r->slot].status;
	const char *word = "sent";

	if (!is_open(m, r->slot)) {
		odd_result(q, j, r, "it has its result already");
		return;
	}
	if (!slice_eq(r->address, m->env.rcpts[r->slot].address)) {
		odd_result(q, j, r, "it names another recipient");
		not_known(
		    q, j, r->slot, "the result of another recipient was reported for this one");
		return;
	}
	result_set(m, r->slot, r->enhanced, r->text, r->remote);
	switch (r->status) {
	case RESULT_DONE:
	case RESULT_PASSED:
		if (r->status == RESULT_PASSED)
			s->notices |= NOTIFY_SUCCESS;
		message_rcpt(q, m, r->slot, RCPT_DELIVERED);
		count(COUNT_deliveries, 1);
		break;
	case RESULT_EXPANDED:
		word = take_expansion(q, j, r->slot);
		break;
	case RESULT_FAILED:
		message_rcpt(q, m, r->slot, RCPT_REFUSED);
		count(COUNT_bounces, 1);
		word = "bounced";
		break;
	default:
		message_rcpt(q, m, r->slot, RCPT_LATER);
		count(COUNT_deferrals, 1);
		word = "deferred";
	}
	result_log(q, m, r->slot, word, j, connect_ms, transfer_ms);
}

/* Keeps the expansions of one part. A child reports one recipient after the other; more than two at
 * their bound are not of an honest one. What is left out here refuses the recipient. */
static void
keep_expansions(struct job *j, const struct msg_deliver_result *part)
{
	struct cursor c = cursor(part->expansions.raw);
	struct item_expansion item;

	while (item_expansion_next(&c, &item)) {
		struct rcpt *r = holds(j, item.slot) ? &j->msg->rcpts[item.slot] : NULL;

		if (!r || r->expansion_bytes > EXPANSION_BYTES)
			continue;
		r->expansion_bytes += (uint32_t)item.address.n + 8;
		if (buf_len(&j->parts) > 2 * EXPANSION_BYTES)
			r->expansion_bytes = EXPANSION_BYTES + 1;
		if (r->expansion_bytes > EXPANSION_BYTES)
			continue;
		item_expansion_add(&j->parts, &item);
		j->n_parts++;
	}
}

/* Those of recipients that have their result are not needed any more. */
static void
trim_expansions(struct job *j)
{
	struct buf old = j->parts;
	struct cursor c = cursor(buf_slice(&old));
	struct item_expansion item;

	j->parts = (struct buf){ 0 };
	j->n_parts = 0;
	while (item_expansion_next(&c, &item))
		if (is_open(j->msg, item.slot)) {
			item_expansion_add(&j->parts, &item);
			j->n_parts++;
		}
	buf_free(&old);
}

/* Says nothing of the destination either: it failed on our side, before anybody there spoke (no
 * descriptor, no answer of maps or auth). */
static bool
our_own(const struct item_rcpt_result *r)
{
	return r->status == RESULT_DEFERRED && !r->remote.n &&
	       slice_has_prefix(r->enhanced, "4.3.");
}

/* Says nothing of the recipient: the way there is broken (RFC 3463: X.4.X, network and routing). */
static bool
unreached(const struct item_rcpt_result *r)
{
	return r->status == RESULT_UNREACHED ||
	       (r->status == RESULT_DEFERRED && slice_has_prefix(r->enhanced, "4.4."));
}

static void
other_message(struct qmgr *q, struct job *j, struct slice name)
{
	q->odd++;
	log_event(LOG_odd_report,
	    "qid=%s job=%u site=%s reported=%s reason=\"it names another message\"", j->msg->name,
	    j->id, log_cstr(j->site->key + 1), log_value(name));
	deliver_lost(q, j, true, "the result of another message was reported for this one");
}

void
deliver_result(struct qmgr *q, struct ipc_chan *ch, const struct msg *msg)
{
	bool sent = msg->type == MSG_SEND_RESULT;
	struct job *j = job_find(q, msg->id);
	struct slice name = sent ? msg->send_result.queue_id : msg->deliver_result.queue_id;
	struct msg_list list = sent ? msg->send_result.results : msg->deliver_result.results;
	struct cursor c = cursor(list.raw);
	struct item_rcpt_result r;
	bool answered = false;    /* by anybody at the destination */
	bool attempted = !list.n; /* it, and not only something of our own */
	bool expanded = false;
	struct message *m;

	if (!j || !j->agent || j->agent->chan != ch) {
		q->odd++;
		log_event(LOG_odd_report, "peer=%s job=%u reason=\"not a job of this agent\"",
		    role_table[ipc_chan_peer(ch)].name, msg->id);
		return;
	}
	m = j->msg;
	if (!slice_eq_str(name, m->name)) {
		other_message(q, j, name);
		return;
	}
	if (!sent)
		keep_expansions(j, &msg->deliver_result);
	message_pin(q, m);
	while (item_rcpt_result_next(&c, &r)) {
		if (!holds(j, r.slot)) {
			q->odd++;
			continue;
		}
		if (!sent || !our_own(&r)) {
			attempted = true;
			answered |= !unreached(&r);
		}
		if (r.status == RESULT_EXPANDED && sent)
			r.status = RESULT_DEFERRED;
		expanded = expanded || r.status == RESULT_EXPANDED;
		one_result(q, j, &r, msg);
	}
	if (expanded)
		trim_expansions(j);
	if (!sent && msg->deliver_result.more) {
		job_extend(q, j);
		message_unpin(q, m);
		return;
	}
	/* What was not reported did not happen, as far as we know. */
	for (uint32_t i = 0; i < j->n; i++)
		if (is_open(m, j->rcpts[i]))
			not_known(q, j, j->rcpts[i], "the delivery process reported no result");
	job_end(q, j,
	    answered    ? OUTCOME_OK
	    : attempted ? OUTCOME_UNREACHED
			: OUTCOME_UNUSED,
	    false);
	result_after(q, m);
}

void
deliver_lost(struct qmgr *q, struct job *j, bool reached, const char *why)
{
	struct message *m = j->msg;

	message_pin(q, m);
	for (uint32_t i = 0; i < j->n; i++)
		if (is_open(m, j->rcpts[i]))
			not_known(q, j, j->rcpts[i], why);
	job_end(q, j, reached ? OUTCOME_UNREACHED : OUTCOME_UNUSED, !reached);
	result_after(q, m);
}

void
deliver_stop_new(struct qmgr *q, struct message *m)
{
	for (struct job *j = TAILQ_FIRST(&m->jobs), *next; j; j = next) {
		next = TAILQ_NEXT(j, of_msg);
		if (j->agent && j->agent->chan)
			continue;
		for (uint32_t i = 0; i < j->n; i++)
			message_rcpt(q, m, j->rcpts[i], RCPT_AGENT_DIED);
		job_end(q, j, OUTCOME_UNUSED, false);
	}
}

void
deliver_timeouts(struct qmgr *q, int64_t now)
{
	struct heap_node *n;
	struct message *m;

	while ((m = TAILQ_FIRST(&q->direct)) && m->deadline <= now) {
		struct job *j;

		TAILQ_FOREACH(j, &m->jobs, of_msg)
			sched_slow(q->sched, j->site);
		if (m->waiter.site)
			sched_slow(q->sched, m->waiter.site);
		log_event(LOG_direct_deadline, "qid=%s", m->name);
		message_event(q, m, MSG_DEADLINE);
	}
	if (m)
		qmgr_arm(q, m->deadline);
	while ((m = TAILQ_FIRST(&q->replies)) && m->deadline <= now)
		message_event(q, m, MSG_DEADLINE);
	if (m)
		qmgr_arm(q, m->deadline);
	while ((n = heap_first(&q->deadlines)) && n->due <= now) {
		struct job *j = HEAP_ELEMENT(n, struct job, deadline);

		log_event(LOG_job_deadline,
		    "qid=%s site=%s effect=\"the agent is given up\" remedy=\"look for a hanging "
		    "program or peer\"",
		    j->msg->name, log_cstr(j->site->key + 1));
		heap_clear(&q->deadlines, n);
		if (j->agent && j->agent->kind == AGENT_DELIVERY)
			agents_kill(q, j->agent);
		else
			deliver_lost(q, j, true, "the job took too long");
	}
	if (n)
		qmgr_arm(q, n->due);
}
