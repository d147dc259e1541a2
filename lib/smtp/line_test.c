#include "smtp/line.h"

#include "base/buf.h"
#include "smtp/params.h"
#include "smtp/reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* Reads all of text in feeds of n octets and writes the reports as one string. */
static void
read_lines(struct slice text, size_t limit, size_t n, struct buf *log)
{
	struct line_reader r = { .limit = limit };
	struct buf in;

	buf_init(&in, 0);
	buf_clear(log);
	for (size_t at = 0; at < text.n; at += n) {
		enum line_status status;
		buf_add(&in, slice_sub(text, at, at + n));
		do {
			struct slice line;
			size_t used;
			status = line_read(&r, buf_slice(&in), &line, &used);
			assert_true(used <= buf_len(&in));
			if (status == LINE_OK)
				buf_addf(log, "[%.*s]", SLICE_ARG(line));
			else if (status != LINE_MORE)
				buf_add_str(log, status == LINE_BARE_LF   ? "LF"
						 : status == LINE_BARE_CR ? "CR"
									  : "LONG");
			buf_consume(&in, used);
		} while (status != LINE_MORE);
	}
	buf_free(&in);
}

static void
check_lines(struct slice text, size_t limit, const char *expected)
{
	struct buf log;

	buf_init(&log, 0);
	for (size_t n = 1; n <= text.n; n++) {
		read_lines(text, limit, n, &log);
		if (!slice_eq_str(buf_slice(&log), expected))
			fail_msg("in feeds of %zu: %.*s", n, (int)buf_len(&log),
			    (const char *)buf_slice(&log).p);
	}
	buf_free(&log);
}

static void
lines(void **state)
{
	(void)state;
	check_lines(SLICE_LIT("a\r\n\r\nbc\r\nrest"), 100, "[a][][bc]");
	check_lines(SLICE_LIT("a\nb\r\nc\r\n"), 100, "LF[c]");
	check_lines(SLICE_LIT("a\rb\r\nc\r\n"), 100, "CR[c]");
	check_lines(SLICE_LIT("a\r\r\nc\r\n"), 100, "CR[c]");
	check_lines(SLICE_LIT("\n.\n\r\nc\r\n"), 100, "LF[c]");
	check_lines(SLICE_LIT("a\n\n\n\r\r\nc\r\n"), 100, "LF[c]");
	check_lines(SLICE_LIT("a\nb\nc"), 100, "LF");
	check_lines(SLICE_LIT("12345\r\nc\r\n"), 7, "[12345][c]");
	check_lines(SLICE_LIT("123456\r\nc\r\n"), 7, "LONG[c]");
	check_lines(SLICE_LIT("1234567890\nx\r\nc\r\n"), 7, "LONG[c]");
	check_lines(SLICE_LIT("12345\n\r\nc\r\n"), 7, "LF[c]");
	check_lines(SLICE_LIT("123456\n\r\nc\r\n"), 7, "LONG[c]");
	check_lines(SLICE_LIT("a\0b\r\n"), 100, "[a]"); /* %.*s stops at the NUL; it is data */
}

static void
read_content(struct slice text, bool dots, bool mend, size_t n, struct buf *log)
{
	struct content_reader r = { .dots = dots, .mend_lf = mend };
	size_t before_end = 0;

	buf_clear(log);
	for (size_t at = 0; at < text.n; at += n) {
		struct slice in = slice_sub(text, at, at + n);
		while (in.n) {
			struct slice run;
			bool end;
			size_t used = content_read(&r, in, &run, &end);
			assert_true(used > 0 && used <= in.n);
			buf_add(log, run);
			in = slice_sub(in, used, in.n);
			if (end) {
				before_end = buf_len(log);
				buf_add_str(log, "|END|");
				buf_add(log, in);
				buf_add(log, slice_sub(text, at + n, text.n));
				at = text.n;
				break;
			}
		}
	}
	/* spoilt content is thrown away: how much of it was passed depends on the cuts */
	if (r.bare_lf || r.bare_cr)
		buf_consume(log, before_end);
	if (r.bare_lf)
		buf_add_str(log, "|LF|");
	if (r.bare_cr)
		buf_add_str(log, "|CR|");
}

