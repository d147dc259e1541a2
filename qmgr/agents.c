/*
 * Agents: delivery children, one per user, started through the local zygote and kept for a while;
 * and the standing smtp-client processes. Runs in the loop of qmgr. Hostile input: none but the end
 * of a channel; results are judged in deliver.c. Invariant: a job is in the list of exactly one
 * agent from agent_add to agent_remove; an agent without a channel is being started.
 */
#include "qmgr/qmgr.h"

#include <stdlib.h>

#define CHILDREN_MAX 1000u /* delivery children, idle ones included */
#define SNAPSHOT_MS 1000   /* how long what a child has read at its start is believed */

static void
on_message(void *ctx, struct ipc_chan *ch, struct msg *m)
{
	deliver_result(ctx, ch, m);
}

static void
on_closed(void *ctx, struct ipc_chan *ch, int err, const char *why)
{
	if (err != ERR_CLOSED) {
		count(COUNT_ipc_violations, 1);
		log_event(LOG_ipc_violation,
		    "peer=delivery reason=\"%s\" remedy=\"its channel was closed; look for a crash "
		    "or an attack in it\"",
		    why);
	}
	agents_link_down(ctx, ch);
}

static const struct ipc_ops delivery_ops = { on_message, on_closed };

struct agent *
agent_of(struct qmgr *q, const struct ipc_chan *ch)
{
	struct agent *a;

	TAILQ_FOREACH(a, &q->agents, link)
		if (a->chan == ch)
			return a;
	return NULL;
}

bool
agents_ready(const struct qmgr *q, const struct route *r)
{
	struct agent *a;

	if (r->kind == ROUTE_LOCAL)
		return q->d->peers[ROLE_LOCAL] != NULL;
	TAILQ_FOREACH(a, &q->agents, link)
		if (a->kind == AGENT_CLIENT)
			return true;
	return false;
}

/* The jobs of one next hop go to one process, so that its connections are used again. */
static struct agent *
client_for(const struct qmgr *q, const struct route *r)
{
	struct agent *a, *best = NULL;
	uint64_t best_score = 0;
	static const unsigned char key[16] = "client of a hop";

	TAILQ_FOREACH(a, &q->agents, link) {
		uint64_t score;

		if (a->kind != AGENT_CLIENT)
			continue;
		/* Rendezvous: each process draws a number for the hop, the highest takes it. */
		score = siphash(key, r->nexthop) ^ (uint64_t)(uintptr_t)a;
		score *= 0x9e3779b97f4a7c15u;
		if (!best || score > best_score) {
			best = a;
			best_score = score;
		}
	}
	return best;
}

static void
child_close(struct qmgr *q, struct agent *a)
{
	TAILQ_REMOVE(&q->agents, a, link);
	if (!a->retired)
		hash_remove(&q->children, &a->node);
	if (a->chan)
		ipc_chan_free(&a->chan);
	free(a->key);
	free(a);
}

static void
make_room(struct qmgr *q)
{
	struct agent *a, *oldest = NULL;

	if (q->children.count < CHILDREN_MAX)
		return;
	TAILQ_FOREACH(a, &q->agents, link)
		if (a->kind == AGENT_DELIVERY && a->chan && !a->n_jobs && !a->retired &&
		    (!oldest || a->idle_since < oldest->idle_since))
			oldest = a;
	if (oldest)
		child_close(q, oldest);
}

static struct agent *
child_start(struct qmgr *q, const struct route *r)
{
	struct msg m = MSG_INIT(MSG_DELIVER_START, ++q->next_id);
	struct agent *a;

	make_room(q);
	m.deliver_start = (struct msg_deliver_start){ .user = r->user,
		.uid = r->uid,
		.gid = r->gid,
		.groups = r->groups,
		.home = r->home,
		.mailbox = r->mailbox,
		.flags = r->flags };
	if (q->children.count >= CHILDREN_MAX || daemon_send(q->d, ROLE_LOCAL, &m))
		return NULL;
	a = xcalloc(1, sizeof(*a));
	a->kind = AGENT_DELIVERY;
	a->start_id = m.id;
	a->started = a->idle_since = qmgr_now(q);
	TAILQ_INIT(&a->jobs);
	a->key = slice_dup(r->agent);
	TAILQ_INSERT_TAIL(&q->agents, a, link);
	hash_insert(&q->children, &a->node, slice(a->key, r->agent.n));
	return a;
}

/* Whether the child reads at its start what its user or an administrator may change later: the
 * lists of an alias; .forward, where the mailbox is not below the home (local/target.c). */
static bool
is_snapshot(const struct route *r)
{
	size_t colon = (size_t)(slice_find(r->mailbox, ':') + 1);
	struct slice home = r->home, top = slice_sub(r->mailbox, colon, colon + home.n),
		     rest = slice_sub(r->mailbox, colon + home.n, r->mailbox.n);

	if (slice_has_prefix(r->mailbox, "alias:"))
		return true;
	while (rest.n > 1 && rest.p[0] == '/' && rest.p[1] == '/')
		rest = slice_sub(rest, 1, rest.n);
	return r->flags & ROUTE_FORWARD && !(slice_eq(top, home) && rest.n > 1 && rest.p[0] == '/');
}

/* What it has is worked off; agents_idle closes it, this may be called from its own channel. */
static void
retire(struct qmgr *q, struct agent *a)
{
	hash_remove(&q->children, &a->node);
	a->retired = true;
	qmgr_arm(q, qmgr_now(q));
}

