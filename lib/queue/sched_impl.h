/* Shared by sched.c and sched_site.c only. */
#ifndef QUEUE_SCHED_IMPL_H
#define QUEUE_SCHED_IMPL_H

#include "queue/sched.h"
#include "queue/text.h"

struct sched_flow {
	struct hash_node node;
	const void *key[2]; /* site, sender */
	TAILQ_ENTRY(sched_flow) link;
	TAILQ_HEAD(, sched_job) jobs;
};

struct sched {
	struct sched_limits limits;
	struct slab msgs, jobs;
	struct sched_msg **by_id;
	size_t by_id_size;
	struct text_table senders, reasons;
	struct heap timers; /* of jobs */
	struct heap rests;  /* of sites */
	struct hash sites, flows;
	TAILQ_HEAD(, sched_site) rings[SCHED_CLASSES], direct_rings[SCHED_CLASSES];
	unsigned int running[SCHED_CLASSES], direct;
	unsigned int turn;
	int64_t now; /* of the last call that brought the time */
};

/* Puts the site into the ring of its class or takes it out; arms the timer of an unused one. */
void sched_site_update(struct sched *s, struct sched_site *site);
/* Of the jobs that are READY, by the limits. */
void sched_set_timers(struct sched *s);
void sched_sites_tick(struct sched *s, int64_t now);
void sched_sites_free(struct sched *s);

#endif
