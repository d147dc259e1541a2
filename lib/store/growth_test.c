/* What grows with use stays bounded, and what is long is taken whole. */
#include "store/internal.h"
#include "store/test_util.h"

static void
recent_follows_the_view(void **state)
{
	struct fixture *fx = *state;

	put_file(fx, "new/1.a.h", "A\n");
	put_file(fx, "new/2.b.h", "B\n");
	put_file(fx, "new/3.c.h", "C\n");
	struct mailbox *m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_recent_count(m), 3);
	uint32_t uid = 2;
	assert_int_equal(mailbox_expunge(m, &uid, 1, 0), 0);
	assert_int_equal(mailbox_recent_count(m), 3); /* not told yet */
	assert_string_equal(sync_text(m, 0), "-2");
	assert_int_equal(mailbox_recent_count(m), 2);
	assert_true(mailbox_is_recent(m, 2));
	assert_false(mailbox_is_recent(m, 3));
	put_file(fx, "cur/4.d.h:2,", "D\n");
	put_file(fx, "new/5.e.h", "E\n");
	assert_string_equal(sync_text(m, SYNC_FORCE), "+4");
	assert_int_equal(mailbox_recent_count(m), 3);
	assert_false(mailbox_is_recent(m, 3));
	assert_true(mailbox_is_recent(m, 4));
	/* Another view has none of them, and one that was seen in new/ before is recent too. */
	struct mailbox *b = box(fx, "INBOX", MAILBOX_KEEP_RECENT);
	assert_int_equal(mailbox_recent_count(b), 0);
	mailbox_free(&m);
	put_file(fx, "new/7.g.h", "G\n");
	put_file(fx, "new/6.f.h", "F\n");
	assert_string_equal(sync_text(b, SYNC_FORCE), "+6");
	m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_recent_count(m), 2);
	assert_true(mailbox_is_recent(m, 5) && mailbox_is_recent(m, 6));
	mailbox_free(&m);
	mailbox_free(&b);
}

/* A change of very many messages at once, as a COPY of a whole mailbox is. */
static void
long_commit(void **state)
{
	struct fixture *fx = *state;
	struct buf records = { 0 };
	struct record r = { .type = RECORD_ASSIGN, .modseq = 2, .info = SLICE_LIT(":2,") };
	char name[100];
	enum { COUNT = 200000 };

	struct mailbox *m = box(fx, "INBOX", 0);
	uint32_t validity = mailbox_uidvalidity(m);
	for (r.uid = 1; r.uid <= COUNT; r.uid++) {
		snprintf(name, sizeof(name), "1700000000.M%07uP1234Q1R01234567.mail.example.test",
		    r.uid);
		r.name = slice_str(name);
		journal_put(&records, &r);
	}
	assert_true(buf_len(&records) > 16u << 20);
	assert_int_equal(folder_lock(m->folder), 0);
	assert_int_equal(folder_commit(m->folder, &records, false, NULL), 0);
	folder_unlock(m->folder);
	buf_free(&records);
	assert_int_equal(m->folder->live, COUNT);
	mailbox_free(&m);
	/* It is read again; the next scan finds no file of them. */
	m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_uidvalidity(m), validity);
	assert_int_equal(mailbox_uidnext(m), COUNT + 1);
	mailbox_free(&m);
}

/* Flags go forth and back in a mailbox that stays open. */
static void
open_for_long(void **state)
{
	struct fixture *fx = *state;
	uint32_t uids[100];
	char path[100];
	struct stat st;

	for (unsigned i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "cur/1700%03u.%080u.h:2,", i, i);
		put_file(fx, path, "x\n");
		uids[i] = i + 1;
	}
	struct mailbox *m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_count(m), 100);
	for (int i = 0; i < 60; i++) {
		struct flag_change c = { .op = i % 2 ? FLAG_OP_REMOVE : FLAG_OP_ADD,
			.flags = FLAG_SEEN };
		assert_int_equal(mailbox_store_flags(m, uids, 100, &c, NULL, NULL), 0);
	}
	assert_true(m->folder->names_len < 3 * 100 * 100);
	snprintf(path, sizeof(path), "%s/bh-journal", fx->root);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size < 80000); /* of 6000 changes, without a rest */
	store_flush(fx->s);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size < 20000);
	/* The session goes on with the new journal. */
	uint64_t modseq = mailbox_highestmodseq(m);
	struct flag_change c = { .op = FLAG_OP_ADD, .flags = FLAG_FLAGGED };
	assert_int_equal(mailbox_store_flags(m, uids, 1, &c, NULL, NULL), 0);
	assert_string_equal(sync_text(m, 0), "");
	assert_true(mailbox_highestmodseq(m) > modseq);
	mailbox_free(&m);
	fixture_reopen(fx);
	m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_message(m, 1)->flags, FLAG_FLAGGED);
	assert_int_equal(mailbox_message(m, 2)->flags, 0);
	mailbox_free(&m);
}

