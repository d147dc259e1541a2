/*
 * The user store: opening and reading. Runs in auth (bh-auth; opened before its jail) and, while
 * the suite is down, in bulkhead(8). Hostile: names that clients claim. Changes are in
 * users_change.c.
 *
 * Databases of the one file: "users" name to record; "addresses" sender address to name; "uids" uid
 * and name; "meta" format, next uid, secret, generation. Invariant: a handle is not used after a
 * fork, because LMDB's locks are the process's.
 */
#include "db/users_private.h"
#include "mail/domain.h"

#include "tls/openssl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAP_SIZE ((size_t)4 << 30) /* address space, not memory */

int
users_from_lmdb(int rc)
{
	switch (rc) {
	case 0:
		return 0;
	case MDB_NOTFOUND:
		return ERR_NOT_FOUND;
	case MDB_KEYEXIST:
		return ERR_STATE;
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID:
	case MDB_VERSION_MISMATCH:
		return ERR_CORRUPT;
	case MDB_MAP_FULL:
		return -ENOSPC;
	default:
		return rc > 0 ? -rc : ERR_TEMPORARY;
	}
}

int
users_begin(struct users *u, bool write, MDB_txn **txn_r)
{
	if (getpid() != u->pid)
		die("the user store was used after a fork");
	return users_from_lmdb(mdb_txn_begin(u->env, NULL, write ? 0 : MDB_RDONLY, txn_r));
}

int
users_finish(MDB_txn *txn, int err)
{
	if (err) {
		mdb_txn_abort(txn);
		return err;
	}
	return users_from_lmdb(mdb_txn_commit(txn));
}

/* --- names --- */

bool
users_name_ok(struct slice name)
{
	size_t ats = 0;

	if (name.n == 0 || name.n > USERS_NAME_MAX || name.p[0] == '.' || name.p[0] == '-' ||
	    name.p[0] == '@' || name.p[name.n - 1] == '@')
		return false;
	for (size_t i = 0; i < name.n; i++) {
		unsigned char c = name.p[i];
		if (c <= ' ' || c == 0x7f || strchr("/\\\"'`$()<>|;&,:*?[]{}", c))
			return false;
		ats += c == '@';
	}
	return ats <= 1;
}

/* A domain that is none goes as it came: nobody has it. */
struct slice
users_fold(struct arena *arena, struct slice name)
{
	/* RFC 5321 4.1.2: a local-part that is quoted may have an @ of its own */
	struct slice copy = arena_dup(arena, name), local = copy,
		     domain = slice_split_last(&local, '@');
	unsigned char *p = (unsigned char *)(uintptr_t)copy.p;
	char ascii[DOMAIN_BUF_SIZE];

	if (!slice_is_ascii(domain) && !domain_to_ascii(domain, ascii)) {
		copy = slice_str(arena_printf(arena, "%.*s@%s", SLICE_ARG(local), ascii));
		p = (unsigned char *)(uintptr_t)copy.p;
	}

	for (size_t i = 0; i < copy.n; i++)
		p[i] = ascii_lower(p[i]);
	return copy;
}

/* --- opening --- */

int
users_meta_u64(struct users *u, MDB_txn *txn, const char *name, uint64_t *v_r)
{
	MDB_val key = users_val(slice_str(name)), data;
	int err = users_from_lmdb(mdb_get(txn, u->meta, &key, &data));
	struct cursor c;

	if (err)
		return err;
	c = cursor(users_from_val(data));
	*v_r = cursor_u64(&c);
	return cursor_end(&c) < 0 ? ERR_CORRUPT : 0;
}

static int
meta_put(struct users *u, MDB_txn *txn, const char *name, struct slice value)
{
	MDB_val key = users_val(slice_str(name)), data = users_val(value);

	return users_from_lmdb(mdb_put(txn, u->meta, &key, &data, 0));
}

int
users_meta_put_u64(struct users *u, MDB_txn *txn, const char *name, uint64_t v)
{
	struct buf b = { 0 };
	int err;

	buf_add_u64(&b, v);
	err = meta_put(u, txn, name, buf_slice(&b));
	buf_free(&b);
	return err;
}

static int
open_databases(struct users *u, bool create)
{
	unsigned flags = create ? MDB_CREATE : 0;
	MDB_val key = users_val(SLICE_LIT("secret")), data;
	uint64_t format = 0;
	MDB_txn *txn;
	int err = users_begin(u, create, &txn);

	if (err)
		return err;
	err = users_from_lmdb(mdb_dbi_open(txn, "users", flags, &u->names));
	if (!err)
		err = users_from_lmdb(mdb_dbi_open(txn, "addresses", flags, &u->addresses));
	if (!err)
		err = users_from_lmdb(mdb_dbi_open(txn, "uids", flags, &u->uids));
	if (!err)
		err = users_from_lmdb(mdb_dbi_open(txn, "meta", flags, &u->meta));
	if (!err) {
		err = users_meta_u64(u, txn, "format", &format);
		if (err == ERR_NOT_FOUND && create)
			err = users_meta_put_u64(u, txn, "format", USERS_FORMAT);
		else if (!err && format != USERS_FORMAT)
			err = ERR_CORRUPT;
	}
	if (!err) {
		err = users_from_lmdb(mdb_get(txn, u->meta, &key, &data));
		if (err == ERR_NOT_FOUND && create) {
			err = RAND_bytes(u->secret, sizeof(u->secret)) == 1 ? 0 : ERR_TEMPORARY;
			if (!err)
				err =
				    meta_put(u, txn, "secret", slice(u->secret, sizeof(u->secret)));
		} else if (!err && data.mv_size == sizeof(u->secret)) {
			memcpy(u->secret, data.mv_data, sizeof(u->secret));
		} else if (!err) {
			err = ERR_CORRUPT;
		}
	}
	return users_finish(txn, err);
}

