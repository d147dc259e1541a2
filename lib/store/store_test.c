/* An open mailbox: new mail, flags, keywords, foreign changes, limits, two processes. */
#include "store/test_util.h"

static void
new_mail_gets_uids(void **state)
{
	struct fixture *fx = *state;

	put_file(fx, "new/1000.b.h", "B\n");
	put_file(fx, "new/999.a.h", "A\n");
	put_file(fx, "cur/1001.c.h:2,FS", "C\r\n");
	struct mailbox *m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_count(m), 3);
	assert_int_equal(mailbox_uid(m, 1), 1);
	assert_int_equal(mailbox_uidnext(m), 4);
	assert_string_equal(content_text(m, 1), "A\r\n");
	assert_string_equal(content_text(m, 2), "B\r\n");
	assert_string_equal(content_text(m, 3), "C\r\n");
	assert_int_equal(mailbox_message(m, 3)->flags, FLAG_SEEN | FLAG_FLAGGED);
	assert_int_equal(mailbox_recent_count(m), 2);
	assert_int_equal(mailbox_first_unseen(m), 1);
	assert_true(has_file(fx, "cur/999.a.h:2,"));
	uint32_t validity = mailbox_uidvalidity(m);
	put_file(fx, "new/1002.d.h", "D\n");
	assert_string_equal(sync_text(m, 0), "+4");
	assert_string_equal(sync_text(m, 0), "");
	uint64_t modseq = mailbox_highestmodseq(m);
	mailbox_free(&m);
	fixture_reopen(fx);
	m = box(fx, "inbox", 0);
	assert_int_equal(mailbox_uidvalidity(m), validity);
	assert_int_equal(mailbox_count(m), 4);
	assert_true(mailbox_highestmodseq(m) == modseq);
	assert_int_equal(mailbox_recent_count(m), 0);
	mailbox_free(&m);
}

static void
read_only_leaves_new(void **state)
{
	struct fixture *fx = *state;

	put_file(fx, "new/1.a.h", "A\n");
	struct mailbox *m = box(fx, "INBOX", MAILBOX_READ_ONLY);
	assert_int_equal(mailbox_count(m), 1);
	assert_true(has_file(fx, "new/1.a.h"));
	uint32_t uid = mailbox_uid(m, 1);
	struct flag_change c = { .op = FLAG_OP_ADD, .flags = FLAG_SEEN };
	assert_int_equal(mailbox_store_flags(m, &uid, 1, &c, NULL, NULL), ERR_DENIED);
	assert_int_equal(mailbox_expunge(m, &uid, 1, 0), ERR_DENIED);
	mailbox_free(&m);
	m = box(fx, "INBOX", MAILBOX_KEEP_RECENT);
	assert_true(has_file(fx, "new/1.a.h"));
	assert_int_equal(mailbox_store_flags(m, &uid, 1, &c, NULL, NULL), 0);
	assert_true(has_file(fx, "cur/1.a.h:2,S"));
	mailbox_free(&m);
	m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_uid(m, 1), uid);
	mailbox_free(&m);
}

