/* Unit tests of the scheduler: order, fairness, windows, rest, expiry, hold, memory. */
#include "queue/sched.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static const struct sched_limits limits = { .window_initial = { 5, 5, 0, 0 },
	.window_max = { 20, 20, 0, 0 },
	.class_max = { 50, 50, 50, 50 },
	.direct_max = 10,
	.failed_cohorts = 1,
	.rest_min_ms = 1000,
	.rest_max_ms = 8000,
	.deadline_ms = 200 };

#define NEVER ((int64_t)1 << 60)

static queue_id next_id = 1 << 10;

static struct sched_job *
add_ready(struct sched *s, const char *sender, const char *site)
{
	struct sched_msg *m = sched_add(s, next_id += 1024, slice_str(sender), 4096, NEVER);
	struct sched_job *j = sched_job(s, m, sched_site(s, SCHED_REMOTE, slice_str(site)));

	sched_job_ready(s, j);
	return j;
}

static void
finish(struct sched *s, struct sched_job *j, enum sched_outcome o, int64_t ms, int64_t now)
{
	sched_release(s, j->site, o, ms, now);
	sched_remove(s, j->msg);
}

static void
test_slow_start(void **state)
{
	struct sched *s = sched_new(&limits);
	struct sched_job *run[64], *j;
	size_t n = 0;

	(void)state;
	for (int i = 0; i < 100; i++)
		add_ready(s, "a", "x");
	while ((j = sched_next(s, 0)))
		run[n++] = j;
	assert_int_equal(n, 5);
	/* Each success opens the window by one: two may start for one that ends. */
	finish(s, run[0], OUTCOME_OK, 10, 0);
	assert_non_null(run[0] = sched_next(s, 0));
	assert_non_null(run[n++] = sched_next(s, 0));
	assert_null(sched_next(s, 0));
	for (int round = 0; round < 60; round++) {
		finish(s, run[0], OUTCOME_OK, 10, 0);
		memmove(run, run + 1, --n * sizeof(*run));
		while ((j = sched_next(s, 0)))
			run[n++] = j;
		assert_true(n <= 20);
	}
	assert_true(run[0]->site->window <= 20 && run[0]->site->window > 19.9);
	sched_free(&s);
}

static void
test_rest(void **state)
{
	struct sched *s = sched_new(&limits);
	struct sched_job *j[5], *other;
	int64_t now = 0;

	(void)state;
	for (int i = 0; i < 20; i++)
		add_ready(s, "a", "dead");
	other = add_ready(s, "a", "well");
	for (int i = 0; i < 5; i++)
		do
			j[i] = sched_next(s, now);
		while (j[i] == other);
	/* The window halves with each failure; a cohort of them in a row, and the site rests. */
	for (int i = 0; i < 5; i++) {
		sched_release(s, j[i]->site, OUTCOME_UNREACHED, 30000, now);
		sched_job_wait(s, j[i], now + 5000, SLICE_LIT("connection refused"));
	}
	assert_true(j[0]->site->resting);
	while ((other = sched_next(s, now)))
		assert_string_equal(other->site->key + 1, "well");
	assert_int_equal(sched_timer(s), 1000);
	assert_null(sched_tick(s, 999));
	assert_null(sched_next(s, 999));
	/* One probe a rest, each rest twice as long. */
	now = 1000;
	for (int64_t rest = 2000; rest <= 16000; rest *= 2) {
		assert_null(sched_tick(s, now));
		assert_non_null(other = sched_next(s, now));
		assert_null(sched_next(s, now));
		sched_release(s, other->site, OUTCOME_UNREACHED, 30000, now);
		sched_job_wait(s, other, now + 900000, SLICE_LIT("connection refused"));
		now += rest < 8000 ? rest : 8000;
		assert_int_equal(other->site->rest.due, now);
	}
	assert_null(sched_tick(s, now));
	assert_non_null(other = sched_next(s, now));
	sched_release(s, other->site, OUTCOME_OK, 10, now);
	assert_int_equal(other->site->rest_ms, 0);
	assert_non_null(sched_next(s, now));
	sched_free(&s);
}

