/* The POP3 dialogue before login: transcripts, states, limits at the limit and one past it, splits.
 */
#include "pop3/login.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct login_limits limits = {
	.max_auth = 64, .max_errors = 3, .max_commands = 20, .max_auth_failures = 2
};

/* Feeds all of in, split into pieces of step bytes; notes what is wanted. */
static const char *
talk(struct login *l, const char *in, size_t step, struct login_action *a)
{
	static char out[4096];
	struct slice s = slice_str(in);

	*a = (struct login_action){ .want = LOGIN_MORE };
	buf_clear(login_out(l));
	while (s.n && a->want == LOGIN_MORE) {
		size_t n = login_feed(l, slice_sub(s, 0, step), a);
		s = slice_sub(s, n, SIZE_MAX);
	}
	assert_int_equal(slice_copy(buf_slice(login_out(l)), out, sizeof(out)), 0);
	return out;
}

static struct login *
fresh(bool tls)
{
	return login_new(&pop3_login, &limits, tls ? "PLAIN SCRAM-SHA-256" : "", !tls, tls);
}

static void
capabilities(void **state)
{
	struct login_action a;
	struct login *l = fresh(false);

	(void)state;
	login_greet(l);
	assert_true(slice_has_prefix(buf_slice(login_out(l)), "+OK "));
	const char *out = talk(l, "CAPA\r\n", 100, &a);
	assert_non_null(strstr(out, "\r\nSTLS\r\n"));
	assert_null(strstr(out, "USER"));
	assert_null(strstr(out, "SASL"));
	login_free(&l);
	l = fresh(true);
	out = talk(l, "capa\n", 1, &a);
	assert_null(strstr(out, "STLS"));
	assert_non_null(strstr(out, "\r\nUSER\r\n"));
	assert_non_null(strstr(out, "\r\nSASL PLAIN SCRAM-SHA-256\r\n"));
	assert_string_equal(out + strlen(out) - 5, "\r\n.\r\n");
	login_free(&l);
}

static void
user_and_pass(void **state)
{
	struct login_action a;
	struct handover h;
	struct buf b = { 0 };

	(void)state;
	for (size_t step = 1; step < 12; step++) {
		struct login *l = fresh(true);
		assert_string_equal(talk(l, "USER joe\r\n", step, &a), "+OK\r\n");
		assert_string_equal(talk(l, "PASS a b \r\nSTAT\r\n", step, &a), "");
		assert_int_equal(a.want, LOGIN_AUTH_START);
		assert_string_equal(a.mechanism, "PLAIN");
		assert_true(slice_eq(a.data, slice("\0joe\0a b ", 9)));
		assert_int_equal(login_feed(l, SLICE_LIT("STAT\r\n"), &a), 0); /* not taken */
		login_auth_ok(l, SLICE_NULL, false);
		assert_int_equal(login_feed(l, SLICE_NULL, &a), 0);
		assert_int_equal(a.want, LOGIN_DONE);
		login_handover(l, SLICE_LIT("192.0.2.1"), SLICE_LIT("S1"), &b);
		assert_true(handover_decode(buf_slice(&b), &h) > 0);
		assert_true(slice_eq_str(h.tag, "PLAIN SCRAM-SHA-256"));
		assert_true(h.tls);
		assert_true(slice_eq_str(h.peer, "192.0.2.1"));
		buf_free(&b);
		login_free(&l);
	}
}

static void
no_password_without_tls(void **state)
{
	struct login_action a;
	struct login *l = fresh(false);

	(void)state;
	assert_true(slice_has_prefix(slice_str(talk(l, "USER joe\r\n", 99, &a)), "-ERR [AUTH]"));
	assert_true(slice_has_prefix(slice_str(talk(l, "AUTH PLAIN\r\n", 99, &a)), "-ERR [AUTH]"));
	/* plaintext behind STLS is not taken */
	assert_string_equal(
	    talk(l, "STLS\r\nCAPA\r\n", 99, &a), "+OK Begin TLS negotiation now\r\n");
	assert_int_equal(a.want, LOGIN_STARTTLS);
	assert_int_equal(login_feed(l, SLICE_LIT("CAPA\r\n"), &a), 0);
	login_tls_done(l, "PLAIN");
	assert_true(slice_has_prefix(slice_str(talk(l, "STLS\r\n", 99, &a)), "-ERR "));
	assert_string_equal(talk(l, "USER joe\r\n", 99, &a), "+OK\r\n");
	login_free(&l);
}

