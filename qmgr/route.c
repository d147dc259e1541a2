/*
 * What qmgr asks others about and remembers: routes (maps), sites (dns), users of tokens (auth).
 * Runs in the loop. Hostile input: the answers; an answer that nobody asked for is counted and
 * dropped, and what maps says of a local user is bounded again by the local zygote. Invariant: a
 * route in the cache is positive and younger than the last maps_changed; questions outlive the
 * death of a peer and are asked again.
 */
#include "qmgr/qmgr.h"

#include <stdio.h>
#include <stdlib.h>

#define SITE_LIMIT 20000u
#define SITE_TTL_MAX 3600u
#define TOKEN_LIMIT 10000u
#define TOKEN_TTL_MS 60000

/* --- routes --- */

struct waiter {
	struct waiter *next;
	struct message *msg;
	uint32_t rcpt;
};

struct question {
	struct hash_node node; /* by address */
	uint32_t id;
	TAILQ_ENTRY(question) link;
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
ask(struct qmgr *q, struct message *m, size_t i)
{
	struct slice address = m->env.rcpts[i].address;
	struct hash_node *n = hash_find(&q->questions, address);
	struct question *x = n ? HASH_ELEMENT(n, struct question, node) : NULL;
	struct waiter *w = xcalloc(1, sizeof(*w));

	if (!x) {
		x = xcalloc(1, sizeof(*x) + address.n + 1);
		memcpy(x->address, address.p, address.n);
		x->id = ++q->next_id;
		hash_insert(&q->questions, &x->node, slice(x->address, address.n));
		TAILQ_INSERT_TAIL(&q->asked, x, link);
		send_question(q, x);
	}
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

		if ((s != RCPT_TODO && s != RCPT_DEFERRED) ||
		    (m->rcpts[i].route && m->rcpts[i].route->cached))
			continue;
		n = hash_find(&q->routes, m->env.rcpts[i].address);
		if (n) {
			struct route *r = HASH_ELEMENT(n, struct route, node);

			TAILQ_REMOVE(&q->route_lru, r, lru);
			TAILQ_INSERT_TAIL(&q->route_lru, r, lru);
			set_route(q, m, i, r);
		} else if (!q->d->stopping) { /* else it is committed as it is: the successor asks
					       */
			ask(q, m, i);
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
	TAILQ_REMOVE(&q->asked, x, link);
	hash_remove(&q->questions, &x->node);
	cache(q, r);
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
	if (e->id == msg->id)
		break;
	if (!e)
		return;
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

/* --- users of tokens --- */

struct token_entry {
	struct hash_node node; /* by token */
	TAILQ_ENTRY(token_entry) lru;
	uint32_t id; /* of the question under way, or 0 */
	int64_t expires;
	struct waiter *waiters;
	struct arena arena;
	struct slice user;
	struct msg_list senders;
	unsigned char token[32];
};

static void
token_free(struct qmgr *q, struct token_entry *t)
{
	TAILQ_REMOVE(&q->token_lru, t, lru);
	hash_remove(&q->tokens, &t->node);
	arena_free(&t->arena);
	free(t);
}

/* user@example.com for user+box@example.com. */
static bool
same_but_extension(struct slice sender, struct slice own, const char *delimiters)
{
	ptrdiff_t at = slice_rfind(sender, '@');
	struct slice local = slice_sub(sender, 0, at < 0 ? SIZE_MAX : (size_t)at);
	struct slice domain = at < 0 ? SLICE_NULL : slice_sub(sender, (size_t)at, SIZE_MAX);

	for (size_t i = 1; i < local.n; i++)
		if (local.p[i] && delimiters && strchr(delimiters, local.p[i]) &&
		    own.n == i + domain.n &&
		    slice_caseeq(slice_sub(own, 0, i), slice_sub(local, 0, i)) &&
		    slice_caseeq(slice_sub(own, i, SIZE_MAX), domain))
			return true;
	return false;
}

static bool
owns(const struct qmgr *q, const struct token_entry *t, struct slice sender)
{
	struct cursor c = cursor(t->senders.raw);
	struct item_sender s;

	if (!sender.n || !q->d->conf->submission_sender_check)
		return true;
	while (item_sender_next(&c, &s)) {
		if (slice_caseeq(s.address, sender) || slice_eq_str(s.address, "*"))
			return true;
		if (s.address.n && s.address.p[0] == '@' && s.address.n < sender.n &&
		    slice_caseeq(slice_sub(sender, sender.n - s.address.n, SIZE_MAX), s.address))
			return true;
		if (same_but_extension(sender, s.address, q->d->conf->recipient_delimiter))
			return true;
	}
	return false;
}

static void
judge_token(struct qmgr *q, struct message *m, const struct token_entry *t)
{
	if (owns(q, t, m->env.sender)) {
		receive_checked(q, m, t->user, 0, NULL, NULL);
		return;
	}
	sender_judge(q, m, t->user);
}

static void
send_token(struct qmgr *q, struct token_entry *t)
{
	struct msg m = MSG_INIT(MSG_TOKEN_CHECK, t->id);

	m.token_check.token = slice(t->token, sizeof(t->token));
	m.token_check.service = SLICE_LIT("smtp");
	(void)daemon_send(q->d, ROLE_AUTH, &m);
}

void
token_ask(struct qmgr *q, struct message *m, struct slice token)
{
	struct hash_node *n = token.n == 32 ? hash_find(&q->tokens, token) : NULL;
	struct token_entry *t = n ? HASH_ELEMENT(n, struct token_entry, node) : NULL;
	struct waiter *w;

	if (token.n != 32) {
		receive_checked(q, m, SLICE_NULL, 530, "5.7.0", "Authentication required");
		return;
	}
	if (t && !t->id && t->expires > qmgr_now(q)) {
		judge_token(q, m, t);
		return;
	}
	if (t && !t->id) {
		token_free(q, t);
		t = NULL;
	}
	if (!t) {
		if (q->tokens.count >= TOKEN_LIMIT && !TAILQ_FIRST(&q->token_lru)->id)
			token_free(q, TAILQ_FIRST(&q->token_lru));
		t = xcalloc(1, sizeof(*t));
		memcpy(t->token, token.p, 32);
		t->id = ++q->next_id;
		hash_insert(&q->tokens, &t->node, slice(t->token, 32));
		TAILQ_INSERT_TAIL(&q->token_lru, t, lru);
		send_token(q, t);
	}
	w = xcalloc(1, sizeof(*w));
	*w = (struct waiter){ t->waiters, m, 0 };
	t->waiters = w;
	m->routing++; /* holds the message */
}

void
token_answer(struct qmgr *q, const struct msg *msg)
{
	const struct msg_token_user *a = &msg->token_user;
	struct token_entry *t;
	struct waiter *w, *next;

	TAILQ_FOREACH_REVERSE(t, &q->token_lru, token_lru, lru)
	if (t->id == msg->id)
		break;
	if (!t) {
		q->odd++;
		return;
	}
	t->id = 0;
	t->expires = qmgr_now(q) + TOKEN_TTL_MS;
	t->user = arena_dup(&t->arena, a->user);
	t->senders.raw = arena_dup(&t->arena, a->senders.raw);
	t->senders.n = a->senders.n;
	w = t->waiters;
	t->waiters = NULL;
	for (; w; w = next) {
		struct message *m = w->msg;

		next = w->next;
		message_pin(q, m);
		m->routing--;
		if (a->status == 0)
			judge_token(q, m, t);
		else if (a->status == 1)
			receive_checked(q, m, SLICE_NULL, 530, "5.7.0", "Authentication required");
		else
			receive_checked(
			    q, m, SLICE_NULL, 454, "4.7.0", "Temporary authentication failure");
		message_unpin(q, m);
		free(w);
	}
	if (a->status)
		token_free(q, t);
	deliver_pump(q);
}

/* A peer is back: what was asked of the former one is asked again. */
void
route_link_up(struct qmgr *q, enum role peer)
{
	struct question *x;
	struct token_entry *t;

	if (peer == ROLE_MAPS) {
		route_changed(q);
		sender_link_up(q);
		TAILQ_FOREACH(x, &q->asked, link)
			send_question(q, x);
	}
	if (peer == ROLE_AUTH)
		TAILQ_FOREACH(t, &q->token_lru, lru)
			if (t->id)
				send_token(q, t);
}
