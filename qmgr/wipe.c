/*
 * Wiping a file of incoming/. Runs in a thread of the pool. Hostile input: what is in the file, and
 * whoever kept a descriptor of it.
 */
#include "qmgr/incoming.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int
overwrite(int fd, uint64_t size)
{
	static const unsigned char zeros[65536];

	for (uint64_t at = 0; at < size;) {
		size_t n = size - at < sizeof(zeros) ? (size_t)(size - at) : sizeof(zeros);
		ssize_t done = pwrite(fd, zeros, n, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? err_errno() : -EIO;
		at += (uint64_t)done;
	}
	return 0;
}

/* Wiped, if we alone have it and it is not too large. */
static int
wipe(int dir, const char *name, uint64_t limit)
{
	int fd = openat(dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW), err = 0;
	struct stat st;

	if (fd < 0)
		return err_errno();
	/* Granted only while no other description of the file exists, whoever has it. */
	if (fcntl(fd, F_SETLEASE, F_WRLCK) || fcntl(fd, F_SETLEASE, F_UNLCK) || fstat(fd, &st))
		err = err_errno();
	else if ((uint64_t)st.st_size > limit)
		err = ERR_LIMIT;
	else
		err = overwrite(fd, (uint64_t)st.st_size);
	close(fd);
	return err;
}

void
incoming_clean(int dir, struct incoming_file *f, uint64_t limit)
{
	char name[QUEUE_ID_SIZE];

	queue_id_format(f->name, name);
	f->write_fd = f->read_fd = -1;
	if (!wipe(dir, name, limit)) {
		f->write_fd = openat(dir, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
		f->read_fd = openat(dir, name, O_RDONLY | O_NOATIME | O_CLOEXEC | O_NOFOLLOW);
	}
	if (f->write_fd >= 0 && f->read_fd >= 0)
		return;
	if (f->write_fd >= 0)
		close(f->write_fd);
	if (f->read_fd >= 0)
		close(f->read_fd);
	f->write_fd = f->read_fd = -1;
	unlinkat(dir, name, 0);
}
