/*
 * The index: one LMDB environment per user in bh-index/, a cache that may be deleted at any time.
 * All of lib/store's quirks with LMDB are here. Runs in the user's session; a user's IMAP and POP3
 * processes may share the environment (LMDB's lock file orders them).
 *
 * - Writes are kept in memory and go out in one transaction at index_flush, so that a command costs
 *   no commit; reading looks there first. Losing them costs time.
 * - NOMETASYNC: a power cut may lose the last transaction but never the consistency.
 * - NOTLS, one reset read transaction kept for reuse; stale readers are cleared at open.
 * - Not used after a fork (pid is compared before writing), not opened twice in one process (the
 * store is opened once per user). No key is over 511 bytes.
 * - What cannot be opened is removed and made anew; when that fails there is no index.
 */
#include "store/internal.h"
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PENDING_MAX = 1 << 20, MAP_SIZE_GIB = 16 };

struct pending {
	struct hash_node node; /* key: in data */
	STAILQ_ENTRY(pending) entry;
	size_t key_len, value_len;
	bool superseded, prefix;
	unsigned char data[];
};

struct index {
	MDB_env *env;
	MDB_txn *reader;
	MDB_dbi dbi;
	pid_t pid;
	bool read_only, renewed;
	struct hash pending;
	STAILQ_HEAD(, pending) order;
	size_t pending_bytes;
};

static int
env_try(struct index *i, const char *dir)
{
	int dead;
	MDB_txn *txn = NULL;
	int rc = mdb_env_create(&i->env);

	if (rc)
		return rc;
	mdb_env_set_mapsize(i->env, (size_t)MAP_SIZE_GIB << 30);
	mdb_env_set_maxreaders(i->env, 62);
	unsigned flags = MDB_NOTLS | MDB_NOMETASYNC | MDB_NORDAHEAD;
	rc = mdb_env_open(i->env, dir, i->read_only ? flags | MDB_RDONLY : flags, 0600);
	if (!rc)
		mdb_reader_check(i->env, &dead);
	if (!rc)
		rc = mdb_txn_begin(i->env, NULL, MDB_RDONLY, &txn);
	if (!rc)
		rc = mdb_dbi_open(txn, NULL, 0, &i->dbi);
	if (!rc) {
		mdb_txn_reset(txn);
		i->reader = txn;
		return 0;
	}
	if (txn)
		mdb_txn_abort(txn);
	mdb_env_close(i->env);
	i->env = NULL;
	return rc;
}

struct index *
index_open(const char *root, int rootfd, bool read_only)
{
	struct index *i = xcalloc(1, sizeof(*i));
	char *dir = xasprintf("%s%s" INDEX_DIR, root, root[strlen(root) - 1] == '/' ? "" : "/");

	STAILQ_INIT(&i->order);
	i->pid = getpid();
	i->read_only = read_only;
	if (!read_only)
		mkdirat(rootfd, INDEX_DIR, 0700);
	int rc = env_try(i, dir);
	if (rc && !read_only && rc != EACCES && rc != EROFS && rc != ENOSPC && rc != ENOMEM) {
		unlinkat(rootfd, INDEX_DIR "/data.mdb", 0);
		unlinkat(rootfd, INDEX_DIR "/lock.mdb", 0);
		rc = env_try(i, dir);
		i->renewed = true;
	}
	free(dir);
	if (rc) {
		free(i);
		return NULL;
	}
	return i;
}

bool
index_renewed(const struct index *i)
{
	return i->renewed;
}

static void
pending_clear(struct index *i)
{
	struct pending *p;

	while ((p = STAILQ_FIRST(&i->order))) {
		STAILQ_REMOVE_HEAD(&i->order, entry);
		free(p);
	}
	hash_free(&i->pending);
	i->pending = (struct hash){ 0 };
	i->pending_bytes = 0;
}

void
index_free(struct index **ip)
{
	struct index *i = *ip;

	*ip = NULL;
	if (!i)
		return;
	index_flush(i);
	pending_clear(i);
	if (i->pid == getpid()) {
		mdb_txn_abort(i->reader);
		mdb_env_close(i->env);
	}
	free(i);
}

int
index_get(struct index *i, struct slice key, struct buf *out)
{
	struct hash_node *node;
	MDB_val k = { key.n, (void *)(uintptr_t)key.p }, v;

	if (!i)
		return ERR_NOT_FOUND;
	if ((node = hash_find(&i->pending, key))) {
		struct pending *p = HASH_ELEMENT(node, struct pending, node);
		return buf_add(out, slice(p->data + p->key_len, p->value_len));
	}
	int rc = mdb_txn_renew(i->reader);
	if (rc == MDB_MAP_RESIZED) {
		mdb_env_set_mapsize(i->env, 0);
		rc = mdb_txn_renew(i->reader);
	}
	if (rc)
		return ERR_NOT_FOUND;
	rc = mdb_get(i->reader, i->dbi, &k, &v);
	int result = rc ? ERR_NOT_FOUND : buf_add(out, slice(v.mv_data, v.mv_size));
	mdb_txn_reset(i->reader);
	return result;
}

