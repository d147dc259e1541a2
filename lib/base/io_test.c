/* Unit tests of whole writes: a write that is short is continued, and what then fails is told. */
#include "base/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { SIZE = 300000 }; /* more than a pipe holds */

static void
test_limit(void **state)
{
	static const unsigned char bytes[SIZE];
	struct rlimit before, low;
	int fd = memfd_create("io", MFD_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	low = before;
	low.rlim_cur = 100;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
	assert_int_equal(io_write_all(fd, slice(bytes, SIZE)), -EFBIG);
	assert_int_equal(lseek(fd, 0, SEEK_END), 100);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(io_write_all(fd, slice(bytes, SIZE)), 0);
	assert_int_equal(lseek(fd, 0, SEEK_END), 100 + SIZE);
	close(fd);
}

static void
on_signal(int sig)
{
	(void)sig;
}

struct reader {
	int fd;
	pthread_t writer;
	unsigned char bytes[SIZE];
	size_t n;
};

/* Interrupts the writer again and again: a write that was under way returns what it has done. */
static void *
read_slowly(void *arg)
{
	struct reader *r = arg;
	ssize_t n;

	while ((n = read(r->fd, r->bytes + r->n, 5000)) > 0) {
		r->n += (size_t)n;
		pthread_kill(r->writer, SIGUSR1);
	}
	return NULL;
}

static void
test_interrupted(void **state)
{
	static unsigned char bytes[SIZE];
	static struct reader r;
	struct sigaction action = { .sa_handler = on_signal }; /* without SA_RESTART */
	pthread_t thread;
	int fds[2];

	(void)state;
	for (size_t i = 0; i < SIZE; i++)
		bytes[i] = (unsigned char)(i * 7 >> 3);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
	r.fd = fds[0];
	r.writer = pthread_self();
	assert_int_equal(pthread_create(&thread, NULL, read_slowly, &r), 0);
	assert_int_equal(io_write_all(fds[1], slice(bytes, SIZE)), 0);
	close(fds[1]);
	pthread_join(thread, NULL);
	close(fds[0]);
	assert_int_equal(r.n, SIZE);
	assert_memory_equal(r.bytes, bytes, SIZE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_interrupted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
