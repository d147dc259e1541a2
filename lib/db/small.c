/*
 * Tables without a file: inline, static, unix. Runs in maps; the names come from main.cf.
 */
#include "db/type.h"

#include <errno.h>
#include <stdlib.h>

/* --- inline:{a=b, {c = d e}} --- */

/* Strips one pair of braces around s. */
static bool
unbrace(struct slice *s)
{
	struct slice t = slice_trim(*s, true);

	if (t.n < 2 || t.p[0] != '{' || t.p[t.n - 1] != '}')
		return false;
	*s = slice_trim(slice_sub(t, 1, t.n - 1), true);
	return true;
}

static int
inline_load(const struct db_source *src, void **state_r, struct buf *why)
{
	struct db_text *t = xcalloc(1, sizeof(*t));
	struct slice list = src->name, item, key;

	if (!unbrace(&list))
		goto syntax;
	while (db_list_next(&list, &item)) {
		if (!item.p)
			goto syntax;
		unbrace(&item);
		if (slice_find(item, '=') < 0)
			goto syntax;
		key = slice_trim(slice_split(&item, '='), true);
		if (!key.n || !db_text_add(t, key, slice_trim(item, true)))
			goto syntax;
	}
	*state_r = t;
	return 0;
syntax:
	db_text_unload(t);
	buf_addf(why, "%s: write inline:{name=value, {name = value with blanks}}, each name once\n",
	    src->spec);
	return ERR_SYNTAX;
}

const struct db_type db_inline = { "inline", 0, NULL, false, inline_load, db_text_get,
	db_text_unload, db_text_each };

/* --- static:value --- */

static int
static_load(const struct db_source *src, void **state_r, struct buf *why)
{
	struct slice value = src->name;

	(void)why;
	unbrace(&value);
	*state_r = slice_dup(value);
	return 0;
}

static int
static_get(const void *state, struct slice key, struct buf *value)
{
	(void)key;
	return buf_add_str(value, state);
}

const struct db_type db_static = { "static", DB_PATTERN, NULL, false, static_load, static_get, free,
	NULL };

/* --- unix:passwd.byname --- */

static int
unix_load(const struct db_source *src, void **state_r, struct buf *why)
{
	*state_r = NULL;
	if (slice_eq_str(src->name, "passwd.byname"))
		return 0;
	buf_addf(why, "%s: the only table of this type is unix:passwd.byname\n", src->spec);
	return ERR_SYNTAX;
}

static int
unix_get(const void *state, struct slice key, struct buf *value)
{
	(void)state, (void)key, (void)value;
	return -EAGAIN;
}

const struct db_type db_unix = { "unix", DB_NSS, NULL, false, unix_load, unix_get, free, NULL };
