#include "mail/base64.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct {
	const char *plain, *text;
} pairs[] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" },
	{ "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" } };

static void
test_pairs(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
		struct buf b = { 0 };

		assert_int_equal(base64_encode(&b, slice_str(pairs[i].plain)), 0);
		assert_true(slice_eq_str(buf_slice(&b), pairs[i].text));
		buf_clear(&b);
		assert_int_equal(base64_decode(&b, slice_str(pairs[i].text)), 0);
		assert_true(slice_eq_str(buf_slice(&b), pairs[i].plain));
		buf_free(&b);
	}
}

static void
test_refused(void **state)
{
	static const char *const bad[] = { "Z", "Zg",
		"Zg=", "Zg==Zg==", "Z===", "====", "Zh==", "Zm9=", "Zm9v\n", "Zm 9", "=m9v",
		"Zm-v" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct buf b = { 0 };

		buf_add_str(&b, "kept");
		assert_int_equal(base64_decode(&b, slice_str(bad[i])), ERR_SYNTAX);
		assert_true(slice_eq_str(buf_slice(&b), "kept"));
		buf_free(&b);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_refused) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
