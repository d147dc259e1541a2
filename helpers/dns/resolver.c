/*
 * The way to the resolvers. Runs in dns (bh-dns), the only process that speaks DNS; the answers are
 * hostile and go to lib/dns, c-ares carries packets only. Invariants: a question is in the table
 * from its first waiter until its answer, so identical ones share a packet; at most
 * RESOLVER_IN_FLIGHT_MAX are with c-ares; c-ares may call back inside ares_send, so a question is
 * never freed before its callback. Query ids come from getrandom (c-ares 1.18 sends ours and has no
 * seed in a jail); AD is set in every query, so that no cache of c-ares can lose it, and believed
 * from loopback only.
 */
#include "resolver.h"

#include "base/hash.h"
#include "daemon/log.h"
#include "dns/cache.h"
#include "hosts.h"
#include "servers.h"

#include <ares.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <unistd.h>

enum { TICK_MS = 100, FAILURE_TTL = 5, WARN_EVERY_MS = 10000 };

struct waiter {
	STAILQ_ENTRY(waiter) next;
	resolver_answer *answer;
	void *ctx;
};

struct question {
	struct hash_node node;
	STAILQ_ENTRY(question) next; /* while it waits */
	STAILQ_HEAD(, waiter) waiters;
	struct resolver *r;
	struct dns_name name;
	enum dns_type type;
	unsigned char key[DNS_KEY_MAX];
};

struct watch {
	LIST_ENTRY(watch) next;
	ares_socket_t fd;
	struct event *event;
	struct resolver *r;
};

struct resolver {
	ares_channel channel;
	struct event_base *base;
	struct ev_timer tick;
	LIST_HEAD(, watch) watches;
	struct hash questions;
	STAILQ_HEAD(, question) waiting;
	struct dns_cache *cache;
	struct hosts hosts;
	struct servers servers;
	struct buf packet;
	int64_t max_ttl, negative_ttl, warned_us;
	struct resolver_stats stats;
};

static void pump(struct resolver *r);

static int64_t
now_s(void)
{
	return ev_now_us() / 1000000;
}

/* --- c-ares on the loop --- */

static void
on_socket(evutil_socket_t fd, short what, void *arg)
{
	struct resolver *r = ((struct watch *)arg)->r;

	ev_turn();
	ares_process_fd(r->channel, what & EV_READ ? fd : ARES_SOCKET_BAD,
	    what & EV_WRITE ? fd : ARES_SOCKET_BAD);
	pump(r);
}

static void
on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct resolver *r = arg;
	struct watch *w;

	LIST_FOREACH(w, &r->watches, next)
		if (w->fd == fd)
			break;
	if (w)
		event_free(w->event);
	if (!readable && !writable) {
		if (w) {
			LIST_REMOVE(w, next);
			free(w);
		}
		return;
	}
	if (!w) {
		w = xcalloc(1, sizeof(*w));
		w->fd = fd;
		w->r = r;
		LIST_INSERT_HEAD(&r->watches, w, next);
	}
	w->event = event_new(r->base, fd,
	    (short)(EV_PERSIST | (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0)), on_socket,
	    w);
	event_add(w->event, NULL);
}

static void
on_tick(void *ctx)
{
	struct resolver *r = ctx;

	ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	if (r->stats.in_flight)
		ev_timer_set(r->base, &r->tick, TICK_MS, on_tick, r);
	pump(r);
}

/* --- questions --- */

static void
add_waiter(struct question *q, resolver_answer *answer, void *ctx)
{
	struct waiter *w = xcalloc(1, sizeof(*w));

	w->answer = answer;
	w->ctx = ctx;
	STAILQ_INSERT_TAIL(&q->waiters, w, next);
}

/* Takes the question out of the table, answers its waiters, and keeps the answer. */
static void
finish(struct question *q, struct dns_answer *a)
{
	struct resolver *r = q->r;
	struct waiter *w;

	hash_remove(&r->questions, &q->node);
	while ((w = STAILQ_FIRST(&q->waiters))) {
		STAILQ_REMOVE_HEAD(&q->waiters, next);
		w->answer(w->ctx, a);
		free(w);
	}
	dns_cache_put(r->cache, &q->name, q->type, a, now_s());
	free(q);
}

