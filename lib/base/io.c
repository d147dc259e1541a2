/* Whole writes. Runs in every process; the bytes are not looked at. */
#include "base/io.h"

#include "base/err.h"

#include <errno.h>
#include <unistd.h>

int
io_write_all(int fd, struct slice bytes)
{
	while (bytes.n) {
		ssize_t n = write(fd, bytes.p, bytes.n);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? err_errno() : -EIO;
		bytes = slice_sub(bytes, (size_t)n, bytes.n);
	}
	return 0;
}
