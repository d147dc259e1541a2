/*
 * Look-up tables behind one interface: "type:name" is opened once and asked by key. Read only; the
 * one writer is db_build. Blocking file reads happen in db_open and db_refresh alone, db_get
 * touches memory (or the pages of an immutable LMDB file).
 */
#ifndef DB_DB_H
#define DB_DB_H

#include "base/buf.h"

struct db;

enum db_flag {
	DB_ALIASES = 1, /* a text file is in the syntax of aliases(5), not "key value" lines */
	DB_NO_EXPAND =
	    2, /* refuse $1 in the results of patterns: the result names commands or files */
};

enum db_trait {
	DB_PATTERN = 1, /* regexp, pcre, cidr, static: ask with whole keys only */
	DB_NSS = 2,     /* db_get answers -EAGAIN: ask the nss helper */
};

/*
 * Opens the table that spec names. 0 and *db_r. On failure why holds a line that names the table,
 * the reason and the remedy; *db_r is NULL if the name itself is wrong (ERR_SYNTAX), else a table
 * that answers ERR_TEMPORARY until a db_refresh succeeds.
 */
int db_open(struct slice spec, unsigned flags, struct db **db_r, struct buf *why) CHECKED;
void db_free(struct db **db);

/*
 * 0 and the value appended to value; ERR_NOT_FOUND (authoritative); -EAGAIN for a DB_NSS table; any
 * other error is temporary (ERR_LIMIT: a rule of a pattern took too many steps for this key, or
 * gave too much). Letter case of the key does not matter, but for pcre and regexp rules that say
 * so.
 */
int db_get(const struct db *db, struct slice key, struct buf *value) CHECKED;
/* Calls each for every entry, in no order, until it returns something else than 0, which is
 * returned. ERR_STATE: a kind of table whose entries cannot be told (pattern tables, unix). */
int db_each(const struct db *db, int (*each)(void *ctx, struct slice key, struct slice value),
    void *ctx) CHECKED;
unsigned db_traits(const struct db *db);
/* The spec as it was given, for messages. */
const char *db_spec(const struct db *db);
/* The file that the table lives in, or NULL. */
const char *db_path(const struct db *db);

/*
 * Looks whether the file has changed since it was read and reads it anew: 1 if the content is new,
 * 0 if not, an error with why if it cannot be read: the old content then stays in use.
 */
int db_refresh(struct db *db, struct buf *why) CHECKED;

/* Several tables asked in order, as a parameter lists them. A zeroed struct is an empty list. */
struct db_list {
	struct db **tables;
	size_t n;
};

/*
 * Opens each table of a comma or blank separated list (braces group). The first failure is returned
 * and all are told in why, one a line; the list holds what could be opened or may come later.
 */
int db_list_open(struct db_list *list, struct slice spec, unsigned flags, struct buf *why) CHECKED;
void db_list_free(struct db_list *list);
/*
 * The first answer. Tables with DB_PATTERN are asked if whole says that key is not a part of an
 * address. At a DB_NSS table the walk ends with -EAGAIN and *nss_r is its place; go on behind it
 * with from = place + 1. An error of one table ends the walk, with its place: a later table might
 * know less.
 */
int db_list_get(const struct db_list *list, size_t from, struct slice key, bool whole,
    struct buf *value, size_t *nss_r) CHECKED;

/* Cuts the next item of such a list off *list: false at the end. ERR_SYNTAX is an item {NULL, 1}.
 */
bool db_list_next(struct slice *list, struct slice *item_r);

/*
 * Builds the LMDB table dst from the text file src ("key value" lines, or aliases(5) with
 * DB_ALIASES) and publishes it by rename: readers see the old or the new one whole. Root becomes
 * the owner of src meanwhile; who may read src may read dst. count_r: entries written; why: an
 * error, or warnings (duplicates), one a line.
 */
int db_build(
    const char *src, const char *dst, unsigned flags, size_t *count_r, struct buf *why) CHECKED;

#endif
