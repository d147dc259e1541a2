/* Asking the system for users, on threads: NSS blocks, and a directory service may hang. */
#ifndef NSS_LOOKUP_H
#define NSS_LOOKUP_H

#include "base/slice.h"

#include <event2/event.h>
#include <pwd.h>
#include <sys/queue.h>
#include <sys/types.h>

#define LOOKUP_NAME 256
#define LOOKUP_GROUPS 64

enum lookup_status { LOOKUP_FOUND, LOOKUP_UNKNOWN, LOOKUP_TROUBLE };

struct lookup {
	STAILQ_ENTRY(lookup) next;
	char name[LOOKUP_NAME];
	void *ctx;   /* the caller's: who asked */
	uint32_t id; /* and under which number */
	enum lookup_status status;
	int error;        /* of LOOKUP_TROUBLE: an errno */
	struct passwd pw; /* strings in text */
	gid_t groups[LOOKUP_GROUPS];
	size_t ngroups, member_of; /* in groups; in all */
	char *text;
};

struct lookup_pool;

/* done is called on the loop, in any order; the lookup is freed after it. Threads start with the
 * first call: after the jail. */
struct lookup_pool *lookup_pool_new(struct event_base *base, unsigned threads,
    void (*done)(void *ctx, struct lookup *l), void *ctx);
/* ERR_LIMIT when too many wait; ERR_SYNTAX for what cannot be a user name. */
int lookup_start(struct lookup_pool *p, struct slice name, void *ctx, uint32_t id) CHECKED;
/* The blocking question itself; also used once before the jail, so that NSS has loaded its modules.
 */
void lookup_run(struct lookup *l);
void lookup_free(struct lookup *l);

#endif
