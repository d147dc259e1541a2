/*
 * Maildir delivery. Runs in the delivery child, as the recipient, below its root; other programs
 * may change the Maildir at any time.
 *
 * Order: the file is written; its data goes to the disk (sync_file_range) before the name appears
 * in new/, else a power cut could leave an empty file in sight; that name replaces nothing; fsync
 * of the file makes inode and name durable on ext4 and XFS. There the file has no name before
 * (since Linux 6.10 its owner may give it one): one directory is changed, once. With an older
 * kernel it is written in tmp/ and renamed, and on other file systems as well: fsync, rename, fsync
 * of the directory. The name in new/ derives from queue ID and recipient, so a repeat after a crash
 * finds what is there, syncs it and is done. The name in tmp/ is the attempt's own: a child whose
 * qmgr has died may still be at it when that one's successor has another child do the same, and
 * what one of them writes must never get its name from the other. maildirsize belongs to others and
 * is left alone.
 */
#include "local/maildir.h"

#include "base/dir.h"
#include "base/hash.h"
#include "ev/ev.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

enum {
	NAME_SIZE = 256,
	USED_SECONDS = 30, /* how long a sum of sizes is believed */
};

void
maildir_init(struct maildir *m, const char *path, struct slice host, int64_t limit)
{
	size_t n = host.n < sizeof(m->host) - 1 ? host.n : sizeof(m->host) - 1;

	*m = (struct maildir){
		.path = path, .limit = limit, .pid = getpid(), .tmp = -1, .fresh = -1, .cur = -1
	};
	for (size_t i = 0; i < n; i++)
		m->host[i] = strchr("/:,", host.p[i]) || host.p[i] <= ' ' ? '_' : (char)host.p[i];
	pthread_mutex_init(&m->lock, NULL);
}

void
maildir_close(struct maildir *m)
{
	int *fds[] = { &m->tmp, &m->fresh, &m->cur };

	for (size_t i = 0; i < 3; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	m->open = false;
}

/* mkdir of each part of a relative path. */
static int
make_path(const char *path)
{
	char part[4096];
	size_t n = strlen(path);

	if (n >= sizeof(part))
		return -ENAMETOOLONG;
	for (size_t i = 1; i <= n; i++) {
		if (path[i] != '/' && path[i])
			continue;
		memcpy(part, path, i);
		part[i] = 0;
		if (mkdir(part, 0700) && errno != EEXIST)
			return err_errno();
	}
	return 0;
}

static int
open_part(const struct maildir *m, const char *name, int *fd_r)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/%s", m->path, name);
	*fd_r = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*fd_r < 0 && errno == ENOENT) {
		if (mkdir(path, 0700) && errno != EEXIST)
			return err_errno();
		*fd_r = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	return *fd_r < 0 ? err_errno() : 0;
}

static int
open_all(struct maildir *m)
{
	struct statfs fs;
	struct stat st;
	int err = 0;

	if (stat(m->path, &st))
		err = errno == ENOENT ? make_path(m->path) : err_errno();
	else if (st.st_uid != geteuid())
		err = ERR_DENIED; /* in a spool that all may write, somebody could have made it
				     first */
	if (!err)
		err = open_part(m, "tmp", &m->tmp);
	if (!err)
		err = open_part(m, "new", &m->fresh);
	if (!err)
		err = open_part(m, "cur", &m->cur);
	if (!err && fstatfs(m->fresh, &fs))
		err = err_errno();
	if (err)
		return err;
	m->named_by_fsync = fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC;
	__atomic_store_n(&m->unnamed, m->named_by_fsync, __ATOMIC_RELAXED);
	__atomic_store_n(&m->open, true, __ATOMIC_RELEASE);
	return 0;
}

/* The part of the name that a repeat computes again. */
static void
base_name(const struct maildir *m, const struct maildir_mail *mail, char name[NAME_SIZE])
{
	static const unsigned char key[16] = "maildir-delivery";
	uint64_t hash = siphash(key, mail->recipient);

	snprintf(name, NAME_SIZE, "%llu.M%lluQ%.*sR%016llx.%s",
	    (unsigned long long)(mail->arrival / 1000000),
	    (unsigned long long)(mail->arrival % 1000000),
	    mail->queue_id.n < 64 ? (int)mail->queue_id.n : 64, (const char *)mail->queue_id.p,
	    (unsigned long long)hash, m->host[0] ? m->host : "localhost");
}

