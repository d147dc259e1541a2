/* Unit tests of the client engine: what a server offers, TLS and logins, and how a reply and a
 * content are read and written. */
#include "smtp/client_test_util.h"

static void
test_starttls(void **state)
{
	(void)state;
	RUN({ .tls = true }, GREETED, "S:250-x", "S:250-PIPELINING", "S:250 STARTTLS", "C:STARTTLS",
	    "S:220 go", "E:tls", ">tls", "C:EHLO me.test", "S:250-x", "S:250 STARTTLS", "E:ready",
	    ">send 0", "C:MAIL FROM:<s@y.test>", ">eof", "E:failed lost MAIL FROM");
	RUN({ .tls = true }, GREETED, "S:250-x", "S:250 STARTTLS", "C:STARTTLS", "S:454 4.7.0 no",
	    "E:ready");
	RUN({ .tls = true }, GREETED, "S:250 x", "E:ready");
	RUN({ .tls_required = true }, GREETED, "S:250 x", "E:failed no-tls EHLO 250  [x]");
	RUN({ .tls_required = true }, GREETED, "S:500 x", "C:HELO me.test", "S:250 x",
	    "E:failed no-tls HELO 250  [x]");
	RUN({ .tls_required = true }, GREETED, "S:250-x", "S:250 STARTTLS", "C:STARTTLS",
	    "S:454 4.7.0 no", "E:failed no-tls STARTTLS 454 4.7.0 [no]");
	/* an old server under TLS is no reason to go back */
	RUN({ .tls = true }, GREETED, "S:250-x", "S:250 STARTTLS", "C:STARTTLS", "S:220 go",
	    "E:tls", ">tls", "C:EHLO me.test", "S:502 no", "E:failed reply EHLO 502  [no]");
}

/* A reply that stands behind the answer to STARTTLS, at every cut. */
static void
test_injection(void **state)
{
	static const struct client_opts opts = { .helo = "me", .tls = true };
	struct slice s = SLICE_LIT("220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n250 x\r\n");

	(void)state;
	for (size_t cut = 0; cut <= s.n; cut++) {
		struct dialogue d = { .c = client_new(&opts) };

		client_feed(d.c, slice_sub(s, 0, cut));
		poll_events(&d);
		client_feed(d.c, slice_sub(s, cut, s.n));
		poll_events(&d);
		/* all at once, it already stands behind the answer to EHLO */
		assert_true(slice_has_suffix(buf_slice(&d.events), "failed protocol STARTTLS\n") ||
			    slice_has_suffix(buf_slice(&d.events), "failed protocol EHLO\n"));
		buf_free(&d.events);
		client_free(&d.c);
	}
}

/* A reply ahead of its command would be taken for that to MAIL. */
static void
test_reply_ahead(void **state)
{
	static const struct client_opts opts = { .helo = "me" };
	struct dialogue d = { .c = client_new(&opts) };

	(void)state;
	client_feed(d.c, SLICE_LIT("220 x\r\n"));
	poll_events(&d);
	client_feed(d.c, SLICE_LIT("250 x\r\n250 ahead\r\n"));
	poll_events(&d);
	assert_true(slice_has_suffix(buf_slice(&d.events), "failed protocol EHLO\n"));
	buf_free(&d.events);
	client_free(&d.c);
}

#define AUTH_OFFERED                                                                               \
	GREETED, "S:250-x", "S:250-AUTH=LOGIN", "S:250 AUTH plain LOGIN bad/mech",                 \
	    "E:mechanisms LOGIN PLAIN LOGIN"

