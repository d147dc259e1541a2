/*
 * The threads of qmgr. They run in its jail, with its uid; they see operations only, never the
 * tables of the loop, so no lock is needed but that of the two lists. Invariant: an operation
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

struct pool {
	pthread_mutex_t lock;         /* of the two lists; held for a few instructions only */
	sem_t work;                   /* as many as there are in todo and later */
	struct ops todo, later, done; /* later: the quiet ones */
	unsigned int taken;
	bool told;      /* the eventfd is set for what is in done */
	size_t pending; /* of the loop alone */
	int wake;
	struct event *event;
};

/* Somebody waits for most operations; of the others each fourth turn takes one, so that a mass of
 * removals delays no commit and no mass of commits keeps removals for ever. */
static struct pool_op *
take(struct pool *p)
{
	bool later = STAILQ_EMPTY(&p->todo) || (p->taken++ % 4 == 3 && !STAILQ_EMPTY(&p->later));
	struct ops *from = later ? &p->later : &p->todo;
	struct pool_op *op = STAILQ_FIRST(from);

	STAILQ_REMOVE_HEAD(from, next);
	return op;
}

static void *
run(void *arg)
{
	struct pool *p = arg;
	struct pool_op *op;
	bool tell;

	for (;;) {
		while (sem_wait(&p->work))
			;
		pthread_mutex_lock(&p->lock);
		op = take(p);
		pthread_mutex_unlock(&p->lock);

		op->work(op);
		log_flush();

		pthread_mutex_lock(&p->lock);
		STAILQ_INSERT_TAIL(&p->done, op, next);
		tell = !op->quiet && !p->told;
		p->told = p->told || tell;
		pthread_mutex_unlock(&p->lock);
		/* The loop takes the whole list at once, however many there are by then. */
		if (tell && write(p->wake, &(uint64_t){ 1 }, sizeof(uint64_t)) < 0)
			die("pool: eventfd: %s", err_str(err_errno()));
	}
	return NULL;
}

static void
on_done(evutil_socket_t fd, short what, void *arg)
{
	uint64_t n;

	(void)what;
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
	STAILQ_INIT(&p->later);
	STAILQ_INIT(&p->done);
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
