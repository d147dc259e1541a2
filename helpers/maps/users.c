/*
 * The cache of users in front of nss and auth. Runs in maps (uid bh-maps). Names come from
 * strangers, so the number of entries is bounded and "unknown" is kept for seconds only: a user who
 * was just added is found soon. An answer is matched by the number of its question, never by its
 * name. A source has no more than WINDOW questions at once; the others wait here for their turn. A
 * source that was silent for as long as a question may wait is asked one question at a time, and
 * what else comes is told at once that there is trouble: mail that needs it waits, other mail does
 * not.
 */
#include "helpers/maps/users.h"

#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>

enum {
	ENTRY_LIMIT = 50000,
	PENDING_LIMIT = 10000,
	WINDOW = 256, /* below what nss takes, 1000 */
	FOUND_SECONDS = 600,
	UNKNOWN_SECONDS = 5,
	TROUBLE_SECONDS = 1,
};

#define SECOND INT64_C(1000000)

TAILQ_HEAD(entry_list, entry);

struct entry {
	TAILQ_ENTRY(entry) next; /* until it is answered */
	struct hash_node node;   /* source, then name */
	enum users_source source;
	int status; /* 0, ERR_NOT_FOUND, ERR_TEMPORARY, or -EAGAIN: no answer yet */
	bool sent;
	int64_t until;                /* monotonic µs: end of the entry, or of the wait */
	int64_t asked;                /* monotonic µs; links that come up are waited for as well */
	uint32_t id;                  /* of the question */
	struct users_waiters waiters; /* until it is answered */
	struct resolve_user user;
	char *text;
};

struct source {
	struct entry_list asked, to_ask; /* the oldest first */
	size_t n_asked;
	int64_t heard; /* monotonic µs: last sign of life */
	bool silent;
};

struct users_cache {
	struct daemon *d;
	struct hash entries;
	struct source sources[2]; /* by enum users_source */
	size_t pending;
	uint32_t next_id;
	struct ev_timer tick;
	struct entry *last; /* to which users_ask gave -EAGAIN last; open */
	void (*answered)(void *ctx, struct users_waiters *waiters);
	void *ctx;
};

struct users_cache *
users_new(struct daemon *d, void (*answered)(void *ctx, struct users_waiters *waiters), void *ctx)
{
	struct users_cache *c = xcalloc(1, sizeof(*c));

	for (size_t i = 0; i < 2; i++) {
		TAILQ_INIT(&c->sources[i].asked);
		TAILQ_INIT(&c->sources[i].to_ask);
	}
	c->d = d;
	c->answered = answered;
	c->ctx = ctx;
	return c;
}

static void
entry_free(struct users_cache *c, struct entry *e)
{
	hash_remove(&c->entries, &e->node);
	free((void *)(uintptr_t)e->node.key.p);
	free(e->text);
	free(e);
}

void
users_free(struct users_cache **c)
{
	struct hash_node *n, *next;

	for (n = hash_next(&(*c)->entries, NULL); n; n = next) {
		next = hash_next(&(*c)->entries, n);
		entry_free(*c, HASH_ELEMENT(n, struct entry, node));
	}
	hash_free(&(*c)->entries);
	ev_timer_free(&(*c)->tick);
	free(*c);
	*c = NULL;
}

static void
drop_where(struct users_cache *c, int64_t before, int source)
{
	struct hash_node *n = hash_next(&c->entries, NULL), *next;

	for (; n; n = next) {
		struct entry *e = HASH_ELEMENT(n, struct entry, node);

		next = hash_next(&c->entries, n);
		if (e->status != -EAGAIN && (e->until < before || (int)e->source == source))
			entry_free(c, e);
	}
}

void
users_forget(struct users_cache *c, enum users_source source)
{
	drop_where(c, 0, (int)source);
}

static void
send_question(struct users_cache *c, const struct entry *e)
{
	struct slice name = slice_sub(e->node.key, 1, e->node.key.n);
	struct msg m = MSG_INIT(e->source == USERS_NSS ? MSG_NSS_GET : MSG_USER_GET, e->id);

	if (e->source == USERS_NSS)
		m.nss_get.name = name;
	else
		m.user_get.name = name;
	/* Without a link it is sent when one comes up. */
	(void)daemon_send(c->d, e->source == USERS_NSS ? ROLE_NSS : ROLE_AUTH, &m);
}

