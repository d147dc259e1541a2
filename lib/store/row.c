/*
 * What the index holds, as keys and values: a row per folder (status, and the state of journal and
 * directories that it was written for), date and size per message. Runs in the user's session. A
 * value that does not decode counts as missing.
 */
#include "store/internal.h"

struct slice
message_key(const struct folder *f, char type, uint32_t uid, int kind, char *out)
{
	size_t n = 0;

	out[n++] = type;
	for (int i = 7; i >= 0; i--)
		out[n++] = (char)(f->head.mailboxid >> (8 * i));
	if (uid) {
		for (int i = 3; i >= 0; i--)
			out[n++] = (char)(uid >> (8 * i));
	}
	if (kind >= 0)
		out[n++] = (char)kind;
	return slice(out, n);
}

static struct slice
row_key(const char *disk, char *out)
{
	size_t n = strlen(disk);

	out[0] = 'S';
	memcpy(out + 1, disk, n);
	return slice(out, n + 1);
}

static void
put_dir(struct buf *b, const struct dir_state *d)
{
	buf_add_u64(b, (uint64_t)d->sec);
	buf_add_u64(b, (uint64_t)d->nsec);
	buf_add_u8(b, d->known);
}

static void
get_dir(struct cursor *c, struct dir_state *d)
{
	d->sec = (int64_t)cursor_u64(c);
	d->nsec = (int64_t)cursor_u64(c);
	d->known = cursor_u8(c) != 0;
}

void
row_encode(const struct folder_row *r, struct buf *out)
{
	const struct store_status *st = &r->status;

	buf_add_u64(out, r->ino);
	buf_add_u64(out, r->journal_size);
	put_dir(out, &r->cur);
	put_dir(out, &r->new);
	buf_add_u32(out, st->messages);
	buf_add_u32(out, st->recent);
	buf_add_u32(out, st->unseen);
	buf_add_u32(out, st->deleted);
	buf_add_u32(out, st->uidnext);
	buf_add_u32(out, st->uidvalidity);
	buf_add_u64(out, st->highestmodseq);
	buf_add_u64(out, st->mailboxid);
	buf_add_u64(out, st->size);
	buf_add_u64(out, st->deleted_storage);
	buf_add_u8(out, r->sizes);
}

int
row_decode(struct slice in, struct folder_row *out)
{
	struct cursor c = cursor(in);
	struct store_status *st = &out->status;

	*out = (struct folder_row){ 0 };
	out->ino = cursor_u64(&c);
	out->journal_size = cursor_u64(&c);
	get_dir(&c, &out->cur);
	get_dir(&c, &out->new);
	st->messages = cursor_u32(&c);
	st->recent = cursor_u32(&c);
	st->unseen = cursor_u32(&c);
	st->deleted = cursor_u32(&c);
	st->uidnext = cursor_u32(&c);
	st->uidvalidity = cursor_u32(&c);
	st->highestmodseq = cursor_u64(&c);
	st->mailboxid = cursor_u64(&c);
	st->size = cursor_u64(&c);
	st->deleted_storage = cursor_u64(&c);
	out->sizes = cursor_u8(&c) != 0;
	/* RFC 9051 9: neither is ever 0 */
	return cursor_end(&c) < 0 || !st->uidnext || !st->uidvalidity ? ERR_NOT_FOUND : 0;
}

int
row_load(struct store *s, const char *disk, struct folder_row *out)
{
	char keybuf[HIDDEN_MAX + 2];
	struct buf b = { 0 };
	int rc = index_get(s->index, row_key(disk, keybuf), &b);

	if (rc == 0)
		rc = row_decode(buf_slice(&b), out);
	buf_free(&b);
	return rc;
}

static void
row_of(const struct folder *f, struct folder_row *out)
{
	struct store_status *st = &out->status;

	*out = (struct folder_row){
		.ino = f->journal_ino,
		.journal_size = (uint64_t)f->journal_size,
		.cur = f->cur,
		.new = f->new,
		.sizes = f->total_modseq == f->modseq && f->total_uidnext == f->uidnext,
	};
	st->messages = (uint32_t)f->live;
	for (size_t i = 0; i < f->slot_count; i++)
		st->recent += (f->slots[i].state & (SLOT_DEAD | SLOT_NEW)) == SLOT_NEW;
	st->unseen = f->unseen;
	st->deleted = f->deleted;
	st->uidnext = f->uidnext;
	st->uidvalidity = f->head.uidvalidity;
	st->highestmodseq = f->modseq;
	st->mailboxid = f->head.mailboxid;
	st->size = out->sizes ? f->total_size : 0;
	st->deleted_storage = out->sizes ? f->total_deleted : 0;
}

void
row_save(struct folder *f)
{
	char keybuf[HIDDEN_MAX + 2];
	struct buf b = { 0 }, old = { 0 };
	struct folder_row row;

	if (!f->store->index || f->gone || f->scan_due || f->hint_count)
		return;
	row_of(f, &row);
	row_encode(&row, &b);
	/* Most sessions change nothing: then there is nothing to commit. */
	struct slice key = row_key(f->disk, keybuf);
	if (index_get(f->store->index, key, &old) < 0 || !slice_eq(buf_slice(&old), buf_slice(&b)))
		index_put(f->store->index, key, buf_slice(&b));
	buf_free(&old);
	buf_free(&b);
}

void
row_drop(struct store *s, const char *disk)
{
	char keybuf[HIDDEN_MAX + 2];

	index_put(s->index, row_key(disk, keybuf), SLICE_NULL);
}

void
attr_encode(int64_t date, uint64_t size, struct buf *out)
{
	buf_add_u64(out, (uint64_t)date);
	buf_add_u64(out, size);
}

int
attr_decode(struct slice in, int64_t *date_r, uint64_t *size_r)
{
	struct cursor c = cursor(in);

	*date_r = (int64_t)cursor_u64(&c);
	*size_r = cursor_u64(&c);
	return cursor_end(&c) < 0 ? ERR_NOT_FOUND : 0;
}

void
folder_load_attr(struct folder *f, struct slot *s)
{
	char keybuf[32];
	struct buf b = { 0 };
	int64_t date;
	uint64_t size;

	if (s->state & SLOT_LOOKED_UP)
		return;
	s->state |= SLOT_LOOKED_UP;
	if (index_get(f->store->index, message_key(f, 'A', s->m.uid, -1, keybuf), &b) == 0 &&
	    attr_decode(buf_slice(&b), &date, &size) == 0) {
		s->date = s->date == DATE_UNKNOWN ? date : s->date;
		s->size = s->size == SIZE_UNKNOWN ? size : s->size;
	}
	buf_free(&b);
}

void
folder_save_attr(struct folder *f, const struct slot *s)
{
	char keybuf[32];
	struct buf b = { 0 };

	attr_encode(s->date, s->size, &b);
	index_put(f->store->index, message_key(f, 'A', s->m.uid, -1, keybuf), buf_slice(&b));
	buf_free(&b);
}
