/*
 * Creating, deleting and renaming folders, and status and usage of folders that are not open. Runs
 * in the user's session on behalf of a client. A folder is deleted by renaming it out of sight
 * first, so that a crash leaves either the folder or a heap that the next deletion sweeps away.
 */
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int
store_exists(struct store *s, struct slice name)
{
	char canonical[STORE_NAME_MAX + 1];
	struct buf disk = { 0 };

	if (store_name(name, canonical, NULL) < 0)
		return ERR_NOT_FOUND;
	int rc = store_find_disk(s, canonical, &disk);
	buf_free(&disk);
	return rc;
}

int
store_create(struct store *s, struct slice name, unsigned special_use)
{
	char canonical[STORE_NAME_MAX + 1], path[HIDDEN_MAX + 32];
	struct buf disk = { 0 };

	int rc = store_name(name, canonical, NULL);
	if (rc < 0)
		return rc;
	rc = store_find_disk(s, canonical, &disk);
	if (rc == 0)
		rc = -EEXIST;
	else if (rc == ERR_NOT_FOUND) {
		buf_clear(&disk);
		rc = name_to_disk(canonical, &disk);
		buf_add_byte(&disk, 0);
		const char *dir = (const char *)buf_slice(&disk).p;
		if (rc == 0)
			rc = maildir_make(s->rootfd, dir);
		if (rc == 0) {
			snprintf(path, sizeof(path), "%s/maildirfolder", dir);
			int fd = openat(s->rootfd, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
			if (fd >= 0)
				close(fd);
			rc = sync_dir(s, s->rootfd, dir, true);
		}
		if (rc == 0)
			rc = sync_dir(s, s->rootfd, ".", true);
	}
	if (rc == 0 && special_use)
		rc = special_set(s, canonical, special_use);
	buf_free(&disk);
	return rc;
}

/* --- delete --- */

static void
remove_tree(int at, const char *path, int depth)
{
	struct dirent *e;
	DIR *d;

	if (dir_open(at, path, O_NOFOLLOW, &d) < 0)
		return;
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (unlinkat(dirfd(d), e->d_name, 0) < 0 && (errno == EISDIR || errno == EPERM) &&
		    depth < 8)
			remove_tree(dirfd(d), e->d_name, depth + 1);
	}
	closedir(d);
	unlinkat(at, path, AT_REMOVEDIR);
}

static void
sweep(struct store *s)
{
	struct dirent *e;
	DIR *d;

	if (dir_open(s->rootfd, ".", 0, &d) < 0)
		return;
	while ((e = readdir(d)))
		if (strncmp(e->d_name, TRASH_PREFIX, sizeof(TRASH_PREFIX) - 1) == 0)
			remove_tree(s->rootfd, e->d_name, 0);
	closedir(d);
}

/* The index rows of a folder that goes; its id does not come again. */
static void
drop_rows(struct store *s, const char *name, const char *disk)
{
	struct folder *f;
	char key[32];

	TAILQ_FOREACH(f, &s->folders, entry) {
		if (strcmp(f->name, name) == 0)
			f->gone = true;
	}
	struct folder_row row;
	if (row_load(s, disk, &row) == 0) {
		struct folder dead = { .head.mailboxid = row.status.mailboxid };
		index_remove_prefix(s->index, message_key(&dead, 'A', 0, -1, key));
		index_remove_prefix(s->index, message_key(&dead, 'B', 0, -1, key));
	}
	row_drop(s, disk);
}

int
store_delete(struct store *s, struct slice name)
{
	char canonical[STORE_NAME_MAX + 1], trash[300];
	struct buf disk = { 0 };

	int rc = store_name(name, canonical, NULL);
	if (rc < 0)
		return ERR_NOT_FOUND;
	if (strcmp(canonical, "INBOX") == 0)
		return ERR_DENIED;
	rc = store_find_disk(s, canonical, &disk);
	if (rc == 0) {
		const char *dir = (const char *)buf_slice(&disk).p;
		snprintf(trash, sizeof(trash), TRASH_PREFIX "%lld.%d.%u", (long long)time(NULL),
		    (int)getpid(), s->counter++);
		if (renameat(s->rootfd, dir, s->rootfd, trash) < 0)
			rc = err_errno();
		else
			rc = sync_dir(s, s->rootfd, ".", true);
		if (rc == 0) {
			drop_rows(s, canonical, dir);
			rc = special_set(s, canonical, 0);
			sweep(s);
		}
	}
	buf_free(&disk);
	return rc;
}

