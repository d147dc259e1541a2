/*
 * The store's parsers: the journal (raw, and as sound frames whose records are applied to a
 * folder), dovecot-uidlist and dovecot-keywords, folder names, names of message files ('F'). The
 * first byte chooses. Whatever is read, the folder's invariants hold, names survive a round trip,
 * and the journal that a compaction would write gives the same folder again.
 */
#include "store/internal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_folder(struct folder *f)
{
	size_t live = 0;
	uint32_t last = 0, unseen = 0;

	for (size_t i = 0; i < f->slot_count; i++) {
		const struct slot *s = &f->slots[i];
		if (s->m.uid < last || s->m.uid >= f->uidnext || s->m.modseq > f->modseq)
			abort();
		last = s->m.uid;
		if (s->name + s->name_len > f->names_len || s->base_len > s->name_len)
			abort();
		if (s->state & SLOT_DEAD)
			continue;
		live++;
		unseen += !(s->m.flags & FLAG_SEEN);
		if (!folder_find_base(f, slot_name(f, s), s->base_len))
			abort();
	}
	if (live != f->live || unseen != f->unseen)
		abort();
}

static bool
same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static void
same_slots(struct folder *f, struct folder *g)
{
	for (size_t i = 0; i < f->slot_count; i++) {
		const struct slot *a = &f->slots[i], *b = folder_slot(g, a->m.uid);

		if (a->state & SLOT_DEAD)
			continue;
		if (!b || a->m.flags != b->m.flags || a->m.keywords != b->m.keywords ||
		    a->m.modseq != b->m.modseq || a->m.emailid != b->m.emailid ||
		    a->m.savedate != b->m.savedate || a->state != b->state ||
		    a->base_len != b->base_len ||
		    !slice_eq(
			slice(slot_name(f, a), a->name_len), slice(slot_name(g, b), b->name_len)))
			abort();
	}
}

/* The expunges that a client may still be told, in their order. */
static const struct vanished *
next_vanished(const struct folder *f, size_t *at)
{
	while (*at < f->vanished_count && f->vanished[*at].modseq <= f->history)
		(*at)++;
	return *at < f->vanished_count ? &f->vanished[(*at)++] : NULL;
}

static void
same_history(struct folder *f, const struct folder *g)
{
	size_t i = 0, j = 0;
	const struct vanished *a, *b;

	do {
		a = next_vanished(f, &i);
		b = next_vanished(g, &j);
		if (!a != !b || (a && (a->uid != b->uid || a->modseq != b->modseq)))
			abort();
		if (a && folder_slot(f, a->uid))
			abort();
	} while (a);
}

static void
same_rest(struct folder *f, struct folder *g)
{
	for (unsigned i = 0; i < STORE_KEYWORDS; i++)
		if (!same_text(f->keywords[i], g->keywords[i]))
			abort();
	for (const struct meta *a = f->meta, *b; a; a = a->next) {
		for (b = g->meta; b && !slice_eq(a->key, b->key); b = b->next)
			;
		if (!b || !slice_eq(a->value, b->value))
			abort();
	}
	for (size_t i = 0, j = 0; i < f->uidl_count; i++) {
		if (!folder_slot(f, f->uidls[i].uid))
			continue;
		if (j == g->uidl_count || g->uidls[j].uid != f->uidls[i].uid ||
		    strcmp(g->uidls[j].text, f->uidls[i].text) != 0)
			abort();
		j++;
	}
}

static void
compacted(struct folder *f)
{
	struct folder g = { .store = f->store, .uidnext = 1, .modseq = 1 };
	struct journal_header head;
	struct buf b = { 0 };
	bool damaged;

	TAILQ_INIT(&g.views);
	f->head = (struct journal_header){ 7, 8, 9 };
	folder_snapshot(f, &b);
	if (journal_get_header(buf_slice(&b), &head) < 0 || head.mailboxid != 7 ||
	    head.uidvalidity != 8 || head.generation != 9)
		abort();
	buf_consume(&b, JOURNAL_HEADER);
	if (journal_parse(buf_slice(&b), folder_apply, &g, &damaged) != buf_len(&b) || damaged)
		abort();
	check_folder(&g);
	if (f->live != g.live || f->unseen != g.unseen || f->deleted != g.deleted ||
	    f->uidnext != g.uidnext || f->modseq != g.modseq || f->history != g.history)
		abort();
	same_slots(f, &g);
	same_history(f, &g);
	same_rest(f, &g);
	folder_clear(&g);
	buf_free(&b);
}

