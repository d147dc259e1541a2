/*
 * Sites: how many jobs each may have at once, and what its answers teach. Runs in qmgr; pure.
 *
 * The window starts at window_initial and grows by one for each success (it doubles in a round)
 * until the first failure, then by one in a round. A job whose site did not answer halves it; when
 * whole windows fail in a row the site rests, and comes back with a window of one. So a dead site
 * costs one attempt a rest, whatever waits for it, and nobody else pays.
 */
#include "queue/sched_impl.h"

#include <stdlib.h>

#define FORGET_MS 600000 /* what an unused site has taught is kept that long */
#define DIRECT_ROUNDS 3  /* windows of direct messages that may wait for a site */

static bool
learns(enum sched_class kind)
{
	return kind == SCHED_LOCAL || kind == SCHED_REMOTE;
}

static struct hash_node *
find(const struct sched *s, enum sched_class kind, struct slice key, unsigned char *name)
{
	/* The class is part of the name: a user and a host may be spelled alike. */
	name[0] = (unsigned char)('0' + kind);
	if (key.n)
		memcpy(name + 1, key.p, key.n);
	return hash_find(&s->sites, slice(name, key.n + 1));
}

struct sched_site *
sched_site_find(struct sched *s, enum sched_class kind, struct slice key)
{
	unsigned char name[SCHED_TEXT_MAX + 1];
	struct hash_node *n = find(s, kind, slice_sub(key, 0, SCHED_TEXT_MAX), name);

	return n ? HASH_ELEMENT(n, struct sched_site, node) : NULL;
}

struct sched_site *
sched_site(struct sched *s, enum sched_class kind, struct slice key)
{
	unsigned char name[SCHED_TEXT_MAX + 1];
	struct hash_node *n = find(s, kind, key = slice_sub(key, 0, SCHED_TEXT_MAX), name);
	struct sched_site *site;

	if (n)
		return HASH_ELEMENT(n, struct sched_site, node);
	site = xcalloc(1, sizeof(*site) + key.n + 2);
	site->kind = kind;
	site->window = learns(kind) ? s->limits.window_initial[kind] : s->limits.class_max[kind];
	site->threshold = s->limits.window_max[kind];
	memcpy(site->key, name, key.n + 1);
	TAILQ_INIT(&site->flows);
	TAILQ_INIT(&site->waiters);
	hash_insert(&s->sites, &site->node, slice(site->key, key.n + 1));
	sched_site_update(s, site);
	return site;
}

void
sched_set_limits(struct sched *s, const struct sched_limits *l)
{
	bool moved = l->late_ms != s->limits.late_ms;

	s->limits = *l;
	if (moved)
		sched_set_timers(s);
	for (struct sched_site *x = NULL; (x = sched_each_site(s, x));) {
		if (!learns(x->kind))
			x->window = l->class_max[x->kind];
		else if (x->window > l->window_max[x->kind])
			x->window = l->window_max[x->kind];
		sched_site_update(s, x);
	}
}

void
sched_site_update(struct sched *s, struct sched_site *site)
{
	bool room = !site->resting && site->running < (unsigned int)site->window;
	bool want = site->ready && room, direct = site->n_waiters && room;

	if (want && !site->in_ring)
		TAILQ_INSERT_TAIL(&s->rings[site->kind], site, link);
	if (!want && site->in_ring)
		TAILQ_REMOVE(&s->rings[site->kind], site, link);
	site->in_ring = want;
	if (direct && !site->in_direct_ring)
		TAILQ_INSERT_TAIL(&s->direct_rings[site->kind], site, d_link);
	if (!direct && site->in_direct_ring)
		TAILQ_REMOVE(&s->direct_rings[site->kind], site, d_link);
	site->in_direct_ring = direct;
	if (site->resting)
		return;
	if (site->jobs || site->running || site->n_waiters)
		heap_clear(&s->rests, &site->rest);
	else if (!site->rest.at)
		heap_set(&s->rests, &site->rest, s->now + FORGET_MS);
}

void
sched_site_wake(struct sched *s, struct sched_site *site)
{
	if (!site->resting)
		return;
	heap_clear(&s->rests, &site->rest);
	site->resting = site->pausing = false;
	site->rest_ms = 0;
	sched_site_update(s, site);
}

bool
sched_direct_ok(const struct sched *s, struct sched_site *const *sites, size_t n, int64_t now)
{
	size_t needed[SCHED_CLASSES] = { 0 };

	(void)now;
	if (s->direct >= s->limits.direct_max)
		return false;
	for (size_t i = 0; i < n; i++) {
		const struct sched_site *x = sites[i];

		if (x->resting || x->ready || x->n_waiters ||
		    x->running >= (unsigned int)x->window ||
		    x->average_ms >= s->limits.deadline_ms / 2)
			return false;
		needed[x->kind]++;
	}
	for (int c = 0; c < SCHED_CLASSES; c++)
		if (needed[c] && (!TAILQ_EMPTY(&s->rings[c]) ||
				     s->running[c] + needed[c] > s->limits.class_max[c]))
			return false;
	return true;
}

bool
sched_direct_soon(const struct sched *s, const struct sched_site *site)
{
	unsigned int window = (unsigned int)site->window;

	if (site->resting || site->ready || !site->done || s->direct >= s->limits.direct_max ||
	    site->n_waiters >= DIRECT_ROUNDS * window || !TAILQ_EMPTY(&s->rings[site->kind]))
		return false;
	return (site->n_waiters / window + 1) * (site->average_ms + 1) < s->limits.deadline_ms / 2;
}