/* --- rename --- */

/* name, or what stands for it below: "from/x" with to gives "to/x". False if it is not concerned.
 */
static bool
renamed(const char *name, const char *from, const char *to, char *out)
{
	size_t n = strlen(from);

	if (strncmp(name, from, n) != 0 || (name[n] && name[n] != STORE_SEPARATOR))
		return false;
	return snprintf(out, STORE_NAME_MAX + 1, "%s%s", to, name + n) <= STORE_NAME_MAX;
}

static void
rename_open(struct store *s, const char *name, const char *new_name, const char *new_disk)
{
	struct folder *f;

	TAILQ_FOREACH(f, &s->folders, entry) {
		if (f->gone || strcmp(f->name, name) != 0)
			continue;
		free(f->name);
		free(f->disk);
		f->name = xstrdup(new_name);
		f->disk = xstrdup(new_disk);
		return;
	}
}

static int
rename_directory(struct store *s, const char *from, const char *to)
{
	if (!renameat2(s->rootfd, from, s->rootfd, to, RENAME_NOREPLACE))
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return err_errno();
	/* as in maildir_rename; the place of a directory that is not empty is taken by none */
	return renameat(s->rootfd, from, s->rootfd, to) ? err_errno() : 0;
}

static int
rename_one(struct store *s, const char *name, const char *new_name)
{
	struct buf disk = { 0 }, new_disk = { 0 };
	int rc = store_find_disk(s, name, &disk);

	if (rc == 0)
		rc = name_to_disk(new_name, &new_disk);
	buf_add_byte(&new_disk, 0);
	const char *a = (const char *)buf_slice(&disk).p, *b = (const char *)buf_slice(&new_disk).p;
	if (rc == 0)
		rc = rename_directory(s, a, b);
	if (rc == 0) {
		row_drop(s, a);
		rename_open(s, name, new_name, b);
	}
	buf_free(&disk);
	buf_free(&new_disk);
	return rc;
}

static int
rename_inbox(struct store *s, const char *to)
{
	struct mailbox *m;
	struct uid_list uids = { 0 };
	struct copy_result result;
	int rc = store_create(s, slice_str(to), 0);

	if (rc == 0)
		rc = mailbox_open(s, SLICE_LIT("INBOX"), MAILBOX_KEEP_RECENT, &m);
	if (rc < 0)
		return rc;
	for (uint32_t seq = 1; seq <= mailbox_count(m); seq++)
		uid_list_add(&uids, mailbox_uid(m, seq));
	for (size_t i = 0; i < uids.count && rc == 0; i += 1000) {
		size_t n = uids.count - i < 1000 ? uids.count - i : 1000;
		rc = mailbox_copy(m, uids.uids + i, n, slice_str(to), true, &result);
		copy_result_free(&result);
	}
	uid_list_free(&uids);
	mailbox_free(&m);
	return rc;
}

static int
special_rename(struct store *s, const char *from, const char *to)
{
	struct buf old = { 0 }, out = { 0 };
	char name[STORE_NAME_MAX + 1], new_name[STORE_NAME_MAX + 1];
	bool written, any = false;
	int rc = special_load(s, &old, &written);
	struct slice rest = buf_slice(&old);

	while (rest.n && rc == 0) {
		struct slice line = slice_split(&rest, '\n');
		struct slice use = slice_split(&line, ' ');
		if (slice_copy(line, name, sizeof(name)) < 0)
			continue;
		bool this = renamed(name, from, to, new_name);
		any |= this;
		buf_addf(&out, "%.*s %s\n", SLICE_ARG(use), this ? new_name : name);
	}
	if (rc == 0 && any)
		rc = replace_file(s, s->rootfd, SPECIAL_FILE, buf_slice(&out));
	buf_free(&old);
	buf_free(&out);
	return rc;
}

