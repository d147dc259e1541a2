/*
 * Brings a folder's state up to date with its directories: other programs (mutt, a delivery,
 * another server) add, rename and remove files at any time and hold no lock. Runs in the user's
 * session.
 *
 * The races, and what is done about them:
 * - readdir may skip or repeat a file that is renamed meanwhile. A known message counts as gone
 * only when two readings in a row did not show it. A base name seen twice is looked at again: one
 * of the two is gone, or they are links of one file (the second is removed), or a copy (it gets a
 * new name).
 * - An mtime has the grain of a clock tick: a directory that changed within the last tick is not
 *   taken as known, it is read once more next time.
 * - Files are taken from new/ to cur/ under the journal's lock; a file that is gone then is taken
 *   up again in the next scan.
 * - UIDs go by the names' order (the time in front first), are in the journal and synced before
 *   anybody hears of them; a crash in between leaves a file without UID, which the next scan sees.
 */
#include "store/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { BATCH = 1 << 20 };

/* --- one file --- */

static bool
wants_new(const struct folder *f)
{
	const struct mailbox *m;

	TAILQ_FOREACH(m, &f->views, entry) {
		if (!(m->flags & (MAILBOX_READ_ONLY | MAILBOX_KEEP_RECENT)))
			return true;
	}
	return false;
}

void
scan_init(struct scan *s, struct folder *f)
{
	*s = (struct scan){ .f = f, .modseq = f->modseq + 1, .take_new = wants_new(f) };
}

int
scan_flush(struct scan *s, bool always)
{
	if (!always && buf_len(&s->records) < BATCH)
		return 0;
	return folder_commit(s->f, &s->records, true, NULL);
}

static void
fresh_add(struct scan *s, uint8_t dir, const char *name)
{
	struct found *fd;

	if (s->fresh_count == s->fresh_size) {
		s->fresh_size = s->fresh_size ? s->fresh_size * 2 : 32;
		s->fresh = xrealloc(s->fresh, s->fresh_size * sizeof(*s->fresh));
	}
	fd = &s->fresh[s->fresh_count++];
	*fd = (struct found){ xstrdup(name), dir, 0 };
	for (const char *p = name; *p >= '0' && *p <= '9' && fd->stamp < INT64_MAX / 20; p++)
		fd->stamp = fd->stamp * 10 + (*p - '0');
}