void
sched_direct_wait(struct sched *s, struct sched_site *site, struct sched_waiter *w)
{
	w->site = site;
	TAILQ_INSERT_TAIL(&site->waiters, w, link);
	site->n_waiters++;
	sched_site_update(s, site);
}

void
sched_direct_leave(struct sched *s, struct sched_waiter *w)
{
	struct sched_site *site = w->site;

	if (!site)
		return;
	TAILQ_REMOVE(&site->waiters, w, link);
	site->n_waiters--;
	w->site = NULL;
	sched_site_update(s, site);
}

struct sched_waiter *
sched_direct_next(struct sched *s, struct sched_site **site_r)
{
	/* A class that is full holds up no other. */
	for (int kind = 0; kind < SCHED_CLASSES; kind++) {
		struct sched_site *site = TAILQ_FIRST(&s->direct_rings[kind]);
		struct sched_waiter *w;

		if (!site || s->running[kind] >= s->limits.class_max[kind])
			continue;
		w = TAILQ_FIRST(&site->waiters);
		TAILQ_REMOVE(&s->direct_rings[kind], site, d_link);
		TAILQ_INSERT_TAIL(&s->direct_rings[kind], site, d_link);
		sched_direct_leave(s, w);
		sched_take(s, site);
		*site_r = site;
		return w;
	}
	return NULL;
}

void
sched_direct_begin(struct sched *s)
{
	s->direct++;
}

void
sched_direct_end(struct sched *s)
{
	s->direct--;
}

void
sched_take(struct sched *s, struct sched_site *site)
{
	s->running[site->kind]++;
	site->running++;
	if (s->limits.pause_ms[site->kind]) {
		site->resting = site->pausing = true;
		heap_set(&s->rests, &site->rest, s->now + s->limits.pause_ms[site->kind]);
	}
	sched_site_update(s, site);
}

static void
learn_time(struct sched_site *site, int64_t ms)
{
	if (site->done + site->failed == 0)
		site->average_ms = ms;
	else
		site->average_ms += (ms - site->average_ms) / 8;
}

static void
succeeded(struct sched *s, struct sched_site *site)
{
	site->done++;
	site->failures = 0;
	site->rest_ms = 0;
	site->window += site->window < site->threshold ? 1 : 1 / site->window;
	if (site->window > s->limits.window_max[site->kind])
		site->window = s->limits.window_max[site->kind];
}

static void
failed(struct sched *s, struct sched_site *site, int64_t now)
{
	double cohort = site->window;
	int64_t until;

	site->failed++;
	site->failures++;
	site->window = site->window > 2 ? site->window / 2 : 1;
	site->threshold = site->window;
	if ((site->resting && !site->pausing) || site->failures < s->limits.failed_cohorts * cohort)
		return;
	site->rest_ms = site->rest_ms ? site->rest_ms * 2 : s->limits.rest_min_ms;
	if (site->rest_ms > s->limits.rest_max_ms)
		site->rest_ms = s->limits.rest_max_ms;
	site->window = 1;
	until = now + site->rest_ms;
	if (site->pausing && site->rest.due > until)
		until = site->rest.due;
	site->resting = true;
	site->pausing = false;
	heap_set(&s->rests, &site->rest, until);
}

void
sched_release(struct sched *s, struct sched_site *site, enum sched_outcome outcome, int64_t took_ms,
    int64_t now)
{
	s->now = now;
	s->running[site->kind]--;
	site->running--;
	if (learns(site->kind) && outcome != OUTCOME_UNUSED) {
		if (took_ms >= 0)
			learn_time(site, took_ms);
		if (outcome == OUTCOME_OK)
			succeeded(s, site);
		else
			failed(s, site, now);
	}
	sched_site_update(s, site);
}

void
sched_slow(struct sched *s, struct sched_site *site)
{
	learn_time(site, s->limits.deadline_ms);
}

static void
site_free(struct sched *s, struct sched_site *site)
{
	heap_clear(&s->rests, &site->rest);
	hash_remove(&s->sites, &site->node);
	free(site);
}

void
sched_sites_tick(struct sched *s, int64_t now)
{
	struct heap_node *n;

	s->now = now;
	while ((n = heap_first(&s->rests)) && n->due <= now) {
		struct sched_site *site = HEAP_ELEMENT(n, struct sched_site, rest);

		heap_clear(&s->rests, n);
		if (site->resting) {
			site->resting = site->pausing = false;
			sched_site_update(s, site);
		} else if (!site->jobs && !site->running && !site->n_waiters) {
			site_free(s, site);
		}
	}
}

void
sched_sites_free(struct sched *s)
{
	struct sched_site *x;

	while ((x = sched_each_site(s, NULL)))
		site_free(s, x);
	hash_free(&s->sites);
	hash_free(&s->flows);
	heap_free(&s->rests);
}

struct sched_site *
sched_each_site(const struct sched *s, const struct sched_site *site)
{
	struct hash_node *n = hash_next(&s->sites, site ? &site->node : NULL);

	return n ? HASH_ELEMENT(n, struct sched_site, node) : NULL;
}

void
sched_scan_sites(const struct sched *s, uint64_t *cursor,
    void (*each)(void *ctx, const struct sched_site *site), void *ctx)
{
	for (const struct hash_node *n = hash_scan(&s->sites, cursor); n; n = n->next)
		each(ctx, HASH_ELEMENT(n, const struct sched_site, node));
}
