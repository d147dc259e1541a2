/* Other programs at work in an open mailbox, where a wrong guess would cost a message. */
#include "store/internal.h"
#include "store/test_util.h"

/* Marked here, taken back by another program that holds no lock: it stays. */
static void
undeleted_before_the_expunge(void **state)
{
	struct fixture *fx = *state;

	put_file(fx, "cur/1.a.h:2,", "A\n");
	put_file(fx, "cur/2.b.h:2,", "B\n");
	struct mailbox *m = box(fx, "INBOX", 0);
	uint32_t uids[] = { 1, 2 };
	struct flag_change c = { .op = FLAG_OP_ADD, .flags = FLAG_DELETED };
	assert_int_equal(mailbox_store_flags(m, uids, 2, &c, NULL, NULL), 0);
	move_file(fx, "cur/1.a.h:2,T", "cur/1.a.h:2,S");
	assert_int_equal(mailbox_expunge(m, uids, 2, FLAG_DELETED), 0);
	assert_true(has_file(fx, "cur/1.a.h:2,S"));
	assert_false(has_file(fx, "cur/2.b.h:2,T"));
	assert_string_equal(sync_text(m, 0), "-2 *1");
	assert_int_equal(mailbox_message(m, 1)->flags, FLAG_SEEN);
	/* Without a flag asked for (POP3), under whatever name it has by now. */
	move_file(fx, "cur/1.a.h:2,S", "cur/1.a.h:2,F");
	assert_int_equal(mailbox_expunge(m, uids, 1, 0), 0);
	assert_string_equal(sync_text(m, 0), "-1");
	assert_false(has_file(fx, "cur/1.a.h:2,F"));
	mailbox_free(&m);
}

/* Two messages under one base name, as a restored backup may hold them: none is written over. */
static void
one_name_twice(void **state)
{
	struct fixture *fx = *state;

	put_file(fx, "new/1.a.h", "in new\n");
	put_file(fx, "cur/1.a.h:2,", "in cur\n");
	struct mailbox *m = box(fx, "INBOX", 0);
	sync_text(m, SYNC_FORCE);
	assert_int_equal(mailbox_count(m), 2);
	assert_string_not_equal(content_text(m, 1), "");
	char *first = strdup(content_text(m, 1));
	assert_string_not_equal(content_text(m, 2), first);
	free(first);
	/* The same with one that is known by its UID. */
	put_file(fx, "cur/2.b.h:2,S", "old\n");
	assert_string_equal(sync_text(m, SYNC_FORCE), "+3");
	put_file(fx, "new/2.b.h:2,S", "new\n");
	sync_text(m, SYNC_FORCE);
	sync_text(m, SYNC_FORCE);
	assert_int_equal(mailbox_count(m), 4);
	mailbox_free(&m);
}

/* Backups and synchronisers leave empty directories out. */
static void
directories_that_are_missing(void **state)
{
	struct fixture *fx = *state;

	assert_int_equal(store_create(fx->s, SLICE_LIT("A"), 0), 0);
	append_text(fx, "A", "x\r\n", 0);
	run("rmdir %s/tmp %s/.A/tmp", fx->root, fx->root);
	run("mkdir %s/.B", fx->root);
	fixture_reopen(fx);
	append_text(fx, "INBOX", "x\r\n", 0);
	append_text(fx, "A", "x\r\n", 0);
	append_text(fx, "B", "x\r\n", 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(undeleted_before_the_expunge),
		T(one_name_twice),
		T(directories_that_are_missing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
