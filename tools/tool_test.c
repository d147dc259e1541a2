/* Unit tests of what may reach a terminal. */
#include "tools/tool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static const struct {
	const char *in, *out;
} cases[] = {
	{ "plain\ttext\n", "plain\ttext\n" },
	{ "\x1b[31m\r\x7f\x08", "?[31m???" },
	{ "gr\xc3\xbc\xc3\x9f \xe2\x82\x9b \xf0\x9f\x9b\x91",
	    "gr\xc3\xbc\xc3\x9f \xe2\x82\x9b \xf0\x9f\x9b\x91" },
	{ "\xc2\xa0\xc2\x9b"
	  "31m",
	    "\xc2\xa0\xc2\xbf"
	    "31m" },
	{ "\x9b"
	  "31m \xe9t\xe9",
	    "?31m \xe9t\xe9" }, /* no UTF-8 at all */
	{ "\xc3\xbc\x9b", "\xc3\xbc?" },
	{ "\xe2\x82\x1b[", "\xe2\x82?[" },
};

static void
test_shown(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tool_shown shown = { 0 };
		char out[64] = "";

		for (size_t k = 0; cases[i].in[k]; k++)
			out[k] = (char)tool_shown(&shown, (unsigned char)cases[i].in[k]);
		assert_string_equal(out, cases[i].out);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
