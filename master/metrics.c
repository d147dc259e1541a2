/*
 * What the metrics daemon asks for: the counters of every daemon, gathered and passed on as they
 * come. Runs in master as root; looks at no value. One gathering at a time: a new request takes the
 * place of the former. A daemon that dies or does not answer within GATHER_MS is left out.
 */
#include "master/master.h"

#define GATHER_MS 1000

static void
finish(struct master *m)
{
	struct msg end = MSG_INIT(MSG_METRICS_END, m->metrics.reply_id);

	if (m->metrics.to)
		(void)ipc_send(m->metrics.to, &end);
	m->metrics.to = NULL;
	m->metrics.waiting = 0;
	ev_timer_clear(&m->metrics.deadline);
}

static void
on_deadline(void *arg)
{
	finish(arg);
}

static uint32_t
ready_of(const struct service *s)
{
	const struct process *p;
	uint32_t n = 0;

	TAILQ_FOREACH(p, &s->processes, next)
		n += p->ready;
	return n;
}

void
metrics_get(struct master *m, struct ipc_chan *from, uint32_t id)
{
	struct msg row = MSG_INIT(MSG_METRICS_SERVICE, id);
	struct service *s;
	struct process *p;

	m->metrics.to = from;
	m->metrics.id = ++m->next_request;
	m->metrics.reply_id = id;
	m->metrics.waiting = 0;
	TAILQ_FOREACH(s, &m->services, next) {
		if (s->obsolete)
			continue;
		row.metrics_service.program = slice_str(s->program);
		row.metrics_service.service = slice_str(s->name);
		row.metrics_service.ready = ready_of(s);
		(void)ipc_send(from, &row);
		TAILQ_FOREACH(p, &s->processes, next)
			if (p->chan && p->ready && !ipc_chan_queued(p->chan) &&
			    !process_ask_stats(p, m->metrics.id)) /* it reads its questions */
				m->metrics.waiting++;
	}
	if (!m->metrics.waiting)
		finish(m);
	else
		ev_timer_set(m->base, &m->metrics.deadline, GATHER_MS, on_deadline, m);
}

bool
metrics_stats(struct master *m, const struct process *p, const struct msg *msg)
{
	struct msg stats = MSG_INIT(MSG_METRICS_STATS, m->metrics.reply_id);
	const struct service *s;

	if (!m->metrics.to || msg->id != m->metrics.id)
		return false;
	TAILQ_FOREACH(s, &m->services, next) {
		if (p && s == p->service)
			break;
		stats.metrics_stats.service += !s->obsolete;
	}
	if (s && !s->obsolete) {
		stats.metrics_stats.values = msg->stats.values;
		stats.metrics_stats.extra = msg->stats.extra;
		(void)ipc_send(m->metrics.to, &stats);
	}
	if (!--m->metrics.waiting)
		finish(m);
	return true;
}

void
metrics_gone(struct master *m, struct process *p)
{
	bool owed = process_owed(p, m->metrics.id);

	if (p->chan && p->chan == m->metrics.to)
		m->metrics.to = NULL;
	else if (m->metrics.to && owed && !--m->metrics.waiting)
		finish(m);
}
