/*
 * Foreign programs at work on the same Maildir while sessions run: they hold no lock and rename,
 * move, add and remove at any moment. A message must keep its UID as long as its file is there, be
 * told as gone only when it is, and in the end the folder must be what the directories are.
 */
#include "store/test_util.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>

enum { IDS = 20000 };

static void
foreign_file(const char *root, unsigned id)
{
	char tmp[128], to[128], text[32];

	snprintf(tmp, sizeof(tmp), "%s/tmp/%u.f", root, id);
	snprintf(to, sizeof(to), "%s/new/%u.%u.f", root, 1000 + id / 10, id);
	int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL, 0600);
	int n = snprintf(text, sizeof(text), "%u\r\n", id);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		_exit(1);
	close(fd);
	if (rename(tmp, to) < 0)
		_exit(2);
}

/* One pass over cur/: renames and removes some of what it finds. */
static void
foreign_pass(const char *root, unsigned *seed)
{
	static const char *const infos[] = { ":2,", ":2,S", ":2,RS", ":2,FS", ":2,T" };
	char dir[128], from[512], to[512];

	for (int new = 0; new < 2; new ++) {
		snprintf(dir, sizeof(dir), "%s/%s", root, new ? "new" : "cur");
		DIR *d = opendir(dir);
		struct dirent *e;
		while ((e = readdir(d))) {
			int what = rand_r(seed) % 20;
			if (e->d_name[0] == '.' || what > 9)
				continue;
			snprintf(from, sizeof(from), "%s/%s", dir, e->d_name);
			snprintf(to, sizeof(to), "%s/cur/%.*s%s", root,
			    (int)strcspn(e->d_name, ":"), e->d_name, infos[what % 5]);
			if (what == 9)
				unlink(from);
			else
				rename(from, to); /* it may have gone: a session moved it */
		}
		closedir(d);
	}
}

static void
foreign_program(const char *root, unsigned first)
{
	unsigned seed = first + 7;

	for (unsigned round = 0; round < 60; round++) {
		for (unsigned i = 0; i < 12; i++)
			foreign_file(root, first + round * 12 + i);
		foreign_pass(root, &seed);
		usleep(2000);
	}
	_exit(0);
}

static uint32_t uid_of[IDS];

/* Each message of the view has the UID that it always had. */
static void
check_view(struct mailbox *m)
{
	char text[16];
	unsigned id;

	for (uint32_t seq = 1; seq <= mailbox_count(m); seq++) {
		struct content *c;
		uint32_t uid = mailbox_uid(m, seq);
		if (content_open(m, uid, &c) < 0)
			continue; /* removed since */
		ptrdiff_t n = content_read(c, 0, text, sizeof(text) - 1);
		assert_true(n > 0);
		text[n] = '\0';
		content_free(&c);
		assert_int_equal(sscanf(text, "%u", &id), 1);
		assert_true(id < IDS);
		if (!uid_of[id])
			uid_of[id] = uid;
		assert_int_equal(uid_of[id], uid);
	}
}

static size_t
files(const char *root, const char *sub)
{
	char dir[128];
	size_t n = 0;
	struct dirent *e;

	snprintf(dir, sizeof(dir), "%s/%s", root, sub);
	DIR *d = opendir(dir);
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void
work(struct fixture *fx, struct mailbox *m, unsigned *seed)
{
	struct flag_change c = { .op = FLAG_OP_ADD, .flags = FLAG_ANSWERED };

	assert_int_equal(mailbox_sync(m, 0, NULL, NULL), 0);
	if (mailbox_count(m) == 0)
		return;
	uint32_t uids[5];
	uint32_t seq = 1 + (uint32_t)rand_r(seed) % mailbox_count(m);
	size_t n = 0;
	for (; n < 5 && seq <= mailbox_count(m); n++, seq++)
		uids[n] = mailbox_uid(m, seq);
	if (rand_r(seed) % 2)
		c.op = FLAG_OP_REMOVE;
	assert_int_equal(mailbox_store_flags(m, uids, n, &c, NULL, NULL), 0);
	if (rand_r(seed) % 8 == 0)
		assert_int_equal(mailbox_expunge(m, uids, 1, 0), 0);
	(void)fx;
}

static void
run_against_foreign(struct fixture *fx)
{
	struct fixture second = *fx;
	unsigned seed = 1;
	int left = 2;

	memset(uid_of, 0, sizeof(uid_of));
	fixture_open(&second);
	struct mailbox *a = box(fx, "INBOX", 0), *b = box(&second, "INBOX", MAILBOX_KEEP_RECENT);
	for (unsigned k = 0; k < 2; k++)
		if (fork() == 0)
			foreign_program(fx->root, 1 + k * 5000);
	while (left > 0) {
		int status;
		work(fx, a, &seed);
		work(&second, b, &seed);
		check_view(a);
		check_view(b);
		if (waitpid(-1, &status, WNOHANG) > 0) {
			assert_int_equal(status, 0);
			left--;
		}
	}
	usleep(20000);
	for (int i = 0; i < 2; i++) { /* each may still rename for the other */
		sync_text(a, 0);
		sync_text(b, 0);
	}
	size_t n = files(fx->root, "cur") + files(fx->root, "new");
	assert_true(n > 100);
	assert_int_equal(mailbox_count(a), n);
	assert_int_equal(mailbox_count(b), n);
	check_view(a);
	for (uint32_t seq = 1; seq <= n; seq++) {
		assert_int_equal(mailbox_uid(a, seq), mailbox_uid(b, seq));
		assert_int_equal(mailbox_message(a, seq)->flags, mailbox_message(b, seq)->flags);
	}
	mailbox_free(&a);
	mailbox_free(&b);
	store_free(&second.s);
	/* and a reader that knows nothing but the journal and the directories agrees */
	run("rm -rf %s/bh-index", fx->root);
	fixture_reopen(fx);
	a = box(fx, "INBOX", MAILBOX_READ_ONLY);
	assert_int_equal(mailbox_count(a), n);
	check_view(a);
	mailbox_free(&a);
}

static void
with_inotify(void **state)
{
	run_against_foreign(*state);
}

static void
without_inotify(void **state)
{
	struct fixture *fx = *state;
	int fd = store_watch_fd(fx->s);

	close(fd);
	assert_int_equal(open("/dev/null", O_RDONLY), fd);
	run_against_foreign(fx);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(with_inotify),
		T(without_inotify),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
