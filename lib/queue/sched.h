/*
 * The scheduler: which waiting job starts next, and which may not yet. Pure: it gets the time
 * (milliseconds of a clock that does not jump) and makes no call of the system.
 *
 * A message waits as one job per destination. Destinations are sites; each has a window of jobs
 * that may run at once, which grows with success and shrinks when the site does not answer. Within
 * a site senders take turns, within a class (local, remote) sites take turns. Memory: one sched_msg
 * and one sched_job per message, in slabs; senders and reasons are shared texts.
 */
#ifndef QUEUE_SCHED_H
#define QUEUE_SCHED_H

#include "base/hash.h"
#include "queue/heap.h"
#include "queue/id.h"

#include <sys/queue.h>

enum sched_class {
	SCHED_LOCAL,
	SCHED_REMOTE,
	SCHED_NOTICE,   /* notices that bounce composes: one site */
	SCHED_UNROUTED, /* waits for its routes, after a restart for instance */
	SCHED_CLASSES,
};

struct sched_limits {
	/* Jobs at once to one site. Notices and the unrouted know no site and have class_max. */
	unsigned int window_initial[SCHED_CLASSES], window_max[SCHED_CLASSES];
	int64_t pause_ms[SCHED_CLASSES];       /* between two jobs to one site */
	unsigned int class_max[SCHED_CLASSES]; /* jobs at once of one class */
	unsigned int direct_max;               /* direct messages under way */
	unsigned int failed_cohorts; /* windows of failures in a row after which a site rests */
	int64_t rest_min_ms, rest_max_ms; /* how long it rests, doubled each time */
	int64_t deadline_ms;              /* of the direct way */
	int64_t late_ms; /* what waits for a slot at that age is late; 0: nothing is */
};

/* A text that many share: a sender or a reason. */
struct sched_text {
	struct sched_text *next;
	uint32_t hash, refs;
	uint16_t n;
	char text[];
};

enum sched_state {
	JOB_WAITING, /* until its next attempt */
	JOB_READY,   /* for a slot of its site */
	JOB_BUSY,    /* all of it is under way */
	JOB_HELD,
};

struct sched_site;

struct sched_job {
	struct sched_msg *msg;
	struct sched_site *site;
	struct sched_job *sibling;   /* of the same message */
	struct sched_text *reason;   /* of the last deferral, or NULL */
	TAILQ_ENTRY(sched_job) link; /* in its flow, while READY */
	struct heap_node timer;      /* next attempt, lateness or expiry, whichever is first (of a
					notice: the attempt) */
	uint16_t rcpts, running;
	uint8_t state; /* enum sched_state */
};

struct sched_msg {
	struct sched_msg *next;
	queue_id id; /* 0: free */
	struct sched_text *sender;
	struct sched_job *jobs;
	int64_t expires;
	uint32_t arrived; /* seconds of the same clock */
	uint32_t kbytes : 30, held : 1;
	uint32_t late : 1; /* the caller has seen that it is */
};

struct sched_flow;
TAILQ_HEAD(sched_flows, sched_flow);

/* A direct message that waits for the next slot of its site. Owned by the caller. */
struct sched_waiter {
	TAILQ_ENTRY(sched_waiter) link;
	struct sched_site *site; /* NULL: does not wait */
};

struct sched_site {
	struct hash_node node;
	enum sched_class kind;
	double window, threshold;
	unsigned int running, failures;
	size_t jobs, ready, waiting; /* all its jobs, and by state; waiting counts the held too */
	int64_t average_ms;          /* of a job, moving */
	int64_t rest_ms;             /* 0: answers */
	struct heap_node rest; /* due: when it may be tried again, or when it may be forgotten */
	struct sched_flows flows;
	TAILQ_HEAD(, sched_waiter) waiters;
	unsigned int n_waiters;
	TAILQ_ENTRY(sched_site) link;   /* in the ring of its class, while a job may start */
	TAILQ_ENTRY(sched_site) d_link; /* in the direct ring, while a waiter may start */
	bool in_ring, in_direct_ring, resting;
	bool pausing;          /* it rests between two jobs, whatever came of the first */
	uint64_t done, failed; /* jobs since it is known */
	char key[];
};

/* How a job ended for its site. */
enum sched_outcome {
	OUTCOME_OK,        /* the site answered, whatever it said of the recipients */
	OUTCOME_UNREACHED, /* it did not, or the agent died */
	OUTCOME_UNUSED,    /* the job was not tried: no news of the site */
};

struct sched;

struct sched *sched_new(const struct sched_limits *l);
void sched_free(struct sched **s);
void sched_set_limits(struct sched *s, const struct sched_limits *l);

/* The site of that name, made if need be. Borrowed: it stays while it has a job, and for a while.
 */
struct sched_site *sched_site(struct sched *s, enum sched_class kind, struct slice key);
struct sched_site *sched_site_find(struct sched *s, enum sched_class kind, struct slice key);

