/* Unit tests of jobs: qmgr and maps are played on the other ends of channels, and qmgr is replaced
 * while a job of the one before is under way. */
#include "helpers/bounce/bounce.h"

#include "daemon/private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#define TURNS 20000 /* of the loop, a millisecond each at most */

struct end {
	struct ipc_io *io;
	struct ipc_chan *far, *own;
	unsigned commits, dones;
	uint32_t commit_id, done_id;
	uint8_t status;
};

struct world {
	struct daemon d;
	struct daemon_private private;
	struct conf_raw *raw;
	struct conf_problems problems;
	struct end old, next, maps; /* old and next: qmgr */
	uint32_t check_id;
	unsigned checks;
};

static void
on_qmgr(struct end *e, const struct msg *m)
{
	if (m->type == MSG_MAIL_COMMIT) {
		e->commits++;
		e->commit_id = m->id;
	} else if (m->type == MSG_BOUNCE_DONE) {
		e->dones++;
		e->done_id = m->id;
		e->status = m->bounce_done.status;
		assert_true(slice_eq_str(m->bounce_done.about, "Q1"));
	}
}

static void
on_message(void *ctx, struct ipc_chan *ch, struct msg *m)
{
	struct world *w = ctx;

	if (ch == w->old.far) {
		on_qmgr(&w->old, m);
	} else if (ch == w->next.far) {
		on_qmgr(&w->next, m);
	} else if (ch == w->maps.far) {
		w->checks++;
		w->check_id = m->id;
	} else {
		bounce_desc.message(&w->d, ch, m);
	}
}

static void
on_closed(void *ctx, struct ipc_chan *ch, int err, const char *why)
{
	struct world *w = ctx;

	(void)err;
	(void)why;
	if (ch == w->old.own) {
		w->old.own = NULL;
		bounce_desc.link_down(&w->d, ch);
	}
}

static const struct ipc_ops ops = { on_message, on_closed };

static void
join(struct world *w, struct end *e, enum role peer)
{
	int fds[2];

	e->io = ipc_io_new(w->d.base, peer);
	assert_int_equal(ipc_pair(fds), 0);
	e->own = w->d.peers[peer] = ipc_chan_new(w->d.io, fds[0], peer, &ops, w);
	e->far = ipc_chan_new(e->io, fds[1], ROLE_BOUNCE, &ops, w);
}

static void
leave(struct end *e)
{
	ipc_chan_free(&e->far);
	ipc_chan_free(&e->own);
	ipc_io_free(&e->io);
}

static struct world *
world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));

	w->raw = conf_raw_new("me.test");
	conf_raw_read_files(w->raw, false);
	w->d = (struct daemon){ .role = ROLE_BOUNCE, .service = "bounce", .private = &w->private };
	w->d.conf = conf_eval(w->raw, NULL, 0, &w->problems);
	assert_int_equal(w->problems.errors, 0);
	w->d.base = ev_base_new();
	w->d.io = ipc_io_new(w->d.base, ROLE_BOUNCE);
	assert_int_equal(bounce_desc.start(&w->d), 0);
	join(w, &w->old, ROLE_QMGR);
	join(w, &w->maps, ROLE_MAPS);
	return w;
}

static void
world_free(struct world *w)
{
	leave(&w->old);
	leave(&w->next);
	leave(&w->maps);
	ipc_io_free(&w->d.io);
	event_base_free(w->d.base);
	conf_free(&w->d.conf);
	conf_raw_free(&w->raw);
	conf_problems_free(&w->problems);
	free(w->d.ctx);
	free(w);
}

/* Runs the loop until *n is at least want. */
static void
await(struct world *w, const unsigned *n, unsigned want)
{
	struct timeval tv = ev_ms(1);

	for (int turns = 0; *n < want; turns++) {
		assert_true(turns < TURNS);
		event_base_loopexit(w->d.base, &tv);
		event_base_loop(w->d.base, 0);
	}
}

static void
submit(struct world *w, struct end *e, uint32_t id)
{
	struct msg m = MSG_INIT(MSG_BOUNCE_JOB, id);
	struct buf rcpts = { 0 };

	item_bounce_rcpt_add(&rcpts, &(struct item_bounce_rcpt){ .address = SLICE_LIT("r@x.test"),
					 .enhanced = SLICE_LIT("5.1.1"),
					 .text = SLICE_LIT("nobody") });
	m.bounce_job.queue_id = SLICE_LIT("Q1");
	m.bounce_job.sender = SLICE_LIT("s@y.test");
	m.bounce_job.kind = NOTICE_FAILURE;
	m.bounce_job.content = SLICE_LIT("Subject: x\r\n\r\nx\r\n");
	m.bounce_job.size = m.bounce_job.content.n;
	m.bounce_job.rcpts = msg_list(&rcpts, 1);
	assert_int_equal(ipc_send(e->far, &m), 0);
	buf_free(&rcpts);
	await(w, &w->checks, w->checks + 1);
}

