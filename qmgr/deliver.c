/*
 * Jobs: from recipients to agents, and their results back. Runs in the loop of qmgr. Hostile input:
 * results of agents; a report counts only for a recipient of a job that this very agent holds.
 *
 * Invariants: a job holds one slot of its site from sched_take (or sched_next) to job_end; a
 * recipient is IN_FLIGHT exactly while a job or an expansion has it; every open recipient of a
 * queued message that is not in flight has a sched_job at its site.
 */
#include "qmgr/qmgr.h"

#include <stdio.h>
#include <stdlib.h>

#define RCPT_BYTES                                                                                 \
	14000u /* of recipients in one job: the content needs the rest of the message              \
		*/
#define SOON_MS 2000
#define EXPANSION_BYTES (8u << 20) /* of the addresses that one job may expand to */

/* --- the table of jobs --- */

static struct job *
job_find(const struct qmgr *q, uint32_t id)
{
	struct job *j = q->n_jobs ? q->jobs[id & (q->n_jobs - 1)] : NULL;

	return j && j->id == id ? j : NULL;
}

static void
job_number(struct qmgr *q, struct job *j)
{
	if (q->jobs_running * 2 >= q->n_jobs) {
		size_t size = q->n_jobs ? q->n_jobs * 2 : 256;
		struct job **t = xcalloc(size, sizeof(struct job *));

		/* IDs that differ in fewer low bits differ in more of them too. */
		for (size_t i = 0; i < q->n_jobs; i++)
			if (q->jobs[i])
				t[q->jobs[i]->id & (size - 1)] = q->jobs[i];
		free(q->jobs);
		q->jobs = t;
		q->n_jobs = size;
	}
	do
		j->id = ++q->next_id;
	while (!j->id || q->jobs[j->id & (q->n_jobs - 1)]);
	q->jobs[j->id & (q->n_jobs - 1)] = j;
	q->jobs_running++;
}

/* --- what needs no agent --- */

static void
log_result(const struct qmgr *q, const struct message *m, size_t i, const char *status,
    const struct job *j, uint32_t connect_ms, uint32_t transfer_ms)
{
	const struct rcpt_status *s = m->env.rcpts[i].status;
	double now = (double)qmgr_now(q), in_queue = 0, total;
	char code[16];

	rcpt_status_enhanced(s, code);
	total = (double)ev_wall_us() / 1e6 - (double)m->env.arrival / 1e6;
	if (j)
		in_queue = ((double)j->started - (double)m->born_ms) / 1e3;
	log_event(LOG_I, "delivery",
	    "qid=%s from=<%s> to=<%s> status=%s dsn=%s site=%s relay=%s delay=%.3f "
	    "delays=%.3f/%.3f/%.3f/%.3f way=%s text=%s",
	    m->name, m->env.sender.n ? log_value(m->env.sender) : "",
	    log_value(m->env.rcpts[i].address), status, code[0] ? code : "-",
	    j ? log_cstr(j->site->key + 1) : "-", s->remote[0] ? log_cstr(s->remote) : "-",
	    total > 0 ? total : 0,
	    total - (now - (double)m->born_ms) / 1e3 > 0 ? total - (now - (double)m->born_ms) / 1e3
							 : 0,
	    in_queue, connect_ms / 1e3, transfer_ms / 1e3, j && j->direct ? "direct" : "queue",
	    log_cstr(s->text));
}

static void
set_status(
    struct message *m, size_t i, struct slice enhanced, struct slice text, struct slice remote)
{
	struct rcpt_status *s = m->env.rcpts[i].status;

