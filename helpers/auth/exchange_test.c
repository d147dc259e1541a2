/* Unit tests of auth's front: who may ask for what, and whose token opens which door, over real
 * channels. */
#include "helpers/auth/exchange_test_util.h"

static void
test_who_may_ask(void **state)
{
	struct end login = open_end(ROLE_LOGIN_CHILD), smtpd = open_end(ROLE_SMTPD_CHILD);

	(void)state;
	assert_int_equal(status_of(&login, 1, "smtp", "PLAIN", GOOD, true), 3);
	assert_int_equal(status_of(&login, 2, "ftp", "PLAIN", GOOD, true), 3);
	assert_int_equal(status_of(&smtpd, 3, "imap", "PLAIN", GOOD, true), 3);
	assert_int_equal(status_of(&login, 4, "imap", "PLAIN", GOOD, false), 3);
	assert_int_equal(status_of(&login, 5, "imap", "SCRAM-SHA-1", SLICE_NULL, true), 3);
	assert_int_equal(status_of(&login, 6, "imap", "EXTERNAL", SLICE_LIT("alice"), true), 3);
	assert_int_equal(status_of(&login, 7, "imap", "PLAIN", BAD, true), 1);
	close_end(&login);
	close_end(&smtpd);
	assert_int_equal(bench.a.exchanges, 0);
}

static void
test_mailbox_token(void **state)
{
	struct end login = open_end(ROLE_LOGIN_CHILD), broker = open_end(ROLE_BROKER),
		   qmgr = open_end(ROLE_QMGR);
	unsigned char token[TOKEN_SIZE];
	struct msg m;

	(void)state;
	log_in(&login, 1, "imap", token);
	m = check(&broker, token, "imap");
	assert_int_equal(m.token_user.status, 0);
	assert_true(slice_eq_str(m.token_user.user, "alice"));
	assert_int_equal(m.token_user.uid, 800000);
	assert_int_equal(m.token_user.senders.n, 0); /* not the broker's business */
	assert_int_equal(check(&broker, token, "imap").token_user.status, 1); /* used */
	log_in(&login, 2, "imap", token);
	assert_int_equal(
	    check(&broker, token, "pop3").token_user.status, 1); /* another service: spoilt */
	assert_int_equal(check(&broker, token, "imap").token_user.status, 1);
	log_in(&login, 3, "pop3", token);
	assert_int_equal(check(&qmgr, token, "pop3").token_user.status, 2); /* not qmgr's to ask */
	assert_int_equal(check(&qmgr, token, "smtp").token_user.status, 2);
	log_in(&login, 4, "imap", token);
	close_end(&login); /* its login process ends: the token is good for its minute */
	assert_int_equal(check(&broker, token, "imap").token_user.status, 0);
	close_end(&broker);
	close_end(&qmgr);
}

static void
test_submission_token(void **state)
{
	struct end submission = open_end(ROLE_SUBMISSION_CHILD), broker = open_end(ROLE_BROKER),
		   qmgr = open_end(ROLE_QMGR);
	unsigned char token[TOKEN_SIZE];
	struct item_sender s;
	struct cursor c;
	struct msg m;
	bool own = false;

	(void)state;
	log_in(&submission, 1, "smtp", token);
	assert_int_equal(check(&broker, token, "imap").token_user.status, 1);
	log_in(&submission, 2, "smtp", token);
	for (int i = 0; i < 3; i++) {
		m = check(&qmgr, token, "smtp");
		assert_int_equal(m.token_user.status, 0);
	}
	c = cursor(m.token_user.senders.raw);
	while (item_sender_next(&c, &s))
		own |= slice_eq_str(s.address, "alice@mx.example.test");
	assert_true(own);
	bench.conf.auth_token_lifetime = 50;
	close_end(&submission);
	turn(100);
	assert_int_equal(check(&qmgr, token, "smtp").token_user.status, 2);
	bench.conf.auth_token_lifetime = 60000;
	close_end(&broker);
	close_end(&qmgr);
}

