/* Questions to the resolvers: a queue in front of c-ares, a cache behind it, identical questions
 * asked once. */
#ifndef DNS_RESOLVER_H
#define DNS_RESOLVER_H

#include "conf/conf.h"
#include "dns/message.h"
#include "ev/ev.h"

enum {
	RESOLVER_IN_FLIGHT_MAX = 128, /* more overflow the resolver's receive buffer (measured) */
	RESOLVER_QUEUE_MAX = 20000, /* questions that wait; more are answered "temporary" at once */
};

struct resolver;

struct resolver_stats {
	uint64_t asked, cached, sent, failed;
	size_t in_flight, waiting, cache_entries;
};

/* answer is borrowed for the call. */
typedef void resolver_answer(void *ctx, const struct dns_answer *answer);

/* Before the jail: reads /etc/resolv.conf where dns_resolvers is empty. NULL with *why_r on
 * failure. */
struct resolver *resolver_new(const struct conf *conf, char *why_r, size_t size);
/* In the jail, with the loop. */
void resolver_start(struct resolver *r, struct event_base *base);
/* The new snapshot's resolvers, time-outs and names; ERR_SYNTAX with *why_r leaves the resolvers as
 * they are. */
int resolver_configure(
    struct resolver *r, const struct conf *conf, char *why_r, size_t size) CHECKED;
void resolver_free(struct resolver **r);
/* The TCP ports of the resolvers, for the jail; valid until resolver_configure. */
const uint16_t *resolver_ports(const struct resolver *r, size_t *n_r);

/* Asks; answers by the callback, possibly before it returns. */
void resolver_ask(struct resolver *r, const struct dns_name *name, enum dns_type type,
    resolver_answer *answer, void *ctx);
void resolver_stats(const struct resolver *r, struct resolver_stats *stats_r);

#endif
