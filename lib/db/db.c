/*
 * The registry of table types, opening by name, re-reading of changed files, and lists of tables.
 * Runs in maps (uid bh-maps, on files that the admin wrote) and in the tools. Keys come from
 * strangers. A table that cannot be read answers "temporary", never "unknown".
 */
#include "db/db.h"
#include "db/type.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* What tells whether a file is still the one that was read. */
struct stamp {
	uint64_t dev, ino, size;
	int64_t sec, nsec;
};

struct db {
	const struct db_type *type;
	char *spec;
	const char *name; /* inside spec */
	char *path;
	unsigned flags;
	bool open;
	void *state;
	struct stamp stamp;
};

static const struct db_type *const types[] = { &db_hash, &db_texthash, &db_inline, &db_static,
	&db_unix, &db_cidr, &db_regexp, &db_pcre, &db_lmdb };

static const struct db_type *
type_find(struct slice name)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (slice_eq_str(name, types[i]->name))
			return types[i];
	return NULL;
}

static void
stamp_set(struct stamp *s, const struct stat *st)
{
	*s = (struct stamp){ st->st_dev, st->st_ino, (uint64_t)st->st_size, st->st_mtim.tv_sec,
		st->st_mtim.tv_nsec };
}

static bool
stamp_eq(const struct stamp *a, const struct stamp *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->sec == b->sec &&
	       a->nsec == b->nsec;
}

static int
stamp_of(const char *path, struct stamp *stamp_r)
{
	struct stat st;

	if (stat(path, &st))
		return err_errno();
	stamp_set(stamp_r, &st);
	return 0;
}

int
db_read_file(const char *path, struct buf *text, struct stat *st_r)
{
	ptrdiff_t n;
	int err = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0)
		return err_errno();
	if (fstat(fd, st_r))
		err = err_errno();
	else if (!S_ISREG(st_r->st_mode))
		err = -EINVAL;
	else if (st_r->st_size > DB_TEXT_LIMIT)
		err = ERR_LIMIT;
	while (!err && (n = buf_read(text, fd, 1 << 20)) != 0) {
		if (n < 0 && n != -EINTR)
			err = (int)n;
		else if (buf_len(text) > DB_TEXT_LIMIT)
			err = ERR_LIMIT;
	}
	close(fd);
	return err;
}

/*
 * Reads the table into a new state, and the stamp of what was read.
 */
static int
load(struct db *db, void **state_r, struct buf *why)
{
	const struct db_type *type = db->type;
	struct db_source src = { db->spec, slice_str(db->name), db->path, SLICE_NULL, db->flags };
	struct buf text = { 0 };
	struct stat st;
	int err = 0;

	if (type->suffix) {
		err = type->wants_text      ? db_read_file(db->path, &text, &st)
		      : stat(db->path, &st) ? err_errno()
					    : 0;
		if (!err)
			stamp_set(&db->stamp, &st);
		if (err)
			buf_addf(why,
			    "%s: cannot read %s: %s; create the file%s or correct the name\n",
			    db->spec, db->path, err_str(err),
			    type == &db_lmdb ? " (bulkhead map, newaliases)" : "");
	}
	if (!err) {
		src.text = buf_slice(&text);
		err = type->load(&src, state_r, why);
	}
	buf_free(&text);
	return err;
}

static char *
path_of(const struct db_type *type, const char *name)
{
	return type->suffix ? xasprintf("%s%s", name, type->suffix) : NULL;
}

int
db_open(struct slice spec, unsigned flags, struct db **db_r, struct buf *why)
{
	const struct db_type *type;
	struct slice name, kind;
	struct db *db;
	int err;

	*db_r = NULL;
	spec = slice_trim(spec, true);
	if (slice_has_prefix(spec, "proxy:"))
		spec = slice_sub(spec, 6, spec.n);
	name = spec;
	kind = slice_split(&name, ':');
	type = type_find(kind);
	if (!type || !name.n || slice_find(spec, 0) >= 0) {
		buf_addf(why,
		    "%.*s: not a table: write type:name with a type of hash, texthash, lmdb, cidr, "
		    "regexp, pcre, inline, static, unix\n",
		    SLICE_ARG(spec));
		return ERR_SYNTAX;
	}
	if (type->suffix && name.p[0] != '/') {
		buf_addf(why, "%.*s: the name of the file must begin with /\n", SLICE_ARG(spec));
		return ERR_SYNTAX;
	}
	db = xcalloc(1, sizeof(*db));
	db->type = type;
	db->spec = slice_dup(spec);
	db->name = db->spec + kind.n + 1;
	db->path = path_of(type, db->name);
	db->flags = flags;
	err = load(db, &db->state, why);
	db->open = !err;
	*db_r = db;
	return err;
}

