/*
 * What qmgr asks others about and remembers: routes (maps) and sites (dns). Runs in the loop.
 * Hostile input: the answers; an answer that nobody asked for is counted and dropped, and what maps
 * says of a local user is bounded again by the local zygote. Invariant: a route in the cache is
 * positive and younger than the last maps_changed; questions outlive the death of a peer and are
 * asked again.
 */
#include "qmgr/qmgr.h"

#include <stdio.h>
#include <stdlib.h>

#define SITE_LIMIT 20000u
#define SITE_TTL_MAX 3600u
#define BULK 50u /* recipients of a message above which its questions leave room for others */

/* --- routes --- */

struct waiter {
	struct waiter *next;
	struct message *msg;
	uint32_t rcpt;
};

struct question {
	struct hash_node node; /* by route_key */
	uint32_t id;
	TAILQ_ENTRY(question) link;
	struct questions *list; /* of q, where it is */
	struct waiter *waiters;
	char address[];
};

void
route_drop(struct qmgr *q, struct route **r)
{
	struct route *x = *r;

	(void)q;
	*r = NULL;
	if (!x || --x->refs)
		return;
	arena_free(&x->arena);
	free(x);
}

static void
uncache(struct qmgr *q, struct route *r)
{
	hash_remove(&q->routes, &r->node);
	TAILQ_REMOVE(&q->route_lru, r, lru);
	r->cached = false;
	route_drop(q, &r);
}

void
route_changed(struct qmgr *q)
{
	while (!TAILQ_EMPTY(&q->route_lru))
		uncache(q, TAILQ_FIRST(&q->route_lru));
}

static void
cache(struct qmgr *q, struct route *r)
{
	if (r->status || q->d->conf->maps_cache_limit <= 0)
		return;
	if (q->routes.count >= (size_t)q->d->conf->maps_cache_limit)
		uncache(q, TAILQ_FIRST(&q->route_lru));
	hash_insert(&q->routes, &r->node, r->address);
	TAILQ_INSERT_TAIL(&q->route_lru, r, lru);
	r->cached = true;
	r->refs++;
}

static void
send_question(struct qmgr *q, struct question *x)
{
	struct msg m = MSG_INIT(MSG_ROUTE, x->id);

	m.route.address = slice_str(x->address);
	(void)daemon_send(q->d, ROLE_MAPS, &m);
}

static void
move_question(struct question *x, struct questions *to)
{
	if (x->list)
		TAILQ_REMOVE(x->list, x, link);
	x->list = to;
	TAILQ_INSERT_TAIL(to, x, link);
}

static struct question *
next_question(struct qmgr *q)
{
	if (q->n_asked >= MAPS_WINDOW)
		return NULL;
	if (!TAILQ_EMPTY(&q->to_ask))
		return TAILQ_FIRST(&q->to_ask);
	return q->n_asked < MAPS_WINDOW / 2 ? TAILQ_FIRST(&q->bulk) : NULL;
}

static void
send_questions(struct qmgr *q)
{
	struct question *x;

	while ((x = next_question(q))) {
		move_question(x, &q->asked);
		q->n_asked++;
		send_question(q, x);
	}
}

#define KEY_MAX (ENVELOPE_ADDRESS_MAX + 2)

/* What maps is asked for. A recipient that is what its own alias gave, or \name of another one, is
 * asked for as "\address": the mailbox, not the alias once more. */
static struct slice
route_key(const struct message *m, size_t i, char key[KEY_MAX])
{
	const struct envelope_rcpt *r = &m->env.rcpts[i];

	if (!m->env.hops || !slice_eq(r->address, r->original))
		return r->address;
	snprintf(key, KEY_MAX, "\\%.*s", SLICE_ARG(r->address));
	return slice_str(key);
}

static void
ask(struct qmgr *q, struct message *m, size_t i, struct slice address)
{
	struct hash_node *n = hash_find(&q->questions, address);
	struct question *x = n ? HASH_ELEMENT(n, struct question, node) : NULL;
	struct waiter *w = xcalloc(1, sizeof(*w));
	bool bulk = m->env.n_rcpts > BULK;

	if (!x) {
		x = xcalloc(1, sizeof(*x) + address.n + 1);
		memcpy(x->address, address.p, address.n);
		x->id = ++q->next_id;
		hash_insert(&q->questions, &x->node, slice(x->address, address.n));
		move_question(x, bulk ? &q->bulk : &q->to_ask);
	} else if (x->list == &q->bulk && !bulk) {
		move_question(x, &q->to_ask);
	}
	send_questions(q);
	*w = (struct waiter){ x->waiters, m, (uint32_t)i };
	x->waiters = w;
	m->routing++;
}

