/*
 * What a crash may leave behind: the journal cut at every byte, the index gone or scribbled over, a
 * journal that is damaged or missing, a process killed at a random moment of its work.
 */
#include "store/test_util.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static void
copy_tree(struct fixture *fx, char *to)
{
	strcpy(to, "/tmp/bh-store-XXXXXX");
	assert_non_null(mkdtemp(to));
	run("cp -a %s/. %s/", fx->root, to);
}

static size_t
journal_size(const char *root)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/bh-journal", root);
	assert_int_equal(stat(path, &st), 0);
	return (size_t)st.st_size;
}

static void
history(struct fixture *fx)
{
	struct flag_change c = { .op = FLAG_OP_ADD, .flags = FLAG_FLAGGED };

	for (int i = 0; i < 4; i++)
		append_text(fx, "INBOX", "x\r\n", 0);
	struct mailbox *m = box(fx, "INBOX", 0);
	uint32_t uids[] = { 2, 3 };
	assert_int_equal(mailbox_store_flags(m, uids, 2, &c, NULL, NULL), 0);
	assert_int_equal(mailbox_expunge(m, uids, 1, 0), 0);
	mailbox_free(&m);
}

/* Whatever was cut off: every file is a message, no UID stands for two files, flags are as on disk.
 */
static void
cut_at_every_byte(void **state)
{
	struct fixture *fx = *state, copy = { 0 };

	history(fx);
	size_t size = journal_size(fx->root);
	copy_tree(fx, copy.root);
	for (size_t cut = size + 1; cut-- > 0;) {
		char path[128];
		run("cp %s/bh-journal %s/bh-journal && rm -f %s/bh-journal.*", fx->root, copy.root,
		    copy.root);
		snprintf(path, sizeof(path), "%s/bh-journal", copy.root);
		assert_int_equal(truncate(path, (off_t)cut), 0);
		fixture_open(&copy);
		struct mailbox *m = box(&copy, "INBOX", 0);
		assert_int_equal(mailbox_count(m), 3);
		for (uint32_t seq = 1; seq <= 3; seq++) {
			assert_true(mailbox_uid(m, seq) > mailbox_uid(m, seq - 1));
			assert_string_equal(content_text(m, mailbox_uid(m, seq)), "x\r\n");
		}
		assert_int_equal(mailbox_message(m, 2)->flags, FLAG_FLAGGED);
		if (cut == size)
			assert_int_equal(mailbox_uid(m, 3), 4);
		/* and it goes on from there */
		append_text(&copy, "INBOX", "y\r\n", 0);
		assert_string_equal(sync_text(m, 0), "+4");
		uint32_t uid = mailbox_uid(m, 4);
		assert_int_equal(mailbox_expunge(m, &uid, 1, 0), 0);
		mailbox_free(&m);
		store_free(&copy.s);
	}
	run("rm -rf %s", copy.root);
}

static void
index_gone(void **state)
{
	struct fixture *fx = *state;
	static const char *const harm[] = {
		"rm -rf %s/bh-index",
		"rm -f %s/bh-index/lock.mdb",
		"rm -f %s/bh-index/data.mdb",
		"truncate -s 0 %s/bh-index/data.mdb",
		"truncate -s 5000 %s/bh-index/data.mdb",
		"head -c 8192 /dev/urandom > %s/bh-index/data.mdb",
		"rm -rf %s/bh-index; touch %s/bh-index",
	};

	history(fx);
	struct mailbox *m = box(fx, "INBOX", 0);
	uint64_t modseq = mailbox_highestmodseq(m);
	uint32_t validity = mailbox_uidvalidity(m);
	mailbox_free(&m);
	for (size_t i = 0; i < sizeof(harm) / sizeof(harm[0]); i++) {
		store_free(&fx->s);
		run(harm[i], fx->root, fx->root);
		fixture_open(fx);
		m = box(fx, "INBOX", 0);
		assert_int_equal(mailbox_uidvalidity(m), validity);
		assert_true(mailbox_highestmodseq(m) == modseq);
		assert_int_equal(mailbox_count(m), 3);
		assert_int_equal(mailbox_uid(m, 2), 3);
		mailbox_cache_put(m, 3, 1, SLICE_LIT("blob"));
		/* deleted while it is in use, too */
		run("rm -rf %s/bh-index", fx->root);
		mailbox_cache_put(m, 4, 1, SLICE_LIT("blob"));
		store_flush(fx->s);
		mailbox_free(&m);
		fixture_reopen(fx); /* made anew for the next harm */
	}
}

