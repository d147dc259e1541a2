/*
 * Reads what Dovecot left in a Maildir: dovecot-uidlist and dovecot-keywords, so that a user moves
 * over without a re-download. Pure parsers; runs in the user's session. The files are the user's:
 * a bad line is left out, a bad header makes the file unusable, nothing is trusted beyond its line.
 */
#include "store/journal.h"

struct list_state {
	uint32_t last, uidnext;
	uidlist_fn *fn;
	void *ctx;
};

static struct slice
base_of(struct slice name)
{
	ptrdiff_t colon = slice_find(name, ':');

	return colon < 0 ? name : slice_sub(name, 0, (size_t)colon);
}

static bool
name_sound(struct slice s)
{
	return s.n > 0 && s.n <= 255 && slice_find(s, '/') < 0 && slice_find(s, 0) < 0;
}

static void
give(struct list_state *st, uint64_t uid, struct slice name, struct slice uidl)
{
	struct uidlist_entry e = { (uint32_t)uid, base_of(name), uidl };

	if (uid <= st->last || uid >= UINT32_MAX || !name_sound(e.base))
		return;
	st->last = e.uid;
	if (e.uid >= st->uidnext)
		st->uidnext = e.uid + 1;
	st->fn(st->ctx, &e);
}

/* "uid [Xvalue ...] :name" */
static void
line_v3(struct list_state *st, struct slice line)
{
	struct slice word = slice_split(&line, ' '), uidl = SLICE_NULL;
	uint64_t uid;

	if (slice_u64(word, UINT32_MAX, &uid) < 0)
		return;
	while (line.n && line.p[0] != ':') {
		word = slice_split(&line, ' ');
		if (word.n > 1 && word.n < 200 && word.p[0] == 'P')
			uidl = slice_sub(word, 1, SIZE_MAX);
	}
	if (line.n > 1)
		give(st, uid, slice_sub(line, 1, SIZE_MAX), uidl);
}

/* "uid name" */
static void
line_v1(struct list_state *st, struct slice line)
{
	struct slice word = slice_split(&line, ' ');
	uint64_t uid;

	if (slice_u64(word, UINT32_MAX, &uid) == 0)
		give(st, uid, line, SLICE_NULL);
}

static int
header_v3(struct slice line, uint32_t *uidvalidity_r, uint32_t *uidnext_r)
{
	uint64_t v;

	while (line.n) {
		struct slice word = slice_split(&line, ' ');
		struct slice value = slice_sub(word, 1, SIZE_MAX);
		if (word.n == 0)
			continue;
		if (word.p[0] == 'V' && slice_u64(value, UINT32_MAX, &v) == 0)
			*uidvalidity_r = (uint32_t)v;
		else if (word.p[0] == 'N' && slice_u64(value, UINT32_MAX, &v) == 0)
			*uidnext_r = (uint32_t)v;
	}
	return *uidvalidity_r ? 0 : ERR_SYNTAX;
}

static int
header_v1(struct slice line, uint32_t *uidvalidity_r, uint32_t *uidnext_r)
{
	uint64_t validity, next;
	struct slice word = slice_split(&line, ' ');

	if (slice_u64(word, UINT32_MAX, &validity) < 0 || !validity)
		return ERR_SYNTAX;
	if (slice_u64(slice_split(&line, ' '), UINT32_MAX, &next) < 0)
		return ERR_SYNTAX;
	*uidvalidity_r = (uint32_t)validity;
	*uidnext_r = (uint32_t)next;
	return 0;
}

int
uidlist_parse(
    struct slice in, uint32_t *uidvalidity_r, uint32_t *uidnext_r, uidlist_fn *fn, void *ctx)
{
	struct slice head = slice_split(&in, '\n');
	struct slice version = slice_split(&head, ' ');
	struct list_state st = { .fn = fn, .ctx = ctx };
	int rc;

	*uidvalidity_r = *uidnext_r = 0;
	bool v1 = slice_eq_str(version, "1");
	if (v1)
		rc = header_v1(head, uidvalidity_r, uidnext_r);
	else if (slice_eq_str(version, "3"))
		rc = header_v3(head, uidvalidity_r, uidnext_r);
	else
		rc = ERR_SYNTAX;
	if (rc < 0)
		return rc;
	st.uidnext = *uidnext_r ? *uidnext_r : 1;
	while (in.n) {
		struct slice line = slice_split(&in, '\n');
		if (v1)
			line_v1(&st, line);
		else
			line_v3(&st, line);
	}
	*uidnext_r = st.uidnext;
	return 0;
}

void
dovecot_keywords_parse(
    struct slice in, void (*fn)(void *ctx, unsigned index, struct slice name), void *ctx)
{
	while (in.n) {
		struct slice line = slice_split(&in, '\n');
		struct slice word = slice_split(&line, ' ');
		uint64_t index;
		if (slice_u64(word, 25, &index) == 0 && line.n)
			fn(ctx, (unsigned)index, line);
	}
}
