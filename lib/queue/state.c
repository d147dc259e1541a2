/*
 * The state machine of the queue as two tables. Runs in qmgr; pure. An empty cell is an event that
 * cannot come in that state unless a peer misbehaves: it is counted, and nothing changes.
 *
 * Why nothing acknowledged is lost: ACT_REPLY_OK stands only after all recipients are durable
 * elsewhere (DIRECT), or at and after the commit (later than at it where LMTP waits for the results
 * of single recipients). ACT_UNLINK stands only where every
 * recipient is final and what has to be told was made durable before (ACT_BOUNCE, then judge), or
 * where an administrator said so.
 */
#include "queue/state.h"

#define STEP(next, actions)                                                                        \
	{                                                                                          \
		next, (actions) | 1u << 31                                                         \
	}
#define SET (1u << 31)

static const struct msg_step table[MSG_STATES][MSG_EVENTS] = {
	[MSG_RECEIVING] = {
		[MSG_COMMIT_RECEIVED] = STEP(MSG_SEALED, 0),
		[MSG_REFUSED] = STEP(MSG_DONE, ACT_REPLY_LATER | ACT_DROP),
		[MSG_CLIENT_GONE] = STEP(MSG_DONE, ACT_FORGET_CLIENT | ACT_DROP),
		[MSG_DEADLINE] = STEP(MSG_RECEIVING, 0),
	},
	[MSG_SEALED] = {
		[MSG_REFUSED] = STEP(MSG_DONE, ACT_REPLY_LATER | ACT_DROP),
		[MSG_GO_DIRECT] = STEP(MSG_DIRECT, ACT_OFFER),
		[MSG_GO_QUEUED] = STEP(MSG_COMMITTING, ACT_COMMIT),
		[MSG_CLIENT_GONE] = STEP(MSG_SEALED, ACT_FORGET_CLIENT),
	},
	[MSG_DIRECT] = {
		[MSG_ALL_DONE] = STEP(MSG_DONE, ACT_REPLY_OK | ACT_DROP),
		[MSG_ONLY_FAILED] = STEP(MSG_DONE, ACT_REPLY_FAILED | ACT_DROP),
		[MSG_MIXED] = STEP(MSG_COMMITTING, ACT_COMMIT),
		[MSG_DEFERRAL] = STEP(MSG_COMMITTING, ACT_COMMIT),
		[MSG_DEADLINE] = STEP(MSG_COMMITTING, ACT_COMMIT),
		[MSG_EXPANDED] = STEP(MSG_COMMITTING, ACT_COMMIT),
		[MSG_CLIENT_GONE] = STEP(MSG_DIRECT, ACT_FORGET_CLIENT),
	},
	[MSG_COMMITTING] = {
		[MSG_ALL_DONE] = STEP(MSG_COMMITTING, ACT_REMEMBER),
		[MSG_ONLY_FAILED] = STEP(MSG_COMMITTING, ACT_REMEMBER),
		[MSG_MIXED] = STEP(MSG_COMMITTING, ACT_REMEMBER),
		[MSG_DEFERRAL] = STEP(MSG_COMMITTING, ACT_REMEMBER),
		[MSG_DEADLINE] = STEP(MSG_COMMITTING, 0),
		[MSG_EXPANDED] = STEP(MSG_COMMITTING, ACT_REMEMBER),
		[MSG_COMMITTED] = STEP(MSG_QUEUED, ACT_REPLY_OK | ACT_FLUSH_SLOTS | ACT_SCHEDULE | ACT_JUDGE),
		[MSG_COMMIT_FAILED] = STEP(MSG_DONE, ACT_REPLY_LATER | ACT_STOP_NEW | ACT_DROP),
		[MSG_CLIENT_GONE] = STEP(MSG_COMMITTING, ACT_FORGET_CLIENT),
	},
	[MSG_QUEUED] = {
		[MSG_ALL_DONE] = STEP(MSG_DONE, ACT_UNSCHEDULE | ACT_UNLINK),
		[MSG_ONLY_FAILED] = STEP(MSG_QUEUED, ACT_FLUSH_SLOTS | ACT_BOUNCE),
		[MSG_MIXED] = STEP(MSG_QUEUED, ACT_FLUSH_SLOTS | ACT_BOUNCE),
		[MSG_DEFERRAL] = STEP(MSG_QUEUED, ACT_FLUSH_SLOTS | ACT_BOUNCE),
		[MSG_DEADLINE] = STEP(MSG_QUEUED, ACT_REPLY_OK | ACT_JUDGE),
		[MSG_EXPANDED] = STEP(MSG_QUEUED, ACT_JUDGE),
		[MSG_CLIENT_GONE] = STEP(MSG_QUEUED, ACT_FORGET_CLIENT | ACT_JUDGE),
		[MSG_HOLD] = STEP(MSG_HELD, ACT_UNSCHEDULE),
		[MSG_RELEASE] = STEP(MSG_QUEUED, 0),
		[MSG_EXPIRED] = STEP(MSG_QUEUED, ACT_FAIL_REST | ACT_FLUSH_SLOTS | ACT_JUDGE),
		[MSG_DELETE] = STEP(MSG_DONE, ACT_REPLY_OK | ACT_UNSCHEDULE | ACT_UNLINK),
	},
	[MSG_HELD] = {
		/* Jobs that were under way when the hold came still report. */
		[MSG_ALL_DONE] = STEP(MSG_DONE, ACT_UNSCHEDULE | ACT_UNLINK),
		[MSG_ONLY_FAILED] = STEP(MSG_HELD, ACT_FLUSH_SLOTS | ACT_BOUNCE),
		[MSG_MIXED] = STEP(MSG_HELD, ACT_FLUSH_SLOTS | ACT_BOUNCE),
		[MSG_DEFERRAL] = STEP(MSG_HELD, ACT_FLUSH_SLOTS | ACT_BOUNCE),
		[MSG_DEADLINE] = STEP(MSG_HELD, ACT_REPLY_OK | ACT_JUDGE),
		[MSG_EXPANDED] = STEP(MSG_HELD, ACT_JUDGE),
		[MSG_CLIENT_GONE] = STEP(MSG_HELD, ACT_FORGET_CLIENT | ACT_JUDGE),
		[MSG_HOLD] = STEP(MSG_HELD, 0),
		[MSG_RELEASE] = STEP(MSG_QUEUED, ACT_SCHEDULE | ACT_JUDGE),
		[MSG_EXPIRED] = STEP(MSG_HELD, ACT_FAIL_REST | ACT_FLUSH_SLOTS | ACT_JUDGE),
		[MSG_DELETE] = STEP(MSG_DONE, ACT_REPLY_OK | ACT_UNSCHEDULE | ACT_UNLINK),
	},
	[MSG_DONE] = {
		/* Somebody still holds a job of it: late reports, timers and goodbyes. */
		[MSG_ALL_DONE] = STEP(MSG_DONE, 0),
		[MSG_ONLY_FAILED] = STEP(MSG_DONE, 0),
		[MSG_MIXED] = STEP(MSG_DONE, 0),
		[MSG_DEFERRAL] = STEP(MSG_DONE, 0),
		[MSG_DEADLINE] = STEP(MSG_DONE, 0),
		[MSG_EXPANDED] = STEP(MSG_DONE, 0),
		[MSG_CLIENT_GONE] = STEP(MSG_DONE, ACT_FORGET_CLIENT),
		[MSG_EXPIRED] = STEP(MSG_DONE, 0),
	},
};

