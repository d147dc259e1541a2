/* Unit tests of the pool: intake that hangs leaves threads to all else, and everything is done in
 * the end. */
#include "qmgr/pool.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

enum { THREADS = 3, MANY = 20 };

struct test_op {
	struct pool_op op; /* first */
	sem_t *wait;
	bool done;
};

static sem_t entered;

static void
work(struct pool_op *op)
{
	struct test_op *o = (struct test_op *)(void *)op;

	sem_post(&entered);
	if (o->wait)
		sem_wait(o->wait);
}

static void
done(struct pool_op *op)
{
	((struct test_op *)(void *)op)->done = true;
}

static void
submit(struct pool *p, struct test_op *o, bool intake, bool quiet, sem_t *wait)
{
	*o = (struct test_op){
		.op = { .work = work, .done = done, .intake = intake, .quiet = quiet }, .wait = wait
	};
	pool_submit(p, &o->op);
}

static bool
collected(struct pool *p, const struct test_op *o, size_t n)
{
	struct timespec pause = { 0, 1000000 };
	size_t left = n;

	for (int tries = 0; tries < 30000 && left; tries++) {
		pool_collect(p);
		left = 0;
		for (size_t i = 0; i < n; i++)
			left += !o[i].done;
		if (left)
			nanosleep(&pause, NULL);
	}
	return left == 0;
}

static void
test_intake_has_a_bound(void **state)
{
	struct event_base *base = event_base_new();
	struct pool *p = pool_new(base, THREADS);
	struct test_op in[MANY], other[MANY], quiet[MANY];
	sem_t gate;
	int n;

	(void)state;
	sem_init(&gate, 0, 0);
	sem_init(&entered, 0, 0);
	for (int i = 0; i < MANY; i++)
		submit(p, &in[i], true, false, &gate);
	for (int i = 0; i < THREADS; i++)
		while (sem_wait(&entered))
			;
	for (int i = 0; i < MANY; i++) {
		submit(p, &other[i], false, false, NULL);
		submit(p, &quiet[i], false, true, NULL);
	}
	assert_true(collected(p, other, MANY));
	assert_true(collected(p, quiet, MANY));
	for (int i = 0; i < MANY; i++)
		assert_false(in[i].done);
	/* no more of it than its share has begun */
	sem_getvalue(&entered, &n);
	assert_int_equal(n, 2 * MANY);
	for (int i = 0; i < MANY; i++)
		sem_post(&gate);
	assert_true(collected(p, in, MANY));
	assert_int_equal(pool_pending(p), 0);
	/* and it works as before */
	submit(p, &in[0], true, false, NULL);
	submit(p, &other[0], false, false, NULL);
	assert_true(collected(p, in, 1) && collected(p, other, 1));
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_intake_has_a_bound) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
