/* What the files of the user store share; nobody else includes it. */
#ifndef DB_USERS_PRIVATE_H
#define DB_USERS_PRIVATE_H

#include "db/users.h"

#include <lmdb.h>
#include <sys/types.h>

#define USERS_FORMAT 1

struct users {
	MDB_env *env;
	MDB_dbi names, addresses, uids, meta;
	pid_t pid;
	struct users_opts opts;
	unsigned char secret[32];
};

static inline MDB_val
users_val(struct slice s)
{
	return (MDB_val){ s.n, (void *)(uintptr_t)s.p };
}

static inline struct slice
users_from_val(MDB_val v)
{
	return slice(v.mv_data, v.mv_size);
}

/* An error of LMDB as one of ours. */
int users_from_lmdb(int rc);
int users_begin(struct users *u, bool write, MDB_txn **txn_r) CHECKED;
/* Commits, or aborts and returns err. */
int users_finish(MDB_txn *txn, int err) CHECKED;
int users_read(struct users *u, MDB_txn *txn, struct slice name, struct arena *arena,
    struct user *user_r) CHECKED;
/* users_record.c: everything of a user but its name. The fields borrow from in. */
int users_record_decode(struct slice in, struct user *user_r) CHECKED;
void users_record_encode(const struct user *user, struct buf *out);
int users_meta_u64(struct users *u, MDB_txn *txn, const char *name, uint64_t *v_r) CHECKED;
int users_meta_put_u64(struct users *u, MDB_txn *txn, const char *name, uint64_t v) CHECKED;

#endif
