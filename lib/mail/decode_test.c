#include "mail/decode.h"
#include "mail/envelope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct charsets *charsets;

static void
test_transfer(void **state)
{
	static const struct {
		enum mime_encoding encoding;
		const char *in, *out;
		bool broken;
	} cases[] = {
		{ MIME_BASE64, "Zm9v\r\nYmFy", "foobar", false },
		{ MIME_BASE64, "Zg==", "f", false },
		{ MIME_BASE64, "Zg==Zm8=", "ffo", false },
		{ MIME_BASE64, "Zm9", "fo", false },
		{ MIME_BASE64, "Z!m9v", "foo", true },
		{ MIME_BASE64, "Zm9vY", "foo", true },
		{ MIME_BASE64, "", "", false },
		{ MIME_QP, "a=3Db=\r\nc=\nd", "a=bcd", false },
		{ MIME_QP, "a =  \r\nb", "a b", false },
		{ MIME_QP, "a  \t\r\nb  ", "a\r\nb", false },
		{ MIME_QP, "a=b=zz", "a=b=zz", true },
		{ MIME_QP, "a=", "a", false },
		{ MIME_QP, "a=4", "a=4", true },
		{ MIME_QP, "=e4=C4", "\xe4\xc4", false },
		{ MIME_QP, "==41", "=A", true },
		{ MIME_8BIT, "=41", "=41", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		for (size_t step = 1; step < 30; step++) {
			struct transfer_decoder d;
			struct slice in = slice_str(cases[i].in);
			struct buf out = { 0 };
			char *got;

			transfer_decode_start(&d, cases[i].encoding);
			for (size_t at = 0; at < in.n; at += step)
				transfer_decode(&d, slice_sub(in, at, at + step), &out);
			transfer_decode_end(&d, &out);
			got = slice_dup(buf_slice(&out));
			assert_string_equal(got, cases[i].out);
			assert_int_equal(d.broken, cases[i].broken);
			free(got);
			buf_free(&out);
		}
}

static void
test_header(void **state)
{
	/* The first ones are RFC 2047 section 8's. */
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "=?ISO-8859-1?Q?a?=", "a" },
		{ "=?ISO-8859-1?Q?a?= b", "a b" },
		{ "=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab" },
		{ "=?ISO-8859-1?Q?a?=  \r\n  =?ISO-8859-1?Q?b?=", "ab" },
		{ "=?ISO-8859-1?Q?a_b?=", "a b" },
		{ "=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b" },
		{ "x =?utf-8?b?w6Q=?= y", "x \xc3\xa4 y" },
		{ "=?utf-8?b?ww==?= =?utf-8?b?pA==?=", "\xc3\xa4" },
		{ "=?utf-8*de?q?=C3=A4?=", "\xc3\xa4" },
		{ "=?koi8-r?Q?=C1?=", "\xd0\xb0" },
		{ "=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "\xe6\x97\xa5\xe6\x9c\xac" },
		{ "=?nope?q?a=E4?=", "a\xef\xbf\xbd" },
		{ "=?utf-8?x?a?=", "=?utf-8?x?a?=" },
		{ "=?utf-8?q?a", "=?utf-8?q?a" },
		{ "a\xe4"
		  "b",
		    "a\xef\xbf\xbd"
		    "b" },
		{ "\xc3\xa4", "\xc3\xa4" },
		{ "=?UTF-7?Q?+AOQ-?=", "\xc3\xa4" },
		{ "", "" },
		{ "a=?b", "a=?b" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct buf out = { 0 };
		char *got;

		decode_header(charsets, slice_str(cases[i].in), &out);
		got = slice_dup(buf_slice(&out));
		assert_string_equal(got, cases[i].out);
		free(got);
		buf_free(&out);
	}
}

static void
test_params(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "a; filename=x", "x" },
		{ "a; filename=\"x y\"", "x y" },
		{ "a; filename*=utf-8'en'%c3%a4%20b", "\xc3\xa4 b" },
		{ "a; filename*0*=iso-8859-1''%e4; filename*1=\"b%20\"; filename*2*=%e4",
		    "\xc3\xa4"
		    "b%20\xc3\xa4" },
		{ "a; filename*1=b; filename*0=a", "ab" },
		{ "a; filename=\"=?utf-8?q?=c3=a4?=\"", "\xc3\xa4" },
		{ "a; filename*=x", "x" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct arena arena = { 0 };
		struct mime_param *params;
		struct slice token;
		struct buf out = { 0 };
		char *got;

		assert_true(
		    mime_parse_params(slice_str(cases[i].in), &arena, 128, &token, NULL, &params));
		assert_true(decode_param(charsets, params, "filename", &out));
		assert_false(decode_param(charsets, params, "name", &out));
		got = slice_dup(buf_slice(&out));
		assert_string_equal(got, cases[i].out);
		free(got);
		buf_free(&out);
		arena_free(&arena);
	}
}

static void
test_fold(void **state)
{
	static const struct {
		const char *a, *b;
	} same[] = { { "abcXYZ", "ABCxyz" }, { "\xc3\xa4", "\xc3\x84" }, /* a with diaeresis */
		{ "a\xcc\x88", "\xc3\x84" }, { "\xef\xac\x81", "FI" },   /* the fi ligature */
		{ "\xce\xb1", "\xce\x91" } };

	(void)state;
	for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++) {
		struct buf a = { 0 }, b = { 0 };

		casemap_fold(slice_str(same[i].a), &a);
		casemap_fold(slice_str(same[i].b), &b);
		assert_true(slice_eq(buf_slice(&a), buf_slice(&b)));
		buf_free(&a);
		buf_free(&b);
	}
}