static void
send_more(struct users_cache *c, struct source *s)
{
	struct entry *e;

	while (s->n_asked < WINDOW && (e = TAILQ_FIRST(&s->to_ask))) {
		TAILQ_REMOVE(&s->to_ask, e, next);
		TAILQ_INSERT_TAIL(&s->asked, e, next);
		s->n_asked++;
		e->sent = true;
		send_question(c, e);
	}
}

static void
settle(struct users_cache *c, struct entry *e, int status, int64_t seconds)
{
	struct source *s = &c->sources[e->source];

	TAILQ_REMOVE(e->sent ? &s->asked : &s->to_ask, e, next);
	s->n_asked -= e->sent;
	c->pending--;
	e->status = status;
	e->until = ev_now_us() + seconds * SECOND;
	if (c->last == e)
		c->last = NULL;
	send_more(c, s);
}

static void
heard_of(struct source *s)
{
	s->heard = ev_now_us();
	s->silent = false;
}

static void
give_up(struct users_cache *c, struct entry *e)
{
	settle(c, e, ERR_TEMPORARY, TROUBLE_SECONDS);
	c->answered(c->ctx, &e->waiters);
}

static void
time_out(struct users_cache *c, struct entry *e)
{
	log_event(LOG_user_lookup_timeout,
	    "name=%s source=%s remedy=\"look whether this daemon and what it asks are up\"",
	    log_value(slice_sub(e->node.key, 1, e->node.key.n)),
	    e->source == USERS_NSS ? "nss" : "auth");
	give_up(c, e);
}

static void
expire(struct users_cache *c, struct source *s, int64_t now)
{
	struct entry *e;

	/* First what was never sent: no question for nothing. */
	while ((e = TAILQ_FIRST(&s->to_ask)) && e->until <= now)
		time_out(c, e);
	while ((e = TAILQ_FIRST(&s->asked)) && e->until <= now) {
		s->silent = s->silent || s->heard < e->asked;
		while (s->silent && (e = TAILQ_FIRST(&s->to_ask)))
			give_up(c, e);
		time_out(c, TAILQ_FIRST(&s->asked));
	}
}

/* Once a second while questions wait: those that waited too long become trouble. */
static void
on_tick(void *ctx)
{
	struct users_cache *c = ctx;
	int64_t now = ev_now_us();

	for (size_t i = 0; i < 2; i++)
		expire(c, &c->sources[i], now);
	if (c->pending)
		ev_timer_set(c->d->base, &c->tick, 1000, on_tick, c);
}

static int
entry_answer(struct users_cache *c, struct entry *e, struct arena *a, struct resolve_user *user_r)
{
	if (e->status == -EAGAIN)
		c->last = e;
	if (e->status)
		return e->status;
	*user_r = e->user;
	user_r->name = arena_strdup(a, e->user.name);
	user_r->home = arena_strdup(a, e->user.home);
	if (e->user.mailbox)
		user_r->mailbox = arena_strdup(a, e->user.mailbox);
	return 0;
}

/* NULL: too many questions wait, or nobody there answers. */
static struct entry *
ask_new(struct users_cache *c, enum users_source source, struct slice key)
{
	struct source *s = &c->sources[source];
	struct entry *e;

	if (c->pending >= PENDING_LIMIT || (s->silent && s->n_asked))
		return NULL;
	if (c->entries.count >= ENTRY_LIMIT)
		drop_where(c, INT64_MAX, -1);
	e = xcalloc(1, sizeof(*e));
	e->source = source;
	TAILQ_INIT(&e->waiters);
	e->status = -EAGAIN;
	e->id = ++c->next_id ? c->next_id : ++c->next_id;
	e->asked = ev_now_us();
	e->until = e->asked + c->d->conf->user_lookup_timeout * 1000;
	hash_insert(&c->entries, &e->node, slice(slice_dup(key), key.n));
	TAILQ_INSERT_TAIL(&s->to_ask, e, next);
	if (!c->pending++)
		ev_timer_set(c->d->base, &c->tick, 1000, on_tick, c);
	send_more(c, s);
	return e;
}

int
users_ask(struct users_cache *c, enum users_source source, struct slice name, struct arena *a,
    struct resolve_user *user_r)
{
	unsigned char key[1025] = { source == USERS_NSS ? 'n' : 'a' };
	struct hash_node *n;
	struct entry *e;

