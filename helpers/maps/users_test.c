/* Unit tests of the cache of users: which of those that wait are told of an answer. */
#include "helpers/maps/users.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

struct world {
	struct daemon d;
	struct users_cache *users;
	struct users_waiters ready;
	struct arena arena;
	size_t told;
};

static void
on_answer(void *ctx, struct users_waiters *waiters)
{
	struct world *w = ctx;

	w->told++;
	users_waiters_move(waiters, &w->ready);
}

static int
ask(struct world *w, const char *name)
{
	struct resolve_user user;

	return users_ask(w->users, USERS_NSS, slice_str(name), &w->arena, &user);
}

static void
say(struct world *w, uint32_t id, uint8_t status)
{
	struct msg m = MSG_INIT(MSG_NSS_USER, id);

	m.nss_user.status = status;
	m.nss_user.name = SLICE_LIT("ann");
	users_answer(w->users, &m);
}

/* Questions are numbered from 1. */
static void
test_only_those_that_wait_for_it(void **state)
{
	struct conf conf = { .user_lookup_timeout = 10000 };
	struct world w = { .d = { .base = event_base_new(), .conf = &conf } };
	struct users_waiter ann[3] = { { .list = NULL } }, bob = { .list = NULL };

	(void)state;
	TAILQ_INIT(&w.ready);
	w.users = users_new(&w.d, on_answer, &w);
	assert_int_equal(ask(&w, "ann"), -EAGAIN);
	users_wait(w.users, &ann[0]);
	assert_int_equal(ask(&w, "bob"), -EAGAIN);
	users_wait(w.users, &bob);
	for (size_t i = 1; i < 3; i++) {
		assert_int_equal(ask(&w, "ann"), -EAGAIN);
		users_wait(w.users, &ann[i]);
	}
	users_waiter_drop(&ann[1]); /* its asker has gone */
	say(&w, 3, 0);
	assert_int_equal(w.told, 0);
	say(&w, 1, 0);
	assert_int_equal(w.told, 1);
	assert_ptr_equal(TAILQ_FIRST(&w.ready), &ann[0]);
	assert_ptr_equal(TAILQ_NEXT(&ann[0], next), &ann[2]);
	assert_null(TAILQ_NEXT(&ann[2], next));
	assert_int_equal(ask(&w, "ann"), 0);
	assert_int_equal(ask(&w, "bob"), -EAGAIN);

	users_waiter_drop(&ann[0]);
	users_waiter_drop(&ann[2]);
	users_waiter_drop(&ann[2]); /* on no list */
	assert_true(TAILQ_EMPTY(&w.ready));
	say(&w, 1, 0); /* nobody waits for it any more */
	assert_int_equal(w.told, 1);
	say(&w, 2, 1);
	assert_ptr_equal(TAILQ_FIRST(&w.ready), &bob);
	assert_int_equal(ask(&w, "bob"), ERR_NOT_FOUND);
	users_free(&w.users);
	arena_free(&w.arena);
	event_base_free(w.d.base);
}

/* One more than a source takes at once waits for an answer to another; all get theirs. */
static void
test_questions_come_in_turns(void **state)
{
	struct conf conf = { .user_lookup_timeout = 10000 };
	struct world w = { .d = { .base = event_base_new(), .conf = &conf } };
	struct users_waiter waiters[258] = { { .list = NULL } };
	char name[16];
	size_t n, pending;

	(void)state;
	TAILQ_INIT(&w.ready);
	w.users = users_new(&w.d, on_answer, &w);
	for (unsigned i = 0; i < 258; i++) {
		snprintf(name, sizeof(name), "user%u", i);
		assert_int_equal(ask(&w, name), -EAGAIN);
		users_wait(w.users, &waiters[i]);
	}
	say(&w, 257, 1); /* has not been asked */
	assert_int_equal(w.told, 0);
	say(&w, 2, 1);
	say(&w, 258, 1); /* nor has this one yet */
	assert_int_equal(w.told, 1);
	say(&w, 257, 1);
	say(&w, 258, 1);
	assert_int_equal(w.told, 3);
	users_count(w.users, &n, &pending);
	assert_int_equal(n, 258);
	assert_int_equal(pending, 255);
	users_free(&w.users);
	arena_free(&w.arena);
	event_base_free(w.d.base);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_those_that_wait_for_it),
		cmocka_unit_test(test_questions_come_in_turns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
