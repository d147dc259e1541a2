/*
 * The states of a message and of a recipient, and what happens on each event: DESIGN.md section 4
 * as tables. Pure: qmgr looks a cell up and does what it says.
 */
#ifndef QUEUE_STATE_H
#define QUEUE_STATE_H

enum msg_state {
	MSG_RECEIVING,  /* a receiver writes its content */
	MSG_SEALED,     /* envelope and content are complete, the client waits */
	MSG_DIRECT,     /* offered to the agents, not on disk, the client waits */
	MSG_COMMITTING, /* the pool makes it durable, the client waits */
	MSG_QUEUED,     /* durable and acknowledged */
	MSG_HELD,       /* as QUEUED, but no job starts */
	MSG_DONE,       /* to be forgotten */
	MSG_STATES,
};

enum msg_event {
	MSG_COMMIT_RECEIVED, /* mail_commit, checked and sealed */
	MSG_REFUSED,   /* not sealed: a writer is left, limits, the sender is not the user's */
	MSG_GO_DIRECT, /* the scheduler has free slots for all its recipients */
	MSG_GO_QUEUED,
	MSG_ALL_DONE,      /* every recipient is final and nothing is left to tell */
	MSG_ONLY_FAILED,   /* every recipient is FAILED, and the sender does not know */
	MSG_MIXED,         /* every recipient is final, some DONE, and there is something to tell */
	MSG_DEFERRAL,      /* a recipient is DEFERRED, or its agent died */
	MSG_DEADLINE,      /* direct_delivery_deadline has passed */
	MSG_EXPANDED,      /* .forward or :include: gave new addresses */
	MSG_COMMITTED,     /* the pool: file and name are durable */
	MSG_COMMIT_FAILED, /* ENOSPC, EIO: the client keeps the message */
	MSG_CLIENT_GONE,   /* client or receiver went away */
	MSG_HOLD,
	MSG_RELEASE,
	MSG_EXPIRED, /* its lifetime in the queue has passed */
	MSG_DELETE,  /* an administrator */
	MSG_EVENTS,
};

/* What to do, in this order, when several are set. */
enum msg_action {
	ACT_ODD = 1 << 0,          /* not possible by design: count and log, else nothing */
	ACT_OFFER = 1 << 1,        /* hand jobs to the agents at once, arm the deadline */
	ACT_COMMIT = 1 << 2,       /* give to the pool; what is known goes into the slots */
	ACT_FLUSH_SLOTS = 1 << 3,  /* write results that came during the commit */
	ACT_REPLY_OK = 1 << 4,     /* 250, if somebody still waits */
	ACT_REPLY_FAILED = 1 << 5, /* the first 5xx, if somebody still waits */
	ACT_REPLY_LATER = 1 << 6,  /* 451 or 452 by the cause, if somebody still waits */
	ACT_REMEMBER = 1 << 7,     /* keep the event: it is judged again when the commit is over */
	ACT_JUDGE = 1 << 8,        /* look at the recipients again: an event may be due */
	ACT_BOUNCE = 1 << 9,       /* notices first, durable, then judge */
	ACT_SCHEDULE = 1 << 10,    /* into the scheduler */
	ACT_UNSCHEDULE = 1 << 11,  /* out of the scheduler; jobs under way end by themselves */
	ACT_FAIL_REST = 1 << 12,   /* TODO and DEFERRED become FAILED 4.4.7, then judge */
	ACT_STOP_NEW = 1 << 13,    /* no further attempt; copies made stay */
	ACT_FORGET_CLIENT = 1 << 14, /* nobody waits any more */
	ACT_DROP = 1 << 15,   /* free it; close and remove a file that was never acknowledged */
	ACT_UNLINK = 1 << 16, /* free it and remove its file */
};

struct msg_step {
	enum msg_state next;
	unsigned int actions; /* enum msg_action */
};

enum rcpt_state {
	RCPT_TODO,
	RCPT_IN_FLIGHT,
	RCPT_DONE,
	RCPT_FAILED,
	RCPT_DEFERRED,
	RCPT_STATES,
};

enum rcpt_event {
	RCPT_DISPATCH,   /* its job was given to an agent */
	RCPT_DELIVERED,  /* reported */
	RCPT_REFUSED,    /* reported: never */
	RCPT_LATER,      /* reported: later */
	RCPT_AGENT_DIED, /* no report will come */
	RCPT_DUE,        /* its next attempt may start */
	RCPT_EXPIRED,    /* the message is too old */
	RCPT_EVENTS,
};

struct rcpt_step {
	enum rcpt_state next;
	_Bool odd; /* a final state never changes: a duplicate or unknown report is only counted */
};

struct msg_step msg_step(enum msg_state state, enum msg_event event);
struct rcpt_step rcpt_step(enum rcpt_state state, enum rcpt_event event);

/* For logs and listings; never NULL. */
const char *msg_state_name(enum msg_state state);
const char *msg_event_name(enum msg_event event);
const char *rcpt_state_name(enum rcpt_state state);

/* What the recipients of a message together mean: an enum msg_event, or -1 when there is nothing to
 * decide yet. counts: by state; untold: final recipients whose notice is due and not durable (in
 * DIRECT: all that FAILED, since the client waits for the answer). */
int msg_judge(const unsigned int counts[RCPT_STATES], unsigned int untold);

#endif