/* A resting site may be tried at once: an administrator says so. */
void sched_site_wake(struct sched *s, struct sched_site *site);

/* Whether a message to these sites may go the direct way: free slots, nobody waiting, fast enough.
 */
bool sched_direct_ok(const struct sched *s, struct sched_site *const *sites, size_t n, int64_t now);
/* Whether a message to this site alone, for which no slot is free, may wait for one: the site is
 * known to answer, and at its pace the wait is at most half the deadline. */
bool sched_direct_soon(const struct sched *s, const struct sched_site *site);
void sched_direct_wait(struct sched *s, struct sched_site *site, struct sched_waiter *w);
/* Nothing if it does not wait. */
void sched_direct_leave(struct sched *s, struct sched_waiter *w);
/* The next waiter that may start, ahead of all jobs of the queue (a site with jobs that are ready
 * takes no new waiter): it waits no more, and a slot of *site_r is taken for it. NULL: none may. */
struct sched_waiter *sched_direct_next(struct sched *s, struct sched_site **site_r);
/* A direct job takes a slot as any other. One message takes part in direct_max once. */
void sched_direct_begin(struct sched *s);
void sched_direct_end(struct sched *s);
void sched_take(struct sched *s, struct sched_site *site);
/* Gives the slot back and learns. took_ms: how long the job ran; -1 if that says nothing. */
void sched_release(struct sched *s, struct sched_site *site, enum sched_outcome outcome,
    int64_t took_ms, int64_t now);
/* A direct job has missed the deadline: that is a result as well. */
void sched_slow(struct sched *s, struct sched_site *site);

/* A message that is durable. ID must be new. */
struct sched_msg *sched_add(
    struct sched *s, queue_id id, struct slice sender, uint64_t size, int64_t expires);
struct sched_msg *sched_find(const struct sched *s, queue_id id);
/* Forgets it and all its jobs, those under way too (their slots are released by the caller). */
void sched_remove(struct sched *s, struct sched_msg *m);
void sched_hold(struct sched *s, struct sched_msg *m);
void sched_unhold(struct sched *s, struct sched_msg *m, int64_t now);

/* The message's job at that site; a new one is BUSY until the caller says what it waits for. */
struct sched_job *sched_job(struct sched *s, struct sched_msg *m, struct sched_site *site);
struct sched_job *sched_job_find(const struct sched_msg *m, const struct sched_site *site);
/* It may start as soon as a slot is free. */
void sched_job_ready(struct sched *s, struct sched_job *j);
/* It waits until due. reason: why, may be empty. */
void sched_job_wait(struct sched *s, struct sched_job *j, int64_t due, struct slice reason);
void sched_job_remove(struct sched *s, struct sched_job *j);
/* Due now: flushed by an administrator. */
void sched_job_flush(struct sched *s, struct sched_job *j);

/* The next job to start: BUSY now, running one more, a slot of its site taken. NULL: none may. */
struct sched_job *sched_next(struct sched *s, int64_t now);
/* Moves what is due to READY and hands messages back, one a call, until NULL: one past its expiry,
 * of which the caller fails the open recipients; and one that is late and has been READY for
 * rest_min_ms (sooner it would be tried), which the caller marks. Their timers are set a minute
 * ahead. */
struct sched_msg *sched_tick(struct sched *s, int64_t now);
/* When sched_tick has to be called next; INT64_MAX: never. */
int64_t sched_timer(const struct sched *s);

/* Next attempt of a message of that age: min_ms at first, then twice its age, at most max_ms. */
int64_t sched_backoff(int64_t age_ms, int64_t min_ms, int64_t max_ms);

/* --- listing: O(1) a step, may go on in a later turn of the loop --- */
/* The message at or after *cursor (start with 0), which is moved behind it; NULL at the end. */
struct sched_msg *sched_each(const struct sched *s, size_t *cursor);
/* Sites in no order; start with NULL. Not across turns. */
struct sched_site *sched_each_site(const struct sched *s, const struct sched_site *site);
/* Sites, and shared texts with their counts (refs), in no order: *cursor starts with 0 and is 0
 * again after the last step; a step calls each for a few or none. */
void sched_scan_sites(const struct sched *s, uint64_t *cursor,
    void (*each)(void *ctx, const struct sched_site *site), void *ctx);
void sched_scan_senders(const struct sched *s, uint64_t *cursor,
    void (*each)(void *ctx, const struct sched_text *t), void *ctx);
void sched_scan_reasons(const struct sched *s, uint64_t *cursor,
    void (*each)(void *ctx, const struct sched_text *t), void *ctx);

struct sched_counts {
	size_t messages, jobs, ready, waiting, held, sites, senders, reasons;
	size_t running[SCHED_CLASSES], direct;
	size_t bytes; /* memory of all structures */
};
void sched_count(const struct sched *s, struct sched_counts *out_r);

#endif
