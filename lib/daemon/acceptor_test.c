/* Unit tests of what acceptors count: connections per client at the limit and one past it, and
 * whose word ends a session. */
#include "daemon/acceptor_private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

struct bench {
	struct acceptor_state a;
	struct daemon d;
	struct conf conf;
};

static void
bench_open(struct bench *b)
{
	memset(b, 0, sizeof(*b));
	b->conf.anvil_rate_time_unit = 60000;
	b->conf.smtpd_client_ipv6_prefix_length = 64;
	b->d.conf = &b->conf;
	b->a.d = &b->d;
	TAILQ_INIT(&b->a.quiet);
	TAILQ_INIT(&b->a.workers);
}

static struct session *
session_new(struct bench *b)
{
	struct session *s = xcalloc(1, sizeof(*s));

	s->token = ++b->a.next_token;
	hash_insert(&b->a.sessions, &s->node, slice(&s->token, sizeof(s->token)));
	return s;
}

static struct inet_addr
address(const char *text)
{
	struct inet_addr a;

	assert_int_equal(inet_parse(slice_str(text), &a), 0);
	return a;
}

static void
test_connections_at_once(void **state)
{
	struct inet_addr one = address("2001:db8::1"), same = address("2001:db8::ffff:1"),
			 other = address("2001:db8:1::1");
	struct session *s[3];
	struct bench b;

	(void)state;
	bench_open(&b);
	b.conf.smtpd_client_connection_count_limit = 2;
	for (int i = 0; i < 3; i++)
		s[i] = session_new(&b);
	assert_null(acceptor_over_limit(&b.a, s[0], &one));
	assert_null(acceptor_over_limit(&b.a, s[1], &same));
	assert_non_null(acceptor_over_limit(&b.a, s[2], &one)); /* one network, one client */
	acceptor_session_free(&b.a, s[2]);
	s[2] = session_new(&b);
	assert_null(acceptor_over_limit(&b.a, s[2], &other));
	acceptor_session_free(&b.a, s[0]);
	s[0] = session_new(&b);
	assert_null(acceptor_over_limit(&b.a, s[0], &one));
	for (int i = 0; i < 3; i++)
		acceptor_session_free(&b.a, s[i]);
	assert_int_equal(b.a.clients.count, 0); /* no rate is limited: nothing is remembered */
	hash_free(&b.a.clients);
	hash_free(&b.a.sessions);
}

static void
test_rate(void **state)
{
	struct inet_addr addr = address("192.0.2.1");
	struct bench b;

	(void)state;
	bench_open(&b);
	b.conf.smtpd_client_connection_rate_limit = 3;
	for (int i = 0; i < 5; i++) {
		struct session *s = session_new(&b);
		assert_int_equal(acceptor_over_limit(&b.a, s, &addr) == NULL, i < 3);
		acceptor_session_free(&b.a, s);
	}
	assert_int_equal(b.a.nquiet, 1);
	b.conf.anvil_rate_time_unit = 0; /* the unit is over */
	struct session *s = session_new(&b);
	assert_null(acceptor_over_limit(&b.a, s, &addr));
	b.conf.smtpd_client_connection_rate_limit = 0;
	acceptor_session_free(&b.a, s);
	assert_int_equal(b.a.nquiet, 0);
	assert_int_equal(b.a.clients.count, 0);
	hash_free(&b.a.clients);
	hash_free(&b.a.sessions);
}

/* Tokens are numbers in a row: a child that was taken over knows those of the others. */
static void
test_only_its_own_sessions(void **state)
{
	char ends[2]; /* only their addresses count */
	struct zygote_child children[2] = { { .chan = (struct ipc_chan *)&ends[0] },
		{ .chan = (struct ipc_chan *)&ends[1] } };
	struct worker w = { .child = &children[0], .sessions = 2 };
	struct session *s[2];
	struct bench b;

	(void)state;
	bench_open(&b);
	w.a = &b.a;
	for (int i = 0; i < 2; i++) {
		s[i] = session_new(&b);
		s[i]->worker = &w;
	}
	acceptor_count_end(&b.a, children[1].chan, s[0]->token);
	assert_int_equal(w.sessions, 2);
	assert_int_equal(b.a.sessions.count, 2);
	acceptor_count_end(&b.a, children[0].chan, s[0]->token);
	assert_int_equal(w.sessions, 1);
	acceptor_count_end(&b.a, children[0].chan, 99);
	assert_int_equal(b.a.sessions.count, 1);
	acceptor_session_free(&b.a, s[1]);
	hash_free(&b.a.sessions);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_connections_at_once),
		cmocka_unit_test(test_rate), cmocka_unit_test(test_only_its_own_sessions) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
