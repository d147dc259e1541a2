/*
 * What nss and auth have said about users, kept for a while. A question without an answer yet is
 * sent and answered -EAGAIN; the callback tells when to ask again.
 */
#ifndef MAPS_USERS_H
#define MAPS_USERS_H

#include "daemon/daemon.h"
#include "helpers/maps/resolve.h"

enum users_source { USERS_NSS, USERS_AUTH };

struct users_cache;

/* answered is called after an answer (or none in time) has been taken in, for each question. */
struct users_cache *users_new(struct daemon *d, void (*answered)(void *ctx), void *ctx);
/* 0, ERR_NOT_FOUND, ERR_TEMPORARY, or -EAGAIN. Strings of *user_r are copied to the arena. */
int users_ask(struct users_cache *c, enum users_source source, struct slice name, struct arena *a,
    struct resolve_user *user_r) CHECKED;
/* MSG_NSS_USER or MSG_USER_ENTRY. */
void users_answer(struct users_cache *c, const struct msg *m);
/* A link came up: what waits is sent (again). */
void users_link_up(struct users_cache *c, enum role peer);
/* Forgets the answers of one source: a file has changed, or auth says so. */
void users_forget(struct users_cache *c, enum users_source source);
void users_count(const struct users_cache *c, size_t *n_r, size_t *pending_r);

#endif
