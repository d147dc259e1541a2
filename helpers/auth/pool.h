/* Worker threads for what takes milliseconds: password hashes, SASL steps, commits of the user
 * store. */
#ifndef AUTH_POOL_H
#define AUTH_POOL_H

#include "ev/ev.h"

#include <sys/queue.h>

struct pool;

/* Embedded in what the job is about. run is called in a worker, done then in the loop; between
 * submit and done the job's memory belongs to the worker. */
struct job {
	STAILQ_ENTRY(job) next;
	void (*run)(struct job *job);
	void (*done)(struct job *job);
};

/* Starts the threads; after the jail, because Landlock goes on before the first thread. */
struct pool *pool_new(struct event_base *base, unsigned workers);
void pool_submit(struct pool *pool, struct job *job);
/* Waits for what runs, runs done for all that ended, frees. */
void pool_free(struct pool **pool);
/* Jobs submitted and not yet done. */
unsigned pool_busy(const struct pool *pool);

#endif