static void
test_auth(void **state)
{
	(void)state;
	RUN({ .auth = true }, AUTH_OFFERED, ">plain", "C:AUTH PLAIN AHUAcA==", "S:235 2.7.0 ok",
	    "E:ready");
	RUN({ .auth = true }, AUTH_OFFERED, ">plain", "C:AUTH PLAIN AHUAcA==", "S:535 5.7.8 no",
	    "E:failed auth AUTH 535 5.7.8 [no]");
	RUN({ .auth = true }, AUTH_OFFERED, ">login", "C:AUTH LOGIN", "S:334 VXNlcm5hbWU6",
	    "E:challenge Username:", ">answer", "C:YW5zd2Vy", "S:334 ", "E:challenge ", ">cancel",
	    "C:*", "S:501 5.7.0 ok", "E:failed auth AUTH 501 5.7.0 [ok]");
	RUN({ .auth = true }, AUTH_OFFERED, ">login", "C:AUTH LOGIN", "S:334 !!", "C:*", "S:501 x",
	    "E:failed auth AUTH 501  [x]");
	RUN({ .auth = true }, AUTH_OFFERED, ">cancel", "E:failed auth EHLO");
	RUN({ .auth = true }, AUTH_OFFERED, ">empty", "C:AUTH EXTERNAL =", "S:235 ok", "E:ready");
	RUN({ .auth = true }, AUTH_OFFERED, ">long", "C:AUTH PLAIN", ">eof", "E:failed lost AUTH");
	RUN({ .auth = true }, GREETED, "S:250 x", "E:mechanisms ", ">skip", "E:ready");
	RUN(AUTH_AND_TLS, GREETED, "S:250-x", "S:250 AUTH PLAIN",
	    "E:failed no-tls EHLO 250  [x/AUTH PLAIN]");
}

static void
test_extensions(void **state)
{
	(void)state;
	RUN(NONE, PIPELINED, ">send 2", "C:MAIL FROM:<> SIZE=12 BODY=8BITMIME RET=HDRS ENVID=id1",
	    "C:RCPT TO:<a@x.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;A+40x.test",
	    "C:RCPT TO:<b@x.test> NOTIFY=NEVER", "C:DATA", ">eof", "E:failed lost MAIL FROM");
	RUN(NONE, GREETED, "S:250-x", "S:250 8BITMIME", "E:ready", ">send 2",
	    "C:MAIL FROM:<> BODY=8BITMIME", "S:250 ok", "C:RCPT TO:<a@x.test>", ">eof",
	    "E:failed lost RCPT TO");
	RUN(NONE, GREETED, "S:250-x", "S:250 SIZE 11", "E:ready", ">send 0",
	    "E:result 0 local MAIL FROM 552 5.3.4 [message of 12 bytes exceeds the server's size "
	    "limit of 11 bytes]",
	    "E:done", ">quit", "C:QUIT", "S:221 x", "E:closed");
	RUN(NONE, GREETED, "S:250-x", "S:250 SIZE 12", "E:ready", ">send 0",
	    "C:MAIL FROM:<s@y.test> SIZE=12");
	RUN(NONE, GREETED, "S:250-x", "S:250 SIZE 0", "E:ready", ">send 0",
	    "C:MAIL FROM:<s@y.test> SIZE=12");
	RUN(NONE, GREETED, "S:250 x", "E:ready", ">send 2",
	    "E:result 0 local MAIL FROM 554 5.6.3 [message has 8-bit content, and the server does "
	    "not offer 8BITMIME]",
	    "E:result 1 local MAIL FROM 554 5.6.3 [message has 8-bit content, and the server does "
	    "not offer 8BITMIME]",
	    "E:done");
	RUN(NONE, GREETED, "S:250-x", "S:250 SMTPUTF8", "E:ready", ">send 6",
	    "C:MAIL FROM:<> SMTPUTF8");
	RUN(NONE, GREETED, "S:250 x", "E:ready", ">send 6",
	    "E:result 0 local MAIL FROM 553 5.6.7 [message or addresses need SMTPUTF8, which the "
	    "server does not "
	    "offer]",
	    "E:done");
	RUN(NONE, PIPELINED, ">send 4",
	    "E:result 0 local RCPT TO 553 5.6.7 [recipient address needs SMTPUTF8, which the "
	    "server does not offer]",
	    "C:MAIL FROM:<> SIZE=12", "C:RCPT TO:<a@x.test>", "C:DATA");
}