static void
test_fairness(void **state)
{
	struct sched_limits l = limits;
	struct sched *s;
	size_t first = 0, count[3] = { 0 };

	(void)state;
	l.class_max[SCHED_REMOTE] = 6;
	s = sched_new(&l);
	/* A bulk sender to one site, then another site, then another sender to the first. */
	for (int i = 0; i < 1000; i++)
		add_ready(s, "bulk", "big");
	for (int i = 0; i < 10; i++)
		add_ready(s, "bulk", "small");
	for (int i = 0; i < 10; i++)
		add_ready(s, "person", "big");
	for (int i = 0; i < 40; i++) {
		struct sched_job *j = sched_next(s, 0);

		if (strcmp(j->site->key + 1, "small") == 0)
			count[0]++;
		else
			count[strcmp(j->msg->sender->text, "bulk") == 0 ? 1 : 2]++;
		if (strcmp(j->msg->sender->text, "person") == 0 && !first)
			first = (size_t)i + 1;
		finish(s, j, OUTCOME_OK, 1, 0);
	}
	assert_int_equal(count[0], 10);
	assert_int_equal(count[2], 10);
	assert_true(first <= 4);
	sched_free(&s);
}

/* No slot is free: a site that is known to be quick lets some wait, in their order. */
static void
test_direct_soon(void **state)
{
	struct sched *s = sched_new(&limits);
	struct sched_site *x = sched_site(s, SCHED_REMOTE, SLICE_LIT("x")), *got = NULL;
	struct sched_waiter w[64] = { 0 };
	struct sched_job *j;
	unsigned int n = 0;

	(void)state;
	assert_false(sched_direct_soon(s, x)); /* not known yet */
	sched_take(s, x);
	sched_release(s, x, OUTCOME_OK, 2, 0);
	for (unsigned int i = 0; i < (unsigned int)x->window; i++, n++)
		sched_take(s, x);
	assert_false(sched_direct_ok(s, &x, 1, 0));
	assert_null(sched_direct_next(s, &got));
	for (n = 0; n < 64 && sched_direct_soon(s, x); n++)
		sched_direct_wait(s, x, &w[n]);
	assert_int_equal(n, 3 * (unsigned int)x->window);
	sched_direct_leave(s, &w[1]);
	sched_direct_leave(s, &w[1]);
	for (int i = 0; i < 3; i++)
		sched_release(s, x, OUTCOME_UNUSED, -1, 0);
	assert_false(sched_direct_ok(s, &x, 1, 0)); /* not past those who wait */
	assert_ptr_equal(sched_direct_next(s, &got), &w[0]);
	assert_ptr_equal(got, x);
	assert_null(w[0].site);
	assert_ptr_equal(sched_direct_next(s, &got), &w[2]);
	assert_ptr_equal(sched_direct_next(s, &got), &w[3]);
	assert_null(sched_direct_next(s, &got));
	/* What the queue has ready comes before any further one. */
	j = add_ready(s, "a", "x");
	assert_false(sched_direct_soon(s, x));
	sched_remove(s, j->msg);
	assert_true(sched_direct_soon(s, x));
	/* A slow site lets nobody wait. */
	for (int i = 0; i < 8; i++)
		sched_slow(s, x);
	assert_false(sched_direct_soon(s, x));
	for (unsigned int i = 4; i < n; i++)
		sched_direct_leave(s, &w[i]);
	sched_free(&s);
}

/* Waiters of one class whose jobs are at their limit do not hold up those of another. */
static void
test_direct_classes(void **state)
{
	struct sched *s = sched_new(&limits);
	struct sched_site *far = sched_site(s, SCHED_REMOTE, SLICE_LIT("x")), *got = NULL,
			  *near = sched_site(s, SCHED_LOCAL, SLICE_LIT("u")),
			  *other = sched_site(s, SCHED_REMOTE, SLICE_LIT("y"));
	struct sched_waiter w[2] = { 0 };

	(void)state;
	sched_direct_wait(s, far, &w[0]);
	sched_direct_wait(s, near, &w[1]);
	for (unsigned int i = 0; i < limits.class_max[SCHED_REMOTE]; i++)
		sched_take(s, other);
	assert_ptr_equal(sched_direct_next(s, &got), &w[1]);
	assert_ptr_equal(got, near);
	assert_null(sched_direct_next(s, &got));
	sched_release(s, other, OUTCOME_OK, 1, 0);
	assert_ptr_equal(sched_direct_next(s, &got), &w[0]);
	sched_free(&s);
}

