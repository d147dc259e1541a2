/*
 * The state of one open folder: messages in UID order, their file names, keywords, expunge history.
 * Runs in the user's session; pure memory. Records come from the
 * journal (sound, but the user may have written it): folder_apply bounds and tolerates all of them.
 *
 * Invariants: slots ascend by UID and never move but in folder_pack; dead slots stay until then;
 * all UIDs are below uidnext; no modseq is above folder.modseq; a base name is in the table at most
 * once.
 */
#include "store/internal.h"
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { CHANGES_KEEP = 4096, CHANGES_MAX = 16384, VANISHED_KEEP = 50000 };

const char *
slot_name(const struct folder *f, const struct slot *s)
{
	return f->names + s->name;
}

void
slot_path(const struct folder *f, const struct slot *s, char *out)
{
	memcpy(out, s->state & SLOT_NEW ? "new/" : "cur/", 4);
	memcpy(out + 4, slot_name(f, s), s->name_len);
	out[4 + s->name_len] = '\0';
}

size_t
folder_first_slot(const struct folder *f, uint32_t uid)
{
	size_t lo = 0, hi = f->slot_count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (f->slots[mid].m.uid < uid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct slot *
folder_slot(struct folder *f, uint32_t uid)
{
	size_t i = folder_first_slot(f, uid);

	if (i == f->slot_count || f->slots[i].m.uid != uid || f->slots[i].state & SLOT_DEAD)
		return NULL;
	return &f->slots[i];
}

/* --- base names --- */

static size_t
table_home(const struct folder *f, const char *base, size_t len)
{
	return siphash(f->store->hash_key, slice(base, len)) & (f->table_size - 1);
}

static void
table_insert(struct folder *f, size_t slot)
{
	const struct slot *s = &f->slots[slot];
	size_t i = table_home(f, slot_name(f, s), s->base_len);

	while (f->table[i])
		i = (i + 1) & (f->table_size - 1);
	f->table[i] = (uint32_t)slot + 1;
	f->table_used++;
}

static void
table_build(struct folder *f)
{
	size_t size = 64;

	while (size < f->slot_count * 2 + 32)
		size *= 2;
	free(f->table);
	f->table = xcalloc(size, sizeof(*f->table));
	f->table_size = size;
	f->table_used = 0;
	for (size_t i = 0; i < f->slot_count; i++)
		if (!(f->slots[i].state & SLOT_DEAD))
			table_insert(f, i);
}

/* Dead slots stay in the table until it is built anew; they match nothing. */
struct slot *
folder_find_base(struct folder *f, const char *base, size_t len)
{
	if (!f->table)
		table_build(f);
	for (size_t i = table_home(f, base, len); f->table[i]; i = (i + 1) & (f->table_size - 1)) {
		struct slot *s = &f->slots[f->table[i] - 1];
		if (!(s->state & SLOT_DEAD) && s->base_len == len &&
		    memcmp(slot_name(f, s), base, len) == 0)
			return s;
	}
	return NULL;
}

/* --- names --- */

static uint32_t
name_add(struct folder *f, struct slice a, struct slice b)
{
	size_t n = a.n + b.n;
	size_t at = f->names_len;

	if (at + n > f->names_size) {
		f->names_size = f->names_size ? f->names_size * 2 : 1024;
		if (f->names_size < at + n)
			f->names_size = at + n;
		f->names = xrealloc(f->names, f->names_size);
	}
	if (a.n)
		memmove(f->names + at, a.p, a.n);
	if (b.n)
		memcpy(f->names + at + a.n, b.p, b.n);
	f->names_len += n;
	return (uint32_t)at;
}

/* New info behind the base; the base is copied out first, for the pool may move. */
static void
slot_set_info(struct folder *f, struct slot *s, struct slice info)
{
	char base[256];
	size_t old = s->name_len - s->base_len;

	if ((size_t)s->base_len + info.n > 255)
		return;
	if (old == info.n) {
		if (info.n)
			memcpy(f->names + s->name + s->base_len, info.p, info.n);
		return;
	}
	memcpy(base, slot_name(f, s), s->base_len);
	f->names_waste += s->name_len;
	s->name = name_add(f, slice(base, s->base_len), info);
	s->name_len = (uint8_t)(s->base_len + info.n);
}

/* Drops dead slots and wasted names. Only between operations: slot pointers become invalid. */
void
folder_pack(struct folder *f)
{
	size_t dead = f->slot_count - f->live, n = 0;

	if (dead * 2 <= f->slot_count && f->names_waste * 2 <= f->names_len)
		return;
	if (f->slot_count < 64 && f->names_len < 16384)
		return;
	char *old = f->names;
	f->names = NULL;
	f->names_len = f->names_size = f->names_waste = 0;
	for (size_t i = 0; i < f->slot_count; i++) {
		struct slot *s = &f->slots[i];
		if (s->state & SLOT_DEAD)
			continue;
		s->name = name_add(f, slice(old + s->name, s->name_len), SLICE_NULL);
		f->slots[n++] = *s;
	}
	f->slot_count = n;
	free(old);
	free(f->table);
	f->table = NULL;
}

/* --- records --- */

static void
count_flags(struct folder *f, const struct slot *s, int by)
{
	if (!(s->m.flags & FLAG_SEEN))
		f->unseen += (uint32_t)by;
	if (s->m.flags & FLAG_DELETED)
		f->deleted += (uint32_t)by;
}

void
folder_add_slot(struct folder *f, const struct record *r)
{
	if (r->uid < f->uidnext || r->uid == UINT32_MAX || r->name.n + r->info.n > 255)
		return;
	if (f->names_len > UINT32_MAX - 256)
		return;
	if (f->slot_count == f->slot_size) {
		f->slot_size = f->slot_size ? f->slot_size * 2 : 16;
		f->slots = xrealloc(f->slots, f->slot_size * sizeof(*f->slots));
	}
	struct slot *s = &f->slots[f->slot_count++];
	*s = (struct slot){
		.m = { r->uid, r->flags, r->keywords, r->modseq, r->emailid, r->savedate },
		.name = name_add(f, r->name, r->info),
		.base_len = (uint8_t)r->name.n,
		.name_len = (uint8_t)(r->name.n + r->info.n),
		.state = r->dir == DIR_NEW ? SLOT_NEW : 0,
		.date = DATE_UNKNOWN,
		.size = SIZE_UNKNOWN,
	};
	f->live++;
	f->uidnext = r->uid + 1;
	count_flags(f, s, 1);
	if (f->table && f->table_used * 2 + 2 > f->table_size) {
		free(f->table);
		f->table = NULL;
	} else if (f->table) {
		table_insert(f, f->slot_count - 1);
	}
}

void
folder_note_change(struct folder *f, uint32_t uid, bool expunge, uint64_t modseq)
{
	struct mailbox *m;

	if (TAILQ_EMPTY(&f->views))
		return;
	/* A view that is not synced for long has its own list, with each message once. */
	if (f->change_count >= CHANGES_MAX)
		TAILQ_FOREACH(m, &f->views, entry)
			view_collect(m);
	if (f->change_count == f->change_size) {
		f->change_size = f->change_size ? f->change_size * 2 : 32;
		f->changes = xrealloc(f->changes, f->change_size * sizeof(*f->changes));
	}
	f->changes[f->change_count++] = (struct change){ uid, expunge, modseq, f->origin };
}

/* Forgets changes that every view has seen. */
void
folder_trim_changes(struct folder *f)
{
	uint64_t low = f->change_base + f->change_count;
	struct mailbox *m;

	TAILQ_FOREACH(m, &f->views, entry) {
		if (m->change_pos < low)
			low = m->change_pos;
	}
	size_t drop = (size_t)(low - f->change_base);
	if (drop == 0)
		return;
	if (drop == f->change_count || drop > CHANGES_KEEP) {
		memmove(
		    f->changes, f->changes + drop, (f->change_count - drop) * sizeof(*f->changes));
		f->change_count -= drop;
		f->change_base += drop;
	}
}

static void
note_vanished(struct folder *f, uint32_t uid, uint64_t modseq)
{
	if (modseq <= f->history)
		return;
	if (f->vanished_count >= VANISHED_KEEP) { /* forget the older half */
		size_t half = f->vanished_count / 2;
		f->history = f->vanished[half - 1].modseq;
		memmove(f->vanished, f->vanished + half,
		    (f->vanished_count - half) * sizeof(*f->vanished));
		f->vanished_count -= half;
	}
	if (f->vanished_count == f->vanished_size) {
		f->vanished_size = f->vanished_size ? f->vanished_size * 2 : 16;
		f->vanished = xrealloc(f->vanished, f->vanished_size * sizeof(*f->vanished));
	}
	f->vanished[f->vanished_count++] = (struct vanished){ uid, modseq };
}

static void
apply_flags(struct folder *f, const struct record *r)
{
	struct slot *s = folder_slot(f, r->uid);

	f->dead_records++;
	if (!s)
		return;
	count_flags(f, s, -1);
	s->m.flags = r->flags;
	s->m.keywords = r->keywords;
	s->m.modseq = r->modseq;
	count_flags(f, s, 1);
	s->state = (uint8_t)((s->state & ~SLOT_NEW) | (r->dir == DIR_NEW ? SLOT_NEW : 0));
	slot_set_info(f, s, r->info);
	folder_note_change(f, r->uid, false, r->modseq);
}

static void
apply_expunge(struct folder *f, const struct record *r)
{
	struct slot *s = folder_slot(f, r->uid);

	if (s) {
		count_flags(f, s, -1);
		s->state |= SLOT_DEAD;
		f->names_waste += s->name_len;
		f->live--;
		f->dead_records++; /* the assignment; the expunge itself is history worth keeping */
		folder_note_change(f, r->uid, true, r->modseq);
	}
	/* What was expunged was given out before: it is not given again, whatever comes. */
	if (r->uid >= f->uidnext && r->uid != UINT32_MAX)
		f->uidnext = r->uid + 1;
	note_vanished(f, r->uid, r->modseq);
}

static void
apply_location(struct folder *f, const struct record *r)
{
	struct slot *s = folder_slot(f, r->uid);

	f->dead_records++;
	if (!s)
		return;
	s->state = (uint8_t)((s->state & ~SLOT_NEW) | (r->dir == DIR_NEW ? SLOT_NEW : 0));
	slot_set_info(f, s, r->info);
}

static void
apply_keyword(struct folder *f, const struct record *r)
{
	if (r->uid >= STORE_KEYWORDS || !keyword_valid(r->name))
		return;
	free(f->keywords[r->uid]);
	f->keywords[r->uid] = slice_dup(r->name);
	if (r->uid >= f->keyword_count)
		f->keyword_count = r->uid + 1;
}

static void
apply_meta(struct folder *f, const struct record *r)
{
	struct meta **mp = &f->meta, *m;

	while ((m = *mp) && !slice_eq(m->key, r->name))
		mp = &m->next;
	if (m) {
		*mp = m->next;
		free((void *)(uintptr_t)m->key.p);
		free((void *)(uintptr_t)m->value.p);
		free(m);
		f->dead_records++;
	}
	if (r->info.n == 0)
		return;
	m = xmalloc(sizeof(*m));
	m->key = slice(slice_dup(r->name), r->name.n);
	m->value = slice(slice_dup(r->info), r->info.n);
	m->next = f->meta;
	f->meta = m;
}

static void
apply_uidl(struct folder *f, const struct record *r)
{
	if (f->uidl_count && f->uidls[f->uidl_count - 1].uid >= r->uid)
		return;
	if (f->uidl_count == f->uidl_size) {
		f->uidl_size = f->uidl_size ? f->uidl_size * 2 : 16;
		f->uidls = xrealloc(f->uidls, f->uidl_size * sizeof(*f->uidls));
	}
	f->uidls[f->uidl_count++] = (struct pop3_uidl){ r->uid, slice_dup(r->name) };
}

void
folder_apply(void *folder, const struct record *r)
{
	struct folder *f = folder;

	switch (r->type) {
	case RECORD_ASSIGN:
		folder_add_slot(f, r);
		break;
	case RECORD_FLAGS:
		apply_flags(f, r);
		break;
	case RECORD_EXPUNGE:
		apply_expunge(f, r);
		break;
	case RECORD_LOCATION:
		apply_location(f, r);
		return;
	case RECORD_KEYWORD:
		apply_keyword(f, r);
		return;
	case RECORD_FLOOR:
		if (r->uid > f->uidnext)
			f->uidnext = r->uid;
		break;
	case RECORD_HISTORY:
		if (r->modseq > f->history)
			f->history = r->modseq;
		break;
	case RECORD_META:
		apply_meta(f, r);
		return;
	case RECORD_POP3_UIDL:
		apply_uidl(f, r);
		return;
	}
	if (r->modseq > f->modseq)
		f->modseq = r->modseq;
}
