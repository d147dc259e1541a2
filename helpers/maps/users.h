/*
 * What nss and auth have said about users, kept for a while. A question without an answer yet is
 * sent and answered -EAGAIN; the callback tells when to ask again.
 */
#ifndef MAPS_USERS_H
#define MAPS_USERS_H

#include "daemon/daemon.h"
#include "helpers/maps/resolve.h"

#include <sys/queue.h>

enum users_source { USERS_NSS, USERS_AUTH };

struct users_cache;

/* Embedded in what waits for one question. */
struct users_waiter {
	TAILQ_ENTRY(users_waiter) next;
	struct users_waiters *list; /* that it is on, or NULL */
};
TAILQ_HEAD(users_waiters, users_waiter);

/* answered is called for each question after its answer (or none in time) has been taken in, with
 * those that wait for it: it moves them to a list of its own. */
struct users_cache *users_new(
    struct daemon *d, void (*answered)(void *ctx, struct users_waiters *waiters), void *ctx);
void users_free(struct users_cache **c);
/* 0, ERR_NOT_FOUND, ERR_TEMPORARY, or -EAGAIN. Strings of *user_r are copied to the arena. */
int users_ask(struct users_cache *c, enum users_source source, struct slice name, struct arena *a,
    struct resolve_user *user_r) CHECKED;
/* w waits for the question to which users_ask gave -EAGAIN last. */
void users_wait(struct users_cache *c, struct users_waiter *w);
/* From whatever list w is on. */
void users_waiter_drop(struct users_waiter *w);
/* All of from to the end of to. */
void users_waiters_move(struct users_waiters *from, struct users_waiters *to);
/* MSG_NSS_USER or MSG_USER_ENTRY. */
void users_answer(struct users_cache *c, const struct msg *m);
/* A link came up: what waits is sent (again). */
void users_link_up(struct users_cache *c, enum role peer);
/* Forgets the answers of one source: a file has changed, or auth says so. */
void users_forget(struct users_cache *c, enum users_source source);
void users_count(const struct users_cache *c, size_t *n_r, size_t *pending_r);

#endif
