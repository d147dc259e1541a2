/*
 * mbox delivery. Runs in the delivery child, as the recipient, below its root. Other programs (mail
 * readers, other deliveries) may hold the file open: both locks are taken, dotlock first, as
 * Debian's policy has it. A message is appended and synced, or the file is cut back to its former
 * length.
 */
#include "local/mbox.h"

#include "base/io.h"
#include "ev/ev.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void
rest(int64_t ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

/* --- the lock file --- */

/* Removes a lock file that is too old: its maker has died. */
static void
break_stale(const char *lock, int64_t stale_ms)
{
	struct stat st;

	if (!stat(lock, &st) && ev_wall_us() / 1000 - st.st_mtim.tv_sec * 1000 > stale_ms)
		unlink(lock);
}

/* 0: made; 1: this directory is not ours to write, go on without; or an error. */
static int
dotlock(const char *lock, const struct mbox_options *o)
{
	int64_t until = ev_now_us() + o->lock_ms * 1000;
	char text[24];
	int fd, n;

	for (;;) {
		fd = open(lock, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd >= 0)
			break;
		if ((errno == EACCES || errno == EPERM || errno == EROFS) && o->fcntl_lock)
			return 1;
		if (errno != EEXIST)
			return err_errno();
		if (ev_now_us() > until)
			return ERR_TEMPORARY;
		break_stale(lock, o->stale_ms);
		rest(50);
	}
	n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	(void)!io_write_all(fd, slice(text, (size_t)n)); /* the lock is the name, not the content */
	close(fd);
	return 0;
}

/* --- the lock of the file itself --- */

static int
range_lock(int fd, const struct mbox_options *o)
{
	int64_t until = ev_now_us() + o->lock_ms * 1000;
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	/* Locks of the open file description: they meet the classic ones of others, and keep the
	 * threads of this process apart. */
	while (o->fcntl_lock && fcntl(fd, F_OFD_SETLK, &lock)) {
		if (errno != EAGAIN && errno != EACCES && errno != EINTR)
			return err_errno();
		if (ev_now_us() > until)
			return ERR_TEMPORARY;
		rest(20);
	}
	return 0;
}

static void
range_unlock(int fd, const struct mbox_options *o)
{
	struct flock lock = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	if (o->fcntl_lock)
		(void)fcntl(fd, F_OFD_SETLK, &lock);
}

/* --- appending --- */

/* A file that another program left without a line end gets one first. */
static int
end_last_line(const char *path, int fd, off_t size)
{
	unsigned char last = '\n';
	int reader;

	if (!size || !path)
		return 0;
	reader = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (reader >= 0) {
		if (pread(reader, &last, 1, size - 1) != 1)
			last = '\n';
		close(reader);
	}
	return last == '\n' ? 0 : io_write_all(fd, SLICE_LIT("\n"));
}

static int
append_locked(const char *path, int fd, const struct content *c, struct slice from_line,
    struct slice prelude, const struct mbox_options *o)
{
	struct content_sizes sizes;
	struct stat st;
	int err;

	if (fstat(fd, &st))
		return err_errno();
	if (S_ISREG(st.st_mode) && o->size_limit > 0 &&
	    st.st_size + (int64_t)(c->size + prelude.n + from_line.n) > o->size_limit)
		return ERR_LIMIT;
	err = S_ISREG(st.st_mode) ? end_last_line(path, fd, st.st_size) : 0;
	if (!err)
		err = io_write_all(fd, from_line);
	if (!err)
		err = content_write(c, prelude, CONTENT_MBOX, fd, &sizes);
	if (!err)
		err = io_write_all(fd, SLICE_LIT("\n"));
	if (!S_ISREG(st.st_mode))
		return err;
	if (!err && fsync(fd))
		err = err_errno();
	if (err && ftruncate(fd, st.st_size)) {
		/* the error below is told; a reader sees a torn message at the end */
	}
	return err;
}

/* Opens the file, refusing what is no plain file of one name. */
static int
open_file(const char *path, bool owned, int *fd_r)
{
	struct stat st;
	bool made = false;
	int err = 0, fd;

	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT) {
		made = true;
		fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0660);
	}
	if (fd < 0)
		return err_errno();
	if (fstat(fd, &st))
		err = err_errno();
	else if (!(S_ISREG(st.st_mode) && st.st_nlink == 1) && !S_ISCHR(st.st_mode))
		err = -EMLINK;
	else if (owned && st.st_uid != geteuid())
		err = ERR_DENIED;
	if (!err && made) { /* its name must be durable too */
		char copy[4096];
		int dir = slice_copy(slice_str(path), copy, sizeof(copy))
			      ? -1
			      : open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir >= 0) {
			if (fsync(dir))
				err = err_errno();
			close(dir);
		}
	}
	if (err)
		close(fd);
	else
		*fd_r = fd;
	return err;
}

int
mbox_append(const char *path, int fd, const struct content *c, struct slice from_line,
    struct slice prelude, const struct mbox_options *o)
{
	char *lock = fd < 0 && o->dotlock ? xasprintf("%s.lock", path) : NULL;
	int own = -1, locked = 1, err = 0;

	if (lock) {
		locked = dotlock(lock, o);
		err = locked < 0 ? locked : 0;
	}
	if (!err && fd < 0) {
		err = open_file(path, o->owned, &own);
		fd = own;
	}
	if (!err)
		err = range_lock(fd, o);
	if (!err) {
		err = append_locked(own >= 0 ? path : NULL, fd, c, from_line, prelude, o);
		range_unlock(fd, o);
	}
	if (own >= 0)
		close(own);
	if (lock && !locked)
		unlink(lock);
	free(lock);
	return err;
}