void
index_put(struct index *i, struct slice key, struct slice value)
{
	struct hash_node *old;

	if (!i || i->read_only || key.n > 500)
		return;
	if ((old = hash_find(&i->pending, key))) {
		hash_remove(&i->pending, old);
		HASH_ELEMENT(old, struct pending, node)->superseded = true;
	}
	struct pending *p = xmalloc(sizeof(*p) + key.n + value.n);
	*p = (struct pending){ .key_len = key.n, .value_len = value.n };
	memcpy(p->data, key.p, key.n);
	if (value.n)
		memcpy(p->data + key.n, value.p, value.n);
	STAILQ_INSERT_TAIL(&i->order, p, entry);
	hash_insert(&i->pending, &p->node, slice(p->data, key.n));
	i->pending_bytes += sizeof(*p) + key.n + value.n;
	if (i->pending_bytes > PENDING_MAX)
		index_flush(i);
}

static int
delete_prefix(struct index *i, MDB_txn *txn, struct slice prefix)
{
	MDB_cursor *c;
	MDB_val k, v;
	int rc = mdb_cursor_open(txn, i->dbi, &c);

	if (rc)
		return rc;
	for (;;) {
		k = (MDB_val){ prefix.n, (void *)(uintptr_t)prefix.p };
		rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
		if (rc || k.mv_size < prefix.n || memcmp(k.mv_data, prefix.p, prefix.n) != 0)
			break;
		rc = mdb_cursor_del(c, 0);
		if (rc)
			break;
	}
	mdb_cursor_close(c);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int
write_one(struct index *i, MDB_txn *txn, struct pending *p)
{
	MDB_val k = { p->key_len, p->data }, v = { p->value_len, p->data + p->key_len };
	int rc;

	if (p->superseded)
		return 0;
	if (p->prefix)
		return delete_prefix(i, txn, slice(p->data, p->key_len));
	rc = p->value_len ? mdb_put(txn, i->dbi, &k, &v, 0) : mdb_del(txn, i->dbi, &k, NULL);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int
write_pending(struct index *i)
{
	MDB_txn *txn;
	struct pending *p;
	int rc = mdb_txn_begin(i->env, NULL, 0, &txn);

	if (rc == MDB_MAP_RESIZED) {
		mdb_env_set_mapsize(i->env, 0);
		rc = mdb_txn_begin(i->env, NULL, 0, &txn);
	}
	if (rc)
		return rc;
	STAILQ_FOREACH(p, &i->order, entry) {
		rc = write_one(i, txn, p);
		if (rc)
			break;
	}
	if (rc) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

/* A failure drops what was pending: it is a cache. */
void
index_flush(struct index *i)
{
	if (!i || i->read_only || i->pid != getpid() || STAILQ_EMPTY(&i->order))
		return;
	int rc = write_pending(i);
	if (rc == MDB_MAP_FULL) {
		MDB_envinfo info;
		mdb_env_info(i->env, &info);
		if (mdb_env_set_mapsize(i->env, info.me_mapsize * 2) == 0)
			(void)write_pending(i);
	}
	pending_clear(i);
}

void
index_remove_prefix(struct index *i, struct slice prefix)
{
	if (!i || i->read_only)
		return;
	struct pending *p = xmalloc(sizeof(*p) + prefix.n);
	*p = (struct pending){ .key_len = prefix.n, .prefix = true };
	memcpy(p->data, prefix.p, prefix.n);
	STAILQ_INSERT_TAIL(&i->order, p, entry);
	i->pending_bytes += sizeof(*p) + prefix.n;
}

/* --- rows --- */

struct slice
message_key(const struct folder *f, char type, uint32_t uid, int kind, char *out)
{
	size_t n = 0;

	out[n++] = type;
	for (int i = 7; i >= 0; i--)
		out[n++] = (char)(f->head.mailboxid >> (8 * i));
	if (uid) {
		for (int i = 3; i >= 0; i--)
			out[n++] = (char)(uid >> (8 * i));
	}
	if (kind >= 0)
		out[n++] = (char)kind;
	return slice(out, n);
}

static struct slice
row_key(const char *disk, char *out)
{
	size_t n = strlen(disk);

	out[0] = 'S';
	memcpy(out + 1, disk, n);
	return slice(out, n + 1);
}

static void
put_dir(struct buf *b, const struct dir_state *d)
{
	buf_add_u64(b, (uint64_t)d->sec);
	buf_add_u64(b, (uint64_t)d->nsec);
	buf_add_u8(b, d->known);
}

static void
get_dir(struct cursor *c, struct dir_state *d)
{
	d->sec = (int64_t)cursor_u64(c);
	d->nsec = (int64_t)cursor_u64(c);
	d->known = cursor_u8(c) != 0;
}

int
row_load(struct store *s, const char *disk, struct folder_row *out)
{
	char keybuf[HIDDEN_MAX + 2];
	struct buf b = { 0 };
	int rc = index_get(s->index, row_key(disk, keybuf), &b);

	if (rc == 0) {
		struct cursor c = cursor(buf_slice(&b));
		struct store_status *st = &out->status;
		out->ino = cursor_u64(&c);
		out->journal_size = cursor_u64(&c);
		get_dir(&c, &out->cur);
		get_dir(&c, &out->new);
		st->messages = cursor_u32(&c);
		st->recent = cursor_u32(&c);
		st->unseen = cursor_u32(&c);
		st->deleted = cursor_u32(&c);
		st->uidnext = cursor_u32(&c);
		st->uidvalidity = cursor_u32(&c);
		st->highestmodseq = cursor_u64(&c);
		st->mailboxid = cursor_u64(&c);
		st->size = cursor_u64(&c);
		st->deleted_storage = cursor_u64(&c);
		out->sizes = cursor_u8(&c) != 0;
		rc = cursor_end(&c) < 0 ? ERR_NOT_FOUND : 0;
	}
	buf_free(&b);
	return rc;
}

void
row_save(struct folder *f)
{
	char keybuf[HIDDEN_MAX + 2];
	struct buf b = { 0 };
	bool sizes = f->total_modseq == f->modseq && f->total_uidnext == f->uidnext;

	if (!f->store->index || f->gone || f->scan_due || f->hint_count)
		return;
	buf_add_u64(&b, f->journal_ino);
	buf_add_u64(&b, (uint64_t)f->journal_size);
	put_dir(&b, &f->cur);
	put_dir(&b, &f->new);
	buf_add_u32(&b, (uint32_t)f->live);
	uint32_t recent = 0;
	for (size_t i = 0; i < f->slot_count; i++)
		recent += (f->slots[i].state & (SLOT_DEAD | SLOT_NEW)) == SLOT_NEW;
	buf_add_u32(&b, recent);
	buf_add_u32(&b, f->unseen);
	buf_add_u32(&b, f->deleted);
	buf_add_u32(&b, f->uidnext);
	buf_add_u32(&b, f->head.uidvalidity);
	buf_add_u64(&b, f->modseq);
	buf_add_u64(&b, f->head.mailboxid);
	buf_add_u64(&b, sizes ? f->total_size : 0);
	buf_add_u64(&b, sizes ? f->total_deleted : 0);
	buf_add_u8(&b, sizes);
	/* Most sessions change nothing: then there is nothing to commit. */
	struct buf old = { 0 };
	struct slice key = row_key(f->disk, keybuf);
	if (index_get(f->store->index, key, &old) < 0 || !slice_eq(buf_slice(&old), buf_slice(&b)))
		index_put(f->store->index, key, buf_slice(&b));
	buf_free(&old);
	buf_free(&b);
}

void
row_drop(struct store *s, const char *disk)
{
	char keybuf[HIDDEN_MAX + 2];

	index_put(s->index, row_key(disk, keybuf), SLICE_NULL);
}

void
folder_load_attr(struct folder *f, struct slot *s)
{
	char keybuf[32];
	struct buf b = { 0 };

	if (s->state & SLOT_LOOKED_UP)
		return;
	s->state |= SLOT_LOOKED_UP;
	if (index_get(f->store->index, message_key(f, 'A', s->m.uid, -1, keybuf), &b) == 0) {
		struct cursor c = cursor(buf_slice(&b));
		int64_t date = (int64_t)cursor_u64(&c);
		uint64_t size = cursor_u64(&c);
		if (cursor_end(&c) == 0) {
			s->date = s->date == DATE_UNKNOWN ? date : s->date;
			s->size = s->size == SIZE_UNKNOWN ? size : s->size;
		}
	}
	buf_free(&b);
}

void
folder_save_attr(struct folder *f, const struct slot *s)
{
	char keybuf[32];
	struct buf b = { 0 };

	buf_add_u64(&b, (uint64_t)s->date);
	buf_add_u64(&b, s->size);
	index_put(f->store->index, message_key(f, 'A', s->m.uid, -1, keybuf), buf_slice(&b));
	buf_free(&b);
}
