/*
 * The processes that hold an acceptor's sessions, as their acceptor sees them (zygotes of smtpd,
 * submission and login, as the service's uid). Hostile: a child that was taken over may report the
 * end of its own sessions early and gets more clients than it should, nothing else.
 * Invariant: sessions per process never exceed the parameter.
 */
#include "daemon/acceptor_private.h"

#include <stdlib.h>

/* Sessions of the emptiest process before another one is started, up to the number of cores. */
#define SPREAD 8

void
acceptor_session_free(struct acceptor_state *a, struct session *s)
{
	hash_remove(&a->sessions, &s->node);
	acceptor_client_release(a, s->client);
	free(s);
}

static void
retire(struct worker *w)
{
	struct msg m = MSG_INIT(MSG_STOP, 0);

	if (w->retired)
		return;
	w->retired = true;
	m.stop.how = 0;
	if (w->child->chan)
		(void)ipc_send(w->child->chan, &m);
}

static void
on_idle(void *arg)
{
	struct worker *w = arg;

	if (!w->sessions)
		retire(w);
}

static struct session *
session_of(struct acceptor_state *a, uint64_t token)
{
	struct hash_node *n = hash_find(&a->sessions, slice(&token, sizeof(token)));

	return n ? HASH_ELEMENT(n, struct session, node) : NULL;
}

/* Tokens are easily guessed: a child that was taken over must not end the sessions of the others.
 */
static void
count_end(struct worker *w, uint64_t token)
{
	struct acceptor_state *a = w->a;
	struct session *s = session_of(a, token);

	if (!s || s->worker != w)
		return;
	acceptor_session_free(a, s);
	if (--w->sessions)
		return;
	if (w->retired) {
		w->retired = false;
		retire(w);
	} else if (a->desc->sessions_per_process(a->d->conf) == 1) {
		retire(w);
	} else {
		ev_timer_set(a->d->base, &w->idle, a->d->conf->process_idle_limit, on_idle, w);
	}
}

static void
take_ends(struct worker *w)
{
	uint64_t token;

	for (int i = 0; i < ENDS_MAX && ends_take(w->ends, &w->ends_taken, &token); i++)
		count_end(w, token);
}

void
acceptor_take_ends(struct acceptor_state *a)
{
	struct worker *w;

	TAILQ_FOREACH(w, &a->sharing, shares)
		take_ends(w);
}

static struct worker *
worker_start(struct acceptor_state *a)
{
	struct zygote_spec spec = {
		.desc = a->desc->child, .npeers = a->desc->npeers, .arg = a->d->ctx
	};
	struct ends *ends = a->desc->sessions_per_process(a->d->conf) > 1 ? ends_new() : NULL;
	struct worker *w;
	struct zygote_child *child;
	int err;

	memcpy(spec.peers, a->desc->peers, sizeof(spec.peers));
	a->born_with = ends;
	child = zygote_fork(a->d, &spec, &err);
	a->born_with = NULL;
	if (!child) {
		ends_free(ends);
		log_event(LOG_process_refused, "service=%s reason=\"%s\"", log_cstr(a->d->service),
		    err_str(err));
		return NULL;
	}
	ends_keep(ends);
	w = xcalloc(1, sizeof(*w));
	w->a = a;
	w->child = child;
	w->ends = ends;
	if (ends)
		TAILQ_INSERT_TAIL(&a->sharing, w, shares);
	child->data = w;
	TAILQ_INSERT_TAIL(&a->workers, w, next);
	a->nworkers++;
	return w;
}

/* The emptiest worker with room, or a new one while that spreads the load or none has room. */
struct worker *
acceptor_worker(struct acceptor_state *a)
{
	const struct conf *conf = a->d->conf;
	int64_t per_process = a->desc->sessions_per_process(conf),
		limit = conf->default_process_limit;
	struct worker *w, *best = NULL;

	acceptor_take_ends(a);
	if (per_process > 1) /* else who has served has no room */
		TAILQ_FOREACH(w, &a->workers, next)
			if (!w->retired && w->child->chan && w->sessions < per_process &&
			    (!best || w->sessions < best->sessions))
				best = w;
	if (best && (best->sessions < SPREAD || a->nworkers >= (size_t)a->cores ||
			(int64_t)a->nworkers >= limit))
		return best;
	if (limit && (int64_t)a->nworkers >= limit)
		return best;
	w = worker_start(a);
	return w ? w : best;
}

bool
acceptor_hand_over(struct worker *w, struct session *s, const struct msg *m)
{
	struct acceptor_state *a = w->a;
	int64_t recycle = a->d->conf->process_session_limit;

	if (ipc_send(w->child->chan, m))
		return false;
	s->worker = w;
	w->sessions++;
	ev_timer_clear(&w->idle);
	if (recycle && ++w->served >= (uint64_t)recycle)
		w->retired =
		    true; /* told to stop when its last session ends: the child counts them */
	return true;
}

void
acceptor_count_end(struct acceptor_state *a, struct ipc_chan *ch, uint64_t token)
{
	struct session *s = session_of(a, token);
	struct worker *w = s ? s->worker : NULL;

	if (!w || w->child->chan != ch)
		return;
	if (w->ends)
		take_ends(w);
	count_end(w, token);
}

void
acceptor_worker_ended(struct acceptor_state *a, struct worker *w)
{
	struct hash_node *n, *next;

	for (n = hash_next(&a->sessions, NULL); n && w->sessions; n = next) {
		struct session *s = HASH_ELEMENT(n, struct session, node);
		next = hash_next(&a->sessions, n);
		if (s->worker == w) {
			w->sessions--;
			acceptor_session_free(a, s);
		}
	}
	ev_timer_free(&w->idle);
	TAILQ_REMOVE(&a->workers, w, next);
	a->nworkers--;
	if (w->ends)
		TAILQ_REMOVE(&a->sharing, w, shares);
	ends_free(w->ends);
	free(w);
}

void
acceptor_retire_workers(struct acceptor_state *a)
{
	struct worker *w;

	TAILQ_FOREACH(w, &a->workers, next)
		if (w->sessions)
			w->retired = true;
		else
			retire(w);
}
