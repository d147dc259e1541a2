/* Unit tests of auth's front: who may ask for what, and whose token opens which door, over real
 * channels. */
#include "helpers/auth/auth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

struct bench {
	char dir[64], path[96];
	struct conf conf;
	struct daemon d;
	struct auth a;
};

struct end {
	struct ipc_chan *chan; /* auth's */
	int fd;                /* the peer's */
	struct buf buf;
};

static struct bench bench;

static void
on_message(void *ctx, struct ipc_chan *ch, struct msg *m)
{
	auth_message(ctx, ch, m);
}

static void
on_closed(void *ctx, struct ipc_chan *ch, int err, const char *why)
{
	(void)err;
	(void)why;
	peer_down(ctx, ch);
}

static const struct ipc_ops ops = { on_message, on_closed };

static struct end
open_end(enum role role)
{
	struct end e = { 0 };
	int fds[2];

	assert_int_equal(ipc_pair(fds), 0);
	e.chan = ipc_chan_new(bench.d.io, fds[0], role, &ops, &bench.a);
	e.fd = fds[1];
	return e;
}

static void
turn(int ms)
{
	struct timeval tv = ev_ms(ms);

	event_base_loopexit(bench.d.base, &tv);
	event_base_dispatch(bench.d.base);
}

/* The next message for this peer; runs the loop until it is there. */
static struct msg
answer(struct end *e)
{
	struct msg m = { 0 };

	for (int i = 0; i < 500; i++) {
		char c;
		if (recv(e->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) >= 0) {
			assert_int_equal(ipc_recv_fd(e->fd, &e->buf, &m), 0);
			return m;
		}
		turn(5);
	}
	fail_msg("no answer");
	return m;
}

static bool
silent(struct end *e, int ms)
{
	char c;

	turn(ms);
	return recv(e->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
}

static void
start(struct end *e, uint32_t id, const char *service, const char *mechanism, struct slice initial,
    bool tls)
{
	struct msg m = MSG_INIT(MSG_AUTH_START, id);

	m.auth_start.service = slice_str(service);
	m.auth_start.mechanism = slice_str(mechanism);
	m.auth_start.client = SLICE_LIT("192.0.2.1");
	m.auth_start.session = SLICE_LIT("sid");
	m.auth_start.tls = tls;
	m.auth_start.has_initial = initial.p != NULL;
	m.auth_start.initial = initial;
	assert_int_equal(ipc_send_fd(e->fd, &m), 0);
}

#define GOOD SLICE_LIT("\0alice\0secret")
#define BAD SLICE_LIT("\0alice\0secreT")

/* A login that must succeed; its token. */
static void
log_in(struct end *e, uint32_t id, const char *service, unsigned char token[TOKEN_SIZE])
{
	struct msg m;

	start(e, id, service, "PLAIN", GOOD, true);
	m = answer(e);
	assert_int_equal(m.type, MSG_AUTH_DONE);
	assert_int_equal(m.id, id);
	assert_int_equal(m.auth_done.status, 0);
	assert_true(slice_eq_str(m.auth_done.user, "alice"));
	assert_int_equal(m.auth_done.token.n, TOKEN_SIZE);
	memcpy(token, m.auth_done.token.p, TOKEN_SIZE);
}

static struct msg
check(struct end *e, const unsigned char token[TOKEN_SIZE], const char *service)
{
	struct msg m = MSG_INIT(MSG_TOKEN_CHECK, 7);

	m.token_check.token = slice(token, TOKEN_SIZE);
	m.token_check.service = slice_str(service);
	assert_int_equal(ipc_send_fd(e->fd, &m), 0);
	m = answer(e);
	assert_int_equal(m.type, MSG_TOKEN_USER);
	assert_int_equal(m.id, 7);
	return m;
}

static uint8_t
status_of(struct end *e, uint32_t id, const char *service, const char *mechanism,
    struct slice initial, bool tls)
{
	struct msg m;

	start(e, id, service, mechanism, initial, tls);
	m = answer(e);
	assert_int_equal(m.type, MSG_AUTH_DONE);
	assert_int_equal(m.auth_done.token.n, 0);
	return m.auth_done.status;
}

static void
close_end(struct end *e)
{
	close(e->fd);
	turn(20);
	buf_free(&e->buf);
}

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

static void
test_users_for_maps(void **state)
{
	static const struct {
		const char *name;
		uint8_t status;
	} rows[] = { { "alice", 0 }, { "ALICE@mx.example.test", 0 }, { "sales@example.org", 0 },
		{ "alice@other.test", 1 }, { "bob", 1 }, { "", 1 }, { "../alice", 1 }, { "@", 1 } };
	struct end maps = open_end(ROLE_MAPS);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct msg m = MSG_INIT(MSG_USER_GET, 9);
		m.user_get.name = slice_str(rows[i].name);
		assert_int_equal(ipc_send_fd(maps.fd, &m), 0);
		m = answer(&maps);
		assert_int_equal(m.type, MSG_USER_ENTRY);
		if (m.user_entry.status != rows[i].status)
			fail_msg("%s: %d", rows[i].name, m.user_entry.status);
	}
	close_end(&maps);
}

