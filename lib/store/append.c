/*
 * APPEND, COPY and MOVE: messages that enter a folder through the session. Runs in the user's
 * session; content and flags are a client's.
 *
 * Order of an append: the content is written in tmp/ and synced; under the folder's lock it is
 * renamed into cur/, the journal gets the UIDs and is synced (that sync carries the renames on ext4
 * and XFS, elsewhere cur/ is synced before it); then the client hears of it. A crash before that
 * leaves a file in tmp/, or a message that nobody was told of, which the next scan finds: never
 * half a message. A copy is a link, a move a rename; the source's journal follows the target's. A
 * crash in between loses nothing: the source's next scan sees that the file is gone.
 */
#include "store/internal.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { INFO_SIZE = 128 };

struct append {
	struct store *store;
	struct folder *folder;
	int fd;
	char tmp[272];
	char cur[512]; /* where it was renamed to; empty: not yet */
	uint64_t size;
	uint8_t flags;
	uint64_t keywords;
	bool dated;
	int64_t date;
};

/* A file of its own in tmp/, which backups leave out when it is empty. */
static int
open_tmp(struct append *a)
{
	int dirfd = a->folder->dirfd, flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
	char unique[256];

	maildir_unique(a->store, SIZE_UNKNOWN, SIZE_UNKNOWN, unique);
	snprintf(a->tmp, sizeof(a->tmp), "tmp/%.255s", unique);
	a->fd = openat(dirfd, a->tmp, flags, 0600);
	if (a->fd < 0 && errno == ENOENT && mkdirat(dirfd, "tmp", 0700) == 0)
		a->fd = openat(dirfd, a->tmp, flags, 0600);
	return a->fd < 0 ? err_errno() : 0;
}

int
append_begin(struct store *s, struct slice folder, const struct append_info *info,
    uint64_t size_hint, struct append **out_r)
{
	char name[STORE_NAME_MAX + 1];

	*out_r = NULL;
	if (store_name(folder, name, NULL) < 0)
		return ERR_NOT_FOUND;
	if (s->options.message_limit && size_hint > s->options.message_limit)
		return ERR_LIMIT;
	int rc = quota_check(s, size_hint, 1);
	if (rc < 0)
		return rc;
	struct append *a = xcalloc(1, sizeof(*a));
	a->store = s;
	a->fd = -1;
	a->flags = info->flags & FLAGS_IMAP;
	a->dated = info->dated;
	a->date = info->date;
	rc = folder_get(s, name, &a->folder);
	for (size_t i = 0; i < info->keyword_count && rc == 0; i++) {
		int index = folder_keyword(a->folder, info->keywords[i], true);
		if (index >= 0)
			a->keywords |= 1ull << index;
		else if (index != ERR_LIMIT)
			rc = index;
	}
	if (rc == 0)
		rc = open_tmp(a);
	if (rc < 0)
		append_free(&a);
	*out_r = a;
	return rc;
}

int
append_write(struct append *a, struct slice bytes)
{
	uint64_t limit = a->store->options.message_limit;

	if (limit && a->size + bytes.n > limit)
		return ERR_LIMIT;
	a->size += bytes.n;
	return io_write_all(a->fd, bytes);
}

void
append_free(struct append **ap)
{
	struct append *a = *ap;

	*ap = NULL;
	if (!a)
		return;
	if (a->fd >= 0) {
		close(a->fd);
		unlinkat(a->folder->dirfd, a->tmp, 0);
	}
	folder_put(&a->folder);
	free(a);
}

static int
make_durable(struct append *a)
{
	struct timespec t[2] = { { .tv_nsec = UTIME_NOW }, { .tv_sec = a->date } };

	if (a->dated && futimens(a->fd, t) < 0)
		return err_errno();
	return fsync(a->fd) < 0 ? err_errno() : 0;
}

/* Renames it into cur/ and writes its record. The name says that size and CRLF size are equal:
 * what the client sent is what it gets. */