static void
set_route(struct qmgr *q, struct message *m, size_t i, struct route *r)
{
	route_drop(q, &m->rcpts[i].route);
	m->rcpts[i].route = r;
	r->refs++;
}

void
route_message(struct qmgr *q, struct message *m)
{
	message_pin(q, m);
	if (m->routing) { /* asked already: message_routed will look at all of it */
		message_unpin(q, m);
		return;
	}
	m->routing++;
	for (size_t i = 0; i < m->env.n_rcpts; i++) {
		enum rcpt_state s = m->env.rcpts[i].status->state;
		struct hash_node *n;
		struct slice address;
		char key[KEY_MAX];

		if ((s != RCPT_TODO && s != RCPT_DEFERRED) ||
		    (m->rcpts[i].route && m->rcpts[i].route->cached))
			continue;
		address = route_key(m, i, key);
		n = hash_find(&q->routes, address);
		if (n) {
			struct route *r = HASH_ELEMENT(n, struct route, node);

			TAILQ_REMOVE(&q->route_lru, r, lru);
			TAILQ_INSERT_TAIL(&q->route_lru, r, lru);
			set_route(q, m, i, r);
		} else if (!q->d->stopping) { /* else it is committed as it is: the successor asks
					       */
			ask(q, m, i, address);
		}
	}
	if (!--m->routing)
		message_routed(q, m);
	message_unpin(q, m);
}

static struct slice
agent_key(struct route *r)
{
	char *key = arena_printf(&r->arena, "%.*s\n%u\n%u\n%u\n%.*s\n%.*s", SLICE_ARG(r->user),
	    r->uid, r->gid, r->flags, SLICE_ARG(r->home), SLICE_ARG(r->mailbox));

	return slice_str(key);
}

static struct route *
make_route(struct slice address, const struct msg_route_answer *a)
{
	struct route *r = xcalloc(1, sizeof(*r));
	struct arena *m = &r->arena;

	r->refs = 1;
	r->address = arena_dup(m, address);
	r->status = a->status;
	r->enhanced = arena_dup(m, a->enhanced);
	r->text = arena_dup(m, a->text);
	r->kind = a->kind <= ROUTE_HOLD ? (enum route_kind)a->kind : ROUTE_ERROR;
	r->run = a->run <= RUN_ALIAS ? (enum run_kind)a->run : RUN_MAILBOX;
	r->uid = a->uid;
	r->gid = a->gid;
	r->flags = a->flags;
	r->port = a->port;
	r->transport = arena_dup(m, a->transport);
	r->nexthop = arena_dup(m, a->nexthop);
	r->user = arena_dup(m, a->user);
	r->home = arena_dup(m, a->home);
	r->mailbox = arena_dup(m, a->mailbox);
	r->extension = arena_dup(m, a->extension);
	r->argument = arena_dup(m, a->argument);
	r->groups.raw = arena_dup(m, a->groups.raw);
	r->groups.n = a->groups.n;
	if (r->kind == ROUTE_ERROR && !r->status)
		r->status = 1;
	if (r->kind == ROUTE_LOCAL)
		r->agent = agent_key(r);
	return r;
}

void
route_answer(struct qmgr *q, struct ipc_chan *ch, const struct msg *msg)
{
	struct question *x;
	struct route *r;
	struct waiter *w, *next;

	(void)ch;
	TAILQ_FOREACH(x, &q->asked, link)
		if (x->id == msg->id)
			break;
	if (!x) {
		q->odd++;
		return;
	}
	r = make_route(slice_str(x->address), &msg->route_answer);
	TAILQ_REMOVE(x->list, x, link);
	q->n_asked--;
	hash_remove(&q->questions, &x->node);
	cache(q, r);
	send_questions(q);
	for (w = x->waiters; w; w = next) {
		struct message *m = w->msg;

		next = w->next;
		message_pin(q, m);
		set_route(q, m, w->rcpt, r);
		if (!--m->routing)
			message_routed(q, m);
		message_unpin(q, m);
		free(w);
	}
	route_drop(q, &r);
	free(x);
}

/* --- sites --- */

struct site_entry {
	struct hash_node node; /* by domain */
	TAILQ_ENTRY(site_entry) lru;
	struct site_group *group;
	int64_t expires;
	uint32_t id; /* of the question under way, or 0 */
	char domain[];
};

struct site_group {
	struct hash_node node; /* by the 16 bytes that dns gave */
	unsigned int refs;
	unsigned char key[16];
	char name[]; /* the first domain that was met there */
};

static void
group_drop(struct qmgr *q, struct site_group *g)
{
	if (g && !--g->refs) {
		hash_remove(&q->groups, &g->node);
		free(g);
	}
}

