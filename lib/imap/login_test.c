#include "imap/login.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static const struct login_limits limits = { 8192, 12288, 3, 100, 3, NULL };

/* Feeds text, n bytes a turn, until an action other than MORE comes; the rest is left in *in. */
static enum login_want
feed(struct login *l, struct slice *in, size_t step, struct login_action *a)
{
	struct slice window = SLICE_NULL;

	for (;;) {
		size_t n = login_feed(l, window, a);

		*in = slice_sub(*in, n, in->n);
		window.n -= n;
		if (a->want != LOGIN_MORE || window.n >= in->n)
			return a->want;
		window = slice_sub(*in, 0, window.n + step);
	}
}

static void
expect(struct login *l, const char *text)
{
	struct buf *out = login_out(l);
	char *got = slice_dup(buf_slice(out));

	assert_string_equal(got, text);
	free(got);
	buf_clear(out);
}

static void
test_plain_way(void **state)
{
	(void)state;
	for (size_t step = 1; step < 200; step++) {
		struct login *l = login_new(&imap_login, &limits, "", true, false);
		struct login_action a;
		struct slice in =
		    SLICE_LIT("a1 CAPABILITY\r\na2 login u p\r\na3 starttls\r\nb1 NOOP\r\n");
		struct buf preamble = { 0 };
		struct handover h;

		login_greet(l);
		expect(l,
		    "* OK [CAPABILITY IMAP4rev1 IMAP4rev2 LITERAL- SASL-IR ID ENABLE STARTTLS "
		    "LOGINDISABLED] Ready\r\n");
		assert_int_equal(feed(l, &in, step, &a), LOGIN_STARTTLS);
		expect(l,
		    "* CAPABILITY IMAP4rev1 IMAP4rev2 LITERAL- SASL-IR ID ENABLE STARTTLS "
		    "LOGINDISABLED\r\na1 OK Done\r\na2 NO [PRIVACYREQUIRED] LOGIN needs TLS: use "
		    "STARTTLS first\r\na3 OK Begin TLS negotiation now\r\n");
		login_tls_done(l, "PLAIN LOGIN");
		in = SLICE_LIT("b0 ID (\"name\" \"x\" \"v\" NIL)\r\nb2 LOGIN {1}\r\nu "
			       "\"p\\\"q\"\r\nc1 SELECT INBOX\r\n");
		assert_int_equal(feed(l, &in, step, &a), LOGIN_AUTH_START);
		expect(l, "* ID (\"name\" \"Bulkhead\")\r\nb0 OK Done\r\n+ Ready\r\n");
		assert_string_equal(a.mechanism, "PLAIN");
		assert_true(slice_eq(a.data, SLICE_LIT("\0u\0p\"q")));
		login_auth_ok(l, SLICE_NULL, false);
		assert_int_equal(feed(l, &in, step, &a), LOGIN_DONE);
		assert_true(slice_has_prefix(in, "c1 SELECT"));
		login_handover(l, SLICE_LIT("127.0.0.1"), SLICE_LIT("s1"), &preamble);
		for (size_t n = 0; n < buf_len(&preamble); n++)
			assert_int_equal(
			    handover_decode(slice_sub(buf_slice(&preamble), 0, n), &h), 0);
		assert_int_equal(handover_decode(buf_slice(&preamble), &h), buf_len(&preamble));
		assert_true(slice_eq_str(h.tag, "b2") && h.tls && slice_eq_str(h.id, "s1"));
		login_unavailable(l, LOGIN_FAIL_TEMPORARY);
		expect(l, "b2 NO [UNAVAILABLE] Temporary failure, try again later\r\n");
		buf_free(&preamble);
		login_free(&l);
	}
}