bool
folder_file_exists(struct folder *f, const char *path, struct stat *st)
{
	return fstatat(f->dirfd, path, st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* The slot was seen before in this reading: which of the two names is true? True if the slot's own.
 */
static bool
duplicate(struct scan *s, struct slot *sl, uint8_t dir, const char *name)
{
	struct folder *f = s->f;
	char old_path[272], path[272], unique[256];
	struct stat a, b;

	slot_path(f, sl, old_path);
	snprintf(path, sizeof(path), "%s/%s", dir == DIR_NEW ? "new" : "cur", name);
	if (!folder_file_exists(f, path, &b))
		return true;
	if (!folder_file_exists(f, old_path, &a))
		return false;
	if (a.st_ino == b.st_ino && a.st_dev == b.st_dev) {
		if (strcmp(path, old_path) != 0)
			(void)unlinkat(f->dirfd, path, 0);
		return true;
	}
	maildir_unique(f->store, SIZE_UNKNOWN, SIZE_UNKNOWN, unique);
	snprintf(old_path, sizeof(old_path), "new/%.250s", unique);
	if (maildir_rename(f->dirfd, path, f->dirfd, old_path) == 0)
		s->moved = true; /* a message of its own, from the next reading on */
	f->scan_due = true;
	return true;
}

/* Moves a file from new/ to cur/. info_r, what stands behind its base name, is then as it is there.
 */
static bool
take(struct scan *s, const char *name, size_t base_len, char *info_r)
{
	char from[272], to[272];
	const char *info = name[base_len] ? name + base_len : ":2,";

	snprintf(from, sizeof(from), "new/%s", name);
	snprintf(to, sizeof(to), "cur/%.*s%s", (int)base_len, name, info);
	if (strlen(to) - 4 > 255)
		return false;
	/* Another message may have that name: the next reading tells them apart (duplicate). */
	if (maildir_rename(s->f->dirfd, from, s->f->dirfd, to) < 0)
		return false;
	memmove(info_r, info, strlen(info) + 1);
	s->moved = true;
	return true;
}

static void
mark_recent(struct folder *f, uint32_t uid)
{
	struct mailbox *m;

	TAILQ_FOREACH(m, &f->views, entry) {
		if (!(m->flags & (MAILBOX_READ_ONLY | MAILBOX_KEEP_RECENT))) {
			uid_list_add(&m->recent, uid);
			return;
		}
	}
}

/* A file with a known base name stands at dir/name. */
void
scan_update(struct scan *s, struct slot *sl, uint8_t dir, const char *name)
{
	struct folder *f = s->f;
	struct file_name fn;
	size_t len = strlen(name);
	char info[256];
	bool was_new = (sl->state & SLOT_NEW) != 0;

	maildir_parse(name, len, &fn);
	memcpy(info, name + fn.base_len, len - fn.base_len + 1);
	if (dir == DIR_NEW && s->take_new && take(s, name, fn.base_len, info)) {
		dir = DIR_CUR;
		mark_recent(f, sl->m.uid);
	}
	size_t info_len = strlen(info);
	uint64_t high = sl->m.keywords & ~((1ull << 26) - 1);
	struct record r = {
		.type = RECORD_FLAGS,
		.uid = sl->m.uid,
		.modseq = s->modseq,
		.flags = fn.flags,
		.keywords = fn.keywords | high,
		.dir = dir,
		.info = slice(info, info_len),
	};
	if (r.flags == sl->m.flags && r.keywords == sl->m.keywords) {
		bool same = was_new == (dir == DIR_NEW) &&
			    info_len == (size_t)sl->name_len - sl->base_len &&
			    memcmp(info, slot_name(f, sl) + sl->base_len, info_len) == 0;
		if (same)
			return;
		r.type = RECORD_LOCATION;
	}
	journal_put(&s->records, &r);
}

void
scan_see(struct scan *s, uint8_t dir, const char *name)
{
	struct folder *f = s->f;
	struct file_name fn;
	size_t len = strlen(name);

	if (name[0] == '.' || len > 255)
		return;
	maildir_parse(name, len, &fn);
	if (fn.base_len == 0)
		return;
	struct slot *sl = folder_find_base(f, name, fn.base_len);
	if (s->second && (!sl || sl->state & SLOT_MARK))
		return;
	if (!sl) {
		fresh_add(s, dir, name);
		return;
	}
	if (sl->state & SLOT_MARK && duplicate(s, sl, dir, name))
		return;
	sl->state |= SLOT_MARK;
	scan_update(s, sl, dir, name);
}

/* --- new messages --- */

static int
fresh_order(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	if (x->stamp != y->stamp)
		return x->stamp < y->stamp ? -1 : 1;
	return strverscmp(x->name, y->name); /* "M9" before "M10" */
}

bool
names_same_base(const char *a, const char *b)
{
	size_t n = strcspn(a, ":");

	return n == strcspn(b, ":") && memcmp(a, b, n) == 0;
}

static int
assign(struct scan *s, const struct found *fd, uint32_t uid)
{
	struct file_name fn;
	size_t len = strlen(fd->name);
	uint8_t dir = fd->dir;
	char info[256];

	maildir_parse(fd->name, len, &fn);
	memcpy(info, fd->name + fn.base_len, len - fn.base_len + 1);
	if (dir == DIR_NEW && s->take_new && take(s, fd->name, fn.base_len, info)) {
		dir = DIR_CUR;
		mark_recent(s->f, uid);
	}
	struct record r = {
		.type = RECORD_ASSIGN,
		.uid = uid,
		.modseq = s->modseq,
		.keywords = fn.keywords,
		.emailid = email_id(slice(fd->name, fn.base_len)),
		.savedate = time(NULL),
		.flags = fn.flags,
		.dir = dir,
		.name = slice(fd->name, fn.base_len),
		.info = slice(info, strlen(info)),
	};
	journal_put(&s->records, &r);
	return scan_flush(s, false);
}

/* A file may have been listed twice, under two names of one base: it is looked for on disk. */
static bool
still_there(struct scan *s, const struct found *fd)
{
	char path[272];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", fd->dir == DIR_NEW ? "new" : "cur", fd->name);
	return folder_file_exists(s->f, path, &st) && S_ISREG(st.st_mode);
}

int
scan_assign(struct scan *s)
{
	uint32_t uid = s->f->uidnext;
	int rc = 0;

	if (s->fresh_count)
		qsort(s->fresh, s->fresh_count, sizeof(*s->fresh), fresh_order);
	for (size_t i = 0; i < s->fresh_count && rc == 0; i++) {
		bool twin = (i > 0 && names_same_base(s->fresh[i - 1].name, s->fresh[i].name)) ||
			    (i + 1 < s->fresh_count &&
				names_same_base(s->fresh[i + 1].name, s->fresh[i].name));
		if (twin) {
			s->f->scan_due = true; /* the next reading has the rest */
			if (!still_there(s, &s->fresh[i]))
				continue;
			if (i > 0 && names_same_base(s->fresh[i - 1].name, s->fresh[i].name))
				continue;
		}
		if (uid >= UINT32_MAX - 1)
			return ERR_LIMIT;
		rc = assign(s, &s->fresh[i], uid++);
	}
	return rc;
}

void
scan_free(struct scan *s)
{
	for (size_t i = 0; i < s->fresh_count; i++)
		free(s->fresh[i].name);
	free(s->fresh);
	buf_free(&s->records);
}

/* --- whole readings --- */

static int
read_dir(struct scan *s, uint8_t dir)
{
	const char *sub = dir == DIR_NEW ? "new" : "cur";
	struct dirent *e;
	struct stat st;
	DIR *d;
	int rc = dir_open(s->f->dirfd, sub, 0, &d);

	if (rc == -ENOENT)
		return mkdirat(s->f->dirfd, sub, 0700) < 0 ? err_errno() : 0;
	if (rc < 0)
		return rc;
	while ((errno = 0, e = readdir(d))) {
		bool file = e->d_type == DT_REG;
		if (e->d_type == DT_UNKNOWN)
			file = fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			       S_ISREG(st.st_mode);
		if (file)
			scan_see(s, dir, e->d_name);
	}
	rc = errno ? err_errno() : 0;
	closedir(d);
	return rc;
}

/* What a process that died left in tmp/ (36 hours: as every Maildir reader does it). Who writes a
 * file with an old mtime leaves the atime new. */
static void
sweep_tmp(struct folder *f)
{
	time_t old = time(NULL) - 36 * 3600;
	struct dirent *e;
	struct stat st;
	DIR *d;

	if (dir_open(f->dirfd, "tmp", O_NOFOLLOW, &d) < 0)
		return;
	while ((e = readdir(d)))
		if (e->d_name[0] != '.' &&
		    fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode) && st.st_mtime < old && st.st_atime < old)
			(void)unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
}

static size_t
unmarked(struct folder *f)
{
	size_t n = 0;

	for (size_t i = 0; i < f->slot_count; i++)
		n += (f->slots[i].state & (SLOT_DEAD | SLOT_MARK)) == 0;
	return n;
}

void
scan_clear_marks(struct folder *f)
{
	for (size_t i = 0; i < f->slot_count; i++)
		f->slots[i].state &= (uint8_t)~SLOT_MARK;
}

static int
read_dirs(struct scan *s)
{
	int rc = read_dir(s, DIR_NEW);

	return rc < 0 ? rc : read_dir(s, DIR_CUR);
}

static void
expunge_missing(struct scan *s)
{
	struct folder *f = s->f;

	for (size_t i = 0; i < f->slot_count; i++) {
		struct record r = {
			.type = RECORD_EXPUNGE, .uid = f->slots[i].m.uid, .modseq = s->modseq
		};
		if ((f->slots[i].state & (SLOT_DEAD | SLOT_MARK)) == 0)
			journal_put(&s->records, &r);
	}
}

static int
scan_once(struct folder *f)
{
	struct scan s;

	folder_pack(f);
	scan_clear_marks(f);
	scan_init(&s, f);
	f->scan_due = false;
	dir_state_read(f->dirfd, "cur", &f->cur);
	dir_state_read(f->dirfd, "new", &f->new);
	int rc = read_dirs(&s);
	if (rc == 0 && unmarked(f)) {
		s.second = true;
		rc = read_dirs(&s);
		if (rc == 0)
			expunge_missing(&s);
	}
	scan_clear_marks(f);
	if (rc == 0)
		rc = scan_assign(&s);
	if (rc == 0)
		rc = scan_flush(&s, true);
	if (s.moved)
		f->cur.known = f->new.known = false;
	if (rc < 0)
		f->scan_due = true;
	scan_free(&s);
	return rc;
}

int
folder_scan(struct folder *f)
{
	int rc = 0;

	hints_clear(f);
	sweep_tmp(f);
	f->scan_due = true;
	for (int i = 0; i < 3 && f->scan_due && rc == 0; i++)
		rc = scan_once(f);
	return rc;
}

int
folder_rescan(struct folder *f)
{
	int rc = folder_lock(f);

	if (rc == 0) {
		rc = folder_scan(f);
		folder_unlock(f);
	}
	return rc;
}
