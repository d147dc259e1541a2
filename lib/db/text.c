/*
 * Text tables held in memory: "key value" lines (hash, texthash) and aliases(5). Runs in maps and
 * in the tools, on files that the admin wrote; keys come from strangers. Keys are kept in lower
 * case; of two entries with one key the first counts.
 */
#include "db/lines.h"
#include "db/type.h"

#include <stdlib.h>

struct entry {
	struct hash_node node;
	struct slice value;
};

/* The lower-case copy of a short key; NULL if it is too long to be in any table. */
static unsigned char *
fold(struct slice key, unsigned char folded[DB_KEY_LIMIT])
{
	if (key.n > DB_KEY_LIMIT)
		return NULL;
	for (size_t i = 0; i < key.n; i++)
		folded[i] = ascii_lower(key.p[i]);
	return folded;
}

bool
db_text_add(struct db_text *t, struct slice key, struct slice value)
{
	unsigned char folded[DB_KEY_LIMIT];
	struct entry *e;

	if (!fold(key, folded) || hash_find(&t->entries, slice(folded, key.n)))
		return false;
	e = arena_alloc(&t->arena, sizeof(*e));
	e->value = arena_dup(&t->arena, value);
	hash_insert(&t->entries, &e->node, arena_dup(&t->arena, slice(folded, key.n)));
	return true;
}

int
db_text_get(const void *state, struct slice key, struct buf *value)
{
	const struct db_text *t = state;
	unsigned char folded[DB_KEY_LIMIT];
	struct hash_node *n = NULL;

	if (fold(key, folded))
		n = hash_find(&t->entries, slice(folded, key.n));
	if (!n)
		return ERR_NOT_FOUND;
	return buf_add(value, HASH_ELEMENT(n, struct entry, node)->value);
}

void
db_text_unload(void *state)
{
	struct db_text *t = state;

	hash_free(&t->entries);
	arena_free(&t->arena);
	free(t);
}

int
db_text_each(
    const void *state, int (*each)(void *ctx, struct slice key, struct slice value), void *ctx)
{
	const struct db_text *t = state;
	int err = 0;

	for (struct hash_node *n = hash_next(&t->entries, NULL); !err && n;
	     n = hash_next(&t->entries, n))
		err = each(ctx, n->key, HASH_ELEMENT(n, struct entry, node)->value);
	return err;
}

/* Takes the quotes off a key that is quoted as a whole, as aliases(5) allows. */
static struct slice
unquote(struct slice key)
{
	if (key.n > 2 && key.p[0] == '"' && key.p[key.n - 1] == '"' &&
	    slice_find(slice_sub(key, 1, key.n - 1), '"') < 0)
		return slice_sub(key, 1, key.n - 1);
	return key;
}

int
db_text_parse(struct slice text, const char *name, unsigned flags, db_entry_fn *each, void *ctx,
    struct buf *why)
{
	bool aliases = flags & DB_ALIASES;
	struct lines l;
	struct slice line, key;
	int err = 0;

	lines_init(&l, text);
	while (!err && lines_next(&l, &line)) {
		const char *wrong = NULL;

		if (slice_find(line, 0) >= 0)
			wrong = "holds a NUL byte";
		else if (lines_key(&line, aliases, &key))
			wrong = aliases ? "is not \"name: value\"" : "begins with an open quote";
		else if (key.n > DB_KEY_LIMIT)
			wrong = "has a key of more than 511 bytes";
		else if (!line.n)
			wrong =
			    aliases ? "has no value behind the colon" : "has a key and no value";
		if (wrong) {
			buf_addf(why, "%s: line %u %s; line ignored\n", name, l.line, wrong);
			continue;
		}
		err = each(ctx, aliases ? unquote(key) : key, line, l.line);
	}
	lines_free(&l);
	return err;
}

struct filling {
	struct db_text *table;
	const char *name;
	struct buf *why;
};

static int
add_entry(void *ctx, struct slice key, struct slice value, unsigned line)
{
	struct filling *f = ctx;

	if (!db_text_add(f->table, key, value))
		buf_addf(f->why, "%s: line %u: a second entry for %.*s; the first one counts\n",
		    f->name, line, SLICE_ARG(key));
	return 0;
}

static int
text_load(const struct db_source *src, void **state_r, struct buf *why)
{
	struct db_text *t = xcalloc(1, sizeof(*t));
	struct filling f = { t, src->spec, why };
	int err = db_text_parse(src->text, src->spec, src->flags, add_entry, &f, why);

	if (err)
		db_text_unload(t);
	else
		*state_r = t;
	return err;
}

const struct db_type db_hash = { "hash", 0, "", true, text_load, db_text_get, db_text_unload,
	db_text_each };
const struct db_type db_texthash = { "texthash", 0, "", true, text_load, db_text_get,
	db_text_unload, db_text_each };