static void
flags_between_views(void **state)
{
	struct fixture *fx = *state;
	struct uid_list changed = { 0 }, modified = { 0 };

	for (int i = 0; i < 3; i++)
		append_text(fx, "INBOX", "x\r\n", 0);
	struct mailbox *a = box(fx, "INBOX", 0), *b = box(fx, "INBOX", 0);
	uint32_t uids[] = { 1, 3, 99 };
	struct flag_change c = { .op = FLAG_OP_ADD, .flags = FLAG_SEEN | FLAG_DELETED };
	assert_int_equal(mailbox_store_flags(a, uids, 3, &c, &changed, NULL), 0);
	assert_int_equal(changed.count, 2);
	assert_string_equal(sync_text(a, 0), "");
	assert_string_equal(sync_text(b, 0), "*1 *3");
	uint64_t modseq = mailbox_highestmodseq(b);
	assert_true(mailbox_message(b, 1)->modseq == modseq);

	/* UNCHANGEDSINCE */
	c = (struct flag_change){ .op = FLAG_OP_REMOVE,
		.flags = FLAG_SEEN,
		.conditional = true,
		.unchangedsince = modseq - 1 };
	assert_int_equal(mailbox_store_flags(a, uids, 2, &c, NULL, &modified), 0);
	assert_int_equal(modified.count, 2);
	c.unchangedsince = modseq;
	modified.count = 0;
	assert_int_equal(mailbox_store_flags(a, uids, 2, &c, NULL, &modified), 0);
	assert_int_equal(modified.count, 0);
	assert_int_equal(mailbox_message(a, 1)->flags, FLAG_DELETED);

	/* expunge by one, told to both in their own time */
	assert_int_equal(mailbox_expunge(a, uids, 2, 0), 0);
	assert_string_equal(sync_text(b, SYNC_NO_EXPUNGE), "");
	assert_int_equal(mailbox_count(b), 3);
	assert_null(mailbox_message(b, 1));
	append_text(fx, "INBOX", "new\r\n", FLAG_SEEN);
	assert_string_equal(sync_text(b, SYNC_NO_EXPUNGE), "+4");
	assert_string_equal(sync_text(b, 0), "-3 -1");
	assert_string_equal(sync_text(a, 0), "-3 -1 +2");
	assert_int_equal(mailbox_uid(b, 1), 2);
	struct uid_list gone;
	assert_int_equal(mailbox_vanished(b, modseq, &gone), 0);
	assert_int_equal(gone.count, 2);
	assert_int_equal(gone.uids[1], 3);
	uid_list_free(&gone);
	mailbox_free(&a);
	mailbox_free(&b);
	uid_list_free(&changed);
	uid_list_free(&modified);
}

static void
foreign_changes(void **state)
{
	struct fixture *fx = *state;

	put_file(fx, "cur/1.a.h:2,", "A\n");
	put_file(fx, "cur/2.b.h:2,", "B\n");
	put_file(fx, "cur/3.c.h:2,", "C\n");
	struct mailbox *m = box(fx, "INBOX", 0);
	move_file(fx, "cur/2.b.h:2,", "cur/2.b.h:2,RS");
	assert_string_equal(sync_text(m, 0), "*2");
	assert_int_equal(mailbox_message(m, 2)->flags, FLAG_ANSWERED | FLAG_SEEN);
	uint64_t modseq = mailbox_message(m, 2)->modseq;
	assert_true(modseq > mailbox_message(m, 1)->modseq);
	/* renamed without a sync in between, then read and changed */
	move_file(fx, "cur/2.b.h:2,RS", "cur/2.b.h:2,FRS");
	assert_string_equal(content_text(m, 2), "B\r\n");
	move_file(fx, "cur/3.c.h:2,", "cur/3.c.h:2,S");
	uint32_t uid = 3;
	struct flag_change c = { .op = FLAG_OP_ADD, .flags = FLAG_FLAGGED };
	assert_int_equal(mailbox_store_flags(m, &uid, 1, &c, NULL, NULL), 0);
	assert_true(has_file(fx, "cur/3.c.h:2,FS"));
	assert_string_equal(sync_text(m, 0), "*2 *3");
	run("rm %s/cur/1.a.h:2,", fx->root);
	put_file(fx, "new/4.d.h", "D\n");
	assert_string_equal(sync_text(m, 0), "-1 +3");
	/* the same name again is another message */
	put_file(fx, "cur/1.a.h:2,", "A\n");
	assert_string_equal(sync_text(m, 0), "+4");
	assert_int_equal(mailbox_uid(m, 4), 5);
	/* removed and expunged at once */
	run("rm %s/cur/1.a.h:2,", fx->root);
	uid = 5;
	assert_int_equal(mailbox_expunge(m, &uid, 1, 0), 0);
	assert_string_equal(sync_text(m, 0), "-4");
	/* what is no file is no message */
	run("ln -s /etc/passwd %s/cur/9.link:2, && mkdir %s/cur/9.dir && mkfifo %s/new/9.fifo",
	    fx->root, fx->root, fx->root);
	assert_string_equal(sync_text(m, SYNC_FORCE), "");
	/* a copy by hand with other flags: a message of its own; a second link goes */
	run("cp %s/cur/2.b.h:2,FRS %s/cur/2.b.h:2,S", fx->root, fx->root);
	sync_text(m, SYNC_FORCE);
	sync_text(m, 0);
	assert_int_equal(mailbox_count(m), 4);
	run("ln %s/cur/3.c.h:2,FS %s/cur/3.c.h:2,T", fx->root, fx->root);
	sync_text(m, SYNC_FORCE);
	assert_int_equal(mailbox_count(m), 4);
	mailbox_free(&m);
}

