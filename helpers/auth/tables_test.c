/* Unit tests of auth's tables: tokens, cache, penalties, and of its workers. */
#include "helpers/auth/cache.h"
#include "helpers/auth/penalty.h"
#include "helpers/auth/pool.h"
#include "helpers/auth/token.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static struct account *
account(const char *user)
{
	struct account *a = xcalloc(1, sizeof(*a));

	a->user = slice_str(arena_strdup(&a->arena, user));
	return a;
}

static void
issue(struct tokens *t, const char *service, const void *owner, bool once, int64_t expires,
    unsigned char *out)
{
	struct account *a = account("alice");

	assert_int_equal(tokens_issue(t, service, owner, once, expires, &a, out), 0);
	assert_null(a);
}

#define CHECK(t, b, service, now, taken)                                                           \
	tokens_check(t, slice(b, TOKEN_SIZE), slice_str(service), now, taken)

static void
test_token_is_good_once(void **state)
{
	struct tokens *t = tokens_new();
	unsigned char b[TOKEN_SIZE], other[TOKEN_SIZE];
	struct account *a;
	bool taken;

	(void)state;
	issue(t, "imap", NULL, true, 100, b);
	issue(t, "imap", NULL, true, 100, other);
	a = CHECK(t, b, "imap", 10, &taken);
	assert_non_null(a);
	assert_true(taken);
	assert_true(slice_eq_str(a->user, "alice"));
	account_free(&a);
	assert_null(CHECK(t, b, "imap", 10, &taken));
	b[0] ^= 1;
	assert_null(CHECK(t, b, "imap", 10, &taken));
	assert_null(tokens_check(t, slice(other, 31), SLICE_LIT("imap"), 10, &taken));
	/* another service spoils it */
	assert_null(CHECK(t, other, "pop3", 10, &taken));
	assert_null(CHECK(t, other, "imap", 10, &taken));
	issue(t, "imap", NULL, true, 100, b);
	assert_null(CHECK(t, b, "imap", 100, &taken));
	issue(t, "imap", NULL, true, 100, b);
	assert_int_equal(tokens_sweep(t, 99), 1);
	assert_int_equal(tokens_sweep(t, 100), 0);
	tokens_free(&t);
}

static void
test_token_of_a_session(void **state)
{
	struct tokens *t = tokens_new();
	unsigned char b[TOKEN_SIZE], c[TOKEN_SIZE];
	int owner, stranger;
	bool taken;

	(void)state;
	issue(t, "submission", &owner, false, 1000000, b);
	issue(t, "submission", &stranger, false, 1000000, c);
	assert_non_null(CHECK(t, b, "submission", 10, &taken));
	assert_false(taken);
	assert_non_null(CHECK(t, b, "submission", 999999, &taken));
	tokens_drop(t, &owner, 500);
	assert_non_null(CHECK(t, b, "submission", 499, &taken));
	assert_null(CHECK(t, b, "submission", 500, &taken));
	assert_non_null(CHECK(t, c, "submission", 500, &taken));
	tokens_drop_user(t, SLICE_LIT("Alice"));
	assert_null(CHECK(t, c, "submission", 500, &taken));
	issue(t, "submission", &owner, false, 10, b);
	tokens_free(&t);
}

static void
test_cache(void **state)
{
	struct cache *c = cache_new();
	struct slice u = SLICE_LIT("alice"), v = SLICE_LIT("verifier"), p = SLICE_LIT("secret");

	(void)state;
	cache_put(c, u, v, p, 0);
	assert_false(cache_has(c, u, v, p, 0)); /* no bounds yet: off */
	cache_bounds(c, 2, 100);
	cache_put(c, u, v, p, 0);
	assert_true(cache_has(c, u, v, p, 99));
	assert_false(cache_has(c, u, v, SLICE_LIT("secreT"), 1));
	assert_false(cache_has(c, u, SLICE_LIT("new verifier"), p, 1));
	assert_false(cache_has(c, SLICE_LIT("bob"), v, p, 1));
	assert_false(cache_has(c, SLICE_LIT("alicev"), SLICE_LIT("erifier"), p, 1));
	assert_false(cache_has(c, u, v, p, 100));
	cache_put(c, u, v, p, 200);
	cache_put(c, SLICE_LIT("b"), v, p, 201);
	cache_put(c, SLICE_LIT("c"), v, p, 202);
	assert_false(cache_has(c, u, v, p, 203));
	assert_true(cache_has(c, SLICE_LIT("c"), v, p, 203));
	cache_bounds(c, 2, 200); /* a reload: a longer life leaves what is there */
	assert_true(cache_has(c, SLICE_LIT("c"), v, p, 203));
	cache_bounds(c, 2, 50); /* a shorter one is for those that are there, too */
	assert_false(cache_has(c, SLICE_LIT("c"), v, p, 203));
	cache_put(c, u, v, p, 300);
	assert_true(cache_has(c, u, v, p, 349));
	cache_bounds(c, 1, 50);
	assert_true(cache_has(c, u, v, p, 349));
	cache_bounds(c, 0, 50);
	assert_false(cache_has(c, u, v, p, 301));
	cache_free(&c);
}

