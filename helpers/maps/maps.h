/* What the files of this daemon share. */
#ifndef MAPS_MAPS_H
#define MAPS_MAPS_H

#include "daemon/daemon.h"
#include "helpers/maps/own.h"
#include "helpers/maps/tables.h"
#include "helpers/maps/users.h"

struct request;
struct peer;

struct maps {
	struct daemon *d;
	struct tables *tables;
	struct users_cache *users;
	struct watch *watch;
	struct own *own;
	struct resolver resolver;
	struct arena arena;            /* of the request that is being answered */
	TAILQ_HEAD(, request) waiting; /* all that have no answer yet */
	struct users_waiters ready;    /* those of them whose user is known now */
	size_t nwaiting;
	TAILQ_HEAD(, peer) peers;
	uint32_t generation;
	struct ev_timer push_users, again;
	struct timespec passwd_mtime, group_mtime;
	int64_t told_pattern, told_full; /* monotonic µs: last line of the log of each */
	uint64_t checks, routes, gets;
};

/* requests.c: the resolver and the cache of users come to life with it. */
void requests_init(struct maps *maps);
/* MSG_RCPT_CHECK, MSG_ROUTE or MSG_MAP_GET: answered at once, or kept until a user is known. */
void request(struct maps *maps, struct ipc_chan *ch, const struct msg *m);
/* Nobody is there to hear. */
void requests_forget(struct maps *maps, const struct ipc_chan *ch);

#endif
