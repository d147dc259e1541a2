/*
 * LD_PRELOAD for tests: the n-th allocation fails, once. $FAIL_FILE names a file of two 32-bit
 * numbers that is mapped at the start, before any jail, and is shared with forked children: how
 * many allocations are still to succeed (0: nothing is armed; it counts down, and the one that
 * makes it 0 fails), and how many there were in all.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int32_t *shared;

__attribute__((constructor)) static void
map_numbers(void)
{
	const char *path = getenv("FAIL_FILE");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p != MAP_FAILED)
		shared = p;
	if (fd >= 0)
		close(fd);
}

static int
fails(void)
{
	int32_t left;

	if (!shared)
		return 0;
	__atomic_fetch_add(&shared[1], 1, __ATOMIC_RELAXED);
	left = __atomic_load_n(&shared[0], __ATOMIC_RELAXED);
	while (left > 0)
		if (__atomic_compare_exchange_n(
			&shared[0], &left, left - 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
			if (left == 1)
				errno = ENOMEM;
			return left == 1;
		}
	return 0;
}

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);

void *
malloc(size_t n)
{
	return fails() ? NULL : __libc_malloc(n);
}

void *
calloc(size_t n, size_t size)
{
	return fails() ? NULL : __libc_calloc(n, size);
}

void *
realloc(void *p, size_t n)
{
	return fails() ? NULL : __libc_realloc(p, n);
}
