/*
 * Keywords, flag changes and expunges of an open mailbox. Runs in the user's session, on behalf of
 * a client. Order: the file is renamed or removed first, then the journal says so and is synced (on
 * ext4 and XFS that sync carries the renames; elsewhere cur/ is synced too), then the client hears
 * of it. A crash in between leaves what a foreign program could have done as well: the next scan
 * records it.
 */
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* --- keywords --- */

static int
find_keyword(const struct folder *f, struct slice name)
{
	for (unsigned i = 0; i < f->keyword_count; i++)
		if (f->keywords[i] && slice_caseeq_str(name, f->keywords[i]))
			return (int)i;
	return ERR_NOT_FOUND;
}

/* The file by which Dovecot and others know what the letters mean. */
static int
folder_write_keywords(struct folder *f)
{
	struct buf b = { 0 };

	for (unsigned i = 0; i < 26; i++)
		if (f->keywords[i])
			buf_addf(&b, "%u %s\n", i, f->keywords[i]);
	int rc = replace_file(f->store, f->dirfd, "dovecot-keywords", buf_slice(&b));
	buf_free(&b);
	return rc;
}

/* The index of name, made if it is not there. What a letter means is durable before a file name has
 * it: after a power cut it would mean the next keyword that comes. */
int
folder_keyword(struct folder *f, struct slice name, bool create)
{
	struct buf records = { 0 };
	int index = find_keyword(f, name);
	unsigned slot = 0;

	if (index >= 0 || !create)
		return index;
	if (!keyword_valid(name))
		return ERR_SYNTAX;
	int rc = folder_lock(f);
	if (rc < 0)
		return rc;
	index = find_keyword(f, name); /* another process may have made it */
	while (slot < STORE_KEYWORDS && f->keywords[slot])
		slot++;
	if (index < 0 && slot == STORE_KEYWORDS)
		index = ERR_LIMIT;
	else if (index < 0) {
		struct record r = { .type = RECORD_KEYWORD, .uid = slot, .name = name };
		journal_put(&records, &r);
		rc = folder_commit(f, &records, true, NULL);
		index = rc < 0 ? rc : (int)slot;
		if (rc == 0 && slot < 26)
			rc = folder_write_keywords(f); /* a help for others: not fatal */
	}
	folder_unlock(f);
	buf_free(&records);
	return index;
}

unsigned
mailbox_keyword_count(const struct mailbox *m)
{
	return m->folder->keyword_count;
}

const char *
mailbox_keyword(const struct mailbox *m, unsigned index)
{
	return index < m->folder->keyword_count ? m->folder->keywords[index] : NULL;
}

int
mailbox_keyword_index(struct mailbox *m, struct slice name, bool create)
{
	int index = folder_keyword(m->folder, name, create && !mailbox_read_only(m));

	return index == ERR_NOT_FOUND ? -1 : index;
}

/* --- flags --- */

static void
apply_op(const struct flag_change *c, const struct message *m, uint8_t *flags, uint64_t *keywords)
{
	uint8_t imap = c->flags & FLAGS_IMAP;

	switch (c->op) {
	case FLAG_OP_SET:
		*flags = (uint8_t)((m->flags & FLAG_PASSED) | imap);
		*keywords = c->keywords;
		break;
	case FLAG_OP_ADD:
		*flags = m->flags | imap;
		*keywords = m->keywords | c->keywords;
		break;
	case FLAG_OP_REMOVE:
		*flags = (uint8_t)(m->flags & ~imap);
		*keywords = m->keywords & ~c->keywords;
		break;
	}
}

/* Renames the file to what the flags say; r->info borrows from info. ERR_NOT_FOUND: look again. */
static int
rename_to(struct folder *f, const struct slot *s, struct record *r, char *info)
{
	char from[272], to[512];
	const char *name = slot_name(f, s);
	struct slice old = slice(name + s->base_len, s->name_len - s->base_len);

	r->info = slice(info, maildir_info(old, r->flags, r->keywords, info));
	r->dir = DIR_CUR;
	slot_path(f, s, from);
	snprintf(to, sizeof(to), "cur/%.*s%s", (int)s->base_len, name, info);
	if (strlen(to) - 4 > 255)
		return -ENAMETOOLONG;
	if (strcmp(from, to) == 0)
		return faccessat(f->dirfd, to, F_OK, AT_SYMLINK_NOFOLLOW) < 0 ? ERR_NOT_FOUND : 0;
	if (renameat(f->dirfd, from, f->dirfd, to) < 0)
		return errno == ENOENT ? ERR_NOT_FOUND : err_errno();
	return 0;
}

