/*
 * The lag of the loop: a turn that takes long, a process that was not run, and a loop with nothing
 * to do, which is left alone.
 */
#include "daemon/daemon.h"
#include "daemon/private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

struct world {
	struct daemon_private private;
	struct daemon d;
};

static void
set_up(struct world *w)
{
	*w = (struct world){ .d.private = &w->private };
	w->d.base = ev_base_new();
	(void)ev_turn_end();
}

static void
tear_down(struct world *w)
{
	ev_timer_free(&w->private.lag.probe);
	event_base_free(w->d.base);
}

static uint64_t
value(enum counter c)
{
	struct buf out = { 0 };
	struct cursor in;
	uint64_t v = 0;

	counters_put(&out);
	in = cursor(buf_slice(&out));
	for (int i = 0; i <= (int)c; i++)
		v = cursor_u64(&in);
	buf_free(&out);
	return v;
}

static void
turn(struct world *w, int flags)
{
	assert_true(event_base_loop(w->d.base, EVLOOP_ONCE | flags) >= 0);
	lag_turn(&w->d);
}

static void
work(void *arg)
{
	usleep(*(useconds_t *)arg);
}

static bool
armed(const struct world *w)
{
	return event_base_get_num_events(w->d.base, EVENT_BASE_COUNT_ADDED) > 0;
}

/* Until the probe has come and gone. */
static void
run_dry(struct world *w)
{
	while (armed(w))
		turn(w, 0);
}

/* A turn of 200 ms, within which the probe is due; how often the loop was late. */
static uint64_t
late_by_a_long_turn(void)
{
	struct world w;
	struct ev_timer timer = { 0 };
	useconds_t us = 0;
	uint64_t late;

	set_up(&w);
	ev_timer_set(w.d.base, &timer, 0, work, &us);
	turn(&w, 0);
	assert_true(armed(&w));
	late = value(COUNT_loop_late);
	us = 200000;
	ev_timer_set(w.d.base, &timer, 0, work, &us);
	turn(&w, 0);
	assert_true(value(COUNT_loop_lag_max_us) >= 200000);
	turn(&w, 0);
	late = value(COUNT_loop_late) - late;
	ev_timer_free(&timer);
	tear_down(&w);
	return late;
}

static void
test_a_long_turn(void **state)
{
	uint64_t late;
	int tries = 0;

	(void)state;
	do { /* once, unless a busy machine makes another turn late */
		late = late_by_a_long_turn();
		assert_true(late >= 1);
	} while (late != 1 && ++tries < 50);
	assert_int_equal(late, 1);
}

static void
test_a_process_that_is_not_run(void **state)
{
	struct world w;
	uint64_t late = value(COUNT_loop_late);

	(void)state;
	set_up(&w);
	turn(&w, EVLOOP_NONBLOCK);
	usleep(450000);
	turn(&w, 0);
	assert_true(value(COUNT_loop_lag_max_us) >= 300000);
	assert_true(value(COUNT_loop_late) > late);
	tear_down(&w);
}

static void
test_nothing_to_do(void **state)
{
	struct world w;

	(void)state;
	set_up(&w);
	turn(&w, EVLOOP_NONBLOCK);
	assert_true(armed(&w));
	run_dry(&w); /* would never end if the probe armed itself */
	assert_false(armed(&w));
	turn(&w, EVLOOP_NONBLOCK);
	assert_true(armed(&w));
	tear_down(&w);
}

static void
test_peak(void **state)
{
	uint64_t before = value(COUNT_loop_lag_max_us);

	(void)state;
	count_peak(COUNT_loop_lag_max_us, before + 5);
	count_peak(COUNT_loop_lag_max_us, before + 3);
	assert_int_equal(value(COUNT_loop_lag_max_us), before + 5);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_long_turn),
		cmocka_unit_test(test_a_process_that_is_not_run),
		cmocka_unit_test(test_nothing_to_do),
		cmocka_unit_test(test_peak),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
