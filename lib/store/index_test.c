/* An index that is damaged on disk: no wrong answer, and at most one session dies of it. */
#include "store/internal.h"
#include "store/test_util.h"

#include <signal.h>
#include <sys/wait.h>

enum { MESSAGES = 60, VALUE = 700, DIED = 1 };

static struct slice
value_of(uint32_t uid, char *buf)
{
	for (unsigned i = 0; i < VALUE; i++)
		buf[i] = (char)('a' + (uid * 7 + i) % 26);
	return slice(buf, VALUE);
}

static void
fill(struct fixture *fx)
{
	char text[VALUE];

	for (int i = 0; i < MESSAGES; i++)
		append_text(fx, "INBOX", "x\r\n", 0);
	struct mailbox *m = box(fx, "INBOX", 0);
	for (uint32_t uid = 1; uid <= MESSAGES; uid++)
		mailbox_cache_put(m, uid, 1, value_of(uid, text));
	mailbox_free(&m);
	store_free(&fx->s);
}

/* A session that reads all: how many values it finds; 255 if one is wrong. Ends the process. */
static void
session(struct fixture *fx)
{
	struct store *s;
	struct mailbox *m;
	struct buf b = { 0 };
	char text[VALUE];
	int found = 0;

	if (store_open(fx->root, NULL, &s) < 0 || mailbox_open(s, SLICE_LIT("INBOX"), 0, &m) < 0)
		_exit(254);
	for (uint32_t uid = 1; uid <= MESSAGES; uid++) {
		buf_clear(&b);
		if (mailbox_cache_get(m, uid, 1, &b) < 0) {
			mailbox_cache_put(m, uid, 1, value_of(uid, text));
			continue;
		}
		if (!slice_eq(buf_slice(&b), value_of(uid, text)))
			_exit(255);
		found++;
	}
	mailbox_free(&m);
	store_free(&s);
	_exit(found);
}

/* Its exit status, or -1 if a signal ended it. */
static int
run_session(struct fixture *fx)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		/* cmocka has handlers of its own */
		signal(SIGBUS, SIG_DFL);
		signal(SIGSEGV, SIG_DFL);
		(void)!freopen("/dev/null", "w", stderr);
		session(fx);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status) || WEXITSTATUS(status) == DIED)
		return -1;
	assert_in_range(WEXITSTATUS(status), 0, MESSAGES);
	return WEXITSTATUS(status);
}

static int
open_data(struct fixture *fx, off_t *size_r)
{
	char path[100];
	struct stat st;

	snprintf(path, sizeof(path), "%s/bh-index/data.mdb", fx->root);
	int fd = open(path, O_RDWR);
	assert_int_equal(fstat(fd, &st), 0);
	*size_r = st.st_size;
	return fd;
}

static void
cut_short(void **state)
{
	struct fixture *fx = *state;
	off_t size;

	fill(fx);
	assert_int_equal(run_session(fx), MESSAGES);
	int fd = open_data(fx, &size);
	assert_int_equal(ftruncate(fd, 3 * 4096), 0);
	close(fd);
	assert_true(run_session(fx) <= 0);
	assert_int_equal(run_session(fx), 0); /* made anew */
	assert_int_equal(run_session(fx), MESSAGES);
	fixture_open(fx);
	assert_false(store_index_renewed(fx->s));
}

static void
turned_bits(void **state)
{
	struct fixture *fx = *state;
	unsigned char page[4096];
	off_t size;

	fill(fx);
	int fd = open_data(fx, &size);
	/* In the middle of each page, where the values are. */
	for (off_t at = 2 * 4096; at + 4096 <= size; at += 4096) {
		assert_int_equal(pread(fd, page, sizeof(page), at), sizeof(page));
		for (size_t i = 1024; i < 4096; i += 256)
			page[i] ^= page[i] >= 'a' && page[i] <= 'z' ? 1 : 0;
		assert_int_equal(pwrite(fd, page, sizeof(page), at), sizeof(page));
	}
	close(fd);
	assert_true(run_session(fx) < MESSAGES);
	fixture_open(fx);
	assert_true(store_index_renewed(fx->s));
	store_free(&fx->s);
	assert_int_equal(run_session(fx), 0);
	assert_int_equal(run_session(fx), MESSAGES);
	fixture_open(fx);
}

static void
noise(void **state)
{
	struct fixture *fx = *state;
	unsigned char page[4096];
	off_t size;
	uint32_t seed = 12345;

	fill(fx);
	int fd = open_data(fx, &size);
	for (off_t at = 2 * 4096; at + 4096 <= size; at += 4096) {
		for (size_t i = 0; i < sizeof(page); i++) {
			seed = seed * 1664525 + 1013904223;
			page[i] = (unsigned char)(seed >> 24);
		}
		assert_int_equal(pwrite(fd, page, sizeof(page), at), sizeof(page));
	}
	close(fd);
	assert_true(run_session(fx) <= 0);
	assert_int_equal(run_session(fx), 0);
	assert_int_equal(run_session(fx), MESSAGES);
	fixture_open(fx);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(cut_short),
		T(turned_bits),
		T(noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