	rcpt_status_set(s, enhanced, text, remote);
	s->last_attempt = (uint64_t)ev_wall_us() / 1000000;
}

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
		set_status(
		    m, i, r->enhanced.n ? r->enhanced : SLICE_LIT("5.0.0"), r->text, SLICE_NULL);
		message_rcpt(q, m, i, RCPT_REFUSED);
		count(COUNT_bounces, 1);
		log_result(q, m, i, "bounced", NULL, 0, 0);
		return true;
	}
	if (r->status == 2) {
		set_status(
		    m, i, r->enhanced.n ? r->enhanced : SLICE_LIT("4.3.0"), r->text, SLICE_NULL);
		message_rcpt(q, m, i, RCPT_LATER);
		count(COUNT_deferrals, 1);
		log_result(q, m, i, "deferred", NULL, 0, 0);
		return true;
	}
	if (r->kind == ROUTE_DISCARD) {
		set_status(m, i, SLICE_LIT("2.0.0"), r->text.n ? r->text : SLICE_LIT("discarded"),
		    SLICE_NULL);
		message_rcpt(q, m, i, RCPT_DELIVERED);
		log_result(q, m, i, "sent", NULL, 0, 0);
		return true;
	}
	return false;
}

static bool
transport_deferred(const struct qmgr *q, const struct route *r)
{
	return conf_list_has(&q->d->conf->defer_transports, r->transport);
}

/* --- making jobs --- */

static bool
same_hop(const struct route *a, const struct route *b)
{
	if (a == b)
		return true;
	if (a->kind != b->kind || a->port != b->port)
		return false;
	if (a->kind == ROUTE_LOCAL)
		return slice_eq(a->agent, b->agent);
	return slice_eq(a->transport, b->transport) && slice_caseeq(a->nexthop, b->nexthop);
}

static size_t
rcpt_bytes(const struct message *m, size_t i)
{
	const struct envelope_rcpt *r = &m->env.rcpts[i];
	const struct route *x = m->rcpts[i].route;

	return 40 + r->address.n + r->original.n + r->orcpt.n + x->extension.n + x->argument.n;
}

static size_t
rcpt_limit(const struct qmgr *q, const struct route *r)
{
	const struct conf *conf = q->d->conf;
	int64_t n = r->kind == ROUTE_LMTP   ? conf->lmtp_destination_recipient_limit
		    : r->kind == ROUTE_SMTP ? conf->smtp_destination_recipient_limit
					    : conf->default_destination_recipient_limit;

	return n < 64 ? (size_t)n : 64;
}

/* A job of as many open recipients of that site as fit, the first of them at i; no slot yet. */
static struct job *
job_make(struct qmgr *q, struct message *m, size_t i, struct sched_site *site)
{
	struct route *r = m->rcpts[i].route;
	size_t limit = rcpt_limit(q, r), bytes = 0;
	struct job *j = xcalloc(1, sizeof(*j) + limit * sizeof(*j->rcpts));

	j->msg = m;
	j->site = site;
	j->route = r;
	r->refs++;
	for (; i < m->env.n_rcpts && j->n < limit; i++) {
		enum rcpt_state s = m->env.rcpts[i].status->state;
		struct route *x = m->rcpts[i].route;

		if ((s != RCPT_TODO && s != RCPT_DEFERRED) || !x || x->status || !same_hop(x, r))
			continue;
		bytes += rcpt_bytes(m, i);
		if (j->n && bytes > RCPT_BYTES)
			break;
		j->rcpts[j->n++] = (uint32_t)i;
		m->rcpts[i].job = j;
		m->env.rcpts[i].status->attempts++;
		message_rcpt(q, m, i, RCPT_DISPATCH);
	}
	job_number(q, j);
	TAILQ_INSERT_TAIL(&m->jobs, j, of_msg);
	j->started = qmgr_now(q);
	return j;
}

static int64_t
job_limit_ms(const struct qmgr *q, const struct route *r)
{
	/* A delivery may run a command; a remote one has time-outs of its own, of which this is the
	 * sum. */
	if (r->kind == ROUTE_LOCAL)
		return q->d->conf->command_time_limit + 60000;
	return 3600000;
}