static void
test_direct(void **state)
{
	struct sched *s = sched_new(&limits);
	struct sched_site *x[2] = { sched_site(s, SCHED_LOCAL, SLICE_LIT("u1")),
		sched_site(s, SCHED_LOCAL, SLICE_LIT("u2")) };
	struct sched_job *j;

	(void)state;
	assert_ptr_equal(x[0], sched_site_find(s, SCHED_LOCAL, SLICE_LIT("u1")));
	assert_null(sched_site_find(s, SCHED_REMOTE, SLICE_LIT("u1")));
	assert_true(sched_direct_ok(s, x, 2, 0));
	for (int i = 0; i < 5; i++)
		sched_take(s, x[0]);
	assert_false(sched_direct_ok(s, x, 2, 0));
	assert_true(sched_direct_ok(s, x + 1, 1, 0));
	for (int i = 0; i < 5; i++)
		sched_release(s, x[0], OUTCOME_OK, 10, 0);
	assert_true(sched_direct_ok(s, x, 2, 0));
	/* Somebody waits there: no overtaking. */
	j = sched_job(s, sched_add(s, 5 << 10, SLICE_LIT(""), 1, NEVER), x[0]);
	sched_job_ready(s, j);
	assert_false(sched_direct_ok(s, x, 1, 0));
	assert_ptr_equal(sched_next(s, 0), j);
	finish(s, j, OUTCOME_OK, 10, 0);
	assert_true(sched_direct_ok(s, x, 1, 0));
	/* Missed deadlines close the direct way, quick deliveries open it again. */
	for (int i = 0; i < 8; i++)
		sched_slow(s, x[0]);
	assert_false(sched_direct_ok(s, x, 1, 0));
	for (int i = 0; i < 8; i++) {
		sched_take(s, x[0]);
		sched_release(s, x[0], OUTCOME_OK, 5, 0);
	}
	assert_true(sched_direct_ok(s, x, 1, 0));
	for (int i = 0; i < 10; i++)
		sched_direct_begin(s);
	assert_false(sched_direct_ok(s, x, 1, 0));
	sched_direct_end(s);
	assert_true(sched_direct_ok(s, x, 1, 0));
	sched_free(&s);
}

static void
test_pause(void **state)
{
	struct sched_limits l = limits;
	struct sched *s;

	(void)state;
	l.pause_ms[SCHED_REMOTE] = 100;
	s = sched_new(&l);
	for (int i = 0; i < 3; i++)
		add_ready(s, "a", "x");
	assert_non_null(sched_next(s, 0));
	assert_null(sched_next(s, 50));
	assert_int_equal(sched_timer(s), 100);
	assert_null(sched_tick(s, 100));
	assert_non_null(sched_next(s, 100));
	assert_null(sched_next(s, 100));
	sched_free(&s);
}

/* A site that fails faster than its pause is over rests all the same. */
static void
test_rest_within_pause(void **state)
{
	struct sched_limits l = limits;
	struct sched *s;
	struct sched_job *j;
	struct sched_site *x;
	int64_t now = 0;

	(void)state;
	l.pause_ms[SCHED_REMOTE] = 100;
	l.window_initial[SCHED_REMOTE] = 1;
	s = sched_new(&l);
	for (int i = 0; i < 9; i++)
		add_ready(s, "a", "dead");
	x = sched_site(s, SCHED_REMOTE, SLICE_LIT("dead"));
	for (int64_t rest = 1000; rest <= 8000; rest *= 2) {
		assert_non_null(j = sched_next(s, now));
		now += 10;
		sched_release(s, x, OUTCOME_UNREACHED, 10, now);
		sched_remove(s, j->msg);
		assert_int_equal(x->rest_ms, rest);
		assert_int_equal(sched_timer(s), now + rest);
		assert_null(sched_tick(s, now + rest - 1));
		assert_null(sched_next(s, now + rest - 1));
		now += rest;
		assert_null(sched_tick(s, now));
	}
	/* An answer: the pause alone is left. */
	assert_non_null(j = sched_next(s, now));
	sched_release(s, x, OUTCOME_OK, 10, now + 10);
	sched_remove(s, j->msg);
	assert_int_equal(sched_timer(s), now + 100);
	/* A pause that is longer than the rest is kept. */
	l.pause_ms[SCHED_REMOTE] = 60000;
	sched_set_limits(s, &l);
	now += 100;
	assert_null(sched_tick(s, now));
	assert_non_null(j = sched_next(s, now));
	for (int i = 0; i < 2; i++) {
		sched_release(s, x, OUTCOME_UNREACHED, 10, now);
		if (!i)
			sched_take(s, x);
	}
	assert_true(x->rest_ms > 0);
	assert_int_equal(sched_timer(s), now + 60000);
	sched_free(&s);
}

