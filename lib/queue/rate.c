/*
 * Rate counters. Runs in qmgr; pure. Hostile input: the number of clients is chosen by strangers,
 * so the table is bounded and keyed. A forgotten client starts anew, which favours it: with max
 * entries and a unit of a minute that takes max clients within the minute.
 */
#include "queue/rate.h"

#include <stdlib.h>

struct rate_client {
	struct hash_node node;
	TAILQ_ENTRY(rate_client) link;
	int64_t since;
	uint64_t counts[RATE_KINDS];
	unsigned char name[];
};

void
rate_init(struct rate_table *t, size_t max, int64_t unit_ms)
{
	*t = (struct rate_table){ .max = max ? max : 1, .unit_ms = unit_ms };
	TAILQ_INIT(&t->order);
}

static void
forget(struct rate_table *t, struct rate_client *c)
{
	TAILQ_REMOVE(&t->order, c, link);
	hash_remove(&t->clients, &c->node);
	free(c);
}

void
rate_free(struct rate_table *t)
{
	while (!TAILQ_EMPTY(&t->order))
		forget(t, TAILQ_FIRST(&t->order));
	hash_free(&t->clients);
}

uint64_t
rate_count(struct rate_table *t, struct slice client, unsigned int kind, uint32_t n, int64_t now)
{
	struct hash_node *node = hash_find(&t->clients, client);
	struct rate_client *c;

	if (kind >= RATE_KINDS)
		return 0;
	if (node) {
		c = HASH_ELEMENT(node, struct rate_client, node);
		TAILQ_REMOVE(&t->order, c, link);
	} else {
		if (t->clients.count >= t->max)
			forget(t, TAILQ_FIRST(&t->order));
		c = xcalloc(1, sizeof(*c) + client.n);
		c->since = now;
		if (client.n)
			memcpy(c->name, client.p, client.n);
		hash_insert(&t->clients, &c->node, slice(c->name, client.n));
	}
	TAILQ_INSERT_TAIL(&t->order, c, link);
	if (now - c->since >= t->unit_ms) {
		memset(c->counts, 0, sizeof(c->counts));
		c->since = now;
	}
	return c->counts[kind] += n;
}