static void
dispatch(struct qmgr *q, struct job *j)
{
	struct agent *a = agent_for(q, j->route);

	if (!a) {
		deliver_lost(q, j, false,
		    j->route->kind == ROUTE_LOCAL ? "local delivery is not running"
						  : "no process for sending is running");
		return;
	}
	agent_add(a, j);
	heap_set(&q->deadlines, &j->deadline, j->started + job_limit_ms(q, j->route));
	qmgr_arm(q, j->deadline.due);
	if (a->chan && deliver_send(q, j))
		deliver_lost(q, j, false, "the agent is gone");
}

/* --- the end of a job --- */

static void
wait_for_next(
    struct qmgr *q, struct message *m, struct sched_job *sj, bool soon, const char *reason)
{
	const struct conf *conf = q->d->conf;
	int64_t now = qmgr_now(q), age = ev_wall_us() / 1000 - (int64_t)(m->env.arrival / 1000);
	int64_t due =
	    now + sched_backoff(age, conf->minimal_backoff_time, conf->maximal_backoff_time);

	sched_job_wait(q->sched, sj, soon ? now + SOON_MS : due, slice_str(reason));
	m->set_mtime = true;
	if (sj->timer.at)
		qmgr_arm(q, sj->timer.due);
}

/* Decides what the sched_job of a site waits for, by the recipients that are its. */
static void
settle(struct qmgr *q, struct message *m, struct sched_job *sj, bool soon)
{
	unsigned int n[RCPT_STATES] = { 0 };
	char reason[SLOT_TEXT_MAX + 32] = "", code[16];

	for (size_t i = 0; i < m->env.n_rcpts; i++) {
		struct rcpt_status *s = m->env.rcpts[i].status;

		if (s->state == RCPT_DONE || s->state == RCPT_FAILED || !m->rcpts[i].route ||
		    route_site(q, m->rcpts[i].route) != sj->site)
			continue;
		n[s->state]++;
		if (s->state == RCPT_DEFERRED && !reason[0]) {
			rcpt_status_enhanced(s, code);
			snprintf(reason, sizeof(reason), "%s %s", code, s->text);
		}
	}
	sj->rcpts = (uint16_t)(n[RCPT_TODO] + n[RCPT_IN_FLIGHT] + n[RCPT_DEFERRED]);
	if (n[RCPT_TODO])
		sched_job_ready(q->sched, sj);
	else if (n[RCPT_DEFERRED])
		wait_for_next(q, m, sj, soon, reason);
	else if (!n[RCPT_IN_FLIGHT])
		sched_job_remove(q->sched, sj);
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
		if (m->rcpts[j->rcpts[i]].job == j)
			m->rcpts[j->rcpts[i]].job = NULL;
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
				settle(q, m, sched_job(q->sched, m->sm, site), soon);
		}
		settle(q, m, sj, soon);
	}
	route_drop(q, &j->route);
	buf_free(&j->parts);
	free(j);
}

/* After a job: the message decides, then the freed slot is used. */
static void
after(struct qmgr *q, struct message *m)
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

	if (s->state != RCPT_IN_FLIGHT) {
		(void)message_rcpt(
		    q, m, r->slot, RCPT_DELIVERED); /* counted as odd where it is final */
		return;
	}
	set_status(m, r->slot, r->enhanced, r->text, r->remote);
	switch (r->status) {
	case RESULT_DONE:
	case RESULT_PASSED:
		if (r->status == RESULT_PASSED)
			s->notices |= NOTIFY_SUCCESS;
		message_rcpt(q, m, r->slot, RCPT_DELIVERED);
		count(COUNT_deliveries, 1);
		break;
	case RESULT_EXPANDED:
		expand_result(q, m, r->slot, msg_list(&j->parts, j->n_parts));
		word = "expanded";
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
	log_result(q, m, r->slot, word, j, connect_ms, transfer_ms);
}

/* Keeps the expansions of one part; all parts of a report together are bounded. */
static void
take_expansions(struct job *j, const struct msg_deliver_result *part)
{
	if (buf_len(&j->parts) + part->expansions.raw.n > EXPANSION_BYTES)
		return;
	buf_add(&j->parts, part->expansions.raw);
	j->n_parts += part->expansions.n;
}