static void
journal_damaged(void **state)
{
	struct fixture *fx = *state;
	char path[128];

	history(fx);
	struct mailbox *m = box(fx, "INBOX", 0);
	uint32_t validity = mailbox_uidvalidity(m);
	mailbox_free(&m);
	store_free(&fx->s);
	snprintf(path, sizeof(path), "%s/bh-journal", fx->root);
	int fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, "\377\377", 2, 60), 2);
	close(fd);
	fixture_open(fx);
	m = box(fx, "INBOX", 0);
	assert_true(mailbox_uidvalidity(m) > validity); /* no UID can mean another message */
	assert_int_equal(mailbox_count(m), 3);
	run("ls %s/bh-journal.damaged.* > /dev/null", fx->root);
	mailbox_free(&m);
	/* and gone */
	store_free(&fx->s);
	run("rm %s/bh-journal", fx->root);
	fixture_open(fx);
	m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_count(m), 3);
	mailbox_free(&m);
}

static void
work_until_killed(const char *root, int out)
{
	struct store *s;
	struct mailbox *m;
	struct append_info info = { 0 };
	struct append *a;
	struct copy_result r;

	if (store_open(root, NULL, &s) < 0 || mailbox_open(s, SLICE_LIT("INBOX"), 0, &m) < 0)
		_exit(1);
	for (uint32_t i = 0;; i++) {
		char text[32];
		snprintf(text, sizeof(text), "message %u\r\n", i);
		if (append_begin(s, SLICE_LIT("INBOX"), &info, 0, &a) < 0 ||
		    append_write(a, slice_str(text)) < 0 || append_finish(&a, 1, &r) < 0)
			_exit(2);
		uint32_t said[2] = { r.to.uids[0], i };
		if (write(out, said, sizeof(said)) != sizeof(said))
			_exit(3);
		copy_result_free(&r);
		if (mailbox_sync(m, 0, NULL, NULL) < 0)
			_exit(4);
		if (i % 3 == 2) { /* the one before goes to the other folder */
			uint32_t uid = said[0] - 1;
			if (mailbox_copy(m, &uid, 1, SLICE_LIT("B"), true, &r) < 0)
				_exit(5);
			copy_result_free(&r);
		}
	}
}

static unsigned
find_messages(struct fixture *fx, const char *folder, unsigned char *found, const uint32_t *uid_of)
{
	struct mailbox *m = box(fx, folder, 0);
	unsigned n = mailbox_count(m), number;

	for (uint32_t seq = 1; seq <= n; seq++) {
		uint32_t uid = mailbox_uid(m, seq);
		assert_int_equal(sscanf(content_text(m, uid), "message %u\r\n", &number), 1);
		assert_true(number < 100000);
		found[number]++;
		if (uid_of && uid_of[number]) /* told to the client: must still be so */
			assert_int_equal(uid_of[number], uid);
	}
	mailbox_free(&m);
	return n;
}

static void
killed_at_work(void **state)
{
	struct fixture *fx = *state;

	assert_int_equal(store_create(fx->s, SLICE_LIT("B"), 0), 0);
	for (int round = 0; round < 12; round++) {
		int p[2];
		uint32_t said[2], count = 0;
		static unsigned char found[100000];
		static uint32_t uid_of[100000];
		memset(found, 0, sizeof(found));
		memset(uid_of, 0, sizeof(uid_of));
		store_free(&fx->s);
		run("rm -f %s/cur/* %s/.B/cur/*", fx->root, fx->root);
		assert_int_equal(pipe(p), 0);
		pid_t pid = fork();
		if (pid == 0) {
			close(p[0]);
			work_until_killed(fx->root, p[1]);
		}
		close(p[1]);
		usleep((useconds_t)(20000 + round * 3777));
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		while (read(p[0], said, sizeof(said)) == sizeof(said)) {
			uid_of[said[1]] = said[0];
			count = said[1] + 1;
		}
		close(p[0]);
		fixture_open(fx);
		find_messages(fx, "INBOX", found, uid_of);
		find_messages(fx, "B", found, NULL);
		for (uint32_t i = 0; i < count; i++)
			assert_int_equal(found[i], 1); /* not lost, not twice */
	}
}