static void
test_charsets(void **state)
{
	struct buf out = { 0 };

	(void)state;
	assert_true(charsets_count(charsets) > 30);
	assert_true(charset_known(charsets, SLICE_LIT("gb2312")));
	assert_false(charset_known(charsets, SLICE_LIT("ISO-2022-CN-EXT")));
	assert_false(charset_known(NULL, SLICE_LIT("gb2312")));
	assert_int_equal(
	    charset_decode(charsets, SLICE_LIT("x"), SLICE_LIT("a\xff"), &out), ERR_NOT_FOUND);
	assert_true(slice_eq_str(buf_slice(&out), "a\xef\xbf\xbd"));
	buf_clear(&out);
	/* Malformed, cut short, and longer than one chunk. */
	assert_int_equal(charset_decode(charsets, SLICE_LIT("big5"),
			     SLICE_LIT("a\xff\xff"
				       "b\xa4"),
			     &out),
	    0);
	assert_true(slice_eq_str(buf_slice(&out), "a\xef\xbf\xbd\xef\xbf\xbd"
						  "b\xef\xbf\xbd"));
	buf_clear(&out);
	/* A last letter that a mark could have followed. */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(charset_decode(charsets, SLICE_LIT("windows-1255"),
				     SLICE_LIT("\xf9\xec\xe5\xe9"), &out),
		    0);
		assert_int_equal(
		    charset_decode(charsets, SLICE_LIT("windows-1258"), SLICE_LIT("na"), &out), 0);
	}
	assert_true(slice_eq_str(buf_slice(&out), "\xd7\xa9\xd7\x9c\xd7\x95\xd7\x99na"
						  "\xd7\xa9\xd7\x9c\xd7\x95\xd7\x99na"));
	buf_clear(&out);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(charset_decode(charsets, SLICE_LIT("latin1"),
				     SLICE_LIT("\xe4\xe4\xe4\xe4\xe4\xe4\xe4\xe4\xe4\xe4"), &out),
		    0);
	assert_int_equal(buf_len(&out), 20000);
	buf_free(&out);
}

static void
test_envelope(void **state)
{
	struct arena arena = { 0 };
	struct envelope e;

	(void)state;
	envelope_read(
	    SLICE_LIT("Date: d\r\nsubject: a\r\n b\r\nFrom: A <a@b>\r\nTo: g: c@d, e@f;\r\n"
		      "Subject: second\r\nMessage-Id: <m>\r\n\r\nCc: x@y\r\n"),
	    &arena, 100, &e);
	assert_true(slice_eq_str(e.date.text, "d"));
	assert_true(slice_eq_str(e.subject.text, "a b"));
	assert_true(slice_eq_str(e.message_id.text, "<m>"));
	assert_false(e.in_reply_to.present);
	assert_int_equal(e.from.count, 1);
	assert_int_equal(e.sender.count, 1);
	assert_int_equal(e.to.count, 4);
	assert_int_equal(e.cc.count, 0);
	arena_free(&arena);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_transfer),
		cmocka_unit_test(test_header), cmocka_unit_test(test_params),
		cmocka_unit_test(test_fold), cmocka_unit_test(test_charsets),
		cmocka_unit_test(test_envelope) };
	int failed;

	charsets = charsets_open();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	charsets_free(&charsets);
	return failed;
}