struct msg_step
msg_step(enum msg_state state, enum msg_event event)
{
	struct msg_step s = table[state][event];

	if (!(s.actions & SET))
		return (struct msg_step){ state, ACT_ODD };
	s.actions &= ~SET;
	return s;
}

#define TO(next)                                                                                   \
	{                                                                                          \
		next, 0                                                                            \
	}
#define ODD(next)                                                                                  \
	{                                                                                          \
		next, 1                                                                            \
	}

static const struct rcpt_step rcpt_table[RCPT_STATES][RCPT_EVENTS] = {
	[RCPT_TODO] = {
		[RCPT_DISPATCH] = TO(RCPT_IN_FLIGHT),
		/* A report after the job's deadline made it TODO again: it counts all the same. */
		[RCPT_DELIVERED] = TO(RCPT_DONE),
		[RCPT_REFUSED] = TO(RCPT_FAILED),
		[RCPT_LATER] = TO(RCPT_DEFERRED),
		[RCPT_AGENT_DIED] = TO(RCPT_TODO),
		[RCPT_DUE] = TO(RCPT_TODO),
		[RCPT_EXPIRED] = TO(RCPT_FAILED),
	},
	[RCPT_IN_FLIGHT] = {
		[RCPT_DISPATCH] = ODD(RCPT_IN_FLIGHT),
		[RCPT_DELIVERED] = TO(RCPT_DONE),
		[RCPT_REFUSED] = TO(RCPT_FAILED),
		[RCPT_LATER] = TO(RCPT_DEFERRED),
		[RCPT_AGENT_DIED] = TO(RCPT_DEFERRED),
		[RCPT_DUE] = TO(RCPT_IN_FLIGHT),
		/* The agent may be just past the final dot: its report decides. */
		[RCPT_EXPIRED] = TO(RCPT_IN_FLIGHT),
	},
	[RCPT_DONE] = {
		[RCPT_DISPATCH] = ODD(RCPT_DONE),
		[RCPT_DELIVERED] = ODD(RCPT_DONE),
		[RCPT_REFUSED] = ODD(RCPT_DONE),
		[RCPT_LATER] = ODD(RCPT_DONE),
		[RCPT_AGENT_DIED] = TO(RCPT_DONE),
		[RCPT_DUE] = TO(RCPT_DONE),
		[RCPT_EXPIRED] = TO(RCPT_DONE),
	},
	[RCPT_FAILED] = {
		[RCPT_DISPATCH] = ODD(RCPT_FAILED),
		[RCPT_DELIVERED] = ODD(RCPT_FAILED),
		[RCPT_REFUSED] = ODD(RCPT_FAILED),
		[RCPT_LATER] = ODD(RCPT_FAILED),
		[RCPT_AGENT_DIED] = TO(RCPT_FAILED),
		[RCPT_DUE] = TO(RCPT_FAILED),
		[RCPT_EXPIRED] = TO(RCPT_FAILED),
	},
	[RCPT_DEFERRED] = {
		[RCPT_DISPATCH] = TO(RCPT_IN_FLIGHT),
		[RCPT_DELIVERED] = TO(RCPT_DONE),
		[RCPT_REFUSED] = TO(RCPT_FAILED),
		[RCPT_LATER] = TO(RCPT_DEFERRED),
		[RCPT_AGENT_DIED] = TO(RCPT_DEFERRED),
		[RCPT_DUE] = TO(RCPT_TODO),
		[RCPT_EXPIRED] = TO(RCPT_FAILED),
	},
};

