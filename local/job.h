/* One delivery job: content and recipients of one user, and the report about them. */
#ifndef LOCAL_JOB_H
#define LOCAL_JOB_H

#include "local/child.h"
#include "queue/mail.h"

/* Works a job off, closes the descriptor of its content, and sends its results to fd under the
 * job's id. Blocks. */
int job_run(struct child *c, struct msg *m, int fd) CHECKED;

/* --- shared by the files of a delivery --- */

struct job {
	struct child *child;
	const struct msg_deliver_job *m;
	uint32_t id;
	int fd;          /* to qmgr */
	int64_t told_us; /* when it last heard of this job */
	struct content content;
	struct arena arena; /* of the recipient at work */
};

struct outcome {
	enum result_status status;
	const char *enhanced;
	const char *text; /* in the arena */
	/* RESULT_EXPANDED: */
	struct slice sender;
	struct slice *addresses;
	size_t naddresses;
};

int outcome_set(
    struct outcome *o, enum result_status status, const char *enhanced, const char *text);
/* What an error of the disk means for a mailbox: over quota, full, or try again. */
int outcome_error(struct job *j, struct outcome *o, int err, const char *what);

/* Between two steps, of which each may take as long as one command: tells qmgr, which gives a job
 * up that says nothing for longer, that this one is at work. */
void job_sign(struct job *j);
/* Delivers to the mailbox of the user. */
void deliver_mailbox(struct job *j, const struct item_job_rcpt *rcpt, struct outcome *o);
/* Appends to a file that an alias or .forward names. */
void deliver_file(
    struct job *j, const struct item_job_rcpt *rcpt, struct slice path, struct outcome *o);
/* Runs a command line. admin: it comes from the configuration, $names in its words are filled in.
 */
void deliver_command(struct job *j, const struct item_job_rcpt *rcpt, struct slice line, bool admin,
    struct outcome *o);
/* .forward of the user: true if it decided about the recipient. */
bool deliver_forward(struct job *j, const struct item_job_rcpt *rcpt, struct outcome *o);
/* The items of an alias, all of them. */
void deliver_items(struct job *j, const struct item_job_rcpt *rcpt, const struct alias_items *items,
    bool from_alias, struct outcome *o);

/* Header lines put first: Return-Path, X-Original-To, Delivered-To. */
struct slice job_prelude(struct job *j, const struct item_job_rcpt *rcpt);
/* "From SENDER DATE\n" of mbox files and programs. */
struct slice job_from_line(struct job *j);

#endif
