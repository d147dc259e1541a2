/*
 * qmgr: the queue manager. Runs as bh-queue in a root directory that is the spool. Hostile inputs:
 * envelopes of receivers, results of agents, answers of helpers, and the files of the spool; each
 * is judged in the file that takes it. This file: start and stop, one timer for all that is due,
 * the limits of intake, and who speaks on which channel. Invariant: the loop makes no call on the
 * file system; the threads of the pool make nothing else.
 */
#include "qmgr/qmgr.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

#define CLOCK_AHEAD_UNITS ((uint64_t)60 * 500000) /* a minute of IDs is reserved at a time */
#define SPACE_EVERY_MS 1000
#define STOP_WAIT_MS 5000
#define RATE_CLIENTS 100000u

static void on_timer(void *ctx);

/* --- time --- */

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

static void
expire(struct qmgr *q, struct sched_msg *sm)
{
	struct message *m = message_need(q, sm->id);

	message_pin(q, m);
	if (m->loading)
		m->expired = true;
	else
		message_event(q, m, MSG_EXPIRED);
	message_unpin(q, m);
}

/* An upgrade: the successor runs, and this process commits what its receivers still bring. */
bool
qmgr_hands_over(const struct qmgr *q)
{
	return q->d->stopping && q->d->stop_how == 2;
}

static bool
is_receiver(enum role role)
{
	return msg_allowed(MSG_MAIL_COMMIT, role, ROLE_QMGR);
}

static void
stop_if_idle(struct qmgr *q, int64_t now)
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
	pool_collect(q->pool);
	deliver_timeouts(q, now);
	while (budget-- > 0 && (sm = sched_tick(q->sched, now)))
		expire(q, sm);
	agents_idle(q, now);
	if (!TAILQ_EMPTY(&q->lists))
		control_turn(q);
	deliver_pump(q);
	qmgr_arm(q, sched_timer(q->sched) < now + 1 ? now + 1 : sched_timer(q->sched));
	stop_if_idle(q, now);
}

/* --- IDs --- */

static void
reserved(struct pool_op *op)
{
	struct spool_op *o = (struct spool_op *)(void *)op;
	struct qmgr *q = o->owner;

	q->clock_asked = false;
	if (op->err)
		log_event(LOG_E, "queue-clock",
		    "reason=%s effect=\"no new queue IDs when the reserve is used up\" "
		    "remedy=\"check the file clock in the queue directory\"",
		    log_cstr(err_str(op->err)));
	else
		q->ids.ceiling = o->units;
	spool_op_free(o);
}

static struct spool_op *
reserve(struct qmgr *q)
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
		pool_submit(q->pool, &reserve(q)->op);
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
		log_event(low ? LOG_E : LOG_I, low ? "queue-space-low" : "queue-space-ok",
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
qmgr_refuses(
    struct qmgr *q, uint64_t size, bool reserve, const char **enhanced_r, const char **text_r)
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
	if (!reserve &&
	    (q->low_space || q->memory > (size_t)conf->qmgr_inflight_limit ||
		q->messages.count > (size_t)conf->qmgr_message_active_limit ||
		(size > (uint64_t)conf->small_message_limit && q->open_files >= q->open_limit)))
		return 452;
	return 0;
}

static void
set(unsigned int *window, unsigned int *initial, int64_t max, const struct conf *conf)
{
	*window = (unsigned int)max;
	*initial = (unsigned int)(conf->initial_destination_concurrency < max
				      ? conf->initial_destination_concurrency
				      : max);
}

static struct sched_limits
limits_of(const struct conf *conf)
{
	struct sched_limits l = { .direct_max = (unsigned int)conf->direct_delivery_jobs,
		.failed_cohorts =
		    (unsigned int)conf->default_destination_concurrency_failed_cohort_limit,
		.rest_min_ms = conf->minimal_backoff_time,
		.rest_max_ms = conf->maximal_backoff_time,
		.deadline_ms = conf->direct_delivery_deadline };

	set(&l.window_max[SCHED_LOCAL], &l.window_initial[SCHED_LOCAL],
	    conf->local_destination_concurrency_limit, conf);
	set(&l.window_max[SCHED_REMOTE], &l.window_initial[SCHED_REMOTE],
	    conf->smtp_destination_concurrency_limit, conf);
	l.pause_ms[SCHED_REMOTE] = conf->smtp_destination_rate_delay;
	l.class_max[SCHED_LOCAL] = 400;
	l.class_max[SCHED_REMOTE] = (unsigned int)(conf->smtp_connections_per_process < 2000
						       ? conf->smtp_connections_per_process
						       : 2000);
	l.class_max[SCHED_NOTICE] = 20;
	l.class_max[SCHED_UNROUTED] = 64;
	return l;
}

/* --- peers --- */

static void
on_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct qmgr *q = d->ctx;

	switch (m->type) {
	case MSG_MAIL_OPEN:
	case MSG_MAIL_RCPTS:
	case MSG_MAIL_COMMIT:
	case MSG_MAIL_ABORT:
	case MSG_RATE_CHECK:
		receive_message(q, ch, m);
		return;
	case MSG_ROUTE_ANSWER:
		route_answer(q, ch, m);
		deliver_pump(q);
		return;
	case MSG_MAPS_CHANGED:
		route_changed(q);
		return;
	case MSG_RCPT_VERDICT:
		expand_verdict(q, m);
		return;
	case MSG_SITE_ANSWER:
		site_answer(q, m);
		return;
	case MSG_MAP_VALUE:
		sender_answer(q, m);
		return;
	case MSG_TOKEN_USER:
		token_answer(q, m);
		return;
	case MSG_DELIVER_STARTED:
		agents_started(q, m);
		deliver_pump(q);
		return;
	case MSG_SEND_RESULT:
		deliver_result(q, ch, m);
		return;
	case MSG_BOUNCE_DONE:
		notice_done(q, m);
		return;
	default:
		q->odd++;
	}
}

