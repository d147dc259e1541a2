/* Between resolve.c, which begins an expansion, and expand.c. */
#ifndef MAPS_EXPAND_H
#define MAPS_EXPAND_H

#include "base/hash.h"
#include "helpers/maps/resolve.h"

/* An address that is still to be looked at. */
struct work {
	struct slice address;
	unsigned depth;
	const struct work *from; /* what it came from: a result that is on this way is final */
	bool to_self;            /* \name: no alias of it is looked up */
};

struct expansion {
	const struct resolver *r;
	struct arena *a;
	struct resolve_verdict *out;
	struct work *queue;
	size_t head, tail, size;
	struct hash finals;
	size_t bytes;
	bool asked_nss;
};

/* More work; from: what it came from, or NULL. */
void expand_push(struct expansion *e, struct slice address, const struct work *from, bool to_self);
/* A final address, once. ERR_LIMIT: too many. */
int expand_finish(struct expansion *e, struct slice address);
/* The address and all that was pushed before, to the end: 0 with the verdict, or -EAGAIN. */
int expand_run(struct expansion *e, struct slice address, bool to_self) CHECKED;

/* resolve.c: a verdict without addresses; 0. */
int resolve_reply(
    struct resolve_verdict *out, unsigned code, const char *enhanced, const char *text);
/* Names that every system takes mail for: root, postmaster and the like. */
bool resolve_always_valid(struct slice user);
/* The verdict of an error of a look-up; -EAGAIN is handed up. */
int resolve_trouble(struct resolve_verdict *out, int err) CHECKED;

#endif