static void
test_timers(void **state)
{
	struct sched *s = sched_new(&limits);
	struct sched_site *x = sched_site(s, SCHED_REMOTE, SLICE_LIT("x"));
	struct sched_msg *m = sched_add(s, 9 << 10, SLICE_LIT("a"), 4096, 5000);
	struct sched_job *j = sched_job(s, m, x);

	(void)state;
	sched_job_wait(s, j, 1000, SLICE_LIT("450 later"));
	assert_int_equal(sched_timer(s), 1000);
	assert_null(sched_next(s, 0));
	assert_null(sched_tick(s, 1000));
	assert_ptr_equal(sched_next(s, 1000), j);
	sched_release(s, x, OUTCOME_OK, 1, 1000);
	/* Expiry comes before the next attempt, in every state: waiting, ready, held. */
	sched_job_wait(s, j, 9000, SLICE_LIT("450 later"));
	assert_int_equal(sched_timer(s), 5000);
	assert_ptr_equal(sched_tick(s, 5000), m);
	assert_null(sched_tick(s, 5000));
	m->expires = 100000;
	sched_job_ready(s, j);
	assert_int_equal(sched_timer(s), 100000);
	sched_hold(s, m);
	assert_null(sched_next(s, 6000));
	assert_int_equal(j->state, JOB_HELD);
	assert_int_equal(sched_timer(s), 100000);
	sched_unhold(s, m, 7000);
	assert_null(sched_tick(s, 7000));
	assert_ptr_equal(sched_next(s, 7000), j);
	/* Held while under way: what comes back waits for the release. */
	sched_hold(s, m);
	sched_release(s, x, OUTCOME_OK, 1, 7000);
	sched_job_wait(s, j, 8000, SLICE_NULL);
	assert_int_equal(j->state, JOB_HELD);
	/* A notice about it is not held. */
	sched_job_ready(s, sched_job(s, m, sched_site(s, SCHED_NOTICE, SLICE_LIT("n"))));
	assert_int_equal(sched_next(s, 7000)->site->kind, SCHED_NOTICE);
	sched_remove(s, m);
	assert_null(sched_find(s, 9 << 10));
	assert_int_equal(x->jobs + x->ready + x->waiting + x->running, 0);
	/* What nobody uses is forgotten. */
	assert_null(sched_tick(s, 7000 + 600001));
	assert_null(sched_site_find(s, SCHED_REMOTE, SLICE_LIT("x")));
	sched_free(&s);
}

/* What waits for a slot of a busy or resting site is late at a time; what is about to be tried is
 * not. */
static void
test_late(void **state)
{
	struct sched_limits l = limits;
	struct sched *s;
	struct sched_job *j, *k;

	(void)state;
	l.late_ms = 10000;
	s = sched_new(&l);
	j = add_ready(s, "a", "x");
	k = sched_job(s, j->msg, sched_site(s, SCHED_REMOTE, SLICE_LIT("y")));
	j->msg->expires = 500000;
	sched_job_ready(s, k);
	assert_int_equal(sched_timer(s), 11000); /* arrived counts seconds */
	assert_null(sched_tick(s, 10999));
	/* One call for both sites, again until the caller has seen it. */
	assert_ptr_equal(sched_tick(s, 11000), j->msg);
	assert_null(sched_tick(s, 11000));
	assert_ptr_equal(sched_tick(s, 71000), j->msg);
	j->msg->late = true;
	assert_null(sched_tick(s, 131000));
	assert_int_equal(sched_timer(s), 500000);
	/* Due again, it has a while to be tried; waiting and held, it is not late. */
	j->msg->late = false;
	sched_job_remove(s, k);
	sched_job_wait(s, j, 200000, SLICE_NULL);
	assert_null(sched_tick(s, 200000));
	assert_int_equal(sched_timer(s), 201000);
	sched_hold(s, j->msg);
	assert_int_equal(sched_timer(s), 500000);
	sched_unhold(s, j->msg, 200000);
	assert_null(sched_tick(s, 200000));
	/* A reload sets another time, or none. */
	l.late_ms = 300000;
	sched_set_limits(s, &l);
	assert_int_equal(sched_timer(s), 301000);
	l.late_ms = 0;
	sched_set_limits(s, &l);
	assert_int_equal(sched_timer(s), 500000);
	assert_ptr_equal(sched_tick(s, 500000), j->msg);
	sched_free(&s);
}

