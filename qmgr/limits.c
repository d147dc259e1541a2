/*
 * What bounds qmgr: time (one timer for all that is due), queue IDs (reserved ahead in the clock
 * file), and how much may come in. Runs in the loop. Hostile: the sizes and numbers of what
 * receivers bring.
 */
#include "qmgr/qmgr.h"

#include <errno.h>

#define CLOCK_AHEAD_UNITS ((uint64_t)60 * 500000) /* a minute of IDs is reserved at a time */
#define SPACE_EVERY_MS 1000
#define CLOCK_STEP_MS 10000

static void on_timer(void *ctx);

/* --- time --- */

int64_t
qmgr_past(const struct qmgr *q, int64_t wall_ms)
{
	int64_t age = ev_wall_us() / 1000 - wall_ms;

	return qmgr_now(q) - (age > 0 ? age : 0);
}

/* A step of the wall clock is told: it explains what the log, the mtimes and a later start show. */
static void
watch_clock(struct qmgr *q)
{
	int64_t offset = ev_wall_us() / 1000 - ev_now_us() / 1000, step = offset - q->clock_seen;

	q->clock_seen = offset;
	if (step > CLOCK_STEP_MS || step < -CLOCK_STEP_MS)
		log_event(LOG_clock_stepped, "by=%+.3fs", (double)step / 1000);
}

void
qmgr_arm(struct qmgr *q, int64_t at)
{
	int64_t now;

	if (at == INT64_MAX || (q->timer_at && q->timer_at <= at))
		return;
	now = qmgr_now(q);
	q->timer_at = at > now ? at : now;
	ev_timer_set(q->d->base, &q->timer, q->timer_at - now, on_timer, q);
}

/* What sched_tick hands back: its life is over, or its sender has to hear that it waits. */
static void
overdue(struct qmgr *q, struct sched_msg *sm, int64_t now)
{
	struct message *m = message_need(q, sm->id);

	message_pin(q, m);
	if (now >= sm->expires)
		m->expired = true;
	else
		m->late = true;
	if (!m->loading)
		message_overdue(q, m);
	message_unpin(q, m);
}

/* An upgrade: the successor runs, and this process commits what its receivers still bring. */
bool
qmgr_hands_over(const struct qmgr *q)
{
	return q->d->stopping && q->d->stop_how == 2;
}

void
qmgr_stop_if_idle(struct qmgr *q, int64_t now)
{
	if (!q->d->stopping)
		return;
	if (now >= q->stop_at ||
	    (TAILQ_EMPTY(&q->direct) && !pool_pending(q->pool) && !q->jobs_running &&
		!q->transactions.count && !(qmgr_hands_over(q) && q->receivers)))
		daemon_exit(q->d);
	else
		qmgr_arm(q, now + 20);
}

static void
on_timer(void *ctx)
{
	struct qmgr *q = ctx;
	int64_t now = qmgr_now(q);
	struct sched_msg *sm;
	int budget = 200;

	q->timer_at = 0;
	watch_clock(q);
	pool_collect(q->pool);
	deliver_timeouts(q, now);
	while (budget-- > 0 && (sm = sched_tick(q->sched, now)))
		overdue(q, sm, now);
	agents_idle(q, now);
	incoming_tidy(q);
	if (!TAILQ_EMPTY(&q->lists))
		control_turn(q);
	deliver_pump(q);
	qmgr_arm(q, sched_timer(q->sched) < now + 1 ? now + 1 : sched_timer(q->sched));
	qmgr_stop_if_idle(q, now);
}

/* --- IDs --- */

static void
reserved(struct pool_op *op)
{
	struct spool_op *o = (struct spool_op *)(void *)op;
	struct qmgr *q = o->owner;

	q->clock_asked = false;
	if (op->err)
		log_event(LOG_queue_clock,
		    "reason=%s effect=\"no new queue IDs when the reserve is used up\" "
		    "remedy=\"check the file clock in the queue directory\"",
		    log_cstr(err_str(op->err)));
	else
		q->ids.ceiling = o->units;
	spool_op_free(o);
}

struct spool_op *
qmgr_reserve(struct qmgr *q)
{
	uint64_t now = queue_id_units((uint64_t)ev_wall_us());
	struct spool_op *o = spool_op(&q->spool, SPOOL_CLOCK, 0, reserved, q, NULL);

	o->units = (now > q->ids.last ? now : q->ids.last) + CLOCK_AHEAD_UNITS;
	return o;
}

queue_id
qmgr_new_id(struct qmgr *q)
{
	uint64_t wall = (uint64_t)ev_wall_us(), now = queue_id_units(wall);
	queue_id id = queue_id_next(&q->ids, wall);

	if (now < q->ids.last)
		now = q->ids.last;
	if (!q->clock_asked && now + CLOCK_AHEAD_UNITS / 2 > q->ids.ceiling) {
		q->clock_asked = true;
		pool_submit(q->pool, &qmgr_reserve(q)->op);
	}
	return id;
}

