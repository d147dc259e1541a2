/* Unit tests of alias values, command words and mailbox specs. */
#include "db/alias.h"
#include "db/mailbox.h"

#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

/* The items as text, "A:x S:x C:x F:x I:x" parted by " ; ", or "!why". */
static const char *
parsed(const char *text, bool lines, size_t max)
{
	static char out[8192];
	static const char letters[] = "ASCFI";
	struct arena arena = { 0 };
	struct alias_items items;
	struct buf b = { 0 };
	const char *why;
	int err = alias_parse(&arena, slice_str(text), lines, max, &items, &why);

	if (err)
		buf_addf(&b, "!%s", why);
	for (size_t i = 0; !err && i < items.n; i++)
		buf_addf(&b, "%s%c:%.*s", i ? " ; " : "", letters[items.items[i].kind],
		    SLICE_ARG(items.items[i].text));
	assert_int_equal(slice_copy(buf_slice(&b), out, sizeof(out)), 0);
	buf_free(&b);
	arena_free(&arena);
	return out;
}

static void
test_values(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "root", "A:root" },
		{ " a@x.org , b ,,c", "A:a@x.org ; A:b ; A:c" },
		{ "", "" },
		{ "|/bin/cat", "C:/bin/cat" },
		{ "| /bin/cat -n , joe", "C:/bin/cat -n ; A:joe" },
		{ "\"|/bin/cat -n, x\", joe", "C:/bin/cat -n, x ; A:joe" },
		{ "|\"/bin/cat -n, x\", joe", "C:/bin/cat -n, x ; A:joe" },
		{ "\"|/bin/echo \\\"a b\\\"\"", "C:/bin/echo \"a b\"" },
		{ "|/bin/echo \"a, b\" c", "C:/bin/echo \"a, b\" c" },
		{ "/var/mail/x, \"/var/mail/a b\"", "F:/var/mail/x ; F:/var/mail/a b" },
		{ ":include:/etc/list", "I:/etc/list" },
		{ "\":include:/etc/li st\"", "I:/etc/li st" },
		{ ":INCLUDE: /etc/list", "I:/etc/list" },
		{ "\\joe, ann", "S:joe ; A:ann" },
		{ "\"a b\"@x.org", "A:\"a b\"@x.org" },
		{ "\"a,b\"@x.org, c", "A:\"a,b\"@x.org ; A:c" },
		{ "Joe Doe <joe@x.org>, \"D, J\" <jd@x.org>", "A:joe@x.org ; A:jd@x.org" },
		{ "joe (the, one), ann(x(y)z)@x.org", "A:joe ; A:ann@x.org" },
		{ "a b", "!an address holds a blank (a comma is missing, or quotes)" },
		{ "\"open", "!a quote is not closed" },
		{ "|\"open", "!a quote is not closed" },
		{ "a (b", "!a parenthesis is not closed" },
		{ "a <b", "!an angle bracket is not closed" },
		{ "|", "!an item is empty" },
		{ "<>", "!an item is empty" },
		{ "<|x>", "!a command, path or include stands in brackets" },
		{ ":include:list", "!the path behind :include: does not begin with /" },
		{ "\"|cat\" x", "!text stands behind a quoted item" },
		{ "\"a\x01\"@b", "!an item holds a control character" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_string_equal(parsed(cases[i].in, false, 100), cases[i].out);
	assert_string_equal(parsed("a,b,c", false, 3), "A:a ; A:b ; A:c");
	assert_string_equal(parsed("a,b,c,d", false, 3), "!there are too many items");
}

static void
test_lines(void **state)
{
	(void)state;
	assert_string_equal(
	    parsed("# c\na, b\n\n  #x\n\"|cat -n\"\r\n:include:/l\n\\me", true, 100),
	    "A:a ; A:b ; C:cat -n ; I:/l ; S:me");
	assert_string_equal(parsed("a\nb c\n", true, 100),
	    "!line 2: an address holds a blank (a comma is missing, or quotes)");
	assert_string_equal(parsed("\"a\nb\"\n", true, 100), "!line 1: a quote is not closed");
}

static void
test_long(void **state)
{
	struct arena arena = { 0 };
	struct alias_items items;
	const char *why;
	char *text = malloc(ALIAS_ITEM_MAX + 2);

	(void)state;
	memset(text, 'a', ALIAS_ITEM_MAX + 1);
	assert_int_equal(
	    alias_parse(&arena, slice(text, ALIAS_ITEM_MAX), false, 9, &items, &why), 0);
	assert_int_equal(items.items[0].text.n, ALIAS_ITEM_MAX);
	assert_int_equal(
	    alias_parse(&arena, slice(text, ALIAS_ITEM_MAX + 1), false, 9, &items, &why),
	    ERR_SYNTAX);
	assert_int_equal(alias_parse(&arena, slice("a\0b", 3), false, 9, &items, &why), ERR_SYNTAX);
	free(text);
	arena_free(&arena);
}