/* The folder must end the same whatever inotify says. */
static void
without_inotify(void **state)
{
	struct fixture *fx = *state;

	close(store_watch_fd(fx->s)); /* every call on it fails from now on */
	put_file(fx, "cur/1.a.h:2,", "A\n");
	struct mailbox *m = box(fx, "INBOX", 0);
	move_file(fx, "cur/1.a.h:2,", "cur/1.a.h:2,S");
	assert_string_equal(sync_text(m, 0), "*1");
	assert_true(store_unwatched(fx->s));
	put_file(fx, "new/2.b.h", "B\n");
	assert_string_equal(sync_text(m, 0), "+2");
	usleep(30000);
	assert_string_equal(sync_text(m, 0), "");
	put_file(fx, "new/3.c.h", "C\n");
	run("rm %s/cur/1.a.h:2,S", fx->root);
	assert_string_equal(sync_text(m, 0), "-1 +2");
	mailbox_free(&m);
	assert_int_equal(open("/dev/null", O_RDONLY), store_watch_fd(fx->s));
}

static void
keywords(void **state)
{
	struct fixture *fx = *state;
	char name[32];

	append_text(fx, "INBOX", "x\r\n", 0);
	append_text(fx, "INBOX", "y\r\n", 0);
	struct mailbox *m = box(fx, "INBOX", 0), *other = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_keyword_index(m, SLICE_LIT("$Junk"), false), -1);
	for (int i = 0; i < STORE_KEYWORDS; i++) {
		snprintf(name, sizeof(name), "$kw%d", i);
		assert_int_equal(mailbox_keyword_index(m, slice_str(name), true), i);
	}
	assert_int_equal(mailbox_keyword_index(m, SLICE_LIT("more"), true), ERR_LIMIT);
	assert_int_equal(mailbox_keyword_index(m, SLICE_LIT("$KW3"), false), 3);
	assert_int_equal(mailbox_keyword_index(m, SLICE_LIT("a b"), true), ERR_SYNTAX);
	uint32_t uid = 2;
	struct flag_change c = { .op = FLAG_OP_ADD, .keywords = 1ull << 2 | 1ull << 40 };
	assert_int_equal(mailbox_store_flags(m, &uid, 1, &c, NULL, NULL), 0);
	assert_string_equal(sync_text(other, 0), "k0 *2");
	mailbox_free(&m);
	mailbox_free(&other);
	run("rm -rf %s/bh-index", fx->root);
	fixture_reopen(fx);
	m = box(fx, "INBOX", 0);
	assert_true(mailbox_message(m, 2)->keywords == c.keywords);
	assert_string_equal(mailbox_keyword(m, 40), "$kw40");
	run("grep -q '^2 $kw2$' %s/dovecot-keywords", fx->root);
	/* the letter is in the name, a foreign program may take it away; the 41st is not */
	run("mv %s/cur/*:2,c $(echo %s/cur/*:2,c | sed 's/c$//')", fx->root, fx->root);
	assert_string_equal(sync_text(m, 0), "*2");
	assert_true(mailbox_message(m, 2)->keywords == 1ull << 40);
	mailbox_free(&m);
}