static void
warn_failure(struct resolver *r, const struct question *q, const char *reason)
{
	char host[DNS_HOST_SIZE];

	r->stats.failed++;
	if (ev_now_us() - r->warned_us < WARN_EVERY_MS * 1000)
		return;
	r->warned_us = ev_now_us();
	if (dns_name_host(&q->name, host))
		snprintf(host, sizeof(host), "(no host name)");
	log_event(LOG_dns_failure,
	    "name=%s type=%d resolvers=%s reason=%s remedy=\"see whether the resolver answers; "
	    "dns_resolvers names others\"",
	    log_cstr(host), (int)q->type,
	    log_value(slice_sub(buf_slice(&r->servers.csv), 0, buf_len(&r->servers.csv) - 1)),
	    log_cstr(reason));
}

static void
on_answer(void *arg, int status, int timeouts, unsigned char *bytes, int n)
{
	struct question *q = arg;
	struct resolver *r = q->r;
	struct dns_answer *a;
	uint32_t most;

	(void)timeouts;
	r->stats.in_flight--;
	if (status == ARES_SUCCESS && n > 0)
		a = dns_answer_parse(slice(bytes, (size_t)n), &q->name, q->type);
	else
		a = dns_answer_empty(DNS_TEMPORARY, 0);
	if (a->status == DNS_TEMPORARY) {
		a->ttl = FAILURE_TTL;
		warn_failure(r, q,
		    status == ARES_SUCCESS ? "server failure or malformed answer"
					   : ares_strerror(status));
	}
	most = (uint32_t)(a->status == DNS_OK ? r->max_ttl : r->negative_ttl);
	if (a->ttl > most)
		a->ttl = most;
	a->secure = a->secure && r->servers.loopback;
	finish(q, a);
}

static void
send_question(struct resolver *r, struct question *q)
{
	uint16_t id;

	if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id))
		die("getrandom: no randomness");
	buf_clear(&r->packet);
	dns_query_build(&r->packet, id, &q->name, q->type);
	r->stats.in_flight++;
	r->stats.sent++;
	ares_send(r->channel, buf_slice(&r->packet).p, (int)buf_len(&r->packet), on_answer, q);
	if (r->stats.in_flight && !(r->tick.event && evtimer_pending(r->tick.event, NULL)))
		ev_timer_set(r->base, &r->tick, TICK_MS, on_tick, r);
}

static void
pump(struct resolver *r)
{
	struct question *q;

	while (r->stats.in_flight < RESOLVER_IN_FLIGHT_MAX && (q = STAILQ_FIRST(&r->waiting))) {
		STAILQ_REMOVE_HEAD(&r->waiting, next);
		r->stats.waiting--;
		send_question(r, q);
	}
}

void
resolver_ask(struct resolver *r, const struct dns_name *name, enum dns_type type,
    resolver_answer *answer, void *ctx)
{
	unsigned char key[DNS_KEY_MAX];
	const struct dns_answer *kept = dns_cache_get(r->cache, name, type, now_s());
	struct dns_answer *made = kept ? NULL : hosts_answer(&r->hosts, name, type);
	struct hash_node *node;
	struct question *q;

	r->stats.asked++;
	if (!kept && !made && r->stats.waiting >= RESOLVER_QUEUE_MAX)
		made = dns_answer_empty(DNS_TEMPORARY, 0);
	if (kept || made) {
		/* the callback may ask more and so push this one out of the cache: give it a copy's
		 * life */
		r->stats.cached += kept != NULL;
		struct dns_answer *own = made ? made : dns_answer_copy(kept);

		answer(ctx, own);
		free(own);
		return;
	}
	node = hash_find(&r->questions, dns_key(key, name, type));
	if (node) {
		add_waiter(HASH_ELEMENT(node, struct question, node), answer, ctx);
		return;
	}
	q = xcalloc(1, sizeof(*q));
	*q = (struct question){ .r = r, .name = *name, .type = type };
	STAILQ_INIT(&q->waiters);
	add_waiter(q, answer, ctx);
	hash_insert(&r->questions, &q->node, dns_key(q->key, name, type));
	STAILQ_INSERT_TAIL(&r->waiting, q, next);
	r->stats.waiting++;
	pump(r);
}

/* --- configuration --- */

static int
read_servers(struct servers *s, const struct conf *conf, bool may_read, char *why, size_t size)
{
	struct buf text = { 0 };
	int fd;

	for (size_t i = 0; i < conf->dns_resolvers.n; i++)
		if (servers_add(s, slice_str(conf->dns_resolvers.v[i]))) {
			snprintf(why, size,
			    "dns_resolvers: '%s' is no address; write 127.0.0.1 or [::1]:53",
			    conf->dns_resolvers.v[i]);
			return ERR_SYNTAX;
		}
	if (s->n || !may_read)
		return 0;
	fd = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		while (buf_len(&text) < 65536 && buf_read(&text, fd, 4096) > 0)
			;
		close(fd);
	}
	servers_parse_resolv_conf(s, buf_slice(&text));
	buf_free(&text);
	return 0;
}

