#include "mail/header.h"

#include "mail/date.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void
check_next(struct slice *s, enum header_step step, const char *name, const char *body)
{
	struct header_field f;

	assert_int_equal(header_next(s, &f), step);
	if (step != HEADER_FIELD)
		return;
	assert_true(slice_eq_str(f.name, name));
	assert_true(slice_eq_str(f.body, body));
}

static void
iterates(void **state)
{
	struct slice s = SLICE_LIT("From: a\r\nSubject: b\r\n c\r\n\td\r\nX :y\r\nnot a field\r\n"
				   " more\r\nTo:\r\n\r\nbody: z\r\n");
	struct slice lf = SLICE_LIT("A: 1\nB: 2\n 3\n\nbody");
	struct slice cut = SLICE_LIT("A: 1\r\nB: 2");
	struct header_field f;

	(void)state;
	assert_int_equal(header_find(s, "SUBJECT", &f), 0);
	assert_true(slice_eq_str(f.raw, "Subject: b\r\n c\r\n\td\r\n"));
	assert_int_equal(header_find(s, "body", &f), ERR_NOT_FOUND);
	check_next(&s, HEADER_FIELD, "From", " a");
	check_next(&s, HEADER_FIELD, "Subject", " b\r\n c\r\n\td");
	check_next(&s, HEADER_FIELD, "X", "y");
	check_next(&s, HEADER_MALFORMED, NULL, NULL);
	check_next(&s, HEADER_FIELD, "To", "");
	check_next(&s, HEADER_END, NULL, NULL);
	assert_true(slice_eq_str(s, "body: z\r\n"));
	check_next(&lf, HEADER_FIELD, "A", " 1");
	check_next(&lf, HEADER_FIELD, "B", " 2\n 3");
	check_next(&lf, HEADER_END, NULL, NULL);
	assert_true(slice_eq_str(lf, "body"));
	check_next(&cut, HEADER_FIELD, "A", " 1");
	check_next(&cut, HEADER_FIELD, "B", " 2");
	check_next(&cut, HEADER_END, NULL, NULL);
	assert_int_equal(cut.n, 0);
}

static void
writes(void **state)
{
	struct buf out;

	(void)state;
	buf_init(&out, 0);
	header_unfold(SLICE_LIT(" b\r\n c\r\n\td \r\n"), &out);
	assert_true(slice_eq_str(buf_slice(&out), "b c\td"));
	buf_clear(&out);
	header_add(&out, "To", SLICE_LIT("a, b"));
	header_add(&out, "X", SLICE_LIT("evil\r\nBcc: x\0y"));
	assert_true(slice_eq(buf_slice(&out), SLICE_LIT("To: a, b\r\nX: evil  Bcc: x y\r\n")));
	buf_clear(&out);
	header_add(&out, "References",
	    SLICE_LIT("<0123456789012345678901234567890123456789@example.org> "
		      "<0123456789012345678901234567890123456789@example.org> <3@x>"));
	assert_true(slice_eq_str(buf_slice(&out),
	    "References: <0123456789012345678901234567890123456789@example.org>\r\n"
	    " <0123456789012345678901234567890123456789@example.org> <3@x>\r\n"));
	buf_clear(&out);
	header_add_phrase(&out, SLICE_LIT("John Doe"));
	buf_add_byte(&out, '|');
	header_add_phrase(&out, SLICE_LIT("Doe, \"J\""));
	buf_add_byte(&out, '|');
	header_add_phrase(&out, SLICE_LIT("J\xc3\xb6rg"));
	assert_true(
	    slice_eq_str(buf_slice(&out), "John Doe|\"Doe, \\\"J\\\"\"|=?utf-8?B?SsO2cmc=?="));
	buf_free(&out);
}

static void
scan_same(struct slice text, const struct header_scan *limits, struct header_scan *out_r)
{
	struct header_scan whole = *limits, bytes = *limits;

	header_scan_feed(&whole, text);
	header_scan_end(&whole);
	for (size_t i = 0; i < text.n; i++)
		header_scan_feed(&bytes, slice_sub(text, i, i + 1));
	header_scan_end(&bytes);
	assert_int_equal(whole.seen, bytes.seen);
	assert_int_equal(whole.received, bytes.received);
	assert_int_equal(whole.fields, bytes.fields);
	assert_int_equal(!whole.err, !bytes.err);
	assert_int_equal(whole.no_header, bytes.no_header);
	assert_int_equal(whole.non_ascii, bytes.non_ascii);
	if (!whole.err)
		assert_int_equal(whole.bytes, bytes.bytes);
	*out_r = whole;
}

