/*
 * Destinations: what may share a connection. Runs in smtp-client. Invariant: a destination lives
 * while a job or a connection uses it.
 */
#include "sender.h"

#include <stdio.h>
#include <stdlib.h>

struct dest *
dest_get(struct sender *s, const struct job *j)
{
	char key[1100];
	struct hash_node *node;
	struct dest *d;

	snprintf(key, sizeof(key), "%s %u %.*s", j->lmtp ? "lmtp" : "smtp", j->port,
	    SLICE_ARG(j->nexthop));
	node = hash_find(&s->dests, slice_str(key));
	if (node) {
		d = HASH_ELEMENT(node, struct dest, node);
	} else {
		d = xcalloc(1, sizeof(*d) + strlen(key) + 1);
		memcpy(d->key, key, strlen(key));
		TAILQ_INIT(&d->idle);
		hash_insert(&s->dests, &d->node, slice_str(d->key));
	}
	d->users++;
	return d;
}

void
dest_release(struct sender *s, struct dest **dest)
{
	struct dest *d = *dest;

	*dest = NULL;
	if (!d || --d->users)
		return;
	hash_remove(&s->dests, &d->node);
	tls_session_free(&d->session);
	free(d);
}
