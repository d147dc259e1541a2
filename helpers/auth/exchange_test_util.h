/* What the tests of auth's front share: an auth with one user, and peers at the ends of channels.
 */
#ifndef AUTH_EXCHANGE_TEST_UTIL_H
#define AUTH_EXCHANGE_TEST_UTIL_H

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

static inline void
on_message(void *ctx, struct ipc_chan *ch, struct msg *m)
{
	auth_message(ctx, ch, m);
}

static inline void
on_closed(void *ctx, struct ipc_chan *ch, int err, const char *why)
{
	(void)err;
	(void)why;
	peer_down(ctx, ch);
}

static const struct ipc_ops ops = { on_message, on_closed };

static inline struct end
open_end(enum role role)
{
	struct end e = { 0 };
	int fds[2];

	assert_int_equal(ipc_pair(fds), 0);
	e.chan = ipc_chan_new(bench.d.io, fds[0], role, &ops, &bench.a);
	e.fd = fds[1];
	return e;
}

static inline void
turn(int ms)
{
	struct timeval tv = ev_ms(ms);

	event_base_loopexit(bench.d.base, &tv);
	event_base_dispatch(bench.d.base);
}

/* The next message for this peer; runs the loop until it is there. */
static inline struct msg
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

static inline bool
silent(struct end *e, int ms)
{
	char c;

	turn(ms);
	return recv(e->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
}

static inline void
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
static inline void
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

static inline struct msg
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

static inline uint8_t
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

static inline void
close_end(struct end *e)
{
	close(e->fd);
	turn(20);
	buf_free(&e->buf);
}

static inline void
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

static inline int
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

static inline int
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

#endif