/* Syncs a file that a former attempt left, and its name. */
static int
sync_found(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), err = 0;

	if (fd < 0)
		return err_errno();
	if (fsync(fd) || fsync(dir))
		err = err_errno();
	close(fd);
	return err;
}

/* Looks for a name that begins with base, whatever sizes and flags follow. */
static int
find_in(int dir, const char *base, bool *found_r)
{
	size_t n = strlen(base);
	struct dirent *e;
	DIR *d;
	int err = dir_open(dir, ".", 0, &d);

	if (err)
		return err;
	while (!*found_r && !err && (e = readdir(d)))
		if (!strncmp(e->d_name, base, n) && (!e->d_name[n] || strchr(",:", e->d_name[n]))) {
			*found_r = true;
			err = sync_found(dir, e->d_name);
		}
	closedir(d);
	return err;
}

/* --- quota --- */

/* The size that a name tells (",S="), else that of the file: never negative. Names are the user's
 * to choose, and may tell anything. */
static int64_t
size_of(int dir, const char *name)
{
	const char *s = strstr(name, ",S=");
	struct stat st;
	char *end;
	long long n;

	if (s && s[3] >= '0' && s[3] <= '9') {
		errno = 0;
		n = strtoll(s + 3, &end, 10);
		if (!errno && (!*end || strchr(",:", *end)))
			return n;
	}
	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) ? 0 : st.st_size;
}

/* Of what is not negative. A sum beyond all limits stays there. */
static int64_t
add_up(int64_t a, int64_t b)
{
	return b > INT64_MAX - a ? INT64_MAX : a + b;
}

static int64_t
sum_directory(int at, const char *path)
{
	struct dirent *e;
	int64_t sum = 0;
	DIR *d;

	if (dir_open(at, path, O_NOFOLLOW, &d))
		return 0;
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			sum = add_up(sum, size_of(dirfd(d), e->d_name));
	closedir(d);
	return sum;
}

/* All folders: the Maildir itself and .NAME below it. */
static int64_t
sum_all(const struct maildir *m)
{
	struct dirent *e;
	int64_t sum = 0;
	char path[600];
	DIR *d;

	if (dir_open(AT_FDCWD, m->path, 0, &d))
		return 0;
	while ((e = readdir(d))) {
		if (e->d_name[0] != '.' || !strcmp(e->d_name, ".."))
			continue;
		snprintf(path, sizeof(path), "%s/new", e->d_name);
		sum = add_up(sum, sum_directory(dirfd(d), path));
		snprintf(path, sizeof(path), "%s/cur", e->d_name);
		sum = add_up(sum, sum_directory(dirfd(d), path));
	}
	closedir(d);
	return sum;
}

/* Reserves the bytes of a message, or ERR_LIMIT. */
static int
take_quota(struct maildir *m, uint64_t bytes)
{
	int64_t now;

	if (m->limit <= 0)
		return 0;
	now = ev_now_us();
	pthread_mutex_lock(&m->lock);
	if (!m->used_at || now - m->used_at > (int64_t)USED_SECONDS * 1000000) {
		m->used = sum_all(m);
		m->used_at = now;
	}
	if (add_up(m->used, (int64_t)bytes) > m->limit) {
		m->used_at = 0; /* it may have been emptied by the next message */
		pthread_mutex_unlock(&m->lock);
		return ERR_LIMIT;
	}
	m->used += (int64_t)bytes;
	pthread_mutex_unlock(&m->lock);
	return 0;
}

/* --- delivery --- */