static void
say_where(struct world *w)
{
	struct msg m = MSG_INIT(MSG_RCPT_VERDICT, w->check_id);
	struct buf finals = { 0 };

	item_final_addr_add(&finals, &(struct item_final_addr){ SLICE_LIT("s@y.test") });
	m.rcpt_verdict.code = 250;
	m.rcpt_verdict.finals = msg_list(&finals, 1);
	assert_int_equal(ipc_send(w->maps.far, &m), 0);
	buf_free(&finals);
}

static void
accept_session(struct end *e, const char *session)
{
	struct msg m = MSG_INIT(MSG_MAIL_RESULT, e->commit_id);

	m.mail_result.code = 250;
	m.mail_result.queue_id = SLICE_LIT("Q2");
	m.mail_result.session = slice_str(session);
	assert_int_equal(ipc_send(e->far, &m), 0);
}

static void
accept_notice(struct end *e)
{
	accept_session(e, "Q1");
}

static void
whole_job(struct world *w, struct end *e, uint32_t id)
{
	submit(w, e, id);
	say_where(w);
	await(w, &e->commits, e->commits + 1);
	accept_notice(e);
	await(w, &e->dones, e->dones + 1);
	assert_int_equal(e->done_id, id);
	assert_int_equal(e->status, 0);
}

/* The successor has its link before the end of the one before is seen. */
static void
test_each_job_stays_with_its_qmgr(void **state)
{
	struct world *w = world_new();

	(void)state;
	submit(w, &w->old, 7);
	join(w, &w->next, ROLE_QMGR);
	say_where(w);
	await(w, &w->old.commits, 1);
	accept_notice(&w->old);
	await(w, &w->old.dones, 1);
	assert_int_equal(w->old.done_id, 7);
	whole_job(w, &w->next, 7);
	assert_int_equal(w->next.commits, 1);
	assert_int_equal(w->next.dones, 1);
	assert_int_equal(w->old.dones, 1);
	world_free(w);
}

/* What its predecessor asked for is none of the successor's business. */
static void
test_jobs_end_with_their_qmgr(void **state)
{
	struct world *w = world_new();
	struct timeval tv = ev_ms(1);

	(void)state;
	submit(w, &w->old, 7);
	join(w, &w->next, ROLE_QMGR);
	ipc_chan_free(&w->old.far);
	for (int turns = 0; w->old.own; turns++) {
		assert_true(turns < TURNS);
		event_base_loopexit(w->d.base, &tv);
		event_base_loop(w->d.base, 0);
	}
	say_where(w);
	/* In the order of the channels nothing of the dead job stands before this one. */
	whole_job(w, &w->next, 7);
	assert_int_equal(w->next.commits, 1);
	assert_int_equal(w->next.dones, 1);
	world_free(w);
}

/* An answer to an earlier question, or of another channel, decides nothing. */
static void
test_answers_count_where_they_were_asked(void **state)
{
	struct world *w = world_new();
	struct msg m = MSG_INIT(MSG_MAIL_RESULT, 0);

	(void)state;
	join(w, &w->next, ROLE_QMGR);
	submit(w, &w->old, 7);
	say_where(w);
	await(w, &w->old.commits, 1);
	m.id = w->old.commit_id;
	m.mail_result.code = 250;
	assert_int_equal(ipc_send(w->next.far, &m), 0);
	whole_job(w, &w->next, 9);
	assert_int_equal(w->old.dones, 0);
	accept_notice(&w->old);
	await(w, &w->old.dones, 1);
	world_free(w);
}

/* A notice is only durable when qmgr says so of this very one. */
static void
test_answer_names_the_message(void **state)
{
	struct world *w = world_new();

	(void)state;
	submit(w, &w->old, 7);
	say_where(w);
	await(w, &w->old.commits, 1);
	accept_session(&w->old, "Q9");
	await(w, &w->old.dones, 1);
	assert_int_equal(w->old.status, 1);
	whole_job(w, &w->old, 8);
	world_free(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_job_stays_with_its_qmgr),
		cmocka_unit_test(test_jobs_end_with_their_qmgr),
		cmocka_unit_test(test_answers_count_where_they_were_asked),
		cmocka_unit_test(test_answer_names_the_message),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