	if (!name.n || name.n > (source == USERS_NSS ? 255u : 1024u))
		return ERR_NOT_FOUND;
	for (size_t i = 0; i < name.n; i++)
		key[i + 1] = source == USERS_AUTH ? ascii_lower(name.p[i]) : name.p[i];
	n = hash_find(&c->entries, slice(key, name.n + 1));
	e = n ? HASH_ELEMENT(n, struct entry, node) : NULL;
	if (e && e->status != -EAGAIN && e->until < ev_now_us()) {
		entry_free(c, e);
		e = NULL;
	}
	if (!e)
		e = ask_new(c, source, slice(key, name.n + 1));
	return e ? entry_answer(c, e, a, user_r) : ERR_TEMPORARY;
}

void
users_wait(struct users_cache *c, struct users_waiter *w)
{
	w->list = &c->last->waiters;
	TAILQ_INSERT_TAIL(w->list, w, next);
}

void
users_waiter_drop(struct users_waiter *w)
{
	if (w->list)
		TAILQ_REMOVE(w->list, w, next);
	w->list = NULL;
}

void
users_waiters_move(struct users_waiters *from, struct users_waiters *to)
{
	struct users_waiter *w;

	TAILQ_FOREACH(w, from, next)
		w->list = to;
	TAILQ_CONCAT(to, from, next);
}

/* Copies the strings of an answer into one piece of memory. */
static void
keep_strings(struct entry *e, struct slice name, struct slice home, struct slice mailbox)
{
	char *at = e->text = xcalloc(1, name.n + home.n + mailbox.n + 3);

	e->user.name = memcpy(at, name.p, name.n);
	at += name.n + 1;
	e->user.home = memcpy(at, home.n ? home.p : (const unsigned char *)"", home.n);
	at += home.n + 1;
	if (mailbox.n)
		e->user.mailbox = memcpy(at, mailbox.p, mailbox.n);
}

static struct entry *
find_question(struct users_cache *c, enum users_source source, uint32_t id)
{
	struct entry *e;

	TAILQ_FOREACH(e, &c->sources[source].asked, next)
		if (e->id == id)
			return e;
	return NULL;
}

void
users_answer(struct users_cache *c, const struct msg *m)
{
	static const int statuses[] = { 0, ERR_NOT_FOUND, ERR_TEMPORARY };
	static const int seconds[] = { FOUND_SECONDS, UNKNOWN_SECONDS, TROUBLE_SECONDS };
	bool nss = m->type == MSG_NSS_USER;
	struct entry *e = find_question(c, nss ? USERS_NSS : USERS_AUTH, m->id);
	unsigned status = nss ? m->nss_user.status : m->user_entry.status;

	heard_of(&c->sources[nss ? USERS_NSS : USERS_AUTH]);
	if (!e)
		return;
	if (status > 2)
		status = 2;
	settle(c, e, statuses[status], seconds[status]);
	if (!status && nss) {
		struct cursor groups = cursor(m->nss_user.groups.raw);
		struct item_gid g;

		keep_strings(e, m->nss_user.name, m->nss_user.home, SLICE_NULL);
		e->user.uid = m->nss_user.uid;
		e->user.gid = m->nss_user.gid;
		while (e->user.ngroups < RESOLVE_GROUPS && item_gid_next(&groups, &g))
			e->user.groups[e->user.ngroups++] = g.gid;
	} else if (!status) {
		keep_strings(e, m->user_entry.user, m->user_entry.home, m->user_entry.mailbox);
		e->user.uid = m->user_entry.uid;
		e->user.gid = m->user_entry.gid;
	}
	c->answered(c->ctx, &e->waiters);
}

void
users_link_up(struct users_cache *c, enum role peer)
{
	enum users_source source = peer == ROLE_NSS ? USERS_NSS : USERS_AUTH;
	struct entry *e;

	if (peer != ROLE_NSS && peer != ROLE_AUTH)
		return;
	heard_of(&c->sources[source]);
	TAILQ_FOREACH(e, &c->sources[source].asked, next)
		send_question(c, e);
}

void
users_count(const struct users_cache *c, size_t *n_r, size_t *pending_r)
{
	*n_r = c->entries.count;
	*pending_r = c->pending;
}
