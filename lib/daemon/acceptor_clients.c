/*
 * Connections per client, counted in the acceptors (zygotes of smtpd, submission and login, as the
 * service's uid). Hostile: who connects, how fast and from how many addresses. The counts outlive
 * the children; while a rate is limited, those of clients without a session stay for the time unit.
 * Invariant: at most QUIET_MAX of those are remembered.
 */
#include "daemon/acceptor_private.h"

#include <stdlib.h>

#define QUIET_MAX 65536

struct client {
	struct hash_node node;    /* by masked address */
	TAILQ_ENTRY(client) next; /* among the quiet, while it has no session */
	struct inet_addr key;
	unsigned sessions;
	int64_t since;        /* ms: begin of its time unit, */
	uint64_t connections; /* and its connections in it */
};

static void
forget(struct acceptor_state *a, struct client *c)
{
	hash_remove(&a->clients, &c->node);
	free(c);
}

/* Of the quiet, those that are over: their time unit has passed, or there are too many. */
static void
forget_quiet(struct acceptor_state *a, int64_t now)
{
	struct client *c;

	while ((c = TAILQ_FIRST(&a->quiet)) &&
	       (a->nquiet > QUIET_MAX || now - c->since >= a->d->conf->anvil_rate_time_unit)) {
		TAILQ_REMOVE(&a->quiet, c, next);
		a->nquiet--;
		forget(a, c);
	}
}

/* Counts a connection of that address. */
static struct client *
client_enter(struct acceptor_state *a, const struct inet_addr *addr)
{
	unsigned bits =
	    inet_is_v4(addr) ? 128 : (unsigned)a->d->conf->smtpd_client_ipv6_prefix_length;
	struct inet_addr key = inet_mask(addr, bits ? bits : 128);
	int64_t now = ev_now_us() / 1000;
	struct hash_node *n;
	struct client *c;

	forget_quiet(a, now);
	n = hash_find(&a->clients, slice(&key, sizeof(key)));
	if (n) {
		c = HASH_ELEMENT(n, struct client, node);
		if (!c->sessions) {
			TAILQ_REMOVE(&a->quiet, c, next);
			a->nquiet--;
		}
	} else {
		c = xcalloc(1, sizeof(*c));
		c->key = key;
		c->since = now;
		hash_insert(&a->clients, &c->node, slice(&c->key, sizeof(c->key)));
	}
	if (now - c->since >= a->d->conf->anvil_rate_time_unit) {
		c->since = now;
		c->connections = 0;
	}
	c->sessions++;
	c->connections++;
	return c;
}

void
acceptor_client_release(struct acceptor_state *a, struct client *c)
{
	if (!c || --c->sessions)
		return;
	if (!a->d->conf->smtpd_client_connection_rate_limit) {
		forget(a, c);
		return;
	}
	TAILQ_INSERT_TAIL(&a->quiet, c, next);
	a->nquiet++;
}

static bool
spared(const struct acceptor_state *a, const struct inet_addr *addr)
{
	const struct conf_list *l = &a->d->conf->smtpd_client_event_limit_exceptions;

	return inet_in_list(addr, l->v, l->n);
}

const char *
acceptor_over_limit(struct acceptor_state *a, struct session *s, const struct inet_addr *addr)
{
	int64_t most = a->d->conf->smtpd_client_connection_count_limit,
		rate = a->d->conf->smtpd_client_connection_rate_limit;

	if (spared(a, addr))
		return NULL;
	s->client = client_enter(a, addr);
	if (most && s->client->sessions > (unsigned)most)
		acceptor_take_ends(a);
	if (most && s->client->sessions > (unsigned)most)
		return "too many connections of this client at once: "
		       "smtpd_client_connection_count_limit";
	if (rate && s->client->connections > (uint64_t)rate)
		return "too many connections of this client within anvil_rate_time_unit: "
		       "smtpd_client_connection_rate_limit";
	return NULL;
}