static void
test_binary(void **state)
{
	(void)state;
	RUN(NONE, GREETED, "S:250-x", "S:250-PIPELINING", "S:250-CHUNKING", "S:250 BINARYMIME",
	    "E:ready", ">send 5", "C:MAIL FROM:<> BODY=BINARYMIME", "C:RCPT TO:<a@x.test>",
	    "S:250 ok", "S:250 ok", "E:content", "C:BDAT 11 LAST", "C:a", "C:.b", "C:..",
	    "S:250 ok", "E:result 0 end of DATA 250  [ok]", "E:done");
	RUN(NONE, GREETED, "S:250-x", "S:250-PIPELINING", "S:250-CHUNKING", "S:250 BINARYMIME",
	    "E:ready", ">send 5", "C:MAIL FROM:<> BODY=BINARYMIME", "C:RCPT TO:<a@x.test>",
	    "S:250 ok", "S:550 no", "E:result 0 RCPT TO 550  [no]", "E:done", ">send 0", "C:RSET",
	    "C:MAIL FROM:<s@y.test>", "C:RCPT TO:<a@x.test>", "C:DATA");
	RUN(NONE, GREETED, "S:250-x", "S:250 BINARYMIME", "E:ready", ">send 5",
	    "E:result 0 local MAIL FROM 554 5.6.3 [message is BODY=BINARYMIME, which the server "
	    "does not offer]",
	    "E:done");
}

static void
test_hostile_addresses(void **state)
{
	(void)state;
#define BAD " local RCPT TO 553 5.1.3 [recipient address cannot be sent over SMTP]"
	RUN(NONE, GREETED, "S:250-x", "S:250 PIPELINING", "E:ready", ">send 3", "E:result 0" BAD,
	    "E:result 1" BAD, "E:result 3" BAD, "E:result 4" BAD, "E:result 5" BAD,
	    "C:MAIL FROM:<>", "C:RCPT TO:<\"a > b\"@x.test>", "C:DATA");
	RUN(NONE, PIPELINED, ">send 7",
	    "E:result 0 local MAIL FROM 553 5.1.7 [sender address cannot be sent over SMTP]",
	    "E:done");
}

static void
check_content(const char *in, size_t n, const char *want)
{
	static const struct client_opts opts = { .helo = "me" };

	for (size_t piece = 1; piece <= n + 1; piece++) {
		struct client *c = client_new(&opts);
		struct client_event ev;

		client_feed(c, SLICE_LIT("220 x\r\n250 x\r\n"));
		while (client_next(c, &ev) != CLIENT_NOTHING)
			;
		assert_int_equal(client_send(c, &messages[0]), 0);
		client_feed(c, SLICE_LIT("250 x\r\n250 x\r\n354 x\r\n"));
		while (client_next(c, &ev) != CLIENT_CONTENT)
			;
		buf_clear(client_output(c));
		for (size_t i = 0; i < n; i += piece)
			client_content(c, slice_sub(slice(in, n), i, i + piece));
		client_content_end(c);
		if (!slice_eq_str(buf_slice(client_output(c)), want))
			fail_msg("piece %zu: got %.*s, want %s", piece,
			    SLICE_ARG(buf_slice(client_output(c))), want);
		client_free(&c);
	}
}

static void
test_content(void **state)
{
	(void)state;
#define CHECK(in, want) check_content(in, sizeof(in) - 1, want)
	CHECK("", ".\r\n");
	CHECK("a\r\n", "a\r\n.\r\n");
	CHECK("a", "a\r\n.\r\n");
	CHECK(".", "..\r\n.\r\n");
	CHECK(".\r\n.\r\n", "..\r\n..\r\n.\r\n");
	CHECK("a.\r\n..b\r\n", "a.\r\n...b\r\n.\r\n");
	CHECK("\r\n.\r\n", "\r\n..\r\n.\r\n");
	/* smuggling: nothing but CRLF ends a line, whatever the content holds */
	CHECK("a\n.\n", "a\r\n..\r\n.\r\n");
	CHECK("a\n.\r\nb", "a\r\n..\r\nb\r\n.\r\n");
	CHECK("a\r.\r\n", "a .\r\n.\r\n");
	CHECK("a\r\n.\r", "a\r\n.. \r\n.\r\n");
	CHECK("a\r\r\n.\r\n", "a \r\n..\r\n.\r\n");
	CHECK("\r", " \r\n.\r\n");
	CHECK("\r\r\n\n\r", " \r\n\r\n \r\n.\r\n");
}

