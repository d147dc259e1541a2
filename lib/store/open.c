/*
 * The life of a folder's state: opened once per process however many views there are, closed with
 * the last of them. Runs in the user's session. What the index says about the directories is
 * believed only if journal and mtimes are still those that it was written for.
 */
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* Forgets everything that the journal told; views keep their UIDs and find out by comparing. */
void
folder_clear(struct folder *f)
{
	free(f->slots);
	free(f->names);
	free(f->table);
	free(f->vanished);
	f->slots = NULL;
	f->names = NULL;
	f->table = NULL;
	f->vanished = NULL;
	f->slot_count = f->slot_size = f->live = 0;
	f->names_len = f->names_size = f->names_waste = 0;
	f->vanished_count = f->vanished_size = 0;
	f->unseen = f->deleted = 0;
	f->uidnext = 1;
	f->modseq = 1;
	f->history = 0;
	f->dead_records = 0;
	f->total_uidnext = 0;
	for (unsigned i = 0; i < STORE_KEYWORDS; i++) {
		free(f->keywords[i]);
		f->keywords[i] = NULL;
	}
	f->keyword_count = 0;
	while (f->meta) {
		struct meta *m = f->meta;
		f->meta = m->next;
		free((void *)(uintptr_t)m->key.p);
		free((void *)(uintptr_t)m->value.p);
		free(m);
	}
	for (size_t i = 0; i < f->uidl_count; i++)
		free(f->uidls[i].text);
	free(f->uidls);
	f->uidls = NULL;
	f->uidl_count = f->uidl_size = 0;
}

static void
folder_destroy(struct folder *f)
{
	watch_drop(f);
	folder_clear(f);
	hints_clear(f);
	free(f->hints);
	free(f->changes);
	if (f->journal >= 0)
		close(f->journal);
	if (f->dirfd >= 0)
		close(f->dirfd);
	TAILQ_REMOVE(&f->store->folders, f, entry);
	free(f->name);
	free(f->disk);
	free(f);
}

static int
folder_load(struct folder *f)
{
	struct folder_row row;

	f->dirfd = openat(f->store->rootfd, f->disk, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f->dirfd < 0)
		return errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : err_errno();
	if (faccessat(f->dirfd, "cur", F_OK, 0) < 0) {
		int rc = maildir_complete(f->store->rootfd, f->disk);
		if (rc < 0)
			return rc;
	}
	watch_folder(f); /* before the first look, so that nothing falls between */
	int rc = folder_open_journal(f);
	if (rc < 0)
		return rc;
	f->scan_due = true;
	if (row_load(f->store, f->disk, &row) == 0 && row.ino == f->journal_ino &&
	    row.journal_size <= (uint64_t)f->journal_size) {
		struct dir_state cur, new;
		dir_state_read(f->dirfd, "cur", &cur);
		dir_state_read(f->dirfd, "new", &new);
		f->scan_due = !dir_state_same(&row.cur, &cur) || !dir_state_same(&row.new, &new);
		f->cur = row.cur;
		f->new = row.new;
		if (!f->scan_due && row.sizes && row.status.highestmodseq == f->modseq &&
		    row.status.uidnext == f->uidnext) {
			f->total_size = row.status.size;
			f->total_deleted = row.status.deleted_storage;
			f->total_modseq = f->modseq;
			f->total_uidnext = f->uidnext;
		}
	}
	return 0;
}

int
folder_get(struct store *s, const char *name, struct folder **out_r)
{
	struct folder *f;
	struct buf disk = { 0 };

	*out_r = NULL;
	TAILQ_FOREACH(f, &s->folders, entry) {
		if (!f->gone && strcmp(f->name, name) == 0) {
			f->refs++;
			*out_r = f;
			return 0;
		}
	}
	int rc = store_find_disk(s, name, &disk);
	if (rc < 0) {
		buf_free(&disk);
		return rc;
	}
	f = xcalloc(1, sizeof(*f));
	f->store = s;
	f->refs = 1;
	f->name = xstrdup(name);
	f->disk = slice_dup(buf_slice(&disk));
	f->dirfd = f->journal = f->wd_cur = f->wd_new = -1;
	f->uidnext = 1;
	f->modseq = 1;
	TAILQ_INIT(&f->views);
	TAILQ_INSERT_TAIL(&s->folders, f, entry);
	buf_free(&disk);
	rc = folder_load(f);
	if (rc < 0) {
		folder_destroy(f);
		return rc;
	}
	*out_r = f;
	return 0;
}

void
folder_put(struct folder **fp)
{
	struct folder *f = *fp;

	*fp = NULL;
	if (!f || --f->refs > 0)
		return;
	folder_compact_if_due(f);
	(void)watch_read(f->store);
	folder_note_dirs(f);
	row_save(f);
	folder_destroy(f);
}
