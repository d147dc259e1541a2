/* Unit tests of notices: structure, fields, hostile texts, xtext, UTF-8. */
#include "helpers/bounce/compose.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static const struct slice content =
    SLICE_LIT("Received: from a\r\nSubject: hello\r\n\tfolded\r\n\r\nsecret body\r\n");

static struct notice
sample(struct notice_rcpt *r)
{
	*r = (struct notice_rcpt){ .address = SLICE_LIT("u@example.net"),
		.original = SLICE_LIT("list@example.net"),
		.orcpt = SLICE_LIT("rfc822;list+2Bx@example.net"),
		.enhanced = SLICE_LIT("5.1.1"),
		.text = SLICE_LIT("550 5.1.1 no such user"),
		.remote = SLICE_LIT("mx.example.net[192.0.2.1]"),
		.last_attempt = 1764100000 };
	return (struct notice){ .kind = NOTICE_FAILURE,
		.queue_id = SLICE_LIT("0ABC"),
		.sender = SLICE_LIT("s@example.com"),
		.envid = SLICE_LIT("QQ+2B314"),
		.arrival = 1764099000,
		.expires = 1764500000,
		.now = 1764100001,
		.content = content,
		.rcpts = r,
		.n_rcpts = 1,
		.hostname = "mx.example.org",
		.mail_name = "Bulkhead",
		.from = SLICE_LIT("MAILER-DAEMON@example.org"),
		.to = SLICE_LIT("s@example.com"),
		.boundary = "0ABC.0123456789" };
}

static struct buf out;

static unsigned int
compose(const struct notice *n)
{
	buf_clear(&out);
	return notice_compose(n, &out);
}

static bool
has(const char *text)
{
	return slice_search(buf_slice(&out), slice_str(text)) >= 0;
}

/* The header of opaque content is returned as text: nothing of it is a line end that is none. */
static void
test_opaque_header(void **state)
{
	struct notice_rcpt r;
	struct notice n = sample(&r);

	(void)state;
	n.content = SLICE_LIT("X: a\n.\r\nY: \0b\rc\n.\n\r\n\r\nbody\r\n");
	compose(&n);
	assert_true(has("X: a?.\r\nY: ?b?c?.?\r\n"));
	n.content = SLICE_LIT("X: a\r\nY: cut behind this\r");
	compose(&n);
	assert_true(has("Y: cut behind this?\r\n--"));
}

static void
test_failure(void **state)
{
	struct notice_rcpt r;
	struct notice n = sample(&r);
	struct slice s;

	(void)state;
	assert_int_equal(compose(&n), 0);
	assert_true(has("From: Mail Delivery System <MAILER-DAEMON@example.org>\r\n"));
	assert_true(has("To: <s@example.com>\r\n"));
	assert_true(has("Auto-Submitted: auto-replied\r\n"));
	assert_true(has(
	    "multipart/report; report-type=delivery-status;\r\n\tboundary=\"0ABC.0123456789\""));
	assert_true(has("Content-Type: message/delivery-status\r\n"));
	assert_true(has("Reporting-MTA: dns; mx.example.org\r\nOriginal-Envelope-Id: QQ+314\r\n"));
	assert_true(has(
	    "\r\n\r\nOriginal-Recipient: rfc822; list+x@example.net\r\n"
	    "Final-Recipient: rfc822; u@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n"
	    "Remote-MTA: dns; mx.example.net\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n"
	    "Last-Attempt-Date: "));
	assert_true(has("Content-Type: text/rfc822-headers\r\n\r\nReceived: from a\r\nSubject: "
			"hello\r\n\tfolded\r\n\r\n--"));
	assert_false(has("secret body"));
	/* Every line ends with CRLF and is not too long. */
	for (s = buf_slice(&out); s.n;) {
		struct slice line = slice_split(&s, '\n');

		assert_true(line.n && line.p[line.n - 1] == '\r' && line.n < 1000);
		assert_int_equal(slice_find(slice_sub(line, 0, line.n - 1), '\r'), -1);
	}
	n.full = true;
	compose(&n);
	assert_true(has("Content-Type: message/rfc822\r\n\r\nReceived: from a\r\n") &&
		    has("secret body\r\n\r\n--0ABC"));
}

