/* Unit test of the state tables: every cell, against the table of docs/QUEUE.md written out here.
 */
#include "queue/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

struct row {
	enum msg_state state;
	enum msg_event event;
	enum msg_state next;
	unsigned int actions;
};

static const struct row rows[] = {
	{ MSG_RECEIVING, MSG_COMMIT_RECEIVED, MSG_SEALED, 0 },
	{ MSG_RECEIVING, MSG_REFUSED, MSG_DONE, ACT_REPLY_LATER | ACT_DROP },
	{ MSG_RECEIVING, MSG_DEADLINE, MSG_RECEIVING, 0 },
	{ MSG_RECEIVING, MSG_CLIENT_GONE, MSG_DONE, ACT_FORGET_CLIENT | ACT_DROP },

	{ MSG_SEALED, MSG_REFUSED, MSG_DONE, ACT_REPLY_LATER | ACT_DROP },
	{ MSG_SEALED, MSG_GO_DIRECT, MSG_DIRECT, ACT_OFFER },
	{ MSG_SEALED, MSG_GO_QUEUED, MSG_COMMITTING, ACT_COMMIT },
	{ MSG_SEALED, MSG_CLIENT_GONE, MSG_SEALED, ACT_FORGET_CLIENT },

	{ MSG_DIRECT, MSG_ALL_DONE, MSG_DONE, ACT_REPLY_OK | ACT_DROP },
	{ MSG_DIRECT, MSG_ONLY_FAILED, MSG_DONE, ACT_REPLY_FAILED | ACT_DROP },
	{ MSG_DIRECT, MSG_MIXED, MSG_COMMITTING, ACT_COMMIT },
	{ MSG_DIRECT, MSG_DEFERRAL, MSG_COMMITTING, ACT_COMMIT },
	{ MSG_DIRECT, MSG_DEADLINE, MSG_COMMITTING, ACT_COMMIT },
	{ MSG_DIRECT, MSG_EXPANDED, MSG_COMMITTING, ACT_COMMIT },
	{ MSG_DIRECT, MSG_CLIENT_GONE, MSG_DIRECT, ACT_FORGET_CLIENT },

	{ MSG_COMMITTING, MSG_ALL_DONE, MSG_COMMITTING, ACT_REMEMBER },
	{ MSG_COMMITTING, MSG_ONLY_FAILED, MSG_COMMITTING, ACT_REMEMBER },
	{ MSG_COMMITTING, MSG_MIXED, MSG_COMMITTING, ACT_REMEMBER },
	{ MSG_COMMITTING, MSG_DEFERRAL, MSG_COMMITTING, ACT_REMEMBER },
	{ MSG_COMMITTING, MSG_DEADLINE, MSG_COMMITTING, 0 },
	{ MSG_COMMITTING, MSG_EXPANDED, MSG_COMMITTING, ACT_REMEMBER },
	{ MSG_COMMITTING, MSG_COMMITTED, MSG_QUEUED,
	    ACT_REPLY_OK | ACT_FLUSH_SLOTS | ACT_SCHEDULE | ACT_JUDGE },
	{ MSG_COMMITTING, MSG_COMMIT_FAILED, MSG_DONE, ACT_REPLY_LATER | ACT_STOP_NEW | ACT_DROP },
	{ MSG_COMMITTING, MSG_CLIENT_GONE, MSG_COMMITTING, ACT_FORGET_CLIENT },

	{ MSG_QUEUED, MSG_ALL_DONE, MSG_DONE, ACT_UNSCHEDULE | ACT_UNLINK },
	{ MSG_QUEUED, MSG_ONLY_FAILED, MSG_QUEUED, ACT_FLUSH_SLOTS | ACT_BOUNCE },
	{ MSG_QUEUED, MSG_MIXED, MSG_QUEUED, ACT_FLUSH_SLOTS | ACT_BOUNCE },
	{ MSG_QUEUED, MSG_DEFERRAL, MSG_QUEUED, ACT_FLUSH_SLOTS | ACT_BOUNCE },
	{ MSG_QUEUED, MSG_DEADLINE, MSG_QUEUED, ACT_REPLY_OK | ACT_JUDGE },
	{ MSG_QUEUED, MSG_EXPANDED, MSG_QUEUED, ACT_JUDGE },
	{ MSG_QUEUED, MSG_CLIENT_GONE, MSG_QUEUED, ACT_FORGET_CLIENT | ACT_JUDGE },
	{ MSG_QUEUED, MSG_HOLD, MSG_HELD, ACT_UNSCHEDULE },
	{ MSG_QUEUED, MSG_RELEASE, MSG_QUEUED, 0 },
	{ MSG_QUEUED, MSG_EXPIRED, MSG_QUEUED, ACT_FAIL_REST | ACT_FLUSH_SLOTS | ACT_JUDGE },
	{ MSG_QUEUED, MSG_DELETE, MSG_DONE, ACT_REPLY_OK | ACT_UNSCHEDULE | ACT_UNLINK },

	{ MSG_HELD, MSG_ALL_DONE, MSG_DONE, ACT_UNSCHEDULE | ACT_UNLINK },
	{ MSG_HELD, MSG_ONLY_FAILED, MSG_HELD, ACT_FLUSH_SLOTS | ACT_BOUNCE },
	{ MSG_HELD, MSG_MIXED, MSG_HELD, ACT_FLUSH_SLOTS | ACT_BOUNCE },
	{ MSG_HELD, MSG_DEFERRAL, MSG_HELD, ACT_FLUSH_SLOTS | ACT_BOUNCE },
	{ MSG_HELD, MSG_DEADLINE, MSG_HELD, ACT_REPLY_OK | ACT_JUDGE },
	{ MSG_HELD, MSG_EXPANDED, MSG_HELD, ACT_JUDGE },
	{ MSG_HELD, MSG_CLIENT_GONE, MSG_HELD, ACT_FORGET_CLIENT | ACT_JUDGE },
	{ MSG_HELD, MSG_HOLD, MSG_HELD, 0 },
	{ MSG_HELD, MSG_RELEASE, MSG_QUEUED, ACT_SCHEDULE | ACT_JUDGE },
	{ MSG_HELD, MSG_EXPIRED, MSG_HELD, ACT_FAIL_REST | ACT_FLUSH_SLOTS | ACT_JUDGE },
	{ MSG_HELD, MSG_DELETE, MSG_DONE, ACT_REPLY_OK | ACT_UNSCHEDULE | ACT_UNLINK },

	{ MSG_DONE, MSG_ALL_DONE, MSG_DONE, 0 },
	{ MSG_DONE, MSG_ONLY_FAILED, MSG_DONE, 0 },
	{ MSG_DONE, MSG_MIXED, MSG_DONE, 0 },
	{ MSG_DONE, MSG_DEFERRAL, MSG_DONE, 0 },
	{ MSG_DONE, MSG_DEADLINE, MSG_DONE, 0 },
	{ MSG_DONE, MSG_EXPANDED, MSG_DONE, 0 },
	{ MSG_DONE, MSG_CLIENT_GONE, MSG_DONE, ACT_FORGET_CLIENT },
	{ MSG_DONE, MSG_EXPIRED, MSG_DONE, 0 },
};

