/*
 * Requests to the daemons behind a receiver, and the cache of positive answers of maps. Runs in the
 * children of smtpd and submission and in pickup. The peers may be taken over: an answer is looked
 * up by channel and id, never trusted; of a verdict only what lib/ipc checked is used. Invariant: a
 * request is either active and in the table, or neither.
 */
#include "receive/receiver.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#define CACHE_SECONDS 10 /* of an answer that is not bound to a table */

struct verdict {
	struct hash_node node;
	TAILQ_ENTRY(verdict) order;
	uint32_t count;
	int64_t until; /* monotonic microseconds; 0: until maps says that a table changed */
	size_t key_n, finals_n;
	unsigned char bytes[]; /* key, then finals */
};

void
receiver_init(struct receiver *r, struct daemon *d)
{
	static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
	unsigned char seed[sizeof(r->session_prefix) - 1];

	*r = (struct receiver){ .d = d };
	TAILQ_INIT(&r->cache_order);
	if (getrandom(seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
		die("getrandom: no randomness");
	for (size_t i = 0; i < sizeof(seed); i++)
		r->session_prefix[i] = digits[seed[i] & 31];
}

void
receiver_session_id(struct receiver *r, char out_r[16])
{
	snprintf(out_r, 16, "%s%X", r->session_prefix, ++r->session_count & 0xffffff);
}

/* --- requests --- */

int
request_send(struct receiver *r, enum role peer, struct msg *m, struct request *q,
    request_done *done, void *ctx)
{
	struct ipc_chan *chan = r->d->peers[peer];
	int err;

	request_end(q);
	if (!chan)
		return ERR_CLOSED;
	m->id = ipc_next_id(chan);
	err = ipc_send(chan, m);
	if (err)
		return err;
	*q = (struct request){ .r = r, .done = done, .ctx = ctx, .active = true };
	q->key.chan = chan;
	q->key.id = m->id;
	hash_insert(&r->requests, &q->node, slice(&q->key, sizeof(q->key)));
	return 0;
}

int
request_more(struct request *q, struct msg *m)
{
	if (!q->active)
		return ERR_CLOSED;
	m->id = (uint32_t)q->key.id;
	return ipc_send(q->key.chan, m);
}

void
request_end(struct request *q)
{
	if (!q->active)
		return;
	hash_remove(&q->r->requests, &q->node);
	q->active = false;
}

/* --- the cache --- */

static void
verdict_free(struct receiver *r, struct verdict *v)
{
	hash_remove(&r->cache, &v->node);
	TAILQ_REMOVE(&r->cache_order, v, order);
	free(v);
}

static void
cache_clear(struct receiver *r)
{
	while (!TAILQ_EMPTY(&r->cache_order))
		verdict_free(r, TAILQ_FIRST(&r->cache_order));
}

static struct verdict *
cache_find(struct receiver *r, struct slice key)
{
	struct hash_node *n = hash_find(&r->cache, key);
	struct verdict *v = n ? HASH_ELEMENT(n, struct verdict, node) : NULL;

	if (v && v->until && v->until < ev_now_us()) {
		verdict_free(r, v);
		return NULL;
	}
	return v;
}

static void
cache_add(struct receiver *r, struct slice key, const struct msg_rcpt_verdict *m)
{
	size_t limit = (size_t)r->d->conf->maps_cache_limit;
	struct slice finals = m->finals.raw;
	struct verdict *v;

	if (!limit || finals.n > 4096 || cache_find(r, key))
		return;
	if (r->cache.count >= limit)
		verdict_free(r, TAILQ_FIRST(&r->cache_order));
	v = xmalloc(sizeof(*v) + key.n + finals.n);
	*v = (struct verdict){ .count = m->finals.n, .key_n = key.n, .finals_n = finals.n };
	if (!(m->flags & 1))
		v->until = ev_now_us() + CACHE_SECONDS * INT64_C(1000000);
	memcpy(v->bytes, key.p, key.n);
	if (finals.n)
		memcpy(v->bytes + key.n, finals.p, finals.n);
	hash_insert(&r->cache, &v->node, slice(v->bytes, key.n));
	TAILQ_INSERT_TAIL(&r->cache_order, v, order);
}

/* --- recipients --- */

static void
answer_temporary(struct rcpt_question *q)
{
	struct rcpt_answer a = {
		.reply = REPLY(
		    451, "4.3.0", "Error: recipient look-up is not available, try again later")
	};

	q->done(q->ctx, &a);
}

static void
on_verdict(struct request *request, struct msg *m)
{
	struct rcpt_question *q = request->ctx;
	struct receiver *r = request->r;
	struct rcpt_answer a = { 0 };

	request_end(request);
	if (!m || m->type != MSG_RCPT_VERDICT || m->rcpt_verdict.code < 200 ||
	    m->rcpt_verdict.code > 599) {
		answer_temporary(q);
		return;
	}
	a.reply = (struct reply){ .code = m->rcpt_verdict.code,
		.enhanced = m->rcpt_verdict.enhanced,
		.text = m->rcpt_verdict.text };
	if (reply_is_good(&a.reply)) {
		a.finals = m->rcpt_verdict.finals.raw;
		a.count = m->rcpt_verdict.finals.n;
		cache_add(r, q->key, &m->rcpt_verdict);
	}
	q->done(q->ctx, &a);
}

static bool
answer_from_cache(struct receiver *r, struct rcpt_question *q)
{
	struct rcpt_answer a = { .reply = REPLY(250, "2.1.5", "Ok") };
	struct verdict *v = cache_find(r, q->key);

	if (!v)
		return false;
	a.finals = slice(v->bytes + v->key_n, v->finals_n);
	a.count = v->count;
	q->done(q->ctx, &a);
	return true;
}

void
rcpt_ask(struct receiver *r, struct rcpt_question *q, struct arena *arena, struct slice address,
    struct slice sender, const char *client, uint32_t flags,
    void (*done)(void *ctx, const struct rcpt_answer *a), void *ctx)
{
	struct msg m = MSG_INIT(MSG_RCPT_CHECK, 0);
	unsigned char *key = arena_alloc(arena, address.n + 1);

	key[0] = (unsigned char)flags;
	if (address.n)
		memcpy(key + 1, address.p, address.n);
	q->key = slice(key, address.n + 1);
	q->done = done;
	q->ctx = ctx;
	if (answer_from_cache(r, q))
		return;
	m.rcpt_check.address = address;
	m.rcpt_check.sender = sender;
	m.rcpt_check.client = slice_str(client);
	m.rcpt_check.flags = flags;
	if (request_send(r, ROLE_MAPS, &m, &q->request, on_verdict, q))
		answer_temporary(q);
}

void
rcpt_cancel(struct rcpt_question *q)
{
	request_end(&q->request);
}

/* --- what comes back --- */

void
receiver_message(struct receiver *r, struct ipc_chan *ch, struct msg *m)
{
	struct request *q;
	struct hash_node *n;
	struct {
		struct ipc_chan *chan;
		uint64_t id;
	} key = { ch, m->id };

	if (m->type == MSG_MAPS_CHANGED) {
		cache_clear(r);
		return;
	}
	n = hash_find(&r->requests, slice(&key, sizeof(key)));
	if (!n)
		return; /* late: nobody waits any more */
	q = HASH_ELEMENT(n, struct request, node);
	q->done(q, m);
}

/* Each done may start or end other requests, so the table is looked at anew after each. */
void
receiver_link_down(struct receiver *r, struct ipc_chan *ch)
{
	struct hash_node *n = hash_next(&r->requests, NULL);

	if (ipc_chan_peer(ch) == ROLE_MAPS)
		cache_clear(r);
	while (n) {
		struct request *q = HASH_ELEMENT(n, struct request, node);
		if (q->key.chan != ch) {
			n = hash_next(&r->requests, n);
			continue;
		}
		request_end(q);
		q->done(q, NULL);
		n = hash_next(&r->requests, NULL);
	}
}