/* All target names are looked at before the first rename: no half of a tree moves. */
static int
check_targets(const struct store_list *l, const char *from, const char *to)
{
	char name[STORE_NAME_MAX + 1], probe[STORE_NAME_MAX + 1];
	bool any = false;

	for (size_t i = 0; i < l->count; i++) {
		const char *old = l->folders[i].name;
		if (!l->folders[i].exists || !renamed(old, from, to, name))
			continue;
		any = true;
		if (store_name(slice_str(name), probe, NULL) < 0)
			return ERR_SYNTAX;
		for (size_t j = 0; j < l->count; j++)
			if (l->folders[j].exists && strcmp(l->folders[j].name, name) == 0)
				return -EEXIST;
	}
	return any ? 0 : ERR_NOT_FOUND;
}

int
store_rename(struct store *s, struct slice from, struct slice to)
{
	char a[STORE_NAME_MAX + 1], b[STORE_NAME_MAX + 1], below[STORE_NAME_MAX + 1];
	struct store_list l;

	if (store_name(from, a, NULL) < 0)
		return ERR_NOT_FOUND;
	int rc = store_name(to, b, NULL);
	if (rc < 0)
		return rc;
	if (strcmp(b, "INBOX") == 0)
		return -EEXIST;
	if (strcmp(a, "INBOX") == 0)
		return rename_inbox(s, b);
	if (renamed(b, a, a, below))
		return strcmp(a, b) == 0 ? -EEXIST : ERR_DENIED;
	rc = store_list(s, &l);
	if (rc < 0)
		return rc;
	rc = check_targets(&l, a, b);
	for (size_t i = 0; i < l.count && rc == 0; i++)
		if (l.folders[i].exists && renamed(l.folders[i].name, a, b, below))
			rc = rename_one(s, l.folders[i].name, below);
	if (rc == 0)
		rc = sync_dir(s, s->rootfd, ".", true);
	if (rc == 0)
		rc = special_rename(s, a, b);
	store_list_free(&l);
	return rc;
}

/* The special use that a folder's name tells. */
static enum special_use
use_of(struct slice name)
{
	static const struct {
		const char *name;
		enum special_use use;
	} usual[] = { { "Drafts", SPECIAL_DRAFTS }, { "Sent", SPECIAL_SENT },
		{ "Archive", SPECIAL_ARCHIVE }, { "Junk", SPECIAL_JUNK }, { "Spam", SPECIAL_JUNK },
		{ "Trash", SPECIAL_TRASH } };

	for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
		if (slice_caseeq_str(name, usual[i].name))
			return usual[i].use;
	return SPECIAL_NONE;
}

int
store_create_defaults(struct store *s, const char **names, size_t n)
{
	int rc = 0;

	if (faccessat(s->rootfd, "subscriptions", F_OK, 0) == 0 ||
	    faccessat(s->rootfd, SPECIAL_FILE, F_OK, 0) == 0)
		return 0;
	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = store_create(s, slice_str(names[i]), 0);
		if (rc == -EEXIST)
			rc = 0;
	}
	struct buf b = { 0 };
	for (size_t i = 0; i < n && rc == 0; i++)
		if (use_of(slice_str(names[i])))
			buf_addf(
			    &b, "%s %s\n", special_use_name(use_of(slice_str(names[i]))), names[i]);
	if (rc == 0)
		rc = replace_file(s, s->rootfd, SPECIAL_FILE, buf_slice(&b));
	buf_clear(&b);
	buf_add_str(&b, "V\t2\n\nINBOX\n");
	for (size_t i = 0; i < n; i++)
		buf_addf(&b, "%s\n", names[i]);
	if (rc == 0)
		rc = replace_file(s, s->rootfd, "subscriptions", buf_slice(&b));
	buf_free(&b);
	return rc;
}

/* --- status --- */

/* The same for every copy of a message that keeps its file name, over folders and rebuilds. */
uint64_t
email_id(struct slice base)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < base.n; i++)
		h = (h ^ base.p[i]) * 0x100000001b3ull;
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ull;
	return h ^ h >> 32;
}