static void
test_messages(void **state)
{
	(void)state;
	for (int s = 0; s < MSG_STATES; s++)
		for (int e = 0; e < MSG_EVENTS; e++) {
			struct msg_step got = msg_step((enum msg_state)s, (enum msg_event)e);
			struct msg_step want = { (enum msg_state)s, ACT_ODD };

			for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
				if ((int)rows[i].state == s && (int)rows[i].event == e)
					want = (struct msg_step){ rows[i].next, rows[i].actions };
			if (got.next != want.next || got.actions != want.actions)
				fail_msg("%s, %s: next %s, actions %x",
				    msg_state_name((enum msg_state)s),
				    msg_event_name((enum msg_event)e), msg_state_name(got.next),
				    got.actions);
			/* The two rules that nothing acknowledged is lost rests on. */
			if (got.actions & ACT_REPLY_OK)
				assert_true((s == MSG_DIRECT && e == MSG_ALL_DONE) ||
					    (s == MSG_COMMITTING && e == MSG_COMMITTED) ||
					    s == MSG_QUEUED || s == MSG_HELD);
			if (got.actions & ACT_UNLINK)
				assert_true((s == MSG_QUEUED || s == MSG_HELD) &&
					    (e == MSG_ALL_DONE || e == MSG_DELETE));
			if (got.actions & (ACT_DROP | ACT_UNLINK))
				assert_int_equal(got.next, MSG_DONE);
		}
}

/* Rows: state before. Columns: dispatch, delivered, refused, later, agent died, due, expired. */
static const char *const rcpt_rows[RCPT_STATES] = {
	[RCPT_TODO] = "I D F L T T F",
	[RCPT_IN_FLIGHT] = "i D F L L I I",
	[RCPT_DONE] = "d d d d D D D",
	[RCPT_FAILED] = "f f f f F F F",
	[RCPT_DEFERRED] = "I D F L L T F",
};

static void
test_recipients(void **state)
{
	static const char letters[] = "TIDFL"; /* lower case: odd */

	(void)state;
	for (int s = 0; s < RCPT_STATES; s++)
		for (int e = 0; e < RCPT_EVENTS; e++) {
			struct rcpt_step got = rcpt_step((enum rcpt_state)s, (enum rcpt_event)e);
			char c = letters[got.next];

			if (got.odd)
				c = (char)(c + 32);
			if (c != rcpt_rows[s][2 * e])
				fail_msg(
				    "%s, event %d: %c", rcpt_state_name((enum rcpt_state)s), e, c);
		}
}

static void
test_judge(void **state)
{
	static const struct {
		unsigned int counts[RCPT_STATES], untold;
		int want;
	} t[] = {
		{ { 1, 0, 0, 0, 0 }, 0, -1 },
		{ { 0, 1, 3, 0, 0 }, 0, -1 },
		{ { 0, 1, 0, 1, 0 }, 1, -1 },
		{ { 0, 0, 2, 0, 0 }, 0, MSG_ALL_DONE },
		{ { 0, 0, 0, 2, 0 }, 2, MSG_ONLY_FAILED },
		{ { 0, 0, 0, 2, 0 }, 0, MSG_ALL_DONE },
		{ { 0, 0, 1, 1, 0 }, 1, MSG_MIXED },
		{ { 0, 0, 1, 0, 0 }, 1, MSG_MIXED },
		{ { 0, 0, 1, 1, 1 }, 1, MSG_DEFERRAL },
		{ { 1, 1, 0, 0, 1 }, 0, MSG_DEFERRAL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++)
		assert_int_equal(msg_judge(t[i].counts, t[i].untold), t[i].want);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_recipients),
		cmocka_unit_test(test_judge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
