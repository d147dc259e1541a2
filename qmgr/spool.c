/*
 * The file system side of the queue. Everything here but spool_op runs in the threads of the pool
 * (or at the start, before there are any). Hostile inputs: files that a receiver wrote, a damaged
 * spool.
 *
 * Why nothing acknowledged is lost: COMMIT writes content, record and slots, and the footer with
 * the last byte, then fsyncs; only after that does the loop reply 250. The name is durable with the
 * file (ext4, XFS) or by the sync of its folder (elsewhere). A file of large content is marked by
 * its mode until it is sealed, so content that only looks like a queue file is never taken for one.
 * An error of fsync is final: it is reported, and the loop trusts this file system no more.
 */
#include "qmgr/spool.h"

#include "daemon/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

static int
dir_of(const struct spool_op *o)
{
	return o->incoming ? o->spool->incoming : o->spool->dirs[queue_id_dir(o->id)];
}

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int
create(struct spool_op *o)
{
	int dir = o->spool->incoming;

	o->read_fd = openat(dir, o->name,
	    O_RDONLY | O_NOATIME | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, QUEUE_MODE_VALID);
	if (o->read_fd < 0)
		return err_errno();
	o->fd = openat(dir, o->name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (o->fd >= 0)
		return 0;
	int err = err_errno();
	unlinkat(dir, o->name, 0);
	return err;
}

static int
seal(struct spool_op *o)
{
	struct stat st;

	/* Refused while any writable description of the file exists, in whatever process or socket.
	 */
	if (fcntl(o->read_fd, F_SETLEASE, F_RDLCK))
		return errno == EAGAIN ? ERR_DENIED : err_errno();
	if (fcntl(o->read_fd, F_SETLEASE, F_UNLCK) || fstat(o->read_fd, &st))
		return err_errno();
	o->size = (uint64_t)st.st_size;
	return 0;
}

static int
sync_file(const struct spool_op *o)
{
	if (fsync(o->fd))
		return err_errno();
	if (o->spool->sync_dirs && fsync(dir_of(o)))
		return err_errno();
	return 0;
}

/* The content of a large parent, behind the header that was written before. */
static int
copy_extents(const struct spool_op *o, uint64_t *at)
{
	for (size_t i = 0; i < o->n_copy; i++) {
		off_t in = (off_t)o->copy[i].offset, out = (off_t)*at;
		uint64_t left = o->copy[i].length;

		while (left) {
			ssize_t n = copy_file_range(o->read_fd, &in, o->fd, &out, left, 0);

			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				return n ? err_errno() : ERR_CORRUPT;
			left -= (uint64_t)n;
		}
		*at = (uint64_t)out;
	}
	return 0;
}

/* A sealed file into its folder, where it is nothing until it has its last mode. It ends behind the
 * content: there may be more of it, from an earlier use. */
static int
move_in(struct spool_op *o)
{
	char made_as[QUEUE_ID_SIZE];

	queue_id_format(o->made_as, made_as);
	o->fd = openat(o->spool->incoming, made_as, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (o->fd >= 0 && !fchmod(o->fd, QUEUE_MODE_OPEN) && !ftruncate(o->fd, (off_t)o->offset) &&
	    !renameat2(o->spool->incoming, made_as, dir_of(o), o->name, RENAME_NOREPLACE))
		return 0;
	int err = err_errno();
	unlinkat(o->spool->incoming, made_as, 0);
	close_fd(&o->fd);
	return err;
}

static int
open_for_commit(struct spool_op *o)
{
	if (!o->new_file)
		return move_in(o);
	o->fd = openat(
	    dir_of(o), o->name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_CREAT | O_EXCL, o->mode);
	return o->fd < 0 ? err_errno() : 0;
}

static int
commit(struct spool_op *o)
{
	struct slice parts[2] = { o->content, buf_slice(&o->tail) };
	uint64_t at = o->content.n;
	int err = open_for_commit(o);

	if (err)
		return err;
	if (o->n_copy) {
		err = queue_write_all(o->fd, parts, 1, 0);
		if (!err)
			err = copy_extents(o, &at);
		if (!err)
			err = queue_write_all(o->fd, parts + 1, 1, at);
	} else {
		err = queue_write_all(o->fd, parts, 2, o->offset);
	}
	if (!err && !o->new_file && fchmod(o->fd, o->mode))
		err = err_errno();
	if (!err)
		err = sync_file(o);
	if (err)
		unlinkat(dir_of(o), o->name, 0);
	close_fd(&o->fd);
	return err;
}

static int
update(struct spool_op *o)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
		{ o->mtime_ms / 1000, o->mtime_ms % 1000 * 1000000 } };
	int err = 0;

	o->fd = openat(dir_of(o), o->name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (o->fd < 0)
		return err_errno();
	for (size_t i = 0; i < o->n_slots && !err; i++) {
		struct slice bytes = slice(o->slots[i].bytes, o->layout.slot_size);

		if (o->slots[i].rcpt >= o->layout.slots)
			err = ERR_STATE;
		else
			err = queue_write_all(o->fd, &bytes, 1,
			    o->layout.slots_offset +
				(uint64_t)o->slots[i].rcpt * o->layout.slot_size);
	}
	if (!err && o->mode && fchmod(o->fd, o->mode))
		err = err_errno();
	if (!err && o->mtime_ms && futimens(o->fd, times))
		err = err_errno();
	if (!err && o->sync && fsync(o->fd))
		err = err_errno();
	close_fd(&o->fd);
	return err;
}

static int
remove_file(const struct spool_op *o)
{
	if (unlinkat(dir_of(o), o->name, 0))
		return err_errno();
	return o->sync && fsync(dir_of(o)) ? err_errno() : 0;
}

static int
load(struct spool_op *o)
{
	struct stat st;
	int err;

	o->read_fd = openat(dir_of(o), o->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (o->read_fd < 0)
		return err_errno();
	if (fstat(o->read_fd, &st))
		return err_errno();
	if ((st.st_mode & 07777) == QUEUE_MODE_OPEN)
		return ERR_NOT_FOUND;
	o->held = (st.st_mode & 07777) == QUEUE_MODE_HELD;
	o->mtime_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
	err = queue_file_read(o->read_fd, &o->arena, &o->env, &o->layout);
	if (!err && o->env.id != o->id)
		err = ERR_CORRUPT;
	if (!err && o->env.size <= o->small &&
	    !(err = queue_file_content(o->read_fd, &o->env, o->small, &o->data)))
		close_fd(&o->read_fd);
	return err;
}

static int
space(struct spool_op *o)
{
	struct statfs st;

	if (fstatfs(o->spool->root, &st))
		return err_errno();
	o->free_bytes = (uint64_t)st.f_bavail * (uint64_t)st.f_bsize;
	/* File systems that make inodes as they need them report none. */
	o->free_inodes = st.f_files ? st.f_ffree : UINT64_MAX;
	return 0;
}

static int
reserve_clock(struct spool_op *o)
{
	unsigned char bytes[10];
	struct slice part = slice(bytes, sizeof(bytes));
	int err;

	for (int i = 0; i < 8; i++)
		bytes[i] = (unsigned char)(o->units >> (8 * i));
	bytes[8] = (unsigned char)o->spool->start;
	bytes[9] = (unsigned char)(o->spool->start >> 8);
	o->fd = openat(o->spool->root, "clock", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (o->fd < 0)
		return err_errno();
	err = queue_write_all(o->fd, &part, 1, 0);
	if (!err && fsync(o->fd))
		err = err_errno();
	close_fd(&o->fd);
	return err;
}

static void
work(struct pool_op *op)
{
	struct spool_op *o = (struct spool_op *)(void *)op;

	switch (o->kind) {
	case SPOOL_CREATE:
		op->err = create(o);
		break;
	case SPOOL_SEAL:
		op->err = seal(o);
		break;
	case SPOOL_COMMIT:
		op->err = commit(o);
		break;
	case SPOOL_UPDATE:
		op->err = update(o);
		break;
	case SPOOL_UNLINK:
		op->err = remove_file(o);
		break;
	case SPOOL_LOAD:
		op->err = load(o);
		break;
	case SPOOL_CORRUPT:
		op->err =
		    renameat(dir_of(o), o->name, o->spool->corrupt, o->name) ? err_errno() : 0;
		break;
	case SPOOL_SPACE:
		op->err = space(o);
		break;
	case SPOOL_CLOCK:
		op->err = reserve_clock(o);
		break;
	case SPOOL_WALK:
		op->err = spool_walk(o);
		break;
	}
}

struct spool_op *
spool_op(const struct spool *s, enum spool_kind kind, queue_id id, void (*done)(struct pool_op *),
    void *owner, void *ctx)
{
	struct spool_op *o = xcalloc(1, sizeof(*o));

	o->op.work = work;
	o->op.done = done;
	o->owner = owner;
	o->spool = s;
	o->kind = kind;
	o->id = id;
	o->ctx = ctx;
	o->fd = o->read_fd = -1;
	queue_id_format(id, o->name);
	return o;
}

void
spool_op_free(struct spool_op *o)
{
	close_fd(&o->fd);
	close_fd(&o->read_fd);
	if (o->walk)
		closedir(o->walk);
	buf_free(&o->tail);
	buf_free(&o->data);
	arena_free(&o->arena);
	free(o->slots);
	free(o->found);
	free(o);
}

/* --- start --- */

static int
make_dir(int at, const char *name, uid_t uid, gid_t gid, char *why, size_t size)
{
	struct stat st;

	if (mkdirat(at, name, 0700) && errno != EEXIST)
		goto failed;
	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW))
		goto failed;
	if (!S_ISDIR(st.st_mode)) {
		snprintf(why, size, "%s in the queue directory is no folder: move it away", name);
		return ERR_CORRUPT;
	}
	if (st.st_uid != uid && getuid() == 0 && fchownat(at, name, uid, gid, AT_SYMLINK_NOFOLLOW))
		goto failed;
	return 0;
failed:
	snprintf(why, size, "folder %s of the queue: %s", name, err_str(err_errno()));
	return err_errno();
}

int
spool_prepare(const char *root, uid_t uid, gid_t gid, char *why, size_t size)
{
	int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;

	if (fd < 0) {
		snprintf(why, size, "queue directory %s: %s", root, err_str(err_errno()));
		return err_errno();
	}
	for (unsigned int i = 0; i < QUEUE_DIRS && !err; i++) {
		char name[2] = { queue_dir_name(i), '\0' };

		err = make_dir(fd, name, uid, gid, why, size);
	}
	if (!err)
		err = make_dir(fd, "incoming", uid, gid, why, size);
	if (!err)
		err = make_dir(fd, "corrupt", uid, gid, why, size);
	close(fd);
	return err;
}

static uint64_t
read_clock(int root, unsigned int *start_r)
{
	unsigned char b[10] = { 0 };
	uint64_t units = 0;
	int fd = openat(root, "clock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	*start_r = 1024; /* none */
	if (fd < 0)
		return 0;
	if (read(fd, b, sizeof(b)) == (ssize_t)sizeof(b)) {
		for (int i = 0; i < 8; i++)
			units |= (uint64_t)b[i] << (8 * i);
		*start_r = b[8] | (unsigned int)b[9] << 8;
	}
	close(fd);
	return units;
}

static int
open_dirs(struct spool *s)
{
	s->root = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->root < 0)
		return err_errno();
	s->incoming = openat(s->root, "incoming", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->incoming < 0)
		return err_errno();
	s->corrupt = openat(s->root, "corrupt", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->corrupt < 0)
		return err_errno();
	for (unsigned int i = 0; i < QUEUE_DIRS; i++) {
		char name[2] = { queue_dir_name(i), '\0' };

		s->dirs[i] = openat(s->root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (s->dirs[i] < 0)
			return err_errno();
	}
	return 0;
}

int
spool_open(struct spool *s, unsigned int start, uint64_t *units_r, char *why, size_t size)
{
	struct statfs st;
	unsigned int last;
	int err = open_dirs(s);

	if (!err && fstatfs(s->root, &st))
		err = err_errno();
	if (err) {
		snprintf(why, size, "folders of the queue: %s", err_str(err));
		return err;
	}
	s->sync_dirs = st.f_type != 0xEF53 && st.f_type != 0x58465342; /* ext4, XFS */
	*units_r = read_clock(s->root, &last);
	s->start = start & 1023;
	if (s->start == last)
		s->start = (s->start + 1) & 1023;
	return 0;
}