static void
check_content_as(struct slice text, bool dots, bool mend, const char *expected)
{
	struct buf log;

	buf_init(&log, 0);
	for (size_t n = 1; n <= text.n; n++) {
		read_content(text, dots, mend, n, &log);
		if (!slice_eq_str(buf_slice(&log), expected))
			fail_msg("in feeds of %zu: %.*s", n, (int)buf_len(&log),
			    (const char *)buf_slice(&log).p);
	}
	buf_free(&log);
}

static void
check_content(struct slice text, bool dots, const char *expected)
{
	check_content_as(text, dots, false, expected);
}

static bool
ends_as(struct slice text, bool mend)
{
	struct buf log;
	bool found;

	buf_init(&log, 0);
	read_content(text, true, mend, text.n, &log);
	found = slice_search(buf_slice(&log), SLICE_LIT("|END|")) >= 0;
	buf_free(&log);
	return found;
}

static void
content(void **state)
{
	(void)state;
	check_content(SLICE_LIT("a\r\n.\r\nQUIT\r\n"), true, "a\r\n|END|QUIT\r\n");
	check_content(SLICE_LIT(".\r\n"), true, "|END|");
	check_content(SLICE_LIT("..\r\n..a\r\n.b\r\n.\r\n"), true, ".\r\n.a\r\nb\r\n|END|");
	check_content(SLICE_LIT("a.\r\n.\r\n"), true, "a.\r\n|END|");
	check_content(SLICE_LIT("\r\n.\r\n"), true, "\r\n|END|");
	check_content(SLICE_LIT("a\r\n.\r\n"), false, "a\r\n.\r\n");
	check_content(SLICE_LIT("..a\r\n"), false, "..a\r\n");
	check_content(SLICE_LIT("no end"), true, "no end");
}

