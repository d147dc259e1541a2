/* Unit tests of what acceptors count: connections per client at the limit and one past it, and
 * whose word ends a session. */
#include "daemon/acceptor_private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static int64_t
many(const struct conf *conf)
{
	(void)conf;
	return 100;
}

static struct event_base *base; /* of all tests */
static const struct acceptor_desc desc = { .sessions_per_process = many };

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
	TAILQ_INIT(&b->a.sharing);
	b->a.desc = &desc;
	if (!base)
		base = ev_base_new();
	b->d.base = base;
}

static struct session *
session_new(struct acceptor_state *a)
{
	struct session *s = xcalloc(1, sizeof(*s));

	s->token = ++a->next_token;
	hash_insert(&a->sessions, &s->node, slice(&s->token, sizeof(s->token)));
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
		s[i] = session_new(&b.a);
	assert_null(acceptor_over_limit(&b.a, s[0], &one));
	assert_null(acceptor_over_limit(&b.a, s[1], &same));
	assert_non_null(acceptor_over_limit(&b.a, s[2], &one)); /* one network, one client */
	acceptor_session_free(&b.a, s[2]);
	s[2] = session_new(&b.a);
	assert_null(acceptor_over_limit(&b.a, s[2], &other));
	acceptor_session_free(&b.a, s[0]);
	s[0] = session_new(&b.a);
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
		struct session *s = session_new(&b.a);
		assert_int_equal(acceptor_over_limit(&b.a, s, &addr) == NULL, i < 3);
		acceptor_session_free(&b.a, s);
	}
	assert_int_equal(b.a.nquiet, 1);
	b.conf.anvil_rate_time_unit = 0; /* the unit is over */
	struct session *s = session_new(&b.a);
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
		s[i] = session_new(&b.a);
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

static void
test_ends_in_memory(void **state)
{
	struct ends *e = ends_new();
	uint32_t taken = 0;
	uint64_t token;
	unsigned most = 0;

	(void)state;
	assert_non_null(e);
	assert_false(ends_take(e, &taken, &token));
	while (ends_put(e, most))
		most++;
	assert_int_equal(most, 256); /* the next is a message */
	for (uint64_t i = 0; i < 1000; i++) {
		assert_true(ends_take(e, &taken, &token));
		assert_int_equal(token, i);
		assert_true(ends_put(e, most + i));
		assert_false(ends_put(e, 0));
	}
	ends_free(e);
	ends_free(NULL);
}

/* The exit status of a child that writes there: 0, or 1 where it cannot. */
static int
write_as_child(struct ends *e)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		_exit(!ends_put(e, 7));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV ? 1 : status;
}

static void
test_ends_of_one_child_only(void **state)
{
	struct ends *e = ends_new();
	uint32_t taken = 0;
	uint64_t token;

	(void)state;
	assert_int_equal(write_as_child(e), 0);
	assert_true(ends_take(e, &taken, &token));
	assert_int_equal(token, 7);
	ends_keep(e);
	ends_keep(NULL);
	assert_int_equal(write_as_child(e), 1);
	assert_false(ends_take(e, &taken, &token));
	ends_free(e);
}

static void
worker_open(struct bench *b, struct worker *w, struct ends *e)
{
	*w = (struct worker){ .a = &b->a, .ends = e };
	TAILQ_INSERT_TAIL(&b->a.workers, w, next);
	TAILQ_INSERT_TAIL(&b->a.sharing, w, shares);
}

static struct session *
worker_session(struct worker *w)
{
	struct session *s = session_new(w->a);

	s->worker = w;
	w->sessions++;
	return s;
}

/* Who comes back at once after its session has ended is not over the limit. */
static void
test_ends_before_a_limit(void **state)
{
	struct inet_addr one = address("192.0.2.1");
	struct ends *e = ends_new();
	struct session *s;
	struct worker w;
	struct bench b;

	(void)state;
	bench_open(&b);
	b.conf.smtpd_client_connection_count_limit = 1;
	worker_open(&b, &w, e);
	s = worker_session(&w);
	assert_null(acceptor_over_limit(&b.a, s, &one));
	for (int i = 0; i < 3; i++) {
		assert_true(ends_put(e, s->token));
		s = session_new(&b.a);
		assert_null(acceptor_over_limit(&b.a, s, &one));
		assert_int_equal(w.sessions, 0);
		s->worker = &w;
		w.sessions++;
	}
	acceptor_session_free(&b.a, s);
	hash_free(&b.a.clients);
	hash_free(&b.a.sessions);
	ev_timer_free(&w.idle);
	ends_free(e);
}

/* Tokens of others, of nobody and of the past, as many as there is room for. */
static void
test_ends_of_a_liar(void **state)
{
	struct ends *e[2] = { ends_new(), ends_new() };
	struct session *s[2];
	struct worker w[2];
	struct bench b;

	(void)state;
	bench_open(&b);
	for (int i = 0; i < 2; i++) {
		worker_open(&b, &w[i], e[i]);
		s[i] = worker_session(&w[i]);
	}
	for (uint64_t i = 0; ends_put(e[0], i % 2 ? s[1]->token : 1000 + i); i++)
		;
	for (int i = 0; i < 1000; i++)
		acceptor_take_ends(&b.a);
	assert_int_equal(w[0].sessions, 1);
	assert_int_equal(w[1].sessions, 1);
	for (int i = 0; i < 3; i++)
		assert_true(ends_put(e[0], s[0]->token));
	for (int i = 0; i < 9; i++)
		acceptor_take_ends(&b.a);
	assert_int_equal(w[0].sessions, 0);
	assert_int_equal(b.a.sessions.count, 1);
	assert_true(ends_put(e[1], s[1]->token));
	acceptor_take_ends(&b.a);
	assert_int_equal(b.a.sessions.count, 0);
	hash_free(&b.a.sessions);
	for (int i = 0; i < 2; i++) {
		ev_timer_free(&w[i].idle);
		ends_free(e[i]);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_connections_at_once),
		cmocka_unit_test(test_rate), cmocka_unit_test(test_only_its_own_sessions),
		cmocka_unit_test(test_ends_in_memory),
		cmocka_unit_test(test_ends_of_one_child_only),
		cmocka_unit_test(test_ends_before_a_limit), cmocka_unit_test(test_ends_of_a_liar) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
