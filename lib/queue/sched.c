/*
 * Messages and jobs of the scheduler: where each waits and what starts next. Runs in qmgr; pure.
 * What a site may bear is in sched_site.c. Invariants: a job is in a flow exactly while READY; it
 * has a timer exactly while it is not BUSY; a flow exists exactly while it has a job, and is in the
 * ring of its site.
 */
#include "queue/sched_impl.h"

#include <stdlib.h>

#define REARM_MS 60000
#define KBYTES_MAX ((1u << 30) - 1)

struct sched *
sched_new(const struct sched_limits *l)
{
	struct sched *s = xcalloc(1, sizeof(*s));

	s->msgs.object = sizeof(struct sched_msg);
	s->jobs.object = sizeof(struct sched_job);
	for (int i = 0; i < SCHED_CLASSES; i++) {
		TAILQ_INIT(&s->rings[i]);
		TAILQ_INIT(&s->direct_rings[i]);
	}
	sched_set_limits(s, l);
	return s;
}

void
sched_free(struct sched **s)
{
	size_t cursor = 0;
	struct sched_msg *m;

	if (!*s)
		return;
	while ((m = sched_each(*s, &cursor)))
		sched_remove(*s, m);
	sched_sites_free(*s);
	text_free(&(*s)->senders);
	text_free(&(*s)->reasons);
	slab_free(&(*s)->msgs);
	slab_free(&(*s)->jobs);
	heap_free(&(*s)->timers);
	free((*s)->by_id);
	free(*s);
	*s = NULL;
}

static size_t
bucket(const struct sched *s, queue_id id)
{
	return (size_t)((id * 0x9e3779b97f4a7c15u) >> 32) & (s->by_id_size - 1);
}

static void
grow(struct sched *s)
{
	struct sched_msg **old = s->by_id, *next;
	size_t size = s->by_id_size;

	s->by_id_size = size ? size * 2 : 256;
	s->by_id = xcalloc(s->by_id_size, sizeof(struct sched_msg *));
	for (size_t i = 0; i < size; i++)
		for (struct sched_msg *m = old[i]; m; m = next) {
			size_t b = bucket(s, m->id);

			next = m->next;
			m->next = s->by_id[b];
			s->by_id[b] = m;
		}
	free(old);
}

struct sched_msg *
sched_find(const struct sched *s, queue_id id)
{
	struct sched_msg *m = s->by_id_size ? s->by_id[bucket(s, id)] : NULL;

	while (m && m->id != id)
		m = m->next;
	return m;
}

struct sched_msg *
sched_add(struct sched *s, queue_id id, struct slice sender, uint64_t size, int64_t expires)
{
	struct sched_msg *m = slab_alloc(&s->msgs);
	size_t b;

	if (s->msgs.used > s->by_id_size)
		grow(s);
	b = bucket(s, id);
	*m = (struct sched_msg){ .next = s->by_id[b], .id = id, .expires = expires };
	m->sender = text_hold(&s->senders, sender);
	size = (size + 1023) / 1024;
	m->kbytes = size < KBYTES_MAX ? (uint32_t)size : KBYTES_MAX;
	s->by_id[b] = m;
	return m;
}

void
sched_remove(struct sched *s, struct sched_msg *m)
{
	struct sched_msg **at = &s->by_id[bucket(s, m->id)];

	while (m->jobs)
		sched_job_remove(s, m->jobs);
	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	text_drop(&s->senders, &m->sender);
	slab_put(&s->msgs, m);
}

/* --- flows: the ready jobs of one sender at one site --- */

static struct sched_flow *
flow_find(const struct sched *s, const struct sched_job *j)
{
	const void *key[2] = { j->site, j->msg->sender };
	struct hash_node *n = hash_find(&s->flows, slice(key, sizeof(key)));

	return n ? HASH_ELEMENT(n, struct sched_flow, node) : NULL;
}

static void
flow_add(struct sched *s, struct sched_job *j)
{
	struct sched_flow *f = flow_find(s, j);

	if (!f) {
		f = xcalloc(1, sizeof(*f));
		f->key[0] = j->site;
		f->key[1] = j->msg->sender;
		TAILQ_INIT(&f->jobs);
		hash_insert(&s->flows, &f->node, slice(f->key, sizeof(f->key)));
		TAILQ_INSERT_TAIL(&j->site->flows, f, link);
	}
	TAILQ_INSERT_TAIL(&f->jobs, j, link);
}

static void
flow_remove(struct sched *s, struct sched_job *j)
{
	struct sched_flow *f = flow_find(s, j);

	TAILQ_REMOVE(&f->jobs, j, link);
	if (!TAILQ_EMPTY(&f->jobs))
		return;
	TAILQ_REMOVE(&j->site->flows, f, link);
	hash_remove(&s->flows, &f->node);
	free(f);
}

