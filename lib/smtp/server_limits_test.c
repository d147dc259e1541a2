/* The server engine: every limit at and one past it. */
#include "smtp/server_test_util.h"

/* --- limits --- */

static void
repeat(struct buf *out, const char *text, unsigned n)
{
	while (n--)
		buf_add_str(out, text);
}

/* Feeds text and returns how often what stands in the replies. */
static unsigned
replies_to(const struct smtp_policy *p, struct buf *text, const char *what, bool *closed_r)
{
	struct owner o;
	unsigned n;

	owner_open(&o, p, false);
	for (size_t at = 0; at < buf_len(text); at += 7) {
		feed(&o, slice_sub(buf_slice(text), at, at + 7));
	}
	n = count(&o.out, what);
	if (closed_r)
		*closed_r = smtp_server_state(o.s) == SMTP_CLOSED;
	owner_close(&o);
	return n;
}

/* What became of single recipients of LMTP is no error of the client; a message for nobody is one.
 */
static void
lmtp_failures(void **state)
{
	struct smtp_policy p = base_policy;
	struct owner o;

	(void)state;
	p.service = SMTP_LMTP;
	owner_open(&o, &p, false);
	feed(&o, SLICE_LIT("LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<full@d>\r\nRCPT TO:<full@d>\r\n"
			   "RCPT TO:<full@d>\r\nDATA\r\nX: perrcpt\r\n.\r\n"));
	assert_int_equal(count(&o.out, "452 4.2.2"), 3);
	assert_int_equal(smtp_server_errors(o.s), 1);
	feed(&o, SLICE_LIT("MAIL FROM:<>\r\nRCPT TO:<full@d>\r\nRCPT TO:<a@d>\r\n"
			   "DATA\r\nX: perrcpt\r\n.\r\n"));
	assert_int_equal(count(&o.out, "452 4.2.2"), 4);
	assert_int_equal(smtp_server_errors(o.s), 0);
	owner_close(&o);
}

static void
recipient_limits(void **state)
{
	struct owner o;

	(void)state;
	owner_open(&o, &base_policy, false);
	feed(&o, SLICE_LIT("HELO c\r\nMAIL FROM:<>\r\n"));
	for (int i = 0; i < 3; i++)
		feed(&o, SLICE_LIT("RCPT TO:<a@b>\r\n"));
	assert_int_equal(count(&o.out, "250 2.1.5"), 3);
	for (int i = 0; i < 2; i++)
		feed(&o, SLICE_LIT("RCPT TO:<a@b>\r\n"));
	assert_int_equal(count(&o.out, "452 4.5.3"), 2);
	assert_int_equal(smtp_server_errors(o.s), 0);
	feed(&o, SLICE_LIT("RCPT TO:<a@b>\r\n"));
	assert_int_equal(smtp_server_errors(o.s), 1);
	feed(&o, SLICE_LIT("DATA\r\nA: b\r\n.\r\n"));
	assert_int_equal(count(&o.out, "250 2.0.0"), 1);
	assert_int_equal(smtp_server_errors(o.s), 0);
	owner_close(&o);
}

/* Errors without end, as the local socket allows them, do not fill memory. */
static void
refused_recipients_are_bounded(void **state)
{
	struct smtp_policy policy = base_policy;
	struct buf line = { 0 };
	struct owner o;

	(void)state;
	policy.hard_error_limit = policy.soft_error_limit = 0;
	buf_add_str(&line, "RCPT TO:<");
	for (int i = 0; i < 250; i++)
		buf_add_byte(&line, 'a');
	buf_add_str(&line, "@b> FOO\r\n");
	owner_open(&o, &policy, false);
	feed(&o, SLICE_LIT("EHLO c\r\nMAIL FROM:<>\r\n"));
	for (int i = 0; i < 10000 && !count(&o.out, "452 4.5.3"); i++) {
		buf_clear(&o.out);
		feed(&o, buf_slice(&line));
	}
	assert_int_equal(count(&o.out, "452 4.5.3"), 1);
	assert_true(smtp_server_tx(o.s)->arena.used < 2 << 20);
	feed(&o, SLICE_LIT("RSET\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n"));
	assert_int_equal(count(&o.out, "250 2.1.5"), 1);
	buf_free(&line);
	owner_close(&o);
}

static void
error_limits(void **state)
{
	struct smtp_policy p = base_policy;
	struct owner o;
	struct buf in;
	bool closed;

	(void)state;
	buf_init(&in, 0);
	repeat(&in, "FOO\r\n", 19);
	repeat(&in, "NOOP\r\n", 1);
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", &closed), 1);
	assert_false(closed);
	buf_clear(&in);
	repeat(&in, "FOO\r\n", 20);
	repeat(&in, "NOOP\r\n", 1);
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", &closed), 0);
	assert_true(closed);
	assert_int_equal(replies_to(&p, &in, "500 5.5.2", NULL), 20);
	assert_int_equal(replies_to(&p, &in, "421 4.7.0", NULL), 1);
	/* junk: 100 commands are free, the next 20 are errors */
	buf_clear(&in);
	repeat(&in, "NOOP\r\n", 119);
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", &closed), 119);
	assert_false(closed);
	repeat(&in, "RSET\r\n", 5);
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", &closed), 120);
	assert_true(closed);
	/* delays from the 11th error on */
	p.error_delay_ms = 1000;
	owner_open(&o, &p, false);
	buf_clear(&in);
	repeat(&in, "FOO\r\n", 10);
	feed(&o, buf_slice(&in));
	assert_int_equal(o.delays, 0);
	smtp_server_feed(o.s, SLICE_LIT("FOO\r\nNOOP\r\n"));
	assert_int_equal(o.delays, 1);
	assert_false(smtp_server_wants_input(o.s));
	assert_int_equal(count(smtp_server_output(o.s), "250"), 0);
	settle(&o);
	assert_int_equal(count(&o.out, "250 2.0.0"), 1);
	owner_close(&o);
	buf_free(&in);
}

