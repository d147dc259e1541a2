/*
 * Channels of auth (bh-auth) and the conversations on them. Hostile: front ends that are taken
 * over; ids are theirs, and mean nothing on another channel. Invariant: a conversation is found by
 * its own channel only, and their number is bounded per channel and in all; one that is idle ends.
 */
#include "helpers/auth/peer.h"

#include <stdlib.h>

static struct peer *
peer_of(struct auth *a, struct ipc_chan *ch)
{
	struct peer *p = ipc_chan_data(ch);

	if (!p) {
		p = xcalloc(1, sizeof(*p));
		p->auth = a;
		p->chan = ch;
		ipc_chan_set_data(ch, p);
	}
	return p;
}

struct talk *
talk_find(struct ipc_chan *ch, uint32_t id)
{
	struct peer *p = ipc_chan_data(ch);
	struct hash_node *node = p ? hash_find(&p->talks, slice(&id, sizeof(id))) : NULL;

	return node ? HASH_ELEMENT(node, struct talk, node) : NULL;
}

int
talk_open(struct auth *a, struct ipc_chan *ch, uint32_t id, struct talk *talk,
    void (*gone)(struct talk *))
{
	struct peer *p = peer_of(a, ch);
	struct talk *old = talk_find(ch, id);

	if (old) {
		talk_close(a, old);
		old->gone(old);
	}
	if (p->talks.count >= EXCHANGES_PER_PEER || a->exchanges >= EXCHANGES_MAX)
		return ERR_LIMIT;
	a->exchanges++;
	talk->id = id;
	talk->peer = p;
	talk->gone = gone;
	hash_insert(&p->talks, &talk->node, slice(&talk->id, sizeof(talk->id)));
	return 0;
}

static void
on_idle(void *ctx)
{
	struct talk *talk = ctx;

	talk->expired(talk);
}

void
talk_waits(struct talk *talk, void (*expired)(struct talk *))
{
	struct daemon *d = talk->peer->auth->d;

	talk->expired = expired;
	ev_timer_set(d->base, &talk->idle, d->conf->auth_exchange_timeout, on_idle, talk);
}

void
talk_goes_on(struct talk *talk)
{
	ev_timer_clear(&talk->idle);
}

void
talk_close(struct auth *a, struct talk *talk)
{
	if (!talk->peer)
		return;
	ev_timer_free(&talk->idle);
	hash_remove(&talk->peer->talks, &talk->node);
	talk->peer = NULL;
	a->exchanges--;
}

void
peer_down(struct auth *a, struct ipc_chan *ch)
{
	struct peer *p = ipc_chan_data(ch);
	struct hash_node *node;

	if (!p)
		return;
	while ((node = hash_next(&p->talks, NULL))) {
		struct talk *talk = HASH_ELEMENT(node, struct talk, node);
		talk_close(a, talk);
		talk->gone(talk);
	}
	/* Mail that this front end handed to qmgr may still be asked about. */
	tokens_drop(a->tokens, p, auth_now_ms() + a->d->conf->auth_token_lifetime);
	hash_free(&p->talks);
	ipc_chan_set_data(ch, NULL);
	free(p);
}
