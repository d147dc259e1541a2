/*
 * The journal as a file: locking, reading what others appended, committing.
 * Runs in the user's session. Several processes of the user may have the folder open.
 *
 * Why the order survives a crash. A commit appends one frame under the exclusive lock, syncs, and
 * only then is it applied and told. A crash before the sync leaves a torn frame that nobody was
 * told of; the next who takes the lock cuts it off. Compaction writes a new file, syncs it, renames
 * it over the old one and syncs the directory, all under the lock of the old file: who waits for
 * that lock finds another inode behind the name and opens it. A damaged journal (a bad frame with
 * good ones behind it) is set aside, never deleted, and the folder gets a new UIDVALIDITY.
 */
#include "store/internal.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

enum { LOCK_TRIES = 5000, JOURNAL_MAX = 1 << 30 };

/* Waits at most about 5 s: a holder that hangs must not hang the session for ever. */
static int
lock_file(int fd, int how)
{
	struct timespec pause = { 0, 1000000 };

	for (int i = 0; i < LOCK_TRIES; i++) {
		if (flock(fd, how | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK && errno != EINTR)
			return err_errno();
		nanosleep(&pause, NULL);
	}
	return ERR_TEMPORARY;
}

/* Reads from the applied size to the end and applies. Under a lock of either kind. */
static int
read_tail(struct folder *f, off_t size, bool exclusive)
{
	struct buf b = { 0 };
	bool damaged = false;
	size_t n = (size_t)(size - f->journal_size);
	int rc = 0;

	if (size > JOURNAL_MAX)
		return ERR_LIMIT;
	unsigned char *p = buf_reserve(&b, n);
	for (size_t got = 0; got < n && rc == 0;) {
		ssize_t r = pread(f->journal, p + got, n - got, f->journal_size + (off_t)got);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			rc = r < 0 ? err_errno() : ERR_TRUNCATED;
		else
			got += (size_t)r;
	}
	if (rc == 0) {
		buf_commit(&b, n);
		size_t good = journal_parse(buf_slice(&b), folder_apply, f, &damaged);
		f->journal_size += (off_t)good;
		if (damaged)
			rc = ERR_CORRUPT;
		else if (good < n && exclusive && ftruncate(f->journal, f->journal_size) < 0)
			rc = err_errno();
	}
	buf_free(&b);
	return rc;
}

static int
load(struct folder *f)
{
	unsigned char head[JOURNAL_HEADER];
	struct stat st;

	if (fstat(f->journal, &st) < 0)
		return err_errno();
	ssize_t n = pread(f->journal, head, sizeof(head), 0);
	if (n < 0)
		return err_errno();
	int rc = journal_get_header(slice(head, (size_t)n), &f->head);
	if (rc < 0)
		return ERR_CORRUPT;
	folder_clear(f);
	f->journal_ino = st.st_ino;
	f->journal_size = JOURNAL_HEADER;
	return read_tail(f, st.st_size, true);
}

/* The state was read anew from another file: the views learn what differs from what they had. */
static void
reload_views(struct folder *f, uint64_t modseq)
{
	struct mailbox *m;

	f->scan_due = true;
	TAILQ_FOREACH(m, &f->views, entry) {
		for (size_t i = 0; i < m->count; i++) {
			if (!folder_slot(f, m->uids[i]))
				uid_list_add(&m->expunged, m->uids[i]);
		}
		view_collect(m);
	}
	for (size_t i = 0; i < f->slot_count; i++) {
		const struct slot *s = &f->slots[i];
		if (!(s->state & SLOT_DEAD) && s->m.modseq > modseq)
			folder_note_change(f, s->m.uid, false, s->m.modseq);
	}
}

/* Locks what the name stands for now; a compaction by another process is followed. */
int
folder_lock(struct folder *f)
{
	struct stat named, held;

	if (f->gone)
		return ERR_NOT_FOUND;
	if (f->lock_depth++)
		return 0;
	for (int tries = 0; tries < 10; tries++) {
		int rc = lock_file(f->journal, LOCK_EX);
		if (rc < 0) {
			f->lock_depth = 0;
			return rc;
		}
		if (fstatat(f->dirfd, JOURNAL_FILE, &named, 0) == 0 &&
		    fstat(f->journal, &held) == 0 && named.st_ino == held.st_ino &&
		    f->journal_ino == held.st_ino) {
			rc = held.st_size < f->journal_size ? ERR_CORRUPT : 0;
			if (rc == 0 && held.st_size > f->journal_size)
				rc = read_tail(f, held.st_size, true);
			f->gone |= rc == ERR_CORRUPT; /* the next to open it sets it aside */
			if (rc < 0)
				folder_unlock(f);
			return rc;
		}
		int fd = openat(f->dirfd, JOURNAL_FILE, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0) { /* the folder was deleted */
			f->gone = errno == ENOENT;
			rc = f->gone ? ERR_NOT_FOUND : err_errno();
			folder_unlock(f);
			return rc;
		}
		uint32_t validity = f->head.uidvalidity;
		uint64_t modseq = f->modseq;
		close(f->journal);
		f->journal = fd;
		rc = lock_file(fd, LOCK_EX);
		if (rc == 0)
			rc = load(f);
		if (rc == ERR_CORRUPT || (rc == 0 && validity != f->head.uidvalidity)) {
			f->gone = true; /* no UID that a view holds means anything any more */
			rc = ERR_NOT_FOUND;
		}
		if (rc < 0) {
			folder_unlock(f);
			return rc;
		}
		reload_views(f, modseq);
	}
	folder_unlock(f);
	return ERR_TEMPORARY;
}

void
folder_unlock(struct folder *f)
{
	if (f->lock_depth == 0 || --f->lock_depth > 0)
		return;
	(void)flock(f->journal, LOCK_UN);
}

int
folder_tail(struct folder *f)
{
	struct stat st;

	if (f->lock_depth)
		return 0;
	if (fstat(f->journal, &st) < 0)
		return err_errno();
	if (st.st_size == f->journal_size && st.st_nlink > 0)
		return 0;
	int rc = folder_lock(f);
	if (rc == 0)
		folder_unlock(f);
	return rc;
}

int
folder_commit(struct folder *f, struct buf *records, bool sync, const struct mailbox *origin)
{
	struct buf out = { 0 };
	bool damaged;

	if (buf_len(records) == 0)
		return 0;
	if (buf_len(records) > JOURNAL_FRAME_MAX)
		return ERR_LIMIT;
	size_t mark = journal_begin_frame(&out);
	buf_add(&out, buf_slice(records));
	journal_end_frame(&out, mark);
	int rc = io_write_all(f->journal, buf_slice(&out));
	if (rc == 0 && sync && fdatasync(f->journal) < 0)
		rc = err_errno();
	if (rc < 0) { /* nobody was told: take it back */
		if (ftruncate(f->journal, f->journal_size) < 0)
			rc = rc ? rc : err_errno();
	} else {
		f->origin = origin;
		f->journal_size += (off_t)journal_parse(buf_slice(&out), folder_apply, f, &damaged);
		f->origin = NULL;
	}
	buf_free(&out);
	buf_clear(records);
	return rc;
}

/* --- opening --- */

/* Keeps the bad file beside, for whoever wants to look. */
static int
set_aside(struct folder *f)
{
	char to[80];

	snprintf(to, sizeof(to), JOURNAL_FILE ".damaged.%lld.%u", (long long)time(NULL),
	    f->store->counter++);
	close(f->journal);
	f->journal = -1;
	return renameat(f->dirfd, JOURNAL_FILE, f->dirfd, to) < 0 ? err_errno() : 0;
}

int
folder_open_journal(struct folder *f)
{
	for (int tries = 0; tries < 5; tries++) {
		f->journal =
		    openat(f->dirfd, JOURNAL_FILE, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
		if (f->journal < 0 && errno != ENOENT)
			return err_errno();
		if (f->journal < 0) {
			int rc = folder_make_journal(f, true);
			if (rc == -EEXIST)
				continue;
			return rc;
		}
		int rc = lock_file(f->journal, LOCK_EX);
		if (rc < 0)
			return rc;
		rc = load(f);
		if (rc == ERR_CORRUPT) {
			rc = set_aside(f);
			if (rc == 0)
				rc = folder_make_journal(f, false);
			return rc;
		}
		(void)flock(f->journal, LOCK_UN);
		return rc;
	}
	return ERR_TEMPORARY;
}