/* Says nothing of the recipient: the way there is broken (RFC 3463: X.4.X, network and routing). */
static bool
unreached(const struct item_rcpt_result *r)
{
	return r->status == RESULT_UNREACHED ||
	       (r->status == RESULT_DEFERRED && slice_has_prefix(r->enhanced, "4.4."));
}

void
deliver_result(struct qmgr *q, struct ipc_chan *ch, const struct msg *msg)
{
	struct job *j = job_find(q, msg->id);
	struct msg_list list =
	    msg->type == MSG_SEND_RESULT ? msg->send_result.results : msg->deliver_result.results;
	struct cursor c = cursor(list.raw);
	struct item_rcpt_result r;
	bool answered = false; /* by anybody at the destination */
	struct message *m;

	if (!j || !j->agent || j->agent->chan != ch) {
		q->odd++;
		log_event(LOG_W, "odd-report", "peer=%s job=%u reason=\"not a job of this agent\"",
		    role_table[ipc_chan_peer(ch)].name, msg->id);
		return;
	}
	m = j->msg;
	if (msg->type == MSG_DELIVER_RESULT)
		take_expansions(j, &msg->deliver_result);
	message_pin(q, m);
	while (item_rcpt_result_next(&c, &r)) {
		if (!holds(j, r.slot)) {
			q->odd++;
			continue;
		}
		if (!unreached(&r))
			answered = true;
		if (r.status == RESULT_EXPANDED && msg->type != MSG_DELIVER_RESULT)
			r.status = RESULT_DEFERRED;
		one_result(q, j, &r, msg);
	}
	if (msg->type == MSG_DELIVER_RESULT && msg->deliver_result.more) {
		message_unpin(q, m);
		return;
	}
	/* What was not reported did not happen, as far as we know. */
	for (uint32_t i = 0; i < j->n; i++)
		if (m->env.rcpts[j->rcpts[i]].status->state == RCPT_IN_FLIGHT &&
		    !m->rcpts[j->rcpts[i]].expanded)
			message_rcpt(q, m, j->rcpts[i], RCPT_AGENT_DIED);
	job_end(q, j, answered ? OUTCOME_OK : OUTCOME_UNREACHED, false);
	after(q, m);
}

void
deliver_lost(struct qmgr *q, struct job *j, bool reached, const char *why)
{
	struct message *m = j->msg;

	message_pin(q, m);
	for (uint32_t i = 0; i < j->n; i++) {
		if (m->env.rcpts[j->rcpts[i]].status->state != RCPT_IN_FLIGHT)
			continue;
		set_status(m, j->rcpts[i], SLICE_LIT("4.3.0"), slice_str(why), SLICE_NULL);
		message_rcpt(q, m, j->rcpts[i], RCPT_AGENT_DIED);
		count(COUNT_deferrals, 1);
		log_result(q, m, j->rcpts[i], "deferred", j, 0, 0);
	}
	job_end(q, j, reached ? OUTCOME_UNREACHED : OUTCOME_UNUSED, !reached);
	after(q, m);
}