static void
test_smarthost_without_credentials(void **state)
{
	struct end client = open_end(ROLE_SMTP_CLIENT);
	struct msg m = MSG_INIT(MSG_SASL_CLIENT_START, 3);

	(void)state;
	m.sasl_client_start.nexthop = SLICE_LIT("[hub.example]:587");
	m.sasl_client_start.host = SLICE_LIT("hub.example");
	m.sasl_client_start.mechanisms = SLICE_LIT("PLAIN SCRAM-SHA-256");
	m.sasl_client_start.tls = 1;
	assert_int_equal(ipc_send_fd(client.fd, &m), 0);
	m = answer(&client);
	assert_int_equal(m.type, MSG_SASL_CLIENT_STEP);
	assert_int_equal(m.sasl_client_step.status, 1);
	close_end(&client);
}

static void
make_conf(struct conf *conf)
{
	static const char *mechanisms[] = { "PLAIN", "LOGIN", "SCRAM-SHA-256" },
			  *domains[] = { "localhost" };

	conf->auth_mechanisms = (struct conf_list){ 3, mechanisms };
	conf->mydestination = (struct conf_list){ 1, domains };
	conf->myhostname = conf->myorigin = "mx.example.test";
	conf->smtpd_sasl_local_domain = "";
	conf->auth_user_store = "users";
	conf->auth_token_lifetime = 60000;
	conf->auth_exchange_timeout = 600000;
	conf->smtpd_client_ipv6_prefix_length = 64;
}

/* A helper and its successor, as an upgrade has them for a while: who waits for the one goes on
 * when the other ends. */
static void
test_two_helpers(void **state)
{
	struct end login = open_end(ROLE_LOGIN_CHILD);
	struct end pam[2] = { open_end(ROLE_PAM), open_end(ROLE_PAM) };
	struct msg m;

	(void)state;
	atomic_store(&bench.a.sasl.system_users, true);
	for (uint32_t i = 0; i < 2; i++) {
		bench.d.peers[ROLE_PAM] = pam[i].chan;
		start(&login, i + 1, "imap", "PLAIN", SLICE_LIT("\0carol\0secret"), true);
		m = answer(&pam[i]);
		assert_int_equal(m.type, MSG_PAM_CHECK);
		assert_true(slice_eq_str(m.pam_check.user, "carol"));
	}
	for (uint32_t i = 0; i < 2; i++) {
		exchange_helper_down(&bench.a, pam[i].chan);
		m = answer(&login);
		assert_int_equal(m.type, MSG_AUTH_DONE);
		assert_int_equal(m.id, i + 1);
		assert_int_equal(m.auth_done.status, 2);
		assert_true(silent(&login, 20));
	}
	atomic_store(&bench.a.sasl.system_users, false);
	bench.d.peers[ROLE_PAM] = NULL;
	for (int i = 0; i < 2; i++)
		close_end(&pam[i]);
	close_end(&login);
}

static int
setup(void **state)
{
	static const struct users_opts opts = {
		.rounds = 4096, .uid_base = 800000, .uid_count = 10, .mailbox_base = "/m"
	};
	struct user user = { .name = SLICE_LIT("alice"),
		.senders = { SLICE_LIT("sales@example.org") },
		.sender_count = 1 };
	struct auth *a = &bench.a;
	struct arena arena = { 0 };

	(void)state;
	snprintf(bench.dir, sizeof(bench.dir), "/tmp/exchange_test.XXXXXX");
	assert_non_null(mkdtemp(bench.dir));
	snprintf(bench.path, sizeof(bench.path), "%s/u", bench.dir);
	make_conf(&bench.conf);
	bench.d = (struct daemon){
		.role = ROLE_AUTH, .base = ev_base_new(), .conf = &bench.conf, .ctx = a
	};
	bench.d.io = ipc_io_new(bench.d.base, ROLE_AUTH);
	a->d = &bench.d;
	assert_int_equal(users_open(bench.path, true, &opts, &a->users, NULL, 0), 0);
	assert_int_equal(users_make_verifiers(a->users, SLICE_LIT("secret"), &arena, &user), 0);
	assert_int_equal(users_add(a->users, &arena, &user), 0);
	arena_free(&arena);
	a->tokens = tokens_new();
	a->penalties = penalties_new(100);
	rate_init(&a->rates, 100, 60000);
	a->sasl.users = a->users;
	a->sasl.cache = cache_new();
	atomic_store(&a->sasl.rounds, 4096);
	sasl_setup(&a->sasl);
	a->pool = pool_new(bench.d.base, 2);
	return 0;
}

static int
teardown(void **state)
{
	struct auth *a = &bench.a;
	char lock[128];

	(void)state;
	pool_free(&a->pool);
	tokens_free(&a->tokens);
	penalties_free(&a->penalties);
	cache_free(&a->sasl.cache);
	users_close(&a->users);
	ipc_io_free(&bench.d.io);
	event_base_free(bench.d.base);
	snprintf(lock, sizeof(lock), "%s-lock", bench.path);
	unlink(lock);
	unlink(bench.path);
	rmdir(bench.dir);
	return 0;
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
		cmocka_unit_test(test_users_for_maps),
		cmocka_unit_test(test_smarthost_without_credentials),
		cmocka_unit_test(test_two_helpers),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
