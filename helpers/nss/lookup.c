/*
 * getpwnam_r and getgrouplist on a few threads. Runs in nss (uid bh-nss). Names come from strangers
 * by way of maps and auth; what they may hold is checked before NSS sees them. An error of NSS is
 * told as an error: only an answer of "no such user" without one is "unknown".
 */
#include "helpers/nss/lookup.h"

#include "ev/ev.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WAITING_LIMIT = 1000, TEXT_LIMIT = 1 << 20 };

STAILQ_HEAD(lookup_list, lookup);

struct lookup_pool {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct lookup_list todo, done;
	size_t waiting;
	int wake; /* an eventfd: something is in done */
	struct event *on_wake;
	void (*tell)(void *ctx, struct lookup *l);
	void *ctx;
};

/* False: no memory, and nothing is known. Of more than fit, n becomes their number all the same. */
static bool
groups_of(struct lookup *l)
{
	gid_t all[LOOKUP_GROUPS];
	int n = LOOKUP_GROUPS;

	if (getgrouplist(l->pw.pw_name, l->pw.pw_gid, all, &n) < 0 && n <= LOOKUP_GROUPS)
		return false;
	l->member_of = (size_t)n;
	l->ngroups = (size_t)(n < LOOKUP_GROUPS ? n : LOOKUP_GROUPS);
	memcpy(l->groups, all, l->ngroups * sizeof(*all));
	return true;
}

void
lookup_run(struct lookup *l)
{
	struct passwd *found = NULL;
	size_t size = 4096;
	int err;

	do {
		l->text = xrealloc(l->text, size);
		err = getpwnam_r(l->name, &l->pw, l->text, size, &found);
		size *= 4;
	} while (err == ERANGE && size <= TEXT_LIMIT);
	l->error = err;
	l->status = found ? LOOKUP_FOUND : err ? LOOKUP_TROUBLE : LOOKUP_UNKNOWN;
	if (found && !groups_of(l)) {
		l->error = ENOMEM;
		l->status = LOOKUP_TROUBLE;
	}
}

void
lookup_free(struct lookup *l)
{
	free(l->text);
	free(l);
}

static void *
worker(void *arg)
{
	struct lookup_pool *p = arg;
	uint64_t one = 1;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct lookup *l = STAILQ_FIRST(&p->todo);

		if (!l) {
			pthread_cond_wait(&p->work, &p->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&p->todo, next);
		pthread_mutex_unlock(&p->lock);
		lookup_run(l);
		pthread_mutex_lock(&p->lock);
		STAILQ_INSERT_TAIL(&p->done, l, next);
		if (write(p->wake, &one, sizeof(one)) < 0) {
			/* the counter is full: the loop is awake already */
		}
	}
	return NULL;
}

static void
on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct lookup_pool *p = arg;
	struct lookup_list done = STAILQ_HEAD_INITIALIZER(done);
	struct lookup *l;
	uint64_t n;

	(void)what;
	ev_turn();
	if (read(fd, &n, sizeof(n)) < 0)
		return;
	pthread_mutex_lock(&p->lock);
	STAILQ_CONCAT(&done, &p->done);
	pthread_mutex_unlock(&p->lock);
	while ((l = STAILQ_FIRST(&done))) {
		STAILQ_REMOVE_HEAD(&done, next);
		p->waiting--;
		p->tell(p->ctx, l);
		lookup_free(l);
	}
}

struct lookup_pool *
lookup_pool_new(
    struct event_base *base, unsigned threads, void (*done)(void *ctx, struct lookup *l), void *ctx)
{
	struct lookup_pool *p = xcalloc(1, sizeof(*p));

	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	STAILQ_INIT(&p->todo);
	STAILQ_INIT(&p->done);
	p->tell = done;
	p->ctx = ctx;
	p->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (p->wake < 0)
		die("eventfd: %s", err_str(err_errno()));
	p->on_wake = event_new(base, p->wake, EV_READ | EV_PERSIST, on_wake, p);
	event_add(p->on_wake, NULL);
	for (unsigned i = 0; i < threads; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, worker, p))
			die("cannot start a thread: raise the process limit of this service");
		pthread_detach(thread);
	}
	return p;
}

static bool
is_name(struct slice name)
{
	if (!name.n || name.n >= LOOKUP_NAME)
		return false;
	for (size_t i = 0; i < name.n; i++)
		if (name.p[i] <= ' ' || name.p[i] == 127 || strchr(":/,@\"'\\", name.p[i]))
			return false;
	return true;
}

int
lookup_start(struct lookup_pool *p, struct slice name, void *ctx, uint32_t id)
{
	struct lookup *l;

	if (!is_name(name))
		return ERR_SYNTAX;
	if (p->waiting >= WAITING_LIMIT)
		return ERR_LIMIT;
	l = xcalloc(1, sizeof(*l));
	memcpy(l->name, name.p, name.n);
	l->ctx = ctx;
	l->id = id;
	p->waiting++;
	pthread_mutex_lock(&p->lock);
	STAILQ_INSERT_TAIL(&p->todo, l, next);
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
	return 0;
}
