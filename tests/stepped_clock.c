/*
 * LD_PRELOAD for tests: the wall clock of a process is off by the seconds that $CLOCK_FILE holds (a
 * 64-bit number that is mapped at the start, before any jail). The monotonic clock stays, as with a
 * machine whose clock is set.
 */
#include <dlfcn.h>
#include <fcntl.h>
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
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);

	real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	if (p != MAP_FAILED)
		off = p;
	if (fd >= 0)
		close(fd);
}

int
clock_gettime(clockid_t clock, struct timespec *t)
{
	int rc = real(clock, t);

	if (clock == CLOCK_REALTIME && off)
		t->tv_sec += __atomic_load_n(off, __ATOMIC_RELAXED);
	return rc;
}