struct rcpt_step
rcpt_step(enum rcpt_state state, enum rcpt_event event)
{
	return rcpt_table[state][event];
}

int
msg_judge(const unsigned int counts[RCPT_STATES], unsigned int untold)
{
	/* The first deferral decides the way of a direct message; it need not wait for the rest. */
	if (counts[RCPT_DEFERRED])
		return MSG_DEFERRAL;
	if (counts[RCPT_TODO] || counts[RCPT_IN_FLIGHT])
		return -1;
	if (!untold)
		return MSG_ALL_DONE;
	return counts[RCPT_DONE] ? MSG_MIXED : MSG_ONLY_FAILED;
}

const char *
msg_state_name(enum msg_state state)
{
	static const char *const names[MSG_STATES] = { "receiving", "sealed", "direct",
		"committing", "queued", "held", "done" };

	return names[state];
}

const char *
msg_event_name(enum msg_event event)
{
	static const char *const names[MSG_EVENTS] = { "commit_received", "refused", "go_direct",
		"go_queued", "all_done", "only_failed", "mixed", "deferral", "deadline", "expanded",
		"committed", "commit_failed", "client_gone", "hold", "release", "expired",
		"delete" };

	return names[event];
}

const char *
rcpt_state_name(enum rcpt_state state)
{
	static const char *const names[RCPT_STATES] = { "todo", "in_flight", "done", "failed",
		"deferred" };

	return names[state];
}
