/*
 * The worker pool of auth (bh-auth). A queue in, a queue out, an eventfd to wake the loop. Jobs are
 * strangers' passwords, so their number is bounded by the callers (exchanges per front end).
 * Invariant: a job is in exactly one of the two queues, in a worker, or with its owner.
 */
#include "helpers/auth/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

STAILQ_HEAD(jobs, job);

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct jobs todo, ended;
	bool stop;
	unsigned busy; /* the loop's */
	int wake_fd;
	struct event *event;
	unsigned workers;
	pthread_t threads[];
};

static void *
work(void *arg)
{
	struct pool *pool = arg;
	uint64_t one = 1;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		struct job *job = STAILQ_FIRST(&pool->todo);
		bool first;
		if (!job) {
			if (pool->stop)
				break;
			pthread_cond_wait(&pool->wake, &pool->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&pool->todo, next);
		pthread_mutex_unlock(&pool->lock);
		job->run(job);
		pthread_mutex_lock(&pool->lock);
		first = STAILQ_EMPTY(&pool->ended);
		STAILQ_INSERT_TAIL(&pool->ended, job, next);
		if (first && write(pool->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
			die("cannot wake the event loop: %s", err_str(err_errno()));
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static void
collect(struct pool *pool)
{
	struct jobs ended = STAILQ_HEAD_INITIALIZER(ended);
	struct job *job;

	pthread_mutex_lock(&pool->lock);
	STAILQ_CONCAT(&ended, &pool->ended);
	pthread_mutex_unlock(&pool->lock);
	while ((job = STAILQ_FIRST(&ended))) {
		STAILQ_REMOVE_HEAD(&ended, next);
		pool->busy--;
		job->done(job);
	}
}

static void
on_wake(evutil_socket_t fd, short what, void *arg)
{
	uint64_t n;

	(void)what;
	ev_turn();
	if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		die("cannot read the wake-up descriptor: %s", err_str(err_errno()));
	collect(arg);
}

struct pool *
pool_new(struct event_base *base, unsigned workers)
{
	struct pool *pool = xcalloc(1, sizeof(*pool) + workers * sizeof(pthread_t));
	pthread_attr_t attr;
	sigset_t all, before;

	STAILQ_INIT(&pool->todo);
	STAILQ_INIT(&pool->ended);
	pool->workers = workers;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->wake, NULL);
	pool->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (pool->wake_fd < 0)
		die("cannot make an eventfd: %s", err_str(err_errno()));
	pool->event = event_new(base, pool->wake_fd, EV_READ | EV_PERSIST, on_wake, pool);
	if (!pool->event || event_add(pool->event, NULL) < 0)
		die("cannot watch the wake-up descriptor of the workers");
	sigfillset(&all); /* signals are the loop's */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	for (unsigned i = 0; i < workers; i++) {
		int rc = pthread_create(&pool->threads[i], &attr, work, pool);
		if (rc)
			die("cannot start a worker thread: %s", err_str(-rc));
	}
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return pool;
}

void
pool_submit(struct pool *pool, struct job *job)
{
	pool->busy++;
	pthread_mutex_lock(&pool->lock);
	STAILQ_INSERT_TAIL(&pool->todo, job, next);
	pthread_cond_signal(&pool->wake);
	pthread_mutex_unlock(&pool->lock);
}

unsigned
pool_busy(const struct pool *pool)
{
	return pool->busy;
}

void
pool_free(struct pool **pool_p)
{
	struct pool *pool = *pool_p;

	*pool_p = NULL;
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->wake);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->workers; i++)
		pthread_join(pool->threads[i], NULL);
	collect(pool);
	event_free(pool->event);
	close(pool->wake_fd);
	pthread_cond_destroy(&pool->wake);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}