static struct site_entry *
site_entry(struct qmgr *q, struct slice domain)
{
	struct hash_node *n = hash_find(&q->sites, domain);
	struct site_entry *e;

	if (n)
		return HASH_ELEMENT(n, struct site_entry, node);
	if (q->sites.count >= SITE_LIMIT) {
		e = TAILQ_FIRST(&q->site_lru);
		TAILQ_REMOVE(&q->site_lru, e, lru);
		hash_remove(&q->sites, &e->node);
		group_drop(q, e->group);
		free(e);
	}
	e = xcalloc(1, sizeof(*e) + domain.n + 1);
	memcpy(e->domain, domain.p, domain.n);
	hash_insert(&q->sites, &e->node, slice(e->domain, domain.n));
	TAILQ_INSERT_TAIL(&q->site_lru, e, lru);
	return e;
}

/* The name of the domain's site. Not known yet: the domain itself, while dns is asked; nobody
 * waits. */
static const char *
site_name(struct qmgr *q, struct slice domain)
{
	struct site_entry *e = site_entry(q, domain);
	int64_t now = qmgr_now(q);

	if (e->expires <= now && (!e->id || e->expires + 30000 <= now)) {
		struct msg m = MSG_INIT(MSG_SITE, ++q->next_id);

		/* the answer is looked for from the end */
		TAILQ_REMOVE(&q->site_lru, e, lru);
		TAILQ_INSERT_TAIL(&q->site_lru, e, lru);
		m.site.domain = domain;
		e->id = m.id;
		e->expires = now; /* asked again when no answer came within half a minute */
		(void)daemon_send(q->d, ROLE_DNS, &m);
	}
	return e->group ? e->group->name : e->domain;
}

void
site_answer(struct qmgr *q, const struct msg *msg)
{
	const struct msg_site_answer *a = &msg->site_answer;
	struct site_entry *e;
	struct hash_node *n;
	struct site_group *g = NULL;
	uint32_t ttl = a->ttl < 60 ? 60 : a->ttl;

	TAILQ_FOREACH_REVERSE(e, &q->site_lru, site_lru, lru)
	if (e->id && e->id == msg->id)
		break;
	if (!e) {
		q->odd++;
		return;
	}
	e->id = 0;
	e->expires = qmgr_now(q) + (int64_t)(ttl < SITE_TTL_MAX ? ttl : SITE_TTL_MAX) * 1000;
	if (a->status || a->site.n != 16)
		return;
	n = hash_find(&q->groups, a->site);
	if (n) {
		g = HASH_ELEMENT(n, struct site_group, node);
	} else {
		g = xcalloc(1, sizeof(*g) + strlen(e->domain) + 1);
		memcpy(g->key, a->site.p, 16);
		memcpy(g->name, e->domain, strlen(e->domain));
		hash_insert(&q->groups, &g->node, slice(g->key, 16));
	}
	g->refs++;
	group_drop(q, e->group);
	e->group = g;
}

struct sched_site *
route_site(struct qmgr *q, const struct route *r)
{
	char key[ENVELOPE_ADDRESS_MAX + 128];
	bool plain = slice_eq_str(r->transport, "smtp") || !r->transport.n;
	struct slice hop = r->nexthop;

	if (r->status)
		return sched_site(q->sched, SCHED_REMOTE, SLICE_LIT("(no route)"));
	if (r->kind == ROUTE_LOCAL)
		return sched_site(q->sched, SCHED_LOCAL, r->user.n ? r->user : r->agent);
	if (r->kind == ROUTE_SMTP && hop.n && hop.p[0] != '[' && q->d->conf->dns_site_grouping)
		hop = slice_str(site_name(q, hop));
	if (plain && !r->port)
		return sched_site(q->sched, SCHED_REMOTE, hop);
	if (plain)
		snprintf(key, sizeof(key), "%.*s:%u", SLICE_ARG(hop), r->port);
	else if (r->port)
		snprintf(key, sizeof(key), "%.*s/%.*s:%u", SLICE_ARG(r->transport), SLICE_ARG(hop),
		    r->port);
	else
		snprintf(key, sizeof(key), "%.*s/%.*s", SLICE_ARG(r->transport), SLICE_ARG(hop));
	return sched_site(q->sched, SCHED_REMOTE, slice_str(key));
}

/* A peer is back: what was asked of the former one is asked again. */
void
route_link_up(struct qmgr *q, enum role peer)
{
	struct question *x;

	if (peer == ROLE_MAPS) {
		route_changed(q);
		sender_link_up(q);
		expand_link_up(q);
		TAILQ_FOREACH(x, &q->asked, link)
			send_question(q, x);
	}
	if (peer == ROLE_AUTH)
		token_link_up(q);
}