static void
apply(struct slice in, bool frame)
{
	struct store s = { 0 };
	struct folder f = { .store = &s, .uidnext = 1, .modseq = 1 };
	struct buf b = { 0 };
	bool damaged;

	TAILQ_INIT(&f.views);
	size_t mark = frame ? journal_begin_frame(&b) : 0;
	buf_add(&b, in);
	if (frame)
		journal_end_frame(&b, mark);
	size_t n = journal_parse(buf_slice(&b), folder_apply, &f, &damaged);
	if (n > buf_len(&b) || (damaged && n == buf_len(&b)))
		abort();
	check_folder(&f);
	folder_pack(&f);
	check_folder(&f);
	compacted(&f);
	folder_clear(&f);
	buf_free(&b);
}

static void
entry(void *ctx, const struct uidlist_entry *e)
{
	uint32_t *last = ctx;

	if (e->uid <= *last || e->base.n == 0 || slice_find(e->base, '/') >= 0)
		abort();
	*last = e->uid;
}

static void
keyword(void *ctx, unsigned index, struct slice name)
{
	(void)ctx;
	if (index > 25 || !name.n)
		abort();
}

static void
names(struct slice in)
{
	char name[STORE_NAME_MAX + 1], again[STORE_NAME_MAX + 1];
	struct buf disk = { 0 }, back = { 0 };

	if (store_name(in, name, NULL) == 0) {
		if (store_name(slice_str(name), again, NULL) < 0 || strcmp(name, again) != 0)
			abort();
		if (name_to_disk(name, &disk) < 0)
			abort();
		buf_add_byte(&disk, 0);
		if (name_from_disk((const char *)buf_slice(&disk).p, &back) < 0 ||
		    !slice_eq_str(buf_slice(&back), name))
			abort();
	}
	buf_clear(&disk);
	buf_clear(&back);
	if (mutf7_decode(in, &back) == 0 &&
	    (mutf7_encode(buf_slice(&back), &disk) < 0 || !slice_eq(buf_slice(&disk), in)))
		abort();
	buf_clear(&back);
	char *c = slice_dup(in);
	(void)!name_from_disk(c, &back);
	free(c);
	buf_free(&disk);
	buf_free(&back);
}

/* What other programs call a message: its flags come back from the name that is made of them. */
static void
file_name(struct slice in)
{
	struct file_name a, b;
	char info[80], name[512 + sizeof(info)]; /* each letter and digit once */

	in = slice_sub(in, 0, 512);
	maildir_parse((const char *)in.p, in.n, &a);
	if (a.base_len > in.n)
		abort();
	size_t n = maildir_info(slice_sub(in, a.base_len, in.n), a.flags, a.keywords, info);
	memcpy(name, in.p, a.base_len);
	memcpy(name + a.base_len, info, n);
	maildir_parse(name, a.base_len + n, &b);
	if (b.base_len != a.base_len || b.flags != a.flags || b.keywords != a.keywords ||
	    b.size != a.size || b.vsize != a.vsize)
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct journal_header h;
	uint32_t validity, next, last = 0;

	if (size == 0)
		return 0;
	struct slice in = slice(data + 1, size - 1);
	if (data[0] == 'F') {
		file_name(in);
		return 0;
	}
	switch (data[0] % 5) {
	case 0:
		apply(in, true);
		break;
	case 1:
		if (journal_get_header(in, &h) == 0 && !h.uidvalidity)
			abort();
		apply(in, false);
		break;
	case 2:
		if (uidlist_parse(in, &validity, &next, entry, &last) == 0 && last >= next)
			abort();
		break;
	case 3:
		dovecot_keywords_parse(in, keyword, NULL);
		break;
	default:
		names(in);
	}
	return 0;
}