struct agent *
agent_for(struct qmgr *q, const struct route *r)
{
	struct hash_node *n;
	struct agent *a;

	if (r->kind != ROUTE_LOCAL)
		return client_for(q, r);
	n = hash_find(&q->children, r->agent);
	a = n ? HASH_ELEMENT(n, struct agent, node) : NULL;
	if (a && a->chan && qmgr_now(q) - a->started >= SNAPSHOT_MS && is_snapshot(r) &&
	    q->d->peers[ROLE_LOCAL]) {
		retire(q, a);
		a = NULL;
	}
	return a ? a : child_start(q, r);
}

void
agent_add(struct agent *a, struct job *j)
{
	j->agent = a;
	TAILQ_INSERT_TAIL(&a->jobs, j, of_agent);
	a->n_jobs++;
}

void
agent_remove(struct qmgr *q, struct agent *a, struct job *j)
{
	j->agent = NULL;
	TAILQ_REMOVE(&a->jobs, j, of_agent);
	if (--a->n_jobs == 0) {
		a->idle_since = qmgr_now(q);
		if (a->kind == AGENT_DELIVERY)
			qmgr_arm(q, a->retired ? a->idle_since
					       : a->idle_since + q->d->conf->local_child_idle_time);
	}
}

/* Takes all jobs from an agent that is no more; those that may be repeated go to a new one. */
static void
lose_jobs(struct qmgr *q, struct jobs *lost, bool reached, const char *why)
{
	struct job *j;

	while ((j = TAILQ_FIRST(lost))) {
		TAILQ_REMOVE(lost, j, of_agent);
		j->agent = NULL;
		if (!reached || !deliver_again(q, j)) {
			if (j->agent)
				agent_remove(q, j->agent, j);
			deliver_lost(q, j, reached, why);
		}
	}
}

static void
agent_gone(struct qmgr *q, struct agent *a, bool reached, const char *why)
{
	struct jobs lost = TAILQ_HEAD_INITIALIZER(lost);

	TAILQ_CONCAT(&lost, &a->jobs, of_agent);
	a->n_jobs = 0;
	if (a->kind == AGENT_DELIVERY) {
		child_close(q, a);
	} else {
		TAILQ_REMOVE(&q->agents, a, link);
		free(a);
	}
	lose_jobs(q, &lost, reached, why);
}

void
agents_link_up(struct qmgr *q, struct ipc_chan *ch)
{
	struct agent *a = xcalloc(1, sizeof(*a));

	a->kind = AGENT_CLIENT;
	a->chan = ch;
	TAILQ_INIT(&a->jobs);
	TAILQ_INSERT_TAIL(&q->agents, a, link);
}

void
agents_link_down(struct qmgr *q, struct ipc_chan *ch)
{
	struct agent *a = agent_of(q, ch), *next;

	if (ipc_chan_peer(ch) == ROLE_LOCAL) {
		/* The zygote: living children go on, those under way will not come. */
		for (a = TAILQ_FIRST(&q->agents); a; a = next) {
			next = TAILQ_NEXT(a, link);
			if (a->kind == AGENT_DELIVERY && !a->chan) {
				agent_gone(q, a, false, "local delivery was restarted");
				next = TAILQ_FIRST(&q->agents); /* the list may have changed */
			}
		}
		return;
	}
	if (!a)
		return;
	if (a->n_jobs)
		log_event(LOG_agent_died, "role=%s jobs=%u", role_table[ipc_chan_peer(ch)].name,
		    a->n_jobs);
	if (a->kind == AGENT_DELIVERY)
		a->chan = NULL; /* freed by the caller of this function */
	agent_gone(q, a, true, "the delivery process died");
}

void
agents_kill(struct qmgr *q, struct agent *a)
{
	struct job *j;

	TAILQ_FOREACH(j, &a->jobs, of_agent)
		j->again = true;
	agent_gone(q, a, true, "the delivery took too long");
}

void
agents_started(struct qmgr *q, struct msg *m)
{
	struct agent *a;
	struct job *j, *next;

	TAILQ_FOREACH(a, &q->agents, link)
		if (a->kind == AGENT_DELIVERY && !a->chan && a->start_id == m->id)
			break;
	if (!a) {
		q->odd++;
		return;
	}
	if (m->deliver_started.status || !ipc_is_channel(m->fd)) {
		char *why = slice_dup(m->deliver_started.text);

		log_event(LOG_delivery_start, "reason=%s remedy=\"see local(8)\"", log_cstr(why));
		agent_gone(q, a, true, why[0] ? why : "the delivery process did not start");
		free(why);
		return;
	}
	a->chan = ipc_chan_new(q->d->io, m->fd, ROLE_DELIVERY, &delivery_ops, q);
	a->pid = (pid_t)m->deliver_started.pid;
	m->fd = -1;
	for (j = TAILQ_FIRST(&a->jobs); j; j = next) {
		next = TAILQ_NEXT(j, of_agent);
		if (deliver_send(q, j)) {
			agent_gone(q, a, true, "the delivery process is gone");
			return;
		}
	}
	if (!a->n_jobs)
		qmgr_arm(q, qmgr_now(q) + q->d->conf->local_child_idle_time);
}

void
agents_idle(struct qmgr *q, int64_t now)
{
	/* Sooner than the child ends by itself, so that no job meets a process that is leaving. */
	int64_t limit = q->d->conf->local_child_idle_time * 4 / 5, first = INT64_MAX;

	for (struct agent *a = TAILQ_FIRST(&q->agents), *next; a; a = next) {
		next = TAILQ_NEXT(a, link);
		if (a->kind != AGENT_DELIVERY || !a->chan || a->n_jobs)
			continue;
		if (a->retired || a->idle_since + limit <= now)
			child_close(q, a);
		else if (a->idle_since + limit < first)
			first = a->idle_since + limit;
	}
	if (first != INT64_MAX)
		qmgr_arm(q, first);
}
