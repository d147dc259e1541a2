/*
 * Journals written whole: the first one of a folder (from what Dovecot left, or afresh), and the
 * short one that takes the place of a long one. Runs in the user's session. The new file is written
 * under another name, locked, synced, and put in place by rename (or by link for a first one, so
 * that of two processes one wins), then the directory is synced: at every moment one sound journal
 * has the name.
 */
#include "store/internal.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

enum { FRAME_TARGET = 1 << 20 };

/* --- making and compacting --- */

struct snapshot {
	struct folder *f;
	struct buf *out, frame;
};

static void
snap_flush(struct snapshot *s)
{
	if (buf_len(&s->frame) == 0)
		return;
	size_t mark = journal_begin_frame(s->out);
	buf_add(s->out, buf_slice(&s->frame));
	journal_end_frame(s->out, mark);
	buf_clear(&s->frame);
}

static void
snap_put(struct snapshot *s, const struct record *r)
{
	journal_put(&s->frame, r);
	if (buf_len(&s->frame) > FRAME_TARGET)
		snap_flush(s);
}

static void
snap_slots(struct snapshot *s)
{
	struct folder *f = s->f;

	for (size_t i = 0; i < f->slot_count; i++) {
		const struct slot *sl = &f->slots[i];
		const char *name = slot_name(f, sl);
		struct record r = {
			.type = RECORD_ASSIGN,
			.uid = sl->m.uid,
			.modseq = sl->m.modseq,
			.keywords = sl->m.keywords,
			.emailid = sl->m.emailid,
			.savedate = sl->m.savedate,
			.flags = sl->m.flags,
			.dir = sl->state & SLOT_NEW ? DIR_NEW : DIR_CUR,
			.name = slice(name, sl->base_len),
			.info = slice(name + sl->base_len, sl->name_len - sl->base_len),
		};
		if (!(sl->state & SLOT_DEAD))
			snap_put(s, &r);
	}
}

/* The history of expunges is kept, but not for ever. */
static void
snap_history(struct snapshot *s)
{
	struct folder *f = s->f;
	size_t keep = 10000;
	size_t first = f->vanished_count > keep ? f->vanished_count - keep : 0;
	uint64_t history = first ? f->vanished[first - 1].modseq : f->history;

	snap_put(s, &(struct record){ .type = RECORD_HISTORY, .modseq = history });
	for (size_t i = first; i < f->vanished_count; i++) {
		struct record r = { .type = RECORD_EXPUNGE,
			.uid = f->vanished[i].uid,
			.modseq = f->vanished[i].modseq };
		if (r.modseq > history)
			snap_put(s, &r);
	}
}

void
folder_snapshot(struct folder *f, struct buf *out)
{
	struct snapshot snap = { .f = f, .out = out }, *s = &snap;

	journal_put_header(out, &f->head);
	for (unsigned i = 0; i < f->keyword_count; i++) {
		struct record r = {
			.type = RECORD_KEYWORD, .uid = i, .name = slice_str(f->keywords[i])
		};
		if (f->keywords[i])
			snap_put(s, &r);
	}
	for (const struct meta *m = f->meta; m; m = m->next)
		snap_put(
		    s, &(struct record){ .type = RECORD_META, .name = m->key, .info = m->value });
	snap_slots(s);
	for (size_t i = 0; i < f->uidl_count; i++) {
		struct record r = { .type = RECORD_POP3_UIDL,
			.uid = f->uidls[i].uid,
			.name = slice_str(f->uidls[i].text) };
		if (folder_slot(f, r.uid))
			snap_put(s, &r);
	}
	snap_history(s);
	snap_put(
	    s, &(struct record){ .type = RECORD_FLOOR, .uid = f->uidnext, .modseq = f->modseq });
	snap_flush(s);
	buf_free(&s->frame);
}

