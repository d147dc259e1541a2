/*
 * The words that all who handle a message share: flags of an envelope, notices asked for, routes,
 * results. They travel in messages of lib/ipc/msgs.def and stand in queue files, so a value never
 * changes its meaning.
 */
#ifndef QUEUE_MAIL_H
#define QUEUE_MAIL_H

/* Flags of an envelope (mail_commit, deliver_job, send_job, bounce_job). */
#define MAIL_8BITMIME 0x0001u      /* BODY=8BITMIME, or the content has bytes above 127 */
#define MAIL_BINARYMIME 0x0002u    /* BODY=BINARYMIME: not line-oriented */
#define MAIL_SMTPUTF8 0x0004u      /* SMTPUTF8 was given: needs it at the next hop */
#define MAIL_REQUIRETLS 0x0008u    /* RFC 8689 */
#define MAIL_HOLD 0x0010u          /* policy: to the hold state, not sent until released */
#define MAIL_QUEUE_FIRST 0x0020u   /* policy: never the direct way */
#define MAIL_DEFER 0x0040u         /* policy: the first attempt waits for minimal_backoff_time */
#define MAIL_SUBMITTED 0x0080u     /* from one of our users: submission, sendmail(1) */
#define MAIL_NOTICE 0x0100u        /* composed by bounce: takes bounce_queue_lifetime */
#define MAIL_TO_POSTMASTER 0x0200u /* a double bounce: its own failure is only logged */
#define MAIL_TRACE 0x0400u         /* sendmail -bv: a report whatever the result */
#define MAIL_NO_EXTENSION 0x0800u  /* reserved for addresses that must not be taken apart */

/* RET of MAIL FROM (RFC 3461); 0: not given. */
enum mail_ret {
	MAIL_RET_NONE = 0,
	MAIL_RET_FULL = 1,
	MAIL_RET_HDRS = 2,
};

/* NOTIFY of RCPT TO (RFC 3461), a bit each; 0: not given, which means failure and, by our
 * configuration, delay. NEVER stands alone. */
#define NOTIFY_SUCCESS 0x01u
#define NOTIFY_FAILURE 0x02u
#define NOTIFY_DELAY 0x04u
#define NOTIFY_NEVER 0x08u

/* Kinds of a route (route_answer). */
enum route_kind {
	ROUTE_LOCAL = 1,   /* a delivery child as the user of the answer */
	ROUTE_SMTP = 2,    /* smtp-client, SMTP */
	ROUTE_LMTP = 3,    /* smtp-client, LMTP */
	ROUTE_ERROR = 4,   /* fails (status 1) or is deferred (status 2) with the answer's text */
	ROUTE_DISCARD = 5, /* is delivered to nobody */
};

/* What a local recipient stands for (route_answer, job_rcpt). */
enum run_kind {
	RUN_MAILBOX = 1, /* .forward if there is one, else the mailbox */
	RUN_COMMAND = 2, /* argument: command line */
	RUN_FILE = 3,    /* argument: path of an mbox, or with a final / of a Maildir */
	RUN_INCLUDE = 4, /* argument: path of a list of addresses */
};

/* Status of one recipient in deliver_result and send_result (rcpt_result). */
enum result_status {
	RESULT_DELIVERED = 1, /* in the mailbox, durable */
	RESULT_RELAYED = 2,   /* a next hop without DSN took it: a success notice is ours */
	RESULT_PASSED = 3,    /* a next hop with DSN took it, and the notices with it */
	RESULT_EXPANDED = 4,  /* .forward or :include:; the addresses are in expansions */
	RESULT_DEFERRED = 5,  /* this recipient: later */
	RESULT_FAILED = 6,    /* this recipient: never */
	RESULT_UNREACHED =
	    7, /* later; the destination as a whole did not answer: counts against it */
};

/* kind of bounce_job. */
enum notice_kind {
	NOTICE_FAILURE = 1,
	NOTICE_DELAY = 2,
	NOTICE_SUCCESS = 3,
};

#endif