static int
read_reply(struct slice in, struct client_reply *reply)
{
	static struct client_reply_reader r;

	client_reply_free(&r);
	return client_reply_read(&r, &in, reply);
}

static void
test_reply(void **state)
{
	struct client_reply r;
	struct buf b = { 0 };

	(void)state;
	assert_int_equal(read_reply(SLICE_LIT("250\r\n"), &r), 1);
	assert_int_equal(r.code, 250);
	assert_int_equal(r.text.n, 0);
	assert_int_equal(read_reply(SLICE_LIT("550 5.1.1\n"), &r), 1);
	assert_string_equal(r.enhanced, "5.1.1");
	assert_int_equal(read_reply(SLICE_LIT("550 5.7.509 a\tb\0c\x1b\r\n"), &r), 1);
	assert_string_equal(r.enhanced, "5.7.509");
	assert_true(slice_eq_str(r.text, "a b?c?"));
	assert_int_equal(read_reply(SLICE_LIT("250 2.1.0 \xc3\xbc \r\n"), &r), 1);
	assert_true(slice_eq_str(r.text, "\xc3\xbc "));
	assert_int_equal(read_reply(SLICE_LIT("250 \xc3 x\r\n"), &r), 1);
	assert_true(slice_eq_str(r.text, "? x"));
	static const char *const not_enhanced[] = { "550 4.1.1 x\n", "550 5.1. x\n",
		"550 5.1.1234 x\n", "550 5.1.1x\n", "550 5.\n", "354 3.0.0 x\n",
		"550 5.1234.1 x\n" };

	for (size_t i = 0; i < sizeof(not_enhanced) / sizeof(*not_enhanced); i++) {
		assert_int_equal(read_reply(slice_str(not_enhanced[i]), &r), 1);
		assert_string_equal(r.enhanced, "");
	}
	/* limits, at the limit and one past it */
	for (int extra = 0; extra < 2; extra++) {
		buf_clear(&b);
		buf_add_str(&b, "250 ");
		while (buf_len(&b) < (size_t)CLIENT_REPLY_LINE_MAX + (size_t)extra)
			buf_add_byte(&b, 'x');
		buf_add_str(&b, "\n");
		assert_int_equal(read_reply(buf_slice(&b), &r), extra ? ERR_LIMIT : 1);
		buf_clear(&b);
		for (int i = 1; i < CLIENT_REPLY_LINES_MAX + extra; i++)
			buf_add_str(&b, "250-x\n");
		buf_add_str(&b, "250 x\n");
		assert_int_equal(read_reply(buf_slice(&b), &r), extra ? ERR_LIMIT : 1);
	}
	buf_clear(&b);
	for (int i = 0; i < 20; i++)
		buf_addf(&b, "250-%03000d\n", 0);
	assert_int_equal(read_reply(buf_slice(&b), &r), ERR_LIMIT);
	buf_free(&b);
	read_reply(SLICE_LIT("250 x\n"), &r);
	assert_int_equal(read_reply(SLICE_NULL, &r), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_starttls),
		cmocka_unit_test(test_reply_ahead),
		cmocka_unit_test(test_injection),
		cmocka_unit_test(test_auth),
		cmocka_unit_test(test_extensions),
		cmocka_unit_test(test_binary),
		cmocka_unit_test(test_hostile_addresses),
		cmocka_unit_test(test_content),
		cmocka_unit_test(test_reply),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