/* A file in tmp/ of that name, or without one. */
static int
create(const struct maildir *m, const char *name, int *fd_r)
{
	if (!name) {
		*fd_r = openat(m->tmp, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);
		return *fd_r < 0 ? err_errno() : 0;
	}
	for (int i = 0; i < 2; i++) {
		*fd_r = openat(
		    m->tmp, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (*fd_r >= 0 || errno != EEXIST)
			break;
		unlinkat(m->tmp, name, 0); /* of a killed process that had our number */
	}
	return *fd_r < 0 ? err_errno() : 0;
}

/* What former attempts left. One that still lives finds its file gone and begins anew. */
static void
sweep_tmp(const struct maildir *m, const char *base)
{
	size_t n = strlen(base);
	struct dirent *e;
	DIR *d;

	if (dir_open(m->tmp, ".", 0, &d))
		return;
	while ((e = readdir(d)))
		if (!strncmp(e->d_name, base, n))
			unlinkat(m->tmp, e->d_name, 0);
	closedir(d);
}

/* The name in new/ for a file that has one in tmp/, or none. */
static int
name_it(const struct maildir *m, int fd, const char *tmp, const char *name)
{
	if (!tmp)
		return linkat(fd, "", m->fresh, name, AT_EMPTY_PATH) ? err_errno() : 0;
	if (!renameat2(m->tmp, tmp, m->fresh, name, RENAME_NOREPLACE))
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return err_errno();
	/* A file system without RENAME_NOREPLACE (NFS): link refuses an old name as well. */
	if (linkat(m->tmp, tmp, m->fresh, name, 0))
		return err_errno();
	unlinkat(m->tmp, tmp, 0);
	return 0;
}

/* Gives the file its name in new/, durably. -EEXIST if the name is there. */
static int
publish(const struct maildir *m, int fd, const char *tmp, const char *name)
{
	int err;

	if (m->named_by_fsync ? sync_file_range(fd, 0, 0,
				    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
					SYNC_FILE_RANGE_WAIT_AFTER)
			      : fsync(fd))
		return err_errno();
	err = name_it(m, fd, tmp, name);
	if (!err && fsync(m->named_by_fsync ? fd : m->fresh))
		err = err_errno();
	return err;
}

/* By way of that name in tmp/, or of none. */
static int
write_as(struct maildir *m, const struct maildir_mail *mail, const char *base, const char *tmp,
    bool *repeated_r)
{
	FILLED_LATER char name[NAME_SIZE + 64];
	struct content_sizes sizes;
	int fd, err = create(m, tmp, &fd);

	if (err)
		return err;
	err = content_write(mail->content, mail->prelude, CONTENT_LF, fd, &sizes);
	if (!err) {
		snprintf(name, sizeof(name), "%s,S=%llu,W=%llu", base,
		    (unsigned long long)sizes.written, (unsigned long long)sizes.crlf);
		err = publish(m, fd, tmp, name);
	}
	if (err && tmp)
		unlinkat(m->tmp, tmp, 0);
	if (close(fd) && !err)
		err = err_errno();
	if (err == -EEXIST) {
		*repeated_r = true;
		err = sync_found(m->fresh, name);
	}
	return err;
}

/* The file system or the kernel has no such files, or does not let us name them; or the directory
 * is gone (ext4: EPERM), which shows again. */
static bool
needs_name(int err)
{
	return err == -ENOENT || err == -EPERM || err == -EOPNOTSUPP || err == -EISDIR ||
	       err == -EINVAL;
}

static int
write_file(struct maildir *m, const struct maildir_mail *mail, const char *base, bool *repeated_r)
{
	FILLED_LATER char tmp[NAME_SIZE + 64];

	if (__atomic_load_n(&m->unnamed, __ATOMIC_RELAXED)) {
		int err = write_as(m, mail, base, NULL, repeated_r);
		if (!needs_name(err))
			return err;
		__atomic_store_n(&m->unnamed, false, __ATOMIC_RELAXED);
	}
	snprintf(tmp, sizeof(tmp), "%s.P%dA%u", base, m->pid,
	    __atomic_fetch_add(&m->attempts, 1, __ATOMIC_RELAXED));
	return write_as(m, mail, base, tmp, repeated_r);
}

static int
prepare(struct maildir *m, const struct maildir_mail *mail)
{
	int err = 0;

	if (!__atomic_load_n(&m->open, __ATOMIC_ACQUIRE)) {
		pthread_mutex_lock(&m->lock);
		if (!m->open)
			err = open_all(m);
		pthread_mutex_unlock(&m->lock);
	}
	return err ? err : take_quota(m, mail->content->size + mail->prelude.n);
}

int
maildir_deliver(struct maildir *m, const struct maildir_mail *mail, bool *repeated_r)
{
	char base[NAME_SIZE];
	int err = prepare(m, mail);

	*repeated_r = false;
	if (err)
		return err;
	base_name(m, mail, base);
	if (mail->repeat) {
		err = find_in(m->cur, base, repeated_r);
		if (!err && !*repeated_r)
			err = find_in(m->fresh, base, repeated_r);
		if (err || *repeated_r)
			return err;
		sweep_tmp(m, base);
	}
	err = write_file(m, mail, base, repeated_r);
	if (err != -ENOENT)
		return err;
	/* The user has moved the Maildir away: once more, with what is there now. The old
	 * descriptors are not closed, other threads may be using them; this child lives for
	 * seconds. */
	pthread_mutex_lock(&m->lock);
	err = open_all(m);
	pthread_mutex_unlock(&m->lock);
	return err ? err : write_file(m, mail, base, repeated_r);
}
