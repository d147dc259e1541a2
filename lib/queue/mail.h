/* Numbers that receivers, qmgr, maps and the agents agree on; they travel in the messages of
 * lib/ipc/msgs.def. */
#ifndef QUEUE_MAIL_H
#define QUEUE_MAIL_H

/* flags of an envelope (mail_commit, jobs, queue file) */
enum mail_flag {
	MAIL_8BIT = 1 << 0,   /* BODY=8BITMIME */
	MAIL_BINARY = 1 << 1, /* BODY=BINARYMIME: opaque bytes, lines not checked */
	MAIL_UTF8 = 1 << 2,   /* SMTPUTF8 */
	MAIL_LOCAL = 1 << 3,  /* from sendmail(1) */
	MAIL_AUTHENTICATED = 1 << 4,
	MAIL_HOLD = 1 << 5,        /* goes into the hold state */
	MAIL_QUEUE_FIRST = 1 << 6, /* never the direct way */
	MAIL_PER_RCPT = 1 << 7,    /* the receiver wants a result per recipient (LMTP) */
	MAIL_NOTICE = 1 << 8,      /* a delivery status notification (from bounce) */
	MAIL_DEFER = 1 << 9,       /* the first attempt waits for minimal_backoff_time */
	MAIL_POSTMASTER = 1 << 10, /* a double bounce: if it fails too, that is only logged */
	MAIL_REPEAT =
	    1 << 11, /* of a job: an earlier attempt may have delivered it without saying so */
};

/* RET and NOTIFY of RFC 3461 */
enum mail_ret { RET_NONE, RET_FULL, RET_HDRS };
enum mail_notify {
	NOTIFY_NEVER = 1 << 0,
	NOTIFY_SUCCESS = 1 << 1,
	NOTIFY_FAILURE = 1 << 2,
	NOTIFY_DELAY = 1 << 3
};

/* kind of a route_answer */
enum route_kind { ROUTE_LOCAL, ROUTE_SMTP, ROUTE_LMTP, ROUTE_ERROR, ROUTE_DISCARD, ROUTE_HOLD };

/* what the delivery does with a recipient (route_answer.run, job_rcpt.run) */
enum run_kind {
	RUN_MAILBOX, /* the user's mailbox, .forward first where the flags say so */
	RUN_COMMAND, /* argument: a command line as aliases(5) gives it */
	RUN_FILE,    /* argument: a path */
	RUN_INCLUDE, /* argument: a path of a list of addresses */
	RUN_ALIAS,   /* the mailbox spec is "alias:" and the right-hand side of an alias; argument:
			the sender of what it expands to (owner-NAME), or empty */
};
/* flags of a route_answer and of deliver_start */
enum route_flag {
	ROUTE_FORWARD = 1 << 0, /* look at ~/.forward */
	ROUTE_VIRTUAL = 1 << 1, /* a virtual user: no home beyond the mail directory */
};

/* status of a rcpt_result */
enum result_status {
	RESULT_DONE, /* durable in the mailbox; of a next hop: it took the message but lacks DSN */
	RESULT_DEFERRED,  /* this recipient: later */
	RESULT_FAILED,    /* this recipient: never */
	RESULT_EXPANDED,  /* its new addresses are in expansions; with none it is done */
	RESULT_PASSED,    /* a next hop with DSN took the message, and the notices with it */
	RESULT_UNREACHED, /* later: the destination did not answer; counts against the site */
	RESULT_STATUSES,
};

/* kind of a bounce_job */
enum notice_kind { NOTICE_FAILURE = 1, NOTICE_DELAY = 2, NOTICE_SUCCESS = 3 };

#endif
