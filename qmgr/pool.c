/*
 * The threads of qmgr. They run in its jail, with its uid; they see operations only, never the
 * tables of the loop, so no lock is needed but that of the lists. Invariant: an operation
 * belongs to the loop, then to one thread, then to the loop again; the mutex orders the hand-over.
 */
#include "qmgr/pool.h"

#include "daemon/log.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

STAILQ_HEAD(ops, pool_op);

enum { RESERVE = 2 }; /* threads that intake cannot use */

struct pool {
	pthread_mutex_t lock; /* of what follows up to told; held for a few instructions only */
	struct ops todo, intake, later, done; /* later: the quiet ones */
	unsigned int taken;
	unsigned int taking_in, take_in_most; /* operations of intake under way */
	unsigned int owed;                    /* threads that woke for intake and could not */
	bool told;                            /* the eventfd is set for what is in done */
	sem_t work;                           /* as many as there are in the lists, less owed */
	size_t pending;                       /* of the loop alone */
	int wake;
	struct event *event;
};

/* Intake has a bound, so that a slow disk that all of it waits for leaves threads to delivery.
 * Somebody waits for most operations; of the quiet ones each fourth turn takes one, so that a mass
 * of removals delays no commit and no mass of commits keeps removals for ever. NULL: there is only
 * intake, and it has what it may have. */
static struct pool_op *
take(struct pool *p)
{
	bool may = p->taking_in < p->take_in_most && !STAILQ_EMPTY(&p->intake);
	unsigned int turn = p->taken++;
	struct ops *from = NULL;
	struct pool_op *op;

	if (may && (STAILQ_EMPTY(&p->todo) || turn & 1))
		from = &p->intake;
	else if (!STAILQ_EMPTY(&p->todo))
		from = &p->todo;
	if (!STAILQ_EMPTY(&p->later) && (!from || turn % 4 == 3))
		from = &p->later;
	if (!from)
		return NULL;
	op = STAILQ_FIRST(from);
	STAILQ_REMOVE_HEAD(from, next);
	p->taking_in += op->intake;
	return op;
}

/* Gives it back to the loop. The next for this thread, where one was owed. */
static struct pool_op *
finish(struct pool *p, struct pool_op *op)
{
	struct pool_op *next = NULL;
	bool tell;

	pthread_mutex_lock(&p->lock);
	p->taking_in -= op->intake;
	tell = !op->quiet && !p->told;
	p->told = p->told || tell;
	STAILQ_INSERT_TAIL(&p->done, op, next);
	if (p->owed && (next = take(p)))
		p->owed--;
	pthread_mutex_unlock(&p->lock);
	/* The loop takes the whole list at once, however many there are by then. */
	if (tell && write(p->wake, &(uint64_t){ 1 }, sizeof(uint64_t)) < 0)
		die("pool: eventfd: %s", err_str(err_errno()));
	return next;
}

static void *
run(void *arg)
{
	struct pool *p = arg;
	struct pool_op *op;

	for (;;) {
		while (sem_wait(&p->work))
			;
		pthread_mutex_lock(&p->lock);
		op = take(p);
		if (!op)
			p->owed++;
		pthread_mutex_unlock(&p->lock);
		while (op) {
			op->work(op);
			log_flush();
			op = finish(p, op);
		}
	}
	return NULL;
}

static void
on_done(evutil_socket_t fd, short what, void *arg)
{
	uint64_t n;

	(void)what;
	ev_turn();
	if (read(fd, &n, sizeof(n)) > 0)
		pool_collect(arg);
}

void
pool_collect(struct pool *p)
{
	struct ops done = STAILQ_HEAD_INITIALIZER(done);
	struct pool_op *op;

	pthread_mutex_lock(&p->lock);
	STAILQ_CONCAT(&done, &p->done);
	p->told = false;
	pthread_mutex_unlock(&p->lock);
	while ((op = STAILQ_FIRST(&done))) {
		STAILQ_REMOVE_HEAD(&done, next);
		p->pending--;
		op->done(op);
	}
}

struct pool *
pool_new(struct event_base *base, unsigned int threads)
{
	struct pool *p = xcalloc(1, sizeof(*p));
	pthread_attr_t attr;
	sigset_t all, old;

	STAILQ_INIT(&p->todo);
	STAILQ_INIT(&p->intake);
	STAILQ_INIT(&p->later);
	STAILQ_INIT(&p->done);
	p->take_in_most = threads;
	threads += RESERVE;
	p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->wake < 0 || pthread_mutex_init(&p->lock, NULL) || sem_init(&p->work, 0, 0))
		die("pool: cannot be set up");
	p->event = event_new(base, p->wake, EV_READ | EV_PERSIST, on_done, p);
	if (!p->event || event_add(p->event, NULL))
		die("pool: the loop refuses its eventfd");
	/* Signals belong to the loop. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, (size_t)256 << 10);
	for (unsigned int i = 0; i < threads; i++) {
		pthread_t t;

		if (pthread_create(&t, &attr, run, p))
			die("pool: cannot start thread %u of %u", i + 1, threads);
	}
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return p;
}

void
pool_submit(struct pool *p, struct pool_op *op)
{
	p->pending++;
	pthread_mutex_lock(&p->lock);
	if (op->quiet)
		STAILQ_INSERT_TAIL(&p->later, op, next);
	else if (op->intake)
		STAILQ_INSERT_TAIL(&p->intake, op, next);
	else
		STAILQ_INSERT_TAIL(&p->todo, op, next);
	pthread_mutex_unlock(&p->lock);
	if (sem_post(&p->work))
		die("pool: too many operations");
}

size_t
pool_pending(const struct pool *p)
{
	return p->pending;
}