static void
test_words(void **state)
{
	struct arena a = { 0 };
	char **argv;
	size_t n;

	(void)state;
	assert_int_equal(alias_words(&a, SLICE_LIT(" /bin/x  -a 'b c' \"d \\\"e\" f\\ g '' $H;|&"),
			     10, &argv, &n),
	    0);
	assert_int_equal(n, 7);
	assert_string_equal(argv[0], "/bin/x");
	assert_string_equal(argv[2], "b c");
	assert_string_equal(argv[3], "d \"e");
	assert_string_equal(argv[4], "f g");
	assert_string_equal(argv[5], "");
	assert_string_equal(argv[6], "$H;|&");
	assert_null(argv[7]);
	assert_int_equal(alias_words(&a, SLICE_LIT("a 'b"), 10, &argv, &n), ERR_SYNTAX);
	assert_int_equal(alias_words(&a, SLICE_LIT("  "), 10, &argv, &n), ERR_SYNTAX);
	assert_int_equal(alias_words(&a, SLICE_LIT("a b c"), 3, &argv, &n), 0);
	assert_int_equal(alias_words(&a, SLICE_LIT("a b c"), 2, &argv, &n), ERR_LIMIT);
	assert_int_equal(alias_words(&a, slice("a\0b", 3), 2, &argv, &n), ERR_SYNTAX);
	arena_free(&a);
}

static const char *
spec(const char *home_mailbox, const char *spool, const char *user, const char *home)
{
	static char out[512];
	struct buf b = { 0 };
	int err = mailbox_of_user(
	    slice_str(home_mailbox), slice_str(spool), slice_str(user), slice_str(home), &b);

	assert_int_equal(slice_copy(buf_slice(&b), out, sizeof(out)), 0);
	buf_free(&b);
	return err ? "!" : out;
}

static void
test_mailbox(void **state)
{
	struct mailbox m;
	struct slice rest;

	(void)state;
	assert_string_equal(spec("", "/var/mail", "joe", "/home/joe"), "mbox:/var/mail/joe");
	assert_string_equal(spec("", "/var/mail/", "joe", "/home/joe"), "maildir:/var/mail/joe");
	assert_string_equal(
	    spec("Maildir/", "/var/mail", "joe", "/home/joe"), "maildir:/home/joe/Maildir");
	assert_string_equal(
	    spec("Mail/in", "/var/mail", "joe", "/home/joe/"), "mbox:/home/joe/Mail/in");
	assert_string_equal(spec("Maildir/", "/var/mail", "joe", "/"), "maildir:/Maildir");
	assert_string_equal(spec("", "/var/mail", "../x", "/"), "!");
	assert_string_equal(spec("", "/var/mail", "..", "/"), "!");
	assert_string_equal(spec("", "/var/mail", "", "/"), "!");
	assert_string_equal(spec("", "/var/mail", "a/b", "/"), "!");
	assert_string_equal(spec("Maildir/", "/var/mail", "joe", ""), "!");
	assert_string_equal(spec("../Maildir/", "/var/mail", "joe", "/home/joe"), "!");
	assert_int_equal(mailbox_parse(SLICE_LIT("maildir:/a/b/"), &m), 0);
	assert_true(slice_eq_str(m.path, "/a/b"));
	assert_int_equal(mailbox_parse(SLICE_LIT("mbox:a"), &m), ERR_SYNTAX);
	assert_int_equal(mailbox_parse(SLICE_LIT("mbox:/a/../b"), &m), ERR_SYNTAX);
	assert_int_equal(mailbox_parse(SLICE_LIT("x:/a"), &m), ERR_SYNTAX);
	assert_int_equal(
	    mailbox_below(SLICE_LIT("/home/joe/M"), SLICE_LIT("/home/joe/"), &rest), 0);
	assert_true(slice_eq_str(rest, "M"));
	assert_int_equal(mailbox_below(SLICE_LIT("/home/joe"), SLICE_LIT("/home/joe"), &rest), 0);
	assert_int_equal(rest.n, 0);
	assert_int_equal(
	    mailbox_below(SLICE_LIT("/home/joel"), SLICE_LIT("/home/joe"), &rest), ERR_NOT_FOUND);
	assert_int_equal(mailbox_below(SLICE_LIT("/x"), SLICE_LIT("/"), &rest), 0);
	assert_true(slice_eq_str(rest, "x"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_mailbox),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