static void
line_limits(void **state)
{
	struct smtp_policy p = submission_policy();
	struct owner o;
	struct buf in;

	(void)state;
	buf_init(&in, 0);
	buf_add_str(&in, "NOOP ");
	repeat(&in, "x", 512 - 7);
	buf_add_str(&in, "\r\n");
	assert_int_equal(replies_to(&base_policy, &in, "250 2.0.0", NULL), 1);
	buf_clear(&in);
	buf_add_str(&in, "NOOP ");
	repeat(&in, "x", 512 - 6);
	buf_add_str(&in, "\r\nNOOP\r\n");
	assert_int_equal(replies_to(&base_policy, &in, "500 5.5.2 Error: line too long", NULL), 1);
	assert_int_equal(replies_to(&base_policy, &in, "250 2.0.0", NULL), 1);
	/* discarded input ends the session at its limit */
	buf_clear(&in);
	repeat(&in, "x", 100001);
	p.discard_limit = 100000;
	assert_int_equal(replies_to(&p, &in, "421 4.7.0 Error: too much", NULL), 1);
	/* AUTH lines may be longer */
	owner_open(&o, &p, false);
	feed(&o, SLICE_LIT("STARTTLS\r\n"));
	o.pending = NOTHING;
	smtp_server_answer_tls(o.s, true);
	feed(&o, SLICE_LIT("EHLO c\r\n"));
	buf_clear(&o.out);
	buf_clear(&in);
	buf_add_str(&in, "AUTH PLAIN ");
	repeat(&in, "YWFh", (1024 - 13) / 4);
	buf_add_str(&in, "\r\n");
	feed(&o, buf_slice(&in));
	assert_int_equal(count(&o.out, "535"), 1);
	feed(&o, SLICE_LIT("AUTH LOGIN\r\n"));
	buf_clear(&in);
	repeat(&in, "YWFh", 1024 / 4);
	buf_add_str(&in, "\r\nNOOP\r\n");
	feed(&o, buf_slice(&in));
	assert_int_equal(count(&o.out, "500 5.5.6"), 1);
	assert_int_equal(count(&o.out, "250 2.0.0"), 1);
	owner_close(&o);
	buf_free(&in);
}

static void
begin_data(struct buf *in)
{
	buf_clear(in);
	buf_add_str(in, "HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n");
}

static void
content_limits(void **state)
{
	struct smtp_policy p = base_policy;
	struct buf in;
	bool closed;

	(void)state;
	buf_init(&in, 0);
	begin_data(&in);
	buf_add_str(&in, "A: b\r\n\r\n");
	repeat(&in, "x", 1000 - 10);
	buf_add_str(&in, "\r\n.\r\n");
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", NULL), 1);
	begin_data(&in);
	buf_add_str(&in, "A: b\r\n\r\n");
	repeat(&in, "x", 1000 - 9);
	buf_add_str(&in, "\r\n.\r\nDATA\r\n");
	assert_int_equal(replies_to(&p, &in, "552 5.3.4 Error: message is", NULL), 1);
	assert_int_equal(replies_to(&p, &in, "503 5.5.1", NULL), 1);
	repeat(&in, "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 1002 LAST\r\n\r\n", 1);
	repeat(&in, "x", 1000);
	assert_int_equal(replies_to(&p, &in, "552 5.3.4 Error: message is", NULL), 2);
	begin_data(&in);
	repeat(&in, "Received: x\r\n", 3);
	buf_add_str(&in, ".\r\n");
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", NULL), 1);
	begin_data(&in);
	repeat(&in, "Received: x\r\n", 4);
	buf_add_str(&in, ".\r\n");
	assert_int_equal(replies_to(&p, &in, "554 5.4.6", NULL), 1);
	begin_data(&in);
	repeat(&in, "A: x\r\n", 20);
	buf_add_str(&in, ".\r\n");
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", NULL), 1);
	begin_data(&in);
	repeat(&in, "A: x\r\n", 21);
	buf_add_str(&in, ".\r\n");
	assert_int_equal(replies_to(&p, &in, "552 5.3.4 Error: message header", NULL), 1);
	begin_data(&in);
	repeat(&in, "x", 110000);
	assert_int_equal(replies_to(&p, &in, "421 4.7.0 Error: too much", &closed), 1);
	assert_true(closed);
	buf_clear(&in);
	buf_add_str(&in, "HELO c\r\nBDAT 999999999999\r\n");
	repeat(&in, "x", 100001);
	assert_int_equal(replies_to(&p, &in, "421 4.7.0 Error: too much", NULL), 1);
	buf_free(&in);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lmtp_failures),
		cmocka_unit_test(recipient_limits),
		cmocka_unit_test(refused_recipients_are_bounded),
		cmocka_unit_test(error_limits),
		cmocka_unit_test(line_limits),
		cmocka_unit_test(content_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