static void
test_kinds(void **state)
{
	struct notice_rcpt r;
	struct notice n = sample(&r);

	(void)state;
	n.kind = NOTICE_DELAY;
	compose(&n);
	assert_true(has("Action: delayed\r\nStatus: 4.1.1\r\n") && has("Will-Retry-Until: "));
	n.kind = NOTICE_SUCCESS;
	r.enhanced = SLICE_LIT("2.0.0");
	compose(&n);
	assert_true(has("Action: relayed\r\nStatus: 2.0.0\r\n") && !has("Diagnostic-Code"));
	r.remote = SLICE_NULL;
	compose(&n);
	assert_true(has("Action: delivered\r\n"));
	r.enhanced = SLICE_NULL;
	n.kind = NOTICE_FAILURE;
	compose(&n);
	assert_true(has("Status: 5.0.0\r\n") && has("Diagnostic-Code: X-Bulkhead; "));
	n.to_postmaster = n.undeliverable = true;
	compose(&n);
	assert_true(has("Subject: Postmaster Notice"));
}

static void
test_hostile(void **state)
{
	struct notice_rcpt r;
	struct notice n = sample(&r);
	static char longtext[5000];

	(void)state;
	r.text = slice("550 a\r\nX-Evil: yes\0\x80", 20);
	r.remote = SLICE_LIT("evil\r\nX: y");
	r.orcpt = SLICE_LIT("rfc822;a+0D+0AX-Evil: yes");
	n.envid = SLICE_LIT("a+0D+0AX-Evil: yes");
	n.content = SLICE_LIT("no header at all");
	compose(&n);
	assert_false(has("\nX-Evil") || has("\nX: y") || has("Original-Recipient") ||
		     has("Original-Envelope-Id"));
	assert_true(has("Diagnostic-Code: smtp; 550 a  X-Evil: yes ?\r\n"));
	memset(longtext, 'x', sizeof(longtext));
	r.text = slice(longtext, sizeof(longtext));
	compose(&n);
	for (struct slice s = buf_slice(&out); s.n;)
		assert_true(slice_split(&s, '\n').n < 1000);
	n.content = SLICE_LIT("\r\nonly a body\r\n");
	compose(&n);
	assert_false(has("only a body"));
}

static void
test_utf8(void **state)
{
	struct notice_rcpt r;
	struct notice n = sample(&r);

	(void)state;
	r.address = SLICE_LIT("b\xc3\xbc@example.net");
	/* A sender that did not use SMTPUTF8 gets ASCII. */
	assert_int_equal(compose(&n), 0);
	assert_true(has("Final-Recipient: utf-8; b\\x{FC}@example.net\r\n"));
	n.utf8 = true;
	n.content = SLICE_LIT("Subject: \xc3\xbc\r\n\r\nx\r\n");
	assert_int_equal(compose(&n), MAIL_8BIT | MAIL_UTF8);
	assert_true(has("Final-Recipient: utf-8; b\xc3\xbc@example.net\r\n"));
	assert_true(has("report-type=global-delivery-status"));
	assert_true(has("message/global-delivery-status") && has("message/global-headers"));
	n.full = true;
	compose(&n);
	assert_true(has("Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n"));
	n.utf8 = false;
	assert_int_equal(compose(&n), MAIL_8BIT);
}

static void
test_xtext(void **state)
{
	struct buf b = { 0 };

	(void)state;
	assert_int_equal(xtext_decode(SLICE_LIT("a+2Bb"), &b), 0);
	assert_true(slice_eq_str(buf_slice(&b), "a+b"));
	assert_int_equal(xtext_decode(SLICE_LIT("a+2"), &b), ERR_SYNTAX);
	assert_int_equal(xtext_decode(SLICE_LIT("a+2g"), &b), ERR_SYNTAX);
	assert_int_equal(xtext_decode(SLICE_LIT("a+00"), &b), ERR_SYNTAX);
	assert_true(slice_eq_str(buf_slice(&b), "a+b"));
	buf_clear(&b);
	utf8_addr_xtext(SLICE_LIT("\xf0\x9f\x98\x80\xff"), &b);
	assert_true(slice_eq_str(buf_slice(&b), "\\x{1F600}\\x{FFFD}"));
	buf_free(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_failure),
		cmocka_unit_test(test_opaque_header),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_xtext),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	buf_free(&out);
	return failed;
}