static void
scans(void **state)
{
	struct header_scan none = { 0 }, h;

	(void)state;
	scan_same(SLICE_LIT("Received: a\r\n b\r\nRECEIVED : c\r\nReceived-SPF: x\r\nDate: d\r\n"
			    "Message-Id:\r\n\r\nFrom: body\r\n"),
	    &none, &h);
	assert_int_equal(h.received, 2);
	assert_int_equal(h.seen, HEADER_DATE | HEADER_MESSAGE_ID);
	assert_int_equal(h.fields, 5);
	assert_int_equal(h.bytes, 72);
	assert_false(h.no_header);
	/* obs-received: blanks before the colon, as many as there are, hide no hop */
	scan_same(SLICE_LIT("Received                                         : a\r\n"
			    "Received-and-more-than-32-octets-of-it: b\r\n\r\n"),
	    &none, &h);
	assert_int_equal(h.received, 1);
	assert_int_equal(h.fields, 2);
	scan_same(SLICE_LIT("hello world\r\nFrom: a\r\n"), &none, &h);
	assert_true(h.no_header);
	assert_int_equal(h.seen, 0);
	scan_same(SLICE_LIT("hello world: x\r\nFrom: a\r\n"), &none, &h);
	assert_true(h.no_header);
	scan_same(SLICE_LIT("From: a\r\nhello\r\nDate: b\r\n"), &none, &h);
	assert_false(h.no_header);
	assert_int_equal(h.seen, HEADER_FROM);
	scan_same(SLICE_LIT("\r\nFrom: a\r\n"), &none, &h);
	assert_false(h.no_header);
	assert_int_equal(h.seen, 0);
	scan_same(SLICE_LIT(" folded\r\nFrom: a\r\n"), &none, &h);
	assert_true(h.no_header);
	scan_same(SLICE_LIT("From: m\xc3\xbc\r\n\r\n"), &none, &h);
	assert_true(h.non_ascii);
	scan_same(SLICE_LIT("From: a\r\n\r\nm\xc3\xbc"), &none, &h);
	assert_false(h.non_ascii);
	scan_same(SLICE_LIT("hello"), &none, &h);
	assert_true(h.no_header);
	scan_same(SLICE_LIT(""), &none, &h);
	assert_false(h.no_header);
}

static void
scan_limits(void **state)
{
	struct header_scan limits = { .count_limit = 2 }, h;

	(void)state;
	scan_same(SLICE_LIT("A: a\r\nB: b\r\n\r\nx"), &limits, &h);
	assert_int_equal(h.err, 0);
	scan_same(SLICE_LIT("A: a\r\nB: b\r\nC: c\r\n\r\nx"), &limits, &h);
	assert_int_equal(h.err, ERR_LIMIT);
	limits = (struct header_scan){ .field_limit = 9 };
	scan_same(SLICE_LIT("A: 1234\r\nA: 1\r\n 3\r\n\r\n"), &limits, &h);
	assert_int_equal(h.err, ERR_LIMIT);
	scan_same(SLICE_LIT("A: 1234\r\n\r\nbody is free"), &limits, &h);
	assert_int_equal(h.err, 0);
	scan_same(SLICE_LIT("A: 12345\r\n\r\n"), &limits, &h);
	assert_int_equal(h.err, ERR_LIMIT);
	limits = (struct header_scan){ .section_limit = 14 };
	scan_same(SLICE_LIT("A: a\r\nB: b\r\n\r\nx"), &limits, &h);
	assert_int_equal(h.err, 0);
	scan_same(SLICE_LIT("A: a\r\nB: bb\r\n\r\nx"), &limits, &h);
	assert_int_equal(h.err, ERR_LIMIT);
}

static void
check_date(const char *text, int64_t expected, int zone)
{
	int64_t t;
	int z, err = date_parse(slice_str(text), &t, &z);

	if (err || t != expected || z != zone)
		fail_msg("%s: %s %lld %d", text, err_str(err), (long long)t, z);
}

static void
check_bad_date(const char *text)
{
	int64_t t;

	if (!date_parse(slice_str(text), &t, NULL))
		fail_msg("%s is taken", text);
}

static void
dates(void **state)
{
	char text[DATE_BUF_SIZE];
	int y, m, d;

	(void)state;
	check_date("Fri, 21 Nov 1997 09:55:06 -0600", 880127706, -360);
	check_date("21 Nov 97 09:55:06 GMT", 880106106, 0);
	check_date("Thu,\r\n\t13\r\n\tFeb\r\n\t1969\r\n\t23:32\r\n\t-0330 (Newfoundland Time)",
	    -27723480, -210);
	check_date("Sun, 13 Feb 2011 23:32 -0330 (Newfoundland (x) Time)", 1297652520, -210);
	check_date("Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", 880127706, -360);
	check_date("1 Jan 1970 00:00:00 +0000", 0, 0);
	check_date("29 Feb 2000 12:00:00 EST", 951843600, -300);
	check_date("31 Dec 49 23:59:60 Q", 2524608000, 0);
	check_date("1 jan 100 0:0:0 Z", 946684800, 0);
	check_date("01-Jan-2000 00:00:00 +0100", 946681200, 60);
	check_bad_date("");
	check_bad_date("Fri");
	check_bad_date("32 Jan 2000 00:00:00 +0000");
	check_bad_date("1 Foo 2000 00:00:00 +0000");
	check_bad_date("1 Jan 2000 24:00:00 +0000");
	check_bad_date("1 Jan 2000");
	date_format(880127706, -360, text);
	assert_string_equal(text, "Fri, 21 Nov 1997 09:55:06 -0600");
	date_format(0, 0, text);
	assert_string_equal(text, "Thu, 1 Jan 1970 00:00:00 +0000");
	date_format(-1, 90, text);
	assert_string_equal(text, "Thu, 1 Jan 1970 01:29:59 +0130");
	for (int64_t n = -200000; n < 200000; n += 13) {
		date_civil(n, &y, &m, &d);
		assert_int_equal(date_days(y, m, d), n);
		assert_in_range(m, 1, 12);
		assert_in_range(d, 1, 31);
	}
	for (int64_t t = 0; t < 4102444800; t += 86413 * 7) {
		date_format(t, (int)(t % 27 - 13) * 60, text);
		check_date(text, t, (int)(t % 27 - 13) * 60);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iterates),
		cmocka_unit_test(writes),
		cmocka_unit_test(scans),
		cmocka_unit_test(scan_limits),
		cmocka_unit_test(dates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
