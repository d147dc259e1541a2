/*
 * Questions to dns, maps and auth. Runs in smtp-client. The peers' answers are looked up by id and
 * by channel, never trusted; one that does not come in time is told to the asker as none.
 * Invariants: a callback is called at most once per message sent, and never after ask_cancel; an
 * exchange stays on the channel where it began.
 */
#include "sender.h"

#include <stdlib.h>

struct ask {
	struct hash_node node;
	struct sender *s;
	uint32_t id;
	struct ipc_chan *chan;
	struct ev_timer timer;
	ask_answer *answer;
	void *ctx;
	bool busy, keep, cancelled;
};

static void
ask_free(struct ask *a)
{
	hash_remove(&a->s->asks, &a->node);
	ev_timer_free(&a->timer);
	free(a);
}

static void
deliver(struct ask *a, struct msg *m)
{
	ev_timer_clear(&a->timer);
	a->busy = true;
	a->keep = false;
	a->answer(a->ctx, m);
	a->busy = false;
	if (!a->keep || a->cancelled)
		ask_free(a);
}

static void
on_timeout(void *ctx)
{
	deliver(ctx, NULL);
}

struct ask *
ask_send(struct sender *s, enum role peer, struct msg *m, int64_t ms, ask_answer *answer, void *ctx)
{
	struct ask *a;

	if (!s->d->peers[peer])
		return NULL;
	a = xcalloc(1, sizeof(*a));
	*a = (struct ask){ .s = s, .chan = s->d->peers[peer], .answer = answer, .ctx = ctx };
	do
		a->id = ++s->next_id;
	while (!a->id || hash_find(&s->asks, slice(&a->id, sizeof(a->id))));
	hash_insert(&s->asks, &a->node, slice(&a->id, sizeof(a->id)));
	if (!ask_again(a, m, ms)) {
		ask_free(a);
		return NULL;
	}
	return a;
}

bool
ask_again(struct ask *a, struct msg *m, int64_t ms)
{
	m->id = a->id;
	if (ipc_send(a->chan, m))
		return false;
	ev_timer_set(a->s->d->base, &a->timer, ms, on_timeout, a);
	return true;
}

void
ask_keep(struct ask *a)
{
	a->keep = true;
}

void
ask_cancel(struct ask **ask)
{
	struct ask *a = *ask;

	*ask = NULL;
	if (!a)
		return;
	if (a->busy)
		a->cancelled = true;
	else
		ask_free(a);
}

void
ask_take(struct sender *s, const struct ipc_chan *ch, struct msg *m)
{
	struct hash_node *node = hash_find(&s->asks, slice(&m->id, sizeof(m->id)));

	if (node && HASH_ELEMENT(node, struct ask, node)->chan == ch)
		deliver(HASH_ELEMENT(node, struct ask, node), m);
}

void
ask_peer_gone(struct sender *s, const struct ipc_chan *ch)
{
	struct hash_node *node;
	bool again;

	do { /* callbacks change the table */
		again = false;
		for (node = hash_next(&s->asks, NULL); node; node = hash_next(&s->asks, node)) {
			struct ask *a = HASH_ELEMENT(node, struct ask, node);

			if (a->chan == ch && !a->busy) {
				deliver(a, NULL);
				again = true;
				break;
			}
		}
	} while (again);
}
