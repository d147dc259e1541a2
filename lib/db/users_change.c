/*
 * Changes of the user store. Runs in auth's workers (bh-auth) and, while the suite is down, in
 * bulkhead(8). What the admin typed is checked here, because homes and uids become roots and
 * credentials. Invariants: every change is one durable transaction over all databases; a uid is
 * never given twice; no password is kept.
 */
#include "db/users_private.h"

#include "db/mailbox.h"
#include "mail/address.h"
#include "tls/openssl.h"

#include <stdlib.h>
#include <time.h>

static int
bump(struct users *u, MDB_txn *txn)
{
	uint64_t generation = 0;
	int err = users_meta_u64(u, txn, "generation", &generation);

	if (err && err != ERR_NOT_FOUND)
		return err;
	return users_meta_put_u64(u, txn, "generation", generation + 1);
}

static bool
path_ok(struct slice path)
{
	return path.n > 1 && path.n < 4096 && path.p[0] == '/' && slice_find(path, 0) < 0 &&
	       slice_find(path, '\n') < 0 && slice_search(path, SLICE_LIT("/../")) < 0 &&
	       !slice_has_suffix(path, "/..");
}

/* A new name: its domain becomes a directory, "." as well. */
static bool
new_name_ok(struct slice name)
{
	struct slice local = name, domain = slice_split_last(&local, '@');

	return users_name_ok(name) && utf8_valid(name) && !utf8_has_control(name) &&
	       (domain.n == 0 || domain_check(domain, true) == 0);
}

/* "x@y", where x may be quoted, or "@y" */
static bool
sender_ok(struct slice sender)
{
	struct address address;

	if (sender.n > USERS_NAME_MAX)
		return false;
	if (sender.n && sender.p[0] == '@')
		return domain_check(slice_sub(sender, 1, sender.n), true) == 0;
	return address_parse(sender, ADDRESS_UTF8, &address) == 0;
}

static struct slice
default_home(const struct users *u, struct arena *arena, struct slice name)
{
	struct slice local = name, domain = slice_split_last(&local, '@');

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
	key = users_val(buf_slice(&start));
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
	key = users_val(buf_slice(&text));
	err = users_from_lmdb(
	    add ? mdb_put(txn, u->uids, &key, &data, 0) : mdb_del(txn, u->uids, &key, NULL));
	buf_free(&text);
	return err == ERR_NOT_FOUND ? 0 : err;
}

/* The next of the range; one that an admin gave to somebody by hand is passed over. */
static int
draw_uid(struct users *u, MDB_txn *txn, uint32_t *uid_r)
{
	uint64_t next = u->opts.uid_base, end = (uint64_t)u->opts.uid_base + u->opts.uid_count;
	int err = users_meta_u64(u, txn, "next_uid", &next);

	if (err && err != ERR_NOT_FOUND)
		return err;
	if (next < u->opts.uid_base)
		next = u->opts.uid_base;
	while (next < end && uid_in_use(u, txn, (uint32_t)next))
		next++;
	if (u->opts.uid_base == 0 || next >= end)
		return ERR_LIMIT;
	*uid_r = (uint32_t)next;
	return users_meta_put_u64(u, txn, "next_uid", next + 1);
}

static int
fill_in(struct users *u, MDB_txn *txn, struct arena *arena, struct user *user)
{
	struct mailbox mailbox;
	int err;

	if (!users_name_ok(user->name) || user->sender_count > USERS_SENDERS_MAX)
		return ERR_SYNTAX;
	user->name = users_fold(arena, user->name);
	if (user->name.n > USERS_NAME_MAX)
		return ERR_SYNTAX;
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
	if (user->crypt.n > USERS_CRYPT_MAX) /* the record could not be read */
		return ERR_SYNTAX;
	if (!path_ok(user->home) || mailbox_parse(user->mailbox, &mailbox) < 0 ||
	    !path_ok(mailbox.path))
		return ERR_SYNTAX;
	for (size_t i = 0; i < user->sender_count; i++) {
		user->senders[i] = users_fold(arena, user->senders[i]);
		if (!sender_ok(user->senders[i]))
			return ERR_SYNTAX;
	}
	return 0;
}

/* What points to the user from the other databases. */
static int
drop_references(struct users *u, MDB_txn *txn, const struct user *user)
{
	for (size_t i = 0; i < user->sender_count; i++) {
		MDB_val key = users_val(user->senders[i]), data;
		if (mdb_get(txn, u->addresses, &key, &data) == 0 &&
		    slice_eq(users_from_val(data), user->name)) {
			int err = users_from_lmdb(mdb_del(txn, u->addresses, &key, NULL));
			if (err)
				return err;
		}
	}
	return uid_note(u, txn, user, false);
}

/* Not all of a domain. */
static bool
gets_mail(struct slice sender)
{
	return sender.n && sender.p[0] != '@';
}

static int
put(struct users *u, MDB_txn *txn, const struct user *user, unsigned flags)
{
	struct buf record = { 0 };
	MDB_val key = users_val(user->name), data;
	int err;

	users_record_encode(user, &record);
	data = users_val(buf_slice(&record));
	err = users_from_lmdb(mdb_put(txn, u->names, &key, &data, flags));
	/* The first to claim an address gets its mail; others may still send as it. */
	for (size_t i = 0; !err && i < user->sender_count; i++) {
		if (!gets_mail(user->senders[i]))
			continue;
		key = users_val(user->senders[i]);
		data = users_val(user->name);
		err = users_from_lmdb(mdb_put(txn, u->addresses, &key, &data, MDB_NOOVERWRITE));
		if (err == ERR_STATE)
			err = 0;
	}
	buf_wipe(&record);
	if (!err)
		err = uid_note(u, txn, user, true);
	return err ? err : bump(u, txn);
}

