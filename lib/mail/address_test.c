/* Unit tests of addresses, paths and lists of addresses by tables of our own. */
#include "mail/address.h"

#include "mail/address_list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static void
check_canonical(const char *in, unsigned flags, const char *expected)
{
	char out[ADDRESS_BUF_SIZE];
	int err = address_normalise(slice_str(in), flags, out);

	if (!expected) {
		if (!err)
			fail_msg("%s is taken", in);
		return;
	}
	if (err)
		fail_msg("%s: %s", in, err_str(err));
	assert_string_equal(out, expected);
}

static void
canonical_forms(void **state)
{
	char long_local[ADDRESS_LOCAL_MAX + sizeof("@example.org")] = "";
	struct buf out = { 0 };
	struct address a;

	memcpy(long_local + ADDRESS_LOCAL_MAX, "@example.org", sizeof("@example.org"));
	(void)state;
	check_canonical("User@EXAMPLE.Org", 0, "User@example.org");
	check_canonical("\"user\"@example.org", 0, "user@example.org");
	check_canonical("\"us\\er\"@example.org", 0, "user@example.org");
	check_canonical("\"a b\"@example.org", 0, "\"a b\"@example.org");
	check_canonical("\"a\\\"b\"@example.org", 0, "\"a\\\"b\"@example.org");
	check_canonical("\"a..b\"@example.org", 0, "\"a..b\"@example.org");
	check_canonical("\"\"@example.org", 0, "\"\"@example.org");
	/* NFC makes a semicolon of U+037E, and three times the octets of U+1D160. */
	check_canonical("a\xcd\xbe@example.org", ADDRESS_UTF8, "\"a;\"@example.org");
	for (size_t i = 0; i < ADDRESS_LOCAL_MAX; i += 4)
		memcpy(long_local + i, "\xf0\x9d\x85\xa0", 4);
	assert_int_equal(address_parse(slice_str(long_local), ADDRESS_UTF8, &a), 0);
	assert_int_equal(address_canonical(&a, &out), ERR_LIMIT);
	assert_int_equal(buf_len(&out), 0);
	check_canonical("a@[IPV6:2001:DB8::1]", 0, "a@[ipv6:2001:db8::1]");
	check_canonical("a@under_score.example", 0, "a@under_score.example");
	check_canonical("postmaster", 0, NULL);
	check_canonical("postmaster", ADDRESS_NO_DOMAIN, "postmaster");
	check_canonical("a@", ADDRESS_NO_DOMAIN, NULL);
	check_canonical("a@b@c", 0, NULL);
	check_canonical("a b@c", 0, NULL);
	check_canonical("a@b\r\nRSET", 0, NULL);
	check_canonical("\"a\r\nb\"@c", 0, NULL);
	check_canonical("m\xc3\xbcller@example.org", 0, NULL);
	check_canonical("m\xc3\xbcller@b\xc3\xbc"
			"cher.example",
	    ADDRESS_UTF8, "m\xc3\xbcller@xn--bcher-kva.example");
	/* decomposed u + diaeresis becomes NFC */
	check_canonical("mu\xcc\x88ller@example.org", ADDRESS_UTF8, "m\xc3\xbcller@example.org");
	check_canonical("m\xfcller@example.org", ADDRESS_UTF8, NULL);
	check_canonical("a@xn--bcher-kva.example", 0, "a@xn--bcher-kva.example");
}

static void
nul_is_refused(void **state)
{
	struct address a;

	(void)state;
	assert_int_equal(address_parse(SLICE_LIT("a\0b@c"), 0, &a), ERR_SYNTAX);
	assert_int_equal(address_parse(SLICE_LIT("\"a\0b\"@c"), 0, &a), ERR_SYNTAX);
	assert_int_equal(address_parse(SLICE_LIT("a@c\0"), 0, &a), ERR_SYNTAX);
	assert_int_equal(address_parse(SLICE_LIT("a@[1.2.3.4\0]"), 0, &a), ERR_SYNTAX);
}

static void
lengths(void **state)
{
	char text[800];
	struct address a;

	(void)state;
	memset(text, 'a', sizeof(text));
	memcpy(text + 64, "@x", 2);
	assert_int_equal(address_parse(slice(text, 66), ADDRESS_RFC_LENGTHS, &a), 0);
	memset(text, 'a', sizeof(text));
	memcpy(text + 65, "@x", 2);
	assert_int_equal(address_parse(slice(text, 67), ADDRESS_RFC_LENGTHS, &a), ERR_LIMIT);
	assert_int_equal(address_parse(slice(text, 67), 0, &a), 0);
	memset(text, 'a', sizeof(text));
	memcpy(text + ADDRESS_LOCAL_MAX, "@x", 2);
	assert_int_equal(address_parse(slice(text, ADDRESS_LOCAL_MAX + 2), 0, &a), 0);
	memset(text, 'a', sizeof(text));
	memcpy(text + ADDRESS_LOCAL_MAX + 1, "@x", 2);
	assert_int_equal(address_parse(slice(text, ADDRESS_LOCAL_MAX + 3), 0, &a), ERR_LIMIT);
	/* 253 octets of domain, and 255 */
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = i % 2 ? '.' : 'a';
	memcpy(text, "a@", 2);
	assert_int_equal(address_parse(slice(text, 2 + 253), 0, &a), 0);
	assert_int_equal(address_parse(slice(text, 2 + 255), 0, &a), ERR_LIMIT);
}

