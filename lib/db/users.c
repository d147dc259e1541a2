/*
 * The user store. Runs in auth (bh-auth; opened before its jail) and, while the suite is down, in
 * bulkhead(8). Hostile: names that clients claim; what the admin typed is checked as well, because
 * homes and uids become roots and credentials.
 *
 * Databases of the one file: "users" name -> record; "addresses" sender address -> name; "uids"
 * uid and name; "meta" format, next uid, the
 * secret, the generation. Invariants: every change is one transaction over all of them; a uid is
 * never given twice.
 */
#include "db/users.h"

#include "db/mailbox.h"
#include "tls/openssl.h"

#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FORMAT 1
#define MAP_SIZE ((size_t)4 << 30) /* address space, not memory */

struct users {
	MDB_env *env;
	MDB_dbi names, addresses, uids, meta;
	pid_t pid;
	struct users_opts opts;
	unsigned char secret[32];
};

static int
from_lmdb(int rc)
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

static MDB_val
val(struct slice s)
{
	return (MDB_val){ s.n, (void *)(uintptr_t)s.p };
}

static struct slice
from_val(MDB_val v)
{
	return slice(v.mv_data, v.mv_size);
}

static int
begin(struct users *u, bool write, MDB_txn **txn_r)
{
	if (getpid() != u->pid)
		die("the user store was used after a fork");
	return from_lmdb(mdb_txn_begin(u->env, NULL, write ? 0 : MDB_RDONLY, txn_r));
}