static bool
has_sender(const struct user *user, struct slice sender)
{
	for (size_t i = 0; i < user->sender_count; i++)
		if (slice_eq(user->senders[i], sender))
			return true;
	return false;
}

/* Gives user those addresses of old that nobody gets mail for. */
static int
claim(struct users *u, MDB_txn *txn, const struct user *old, const struct user *user)
{
	int err = 0;

	for (size_t i = 0; !err && i < old->sender_count; i++) {
		MDB_val key = users_val(old->senders[i]), data = users_val(user->name);

		if (!gets_mail(old->senders[i]) || !has_sender(user, old->senders[i]))
			continue;
		err = users_from_lmdb(mdb_put(txn, u->addresses, &key, &data, MDB_NOOVERWRITE));
		if (err == ERR_STATE)
			err = 0;
	}
	return err;
}

static bool
is_free(struct users *u, MDB_txn *txn, struct slice address)
{
	MDB_val key = users_val(address), data;

	return gets_mail(address) && mdb_get(txn, u->addresses, &key, &data) == MDB_NOTFOUND;
}

/* Of the addresses that a user gave up, the first by name of those who have it too gets the mail.
 * A record that cannot be read claims nothing. */
static int
hand_over(struct users *u, MDB_txn *txn, const struct user *old)
{
	struct arena arena = { 0 };
	MDB_cursor *walk;
	MDB_val key, data;
	bool any = false;
	int err;

	for (size_t i = 0; !any && i < old->sender_count; i++)
		any = is_free(u, txn, old->senders[i]);
	if (!any)
		return 0;
	err = users_from_lmdb(mdb_cursor_open(txn, u->names, &walk));
	if (err)
		return err;
	while (!err && (err = users_from_lmdb(mdb_cursor_get(walk, &key, &data, MDB_NEXT))) == 0) {
		struct user user = { .name = arena_dup(&arena, users_from_val(key)) };

		if (users_record_decode(arena_dup(&arena, users_from_val(data)), &user) == 0)
			err = claim(u, txn, old, &user);
		arena_reset(&arena);
	}
	mdb_cursor_close(walk);
	arena_free(&arena);
	return err == ERR_NOT_FOUND ? 0 : err;
}

int
users_add(struct users *u, struct arena *arena, struct user *user)
{
	struct user old;
	MDB_txn *txn;
	int err = users_begin(u, true, &txn);

	if (err)
		return err;
	err = users_read(u, txn, user->name, arena, &old);
	err = err == ERR_NOT_FOUND ? 0 : err == 0 ? ERR_STATE : err;
	if (!err && !new_name_ok(user->name))
		err = ERR_SYNTAX;
	if (!err)
		err = fill_in(u, txn, arena, user);
	if (!err && user->created == 0)
		user->created = user->changed = (uint64_t)time(NULL);
	if (!err)
		err = put(u, txn, user, MDB_NOOVERWRITE);
	return users_finish(txn, err);
}

static bool
same_record(const struct user *a, const struct user *b)
{
	struct buf x = { 0 }, y = { 0 };
	bool same;

	users_record_encode(a, &x);
	users_record_encode(b, &y);
	same = slice_eq(buf_slice(&x), buf_slice(&y));
	buf_wipe(&x);
	buf_wipe(&y);
	return same;
}

int
users_replace(struct users *u, struct arena *arena, const struct user *seen, struct user *user)
{
	struct user old;
	MDB_txn *txn;
	int err = users_begin(u, true, &txn);

	if (err)
		return err;
	err = users_read(u, txn, user->name, arena, &old);
	if (!err && !same_record(seen, &old))
		err = ERR_STATE;
	if (!err)
		err = drop_references(u, txn, &old);
	if (!err)
		err = fill_in(u, txn, arena, user);
	if (!err)
		err = put(u, txn, user, 0);
	if (!err)
		err = hand_over(u, txn, &old);
	return users_finish(txn, err);
}

int
users_remove(struct users *u, struct slice name)
{
	struct arena arena = { 0 };
	struct user old;
	MDB_val key;
	MDB_txn *txn;
	int err = users_begin(u, true, &txn);

	if (err)
		return err;
	err = users_read(u, txn, name, &arena, &old);
	if (!err)
		err = drop_references(u, txn, &old);
	if (!err) {
		key = users_val(old.name);
		err = users_from_lmdb(mdb_del(txn, u->names, &key, NULL));
	}
	if (!err)
		err = hand_over(u, txn, &old);
	if (!err)
		err = bump(u, txn);
	err = users_finish(txn, err);
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

/* crypt: the hash that must still be the user's only credential; NULL: whatever it is. */
static int
set_password(struct users *u, struct slice name, const struct slice *crypt, struct slice password)
{
	struct arena arena = { 0 };
	struct user user, fresh = { 0 };
	MDB_txn *txn;
	int err = users_make_verifiers(u, password, &arena, &fresh); /* slow, so before the lock */

	if (!err)
		err = users_begin(u, true, &txn);
	if (!err) {
		err = users_read(u, txn, name, &arena, &user);
		if (!err && crypt && (user.scram256.n || !slice_eq(user.crypt, *crypt)))
			err = ERR_STATE;
		if (!err) {
			user.scram256 = fresh.scram256;
			user.scram1 = fresh.scram1;
			user.crypt = SLICE_NULL;
			user.changed = fresh.changed;
			err = put(u, txn, &user, 0);
		}
		err = users_finish(txn, err);
	}
	arena_free(&arena);
	return err;
}

int
users_set_password(struct users *u, struct slice name, struct slice password)
{
	return set_password(u, name, NULL, password);
}

int
users_upgrade(struct users *u, const struct user *seen, struct slice password)
{
	return set_password(u, seen->name, &seen->crypt, password);
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