static void
limits(void **state)
{
	struct fixture *fx = *state;
	struct store_options o = { .quota_bytes = 10, .message_limit = 8 };
	struct append_info info = { 0 };
	struct append *a;
	struct copy_result r;

	append_text(fx, "INBOX", "12345\r\n", 0);
	store_free(&fx->s);
	assert_int_equal(store_open(fx->root, &o, &fx->s), 0);
	uint64_t bytes, messages;
	assert_int_equal(store_usage(fx->s, &bytes, &messages), 0);
	assert_int_equal(bytes, 7);
	assert_int_equal(messages, 1);
	assert_int_equal(append_begin(fx->s, SLICE_LIT("INBOX"), &info, 4, &a), ERR_LIMIT);
	assert_int_equal(append_begin(fx->s, SLICE_LIT("INBOX"), &info, 9, &a), ERR_LIMIT);
	assert_int_equal(append_begin(fx->s, SLICE_LIT("INBOX"), &info, 3, &a), 0);
	assert_int_equal(append_write(a, SLICE_LIT("123456789")), ERR_LIMIT);
	append_free(&a);
	struct mailbox *m = box(fx, "INBOX", 0);
	uint32_t uid = 1;
	assert_int_equal(mailbox_copy(m, &uid, 1, SLICE_LIT("INBOX"), false, &r), ERR_LIMIT);
	copy_result_free(&r);
	mailbox_free(&m);
}

static void
two_processes(void **state)
{
	struct fixture *fx = *state, second = *fx;

	append_text(fx, "INBOX", "x\r\n", 0);
	fixture_open(&second); /* a second store: as another process has it */
	struct mailbox *a = box(fx, "INBOX", 0), *b = box(&second, "INBOX", 0);
	uint32_t uid = append_text(&second, "INBOX", "y\r\n", 0);
	assert_int_equal(uid, 2);
	assert_string_equal(sync_text(a, 0), "+2");
	assert_int_equal(append_text(fx, "INBOX", "z\r\n", 0), 3);
	struct flag_change c = { .op = FLAG_OP_ADD, .flags = FLAG_SEEN };
	assert_int_equal(mailbox_store_flags(b, &uid, 1, &c, NULL, NULL), 0);
	assert_int_equal(mailbox_expunge(a, (uint32_t[]){ 1 }, 1, 0), 0);
	assert_string_equal(sync_text(a, 0), "-1 *1 +2");
	assert_string_equal(sync_text(b, 0), "-1 +2");
	mailbox_free(&a);
	mailbox_free(&b);
	store_free(&second.s);
}

static void
meta_and_uidl(void **state)
{
	struct fixture *fx = *state;
	struct buf b = { 0 };

	struct mailbox *m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_meta_set(m, SLICE_LIT("/private/comment"), SLICE_LIT("hi")), 0);
	assert_int_equal(mailbox_meta_set(m, SLICE_LIT("k"), SLICE_LIT("v")), 0);
	assert_int_equal(mailbox_meta_set(m, SLICE_LIT("k"), SLICE_NULL), 0);
	mailbox_free(&m);
	fixture_reopen(fx);
	m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_meta_get(m, SLICE_LIT("/private/comment"), &b), 0);
	assert_true(slice_eq_str(buf_slice(&b), "hi"));
	assert_int_equal(mailbox_meta_get(m, SLICE_LIT("k"), &b), ERR_NOT_FOUND);
	assert_int_equal(mailbox_pop3_uidl(m, 1, &b), ERR_NOT_FOUND);
	mailbox_free(&m);
	buf_free(&b);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(new_mail_gets_uids),
		T(read_only_leaves_new),
		T(flags_between_views),
		T(foreign_changes),
		T(without_inotify),
		T(keywords),
		T(limits),
		T(two_processes),
		T(meta_and_uidl),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