static void
sasl(void **state)
{
	struct login_action a;
	struct login *l = fresh(true);

	(void)state;
	talk(l, "AUTH plain AGpvZQBwdw==\r\n", 7, &a);
	assert_int_equal(a.want, LOGIN_AUTH_START);
	assert_true(a.has_data);
	assert_true(slice_eq(a.data, slice("\0joe\0pw", 7)));
	login_auth_failed(l, LOGIN_FAIL_CREDENTIALS);
	assert_true(slice_has_prefix(buf_slice(login_out(l)), "-ERR [AUTH]"));
	talk(l, "AUTH SCRAM-SHA-256\r\n", 99, &a);
	assert_int_equal(a.want, LOGIN_AUTH_START);
	assert_false(a.has_data);
	buf_clear(login_out(l));
	login_challenge(l, SLICE_NULL);
	assert_true(slice_eq_str(buf_slice(login_out(l)), "+ \r\n"));
	talk(l, "bix5\r\n", 2, &a);
	assert_int_equal(a.want, LOGIN_AUTH_STEP);
	assert_true(slice_eq_str(a.data, "n,y"));
	login_auth_ok(l, SLICE_LIT("v=1"), true);
	talk(l, "\r\n", 1, &a);
	assert_int_equal(a.want, LOGIN_DONE);
	login_unavailable(l, LOGIN_FAIL_TEMPORARY); /* the second failure ends it */
	assert_non_null(strstr(talk(l, "NOOP\r\n", 99, &a), ""));
	assert_int_equal(a.want, LOGIN_CLOSE);
	login_free(&l);

	l = fresh(true);
	talk(l, "AUTH PLAIN\r\n", 99, &a);
	login_challenge(l, SLICE_NULL);
	assert_string_equal(talk(l, "*\r\n", 99, &a), "-ERR Authentication cancelled\r\n");
	assert_int_equal(a.want, LOGIN_AUTH_ABORT);
	assert_string_equal(
	    talk(l, "AUTH PLAIN =AAA\r\n", 99, &a), "-ERR Initial response is not base64\r\n");
	talk(l, "AUTH PLAIN =\r\n", 99, &a);
	assert_int_equal(a.want, LOGIN_AUTH_START);
	assert_int_equal(a.data.n, 0);
	assert_true(a.has_data);
	login_free(&l);
}

static void
limits_hold(void **state)
{
	struct login_action a;
	char line[400];

	(void)state;
	/* 255 bytes with CRLF are taken, 256 are not */
	struct login *l = fresh(true);
	memset(line, 'x', sizeof(line));
	memcpy(line, "USER ", 5);
	memcpy(line + 253, "\r\n", 3);
	assert_string_equal(talk(l, line, 400, &a), "+OK\r\n");
	memset(line + 253, 'x', 3);
	memcpy(line + 254, "\r\n", 3);
	assert_string_equal(talk(l, line, 50, &a), "-ERR Line is too long\r\n");
	assert_int_equal(a.want, LOGIN_CLOSE);
	login_free(&l);

	l = fresh(true); /* one line of AUTH: 64 bytes, then 65 */
	talk(l, "AUTH PLAIN\r\n", 99, &a);
	login_challenge(l, SLICE_NULL);
	memset(line, 'A', 64);
	memcpy(line + 64, "\r\n", 3);
	talk(l, line, 9, &a);
	assert_int_equal(a.want, LOGIN_AUTH_STEP);
	login_challenge(l, SLICE_NULL);
	memcpy(line + 64, "A\r\n", 4);
	talk(l, line, 9, &a);
	assert_int_equal(a.want, LOGIN_CLOSE);
	login_free(&l);

	l = fresh(true); /* three bad commands */
	assert_int_equal((talk(l, "X\r\nSTAT\r\n", 99, &a), a.want), LOGIN_MORE);
	assert_int_equal((talk(l, "PASS x\r\n", 99, &a), a.want), LOGIN_CLOSE);
	login_free(&l);

	l = fresh(true); /* twenty commands */
	for (int i = 0; i < 20; i++)
		assert_string_equal(talk(l, "NOOP\r\n", 99, &a), "+OK\r\n");
	talk(l, "NOOP\r\n", 99, &a);
	assert_int_equal(a.want, LOGIN_CLOSE);
	login_free(&l);

	l = fresh(true);
	assert_int_equal(login_feed(l, slice("NO\0OP\r\n", 7), &a), 7);
	assert_true(slice_search(buf_slice(login_out(l)), SLICE_LIT("NUL")) > 0);
	assert_string_equal(talk(l, "QUIT\r\n", 1, &a), "+OK Good bye\r\n");
	assert_int_equal(a.want, LOGIN_CLOSE);
	login_free(&l);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(capabilities),
		cmocka_unit_test(user_and_pass),
		cmocka_unit_test(no_password_without_tls),
		cmocka_unit_test(sasl),
		cmocka_unit_test(limits_hold),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
