/*
 * The store of the suite's own users: one LMDB file, whose only writer is auth while the suite runs
 * and bulkhead(8) while it does not. Names are kept in lower case, domains as A-labels; one name,
 * one uid, never used again. A lookup is a memory map read; a change is durable when its call
 * returns (it blocks for an fsync: workers and tools only).
 *
 * A handle may be used by several threads, and after a chroot or a change of uid; not after a fork.
 * A process opens a file once.
 */
#ifndef DB_USERS_H
#define DB_USERS_H

#include "base/arena.h"
#include "base/buf.h"
#include "db/scram.h"

#define USERS_NAME_MAX 255
#define USERS_SENDERS_MAX 64
#define USERS_CRYPT_MAX 512

struct users;

struct users_opts {
	unsigned rounds;              /* of new verifiers */
	bool sha1;                    /* SCRAM-SHA-1 verifiers as well */
	uint32_t uid_base, uid_count; /* virtual_uid_base, virtual_uid_count */
	const char *mailbox_base;     /* virtual_mailbox_base */
};

enum user_flag {
	USER_DISABLED = 1, /* exists and gets mail, but may not log in */
};

struct user {
	struct slice name; /* "alice" or "alice@example.org", lower case */
	uint32_t uid, gid, flags;
	uint64_t created, changed;            /* seconds; changed: of the password */
	struct slice home, mailbox;           /* absolute directory; a spec of db/mailbox.h */
	struct slice scram256, scram1, crypt; /* verifiers; empty: none */
	struct slice
	    senders[USERS_SENDERS_MAX]; /* addresses beside the name: "x@y", or "@y" for a domain */
	size_t sender_count;
};

/* create: makes the file where it is missing. Its mode is 0600 afterwards. why (may be NULL) gets a
 * line for the admin. */
int users_open(const char *path, bool create, const struct users_opts *opts, struct users **users_r,
    char *why, size_t size) CHECKED;
/* Only at the end of the process. */
void users_close(struct users **users);
/* Gives the file and its lock file to another owner, before the jail. */
int users_chown(struct users *users, const char *path, uint32_t uid, uint32_t gid) CHECKED;

/* The name as users are known by: in lower case, its domain as A-labels; in the arena. */
struct slice users_fold(struct arena *arena, struct slice name);
/* The user, with everything in the arena. name in any case. ERR_NOT_FOUND, ERR_CORRUPT,
 * ERR_TEMPORARY. */
int users_get(
    struct users *users, struct slice name, struct arena *arena, struct user *user_r) CHECKED;
/* The user that has this address as its name or among its senders (whole addresses only). */
int users_find_address(
    struct users *users, struct slice address, struct arena *arena, struct user *user_r) CHECKED;
/* Calls each in order of names until it returns something else than 0, which is returned.
 * ERR_CORRUPT: records that cannot be read were passed over. */
int users_each(
    struct users *users, int (*each)(void *ctx, const struct user *user), void *ctx) CHECKED;
/* Adds 1 at each change of the store, by anyone. */
uint64_t users_generation(struct users *users);
/* 32 bytes that never change, for the verifiers of users that do not exist. */
void users_secret(struct users *users, unsigned char out[32]);

/*
 * Adds (ERR_STATE: is there already) or replaces what was seen by users_get (ERR_NOT_FOUND;
 * ERR_STATE: somebody has changed it since). uid 0 in a new user: the next of
 * the range; gid 0: the uid; an empty home: mailbox_base/DOMAIN/LOCAL or mailbox_base/NAME; an
 * empty mailbox: "maildir:HOME/Maildir". What was filled in stands in *user afterwards, in the
 * arena. ERR_SYNTAX: name, home or mailbox are not usable, ERR_LIMIT: the uid range is used up.
 */
int users_add(struct users *users, struct arena *arena, struct user *user) CHECKED;
int users_replace(
    struct users *users, struct arena *arena, const struct user *seen, struct user *user) CHECKED;
int users_remove(struct users *users, struct slice name) CHECKED;
/* Fills in the verifiers of *user (in the arena) for a password; stores nothing. */
int users_make_verifiers(const struct users *users, struct slice password, struct arena *arena,
    struct user *user) CHECKED;
/* New verifiers for the password; drops a crypt hash. ERR_SYNTAX: the password cannot be prepared.
 */
int users_set_password(struct users *users, struct slice name, struct slice password) CHECKED;
/* The same in place of the crypt hash that was seen, whose password this is. ERR_STATE: the user
 * has another credential by now, which stays. */
int users_upgrade(struct users *users, const struct user *seen, struct slice password) CHECKED;
/* The password against scram256, or if there is none crypt. 0, ERR_DENIED, ERR_CORRUPT. Slow on
 * purpose. */
int users_check(const struct user *user, struct slice password) CHECKED;
/* "alice", "alice@example.org": printable, no blanks, no slash, not ".", at most one @. */
bool users_name_ok(struct slice name);

/*
 * `bulkhead user ...` (words without "user"), for auth's control verb and for the tool while the
 * suite is down:
 *
 *	add NAME PASSWORD [OPTION]...     uid=N gid=N home=DIR mailbox=SPEC sender=ADDRESS (again)
 *	                                  crypt=HASH disabled=yes|no
 *	passwd NAME PASSWORD
 *	change NAME [OPTION]...           the same; senders given replace the old ones; sender=
 *	                                  alone removes them
 *	del NAME, list [PATTERN], show NAME
 *	check NAME PASSWORD               exit 0: the password fits
 *
 * An empty PASSWORD with crypt=HASH takes the hash alone. Returns the exit status; out gets the
 * text for the caller. The words hold passwords: the caller wipes them. make_r (may be NULL): after
 * an add or change the user whose home the caller should make with users_make_home if it is
 * root; in the arena.
 */
int users_command(struct users *users, const struct slice *words, size_t n, struct arena *arena,
    struct buf *out, struct user *make_r);
/* As root: makes home (mode 0700, owned by the user) and the directories above it (root, 0755)
 * where they are missing. The home itself is never a link. */
int users_make_home(const struct user *user) CHECKED;
/* The same for a home that is not believed: ERR_DENIED if it is not below base, or below another
 * user's directory; no link is followed. */
int users_make_home_below(const char *base, const struct user *user) CHECKED;

#endif
