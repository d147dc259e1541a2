/*
 * The store's parsers: the journal (raw, and as sound frames whose records are applied to a
 * folder), dovecot-uidlist and dovecot-keywords, folder names, names of message files ('F'). The
 * first byte chooses. Whatever is read, the folder's invariants hold and names survive a round
 * trip.
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