/* Writes the state as a new journal, locked from the start, and puts it in place. */
static int
install(struct folder *f)
{
	struct buf out = { 0 };
	char tmp[64];
	int rc;

	snprintf(tmp, sizeof(tmp), JOURNAL_FILE ".tmp.%d.%u", (int)getpid(), f->store->counter++);
	int fd = openat(
	    f->dirfd, tmp, O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno();
	folder_snapshot(f, &out);
	rc = flock(fd, LOCK_EX) < 0 ? err_errno() : 0;
	if (rc == 0)
		rc = io_write_all(fd, buf_slice(&out));
	if (rc == 0 && fsync(fd) < 0)
		rc = err_errno();
	struct stat st;
	if (rc == 0 && fstat(fd, &st) < 0)
		rc = err_errno();
	if (rc == 0 && f->journal < 0) { /* a first journal: never over one that another made */
		if (linkat(f->dirfd, tmp, f->dirfd, JOURNAL_FILE, 0) < 0)
			rc = err_errno();
		unlinkat(f->dirfd, tmp, 0);
	} else if (rc == 0 && renameat(f->dirfd, tmp, f->dirfd, JOURNAL_FILE) < 0) {
		rc = err_errno();
	}
	if (rc == 0)
		rc = sync_dir(f->store, f->dirfd, ".", true);
	if (rc < 0) {
		unlinkat(f->dirfd, tmp, 0);
		close(fd);
	} else {
		if (f->journal >= 0)
			close(f->journal);
		f->journal = fd;
		f->journal_ino = st.st_ino;
		f->journal_size = (off_t)buf_len(&out);
		f->dead_records = 0;
	}
	buf_free(&out);
	return rc;
}

static int
folder_compact(struct folder *f)
{
	int rc = folder_lock(f);

	if (rc < 0)
		return rc;
	f->head.generation++;
	rc = install(f); /* the old descriptor's lock goes with it, the new file is locked */
	folder_unlock(f);
	return rc;
}

void
folder_compact_if_due(struct folder *f)
{
	if (f->gone || f->dead_records < 1000 || f->dead_records < 2 * f->live)
		return;
	if (folder_compact(f) < 0)
		f->dead_records = 0; /* it goes on growing; tried again after as many more */
}

/* --- a first journal --- */

static void
import_entry(void *ctx, const struct uidlist_entry *e)
{
	struct folder *f = ctx;
	struct record r = { .type = RECORD_ASSIGN,
		.uid = e->uid,
		.modseq = 1,
		.savedate = time(NULL),
		.emailid = email_id(e->base),
		.name = e->base };

	if (folder_find_base(f, (const char *)e->base.p, e->base.n))
		return;
	folder_add_slot(f, &r);
	if (e->pop3_uidl.n)
		folder_apply(
		    f, &(struct record){
			   .type = RECORD_POP3_UIDL, .uid = e->uid, .name = e->pop3_uidl });
}

static void
import_keyword(void *ctx, unsigned index, struct slice name)
{
	folder_apply(ctx, &(struct record){ .type = RECORD_KEYWORD, .uid = index, .name = name });
}

static int
import(struct folder *f, bool use_uidlist)
{
	struct buf b = { 0 };
	uint32_t uidnext, before = f->head.uidvalidity; /* of a journal that was set aside, or 0 */
	int rc = 0;

	folder_clear(f);
	f->head = (struct journal_header){ 0 };
	if (getrandom(&f->head.mailboxid, sizeof(f->head.mailboxid), 0) < 0)
		return err_errno();
	if (read_file(f->dirfd, "dovecot-keywords", 1 << 20, &b) == 0)
		dovecot_keywords_parse(buf_slice(&b), import_keyword, f);
	buf_clear(&b);
	if (use_uidlist && read_file(f->dirfd, "dovecot-uidlist", 256 << 20, &b) == 0 &&
	    uidlist_parse(buf_slice(&b), &f->head.uidvalidity, &uidnext, import_entry, f) == 0) {
		if (uidnext > f->uidnext)
			f->uidnext = uidnext;
	}
	if (!f->head.uidvalidity)
		rc = next_uidvalidity(f->store, before, &f->head.uidvalidity);
	f->dead_records = 0;
	buf_free(&b);
	return rc;
}

int
folder_make_journal(struct folder *f, bool use_uidlist)
{
	int rc = import(f, use_uidlist);

	if (rc == 0)
		rc = install(f);
	if (rc == 0) {
		f->scan_due = true;
		(void)flock(f->journal, LOCK_UN);
	}
	return rc;
}
