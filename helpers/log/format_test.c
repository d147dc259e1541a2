/* Unit tests of the lines of the log. */
#include "format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static void
check_at(uint64_t time, void (*format)(struct buf *, const struct log_line *), const char *text,
    const char *want)
{
	struct item_log_record r = {
		.time = time, .level = 2, .event = SLICE_LIT("child-died"), .text = slice_str(text)
	};
	struct log_line l = {
		.record = &r, .role = ROLE_MASTER, .pid = 7, .host = "mx", .name = "bulkhead"
	};
	struct buf out = { 0 };

	format(&out, &l);
	if (!slice_eq_str(buf_slice(&out), want))
		fail_msg("got %.*s\nwant %s", SLICE_ARG(buf_slice(&out)), want);
	buf_free(&out);
}

static void
check(void (*format)(struct buf *, const struct log_line *), const char *text, const char *want)
{
	check_at(1764100000000001, format, text, want);
}

#define HEAD                                                                                       \
	"{\"time\":\"2025-11-25T19:46:40.000001Z\",\"host\":\"mx\",\"role\":\"master\",\"pid\":7," \
	"\"level\":\"warning\",\"event\":\"child-died\""

static void
test_text(void **state)
{
	(void)state;
	check(format_text, "a=1 b=\"x y\"",
	    "2025-11-25T19:46:40.000001Z mx bulkhead/master[7]: warning: child-died a=1 b=\"x "
	    "y\"\n");
	check(format_syslog, "a=\n\t\177",
	    "bulkhead/master[7]: warning: child-died a=\\x0a\\x09\\x7f");
	check(format_syslog,
	    "a=\x01"
	    "b\x02",
	    "bulkhead/master[7]: warning: child-died a=\\x01"
	    "b\\x02");
}

/* The date of a second is kept for those that follow. */
static void
test_time(void **state)
{
#define LINE " mx bulkhead/master[7]: warning: child-died \n"
	(void)state;
	check_at(1764100000999999, format_text, "", "2025-11-25T19:46:40.999999Z" LINE);
	check_at(1764100001000000, format_text, "", "2025-11-25T19:46:41.000000Z" LINE);
	check_at(1764100000000000, format_text, "", "2025-11-25T19:46:40.000000Z" LINE);
	check_at(0, format_text, "", "1970-01-01T00:00:00.000000Z" LINE);
}

static void
test_json(void **state)
{
	(void)state;
	check(format_json,
	    "a=1 b=\"x \\\"y\\\\\" c=", HEAD ",\"a\":\"1\",\"b\":\"x \\\"y\\\\\",\"c\":\"\"}\n");
	/* a quoted part of a value is no key of its own */
	check(format_json, "from=<\"a qid=2 \\\"b\"> qid=1",
	    HEAD ",\"from\":\"<a qid=2 \\\"b>\",\"qid\":\"1\"}\n");
	/* the record's own keys stay what they are */
	check(format_json, "pid=12 role=qmgr", HEAD ",\"pid_\":\"12\",\"role_\":\"qmgr\"}\n");
	/* octets that are no UTF-8 cost neither the line nor the value */
	check(format_json, "a=\xff \xfe=\xc3\xbc",
	    HEAD ",\"a\":\"\\\\xff\",\"\\\\xfe\":\"\xc3\xbc\"}\n");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