static void
test_ids_belong_to_their_channel(void **state)
{
	struct end a = open_end(ROLE_LOGIN_CHILD), b = open_end(ROLE_LOGIN_CHILD);
	struct msg m = MSG_INIT(MSG_AUTH_RESPONSE, 1);

	(void)state;
	start(&a, 1, "imap", "PLAIN", SLICE_NULL, true);
	assert_int_equal(answer(&a).type, MSG_AUTH_CHALLENGE);
	m.auth_response.response = GOOD;
	assert_int_equal(ipc_send_fd(b.fd, &m), 0); /* somebody else's exchange */
	m = answer(&b);
	assert_int_equal(m.type, MSG_AUTH_DONE);
	assert_int_equal(m.auth_done.status, 2);
	assert_int_equal(m.auth_done.token.n, 0);
	assert_true(silent(&a, 5));
	m = (struct msg)MSG_INIT(MSG_AUTH_RESPONSE, 1);
	m.auth_response.response = GOOD;
	assert_int_equal(ipc_send_fd(a.fd, &m), 0);
	m = answer(&a);
	assert_int_equal(m.type, MSG_AUTH_DONE);
	assert_int_equal(m.auth_done.status, 0);
	/* cancelled in every state, also while a worker has it */
	for (int i = 0; i < 20; i++) {
		struct msg cancel = MSG_INIT(MSG_AUTH_CANCEL, 2);
		start(&a, 2, "imap", "PLAIN", i & 1 ? BAD : SLICE_NULL, true);
		turn(i % 4);
		assert_int_equal(ipc_send_fd(a.fd, &cancel), 0);
	}
	turn(200);
	close_end(&a);
	start(&b, 3, "imap", "PLAIN", BAD, true); /* and gone with its channel */
	close_end(&b);
	for (int i = 0; i < 600 && (bench.a.exchanges || pool_busy(bench.a.pool)); i++)
		turn(50);
	assert_int_equal(bench.a.exchanges, 0);
	assert_int_equal(pool_busy(bench.a.pool), 0);
}

/* Exchanges that wait for their clients: so many, not one more, and not for ever. */
static void
test_idle_exchanges(void **state)
{
	struct end login = open_end(ROLE_LOGIN_CHILD), other = open_end(ROLE_SUBMISSION_CHILD);
	struct msg m = MSG_INIT(MSG_AUTH_CANCEL, 1);
	unsigned char token[TOKEN_SIZE];

	(void)state;
	for (uint32_t id = 1; id <= EXCHANGES_PER_PEER; id += 100) {
		for (uint32_t i = 0; i < 100; i++)
			start(&login, id + i, "imap", "PLAIN", SLICE_NULL, true);
		for (uint32_t i = 0; i < 100; i++)
			assert_int_equal(answer(&login).type, MSG_AUTH_CHALLENGE);
	}
	assert_int_equal(bench.a.exchanges, EXCHANGES_PER_PEER);
	assert_int_equal(
	    status_of(&login, EXCHANGES_PER_PEER + 1, "imap", "PLAIN", SLICE_NULL, true), 2);
	log_in(&other, 1, "smtp", token); /* another front end is not in the way */
	assert_int_equal(ipc_send_fd(login.fd, &m), 0);
	bench.conf.auth_exchange_timeout = 100;
	start(&login, 1, "imap", "PLAIN", SLICE_NULL, true);
	assert_int_equal(answer(&login).type, MSG_AUTH_CHALLENGE);
	for (int i = 0; i < 500 && bench.a.exchanges == EXCHANGES_PER_PEER; i++)
		turn(10);
	assert_int_equal(bench.a.exchanges, EXCHANGES_PER_PEER - 1); /* that one alone */
	m = (struct msg)MSG_INIT(MSG_AUTH_RESPONSE, 1);
	m.auth_response.response = GOOD;
	assert_int_equal(ipc_send_fd(login.fd, &m), 0);
	m = answer(&login);
	assert_int_equal(m.type, MSG_AUTH_DONE);
	assert_int_equal(m.auth_done.status, 2);
	assert_int_equal(m.auth_done.token.n, 0);
	bench.conf.auth_exchange_timeout = 600000;
	close_end(&login);
	close_end(&other);
	assert_int_equal(bench.a.exchanges, 0);
}

static void
test_failures_wait(void **state)
{
	struct end login = open_end(ROLE_LOGIN_CHILD);
	int64_t began = auth_now_ms();

	(void)state;
	bench.conf.auth_failure_delay = 100;
	start(&login, 1, "imap", "PLAIN", SLICE_LIT("\0bob\0x"), true);
	while (silent(&login, 5))
		assert_true(auth_now_ms() - began < 60000);
	assert_true(auth_now_ms() - began >= 90); /* the loop's clock is a little behind */
	assert_int_equal(answer(&login).auth_done.status, 1);
	began = auth_now_ms();
	start(&login, 2, "imap", "PLAIN", SLICE_LIT("\0bob\0y"), true);
	assert_int_equal(answer(&login).auth_done.status, 1);
	assert_true(auth_now_ms() - began >= 190);
	bench.conf.auth_failure_delay = 0;
	close_end(&login);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_may_ask),
		cmocka_unit_test(test_mailbox_token),
		cmocka_unit_test(test_submission_token),
		cmocka_unit_test(test_ids_belong_to_their_channel),
		cmocka_unit_test(test_idle_exchanges),
		cmocka_unit_test(test_failures_wait),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