static int
put_in_place(struct append *a, uint32_t uid, struct buf *records)
{
	struct folder *f = a->folder;
	char base[256], info[INFO_SIZE];

	maildir_unique(a->store, a->size, a->size, base);
	size_t n = maildir_info(SLICE_NULL, a->flags, a->keywords, info);
	snprintf(a->cur, sizeof(a->cur), "cur/%s%s", base, info);
	int rc = maildir_rename(f->dirfd, a->tmp, f->dirfd, a->cur);
	if (rc < 0) {
		a->cur[0] = '\0';
		return rc;
	}
	struct record r = {
		.type = RECORD_ASSIGN,
		.uid = uid,
		.modseq = f->modseq + 1,
		.keywords = a->keywords,
		.emailid = email_id(slice_str(base)),
		.savedate = time(NULL),
		.flags = a->flags,
		.dir = DIR_CUR,
		.name = slice_str(base),
		.info = slice(info, n),
	};
	journal_put(records, &r);
	return 0;
}

static int
commit_all(struct append **list, size_t n, struct copy_result *out_r)
{
	struct folder *f = list[0]->folder;
	struct buf records = { 0 };
	uint32_t first;

	int rc = folder_lock(f);
	if (rc < 0)
		return rc;
	first = f->uidnext;
	if (UINT32_MAX - first <= n)
		rc = ERR_LIMIT;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = put_in_place(list[i], first + (uint32_t)i, &records);
	if (rc == 0)
		rc = sync_dir(f->store, f->dirfd, "cur", false);
	if (rc == 0)
		rc = folder_commit(f, &records, true, NULL);
	for (size_t i = 0; i < n; i++) {
		if (rc == 0)
			uid_list_add(&out_r->to, first + (uint32_t)i);
		else if (list[i]->cur[0])
			unlinkat(f->dirfd, list[i]->cur, 0);
		if (list[i]->cur[0]) {
			close(list[i]->fd);
			list[i]->fd = -1;
		}
	}
	out_r->uidvalidity = f->head.uidvalidity;
	folder_unlock(f);
	buf_free(&records);
	return rc;
}

int
append_finish(struct append **list, size_t n, struct copy_result *out_r)
{
	int rc = n ? 0 : ERR_STATE;

	*out_r = (struct copy_result){ 0 };
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = list[i]->folder == list[0]->folder ? make_durable(list[i]) : ERR_STATE;
	if (rc == 0)
		rc = commit_all(list, n, out_r);
	for (size_t i = 0; i < n; i++)
		append_free(&list[i]);
	return rc;
}

/* --- copy and move --- */

struct copy {
	struct folder *from, *to;
	bool move;
	uint32_t uid;                         /* next in the target */
	uint64_t keyword_map[STORE_KEYWORDS]; /* bit in the target */
	struct buf records, made;             /* made: NUL-terminated paths in the target */
	struct copy_result *result;
};

static uint64_t
map_keywords(struct copy *c, uint64_t keywords)
{
	uint64_t out = 0;

	if (c->from == c->to)
		return keywords;
	for (unsigned i = 0; i < STORE_KEYWORDS; i++) {
		if (!(keywords >> i & 1) || !c->from->keywords[i])
			continue;
		if (!c->keyword_map[i]) {
			int index = folder_keyword(c->to, slice_str(c->from->keywords[i]), true);
			c->keyword_map[i] = index >= 0 ? 1ull << index : 0;
		}
		out |= c->keyword_map[i];
	}
	return out;
}