static void
check_path(
    const char *in, int expected_err, const char *local, const char *domain, const char *rest)
{
	struct slice s = slice_str(in);
	struct address a;
	int err = address_parse_path(&s, 0, &a);

	if (err != expected_err)
		fail_msg("%s: %s", in, err_str(err));
	if (err)
		return;
	assert_true(slice_eq_str(a.local, local));
	assert_true(slice_eq_str(a.domain, domain));
	assert_true(slice_eq_str(s, rest));
}

static void
paths(void **state)
{
	(void)state;
	check_path("<>", 0, "", "", "");
	check_path("<> SIZE=1", 0, "", "", " SIZE=1");
	check_path("<a@b>", 0, "a", "b", "");
	check_path("<a@b> X", 0, "a", "b", " X");
	check_path("<a@b>X", 0, "a", "b", "X");
	check_path("a@b BODY=7BIT", 0, "a", "b", " BODY=7BIT");
	check_path("<@x.example,@y.example:a@b>", 0, "a", "b", "");
	check_path("<@x.example:\"@:>\"@b>", 0, "\"@:>\"", "b", "");
	check_path("<@x.example a@b>", ERR_SYNTAX, NULL, NULL, NULL);
	check_path("<@x.example,:a@b>", ERR_SYNTAX, NULL, NULL, NULL);
	check_path("<x.example:a@b>", ERR_SYNTAX, NULL, NULL, NULL);
	check_path("<\"a>b\"@c> Y", 0, "\"a>b\"", "c", " Y");
	check_path("<\"a\\\">b\"@c> Y", 0, "\"a\\\">b\"", "c", " Y");
	check_path("\"a b\"@c Y", 0, "\"a b\"", "c", " Y");
	check_path("<a@b", ERR_SYNTAX, NULL, NULL, NULL);
	check_path("<a@b>>", 0, "a", "b", ">");
	check_path("<<a@b>>", ERR_SYNTAX, NULL, NULL, NULL);
	check_path("< a@b>", ERR_SYNTAX, NULL, NULL, NULL);
	check_path("", ERR_SYNTAX, NULL, NULL, NULL);
}

static void
check_list(const char *in, unsigned errors, const char *expected)
{
	struct arena arena = { 0 };
	struct address_list list;
	struct address_entry *e;
	struct buf out;

	buf_init(&out, 0);
	assert_int_equal(address_list_parse(slice_str(in), &arena, 100, &list), 0);
	STAILQ_FOREACH(e, &list.entries, next) {
		if (buf_len(&out))
			buf_add_byte(&out, ' ');
		if (e->kind == ADDRESS_GROUP_START)
			buf_addf(&out, "{%.*s:", SLICE_ARG(e->name));
		else if (e->kind == ADDRESS_GROUP_END)
			buf_addf(&out, "}");
		else
			buf_addf(&out, "[%.*s|%.*s|%.*s|%.*s]", SLICE_ARG(e->name),
			    SLICE_ARG(e->route), SLICE_ARG(e->local), SLICE_ARG(e->domain));
	}
	if (!slice_eq_str(buf_slice(&out), expected) || !list.errors != !errors)
		fail_msg("%s\n -> %.*s (%u errors)\n != %s", in, (int)buf_len(&out),
		    (const char *)buf_slice(&out).p, list.errors, expected);
	buf_free(&out);
	arena_free(&arena);
}

static void
lists(void **state)
{
	(void)state;
	check_list("", 0, "");
	check_list("a@b", 0, "[||a|b]");
	check_list("a@b, c@d", 0, "[||a|b] [||c|d]");
	check_list("a@b,,c@d,", 0, "[||a|b] [||c|d]");
	check_list("John Doe <j@x.org>", 0, "[John Doe||j|x.org]");
	check_list("\"Doe, John\" <j@x.org>", 0, "[Doe, John||j|x.org]");
	check_list("John Q. Public <j@x.org>", 0, "[John Q. Public||j|x.org]");
	check_list("j@x.org (John (Jack) Doe)", 0, "[John (Jack) Doe||j|x.org]");
	check_list("<@a.org,@b.org:j@x.org>", 0, "[|@a.org,@b.org|j|x.org]");
	check_list("A Group:Ed <e@x>,joe@y;", 0, "{A Group: [Ed||e|x] [||joe|y] }");
	check_list("Undisclosed recipients:;", 0, "{Undisclosed recipients: }");
	check_list("(Empty list)(start)Hidden: ;", 0, "{Hidden: }");
	check_list("a@b;", 1, "[||a|b]");
	check_list("g: a@b", 1, "{g: [||a|b] }");
	check_list("Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", 0,
	    "[Pete||pete|silly.test]");
	check_list("\"Joe Q.\"\r\n <john.q@x>", 0, "[Joe Q.||john.q|x]");
	check_list("=?utf-8?Q?J=C3=B6rg?= <j@x>", 0, "[=?utf-8?Q?J=C3=B6rg?=||j|x]");
	check_list("root", 0, "[||root|]");
	check_list("\"a b\"@x", 0, "[||a b|x]");
	check_list("a . b @ x . y", 0, "[||a.b|x.y]");
	check_list("a@[1.2.3.4]", 0, "[||a|[1.2.3.4]]");
	check_list("a b c@d", 1, "[||abc|d]");
	check_list("<a@b> junk, c@d", 1, "[||a|b] [||c|d]");
	check_list("@,a@b", 1, "[||a|b]");
	check_list("\"unclosed <a@b>", 1, "[||unclosed <a@b>|]");
	check_list("(((((unclosed a@b", 1, "");
	check_list("J\xc3\xb6rg <j@x>", 0, "[J\xc3\xb6rg||j|x]");
}