/* Every end of data that some server was seen to take but ours must not. */
static void
smuggling(void **state)
{
	static const char *const bad[] = { "a\n.\n", "a\n.\r\n", "a\r\n.\n", "a\r.\r", "a\r.\r\n",
		"a\r\n.\r", "a\n.\r", "a\r\n\r.\r\n", "a\r\n.\r\r\n", "a\r\r\n.\r", "a\n\n.\r\n",
		"a\r\n.a\r\n", "a\r\n. \r\n", "a\r\n.\t\r\n", "a\r.\n" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (ends_as(slice_str(bad[i]), false) || ends_as(slice_str(bad[i]), true))
			fail_msg("case %zu ends the data", i);
	check_content(SLICE_LIT("a\nb\r\n.\r\nX"), true, "|END|X|LF|");
	check_content(SLICE_LIT("a\rb\r\n.\r\nX"), true, "|END|X|CR|");
	check_content(SLICE_LIT("\n.\r\n\r\n.\r\nX"), true, "|END|X|LF|");
	assert_true(ends_as(SLICE_LIT("a\0\r\n.\r\n"), false));
	assert_false(ends_as(SLICE_LIT("a\r\n\0.\r\n"), false));
	assert_false(ends_as(SLICE_LIT("a\r\n.\0\r\n"), false));
}

/* smtpd_forbid_bare_newline = no: what comes out has CRLF only, and a dot behind a mended line end
 * neither ends the data nor is unstuffed: it is stuffed when it is sent on. */
static void
mending(void **state)
{
	(void)state;
	check_content_as(SLICE_LIT("a\nb\r\n.\r\nX"), true, true, "a\r\nb\r\n|END|X");
	check_content_as(SLICE_LIT("\n\n\r\n.\r\nX"), true, true, "\r\n\r\n\r\n|END|X");
	check_content_as(SLICE_LIT("a\n.\nMAIL\r\n.\r\nX"), true, true, "a\r\n.\r\nMAIL\r\n|END|X");
	check_content_as(SLICE_LIT("a\n.\r\nb\r\n.\r\nX"), true, true, "a\r\n.\r\nb\r\n|END|X");
	check_content_as(SLICE_LIT("a\r\n.\nb\r\n.\r\nX"), true, true, "a\r\n\r\nb\r\n|END|X");
	check_content_as(SLICE_LIT("a\n..b\r\n.\r\nX"), true, true, "a\r\n..b\r\n|END|X");
	check_content_as(SLICE_LIT("a\nb\n"), false, true, "a\r\nb\r\n");
	check_content_as(SLICE_LIT("a\rb\r\n.\r\nX"), true, true, "|END|X|CR|");
	check_content_as(SLICE_LIT("a\r\r\n.\r\n"), true, true, "|END||CR|");
}

static void
check_reply(struct reply r, bool enhanced, const char *expected)
{
	struct buf out;

	buf_init(&out, 0);
	reply_format(&out, &r, enhanced);
	if (!slice_eq_str(buf_slice(&out), expected))
		fail_msg("%.*s", (int)buf_len(&out), (const char *)buf_slice(&out).p);
	buf_free(&out);
}

static void
replies(void **state)
{
	char text[1000];
	struct buf out;

	(void)state;
	check_reply(REPLY(250, "2.0.0", "Ok"), true, "250 2.0.0 Ok\r\n");
	check_reply(REPLY(250, "2.0.0", "Ok"), false, "250 Ok\r\n");
	check_reply(REPLY(250, "", "Ok"), true, "250 Ok\r\n");
	check_reply(REPLY(354, "2.0.0", "go"), true, "354 go\r\n");
	check_reply(REPLY(550, "4.1.1", "no"), true, "550 5.0.0 no\r\n");
	check_reply(REPLY(550, "junk\r\n", "no"), true, "550 5.0.0 no\r\n");
	check_reply(
	    REPLY(250, "2.0.0", "a\nb\n"), true, "250-2.0.0 a\r\n250-2.0.0 b\r\n250 2.0.0 \r\n");
	check_reply(REPLY(550, "5.1.1", "a\r\0\x80z"), true, "550 5.1.1 a???z\r\n");
	memset(text, 'x', sizeof(text));
	buf_init(&out, 0);
	reply_format(&out,
	    &(struct reply){
		.code = 250, .enhanced = SLICE_LIT("2.0.0"), .text = slice(text, sizeof(text)) },
	    true);
	assert_int_equal(buf_len(&out), REPLY_LINE_MAX);
	buf_free(&out);
}

static void
reads_replies(void **state)
{
	struct reply_reader r = { .line_limit = 3 };
	struct reply out;

	(void)state;
	assert_int_equal(reply_read(&r, SLICE_LIT("250 2.1.5 Ok"), &out), 1);
	assert_int_equal(out.code, 250);
	assert_true(slice_eq_str(out.enhanced, "2.1.5"));
	assert_true(slice_eq_str(out.text, "Ok"));
	assert_int_equal(reply_read(&r, SLICE_LIT("550-5.7.1 a"), &out), 0);
	assert_int_equal(reply_read(&r, SLICE_LIT("550-5.7.1"), &out), 0);
	assert_int_equal(reply_read(&r, SLICE_LIT("550 5.7.1 b"), &out), 1);
	assert_true(slice_eq_str(out.enhanced, "5.7.1"));
	assert_true(slice_eq_str(out.text, "a\n\nb"));
	assert_int_equal(reply_read(&r, SLICE_LIT("250"), &out), 1);
	assert_int_equal(out.text.n, 0);
	assert_int_equal(out.enhanced.n, 0);
	assert_int_equal(reply_read(&r, SLICE_LIT("550 2.0.0 liar"), &out), 1);
	assert_int_equal(out.enhanced.n, 0);
	assert_true(slice_eq_str(out.text, "2.0.0 liar"));
	assert_int_equal(reply_read(&r, SLICE_LIT("25"), &out), ERR_SYNTAX);
	assert_int_equal(reply_read(&r, SLICE_LIT("xyz hello"), &out), ERR_SYNTAX);
	assert_int_equal(reply_read(&r, SLICE_LIT("199 x"), &out), ERR_SYNTAX);
	assert_int_equal(reply_read(&r, SLICE_LIT("600 x"), &out), ERR_SYNTAX);
	assert_int_equal(reply_read(&r, SLICE_LIT("250x"), &out), ERR_SYNTAX);
	assert_int_equal(reply_read(&r, SLICE_LIT("250-a"), &out), 0);
	assert_int_equal(reply_read(&r, SLICE_LIT("251 a"), &out), ERR_SYNTAX);
	reply_reader_free(&r);
	r = (struct reply_reader){ .line_limit = 2 };
	assert_int_equal(reply_read(&r, SLICE_LIT("250-a"), &out), 0);
	assert_int_equal(reply_read(&r, SLICE_LIT("250-a"), &out), 0);
	assert_int_equal(reply_read(&r, SLICE_LIT("250 a"), &out), ERR_LIMIT);
	reply_reader_free(&r);
}

static void
xtext(void **state)
{
	struct buf out;
	unsigned notify;

	(void)state;
	buf_init(&out, 0);
	xtext_encode(&out, SLICE_LIT("a+b=c d\x7f"));
	assert_true(slice_eq_str(buf_slice(&out), "a+2Bb+3Dc+20d+7F"));
	assert_false(xtext_valid(buf_slice(&out))); /* DEL is not printable */
	buf_clear(&out);
	assert_int_equal(xtext_decode(&out, SLICE_LIT("a+2Bb")), 0);
	assert_true(slice_eq_str(buf_slice(&out), "a+b"));
	assert_int_equal(xtext_decode(&out, SLICE_LIT("a+2b")), ERR_SYNTAX);
	assert_int_equal(xtext_decode(&out, SLICE_LIT("a+2")), ERR_SYNTAX);
	assert_int_equal(xtext_decode(&out, SLICE_LIT("a=")), ERR_SYNTAX);
	assert_int_equal(buf_len(&out), 3);
	assert_true(xtext_valid(SLICE_LIT("a+20b")));
	assert_false(xtext_valid(SLICE_LIT("a+0Ab")));
	assert_true(dsn_orcpt_valid(SLICE_LIT("rfc822;a+2Bb@c")));
	assert_false(dsn_orcpt_valid(SLICE_LIT("rfc822;")));
	assert_false(dsn_orcpt_valid(SLICE_LIT(";a@b")));
	assert_false(dsn_orcpt_valid(SLICE_LIT("a@b")));
	assert_true(dsn_orcpt_valid(SLICE_LIT("utf-8;m\xc3\xbc@b")));
	assert_int_equal(dsn_notify_parse(SLICE_LIT("never"), &notify), 0);
	assert_int_equal(notify, DSN_NOTIFY_NEVER);
	assert_int_equal(dsn_notify_parse(SLICE_LIT("SUCCESS,delay"), &notify), 0);
	buf_clear(&out);
	dsn_notify_format(&out, notify);
	assert_true(slice_eq_str(buf_slice(&out), "SUCCESS,DELAY"));
	assert_int_equal(dsn_notify_parse(SLICE_LIT("NEVER,DELAY"), &notify), ERR_SYNTAX);
	assert_int_equal(dsn_notify_parse(SLICE_LIT(""), &notify), ERR_SYNTAX);
	assert_int_equal(dsn_notify_parse(SLICE_LIT("SUCCESS,"), &notify), ERR_SYNTAX);
	assert_int_equal(dsn_notify_parse(SLICE_LIT("SUCCESS,,DELAY"), &notify), ERR_SYNTAX);
	buf_free(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines),
		cmocka_unit_test(content),
		cmocka_unit_test(smuggling),
		cmocka_unit_test(mending),
		cmocka_unit_test(replies),
		cmocka_unit_test(reads_replies),
		cmocka_unit_test(xtext),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
