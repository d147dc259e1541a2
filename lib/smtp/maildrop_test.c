#include "smtp/maildrop.h"

#include "smtp/params.h"
#include "smtp/trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void
round_trip(void **state)
{
	struct slice rcpts[] = { SLICE_LIT("a@b"), SLICE_LIT("\"x y\"@c") };
	struct maildrop m = { .sender = SLICE_LIT("s@t"),
		.rcpts = rcpts,
		.count = 2,
		.body_8bit = true,
		.smtputf8 = true,
		.ret = 2,
		.notify = DSN_NOTIFY_SUCCESS | DSN_NOTIFY_DELAY,
		.envid = SLICE_LIT("x+20y") };
	struct maildrop back;
	struct arena arena = { 0 };
	struct buf text = { 0 };

	(void)state;
	assert_int_equal(maildrop_format(&text, &m), 0);
	buf_add_str(&text, "Subject: x\r\n");
	for (size_t n = 0; n + 12 < buf_len(&text); n++)
		assert_int_equal(
		    maildrop_parse(slice_sub(buf_slice(&text), 0, n), &arena, 2, &back),
		    ERR_TRUNCATED);
	assert_int_equal(maildrop_parse(buf_slice(&text), &arena, 1, &back), ERR_LIMIT);
	assert_int_equal(maildrop_parse(buf_slice(&text), &arena, 2, &back), 0);
	assert_true(slice_eq_str(back.sender, "s@t"));
	assert_int_equal(back.count, 2);
	assert_true(slice_eq_str(back.rcpts[1], "\"x y\"@c"));
	assert_true(back.body_8bit && back.smtputf8);
	assert_int_equal(back.ret, 2);
	assert_int_equal(back.notify, m.notify);
	assert_true(slice_eq_str(back.envid, "x+20y"));
	assert_int_equal(back.content, buf_len(&text) - 12);
	m.sender = SLICE_LIT("s@t\nrecipient evil@x");
	assert_int_equal(maildrop_format(&text, &m), ERR_SYNTAX);
	m.sender = SLICE_LIT("s\0@t");
	assert_int_equal(maildrop_format(&text, &m), ERR_SYNTAX);
	buf_free(&text);
	arena_free(&arena);
}

static void
check_bad(struct slice text)
{
	struct arena arena = { 0 };
	struct maildrop m;

	if (maildrop_parse(text, &arena, 10, &m) != ERR_SYNTAX)
		fail_msg("%.*s is taken", SLICE_ARG(text));
	arena_free(&arena);
}

static void
bad_files(void **state)
{
	(void)state;
	check_bad(SLICE_LIT("something else\n\n"));
	check_bad(SLICE_LIT("bulkhead-maildrop 2\nsender \nrecipient a\n\n"));
	check_bad(SLICE_LIT("bulkhead-maildrop 1\n\n"));
	check_bad(SLICE_LIT("bulkhead-maildrop 1\nsender a\n\n"));
	/* a recipient that is none counts all the same: the array has room for what was counted */
	check_bad(SLICE_LIT("bulkhead-maildrop 1\nsender a\nrecipient\nrecipient\nrecipient\n\n"));
	check_bad(SLICE_LIT("bulkhead-maildrop 1\nsender a\nrecipient \n\n"));
	check_bad(SLICE_LIT("bulkhead-maildrop 1\nrecipient a\n\n"));
	check_bad(SLICE_LIT("bulkhead-maildrop 1\nsender a\nsender b\nrecipient a\n\n"));
	check_bad(SLICE_LIT("bulkhead-maildrop 1\nsender a\nrecipient b\0c\n\n"));
	check_bad(SLICE_LIT("bulkhead-maildrop 1\nsender a\r\nrecipient b\n\n"));
	check_bad(SLICE_LIT("bulkhead-maildrop 1\nsender a\nrecipient b\nuid 0\n\n"));
	check_bad(SLICE_LIT("bulkhead-maildrop 1\nsender a\nrecipient b\nnotify sometimes\n\n"));
	check_bad(SLICE_LIT("bulkhead-maildrop 1\nsender a\nrecipient b\nenvid +0A\n\n"));
}

static void
trace_fields(void **state)
{
	struct smtp_trace t = { .hello = SLICE_LIT("c.example"),
		.name = "ptr.example",
		.address = "[192.0.2.1]",
		.tls = "TLSv1.3 with cipher X (256/256 bits)",
		.hostname = "mx.example",
		.mail_name = "Bulkhead",
		.with = "ESMTPS",
		.id = "A.1",
		.rcpt = SLICE_LIT("a@b"),
		.time = 0,
		.zone = 60 };
	char literal[64];
	struct buf out = { 0 };

	(void)state;
	smtp_trace_format(&out, &t);
	assert_true(slice_eq_str(buf_slice(&out),
	    "Received: from c.example (ptr.example [192.0.2.1])\r\n\t(using TLSv1.3 with cipher X "
	    "(256/256 bits))\r\n"
	    "\tby mx.example (Bulkhead) with ESMTPS id A.1\r\n\tfor <a@b>;\r\n\tThu, 1 Jan 1970 "
	    "01:00:00 +0100\r\n"));
	buf_clear(&out);
	t = (struct smtp_trace){
		.local = "userid 5", .hostname = "mx", .mail_name = "B", .with = "ESMTP", .id = "A"
	};
	smtp_trace_format(&out, &t);
	assert_true(slice_eq_str(buf_slice(&out),
	    "Received: by mx (B, from userid 5) id A;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"));
	buf_free(&out);
	smtp_trace_literal("2001:db8::1", literal);
	assert_string_equal(literal, "[IPv6:2001:db8::1]");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(bad_files),
		cmocka_unit_test(trace_fields),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
