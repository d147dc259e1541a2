/*
 * LMDB tables: immutable files, published by rename. Everything about LMDB that tables must heed is
 * here. Reading runs in maps (uid bh-maps), building in the tools.
 *
 * - RDONLY|NOLOCK needs no lock file and no write permission, and is sound only because a published
 *   file never changes: with a live writer a snapshot would tear.
 * - NOTLS: read transactions are not bound to a thread; one stays open for the life of the file.
 * - An environment must not be opened twice or used after a fork: each load opens a new file, and
 *   maps does not fork.
 * - Keys end at 511 bytes; a longer key is in no table.
 * - A damaged file may make LMDB read past the map: the tables are written by root or their owner.
 */
#include "db/lines.h"
#include "db/type.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct table {
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
};

/* LMDB's own codes are positive errno values or its negative range. */
static int
code(int rc)
{
	if (rc == MDB_NOTFOUND)
		return ERR_NOT_FOUND;
	return rc > 0 ? -rc : ERR_CORRUPT;
}

static void
lmdb_unload(void *state)
{
	struct table *t = state;

	if (t->txn)
		mdb_txn_abort(t->txn);
	if (t->env)
		mdb_env_close(t->env);
	free(t);
}

static int
lmdb_load(const struct db_source *src, void **state_r, struct buf *why)
{
	struct table *t = xcalloc(1, sizeof(*t));
	int rc = mdb_env_create(&t->env);

	if (!rc)
		rc = mdb_env_open(
		    t->env, src->path, MDB_RDONLY | MDB_NOLOCK | MDB_NOSUBDIR | MDB_NOTLS, 0);
	if (!rc)
		rc = mdb_txn_begin(t->env, NULL, MDB_RDONLY, &t->txn);
	if (!rc)
		rc = mdb_dbi_open(t->txn, NULL, 0, &t->dbi);
	if (rc) {
		buf_addf(why, "%s: cannot open %s: %s; build it with bulkhead map or newaliases\n",
		    src->spec, src->path, mdb_strerror(rc));
		lmdb_unload(t);
		return code(rc);
	}
	*state_r = t;
	return 0;
}

static int
lmdb_get(const void *state, struct slice key, struct buf *value)
{
	const struct table *t = state;
	unsigned char folded[DB_KEY_LIMIT];
	MDB_val k, v;
	int rc;

	if (!key.n || key.n > sizeof(folded))
		return ERR_NOT_FOUND;
	for (size_t i = 0; i < key.n; i++)
		folded[i] = ascii_lower(key.p[i]);
	k = (MDB_val){ key.n, folded };
	rc = mdb_get(t->txn, t->dbi, &k, &v);
	if (rc)
		return rc == MDB_NOTFOUND ? ERR_NOT_FOUND : ERR_TEMPORARY;
	return buf_add(value, slice(v.mv_data, v.mv_size));
}

static int
lmdb_each(
    const void *state, int (*each)(void *ctx, struct slice key, struct slice value), void *ctx)
{
	const struct table *t = state;
	MDB_cursor *cursor;
	MDB_val k, v;
	int err = 0, rc = mdb_cursor_open(t->txn, t->dbi, &cursor);

	if (rc)
		return ERR_TEMPORARY;
	while (!err && !(rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)))
		err = each(ctx, slice(k.mv_data, k.mv_size), slice(v.mv_data, v.mv_size));
	mdb_cursor_close(cursor);
	return err ? err : rc == MDB_NOTFOUND ? 0 : ERR_TEMPORARY;
}

const struct db_type db_lmdb = { "lmdb", 0, ".lmdb", false, lmdb_load, lmdb_get, lmdb_unload,
	lmdb_each };

/* --- building --- */

struct build {
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	int rc; /* the last of LMDB's codes */
	size_t limit;
	const char *src;
	size_t count;
	struct buf *why;
};

static int
put_entry(void *ctx, struct slice key, struct slice value, unsigned line)
{
	struct build *b = ctx;
	unsigned char folded[DB_KEY_LIMIT];
	MDB_val k = { key.n, folded }, v = { value.n, (void *)(uintptr_t)value.p };
	int rc;

	for (size_t i = 0; i < key.n; i++)
		folded[i] = ascii_lower(key.p[i]);
	rc = b->rc = mdb_put(b->txn, b->dbi, &k, &v, MDB_NOOVERWRITE);
	if (rc == MDB_KEYEXIST) {
		buf_addf(b->why, "%s: line %u: a second entry for %.*s; the first one counts\n",
		    b->src, line, SLICE_ARG(key));
		return 0;
	}
	if (rc)
		return code(rc);
	b->count++;
	return 0;
}

