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
 * - What cannot be opened is removed and made anew; when that fails there is no index. A file that
 *   can be opened may be damaged further in: each value has a CRC, and where LMDB stumbles over a
 *   page (an error, or a signal: it reads what is mapped) a mark is left, by which the next session
 *   makes it anew instead of dying in the same place.
 */
#include "store/internal.h"
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>

enum { PENDING_MAX = 1 << 20, MAP_SIZE_GIB = 16, CRC_SIZE = 4 };

#define DAMAGED_MARK INDEX_DIR "/damaged"

struct pending {
	struct hash_node node; /* key: in data */
	STAILQ_ENTRY(pending) entry;
	size_t key_len, value_len; /* value_len 0: removed; else with the CRC behind it */
	bool superseded, prefix;
	unsigned char data[];
};

struct index {
	MDB_env *env;
	MDB_txn *reader;
	MDB_dbi dbi;
	pid_t pid;
	int rootfd;
	bool read_only, renewed;
	struct hash pending;
	STAILQ_HEAD(, pending) order;
	size_t pending_bytes;
};

/* --- damage --- */

static const int fatal[] = { SIGBUS, SIGSEGV };
enum { FATALS = sizeof(fatal) / sizeof(*fatal) };

/* A signal handler gets no context: the one index of the process that is open for writing. */
static struct {
	volatile sig_atomic_t rootfd;
	struct sigaction before[FATALS];
} watched = { .rootfd = -1 };

static void
leave_mark(int rootfd)
{
	int fd = openat(
	    rootfd, DAMAGED_MARK, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

	if (fd >= 0)
		close(fd);
}

/* A fault comes again when this returns and ends the process as it would have done. One that was
 * sent does not, and the jail lets none be sent from here. */
static void
on_fatal(int signo, siginfo_t *info, void *context)
{
	(void)context;
	if (watched.rootfd >= 0)
		leave_mark(watched.rootfd);
	for (size_t i = 0; i < FATALS; i++)
		if (fatal[i] == signo)
			(void)sigaction(signo, &watched.before[i], NULL);
	if (info->si_code <= 0)
		__builtin_trap();
}

/* LMDB would abort(). */
static void
on_assert(MDB_env *env, const char *what)
{
	(void)env;
	if (watched.rootfd >= 0)
		leave_mark(watched.rootfd);
	die("the index is damaged (LMDB: %s); the next session makes it anew", what);
}

static void
watch_signals(int rootfd)
{
	struct sigaction act = { .sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO };

	if (watched.rootfd >= 0)
		return;
	watched.rootfd = rootfd;
	for (size_t i = 0; i < FATALS; i++)
		(void)sigaction(fatal[i], &act, &watched.before[i]);
}

static void
unwatch_signals(void)
{
	if (watched.rootfd < 0)
		return;
	for (size_t i = 0; i < FATALS; i++)
		(void)sigaction(fatal[i], &watched.before[i], NULL);
	watched.rootfd = -1;
}

static void
suspect(const struct index *i)
{
	if (!i->read_only)
		leave_mark(i->rootfd);
}

static bool
is_damage(int rc)
{
	return rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_PANIC ||
	       rc == MDB_INVALID || rc == MDB_CURSOR_FULL || rc == MDB_BAD_TXN;
}

static void
put_crc(struct slice key, struct slice value, unsigned char out[CRC_SIZE])
{
	uint32_t c = (uint32_t)crc32(crc32(0, key.p, (uInt)key.n), value.p, (uInt)value.n);

	for (int n = 0; n < CRC_SIZE; n++)
		out[n] = (unsigned char)(c >> (8 * n));
}

/* Takes the CRC off the end of what was stored. */
static bool
take_crc(struct slice key, struct slice *value)
{
	unsigned char crc[CRC_SIZE];

	if (value->n < CRC_SIZE)
		return false;
	value->n -= CRC_SIZE;
	put_crc(key, *value, crc);
	return memcmp(crc, value->p + value->n, CRC_SIZE) == 0;
}

/* --- the environment --- */

static void
remove_files(int rootfd)
{
	unlinkat(rootfd, INDEX_DIR "/data.mdb", 0);
	unlinkat(rootfd, INDEX_DIR "/lock.mdb", 0);
	unlinkat(rootfd, DAMAGED_MARK, 0);
}

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
	mdb_env_set_assert(i->env, on_assert);
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
	i->rootfd = rootfd;
	i->read_only = read_only;
	bool marked = faccessat(rootfd, DAMAGED_MARK, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	if (!read_only) {
		if (marked)
			remove_files(rootfd);
		mkdirat(rootfd, INDEX_DIR, 0700);
		i->renewed = marked;
		watch_signals(rootfd);
	}
	int rc = read_only && marked ? MDB_CORRUPTED : env_try(i, dir);
	if (rc && !read_only && rc != EACCES && rc != EROFS && rc != ENOSPC && rc != ENOMEM) {
		remove_files(rootfd);
		rc = env_try(i, dir);
		i->renewed = true;
	}
	free(dir);
	if (rc) {
		unwatch_signals();
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
	if (!i->read_only)
		unwatch_signals();
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
		if (!p->value_len)
			return ERR_NOT_FOUND;
		return buf_add(out, slice(p->data + p->key_len, p->value_len - CRC_SIZE));
	}
	int rc = mdb_txn_renew(i->reader);
	if (rc == MDB_MAP_RESIZED) {
		mdb_env_set_mapsize(i->env, 0);
		rc = mdb_txn_renew(i->reader);
	}
	if (rc)
		return ERR_NOT_FOUND;
	rc = mdb_get(i->reader, i->dbi, &k, &v);
	struct slice value = rc ? SLICE_NULL : slice(v.mv_data, v.mv_size);
	bool sound = rc ? !is_damage(rc) : take_crc(key, &value);
	int result = rc || !sound ? ERR_NOT_FOUND : buf_add(out, value);
	mdb_txn_reset(i->reader);
	if (!sound)
		suspect(i);
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
	size_t stored = value.n ? value.n + CRC_SIZE : 0;
	struct pending *p = xmalloc(sizeof(*p) + key.n + stored);
	*p = (struct pending){ .key_len = key.n, .value_len = stored };
	memcpy(p->data, key.p, key.n);
	if (value.n) {
		memcpy(p->data + key.n, value.p, value.n);
		put_crc(key, value, p->data + key.n + value.n);
	}
	STAILQ_INSERT_TAIL(&i->order, p, entry);
	hash_insert(&i->pending, &p->node, slice(p->data, key.n));
	i->pending_bytes += sizeof(*p) + key.n + stored;
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
			rc = write_pending(i);
	}
	if (is_damage(rc))
		suspect(i);
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
