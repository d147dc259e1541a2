/* Unit tests of two processes of one role, as an upgrade has them for a while: what was given to
 * one comes back when that one ends, and only then; neither can answer for the other. */
#include "qmgr/deliver.h"
#include "ipc/ignore_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <unistd.h>

/* qmgr, with two processes of a role at the far ends. */
struct world {
	struct daemon d;
	struct qmgr q;
	struct ipc_chan *ours[2];
	int theirs[2];
};

static void
world_open(struct world *w, enum role peer)
{
	*w = (struct world){ .d = { .role = ROLE_QMGR } };
	w->d.base = event_base_new();
	w->d.io = ipc_io_new(w->d.base, ROLE_QMGR);
	w->q.d = &w->d;
	w->q.pumping = true; /* there is no schedule */
	TAILQ_INIT(&w->q.idle);
	TAILQ_INIT(&w->q.noticing);
	TAILQ_INIT(&w->q.expansions);
	TAILQ_INIT(&w->q.expansion_turns);
	for (int i = 0; i < 2; i++) {
		int fds[2];

		assert_int_equal(ipc_pair(fds), 0);
		w->ours[i] = ipc_chan_new(w->d.io, fds[0], peer, &ignore_ops, w);
		w->theirs[i] = fds[1];
	}
}

static void
world_close(struct world *w)
{
	for (int i = 0; i < 2; i++) {
		ipc_chan_free(&w->ours[i]);
		close(w->theirs[i]);
	}
	ipc_io_free(&w->d.io);
	event_base_free(w->d.base);
}

static struct message *
message(struct world *w)
{
	struct message *m = message_new(&w->q);

	message_pin(&w->q, m); /* it stays, whatever becomes of it */
	return m;
}

static void
message_end(struct message *m)
{
	arena_free(&m->arena);
	free(m->rcpts);
	free(m);
}

static void
test_notices(void **state)
{
	struct world w;
	struct message *m[2];
	struct msg done = MSG_INIT(MSG_BOUNCE_DONE, 8);

	(void)state;
	world_open(&w, ROLE_BOUNCE);
	for (int i = 0; i < 2; i++) {
		m[i] = message(&w);
		m[i]->state = MSG_DONE; /* nothing more is asked of it */
		m[i]->noticing = NOTIFY_FAILURE;
		m[i]->notice_id = 7 + (uint32_t)i;
		m[i]->notice_chan = w.ours[i];
		TAILQ_INSERT_TAIL(&w.q.noticing, m[i], notice);
	}
	notice_done(&w.q, w.ours[0], &done);
	assert_int_equal(w.q.odd, 1); /* it was not asked for that one */
	notice_link_down(&w.q, w.ours[0]);
	assert_int_equal(m[0]->noticing, 0);
	assert_int_equal(m[1]->noticing, NOTIFY_FAILURE);
	assert_ptr_equal(TAILQ_FIRST(&w.q.noticing), m[1]);
	notice_link_down(&w.q, w.ours[0]);
	assert_ptr_equal(TAILQ_FIRST(&w.q.noticing), m[1]);
	notice_link_down(&w.q, w.ours[1]);
	assert_true(TAILQ_EMPTY(&w.q.noticing));
	for (int i = 0; i < 2; i++)
		message_end(m[i]);
	world_close(&w);
}

/* An expansion of one recipient to one address, under way. */
static struct message *
expanding(struct world *w, struct ipc_chan *maps)
{
	struct message *m = message(w);
	struct item_expansion item = { .address = SLICE_LIT("x@far.test") };
	struct buf items = { 0 };

	w->d.peers[ROLE_MAPS] = maps;
	m->state = MSG_QUEUED;
	m->env.rcpts = arena_alloc(&m->arena, sizeof(*m->env.rcpts));
	m->env.rcpts[0] = (struct envelope_rcpt){ .address = SLICE_LIT("u@here.test") };
	m->env.n_rcpts = 1;
	envelope_status(&m->arena, &m->env.rcpts[0])->state = RCPT_IN_FLIGHT;
	m->counts[RCPT_IN_FLIGHT] = 1;
	m->rcpts = xcalloc(1, sizeof(*m->rcpts));
	item_expansion_add(&items, &item);
	expand_result(&w->q, m, 0, msg_list(&items, 1));
	buf_free(&items);
	m->state = MSG_DONE; /* what follows is another test's */
	return m;
}

static void
test_expansions(void **state)
{
	struct world w;
	struct message *m[2];
	struct buf in;
	struct msg asked, verdict = MSG_INIT(MSG_RCPT_VERDICT, 0);

	(void)state;
	world_open(&w, ROLE_MAPS);
	for (int i = 0; i < 2; i++)
		m[i] = expanding(&w, w.ours[i]);
	assert_int_equal(w.q.expansion_asked, 2);
	buf_init(&in, MSG_MAX);
	assert_int_equal(ipc_recv_fd(w.theirs[1], &in, &asked), 0);
	assert_int_equal(asked.type, MSG_RCPT_CHECK);
	verdict.id = asked.id;
	expand_verdict(&w.q, w.ours[0], &verdict);
	assert_int_equal(w.q.odd, 1);
	assert_int_equal(w.q.expansion_asked, 2);
	/* what the one did not answer the other is asked */
	expand_link_down(&w.q, w.ours[0]);
	assert_int_equal(ipc_recv_fd(w.theirs[1], &in, &asked), 0);
	assert_int_equal(asked.type, MSG_RCPT_CHECK);
	assert_int_not_equal(asked.id, verdict.id);
	/* nobody is there, then somebody is: both are asked again */
	w.d.peers[ROLE_MAPS] = NULL;
	expand_link_down(&w.q, w.ours[1]);
	assert_int_equal(w.q.expansion_asked, 2);
	w.d.peers[ROLE_MAPS] = w.ours[0];
	expand_link_up(&w.q);
	assert_int_equal(ipc_recv_fd(w.theirs[0], &in, &asked), 0); /* the first question, lost */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ipc_recv_fd(w.theirs[0], &in, &asked), 0);
		verdict.id = asked.id;
		verdict.rcpt_verdict.code = 450;
		expand_verdict(&w.q, w.ours[0], &verdict);
	}
	assert_int_equal(w.q.odd, 1);
	assert_int_equal(w.q.expansion_asked, 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(m[i]->env.rcpts[0].status->state, RCPT_DEFERRED);
	assert_true(TAILQ_EMPTY(&w.q.expansions));
	buf_free(&in);
	for (int i = 0; i < 2; i++)
		message_end(m[i]);
	world_close(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_notices),
		cmocka_unit_test(test_expansions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