static void
test_authenticate(void **state)
{
	(void)state;
	for (size_t step = 1; step < 100; step++) {
		struct login *l =
		    login_new(&imap_login, &limits, "PLAIN SCRAM-SHA-256", false, true);
		struct login_action a;
		struct slice in = SLICE_LIT("a AUTHENTICATE plain AHUAcA==\r\nb AUTHENTICATE "
					    "scram-sha-256\r\nYQ==\r\n\r\nnext");

		assert_int_equal(feed(l, &in, step, &a), LOGIN_AUTH_START);
		assert_true(slice_eq(a.data, SLICE_LIT("\0u\0p")));
		login_auth_failed(l, LOGIN_FAIL_CREDENTIALS);
		assert_int_equal(feed(l, &in, step, &a), LOGIN_AUTH_START);
		assert_string_equal(a.mechanism, "SCRAM-SHA-256");
		assert_false(a.has_data);
		login_challenge(l, SLICE_NULL);
		assert_int_equal(feed(l, &in, step, &a), LOGIN_AUTH_STEP);
		assert_true(slice_eq_str(a.data, "a"));
		login_auth_ok(l, SLICE_LIT("v=1"), true);
		assert_int_equal(feed(l, &in, step, &a), LOGIN_DONE);
		expect(l, "a NO [AUTHENTICATIONFAILED] Authentication failed\r\n+ \r\n+ dj0x\r\n");
		assert_true(slice_eq_str(in, "next"));
		login_free(&l);
	}
}

/* What a stranger sends, and the whole answer. */
static const struct {
	const char *in, *out;
	enum login_want want;
} dialogues[] = {
	{ "a\r\n", "a BAD Command expected\r\n", LOGIN_MORE },
	{ "\r\n", "* BAD Tag expected\r\n", LOGIN_MORE },
	{ "+ x\r\n", "* BAD Tag expected\r\n", LOGIN_MORE },
	{ "a SELECT INBOX\r\n", "a BAD Unknown command, or not before login\r\n", LOGIN_MORE },
	{ "a NOOP x\r\n", "a BAD Unexpected text after the command\r\n", LOGIN_MORE },
	{ "a NOOP\n", "a OK Done\r\n", LOGIN_MORE },
	{ "a LOGOUT\r\nb NOOP\r\n", "* BYE Good bye\r\na OK Logged out\r\n", LOGIN_CLOSE },
	{ "a ID NIL\r\n", "* ID (\"name\" \"Bulkhead\")\r\na OK Done\r\n", LOGIN_MORE },
	{ "a ID (\"a\")\r\n", "a BAD Space expected\r\n", LOGIN_MORE },
	{ "a STARTTLS\r\n", "a BAD TLS is already active\r\n", LOGIN_MORE },
	{ "a LOGIN u\r\n", "a BAD Space expected\r\n", LOGIN_MORE },
	{ "a LOGIN u {9000}\r\n", "* BYE Literal is too large\r\n", LOGIN_CLOSE },
	{ "a LOGIN u {9000+}\r\n", "* BYE Literal is too large\r\n", LOGIN_CLOSE },
	{ "a LOGIN u {99999999999999999999999}\r\n", "* BYE Literal is too large\r\n",
	    LOGIN_CLOSE },
	{ "a LOGIN u {-1}\r\n", "a BAD Number expected\r\n", LOGIN_MORE },
	{ "a LOGIN \"u\r\n", "a BAD Quoted string without end\r\n", LOGIN_MORE },
	{ "a LOGIN \"{5}\r\n", "a BAD Quoted string without end\r\n", LOGIN_MORE },
	{ "a AUTHENTICATE NTLM\r\n", "a NO [CANNOT] Mechanism is not offered\r\n", LOGIN_MORE },
	{ "a AUTHENTICATE PLAIN !\r\n", "a BAD Initial response is not base64\r\n", LOGIN_MORE },
	{ "a AUTHENTICATE PLAIN \r\n", "a BAD Initial response is not base64\r\n", LOGIN_MORE },
	{ "a x\r\nb x\r\nc x\r\nd NOOP\r\n",
	    "a BAD Unknown command, or not before login\r\nb BAD Unknown command, or not before "
	    "login\r\nc BAD Unknown command, or not before login\r\n* BYE Too many bad "
	    "commands\r\n",
	    LOGIN_CLOSE },
};

static void
test_dialogues(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(dialogues) / sizeof(*dialogues); i++)
		for (size_t step = 1; step < 60; step += 7) {
			struct login *l = login_new(&imap_login, &limits, "PLAIN", false, true);
			struct slice in = slice_str(dialogues[i].in);
			struct login_action a;

			assert_int_equal(feed(l, &in, step, &a), dialogues[i].want);
			expect(l, dialogues[i].out);
			login_free(&l);
		}
}