/* From the index alone, if nothing has changed since. */
static bool
status_cached(struct store *s, const char *disk, unsigned need, struct store_status *out_r)
{
	char path[HIDDEN_MAX + 32];
	struct folder_row row;
	struct dir_state cur, new;
	struct stat st;

	if (row_load(s, disk, &row) < 0 || ((need & STATUS_NEED_SIZE) && !row.sizes))
		return false;
	snprintf(path, sizeof(path), "%s/" JOURNAL_FILE, disk);
	if (fstatat(s->rootfd, path, &st, 0) < 0 || st.st_ino != row.ino ||
	    (uint64_t)st.st_size != row.journal_size)
		return false;
	snprintf(path, sizeof(path), "%s/cur", disk);
	dir_state_read(s->rootfd, path, &cur);
	snprintf(path, sizeof(path), "%s/new", disk);
	dir_state_read(s->rootfd, path, &new);
	*out_r = row.status;
	return dir_state_same(&row.cur, &cur) && dir_state_same(&row.new, &new);
}

static int
status_open(struct store *s, const char *name, unsigned need, struct store_status *out_r)
{
	struct folder *f;
	int rc = folder_get(s, name, &f);

	if (rc < 0)
		return rc;
	rc = folder_refresh(f, false);
	if (rc == 0 && (need & STATUS_NEED_SIZE))
		rc = folder_totals(f);
	if (rc == 0) {
		*out_r = (struct store_status){
			.messages = (uint32_t)f->live,
			.unseen = f->unseen,
			.deleted = f->deleted,
			.uidnext = f->uidnext,
			.uidvalidity = f->head.uidvalidity,
			.highestmodseq = f->modseq,
			.size = f->total_size,
			.deleted_storage = f->total_deleted,
			.mailboxid = f->head.mailboxid,
		};
		for (size_t i = 0; i < f->slot_count; i++)
			out_r->recent += (f->slots[i].state & (SLOT_DEAD | SLOT_NEW)) == SLOT_NEW;
	}
	folder_put(&f);
	return rc;
}

int
store_status(struct store *s, struct slice name, unsigned need, struct store_status *out_r)
{
	char canonical[STORE_NAME_MAX + 1];
	struct buf disk = { 0 };
	struct folder *f;
	bool open = false;

	*out_r = (struct store_status){ 0 };
	if (store_name(name, canonical, NULL) < 0)
		return ERR_NOT_FOUND;
	TAILQ_FOREACH(f, &s->folders, entry) {
		open |= strcmp(f->name, canonical) == 0 && !f->gone;
	}
	int rc = open ? 0 : store_find_disk(s, canonical, &disk);
	if (rc == 0 && (open || !status_cached(s, (const char *)buf_slice(&disk).p, need, out_r)))
		rc = status_open(s, canonical, need, out_r);
	buf_free(&disk);
	return rc;
}

int
store_usage(struct store *s, uint64_t *bytes_r, uint64_t *messages_r)
{
	struct store_list l;
	int rc = store_list(s, &l);

	*bytes_r = *messages_r = 0;
	for (size_t i = 0; rc == 0 && i < l.count; i++) {
		struct store_status st;
		if (!l.folders[i].exists)
			continue;
		rc = store_status(s, slice_str(l.folders[i].name), STATUS_NEED_SIZE, &st);
		if (rc == ERR_NOT_FOUND)
			rc = 0; /* deleted meanwhile */
		else if (rc == 0) {
			*bytes_r += st.size;
			*messages_r += st.messages;
		}
	}
	store_list_free(&l);
	return rc;
}

int
quota_check(struct store *s, uint64_t bytes, uint64_t messages)
{
	const struct store_options *o = &s->options;
	uint64_t used, count;

	if (!o->quota_bytes && !o->quota_messages)
		return 0;
	int rc = store_usage(s, &used, &count);
	if (rc < 0)
		return rc;
	if (o->quota_bytes && (bytes > o->quota_bytes || used > o->quota_bytes - bytes))
		return ERR_LIMIT;
	if (o->quota_messages && count + messages > o->quota_messages)
		return ERR_LIMIT;
	return 0;
}