/* An expiry ends attempts; the notice that tells of it knows none. */
static bool
expires(const struct sched_job *j)
{
	return j->site->kind != SCHED_NOTICE;
}

/* When its message has to be told of, if the job is READY from now on. */
static int64_t
late_at(const struct sched *s, const struct sched_job *j)
{
	int64_t at = ((int64_t)j->msg->arrived + 1) * 1000 + s->limits.late_ms;
	int64_t soonest = s->now + s->limits.rest_min_ms;

	if (!s->limits.late_ms || j->msg->late || !expires(j))
		return INT64_MAX;
	return at > soonest ? at : soonest;
}

static void
set_timer(struct sched *s, struct sched_job *j, int64_t due)
{
	bool first = due < j->msg->expires || !expires(j);

	heap_set(&s->timers, &j->timer, first ? due : j->msg->expires);
}

/* The one place where a job changes its state. */
static void
job_set(struct sched *s, struct sched_job *j, enum sched_state state, int64_t due)
{
	if (j->state == JOB_READY) {
		flow_remove(s, j);
		j->site->ready--;
	} else if (j->state != JOB_BUSY) {
		j->site->waiting--;
	}
	j->state = state;
	if (state == JOB_READY) {
		flow_add(s, j);
		j->site->ready++;
		due = late_at(s, j);
	} else if (state != JOB_BUSY) {
		j->site->waiting++;
	}
	if (state == JOB_BUSY)
		heap_clear(&s->timers, &j->timer);
	else
		set_timer(s, j, due);
	sched_site_update(s, j->site);
}

void
sched_set_timers(struct sched *s)
{
	struct sched_msg *m;
	size_t cursor = 0;

	while ((m = sched_each(s, &cursor)))
		for (struct sched_job *j = m->jobs; j; j = j->sibling)
			if (j->state == JOB_READY && expires(j))
				set_timer(s, j, late_at(s, j));
}

struct sched_job *
sched_job_find(const struct sched_msg *m, const struct sched_site *site)
{
	struct sched_job *j = m->jobs;

	while (j && j->site != site)
		j = j->sibling;
	return j;
}

struct sched_job *
sched_job(struct sched *s, struct sched_msg *m, struct sched_site *site)
{
	struct sched_job *j = sched_job_find(m, site);

	if (j)
		return j;
	j = slab_alloc(&s->jobs);
	*j = (struct sched_job){ .msg = m, .site = site, .sibling = m->jobs, .state = JOB_BUSY };
	m->jobs = j;
	site->jobs++;
	sched_site_update(s, site);
	return j;
}

/* A hold is about sending: notices of a held message go on. */
static bool
is_held(const struct sched_job *j)
{
	return j->msg->held && j->site->kind != SCHED_NOTICE;
}

void
sched_job_ready(struct sched *s, struct sched_job *j)
{
	if (j->state != JOB_READY)
		job_set(s, j, is_held(j) ? JOB_HELD : JOB_READY, INT64_MAX);
}

void
sched_job_wait(struct sched *s, struct sched_job *j, int64_t due, struct slice reason)
{
	struct sched_text *was = j->reason;

	j->reason = reason.n ? text_hold(&s->reasons, reason) : NULL;
	text_drop(&s->reasons, &was);
	job_set(s, j, is_held(j) ? JOB_HELD : JOB_WAITING, is_held(j) ? INT64_MAX : due);
}

void
sched_job_flush(struct sched *s, struct sched_job *j)
{
	if (j->state == JOB_WAITING)
		sched_job_ready(s, j);
}

void
sched_job_remove(struct sched *s, struct sched_job *j)
{
	struct sched_job **at = &j->msg->jobs;
	struct sched_site *site = j->site;

	if (j->state != JOB_BUSY)
		job_set(s, j, JOB_BUSY, 0);
	while (*at != j)
		at = &(*at)->sibling;
	*at = j->sibling;
	text_drop(&s->reasons, &j->reason);
	slab_put(&s->jobs, j);
	site->jobs--;
	sched_site_update(s, site);
}

void
sched_hold(struct sched *s, struct sched_msg *m)
{
	m->held = true;
	for (struct sched_job *j = m->jobs; j; j = j->sibling)
		if (j->state != JOB_BUSY && is_held(j))
			job_set(s, j, JOB_HELD, INT64_MAX);
}

void
sched_unhold(struct sched *s, struct sched_msg *m, int64_t now)
{
	m->held = false;
	for (struct sched_job *j = m->jobs; j; j = j->sibling)
		if (j->state == JOB_HELD)
			job_set(s, j, JOB_WAITING, now);
}

