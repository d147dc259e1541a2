/* Unit tests of addresses and domains against the published tables of others. */
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(isemail_table),
		cmocka_unit_test(idna_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