struct flag_run {
	struct mailbox *m;
	const struct flag_change *change;
	uint64_t modseq;
	struct buf records;
	struct uid_list *changed, *modified;
};

static int
change_one(struct flag_run *run, uint32_t uid)
{
	struct folder *f = run->m->folder;
	char info[128];

	for (int tries = 0; tries < 3; tries++) {
		struct slot *s = folder_slot(f, uid);
		if (!s)
			return 0;
		if (run->change->conditional && s->m.modseq > run->change->unchangedsince) {
			if (run->modified)
				uid_list_add(run->modified, uid);
			return 0;
		}
		struct record r = { .type = RECORD_FLAGS, .uid = uid, .modseq = run->modseq };
		apply_op(run->change, &s->m, &r.flags, &r.keywords);
		if (r.flags == s->m.flags && r.keywords == s->m.keywords)
			return 0;
		int rc = rename_to(f, s, &r, info);
		if (rc == 0) {
			journal_put(&run->records, &r);
			if (run->changed)
				uid_list_add(run->changed, uid);
			return 0;
		}
		if (rc != ERR_NOT_FOUND)
			return rc;
		rc = folder_scan(f);
		if (rc < 0)
			return rc;
		if (run->modseq <= f->modseq)
			run->modseq = f->modseq + 1;
	}
	return 0;
}

int
mailbox_store_flags(struct mailbox *m, const uint32_t *uids, size_t n,
    const struct flag_change *change, struct uid_list *changed_r, struct uid_list *modified_r)
{
	struct folder *f = m->folder;
	struct flag_run run = {
		.m = m, .change = change, .changed = changed_r, .modified = modified_r
	};

	if (mailbox_read_only(m))
		return ERR_DENIED;
	int rc = folder_lock(f);
	if (rc < 0)
		return rc;
	folder_compact_if_due(f); /* a client may give its session no rest */
	folder_pack(f);           /* each change of a name's length leaves the old one behind */
	run.modseq = f->modseq + 1;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = change_one(&run, uids[i]);
	bool any = buf_len(&run.records) > 0;
	int rc2 = folder_commit(f, &run.records, true, m);
	if (any && rc2 == 0)
		rc2 = sync_dir(f->store, f->dirfd, "cur", false);
	folder_unlock(f);
	buf_free(&run.records);
	if (any && rc2 < 0)
		f->scan_due = true;
	return rc < 0 ? rc : rc2;
}

/* --- expunge --- */

/* 1: removed, 0: it was gone already, or has not all of flags. The name holds the flags: where
 * another program has changed them it is another one, and they are looked at again. */
static int
remove_file(struct folder *f, uint32_t uid, uint8_t flags)
{
	char path[272];

	for (int tries = 0; tries < 3; tries++) {
		struct slot *s = folder_slot(f, uid);
		if (!s || (s->m.flags & flags) != flags)
			return 0;
		slot_path(f, s, path);
		if (unlinkat(f->dirfd, path, 0) == 0)
			return 1;
		if (errno != ENOENT)
			return err_errno();
		int rc = folder_scan(f);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static void
forget(struct folder *f, uint32_t uid)
{
	char key[32];

	index_put(f->store->index, message_key(f, 'A', uid, -1, key), SLICE_NULL);
	index_remove_prefix(f->store->index, message_key(f, 'B', uid, -1, key));
}

int
mailbox_expunge(struct mailbox *m, const uint32_t *uids, size_t n, uint8_t flags)
{
	struct folder *f = m->folder;
	struct buf records = { 0 };

	if (mailbox_read_only(m))
		return ERR_DENIED;
	int rc = folder_lock(f);
	if (rc < 0)
		return rc;
	folder_compact_if_due(f);
	folder_pack(f);
	struct uid_list done = { 0 };
	for (size_t i = 0; i < n && rc >= 0; i++) {
		rc = remove_file(f, uids[i], flags);
		if (rc == 1)
			uid_list_add(&done, uids[i]);
	}
	uint64_t modseq = f->modseq + 1;
	for (size_t i = 0; i < done.count; i++) {
		journal_put(
		    &records, &(struct record){
				  .type = RECORD_EXPUNGE, .uid = done.uids[i], .modseq = modseq });
		forget(f, done.uids[i]);
	}
	int rc2 = folder_commit(f, &records, true, NULL);
	if (done.count && rc2 == 0)
		rc2 = sync_dir(f->store, f->dirfd, "cur", false);
	folder_unlock(f);
	if (rc2 < 0)
		f->scan_due = true;
	uid_list_free(&done);
	buf_free(&records);
	return rc < 0 ? rc : rc2;
}