/* A copy that was put back with wider rights would show the verifiers to everybody. */
static int
narrow(MDB_env *env)
{
	struct stat st;
	int fd;

	if (mdb_env_get_fd(env, &fd) != 0 || fstat(fd, &st) < 0)
		return err_errno();
	return (st.st_mode & 07177) && fchmod(fd, 0600) < 0 ? err_errno() : 0;
}

int
users_open(const char *path, bool create, const struct users_opts *opts, struct users **users_r,
    char *why, size_t size)
{
	struct users *u = xcalloc(1, sizeof(*u));
	mode_t mask;
	int err = 0, dead;

	*users_r = NULL;
	u->pid = getpid();
	u->opts = *opts;
	u->opts.mailbox_base = xstrdup(opts->mailbox_base ? opts->mailbox_base : "");
	if (!create && access(path, F_OK) < 0)
		err = err_errno();
	if (!err)
		err = users_from_lmdb(mdb_env_create(&u->env));
	if (!err) {
		mdb_env_set_maxdbs(u->env, 4);
		mdb_env_set_mapsize(u->env, MAP_SIZE);
		mask = umask(0077);
		err = users_from_lmdb(mdb_env_open(u->env, path, MDB_NOSUBDIR, 0600));
		umask(mask);
	}
	if (!err)
		err = narrow(u->env);
	if (!err) {
		mdb_reader_check(u->env, &dead);
		err = open_databases(u, create);
	}
	if (err && why)
		snprintf(why, size, "user store %s: %s%s", path, err_str(err),
		    err == ERR_CORRUPT ? "; restore it from a backup"
		    : err == -ENOENT   ? "; make the first user with: bulkhead user add"
		    : err == -EACCES || err == -EPERM
			? "; it must belong to the user of auth (mode 0600)"
			: "");
	if (err)
		users_close(&u);
	*users_r = u;
	return err;
}

void
users_close(struct users **users)
{
	struct users *u = *users;

	*users = NULL;
	if (!u)
		return;
	if (u->env)
		mdb_env_close(u->env);
	OPENSSL_cleanse(u->secret, sizeof(u->secret));
	free((char *)(uintptr_t)u->opts.mailbox_base);
	free(u);
}

int
users_chown(struct users *u, const char *path, uint32_t uid, uint32_t gid)
{
	char *lock = xasprintf("%s-lock", path);
	int err = 0, fd;

	if (mdb_env_get_fd(u->env, &fd) != 0 || fchown(fd, uid, gid) < 0 ||
	    lchown(lock, uid, gid) < 0)
		err = err_errno();
	free(lock);
	return err;
}

/* --- reading --- */

int
users_read(
    struct users *u, MDB_txn *txn, struct slice name, struct arena *arena, struct user *user_r)
{
	MDB_val key, data;
	int err;

	memset(user_r, 0, sizeof(*user_r));
	if (!users_name_ok(name))
		return ERR_NOT_FOUND;
	user_r->name = users_fold(arena, name);
	key = users_val(user_r->name);
	err = users_from_lmdb(mdb_get(txn, u->names, &key, &data));
	return err ? err : users_record_decode(arena_dup(arena, users_from_val(data)), user_r);
}

int
users_get(struct users *u, struct slice name, struct arena *arena, struct user *user_r)
{
	MDB_txn *txn;
	int err = users_begin(u, false, &txn);

	if (err)
		return err;
	err = users_read(u, txn, name, arena, user_r);
	mdb_txn_abort(txn);
	return err;
}

int
users_find_address(struct users *u, struct slice address, struct arena *arena, struct user *user_r)
{
	struct slice folded;
	MDB_val key, data;
	MDB_txn *txn;
	int err = users_begin(u, false, &txn);

	if (err)
		return err;
	err = users_read(u, txn, address, arena, user_r);
	if (err == ERR_NOT_FOUND && address.n > 0 && address.n <= USERS_NAME_MAX) {
		folded = users_fold(arena, address);
		key = users_val(folded);
		err = users_from_lmdb(mdb_get(txn, u->addresses, &key, &data));
		if (!err)
			err = users_read(
			    u, txn, arena_dup(arena, users_from_val(data)), arena, user_r);
	}
	mdb_txn_abort(txn);
	return err;
}

int
users_each(struct users *u, int (*each)(void *ctx, const struct user *user), void *ctx)
{
	struct arena arena = { 0 };
	MDB_cursor *walk = NULL;
	MDB_val key, data;
	MDB_txn *txn;
	int err = users_begin(u, false, &txn), damaged = 0;

	if (err)
		return err;
	err = users_from_lmdb(mdb_cursor_open(txn, u->names, &walk));
	while (!err && (err = users_from_lmdb(mdb_cursor_get(walk, &key, &data, MDB_NEXT))) == 0) {
		struct user user = { 0 };
		user.name = arena_dup(&arena, users_from_val(key));
		if (users_record_decode(arena_dup(&arena, users_from_val(data)), &user) < 0)
			damaged = ERR_CORRUPT;
		else
			err = each(ctx, &user);
		arena_reset(&arena);
	}
	if (walk)
		mdb_cursor_close(walk);
	mdb_txn_abort(txn);
	arena_free(&arena);
	return err == ERR_NOT_FOUND ? damaged : err;
}

uint64_t
users_generation(struct users *u)
{
	uint64_t generation = 0;
	MDB_txn *txn;

	if (users_begin(u, false, &txn) < 0)
		return 0;
	if (users_meta_u64(u, txn, "generation", &generation) < 0)
		generation = 0;
	mdb_txn_abort(txn);
	return generation;
}

void
users_secret(struct users *u, unsigned char out[32])
{
	memcpy(out, u->secret, 32);
}