void
db_free(struct db **dbp)
{
	struct db *db = *dbp;

	if (!db)
		return;
	if (db->open)
		db->type->unload(db->state);
	free(db->path);
	free(db->spec);
	free(db);
	*dbp = NULL;
}

int
db_get(const struct db *db, struct slice key, struct buf *value)
{
	if (!db->open)
		return ERR_TEMPORARY;
	return db->type->get(db->state, key, value);
}

int
db_each(
    const struct db *db, int (*each)(void *ctx, struct slice key, struct slice value), void *ctx)
{
	if (!db->type->each)
		return ERR_STATE;
	return db->open ? db->type->each(db->state, each, ctx) : ERR_TEMPORARY;
}

unsigned
db_traits(const struct db *db)
{
	return db->type->traits;
}

const char *
db_spec(const struct db *db)
{
	return db->spec;
}

const char *
db_path(const struct db *db)
{
	return db->path;
}

int
db_refresh(struct db *db, struct buf *why)
{
	struct stamp now = { 0 }, old = db->stamp;
	void *state = NULL;
	int err;

	if (!db->type->suffix)
		return 0;
	err = stamp_of(db->path, &now);
	if (!err && db->open && stamp_eq(&now, &old))
		return 0;
	if (err && !db->open)
		return 0; /* told at db_open */
	err = load(db, &state, why);
	if (err) {
		db->stamp = old;
		return err;
	}
	if (db->open)
		db->type->unload(db->state);
	db->state = state;
	db->open = true;
	return 1;
}

/* --- lists --- */

static bool
is_separator(unsigned char c)
{
	return c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

bool
db_list_next(struct slice *list, struct slice *item_r)
{
	size_t from = 0, at;
	int depth = 0;

	while (from < list->n && is_separator(list->p[from]))
		from++;
	if (from == list->n)
		return false;
	for (at = from; at < list->n && (depth || !is_separator(list->p[at])); at++) {
		if (list->p[at] == '{')
			depth++;
		else if (list->p[at] == '}' && depth)
			depth--;
	}
	*item_r = depth ? slice(NULL, 1) : slice_sub(*list, from, at);
	*list = slice_sub(*list, at, list->n);
	return true;
}

int
db_list_open(struct db_list *list, struct slice spec, unsigned flags, struct buf *why)
{
	struct slice item;
	int err = 0;

	*list = (struct db_list){ 0 };
	while (db_list_next(&spec, &item)) {
		struct db *db = NULL;
		int e;

		if (item.p) {
			e = db_open(item, flags, &db, why);
		} else {
			e = ERR_SYNTAX;
			buf_add_str(why, "a brace is not closed in a list of tables\n");
		}
		if (e && !err)
			err = e;
		if (!db)
			continue;
		list->tables = xrealloc(list->tables, (list->n + 1) * sizeof(struct db *));
		list->tables[list->n++] = db;
	}
	return err;
}

void
db_list_free(struct db_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		db_free(&list->tables[i]);
	free(list->tables);
	*list = (struct db_list){ 0 };
}

int
db_list_get(const struct db_list *list, size_t from, struct slice key, bool whole,
    struct buf *value, size_t *nss_r)
{
	for (size_t i = from; i < list->n; i++) {
		int err;

		if (!whole && (db_traits(list->tables[i]) & DB_PATTERN))
			continue;
		err = db_get(list->tables[i], key, value);
		if (err == ERR_NOT_FOUND)
			continue;
		if (err)
			*nss_r = i;
		return err;
	}
	return ERR_NOT_FOUND;
}
