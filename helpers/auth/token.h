/*
 * Tokens: what auth gives to a front end after a login, and what broker or qmgr shows to learn
 * whose it is. A token is 32 random bytes, bound to one service; one for a mailbox session is good
 * once and for a minute, one for submission as long as the client's session lasts.
 */
#ifndef AUTH_TOKEN_H
#define AUTH_TOKEN_H

#include "base/arena.h"
#include "base/hash.h"

#define TOKEN_SIZE 32
#define TOKEN_GROUPS_MAX 64
#define TOKEN_SENDERS_MAX 256

/* Whose it is: what token_user tells. Everything lives in the arena. */
struct account {
	struct arena arena;
	struct slice user, home, mailbox;
	uint32_t uid, gid;
	uint32_t groups[TOKEN_GROUPS_MAX];
	size_t group_count;
	struct slice *senders;
	size_t sender_count;
};
void account_free(struct account **account);

struct tokens;
struct tokens *tokens_new(void);
void tokens_free(struct tokens **t);
/*
 * Issues a token; takes over the account. owner: who may drop it (the front end's exchange); once:
 * good for one check. Times are monotonic milliseconds. ERR_LIMIT: too many are out.
 */
int tokens_issue(struct tokens *t, const char *service, const void *owner, bool once,
    int64_t expires, struct account **account, unsigned char out[TOKEN_SIZE]) CHECKED;
/* Whose it is, or NULL: unknown, of another service, used, expired. The account belongs to the
 * caller if *taken_r (a token that was good once), else it is borrowed until the next call. */
struct account *tokens_check(
    struct tokens *t, struct slice token, struct slice service, int64_t now, bool *taken_r);
/* The owner is gone: its tokens end at the given time at the latest. */
void tokens_drop(struct tokens *t, const void *owner, int64_t expires);
/* Ends all tokens of a user at once (deleted, disabled, new password). */
void tokens_drop_user(struct tokens *t, struct slice user);
/* Forgets what has expired; returns how many are left. */
size_t tokens_sweep(struct tokens *t, int64_t now);

#endif
