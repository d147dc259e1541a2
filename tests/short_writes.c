/*
 * LD_PRELOAD for tests: writes take fewer bytes than they were given, as those to a disk that is
 * nearly full, to a pipe or to a slow peer may. $SHORT_FILE names a file of 32-bit numbers that is
 * mapped at the start, before any jail, and is shared with forked children. The first says what is
 * done: 0 nothing; 1 each write takes half; a larger one is the errno with which the next write to
 * the descriptor fails after a short one. The second: writes of fewer bytes are left whole. The
 * others count what each function cut. libseccomp, which takes a filter that is not written at once
 * for an error, is left alone: a process that has no jail does not start.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MODE, LEAST, WRITE, PWRITE, WRITEV, PWRITEV, SENDFILE, COPY_FILE_RANGE, NUMBERS };
enum { PARTS = 16 };

static int32_t *shared;
static __thread int was_short = -1; /* the descriptor of this thread's last short write */

static struct {
	ssize_t (*write)(int, const void *, size_t);
	ssize_t (*pwrite)(int, const void *, size_t, off_t);
	ssize_t (*writev)(int, const struct iovec *, int);
	ssize_t (*pwritev)(int, const struct iovec *, int, off_t);
	ssize_t (*sendfile)(int, int, off_t *, size_t);
	ssize_t (*copy_file_range)(int, off_t *, int, off_t *, size_t, unsigned);
} real;

__attribute__((constructor)) static void
begin(void)
{
	const char *path = getenv("SHORT_FILE");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p = fd < 0 ? MAP_FAILED
			 : mmap(NULL, NUMBERS * 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	*(void **)&real.write = dlsym(RTLD_NEXT, "write");
	*(void **)&real.pwrite = dlsym(RTLD_NEXT, "pwrite64");
	*(void **)&real.writev = dlsym(RTLD_NEXT, "writev");
	*(void **)&real.pwritev = dlsym(RTLD_NEXT, "pwritev64");
	*(void **)&real.sendfile = dlsym(RTLD_NEXT, "sendfile64");
	*(void **)&real.copy_file_range = dlsym(RTLD_NEXT, "copy_file_range");
	if (p != MAP_FAILED)
		shared = p;
	if (fd >= 0)
		close(fd);
}

/* How many of n bytes the call may take; -1: it fails. */
static ssize_t
share(int function, int fd, size_t n)
{
	int32_t mode = shared ? __atomic_load_n(&shared[MODE], __ATOMIC_RELAXED) : 0;

	if (mode > 1 && was_short == fd) {
		was_short = -1;
		errno = mode;
		return -1;
	}
	if (!mode || n < 2 || n < (size_t)shared[LEAST])
		return (ssize_t)n;
	__atomic_fetch_add(&shared[function], 1, __ATOMIC_RELAXED);
	was_short = mode > 1 ? fd : -1;
	return (ssize_t)(n / 2);
}

/* The first bytes of a vector. */
static ssize_t
share_of(int function, int fd, const struct iovec *v, int n, struct iovec out[PARTS], int *n_r)
{
	size_t total = 0;
	ssize_t may, left;

	for (int i = 0; i < n; i++)
		total += v[i].iov_len;
	may = left = share(function, fd, total);
	for (*n_r = 0; *n_r < n && *n_r < PARTS && left > 0; ++*n_r) {
		out[*n_r] = v[*n_r];
		if ((ssize_t)out[*n_r].iov_len > left)
			out[*n_r].iov_len = (size_t)left;
		left -= (ssize_t)out[*n_r].iov_len;
	}
	return may;
}

static int
is_filter(const void *caller)
{
	Dl_info info;

	return dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "libseccomp");
}

ssize_t
write(int fd, const void *p, size_t n)
{
	ssize_t may = is_filter(__builtin_return_address(0)) ? (ssize_t)n : share(WRITE, fd, n);

	return may < 0 ? may : real.write(fd, p, (size_t)may);
}

ssize_t
pwrite64(int fd, const void *p, size_t n, off_t at)
{
	ssize_t may = share(PWRITE, fd, n);

	return may < 0 ? may : real.pwrite(fd, p, (size_t)may, at);
}

ssize_t
writev(int fd, const struct iovec *v, int n)
{
	struct iovec part[PARTS];
	ssize_t may = share_of(WRITEV, fd, v, n, part, &n);

	return may < 0 ? may : real.writev(fd, part, n);
}

ssize_t
pwritev64(int fd, const struct iovec *v, int n, off_t at)
{
	struct iovec part[PARTS];
	ssize_t may = share_of(PWRITEV, fd, v, n, part, &n);

	return may < 0 ? may : real.pwritev(fd, part, n, at);
}

ssize_t
sendfile64(int to, int from, off_t *at, size_t n)
{
	ssize_t may = share(SENDFILE, to, n);

	return may < 0 ? may : real.sendfile(to, from, at, (size_t)may);
}

ssize_t
copy_file_range(int from, off_t *in, int to, off_t *out, size_t n, unsigned flags)
{
	ssize_t may = share(COPY_FILE_RANGE, to, n);

	return may < 0 ? may : real.copy_file_range(from, in, to, out, (size_t)may, flags);
}

/* Names of a build without 64-bit offsets, which on these machines are the same. */
ssize_t pwrite(int, const void *, size_t, off_t) __attribute__((alias("pwrite64")));
ssize_t pwritev(int, const struct iovec *, int, off_t) __attribute__((alias("pwritev64")));
ssize_t sendfile(int, int, off_t *, size_t) __attribute__((alias("sendfile64")));