bool
deliver_again(struct qmgr *q, struct job *j)
{
	struct agent *a;

	/* A delivery child finds by the derived name what it has delivered before. */
	if (j->again || j->route->kind != ROUTE_LOCAL || j->route->run != RUN_MAILBOX ||
	    j->msg->state == MSG_DONE)
		return false;
	j->again = true;
	a = agent_for(q, j->route);
	if (!a)
		return false;
	agent_add(a, j);
	return !a->chan || !deliver_send(q, j);
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
		log_event(LOG_D, "direct-deadline", "qid=%s", m->name);
		message_event(q, m, MSG_DEADLINE);
	}
	if (m)
		qmgr_arm(q, m->deadline);
	while ((n = heap_first(&q->deadlines)) && n->due <= now) {
		struct job *j = HEAP_ELEMENT(n, struct job, deadline);

		log_event(LOG_E, "job-deadline",
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

/* --- direct --- */

bool
deliver_direct_ok(struct qmgr *q, struct message *m)
{
	const struct conf *conf = q->d->conf;
	struct sched_site *sites[64];
	size_t n = 0;

	if (!conf->direct_delivery || q->d->stopping ||
	    m->env.n_rcpts > (size_t)conf->direct_delivery_recipients || m->env.n_rcpts > 64 ||
	    m->env.flags & (MAIL_HOLD | MAIL_QUEUE_FIRST | MAIL_DEFER))
		return false;
	for (size_t i = 0; i < m->env.n_rcpts; i++) {
		const struct route *r = m->rcpts[i].route;
		struct sched_site *site;
		size_t k = 0;

		if (!r || r->status == 2 || r->kind == ROUTE_HOLD ||
		    m->env.rcpts[i].notify & NOTIFY_SUCCESS)
			return false;
		if (r->status || r->kind == ROUTE_DISCARD)
			continue;
		if (transport_deferred(q, r) || !agents_ready(q, r))
			return false;
		site = route_site(q, r);
		while (k < n && sites[k] != site)
			k++;
		if (k == n)
			sites[n++] = site;
	}
	return sched_direct_ok(q->sched, sites, n, qmgr_now(q));
}

void
deliver_offer(struct qmgr *q, struct message *m)
{
	m->deadline = qmgr_now(q) + q->d->conf->direct_delivery_deadline;
	TAILQ_INSERT_TAIL(&q->direct, m, direct);
	m->on_direct = true;
	sched_direct_begin(q->sched);
	qmgr_arm(q, m->deadline);
	for (size_t i = 0; i < m->env.n_rcpts && m->state == MSG_DIRECT; i++) {
		struct sched_site *site;
		struct job *j;

		if (m->env.rcpts[i].status->state != RCPT_TODO || decided(q, m, i))
			continue;
		site = route_site(q, m->rcpts[i].route);
		j = job_make(q, m, i, site);
		j->direct = true;
		sched_take(q->sched, site);
		dispatch(q, j);
	}
	if (m->state == MSG_DIRECT)
		message_judge(q, m);
}

/* --- queued --- */

/* Gives every open recipient that is not under way a place in the schedule. */
void
deliver_schedule(struct qmgr *q, struct message *m)
{
	struct job *j;

	if (!m->sm) {
		m->sm = sched_add(q->sched, m->env.id, m->env.sender, m->env.size,
		    message_expires(q, m->env.arrival, m->env.flags, !m->env.sender.n));
		m->sm->arrival = (uint32_t)(m->env.arrival / 1000000);
	}
	if (m->holding && m->state == MSG_QUEUED)
		message_event(q, m, MSG_HOLD);
	/* Jobs that began on the direct way go on; their slots are taken already. */
	TAILQ_FOREACH(j, &m->jobs, of_msg)
		if (!j->sj) {
			j->sj = sched_job(q->sched, m->sm, j->site);
			j->sj->running++;
		}
	for (size_t i = 0; i < m->env.n_rcpts; i++) {
		struct sched_job *sj;

		if (!m->rcpts[i].route ||
		    (decided(q, m, i) && m->env.rcpts[i].status->state != RCPT_DEFERRED))
			continue;
		sj = sched_job(q->sched, m->sm, route_site(q, m->rcpts[i].route));
		if (sj->state == JOB_BUSY && !sj->running) {
			if (transport_deferred(q, m->rcpts[i].route) || m->env.flags & MAIL_DEFER)
				wait_for_next(q, m, sj, false, "waits by configuration or policy");
			else
				settle(q, m, sj, false);
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
			settle(q, m, sched_job(q->sched, m->sm, route_site(q, m->rcpts[i].route)),
			    false);
	}
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
		sj->running--;
		sched_release(q->sched, site, OUTCOME_UNUSED, -1, qmgr_now(q));
		if (site->kind == SCHED_UNROUTED)
			sched_job_remove(q->sched, sj);
		else
			settle(q, m, sj, false);
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
	dispatch(q, j);
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
		message_event(q, m, deliver_direct_ok(q, m) ? MSG_GO_DIRECT : MSG_GO_QUEUED);
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
		while (!q->d->stopping && budget-- > 0 && (sj = sched_next(q->sched, qmgr_now(q))))
			start(q, sj);
	} while (q->pump_again && budget > 0);
	q->pumping = false;
	if (budget <= 0)
		qmgr_arm(q, qmgr_now(q) + 1);
	else if (sched_timer(q->sched) != INT64_MAX)
		qmgr_arm(q, sched_timer(q->sched));
}

/* --- to the agent --- */

static struct buf *
job_rcpts(const struct job *j, struct buf *b)
{
	const struct message *m = j->msg;

	for (uint32_t i = 0; i < j->n; i++) {
		const struct envelope_rcpt *r = &m->env.rcpts[j->rcpts[i]];
		const struct route *x = m->rcpts[j->rcpts[i]].route;
		struct item_job_rcpt item = { .slot = j->rcpts[i],
			.address = r->address,
			.original = r->original,
			.orcpt = r->orcpt,
			.extension = x->extension,
			.notify = (uint8_t)r->notify,
			.run = (uint8_t)x->run,
			.argument = x->argument };

		item_job_rcpt_add(b, &item);
	}
	return b;
}

/* Whether an earlier attempt may have delivered and not been heard. */
static bool
may_repeat(const struct qmgr *q, const struct job *j)
{
	if (j->again || j->msg->env.id < q->first_id)
		return true;
	for (uint32_t i = 0; i < j->n; i++)
		if (j->msg->env.rcpts[j->rcpts[i]].status->attempts > 1)
			return true;
	return false;
}

int
deliver_send(struct qmgr *q, struct job *j)
{
	const struct message *m = j->msg;
	const struct envelope *e = &m->env;
	bool local = j->route->kind == ROUTE_LOCAL;
	unsigned int flags = e->flags | (may_repeat(q, j) ? MAIL_REPEAT : 0);
	struct msg x = MSG_INIT(local ? MSG_DELIVER_JOB : MSG_SEND_JOB, j->id);
	struct buf rcpts = { 0 }, extents = { 0 };
	struct msg_list r = msg_list(job_rcpts(j, &rcpts), j->n), ex = { 0 };
	int err;

	if (!m->has_content) {
		for (size_t i = 0; i < e->n_extents; i++)
			item_extent_add(&extents,
			    &(struct item_extent){ e->extents[i].offset, e->extents[i].length });
		ex = msg_list(&extents, (uint32_t)e->n_extents);
		x.fd = m->read_fd;
	}
	if (local)
		x.deliver_job = (struct msg_deliver_job){ .queue_id = slice_str(m->name),
			.sender = e->sender,
			.flags = flags,
			.ret = (uint8_t)e->ret,
			.envid = e->envid,
			.arrival = e->arrival,
			.size = e->size,
			.rcpts = r,
			.extents = ex,
			.content = m->has_content ? buf_slice(&m->content) : SLICE_NULL };
	else
		x.send_job = (struct msg_send_job){ .queue_id = slice_str(m->name),
			.sender = e->sender,
			.flags = flags,
			.ret = (uint8_t)e->ret,
			.envid = e->envid,
			.arrival = e->arrival,
			.size = e->size,
			.transport = j->route->transport,
			.lmtp = j->route->kind == ROUTE_LMTP,
			.nexthop = j->route->nexthop,
			.port = j->route->port,
			.rcpts = r,
			.extents = ex,
			.content = m->has_content ? buf_slice(&m->content) : SLICE_NULL };
	err = ipc_send(j->agent->chan, &x);
	buf_free(&rcpts);
	buf_free(&extents);
	return err;
}