/* Where links are not possible (too many, another file system): the bytes. */
static int
copy_bytes(struct copy *c, const char *from, const char *to)
{
	char tmp[272], unique[256];
	struct stat st;
	struct buf b = { 0 };
	int rc = 0, out = -1;
	int in = openat(c->from->dirfd, from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (in < 0)
		return errno == ENOENT ? ERR_NOT_FOUND : err_errno();
	maildir_unique(c->to->store, SIZE_UNKNOWN, SIZE_UNKNOWN, unique);
	snprintf(tmp, sizeof(tmp), "tmp/%.255s", unique);
	if (fstat(in, &st) == 0)
		out = openat(c->to->dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0)
		rc = err_errno();
	while (rc == 0) {
		ptrdiff_t n = buf_read(&b, in, 65536);
		if (n <= 0) {
			rc = (int)n;
			break;
		}
		rc = io_write_all(out, buf_slice(&b));
		buf_clear(&b);
	}
	struct timespec t[2] = { { .tv_nsec = UTIME_NOW }, st.st_mtim };
	if (rc == 0 && (futimens(out, t) < 0 || fsync(out) < 0))
		rc = err_errno();
	if (rc == 0 && renameat(c->to->dirfd, tmp, c->to->dirfd, to) < 0)
		rc = err_errno();
	if (rc < 0 && out >= 0)
		unlinkat(c->to->dirfd, tmp, 0);
	close(in);
	if (out >= 0)
		close(out);
	buf_free(&b);
	return rc;
}

static int
transfer(struct copy *c, const char *from, const char *to)
{
	int rc;

	if (c->move)
		rc = maildir_rename(c->from->dirfd, from, c->to->dirfd, to);
	else
		rc = linkat(c->from->dirfd, from, c->to->dirfd, to, 0) ? err_errno() : 0;
	if (rc == -ENOENT)
		return ERR_NOT_FOUND;
	if (rc != -EMLINK && rc != -EXDEV && rc != -EPERM)
		return rc;
	rc = copy_bytes(c, from, to);
	if (rc == 0 && c->move && unlinkat(c->from->dirfd, from, 0) < 0)
		rc = err_errno();
	return rc;
}

static int
copy_one(struct copy *c, uint32_t uid)
{
	char from[272], to[512], base[256], info[INFO_SIZE];

	for (int tries = 0; tries < 3; tries++) {
		struct slot *s = folder_slot(c->from, uid);
		struct file_name fn;
		if (!s)
			return 0;
		struct message m = s->m;
		maildir_parse(slot_name(c->from, s), s->name_len, &fn);
		bool sized = fn.size != SIZE_UNKNOWN && fn.vsize != SIZE_UNKNOWN;
		maildir_unique(c->to->store, sized ? fn.size : SIZE_UNKNOWN, fn.vsize, base);
		m.keywords = map_keywords(c, m.keywords);
		size_t n = maildir_info(SLICE_NULL, m.flags, m.keywords, info);
		slot_path(c->from, s, from);
		snprintf(to, sizeof(to), "cur/%s%s", base, info);
		int rc = transfer(c, from, to);
		if (rc == ERR_NOT_FOUND) {
			rc = folder_rescan(c->from);
			if (rc < 0)
				return rc;
			continue;
		}
		if (rc < 0)
			return rc;
		buf_add(&c->made, slice(to, strlen(to) + 1));
		struct record r = {
			.type = RECORD_ASSIGN,
			.uid = c->uid++,
			.modseq = c->to->modseq + 1,
			.keywords = m.keywords,
			.emailid = m.emailid,
			.savedate = time(NULL),
			.flags = m.flags,
			.dir = DIR_CUR,
			.name = slice_str(base),
			.info = slice(info, n),
		};
		journal_put(&c->records, &r);
		uid_list_add(&c->result->from, uid);
		uid_list_add(&c->result->to, r.uid);
		return 0;
	}
	return 0;
}

/* What is known of the content goes along. */
static void
carry_attrs(struct copy *c)
{
	for (size_t i = 0; i < c->result->to.count; i++) {
		const struct slot *src = folder_slot(c->from, c->result->from.uids[i]);
		struct slot *dst = folder_slot(c->to, c->result->to.uids[i]);
		if (!src || !dst || (src->date == DATE_UNKNOWN && src->size == SIZE_UNKNOWN))
			continue;
		dst->date = src->date;
		dst->size = src->size;
		folder_save_attr(c->to, dst);
	}
}

static void
undo(struct copy *c)
{
	struct slice made = buf_slice(&c->made);

	while (made.n)
		unlinkat(c->to->dirfd, (const char *)slice_split(&made, '\0').p, 0);
	c->result->from.count = c->result->to.count = 0;
}

/* The journal of the source learns what went away. */
static int
expunge_moved(struct copy *c)
{
	struct buf records = { 0 };
	int rc = folder_lock(c->from);

	if (rc < 0)
		return rc;
	uint64_t modseq = c->from->modseq + 1;
	for (size_t i = 0; i < c->result->from.count; i++) {
		struct record r = {
			.type = RECORD_EXPUNGE, .uid = c->result->from.uids[i], .modseq = modseq
		};
		if (folder_slot(c->from, r.uid))
			journal_put(&records, &r);
	}
	rc = folder_commit(c->from, &records, true, NULL);
	if (rc == 0)
		rc = sync_dir(c->from->store, c->from->dirfd, "cur", false);
	folder_unlock(c->from);
	buf_free(&records);
	return rc;
}

static int
check_space(struct mailbox *m, const uint32_t *uids, size_t n)
{
	uint64_t total = 0;

	if (!m->store->options.quota_bytes && !m->store->options.quota_messages)
		return 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t size;
		if (folder_slot_size(m->folder, uids[i], &size) == 0)
			total += size;
	}
	return quota_check(m->store, total, n);
}