static void
list_limit(void **state)
{
	struct arena arena = { 0 };
	struct address_list list;

	(void)state;
	assert_int_equal(address_list_parse(SLICE_LIT("a@b,c@d,e@f"), &arena, 3, &list), 0);
	assert_int_equal(list.count, 3);
	assert_int_equal(
	    address_list_parse(SLICE_LIT("a@b,c@d,e@f,g@h"), &arena, 3, &list), ERR_LIMIT);
	assert_int_equal(list.count, 3);
	arena_free(&arena);
}

static void
completion(void **state)
{
	static const struct {
		const char *in, *out; /* out NULL: as it is */
	} cases[] = {
		{ " u2", " u2@o.test" },
		{ "u2", "u2@o.test" },
		{ " u2\r\n", " u2@o.test\r\n" },
		{ " a, b@far.test,\r\n\tc (see, below)",
		    " a@o.test, b@far.test,\r\n\tc@o.test (see, below)" },
		{ " (c) a (d)", " (c) a@o.test (d)" },
		{ " Ann <ann>, \"B, C\" <b> (x)", " Ann <ann@o.test>, \"B, C\" <b@o.test> (x)" },
		{ " <ann>", " <ann@o.test>" },
		{ " < ann >", " < ann@o.test >" },
		{ " \"a b\"", " \"a b\"@o.test" },
		{ " a.b", " a.b@o.test" },
		{ " x@host", " x@host.d.test" },
		{ " <x@host>, y@host (z)", " <x@host.d.test>, y@host.d.test (z)" },
		{ " team: ann, bob@far.test;, c", " team: ann@o.test, bob@far.test;, c@o.test" },
		{ " J\303\266rg <j\303\266rg>", " J\303\266rg <j\303\266rg@o.test>" },
		{ " undisclosed-recipients:;", NULL },
		{ " <>", NULL },
		{ "", NULL },
		{ " , ,", NULL },
		{ " Ann Bee", NULL },
		{ " a b@far.test", NULL },
		{ " a@[192.0.2.1]", NULL },
		{ " a@b c", NULL },
		{ " <@r.test,@s.test:ann@far.test>", NULL },
		{ " Ann <ann@far.test> trailing", NULL },
		{ " \"no end", NULL },
		{ " Ann <ann", NULL },
		{ " a..b", NULL },
		{ " .a", NULL },
		{ " a.", NULL },
		{ " @far.test", NULL },
		{ " a@@b", NULL },
		{ " (open", NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf out = { 0 };
		const char *want = cases[i].out ? cases[i].out : cases[i].in;
		unsigned n = address_complete(slice_str(cases[i].in), "o.test", "d.test", &out);

		if (!slice_eq_str(buf_slice(&out), want))
			fail_msg("%s: %.*s", cases[i].in, SLICE_ARG(buf_slice(&out)));
		assert_true((n > 0) == (cases[i].out != NULL));
		buf_free(&out);
		assert_int_equal(address_complete(slice_str(cases[i].in), NULL, NULL, &out), 0);
		assert_true(slice_eq_str(buf_slice(&out), cases[i].in));
		buf_free(&out);
	}
}

/* A megabyte of escaped characters: what took the square of it would not end. */
static void
list_is_linear(void **state)
{
	struct arena arena = { 0 };
	struct address_list list;
	struct buf text = { 0 };

	(void)state;
	buf_add_str(&text, "\"");
	for (int i = 0; i < 350000; i++)
		buf_add_str(&text, "\\\xc3\xa9");
	buf_add_str(&text, "\" <a@b>");
	assert_int_equal(address_list_parse(buf_slice(&text), &arena, 3, &list), 0);
	assert_int_equal(list.errors, 0);
	assert_int_equal(list.count, 1);
	assert_int_equal(STAILQ_FIRST(&list.entries)->name.n, 700000);
	arena_free(&arena);
	buf_free(&text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(completion),
		cmocka_unit_test(canonical_forms),
		cmocka_unit_test(nul_is_refused),
		cmocka_unit_test(lengths),
		cmocka_unit_test(paths),
		cmocka_unit_test(lists),
		cmocka_unit_test(list_limit),
		cmocka_unit_test(list_is_linear),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