/* One transaction into a fresh file that nobody else has: no lock, and one fsync at the end. */
static int
fill(struct build *b, const char *tmp, struct slice text, unsigned flags)
{
	size_t map = (text.n * 8 + (4 << 20)) & ~(size_t)0xffff;
	int err = 0, rc = mdb_env_create(&b->env);

	if (!b->limit || map < b->limit)
		b->limit = map;
	if (!rc)
		rc = mdb_env_set_mapsize(b->env, b->limit);
	if (!rc)
		rc = mdb_env_open(b->env, tmp, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, 0644);
	if (!rc)
		rc = mdb_txn_begin(b->env, NULL, 0, &b->txn);
	if (!rc)
		rc = mdb_dbi_open(b->txn, NULL, 0, &b->dbi);
	if (!rc)
		err = db_text_parse(text, b->src, flags, put_entry, b, b->why);
	if (!rc && !err) {
		rc = mdb_txn_commit(b->txn);
		b->txn = NULL;
	}
	if (!rc && !err)
		rc = mdb_env_sync(b->env, 1);
	b->rc = rc ? rc : b->rc;
	if (b->txn)
		mdb_txn_abort(b->txn);
	if (b->env)
		mdb_env_close(b->env);
	return rc ? code(rc) : err;
}

static int
sync_directory(const char *path)
{
	char *copy = xstrdup(path);
	int err = 0, fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd))
		err = err_errno();
	if (fd >= 0)
		close(fd);
	free(copy);
	return err;
}

/* The name is ours alone: created with O_EXCL, so that a link laid by somebody else is not
 * followed. Who may read the text may read the table, and nobody else, whatever the umask is: it
 * may hold passwords. */
static int
create(const char *dst, const struct stat *src, char **tmp_r)
{
	char *tmp = xasprintf("%s.%ld.tmp", dst, (long)getpid());
	mode_t readers = src->st_mode & (S_IRGRP | S_IROTH);
	int fd;

	unlink(tmp);
	fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		int err = err_errno();
		free(tmp);
		return err;
	}
	if (fchown(fd, (uid_t)-1, src->st_gid))
		readers &= ~(mode_t)S_IRGRP; /* it would be another group's */
	(void)!fchmod(fd, S_IRUSR | S_IWUSR | readers);
	close(fd);
	*tmp_r = tmp;
	return 0;
}

static void
say_why(struct build *b, const char *dst, int err)
{
	if (b->rc == MDB_MAP_FULL)
		buf_addf(b->why,
		    "cannot write %s: %zu entries of %s fill the %zu bytes that it may have; "
		    "divide the text among several tables\n",
		    dst, b->count, b->src, b->limit);
	else if (err == ERR_CORRUPT && b->rc < 0)
		buf_addf(b->why, "cannot write %s: %s\n", dst, mdb_strerror(b->rc));
	else
		buf_addf(b->why, "cannot write %s: %s\n", dst, err_str(err));
}

int
db_build_within(size_t limit, const char *src, const char *dst, unsigned flags, size_t *count_r,
    struct buf *why)
{
	struct build b = { .src = src, .why = why, .limit = limit };
	struct buf text = { 0 };
	struct stat st;
	char *tmp = NULL;
	uid_t self = geteuid();
	int err = db_read_file(src, &text, &st);

	*count_r = 0;
	if (err) {
		buf_addf(why, "cannot read %s: %s\n", src, err_str(err));
		goto out;
	}
	/* the owner of what was read, not of what has its name now: nobody gets another's text */
	if (!self && st.st_uid && seteuid(st.st_uid)) {
		err = err_errno();
		buf_addf(why, "cannot act for the owner of %s: %s\n", src, err_str(err));
		goto out;
	}
	err = create(dst, &st, &tmp);
	if (!err)
		err = fill(&b, tmp, buf_slice(&text), flags);
	if (!err && rename(tmp, dst))
		err = err_errno();
	if (!err)
		err = sync_directory(dst);
	if (err && tmp)
		unlink(tmp);
	if (err)
		say_why(&b, dst, err);
	*count_r = b.count;
	if (!self && seteuid(self))
		die("cannot return to uid 0");
out:
	free(tmp);
	buf_free(&text);
	return err;
}

int
db_build(const char *src, const char *dst, unsigned flags, size_t *count_r, struct buf *why)
{
	return db_build_within(0, src, dst, flags, count_r, why);
}
