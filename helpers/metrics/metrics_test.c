/* Unit tests of what metrics reads and writes. */
#include "helpers/metrics/metrics.h"

#include "daemon/daemon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <stdio.h>

static void
test_requests(void **state)
{
	static const struct {
		struct slice in;
		enum request_kind want;
	} rows[] = {
		{ SLICE_LIT("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), REQUEST_METRICS },
		{ SLICE_LIT("GET /metrics?x=1 HTTP/1.0\r\n\r\n"), REQUEST_METRICS },
		{ SLICE_LIT("GET / HTTP/1.1\n\n"), REQUEST_METRICS },
		{ SLICE_LIT("HEAD /metrics HTTP/1.1\r\n\r\n"), REQUEST_HEAD },
		{ SLICE_LIT("GET /metrics/ HTTP/1.1\r\n\r\n"), REQUEST_NOT_FOUND },
		{ SLICE_LIT("GET /etc/passwd HTTP/1.1\r\n\r\n"), REQUEST_NOT_FOUND },
		{ SLICE_LIT("POST /metrics HTTP/1.1\r\n\r\n"), REQUEST_METHOD },
		{ SLICE_LIT("get /metrics HTTP/1.1\r\n\r\n"), REQUEST_METHOD },
		{ SLICE_LIT("GET metrics HTTP/1.1\r\n\r\n"), REQUEST_BAD },
		{ SLICE_LIT("GET  /metrics HTTP/1.1\r\n\r\n"), REQUEST_BAD },
		{ SLICE_LIT("GET /metrics HTTP/2\r\n\r\n"), REQUEST_BAD },
		{ SLICE_LIT("GET /metrics\r\n\r\n"), REQUEST_BAD },
		{ SLICE_LIT("GET /\0metrics HTTP/1.1\r\n\r\n"), REQUEST_BAD },
		{ SLICE_LIT("\r\n\r\n"), REQUEST_BAD },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct slice in = rows[i].in;
		bool short_end = in.p[in.n - 2] == '\n';
		if (request_read(in) != rows[i].want)
			fail_msg("row %zu: %d", i, request_read(in));
		for (size_t n = 0; n < in.n - (short_end ? 1 : 2); n++)
			assert_int_equal(request_read(slice_sub(in, 0, n)), REQUEST_MORE);
	}
}

static void
test_request_limit(void **state)
{
	char text[REQUEST_MAX + 1];

	(void)state;
	memset(text, 'a', sizeof(text));
	assert_int_equal(request_read(slice(text, REQUEST_MAX - 1)), REQUEST_MORE);
	assert_int_equal(request_read(slice(text, REQUEST_MAX)), REQUEST_TOO_LARGE);
}

static void
test_replies(void **state)
{
	struct buf out = { 0 };

	(void)state;
	request_reply(REQUEST_METRICS, SLICE_LIT("x 1\n"), &out);
	assert_true(slice_has_prefix(buf_slice(&out), "HTTP/1.1 200 OK\r\n"));
	assert_true(slice_search(buf_slice(&out), SLICE_LIT("Content-Length: 4\r\n")) > 0);
	assert_true(slice_has_suffix(buf_slice(&out), "\r\n\r\nx 1\n"));
	buf_clear(&out);
	request_reply(REQUEST_HEAD, SLICE_LIT("x 1\n"), &out);
	assert_true(slice_search(buf_slice(&out), SLICE_LIT("Content-Length: 4\r\n")) > 0);
	assert_true(slice_has_suffix(buf_slice(&out), "\r\n\r\n"));
	buf_clear(&out);
	request_reply(REQUEST_METHOD, SLICE_LIT("x 1\n"), &out);
	assert_true(slice_has_prefix(buf_slice(&out), "HTTP/1.1 405 "));
	assert_true(slice_search(buf_slice(&out), SLICE_LIT("Content-Length: 0\r\n")) > 0);
	buf_free(&out);
}

static bool
holds(const struct buf *b, const char *text)
{
	return slice_search(buf_slice(b), slice_str(text)) >= 0;
}

static void
test_families(void **state)
{
	struct families f;
	struct buf values = { 0 }, out = { 0 };
	char peak[100];
	struct msg_metrics_service a = { .program = SLICE_LIT("qmgr"),
		.service = SLICE_LIT("qmgr"),
		.ready = 1 },
				   b = { .program = SLICE_LIT("smtp\"d"),
					   .service = SLICE_LIT("a\\b\n") };
	struct msg_metrics_stats s = { .extra = SLICE_LIT(
					   "messages=3 text=abc x{}=1 =2 big=18446744073709551615"
					   "9 messages=4") };

	(void)state;
	families_init(&f);
	families_service(&f, &a);
	families_service(&f, &b);
	for (uint64_t i = 0; i < COUNT_MAX; i++)
		buf_add_u64(&values, i + 1);
	s.values = buf_slice(&values);
	families_stats(&f, &s);
	s.extra = SLICE_NULL;
	s.values = slice_sub(s.values, 0, 8); /* of an older build: what lacks is 0 */
	families_stats(&f, &s);
	s.service = 7;
	families_stats(&f, &s);
	families_format(&f, &out);
	assert_true(holds(&out, "# TYPE bulkhead_connections counter\n"));
	assert_true(
	    holds(&out, "bulkhead_connections_total{program=\"qmgr\",service=\"qmgr\"} 2\n"));
	assert_true(holds(
	    &out, "bulkhead_connections_refused_total{program=\"qmgr\",service=\"qmgr\"} 2\n"));
	snprintf(peak, sizeof(peak),
	    "bulkhead_loop_lag_max_us{program=\"qmgr\",service=\"qmgr\"} %d\n",
	    COUNT_loop_lag_max_us + 1); /* of two processes the larger one */
	assert_true(holds(&out, "# TYPE bulkhead_loop_lag_max_us gauge\n"));
	assert_true(holds(&out, peak));
	assert_true(
	    holds(&out, "bulkhead_processes{program=\"smtp\\\"d\",service=\"a\\\\b?\"} 0\n"));
	assert_true(
	    holds(&out, "bulkhead_state{program=\"qmgr\",service=\"qmgr\",name=\"messages\"} 7\n"));
	assert_false(holds(&out, "text"));
	assert_false(holds(&out, "big"));
	assert_true(slice_has_suffix(buf_slice(&out), "\n# EOF\n"));
	buf_free(&out);
	buf_free(&values);
	families_free(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_request_limit),
		cmocka_unit_test(test_replies),
		cmocka_unit_test(test_families),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