struct sched_job *
sched_next(struct sched *s, int64_t now)
{
	s->now = now;
	for (int i = 0; i < SCHED_CLASSES; i++) {
		unsigned int kind = s->turn++ % SCHED_CLASSES;
		struct sched_site *site = TAILQ_FIRST(&s->rings[kind]);
		struct sched_flow *f;
		struct sched_job *j;

		if (!site || s->running[kind] >= s->limits.class_max[kind])
			continue;
		/* The flow and the site go to the end of their rings: others come first now. */
		f = TAILQ_FIRST(&site->flows);
		j = TAILQ_FIRST(&f->jobs);
		TAILQ_REMOVE(&site->flows, f, link);
		TAILQ_INSERT_TAIL(&site->flows, f, link);
		TAILQ_REMOVE(&s->rings[kind], site, link);
		TAILQ_INSERT_TAIL(&s->rings[kind], site, link);
		sched_take(s, site);
		job_set(s, j, JOB_BUSY, 0);
		j->running++;
		return j;
	}
	return NULL;
}

/* What the caller does not end or change comes again. */
static void
rearm(struct sched *s, struct sched_msg *m, int64_t now)
{
	for (struct sched_job *j = m->jobs; j; j = j->sibling)
		if (expires(j) &&
		    (now >= m->expires ? j->state != JOB_BUSY : j->state == JOB_READY))
			heap_set(&s->timers, &j->timer, now + REARM_MS);
}

struct sched_msg *
sched_tick(struct sched *s, int64_t now)
{
	struct heap_node *n;

	sched_sites_tick(s, now);
	while ((n = heap_first(&s->timers)) && n->due <= now) {
		struct sched_job *j = HEAP_ELEMENT(n, struct sched_job, timer);

		if (expires(j) && now >= j->msg->expires) {
			rearm(s, j->msg, now);
			return j->msg;
		}
		if (j->state != JOB_READY) {
			sched_job_ready(s, j);
		} else if (j->msg->late) {
			heap_set(&s->timers, n, j->msg->expires);
		} else {
			rearm(s, j->msg, now);
			return j->msg;
		}
	}
	return NULL;
}

int64_t
sched_timer(const struct sched *s)
{
	const struct heap_node *job = heap_first(&s->timers), *site = heap_first(&s->rests);
	int64_t at = job ? job->due : INT64_MAX;

	return site && site->due < at ? site->due : at;
}

int64_t
sched_backoff(int64_t age_ms, int64_t min_ms, int64_t max_ms)
{
	if (age_ms < min_ms)
		return min_ms;
	return age_ms < max_ms ? age_ms : max_ms;
}

/* --- listing --- */

struct sched_msg *
sched_each(const struct sched *s, size_t *cursor)
{
	struct sched_msg *m;

	while ((m = slab_at(&s->msgs, *cursor))) {
		++*cursor;
		if (m->id)
			return m;
	}
	return NULL;
}

void
sched_scan_senders(const struct sched *s, uint64_t *cursor,
    void (*each)(void *ctx, const struct sched_text *t), void *ctx)
{
	for (const struct sched_text *t = text_scan(&s->senders, cursor); t; t = t->next)
		each(ctx, t);
}

void
sched_scan_reasons(const struct sched *s, uint64_t *cursor,
    void (*each)(void *ctx, const struct sched_text *t), void *ctx)
{
	for (const struct sched_text *t = text_scan(&s->reasons, cursor); t; t = t->next)
		each(ctx, t);
}

void
sched_count(const struct sched *s, struct sched_counts *out_r)
{
	*out_r = (struct sched_counts){ .messages = s->msgs.used,
		.jobs = s->jobs.used,
		.sites = s->sites.count,
		.senders = s->senders.count,
		.reasons = s->reasons.count,
		.direct = s->direct };
	for (int i = 0; i < SCHED_CLASSES; i++)
		out_r->running[i] = s->running[i];
	for (struct sched_site *x = NULL; (x = sched_each_site(s, x));) {
		out_r->ready += x->ready;
		out_r->waiting += x->waiting;
		out_r->bytes += sizeof(*x) + strlen(x->key) + 1 + sizeof(void *);
	}
	out_r->bytes += s->msgs.n_chunks * SLAB_CHUNK * s->msgs.object +
			s->jobs.n_chunks * SLAB_CHUNK * s->jobs.object +
			s->timers.size * sizeof(void *) + s->by_id_size * sizeof(void *) +
			s->senders.bytes + s->reasons.bytes +
			(s->senders.size + s->reasons.size) * sizeof(void *) +
			s->flows.count * (sizeof(struct sched_flow) + sizeof(void *));
}
