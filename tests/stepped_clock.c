/*
 * LD_PRELOAD for tests: the clocks of a process are off by the seconds that $CLOCK_FILE holds (two
 * 64-bit numbers that are mapped at the start, before any jail): the wall clock by the first, as
 * with a machine whose clock is set, and the monotonic one by the second, as if so much time had
 * gone by.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const int64_t *off;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void
map_number(void)
{
	const char *path = getenv("CLOCK_FILE");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0);

	real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	if (p != MAP_FAILED)
		off = p;
	if (fd >= 0)
		close(fd);
}

int
clock_gettime(clockid_t clock, struct timespec *t)
{
	bool monotonic = clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE;
	int rc = real(clock, t);

	if (off && (clock == CLOCK_REALTIME || monotonic))
		t->tv_sec += __atomic_load_n(off + monotonic, __ATOMIC_RELAXED);
	return rc;
}