static void
compaction(void **state)
{
	struct fixture *fx = *state, second = *fx;
	struct flag_change on = { .op = FLAG_OP_ADD, .flags = FLAG_SEEN };
	struct flag_change off = { .op = FLAG_OP_REMOVE, .flags = FLAG_SEEN };

	for (int i = 0; i < 10; i++)
		append_text(fx, "INBOX", "x\r\n", 0);
	struct mailbox *m = box(fx, "INBOX", 0);
	uint32_t uids[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 };
	for (int i = 0; i < 50; i++) { /* two less than a compaction takes */
		assert_int_equal(mailbox_store_flags(m, uids, 10, &on, NULL, NULL), 0);
		assert_int_equal(
		    mailbox_store_flags(m, uids, i < 49 ? 10 : 8, &off, NULL, NULL), 0);
	}
	fixture_open(&second); /* another process holds the folder meanwhile */
	struct mailbox *other = box(&second, "INBOX", 0), *third = box(&second, "INBOX", 0);
	assert_int_equal(mailbox_store_flags(third, uids + 4, 1, &on, NULL, NULL), 0);
	mailbox_free(&third);
	assert_int_equal(mailbox_expunge(m, uids, 1, 0), 0);
	uint64_t modseq = (sync_text(m, 0), mailbox_highestmodseq(m));
	size_t before = journal_size(fx->root);
	mailbox_free(&m); /* compacts */
	assert_true(journal_size(fx->root) < before / 10);
	m = box(fx, "INBOX", 0);
	assert_true(mailbox_highestmodseq(m) == modseq);
	assert_int_equal(mailbox_uid(m, 1), 2);
	struct uid_list gone;
	assert_int_equal(mailbox_vanished(m, modseq - 1, &gone), 0);
	assert_int_equal(gone.count, 1);
	uid_list_free(&gone);
	assert_int_equal(mailbox_store_flags(m, uids, 3, &on, NULL, NULL), 0);
	assert_int_equal(append_text(&second, "INBOX", "z\r\n", 0), 11);
	/* What it was not told of before the new journal came is told with the rest. */
	assert_string_equal(sync_text(other, 0), "-1 *1 *2 *4 +10");
	assert_int_equal(mailbox_count(other), 10);
	assert_int_equal(mailbox_message(other, 1)->flags, FLAG_SEEN);
	mailbox_free(&m);
	mailbox_free(&other);
	store_free(&second.s);
}

/* Another process found the journal damaged and made a new one: open views end, nothing mixes. */
static void
journal_replaced_under_us(void **state)
{
	struct fixture *fx = *state, second = *fx;

	history(fx);
	struct mailbox *m = box(fx, "INBOX", 0);
	uint32_t validity = mailbox_uidvalidity(m), uid = 1;
	run("rm %s/bh-journal", fx->root);
	fixture_open(&second);
	struct mailbox *other = box(&second, "INBOX", 0);
	assert_true(mailbox_uidvalidity(other) > validity);
	assert_int_equal(mailbox_sync(m, 0, NULL, NULL), ERR_NOT_FOUND);
	assert_int_equal(mailbox_expunge(m, &uid, 1, 0), ERR_NOT_FOUND);
	assert_int_equal(mailbox_count(other), 3);
	struct mailbox *again = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_uidvalidity(again), mailbox_uidvalidity(other));
	mailbox_free(&again);
	mailbox_free(&m);
	mailbox_free(&other);
	store_free(&second.s);
}

/* Writing fails in the middle of a frame: the command fails, the journal is as before, and later
 * changes work. */
static void
disk_full(void **state)
{
	struct fixture *fx = *state;
	struct rlimit old, tight;
	struct append_info info = { 0 };
	struct append *a;
	struct copy_result r;
	struct flag_change c = { .op = FLAG_OP_ADD, .flags = FLAG_ANSWERED };
	uint32_t uid = 1;

	history(fx);
	signal(SIGXFSZ, SIG_IGN);
	struct mailbox *m = box(fx, "INBOX", 0);
	size_t size = journal_size(fx->root);
	getrlimit(RLIMIT_FSIZE, &old);
	for (size_t room = 0; room < 40; room += 5) {
		tight = old;
		tight.rlim_cur = size + room;
		setrlimit(RLIMIT_FSIZE, &tight);
		assert_int_equal(append_begin(fx->s, SLICE_LIT("INBOX"), &info, 0, &a), 0);
		assert_int_equal(append_write(a, SLICE_LIT("z\r\n")), 0);
		assert_int_equal(append_finish(&a, 1, &r), -EFBIG);
		copy_result_free(&r);
		assert_int_equal(mailbox_copy(m, &uid, 1, SLICE_LIT("INBOX"), false, &r), -EFBIG);
		assert_int_equal(r.to.count, 0);
		copy_result_free(&r);
		if (room < 30)
			assert_int_equal(mailbox_store_flags(m, &uid, 1, &c, NULL, NULL), -EFBIG);
		setrlimit(RLIMIT_FSIZE, &old);
		assert_int_equal(journal_size(fx->root), size);
		/* two calls: one would print the folder's own name, which may hold an M */
		run("test $( (ls %s/cur; ls %s/tmp) | grep -c M) = 3", fx->root, fx->root);
	}
	/* the file was renamed, the record was not written: the next look records it */
	sync_text(m, 0);
	assert_int_equal(mailbox_message(m, 1)->flags, FLAG_ANSWERED);
	assert_int_equal(append_text(fx, "INBOX", "z\r\n", 0), 5);
	mailbox_free(&m);
	fixture_reopen(fx);
	m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_count(m), 4);
	mailbox_free(&m);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(cut_at_every_byte),
		T(index_gone),
		T(journal_damaged),
		T(killed_at_work),
		T(compaction),
		T(journal_replaced_under_us),
		T(disk_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