static int
run_copy(struct copy *c, const uint32_t *uids, size_t n)
{
	int rc = folder_lock(c->to);

	if (rc < 0)
		return rc;
	c->uid = c->to->uidnext;
	if (UINT32_MAX - c->uid <= n)
		rc = ERR_LIMIT;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = copy_one(c, uids[i]);
	if (rc < 0 && !c->move)
		undo(c);
	else if (buf_len(&c->records)) {
		int rc2 = sync_dir(c->to->store, c->to->dirfd, "cur", false);
		if (c->uid - (uint32_t)c->result->to.count != c->to->uidnext)
			rc2 = ERR_STATE; /* the same folder was scanned meanwhile: UIDs moved on */
		if (rc2 == 0)
			rc2 = folder_commit(c->to, &c->records, true, NULL);
		if (rc2 == 0)
			carry_attrs(c);
		if (rc2 < 0 && !c->move)
			undo(c);
		if (rc2 < 0)
			c->to->scan_due = c->from->scan_due = true;
		rc = rc < 0 ? rc : rc2;
	}
	folder_unlock(c->to);
	return rc;
}

int
mailbox_copy(struct mailbox *m, const uint32_t *uids, size_t n, struct slice to, bool move,
    struct copy_result *out_r)
{
	char name[STORE_NAME_MAX + 1];
	struct copy c = { .from = m->folder, .move = move, .result = out_r };

	*out_r = (struct copy_result){ 0 };
	if (move && mailbox_read_only(m))
		return ERR_DENIED;
	if (store_name(to, name, NULL) < 0)
		return ERR_NOT_FOUND;
	int rc = folder_get(m->store, name, &c.to);
	if (rc == 0 && !move)
		rc = check_space(m, uids, n);
	/* What changed the source outside is looked at first, so that no scan comes in between. */
	if (rc == 0)
		rc = folder_refresh(m->folder, false);
	if (rc == 0)
		rc = run_copy(&c, uids, n);
	if (move && out_r->from.count) {
		int rc2 = expunge_moved(&c);
		rc = rc < 0 ? rc : rc2;
	}
	if (c.to)
		out_r->uidvalidity = c.to->head.uidvalidity;
	folder_put(&c.to);
	buf_free(&c.records);
	buf_free(&c.made);
	return rc;
}
