/*
 * Jobs: some recipients of one message for one agent. This file makes them, sends them, and decides
 * what the place of a site in the schedule waits for. Runs in the loop of qmgr; reads only what was
 * checked before.
 *
 * Invariants: a job holds one slot of its site from sched_take (or sched_next) to its end; a
 * recipient is IN_FLIGHT exactly while a job or an expansion has it.
 */
#include "qmgr/deliver.h"

#include <stdio.h>
#include <stdlib.h>

/* Of recipients in one job: a small content needs the rest of a message of MSG_MAX. */
#define RCPT_BYTES 13000u
#define SOON_MS 2000

struct job *
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
struct job *
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
	const struct conf *conf = q->d->conf;

	/* A delivery child that works says so between two commands; smtp-client ends by itself
	 * before this. An agent that is given up must not deliver afterwards. */
	if (r->kind == ROUTE_LOCAL)
		return conf->command_time_limit + 60000;
	return conf->smtp_delivery_time_limit + conf->smtp_data_done_timeout + 60000;
}

void
job_extend(struct qmgr *q, struct job *j)
{
	heap_set(&q->deadlines, &j->deadline, qmgr_now(q) + job_limit_ms(q, j->route));
}

/* Those that have no result yet: when it is sent again, some may have. */
static struct msg_list
job_rcpts(const struct job *j, struct buf *b)
{
	const struct message *m = j->msg;
	uint32_t n = 0;

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

		if (r->status->state != RCPT_IN_FLIGHT || m->rcpts[j->rcpts[i]].expanded)
			continue;
		item_job_rcpt_add(b, &item);
		n++;
	}
	return msg_list(b, n);
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

/* What a job says of its message, to whatever kind of agent: the names are those in deliver_send.
 */
#define OF_MESSAGE                                                                                 \
	.queue_id = slice_str(m->name), .sender = e->sender, .flags = flags,                       \
	.ret = (uint8_t)e->ret, .envid = e->envid, .arrival = e->arrival, .size = e->size,         \
	.rcpts = r, .extents = ex, .content = m->has_content ? buf_slice(&m->content) : SLICE_NULL

int
deliver_send(struct qmgr *q, struct job *j)
{
	const struct message *m = j->msg;
	const struct envelope *e = &m->env;
	bool local = j->route->kind == ROUTE_LOCAL;
	unsigned int flags = e->flags | (may_repeat(q, j) ? MAIL_REPEAT : 0);
	struct msg x = MSG_INIT(local ? MSG_DELIVER_JOB : MSG_SEND_JOB, j->id);
	struct buf rcpts = { 0 }, extents = { 0 };
	struct msg_list r = job_rcpts(j, &rcpts), ex = { 0 };
	int err;

	if (!m->has_content) {
		for (size_t i = 0; i < e->n_extents; i++)
			item_extent_add(&extents,
			    &(struct item_extent){ e->extents[i].offset, e->extents[i].length });
		ex = msg_list(&extents, (uint32_t)e->n_extents);
		x.fd = m->read_fd;
	}
	if (local)
		x.deliver_job = (struct msg_deliver_job){ OF_MESSAGE };
	else
		x.send_job = (struct msg_send_job){ OF_MESSAGE, .transport = j->route->transport,
			.lmtp = j->route->kind == ROUTE_LMTP, .nexthop = j->route->nexthop,
			.port = j->route->port };
	err = ipc_send(j->agent->chan, &x);
	buf_free(&rcpts);
	buf_free(&extents);
	return err;
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
job_dispatch(struct qmgr *q, struct job *j)
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

void
job_wait(struct qmgr *q, struct message *m, struct sched_job *sj, bool soon, const char *reason)
{
	const struct conf *conf = q->d->conf;
	int64_t now = qmgr_now(q);
	int64_t due = now + sched_backoff(now - m->arrived, conf->minimal_backoff_time,
				conf->maximal_backoff_time);

	sched_job_wait(q->sched, sj, soon ? now + SOON_MS : due, slice_str(reason));
	m->set_mtime = true;
	if (sj->timer.at)
		qmgr_arm(q, sj->timer.due);
}

/* Decides what the sched_job of a site waits for, by the recipients that are its. */
void
job_settle(struct qmgr *q, struct message *m, struct sched_job *sj, bool soon)
{
	unsigned int n[RCPT_STATES] = { 0 };
	char reason[RCPT_TEXT_MAX + 32] = "", code[16];

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
		job_wait(q, m, sj, soon, reason);
	else if (!n[RCPT_IN_FLIGHT])
		sched_job_remove(q->sched, sj);
}