static void
on_link_up(struct daemon *d, struct ipc_chan *ch)
{
	struct qmgr *q = d->ctx;
	enum role peer = ipc_chan_peer(ch);

	if (!q)
		return;
	q->receivers += is_receiver(peer);
	if (peer == ROLE_SMTP_CLIENT)
		agents_link_up(q, ch);
	route_link_up(q, peer);
	deliver_pump(q);
}

static void
on_link_down(struct daemon *d, struct ipc_chan *ch)
{
	struct qmgr *q = d->ctx;

	q->receivers -= is_receiver(ipc_chan_peer(ch));
	switch (ipc_chan_peer(ch)) {
	case ROLE_SMTPD_CHILD:
	case ROLE_SUBMISSION_CHILD:
	case ROLE_PICKUP:
		receive_link_down(q, ch);
		break;
	case ROLE_BOUNCE:
		receive_link_down(q, ch);
		notice_link_down(q);
		break;
	case ROLE_SMTP_CLIENT:
	case ROLE_LOCAL:
		agents_link_down(q, ch);
		break;
	case ROLE_MAPS:
		expand_link_down(q);
		break;
	default:
		control_link_down(q, ch);
	}
	deliver_pump(q);
}

/* --- life --- */

static int
init(struct daemon *d)
{
	char why[256];
	int err = spool_prepare(d->root[0] ? d->root : ".", d->uid, d->gid, why, sizeof(why));

	if (err)
		log_event(LOG_E, "queue-prepare",
		    "reason=%s remedy=\"give the folder to the user of qmgr\"", log_cstr(why));
	return err;
}

static size_t
descriptor_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r))
		return 256;
	/* Two descriptors a file at most; the rest is for channels. */
	return (size_t)(r.rlim_cur < 1000000 ? r.rlim_cur : 1000000) * 8 / 10 / 2;
}

static int
start(struct daemon *d)
{
	struct qmgr *q = xcalloc(1, sizeof(*q));
	struct sched_limits limits = limits_of(d->conf);
	uint64_t floor;
	uint32_t random[2];
	char why[256] = "no random numbers";
	struct spool_op *o;
	int err;

	q->d = d;
	TAILQ_INIT(&q->idle);
	TAILQ_INIT(&q->direct);
	TAILQ_INIT(&q->noticing);
	LIST_INIT(&q->expansions);
	TAILQ_INIT(&q->route_lru);
	TAILQ_INIT(&q->asked);
	TAILQ_INIT(&q->site_lru);
	TAILQ_INIT(&q->token_lru);
	TAILQ_INIT(&q->senders);
	TAILQ_INIT(&q->agents);
	TAILQ_INIT(&q->lists);
	q->clock_offset = ev_wall_us() / 1000 - ev_now_us() / 1000;
	q->open_limit = descriptor_limit();
	rate_init(&q->rates, RATE_CLIENTS, d->conf->anvil_rate_time_unit);
	err = ERR_TEMPORARY;
	if (getrandom(random, sizeof(random), 0) == (ssize_t)sizeof(random))
		err = spool_open(&q->spool, random[0], &floor, why, sizeof(why));
	if (err) {
		log_event(LOG_E, "queue-open", "reason=%s", log_cstr(why));
		return err;
	}
	queue_id_source_init(&q->ids, floor, q->spool.start);
	/* An answer to a question of the qmgr before must not fit one of ours. */
	q->next_id = random[1];
	/* The first IDs must be reserved before any is given; nothing runs yet, so this may block.
	 */
	o = reserve(q);
	o->op.work(&o->op);
	err = o->op.err;
	o->op.done(&o->op);
	if (err)
		return err;
	q->first_id = q->ids.last << 10;
	if (q->first_id < queue_id_units((uint64_t)ev_wall_us()) << 10)
		q->first_id = queue_id_units((uint64_t)ev_wall_us()) << 10;
	q->sched = sched_new(&limits);
	q->pool = pool_new(d->base, (unsigned int)d->conf->qmgr_commit_threads);
	d->ctx = q;
	recover_start(q);
	return 0;
}

static void
reload(struct daemon *d, const struct conf *old)
{
	struct qmgr *q = d->ctx;
	struct sched_limits limits = limits_of(d->conf);

	(void)old;
	q->rates.unit_ms = d->conf->anvil_rate_time_unit;
	sched_set_limits(q->sched, &limits);
	route_changed(q);
	deliver_pump(q);
}

static void
stop(struct daemon *d)
{
	struct qmgr *q = d->ctx;

	q->stop_at = qmgr_now(q) + (qmgr_hands_over(q) ? d->conf->upgrade_timeout : STOP_WAIT_MS);
	stop_if_idle(q, qmgr_now(q));
}

static void
status(struct daemon *d, struct buf *out)
{
	control_status(d, out);
}

int
main(int argc, char **argv)
{
	static const struct daemon_desc desc = {
		.role = ROLE_QMGR,
		.init = init,
		.start = start,
		.message = on_message,
		.link_up = on_link_up,
		.link_down = on_link_down,
		.reload = reload,
		.stop = stop,
		.control = control_request,
		.status = status,
	};

	return daemon_run(argc, argv, &desc);
}