/* A notice that could not be made is tried again, however old its message is. */
static void
test_notice_of_an_expired_message(void **state)
{
	struct sched *s = sched_new(&limits);
	struct sched_site *n = sched_site(s, SCHED_NOTICE, SLICE_LIT("n"));
	struct sched_msg *m = sched_add(s, 9 << 10, SLICE_LIT("a"), 4096, 5000);
	struct sched_job *j = sched_job(s, m, n);

	(void)state;
	sched_job_ready(s, j);
	assert_null(sched_tick(s, 5000));
	assert_ptr_equal(sched_next(s, 5000), j);
	sched_release(s, n, OUTCOME_UNUSED, -1, 5000);
	sched_job_wait(s, j, 15000, SLICE_LIT("a notice could not be made"));
	assert_int_equal(sched_timer(s), 15000);
	assert_null(sched_next(s, 14999));
	assert_null(sched_tick(s, 15000));
	assert_ptr_equal(sched_next(s, 15000), j);
	sched_free(&s);
}

static void
add_refs(void *ctx, const struct sched_text *t)
{
	*(size_t *)ctx += t->refs;
}

static void
test_listing_and_memory(void **state)
{
	enum { N = 100000 };
	struct sched *s = sched_new(&limits);
	struct sched_counts c;
	size_t cursor = 0, seen = 0, before = mallinfo2().uordblks, used;
	uint64_t scan = 0;
	struct sched_msg *m;

	(void)state;
	for (int i = 0; i < N; i++) {
		char sender[64], site[64], reason[64];
		struct sched_job *j;

		snprintf(sender, sizeof(sender), "sender%d@example.com", i % 2000);
		snprintf(site, sizeof(site), "site%d.example", i % 500);
		snprintf(reason, sizeof(reason), "4.4.1 connect to site%d: refused", i % 500);
		m = sched_add(s, (queue_id)(i + 1) << 10, slice_str(sender), 4096, NEVER);
		j = sched_job(s, m, sched_site(s, SCHED_REMOTE, slice_str(site)));
		sched_job_wait(s, j, 1000 + i, slice_str(reason));
	}
	used = mallinfo2().uordblks - before;
	if (used / N > 150)
		fail_msg("%zu bytes per waiting message", used / N);
	sched_count(s, &c);
	assert_int_equal(c.messages, N);
	assert_int_equal(c.waiting, N);
	assert_int_equal(c.senders, 2000);
	assert_int_equal(c.reasons, 500);
	assert_true(c.bytes / N <= 150);
	do
		sched_scan_senders(s, &scan, add_refs, &seen);
	while (scan);
	assert_int_equal(seen, N);
	while ((m = sched_each(s, &cursor)))
		if (m->id >> 10 & 1)
			sched_remove(s, m);
	sched_count(s, &c);
	assert_int_equal(c.messages, N / 2);
	assert_ptr_equal(sched_find(s, 2 << 10)->jobs->site,
	    sched_site_find(s, SCHED_REMOTE, SLICE_LIT("site1.example")));
	assert_null(sched_tick(s, 1000 + N));
	sched_count(s, &c);
	assert_int_equal(c.ready, N / 2);
	sched_free(&s);
}

static void
test_backoff(void **state)
{
	(void)state;
	assert_int_equal(sched_backoff(0, 300, 4000), 300);
	assert_int_equal(sched_backoff(700, 300, 4000), 700);
	assert_int_equal(sched_backoff(9999, 300, 4000), 4000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slow_start),
		cmocka_unit_test(test_rest),
		cmocka_unit_test(test_fairness),
		cmocka_unit_test(test_direct),
		cmocka_unit_test(test_direct_soon),
		cmocka_unit_test(test_direct_classes),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_rest_within_pause),
		cmocka_unit_test(test_timers),
		cmocka_unit_test(test_late),
		cmocka_unit_test(test_notice_of_an_expired_message),
		cmocka_unit_test(test_listing_and_memory),
		cmocka_unit_test(test_backoff),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
