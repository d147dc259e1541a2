#include "mail/address.h"

#include "mail/address_list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define ISEMAIL "tests/vectors/address/tests.xml"
#define IDNA "tests/vectors/idna/IdnaTestV2.txt"

static char *
read_file(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text;
	size_t n;

	if (!f)
		fail_msg("%s: run the tests from the top of the tree", path);
	text = xcalloc(1, 2 << 20);
	n = fread(text, 1, (2 << 20) - 1, f);
	assert_true(n > 0);
	fclose(f);
	return text;
}

static void
add_utf8(struct buf *out, unsigned long c)
{
	if (c < 0x80) {
		buf_add_byte(out, (unsigned char)c);
	} else if (c < 0x800) {
		buf_add_byte(out, (unsigned char)(0xc0 | c >> 6));
		buf_add_byte(out, (unsigned char)(0x80 | (c & 63)));
	} else if (c < 0x10000) {
		buf_add_byte(out, (unsigned char)(0xe0 | c >> 12));
		buf_add_byte(out, (unsigned char)(0x80 | (c >> 6 & 63)));
		buf_add_byte(out, (unsigned char)(0x80 | (c & 63)));
	} else {
		buf_add_byte(out, (unsigned char)(0xf0 | c >> 18));
		buf_add_byte(out, (unsigned char)(0x80 | (c >> 12 & 63)));
		buf_add_byte(out, (unsigned char)(0x80 | (c >> 6 & 63)));
		buf_add_byte(out, (unsigned char)(0x80 | (c & 63)));
	}
}

/* --- isemail's table --- */

static struct slice
xml_element(struct slice test, const char *name)
{
	char open[32], close[32];
	ptrdiff_t from, to;

	snprintf(open, sizeof(open), "<%s>", name);
	snprintf(close, sizeof(close), "</%s>", name);
	from = slice_search(test, slice_str(open));
	if (from < 0)
		return SLICE_NULL;
	test = slice_sub(test, (size_t)from + strlen(open), test.n);
	to = slice_search(test, slice_str(close));
	assert_true(to >= 0);
	return slice_sub(test, 0, (size_t)to);
}

/* Entities; U+2400 + n stands for the control character n. */
static void
xml_decode(struct slice s, struct buf *out)
{
	static const struct {
		const char *name;
		char c;
	} named[] = { { "amp", '&' }, { "lt", '<' }, { "gt", '>' }, { "quot", '"' } };

	buf_clear(out);
	while (s.n) {
		if (s.p[0] == '&') {
			struct slice entity = slice_split(&s, ';');
			entity = slice_sub(entity, 1, entity.n);
			if (slice_has_prefix(entity, "#x")) {
				unsigned long c = strtoul((const char *)entity.p + 2, NULL, 16);
				add_utf8(out, c >= 0x2400 && c < 0x2420 ? c - 0x2400 : c);
				continue;
			}
			for (size_t i = 0; i < 4; i++)
				if (slice_eq_str(entity, named[i].name))
					buf_add_byte(out, (unsigned char)named[i].c);
			continue;
		}
		buf_add_byte(out, s.p[0]);
		s = slice_sub(s, 1, s.n);
	}
}

static bool
one_of(struct slice s, const char *const *names)
{
	for (; *names; names++)
		if (slice_eq_str(s, *names))
			return true;
	return false;
}

/* What SMTP may carry is what isemail calls valid, valid for SMTP, or valid but unknown to DNS. */
static bool
valid_in_envelope(struct slice category)
{
	return one_of(category, (const char *const[]){ "ISEMAIL_VALID_CATEGORY", "ISEMAIL_DNSWARN",
				    "ISEMAIL_RFC5321", NULL });
}

static void
check_in_header(
    struct slice id, struct slice address, struct slice category, struct slice diagnosis)
{
	/* header grammar has no say over hyphens and lengths: the envelope parser looks; RFC 6532
	 * made UTF-8 after a backslash good */
	static const char *const elsewhere[] = { "ISEMAIL_ERR_DOMAINHYPHENEND",
		"ISEMAIL_ERR_DOMAINHYPHENSTART", "ISEMAIL_ERR_NODOMAIN",
		"ISEMAIL_ERR_EXPECTING_QPAIR", NULL };
	struct arena arena = { 0 };
	struct address_list list;
	bool good;

	if (one_of(diagnosis, elsewhere))
		return;
	assert_int_equal(address_list_parse(address, &arena, 10, &list), 0);
	good = !list.errors && list.count == 1;
	if (good == slice_eq_str(category, "ISEMAIL_ERR"))
		fail_msg("header, test %.*s: %.*s: errors %u count %zu", SLICE_ARG(id),
		    SLICE_ARG(diagnosis), list.errors, list.count);
	arena_free(&arena);
}