/* --- limits --- */

static void
measured(struct pool_op *op)
{
	struct spool_op *o = (struct spool_op *)(void *)op;
	struct qmgr *q = o->owner;
	const struct conf *conf = q->d->conf;
	uint64_t want = (uint64_t)conf->queue_minfree,
		 least = (uint64_t)conf->message_size_limit * 3 / 2;
	bool low;

	/* Without a limit of the message's size there is no sum to take. */
	if (conf->message_size_limit > 0 && want < least)
		want = least;
	low = !op->err &&
	      (o->free_bytes < want || o->free_inodes < (uint64_t)conf->queue_minfree_inodes);
	if (low != q->low_space)
		log_event(low ? LOG_queue_space_low : LOG_queue_space_ok,
		    "free=%llu needed=%llu inodes=%llu effect=\"%s\"",
		    (unsigned long long)o->free_bytes, (unsigned long long)want,
		    (unsigned long long)o->free_inodes,
		    low ? "new mail gets 452; free space in the queue directory or lower "
			  "queue_minfree"
			: "new mail is accepted");
	q->low_space = low;
	spool_op_free(o);
}

unsigned int
qmgr_refuses(struct qmgr *q, uint64_t size, bool file, bool reserve, const char **enhanced_r,
    const char **text_r)
{
	const struct conf *conf = q->d->conf;
	int64_t now = qmgr_now(q);

	if (now >= q->next_space) {
		q->next_space = now + SPACE_EVERY_MS;
		pool_submit(q->pool, &spool_op(&q->spool, SPOOL_SPACE, 0, measured, q, NULL)->op);
	}
	*enhanced_r = "4.3.1";
	*text_r = "Insufficient system storage";
	if (conf->message_size_limit > 0 && size > (uint64_t)conf->message_size_limit + 65536) {
		*enhanced_r = "5.3.4";
		*text_r = "Message size exceeds fixed limit";
		return 552;
	}
	if (q->d->stopping && !qmgr_hands_over(q)) {
		*enhanced_r = "4.3.2";
		*text_r = "System is shutting down";
		return 451;
	}
	if (q->broken) {
		*enhanced_r = "4.3.0";
		*text_r = "Queue file write error";
		return 451;
	}
	if (!reserve && (q->low_space || q->memory > (size_t)conf->qmgr_inflight_limit ||
			    q->messages.count > (size_t)conf->qmgr_message_active_limit ||
			    (file && q->open_files >= q->open_limit)))
		return 452;
	return 0;
}

static bool
is_full(int err)
{
	return err == -ENOSPC || err == -EDQUOT;
}

static bool
is_short(int err)
{
	return err == -EMFILE || err == -ENFILE || err == -ENOMEM;
}

unsigned int
qmgr_disk_reply(int err, const char **enhanced_r, const char **text_r)
{
	bool room = is_full(err) || is_short(err);

	*enhanced_r = room ? "4.3.1" : "4.3.0";
	*text_r = is_full(err)    ? "Insufficient system storage"
		  : is_short(err) ? "Insufficient system resources"
				  : "Queue file write error";
	return room ? 452 : 451;
}

const char *
qmgr_disk_remedy(int err)
{
	return is_full(err)    ? "free space or inodes in queue_directory, or raise the quota"
	       : is_short(err) ? "raise the limits of open files and memory"
	       : err == -EACCES || err == -EPERM
		   ? "give what lies in queue_directory/queue to the user of qmgr (chown -R)"
		   : "check the disk of queue_directory and the kernel log";
}

static void
set(unsigned int *window, unsigned int *initial, int64_t max, const struct conf *conf)
{
	*window = (unsigned int)max;
	*initial = (unsigned int)(conf->initial_destination_concurrency < max
				      ? conf->initial_destination_concurrency
				      : max);
}

struct sched_limits
qmgr_limits(const struct conf *conf)
{
	struct sched_limits l = { .direct_max = (unsigned int)conf->direct_delivery_jobs,
		.failed_cohorts =
		    (unsigned int)conf->default_destination_concurrency_failed_cohort_limit,
		.rest_min_ms = conf->minimal_backoff_time,
		.rest_max_ms = conf->maximal_backoff_time,
		.deadline_ms = conf->direct_delivery_deadline,
		.late_ms = conf->delay_warning_time };

	set(&l.window_max[SCHED_LOCAL], &l.window_initial[SCHED_LOCAL],
	    conf->local_destination_concurrency_limit, conf);
	set(&l.window_max[SCHED_REMOTE], &l.window_initial[SCHED_REMOTE],
	    conf->smtp_destination_concurrency_limit, conf);
	l.pause_ms[SCHED_REMOTE] = conf->smtp_destination_rate_delay;
	l.class_max[SCHED_LOCAL] = 400;
	l.class_max[SCHED_REMOTE] = (unsigned int)conf->smtp_connections_per_process;
	l.class_max[SCHED_NOTICE] = 20;
	l.class_max[SCHED_UNROUTED] = 64;
	return l;
}
