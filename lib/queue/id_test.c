/* Unit tests of queue IDs and rate counters. */
#include "queue/id.h"
#include "queue/rate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define NOW (1764100000ull * 1000000)

static void
test_order(void **state)
{
	struct queue_id_source s;
	char before[QUEUE_ID_SIZE] = "", text[QUEUE_ID_SIZE];
	unsigned int dirs[QUEUE_DIRS] = { 0 };

	(void)state;
	queue_id_source_init(&s, 0, 77);
	for (unsigned int i = 0; i < 10000; i++) {
		/* The clock stands still, jumps back, goes on. */
		queue_id id = queue_id_next(&s, NOW + i / 3 - (i > 5000 ? 3600000000u : 0)), again;

		assert_true(id != 0 && id >> 60 == 0);
		queue_id_format(id, text);
		assert_true(strcmp(before, text) < 0);
		memcpy(before, text, sizeof(text));
		assert_int_equal(queue_id_parse(slice_str(text), &again), 0);
		assert_true(again == id);
		dirs[queue_id_dir(id)]++;
	}
	for (unsigned int i = 0; i < QUEUE_DIRS; i++)
		assert_in_range(dirs[i], 10000 / QUEUE_DIRS - 1, 10000 / QUEUE_DIRS + 1);
}

static void
test_time_and_floor(void **state)
{
	struct queue_id_source s;
	queue_id id;

	(void)state;
	queue_id_source_init(&s, 0, 1);
	id = queue_id_next(&s, NOW);
	assert_true(queue_id_time(id) == NOW);
	/* A later start whose clock is behind begins above what the clock file says. */
	queue_id_source_init(&s, queue_id_units(NOW) + 500, 1);
	assert_true(queue_id_next(&s, NOW - 1000000) > id);
	s.ceiling = s.last + 2;
	assert_true(queue_id_next(&s, NOW) != 0);
	assert_true(queue_id_next(&s, NOW) == 0);
	assert_true(queue_id_next(&s, NOW + 3600000000u) == 0);
}

static void
test_parse_refuses(void **state)
{
	static const char *const bad[] = { "", "0", "00000000000", "0000000000000", "000000000000",
		"00000000000I", "00000000000l", "0000000000U1", "../../../../x", "abcdefghjkmn",
		"0123456789A/" };
	queue_id id;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(queue_id_parse(slice_str(bad[i]), &id), ERR_SYNTAX);
	assert_int_equal(queue_id_parse(slice("0123456789A\0", 12), &id), ERR_SYNTAX);
}

static void
test_rates(void **state)
{
	struct rate_table t;
	struct slice a = SLICE_LIT("192.0.2.1"), b = SLICE_LIT("192.0.2.2"), c = SLICE_LIT("::");

	(void)state;
	rate_init(&t, 2, 60000);
	assert_int_equal(rate_count(&t, a, 1, 1, 0), 1);
	assert_int_equal(rate_count(&t, a, 1, 2, 1000), 3);
	assert_int_equal(rate_count(&t, a, 2, 5, 1000), 5);
	assert_int_equal(rate_count(&t, b, 1, 1, 2000), 1);
	assert_int_equal(rate_count(&t, a, 1, 1, 59999), 4);
	assert_int_equal(rate_count(&t, a, 1, 1, 60000), 1);
	/* The third client drives out the one that was quiet longest. */
	assert_int_equal(rate_count(&t, c, 1, 1, 60001), 1);
	assert_int_equal(rate_count(&t, a, 1, 1, 60002), 2);
	assert_int_equal(rate_count(&t, b, 1, 1, 60003), 1);
	assert_int_equal(rate_count(&t, b, RATE_KINDS, 1, 60003), 0);
	rate_free(&t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_time_and_floor),
		cmocka_unit_test(test_parse_refuses),
		cmocka_unit_test(test_rates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
