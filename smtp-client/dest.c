/*
 * Destinations: what may share a connection and a TLS session. Runs in smtp-client. Invariants: a
 * destination lives while a job or a connection uses it; after that it stays for its TLS session,
 * within DESTS_KEPT_MAX and DEST_KEPT_S.
 */
#include "sender.h"

#include <stdio.h>
#include <stdlib.h>

static void
unlist(struct sender *s, struct dest *d)
{
	TAILQ_REMOVE(&s->unused, d, unused);
	s->nunused--;
	d->unused_since = 0;
}

static void
dest_free(struct sender *s, struct dest *d)
{
	hash_remove(&s->dests, &d->node);
	tls_session_free(&d->session);
	free(d->session_names);
	free(d);
}

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
		if (!d->users)
			unlist(s, d);
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
	struct dest *d = *dest, *oldest;
	int64_t now;

	*dest = NULL;
	if (!d || --d->users)
		return;
	if (!d->session) {
		dest_free(s, d);
		return;
	}
	d->unused_since = now = ev_now_us();
	TAILQ_INSERT_TAIL(&s->unused, d, unused);
	s->nunused++;
	while (
	    (oldest = TAILQ_FIRST(&s->unused)) &&
	    (s->nunused > DESTS_KEPT_MAX || now - oldest->unused_since > DEST_KEPT_S * 1000000LL)) {
		unlist(s, oldest);
		dest_free(s, oldest);
	}
}

void
dest_forget_all(struct sender *s)
{
	struct dest *d;

	while ((d = TAILQ_FIRST(&s->unused))) {
		unlist(s, d);
		dest_free(s, d);
	}
}