static int
apply(struct resolver *r, const struct conf *conf, bool may_read, char *why, size_t size)
{
	struct servers servers = { 0 };
	struct hosts hosts = { 0 };
	const char *bad = "";
	int err = read_servers(&servers, conf, may_read, why, size);

	if (!err && hosts_load(&hosts, &conf->dns_hosts, &bad)) {
		snprintf(why, size, "dns_hosts: '%s' is not name=address", bad);
		err = ERR_SYNTAX;
	}
	if (!err && servers.n &&
	    ares_set_servers_ports_csv(r->channel, (const char *)buf_slice(&servers.csv).p) !=
		ARES_SUCCESS) {
		snprintf(why, size, "dns_resolvers: c-ares refuses '%s'",
		    (const char *)buf_slice(&servers.csv).p);
		err = ERR_SYNTAX;
	}
	if (err) {
		servers_free(&servers);
		hosts_free(&hosts);
		return err;
	}
	if (servers.n) {
		servers_free(&r->servers);
		r->servers = servers;
	}
	hosts_free(&r->hosts);
	r->hosts = hosts;
	dns_cache_free(&r->cache);
	r->cache = dns_cache_new((size_t)conf->dns_cache_size, (size_t)conf->dns_cache_size * 1024);
	r->max_ttl = conf->dns_cache_max_time / 1000;
	r->negative_ttl = conf->dns_cache_negative_time / 1000;
	return 0;
}

static int
open_channel(struct resolver *r, const struct conf *conf)
{
	struct ares_options o = { .flags = ARES_FLAG_EDNS | ARES_FLAG_NOCHECKRESP |
					   ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES,
		.timeout = (int)conf->dns_timeout,
		.tries = (int)conf->dns_attempts,
		.ednspsz = DNS_PAYLOAD,
		.sock_state_cb = on_socket_state,
		.sock_state_cb_data = r };
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ |
		   ARES_OPT_SOCK_STATE_CB;

#ifdef ARES_OPT_QUERY_CACHE
	mask |= ARES_OPT_QUERY_CACHE; /* none: ours is behind this */
#endif
	/* A fixed source port is only safe towards loopback; elsewhere sockets are closed when
	 * idle. */
	if (r->servers.loopback)
		o.flags |= ARES_FLAG_STAYOPEN;
	return ares_init_options(&r->channel, &o, mask);
}

struct resolver *
resolver_new(const struct conf *conf, char *why, size_t size)
{
	struct resolver *r = xcalloc(1, sizeof(*r));
	int rc;

	STAILQ_INIT(&r->waiting);
	LIST_INIT(&r->watches);
	if (read_servers(&r->servers, conf, true, why, size))
		goto fail;
	rc = ares_library_init(ARES_LIB_INIT_ALL);
	if (rc == ARES_SUCCESS)
		rc = open_channel(r, conf);
	if (rc != ARES_SUCCESS) {
		snprintf(why, size, "c-ares: %s", ares_strerror(rc));
		goto fail;
	}
	servers_free(&r->servers);
	if (apply(r, conf, true, why, size))
		goto fail;
	return r;
fail:
	resolver_free(&r);
	return NULL;
}

int
resolver_configure(struct resolver *r, const struct conf *conf, char *why, size_t size)
{
	return apply(r, conf, false, why, size);
}

void
resolver_start(struct resolver *r, struct event_base *base)
{
	r->base = base;
}

void
resolver_free(struct resolver **resolver)
{
	struct resolver *r = *resolver;

	if (!r)
		return;
	if (r->channel)
		ares_destroy(r->channel);
	ev_timer_free(&r->tick);
	dns_cache_free(&r->cache);
	hosts_free(&r->hosts);
	servers_free(&r->servers);
	buf_free(&r->packet);
	hash_free(&r->questions);
	free(r);
	*resolver = NULL;
}

const uint16_t *
resolver_ports(const struct resolver *r, size_t *n_r)
{
	*n_r = r->servers.n;
	return r->servers.ports;
}

void
resolver_stats(const struct resolver *r, struct resolver_stats *stats_r)
{
	*stats_r = r->stats;
	stats_r->cache_entries = dns_cache_count(r->cache);
}
