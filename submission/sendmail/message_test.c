/* Unit tests of what sendmail(1) adds to a message: From: is an address, whoever calls. */
#include "submission/sendmail/sendmail.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

int
complain(int status, const char *fmt, ...)
{
	(void)fmt;
	return status;
}

static const struct {
	const char *sender, *name, *from;
} cases[] = {
	{ "alice", NULL, "From: <alice@o.test>\r\n" },
	{ "alice", "Alice B", "From: Alice B <alice@o.test>\r\n" },
	{ "a@e.test", "", "From: <a@e.test>\r\n" },
	{ "<a@e.test>", NULL, "From: <a@e.test>\r\n" },
	{ "a@host", NULL, "From: <a@host.d.test>\r\n" },
	{ "\"a@b\"", NULL, "From: <\"a@b\"@o.test>\r\n" },
	{ "", NULL, "From: <MAILER-DAEMON@o.test>\r\n" },
};

static void
test_from(void **state)
{
	static const struct conf conf = { .myorigin = "o.test",
		.mydomain = "d.test",
		.append_at_myorigin = true,
		.append_dot_mydomain = true };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct job job = { .conf = &conf };
		struct slice content, line;

		job.options.sender = cases[i].sender;
		job.options.full_name = cases[i].name;
		assert_int_equal(message_take(&job, SLICE_LIT("Subject: s\n\nbody\n")), EX_OK);
		content = buf_slice(&job.content);
		line = slice_sub(content, 0, strlen(cases[i].from));
		if (!slice_eq_str(line, cases[i].from))
			fail_msg("%s: %.*s", cases[i].sender, SLICE_ARG(content));
		arena_free(&job.arena);
		buf_free(&job.content);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_from) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