static void
isemail_table(void **state)
{
	char *text = read_file(ISEMAIL);
	struct slice rest = slice_str(text);
	struct buf address;
	unsigned n = 0;

	(void)state;
	buf_init(&address, 0);
	for (;;) {
		ptrdiff_t at = slice_search(rest, SLICE_LIT("<test id=\""));
		struct slice id, test, category, diagnosis;
		struct address a;
		int err;
		if (at < 0)
			break;
		rest = slice_sub(rest, (size_t)at + 10, rest.n);
		id = slice_split(&rest, '"');
		at = slice_search(rest, SLICE_LIT("</test>"));
		test = slice_sub(rest, 0, (size_t)at);
		category = xml_element(test, "category");
		diagnosis = xml_element(test, "diagnosis");
		xml_decode(xml_element(test, "address"), &address);
		err = address_parse(buf_slice(&address), ADDRESS_RFC_LENGTHS, &a);
		/* "::" for one group: not in the grammar of RFC 5321, but RFC 4291 has it */
		if (slice_eq_str(diagnosis, "ISEMAIL_RFC5321_IPV6DEPRECATED"))
			assert_int_equal(err, 0);
		else if (!err != valid_in_envelope(category))
			fail_msg("test %.*s: %.*s: %s", SLICE_ARG(id), SLICE_ARG(diagnosis),
			    err_str(err));
		check_in_header(id, buf_slice(&address), category, diagnosis);
		n++;
	}
	assert_int_equal(n, 164);
	buf_free(&address);
	free(text);
}

/* --- IdnaTestV2 --- */

static void
idna_unescape(struct slice s, struct buf *out)
{
	buf_clear(out);
	s = slice_trim(s, true);
	if (slice_eq_str(s, "\"\""))
		return;
	for (size_t i = 0; i < s.n;) {
		struct slice rest = slice_sub(s, i, s.n);
		if (slice_has_prefix(rest, "\\u") && rest.n >= 6) {
			char hex[5] = { 0 };
			memcpy(hex, rest.p + 2, 4);
			add_utf8(out, strtoul(hex, NULL, 16));
			i += 6;
		} else if (slice_has_prefix(rest, "\\x{")) {
			char *end;
			add_utf8(out, strtoul((const char *)rest.p + 3, &end, 16));
			i += (size_t)(end - (const char *)rest.p) + 1;
		} else {
			buf_add_byte(out, s.p[i++]);
		}
	}
}

/* Unicode 15.1 maps capital sharp s to its small letter, older tables to "ss"; and names of ASCII
 * alone may have hyphens in places 3 and 4 (mail to them exists). */
static bool
known_difference(struct slice source, struct slice status)
{
	return slice_search(source, SLICE_LIT("\xe1\xba\x9e")) >= 0 ||
	       (slice_eq_str(status, "[V2]") && slice_is_ascii(source));
}

/* IDNA2008 is stricter than UTS 46 (symbols), libidn2 knows an older Unicode, and we refuse a
 * final dot: so a name may be refused that the table has as good. Never may a name be taken that
 * the table has as bad, or convert to something else. */
static void
idna_table(void **state)
{
	char *text = read_file(IDNA);
	struct slice rest = slice_str(text);
	struct buf source, expected;
	unsigned taken = 0, refused = 0, lines = 0, wrong = 0;

	(void)state;
	buf_init(&source, 0);
	buf_init(&expected, 0);
	while (rest.n) {
		struct slice line = slice_split(&rest, '\n'), column[7], status;
		char ascii[DOMAIN_BUF_SIZE];
		bool bad;
		line = slice_split(&line, '#');
		if (slice_find(line, ';') < 0)
			continue;
		for (int i = 0; i < 7; i++)
			column[i] = slice_trim(slice_split(&line, ';'), true);
		status = column[4].n ? column[4] : column[2];
		bad = status.n && !slice_eq_str(status, "[]");
		idna_unescape(column[0], &source);
		idna_unescape(column[3].n   ? column[3]
			      : column[1].n ? column[1]
					    : column[0],
		    &expected);
		lines++;
		if (domain_to_ascii(buf_slice(&source), ascii)) {
			refused += !bad;
			continue;
		}
		taken++;
		if ((bad || !slice_eq_str(buf_slice(&expected), ascii)) &&
		    !known_difference(column[0], status)) {
			if (wrong++ < 40)
				print_message("%.*s -> %s (%.*s)\n", SLICE_ARG(column[0]), ascii,
				    SLICE_ARG(status));
		}
	}
	print_message(
	    "%u names: %u taken, %u good ones refused, %u wrong\n", lines, taken, refused, wrong);
	assert_true(lines > 6000);
	assert_true(taken > 400);
	assert_int_equal(wrong, 0);
	buf_free(&source);
	buf_free(&expected);
	free(text);
}

/* --- what the tables do not cover --- */

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

/* --- lists --- */

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
		cmocka_unit_test(isemail_table),
		cmocka_unit_test(idna_table),
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