/* What belongs behind the login is refused before it, whatever its arguments. */
static void
test_not_yet(void **state)
{
	static const char *const commands[] = { "APPEND INBOX {3+}\r\nabc", "CHECK", "CLOSE",
		"COPY 1 x", "CREATE x", "DELETE x", "ENABLE IMAP4rev2", "EXAMINE INBOX", "EXPUNGE",
		"FETCH 1 FLAGS", "IDLE", "LIST \"\" *", "LSUB \"\" *", "MOVE 1 x", "NAMESPACE",
		"RENAME a b", "SEARCH ALL", "SELECT INBOX", "STATUS INBOX (MESSAGES)",
		"STORE 1 FLAGS ()", "SUBSCRIBE x", "UNSELECT", "UNSUBSCRIBE x", "UID FETCH 1 FLAGS",
		"COMPRESS DEFLATE", "X-FOO" };

	(void)state;
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		struct login *l = login_new(&imap_login, &limits, "PLAIN", false, true);
		struct login_action a;
		struct buf b = { 0 };
		struct slice in;

		buf_addf(&b, "a %s\r\nb NOOP\r\n", commands[i]);
		in = buf_slice(&b);
		assert_int_equal(feed(l, &in, 1000, &a), LOGIN_MORE);
		expect(l, "a BAD Unknown command, or not before login\r\nb OK Done\r\n");
		buf_free(&b);
		login_free(&l);
	}
}

static void
test_limits(void **state)
{
	struct login *l = login_new(&imap_login, &limits, "PLAIN", false, true);
	struct login_action a;
	struct buf b = { 0 };
	struct slice in;

	(void)state;
	buf_add_str(&b, "a LOGIN u ");
	while (buf_len(&b) < 8192)
		buf_add_byte(&b, 'p');
	buf_add_str(&b, "\r\n");
	in = buf_slice(&b);
	assert_int_equal(feed(l, &in, 1000, &a), LOGIN_AUTH_START);
	login_auth_failed(l, LOGIN_FAIL_CREDENTIALS);
	buf_truncate(&b, 8192);
	buf_add_str(&b, "p\r\n");
	buf_clear(login_out(l));
	in = buf_slice(&b);
	assert_int_equal(feed(l, &in, 1000, &a), LOGIN_CLOSE);
	expect(l, "* BYE Command is too long\r\n");
	login_free(&l);

	/* One base64 line of AUTHENTICATE. */
	l = login_new(&imap_login, &limits, "PLAIN", false, true);
	in = SLICE_LIT("a AUTHENTICATE PLAIN\r\n");
	assert_int_equal(feed(l, &in, 1000, &a), LOGIN_AUTH_START);
	login_challenge(l, SLICE_NULL);
	buf_clear(&b);
	while (buf_len(&b) < 12288)
		buf_add_byte(&b, 'A');
	buf_add_str(&b, "\r\n");
	in = buf_slice(&b);
	assert_int_equal(feed(l, &in, 1000, &a), LOGIN_AUTH_STEP);
	assert_int_equal(a.data.n, 9216);
	login_challenge(l, SLICE_NULL);
	buf_truncate(&b, 12288);
	buf_add_str(&b, "AAA");
	in = buf_slice(&b);
	assert_int_equal(feed(l, &in, 1000, &a), LOGIN_CLOSE);
	buf_free(&b);
	login_free(&l);

	/* A client that cancels, and one that fails three times. */
	l = login_new(&imap_login, &limits, "PLAIN", false, true);
	in = SLICE_LIT("a AUTHENTICATE PLAIN\r\n*\r\n");
	assert_int_equal(feed(l, &in, 1000, &a), LOGIN_AUTH_START);
	login_challenge(l, SLICE_NULL);
	assert_int_equal(feed(l, &in, 1000, &a), LOGIN_AUTH_ABORT);
	expect(l, "+ \r\na BAD Authentication cancelled\r\n");
	for (int i = 0; i < 3; i++) {
		in = SLICE_LIT("a LOGIN u p\r\n");
		assert_int_equal(feed(l, &in, 1000, &a), LOGIN_AUTH_START);
		login_auth_failed(l, LOGIN_FAIL_CREDENTIALS);
	}
	assert_int_equal(feed(l, &in, 1000, &a), LOGIN_CLOSE);
	login_free(&l);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_plain_way),
		cmocka_unit_test(test_authenticate), cmocka_unit_test(test_dialogues),
		cmocka_unit_test(test_not_yet), cmocka_unit_test(test_limits) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