/* Flags go forth and back, and a view of the same mailbox says nothing. */
static void
silent_view(void **state)
{
	struct fixture *fx = *state;
	uint32_t uids[500];
	char path[100];

	for (unsigned i = 0; i < 500; i++) {
		snprintf(path, sizeof(path), "cur/1700%03u.h:2,", i);
		put_file(fx, path, "x\n");
		uids[i] = i + 1;
	}
	struct mailbox *m = box(fx, "INBOX", 0), *silent = box(fx, "INBOX", 0);
	for (int i = 0; i < 101; i++) {
		struct flag_change c = { .op = i % 2 ? FLAG_OP_REMOVE : FLAG_OP_ADD,
			.flags = FLAG_SEEN };
		assert_int_equal(mailbox_store_flags(m, uids, i ? 500 : 2, &c, NULL, NULL), 0);
	}
	assert_true(m->folder->change_size <= 32768);
	assert_true(silent->changed.size <= 32768);
	assert_int_equal(mailbox_expunge(m, uids + 1, 498, 0), 0);
	assert_string_equal(sync_text(silent, SYNC_NO_EXPUNGE), "*1 *500");
	assert_int_equal(mailbox_message(silent, 1)->flags, FLAG_SEEN);
	mailbox_free(&m);
	mailbox_free(&silent);
}

/* What is subscribed to can always be read again. */
static void
very_many_subscriptions(void **state)
{
	struct fixture *fx = *state;
	struct buf text = { 0 };
	struct store_list l;
	char name[256];
	int rc = 0;

	buf_add_str(&text, "V\t2\n\n");
	for (unsigned i = 0; buf_len(&text) < (4u << 20) - 1000; i++)
		buf_addf(&text, "%0240u\n", i);
	buf_add_byte(&text, 0);
	put_file(fx, "subscriptions", (const char *)buf_slice(&text).p);
	buf_free(&text);
	for (unsigned i = 0; i < 10 && rc == 0; i++) {
		snprintf(name, sizeof(name), "a%0240u", i);
		rc = store_subscribe(fx->s, slice_str(name), true);
	}
	assert_int_equal(rc, ERR_LIMIT);
	assert_int_equal(store_list(fx->s, &l), 0);
	store_list_free(&l);
	assert_int_equal(store_subscribe(fx->s, SLICE_LIT("a0"), false), 0);
}

/* A length that rots in the middle of the journal: no UID is given out twice. */
static void
rotten_length(void **state)
{
	struct fixture *fx = *state;
	char path[100];
	unsigned char byte;

	put_file(fx, "dovecot-uidlist", "3 V4000000000 N1 G0\n");
	append_text(fx, "INBOX", "one\r\n", 0);
	struct mailbox *m = box(fx, "INBOX", 0);
	uint32_t validity = mailbox_uidvalidity(m);
	mailbox_free(&m);
	snprintf(path, sizeof(path), "%s/bh-journal", fx->root);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	append_text(fx, "INBOX", "two\r\n", 0);
	append_text(fx, "INBOX", "three\r\n", 0);
	append_text(fx, "INBOX", "four\r\n", 0);
	store_free(&fx->s);
	int fd = open(path, O_RDWR);
	assert_int_equal(pread(fd, &byte, 1, st.st_size + 2), 1);
	byte ^= 0x40; /* of the length of the second append's frame */
	assert_int_equal(pwrite(fd, &byte, 1, st.st_size + 2), 1);
	close(fd);
	run("rm -rf %s/bh-index", fx->root);
	fixture_open(fx);
	m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_count(m), 4);
	assert_true(mailbox_uidvalidity(m) > validity);
	mailbox_free(&m);
}

/* What a session that died left in tmp/ goes, what is under way stays. */
static void
old_files_in_tmp(void **state)
{
	struct fixture *fx = *state;
	struct timespec old[2] = { { .tv_sec = time(NULL) - 40 * 3600 },
		{ .tv_sec = time(NULL) - 40 * 3600 } };
	struct timespec dated[2] = { { .tv_nsec = UTIME_NOW }, old[1] };
	char path[100];

	put_file(fx, "tmp/left", "x");
	put_file(fx, "tmp/dated", "x");
	put_file(fx, "tmp/fresh", "x");
	snprintf(path, sizeof(path), "%s/tmp/left", fx->root);
	assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
	snprintf(path, sizeof(path), "%s/tmp/dated", fx->root);
	assert_int_equal(utimensat(AT_FDCWD, path, dated, 0), 0);
	struct mailbox *m = box(fx, "INBOX", 0);
	assert_false(has_file(fx, "tmp/left"));
	assert_true(has_file(fx, "tmp/dated"));
	assert_true(has_file(fx, "tmp/fresh"));
	mailbox_free(&m);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(recent_follows_the_view),
		T(long_commit),
		T(open_for_long),
		T(silent_view),
		T(very_many_subscriptions),
		T(rotten_length),
		T(old_files_in_tmp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