static void
test_penalty_grows(void **state)
{
	struct penalties *p = penalties_new(1000);
	struct slice c = SLICE_LIT("192.0.2.1"), u = SLICE_LIT("alice");

	(void)state;
	assert_int_equal(penalty_fail(p, c, u, 2000, 0), 2000);
	assert_int_equal(penalty_fail(p, c, SLICE_LIT("ALICE"), 2000, 1), 4000);
	assert_int_equal(penalty_fail(p, c, u, 2000, 2), 8000);
	assert_int_equal(penalty_fail(p, c, u, 2000, 3), 16000);
	assert_int_equal(penalty_fail(p, c, u, 2000, 4), 16000);
	assert_int_equal(penalty_count(p, c, u, 5), 5);
	assert_int_equal(penalty_fail(p, SLICE_LIT("192.0.2.2"), u, 2000, 5), 2000);
	penalty_ok(p, c, u);
	assert_int_equal(penalty_count(p, c, u, 5), 0);
	assert_int_equal(penalty_fail(p, c, u, 2000, 6), 2000);
	assert_int_equal(penalty_fail(p, c, u, 2000, 7 + 15 * 60 * 1000), 2000);
	penalties_free(&p);
}

static void
test_spraying_slows_down(void **state)
{
	struct penalties *p = penalties_new(30);
	struct slice c = SLICE_LIT("192.0.2.1");
	int64_t last = 0;
	char user[16];

	(void)state;
	for (int i = 0; i < 100; i++) {
		snprintf(user, sizeof(user), "u%d", i);
		last = penalty_fail(p, c, slice_str(user), 2000, i);
		if (i < 10)
			assert_int_equal(last, 2000);
	}
	assert_int_equal(last, 16000);
	penalties_free(&p);
}

static void
test_penalty_client(void **state)
{
	char b[64];

	(void)state;
	assert_true(slice_eq_str(penalty_client(SLICE_LIT("192.0.2.1"), 64, b), "192.0.2.1"));
	assert_true(slice_eq_str(
	    penalty_client(SLICE_LIT("2001:db8:1:2:3:4:5:6"), 64, b), "2001:db8:1:2::"));
	assert_true(slice_eq_str(penalty_client(SLICE_LIT("2001:db8::1"), 128, b), "2001:db8::1"));
	assert_true(slice_eq_str(penalty_client(SLICE_LIT(""), 64, b), ""));
}

struct sum {
	struct job job;
	int in, out;
	int *left;
	struct event_base *base;
};

static void
sum_run(struct job *job)
{
	struct sum *s = (struct sum *)job;

	s->out = s->in * 2;
}

static void
sum_done(struct job *job)
{
	struct sum *s = (struct sum *)job;

	assert_int_equal(s->out, s->in * 2);
	if (--*s->left == 0)
		event_base_loopbreak(s->base);
}

static void
test_pool(void **state)
{
	struct event_base *base = ev_base_new();
	struct pool *pool = pool_new(base, 3);
	struct sum sums[500];
	int left = 500;

	(void)state;
	for (int i = 0; i < 500; i++) {
		sums[i] = (struct sum){ { .run = sum_run, .done = sum_done }, i, 0, &left, base };
		pool_submit(pool, &sums[i].job);
	}
	event_base_dispatch(base);
	assert_int_equal(left, 0);
	assert_int_equal(pool_busy(pool), 0);
	left = 1;
	pool_submit(pool, &sums[0].job);
	pool_free(&pool);
	assert_int_equal(left, 0);
	event_base_free(base);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_token_is_good_once),
		cmocka_unit_test(test_token_of_a_session),
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_penalty_grows),
		cmocka_unit_test(test_spraying_slows_down),
		cmocka_unit_test(test_penalty_client),
		cmocka_unit_test(test_pool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