static int
finish(MDB_txn *txn, int err)
{
	if (err) {
		mdb_txn_abort(txn);
		return err;
	}
	return from_lmdb(mdb_txn_commit(txn));
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

static struct slice
fold(struct arena *arena, struct slice name)
{
	struct slice copy = arena_dup(arena, name);
	unsigned char *p = (unsigned char *)(uintptr_t)copy.p;

	for (size_t i = 0; i < copy.n; i++)
		p[i] = ascii_lower(p[i]);
	return copy;
}

/* --- records --- */

static void
record_encode(const struct user *user, struct buf *out)
{
	buf_add_u8(out, FORMAT);
	buf_add_u32(out, user->uid);
	buf_add_u32(out, user->gid);
	buf_add_u32(out, user->flags);
	buf_add_u64(out, user->created);
	buf_add_u64(out, user->changed);
	buf_add_counted(out, user->home);
	buf_add_counted(out, user->mailbox);
	buf_add_counted(out, user->scram256);
	buf_add_counted(out, user->scram1);
	buf_add_counted(out, user->crypt);
	buf_add_u16(out, (uint16_t)user->sender_count);
	for (size_t i = 0; i < user->sender_count; i++)
		buf_add_counted(out, user->senders[i]);
}

static int
record_decode(struct slice in, struct arena *arena, struct user *user)
{
	struct cursor c;
	uint8_t format;

	in = arena_dup(arena, in);
	c = cursor(in);
	format = cursor_u8(&c);
	user->uid = cursor_u32(&c);
	user->gid = cursor_u32(&c);
	user->flags = cursor_u32(&c);
	user->created = cursor_u64(&c);
	user->changed = cursor_u64(&c);
	user->home = cursor_counted(&c, 4096);
	user->mailbox = cursor_counted(&c, 4096);
	user->scram256 = cursor_counted(&c, SCRAM_VERIFIER_MAX);
	user->scram1 = cursor_counted(&c, SCRAM_VERIFIER_MAX);
	user->crypt = cursor_counted(&c, 512);
	user->sender_count = cursor_u16(&c);
	if (user->sender_count > USERS_SENDERS_MAX)
		return ERR_CORRUPT;
	for (size_t i = 0; i < user->sender_count; i++)
		user->senders[i] = cursor_counted(&c, 1024);
	if (cursor_end(&c) < 0 || format != FORMAT || user->uid == 0 || user->gid == 0)
		return ERR_CORRUPT;
	return 0;
}

/* --- opening --- */

static int
meta_u64(struct users *u, MDB_txn *txn, const char *name, uint64_t *v_r)
{
	MDB_val key = val(slice_str(name)), data;
	int err = from_lmdb(mdb_get(txn, u->meta, &key, &data));
	struct cursor c;

	if (err)
		return err;
	c = cursor(from_val(data));
	*v_r = cursor_u64(&c);
	return cursor_end(&c) < 0 ? ERR_CORRUPT : 0;
}

static int
meta_put(struct users *u, MDB_txn *txn, const char *name, struct slice value)
{
	MDB_val key = val(slice_str(name)), data = val(value);

	return from_lmdb(mdb_put(txn, u->meta, &key, &data, 0));
}

static int
meta_put_u64(struct users *u, MDB_txn *txn, const char *name, uint64_t v)
{
	struct buf b = { 0 };
	int err;

	buf_add_u64(&b, v);
	err = meta_put(u, txn, name, buf_slice(&b));
	buf_free(&b);
	return err;
}

static int
bump(struct users *u, MDB_txn *txn)
{
	uint64_t generation = 0;
	int err = meta_u64(u, txn, "generation", &generation);

	if (err && err != ERR_NOT_FOUND)
		return err;
	return meta_put_u64(u, txn, "generation", generation + 1);
}

static int
open_databases(struct users *u, bool create)
{
	unsigned flags = create ? MDB_CREATE : 0;
	MDB_val key = val(SLICE_LIT("secret")), data;
	uint64_t format = 0;
	MDB_txn *txn;
	int err = begin(u, create, &txn);

	if (err)
		return err;
	err = from_lmdb(mdb_dbi_open(txn, "users", flags, &u->names));
	if (!err)
		err = from_lmdb(mdb_dbi_open(txn, "addresses", flags, &u->addresses));
	if (!err)
		err = from_lmdb(mdb_dbi_open(txn, "uids", flags, &u->uids));
	if (!err)
		err = from_lmdb(mdb_dbi_open(txn, "meta", flags, &u->meta));
	if (!err) {
		err = meta_u64(u, txn, "format", &format);
		if (err == ERR_NOT_FOUND && create)
			err = meta_put_u64(u, txn, "format", FORMAT);
		else if (!err && format != FORMAT)
			err = ERR_CORRUPT;
	}
	if (!err) {
		err = from_lmdb(mdb_get(txn, u->meta, &key, &data));
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
	return finish(txn, err);
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
		err = from_lmdb(mdb_env_create(&u->env));
	if (!err) {
		mdb_env_set_maxdbs(u->env, 4);
		mdb_env_set_mapsize(u->env, MAP_SIZE);
		mask = umask(0077);
		err = from_lmdb(mdb_env_open(u->env, path, MDB_NOSUBDIR, 0600));
		umask(mask);
	}
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

static int
get(struct users *u, MDB_txn *txn, struct slice name, struct arena *arena, struct user *user_r)
{
	MDB_val key, data;
	int err;

	memset(user_r, 0, sizeof(*user_r));
	if (!users_name_ok(name))
		return ERR_NOT_FOUND;
	user_r->name = fold(arena, name);
	key = val(user_r->name);
	err = from_lmdb(mdb_get(txn, u->names, &key, &data));
	return err ? err : record_decode(from_val(data), arena, user_r);
}

int
users_get(struct users *u, struct slice name, struct arena *arena, struct user *user_r)
{
	MDB_txn *txn;
	int err = begin(u, false, &txn);

	if (err)
		return err;
	err = get(u, txn, name, arena, user_r);
	mdb_txn_abort(txn);
	return err;
}

int
users_find_address(struct users *u, struct slice address, struct arena *arena, struct user *user_r)
{
	struct slice folded;
	MDB_val key, data;
	MDB_txn *txn;
	int err = begin(u, false, &txn);

	if (err)
		return err;
	err = get(u, txn, address, arena, user_r);
	if (err == ERR_NOT_FOUND && address.n > 0 && address.n <= USERS_NAME_MAX) {
		folded = fold(arena, address);
		key = val(folded);
		err = from_lmdb(mdb_get(txn, u->addresses, &key, &data));
		if (!err)
			err = get(u, txn, arena_dup(arena, from_val(data)), arena, user_r);
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
	int err = begin(u, false, &txn);

	if (err)
		return err;
	err = from_lmdb(mdb_cursor_open(txn, u->names, &walk));
	while (!err && (err = from_lmdb(mdb_cursor_get(walk, &key, &data, MDB_NEXT))) == 0) {
		struct user user = { 0 };
		user.name = arena_dup(&arena, from_val(key));
		err = record_decode(from_val(data), &arena, &user);
		if (!err)
			err = each(ctx, &user);
		arena_reset(&arena);
	}
	if (walk)
		mdb_cursor_close(walk);
	mdb_txn_abort(txn);
	arena_free(&arena);
	return err == ERR_NOT_FOUND ? 0 : err;
}

uint64_t
users_generation(struct users *u)
{
	uint64_t generation = 0;
	MDB_txn *txn;

	if (begin(u, false, &txn) < 0)
		return 0;
	if (meta_u64(u, txn, "generation", &generation) < 0)
		generation = 0;
	mdb_txn_abort(txn);
	return generation;
}

void
users_secret(struct users *u, unsigned char out[32])
{
	memcpy(out, u->secret, 32);
}

/* --- changes --- */

static bool
path_ok(struct slice path)
{
	return path.n > 1 && path.n < 4096 && path.p[0] == '/' && slice_find(path, 0) < 0 &&
	       slice_find(path, '\n') < 0 && slice_search(path, SLICE_LIT("/../")) < 0 &&
	       !slice_has_suffix(path, "/..");
}

static struct slice
default_home(const struct users *u, struct arena *arena, struct slice name)
{
	struct slice domain = name, local = slice_split(&domain, '@');

	if (domain.n == 0)
		return slice_str(
		    arena_printf(arena, "%s/%.*s", u->opts.mailbox_base, SLICE_ARG(name)));
	return slice_str(arena_printf(
	    arena, "%s/%.*s/%.*s", u->opts.mailbox_base, SLICE_ARG(domain), SLICE_ARG(local)));
}

/* Key of "uids": the uid, big-endian, then the name: an admin may give several users the same one.
 */
static void
uid_key(const struct user *user, struct buf *out)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		buf_add_u8(out, (uint8_t)(user->uid >> shift));
	buf_add(out, user->name);
}

static bool
uid_in_use(struct users *u, MDB_txn *txn, uint32_t uid)
{
	struct user probe = { .uid = uid };
	struct buf start = { 0 };
	MDB_cursor *walk;
	MDB_val key, data;
	bool found = true;

	if (mdb_cursor_open(txn, u->uids, &walk) != 0)
		return true;
	uid_key(&probe, &start);
	key = val(buf_slice(&start));
	found = mdb_cursor_get(walk, &key, &data, MDB_SET_RANGE) == 0 && key.mv_size >= 4 &&
		memcmp(key.mv_data, buf_slice(&start).p, 4) == 0;
	mdb_cursor_close(walk);
	buf_free(&start);
	return found;
}

static int
uid_note(struct users *u, MDB_txn *txn, const struct user *user, bool add)
{
	struct buf text = { 0 };
	MDB_val key, data = { 0, NULL };
	int err;

	uid_key(user, &text);
	key = val(buf_slice(&text));
	err = from_lmdb(
	    add ? mdb_put(txn, u->uids, &key, &data, 0) : mdb_del(txn, u->uids, &key, NULL));
	buf_free(&text);
	return err == ERR_NOT_FOUND ? 0 : err;
}

/* The next of the range; one that an admin gave to somebody by hand is passed over. */
static int
draw_uid(struct users *u, MDB_txn *txn, uint32_t *uid_r)
{
	uint64_t next = u->opts.uid_base, end = (uint64_t)u->opts.uid_base + u->opts.uid_count;
	int err = meta_u64(u, txn, "next_uid", &next);

	if (err && err != ERR_NOT_FOUND)
		return err;
	if (next < u->opts.uid_base)
		next = u->opts.uid_base;
	while (next < end && uid_in_use(u, txn, (uint32_t)next))
		next++;
	if (u->opts.uid_base == 0 || next >= end)
		return ERR_LIMIT;
	*uid_r = (uint32_t)next;
	return meta_put_u64(u, txn, "next_uid", next + 1);
}

static int
fill_in(struct users *u, MDB_txn *txn, struct arena *arena, struct user *user)
{
	struct mailbox mailbox;
	int err;

	if (!users_name_ok(user->name) || user->sender_count > USERS_SENDERS_MAX)
		return ERR_SYNTAX;
	user->name = fold(arena, user->name);
	if (user->uid == 0 && (err = draw_uid(u, txn, &user->uid)) != 0)
		return err;
	if (user->gid == 0)
		user->gid = user->uid;
	if (user->home.n == 0)
		user->home = default_home(u, arena, user->name);
	while (user->home.n > 1 && user->home.p[user->home.n - 1] == '/')
		user->home.n--;
	if (user->mailbox.n == 0)
		user->mailbox =
		    slice_str(arena_printf(arena, "maildir:%.*s/Maildir", SLICE_ARG(user->home)));
	if (!path_ok(user->home) || mailbox_parse(user->mailbox, &mailbox) < 0 ||
	    !path_ok(mailbox.path))
		return ERR_SYNTAX;
	for (size_t i = 0; i < user->sender_count; i++) {
		user->senders[i] = fold(arena, user->senders[i]);
		if (slice_find(user->senders[i], '@') < 0 || user->senders[i].n > USERS_NAME_MAX)
			return ERR_SYNTAX;
	}
	return 0;
}

/* What points to the user from the other databases. */
static int
drop_references(struct users *u, MDB_txn *txn, const struct user *user)
{
	for (size_t i = 0; i < user->sender_count; i++) {
		MDB_val key = val(user->senders[i]), data;
		if (mdb_get(txn, u->addresses, &key, &data) == 0 &&
		    slice_eq(from_val(data), user->name)) {
			int err = from_lmdb(mdb_del(txn, u->addresses, &key, NULL));
			if (err)
				return err;
		}
	}
	return uid_note(u, txn, user, false);
}

static int
put(struct users *u, MDB_txn *txn, const struct user *user, unsigned flags)
{
	struct buf record = { 0 };
	MDB_val key = val(user->name), data;
	int err;

	record_encode(user, &record);
	data = val(buf_slice(&record));
	err = from_lmdb(mdb_put(txn, u->names, &key, &data, flags));
	/* The first to claim an address gets its mail; others may still send as it. */
	for (size_t i = 0; !err && i < user->sender_count; i++) {
		if (user->senders[i].n == 0 || user->senders[i].p[0] == '@')
			continue;
		key = val(user->senders[i]);
		data = val(user->name);
		err = from_lmdb(mdb_put(txn, u->addresses, &key, &data, MDB_NOOVERWRITE));
		if (err == ERR_STATE)
			err = 0;
	}
	buf_wipe(&record);
	if (!err)
		err = uid_note(u, txn, user, true);
	return err ? err : bump(u, txn);
}

int
users_add(struct users *u, struct arena *arena, struct user *user)
{
	struct user old;
	MDB_txn *txn;
	int err = begin(u, true, &txn);

	if (err)
		return err;
	err = get(u, txn, user->name, arena, &old);
	err = err == ERR_NOT_FOUND ? 0 : err == 0 ? ERR_STATE : err;
	if (!err)
		err = fill_in(u, txn, arena, user);
	if (!err && user->created == 0)
		user->created = user->changed = (uint64_t)time(NULL);
	if (!err)
		err = put(u, txn, user, MDB_NOOVERWRITE);
	return finish(txn, err);
}

int
users_replace(struct users *u, struct arena *arena, struct user *user)
{
	struct user old;
	MDB_txn *txn;
	int err = begin(u, true, &txn);

	if (err)
		return err;
	err = get(u, txn, user->name, arena, &old);
	if (!err)
		err = drop_references(u, txn, &old);
	if (!err)
		err = fill_in(u, txn, arena, user);
	if (!err)
		err = put(u, txn, user, 0);
	return finish(txn, err);
}

int
users_remove(struct users *u, struct slice name)
{
	struct arena arena = { 0 };
	struct user old;
	MDB_val key;
	MDB_txn *txn;
	int err = begin(u, true, &txn);

	if (err)
		return err;
	err = get(u, txn, name, &arena, &old);
	if (!err)
		err = drop_references(u, txn, &old);
	if (!err) {
		key = val(old.name);
		err = from_lmdb(mdb_del(txn, u->names, &key, NULL));
	}
	if (!err)
		err = bump(u, txn);
	err = finish(txn, err);
	arena_free(&arena);
	return err;
}

/* --- passwords --- */

int
users_make_verifiers(
    const struct users *u, struct slice password, struct arena *arena, struct user *user)
{
	char text[SCRAM_VERIFIER_MAX];
	int err = scram_make(SCRAM_SHA_256, password, u->opts.rounds, NULL, text);

	if (err)
		return err;
	user->scram256 = slice_str(arena_strdup(arena, text));
	user->scram1 = user->crypt = SLICE_NULL;
	if (u->opts.sha1) {
		err = scram_make(SCRAM_SHA_1, password, u->opts.rounds, NULL, text);
		if (err)
			return err;
		user->scram1 = slice_str(arena_strdup(arena, text));
	}
	user->changed = (uint64_t)time(NULL);
	return 0;
}

int
users_set_password(struct users *u, struct slice name, struct slice password)
{
	struct arena arena = { 0 };
	struct user user, fresh = { 0 };
	MDB_txn *txn;
	int err = users_make_verifiers(u, password, &arena, &fresh); /* slow, so before the lock */

	if (!err)
		err = begin(u, true, &txn);
	if (!err) {
		err = get(u, txn, name, &arena, &user);
		if (!err) {
			user.scram256 = fresh.scram256;
			user.scram1 = fresh.scram1;
			user.crypt = SLICE_NULL;
			user.changed = fresh.changed;
			err = put(u, txn, &user, 0);
		}
		err = finish(txn, err);
	}
	arena_free(&arena);
	return err;
}

int
users_check(const struct user *user, struct slice password)
{
	struct slice text = user->scram256.n ? user->scram256 : user->crypt;
	char *verifier;
	int err;

	if (text.n == 0)
		return ERR_DENIED;
	err = slice_cstr(text, &verifier);
	if (err)
		return ERR_CORRUPT;
	err = user->scram256.n ? scram_check(verifier, password)
			       : scram_crypt_check(verifier, password);
	OPENSSL_cleanse(verifier, text.n);
	free(verifier);
	return err;
}
