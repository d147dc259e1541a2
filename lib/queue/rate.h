/*
 * Rate counters per client: how many messages, recipients and so on in the present time unit. They
 * live in qmgr and so outlast every receiver. Bounded: the client that was quiet longest goes
 * first.
 */
#ifndef QUEUE_RATE_H
#define QUEUE_RATE_H

#include "base/hash.h"

#include <sys/queue.h>

/* As in rate_check of msgs.def. */
enum rate_kind { RATE_MESSAGES = 1, RATE_RECIPIENTS = 2, RATE_KINDS = 8 };

struct rate_client;

struct rate_table {
	struct hash clients;
	TAILQ_HEAD(, rate_client) order; /* longest quiet first */
	size_t max;
	int64_t unit_ms;
};

void rate_init(struct rate_table *t, size_t max, int64_t unit_ms);
void rate_free(struct rate_table *t);
/* Counts n events; the count of that kind within the client's present unit, these included. */
uint64_t rate_count(
    struct rate_table *t, struct slice client, unsigned int kind, uint32_t n, int64_t now_ms);

#endif
