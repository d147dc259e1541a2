/*
 * qmgr: the queue manager. Runs as bh-queue in a root directory that is the spool. Hostile inputs:
 * envelopes of receivers, results of agents, answers of helpers, and the files of the spool; each
 * is judged in the file that takes it. This file: start and stop, and who speaks on which channel.
 * Invariant: the loop makes no call on the file system; the threads of the pool make nothing else.
 */
#include "qmgr/qmgr.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

#define STOP_WAIT_MS 5000
#define RATE_CLIENTS 100000u
#define HOUR_MS 3600000

/* --- peers --- */

static bool
is_receiver(enum role role)
{
	return msg_allowed(MSG_MAIL_COMMIT, role, ROLE_QMGR);
}

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
		expand_verdict(q, ch, m);
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
		notice_done(q, ch, m);
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
		notice_link_down(q, ch);
		break;
	case ROLE_SMTP_CLIENT:
	case ROLE_LOCAL:
		agents_link_down(q, ch);
		break;
	case ROLE_MAPS:
		expand_link_down(q, ch);
		break;
	default:
		control_link_down(q, ch);
	}
	deliver_pump(q);
}

/* --- life --- */

static size_t open_limit; /* asked before the jail, which refuses the question */

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
init(struct daemon *d)
{
	char why[256];
	int err = spool_prepare(d->root[0] ? d->root : ".", d->uid, d->gid, why, sizeof(why));

	open_limit = descriptor_limit();
	if (err)
		log_event(LOG_queue_prepare,
		    "reason=%s remedy=\"give the folder to the user of qmgr\"", log_cstr(why));
	return err;
}

static int
start(struct daemon *d)
{
	struct qmgr *q = xcalloc(1, sizeof(*q));
	struct sched_limits limits = qmgr_limits(d->conf);
	uint64_t floor;
	uint32_t random[2];
	char why[256] = "no random numbers";
	struct spool_op *o;
	int err;

	q->d = d;
	TAILQ_INIT(&q->idle);
	TAILQ_INIT(&q->direct);
	TAILQ_INIT(&q->replies);
	TAILQ_INIT(&q->noticing);
	TAILQ_INIT(&q->expansions);
	TAILQ_INIT(&q->expansion_turns);
	TAILQ_INIT(&q->route_lru);
	TAILQ_INIT(&q->asked);
	TAILQ_INIT(&q->to_ask);
	TAILQ_INIT(&q->bulk);
	TAILQ_INIT(&q->site_lru);
	TAILQ_INIT(&q->token_lru);
	TAILQ_INIT(&q->senders);
	TAILQ_INIT(&q->agents);
	TAILQ_INIT(&q->lists);
	q->clock_seen = q->clock_offset = ev_wall_us() / 1000 - ev_now_us() / 1000;
	q->open_limit = open_limit;
	rate_init(&q->rates, RATE_CLIENTS, d->conf->anvil_rate_time_unit);
	rate_init(&q->user_rates, RATE_CLIENTS, HOUR_MS);
	err = ERR_TEMPORARY;
	if (getrandom(random, sizeof(random), 0) == (ssize_t)sizeof(random))
		err = spool_open(&q->spool, random[0], &floor, why, sizeof(why));
	if (err) {
		log_event(LOG_queue_open, "reason=%s", log_cstr(why));
		return err;
	}
	queue_id_source_init(&q->ids, floor, q->spool.start);
	/* An answer to a question of the qmgr before must not fit one of ours. */
	q->next_id = random[1];
	/* The first IDs must be reserved before any is given; nothing runs yet, so this may block.
	 */
	o = qmgr_reserve(q);
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
	struct sched_limits limits = qmgr_limits(d->conf);

	(void)old;
	q->rates.unit_ms = d->conf->anvil_rate_time_unit;
	sched_set_limits(q->sched, &limits);
	route_changed(q);
	deliver_pump(q);
	qmgr_arm(q, qmgr_now(q)); /* times that got shorter */
}

static void
stop(struct daemon *d)
{
	struct qmgr *q = d->ctx;

	q->stop_at = qmgr_now(q) + (qmgr_hands_over(q) ? d->conf->upgrade_timeout : STOP_WAIT_MS);
	incoming_stop(q);
	qmgr_stop_if_idle(q, qmgr_now(q));
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
