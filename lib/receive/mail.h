/*
 * One message on its way to qmgr, over either carrier: small content in the record itself, large
 * content in a spool file that qmgr opens and this side fills.
 */
#ifndef RECEIVE_MAIL_H
#define RECEIVE_MAIL_H

#include "queue/mail.h"
#include "receive/receiver.h"

#define MAIL_WRITE_SIZE 65536u /* the most that is written to a spool file in one turn */

struct mail_ops {
	/* Content may be added again (after mail_add returned false), or the message has failed. */
	void (*ready)(void *ctx);
	/* The verdict: results per recipient in the order of the envelope, maybe none. */
	void (*result)(void *ctx, const struct reply *r, struct slice queue_id,
	    const struct msg_list *results);
};

struct mail {
	struct receiver *r;
	const struct mail_ops *ops;
	void *ctx;
	enum {
		MAIL_IDLE,
		MAIL_MEMORY,  /* in content */
		MAIL_OPENING, /* asked for a file; content grows meanwhile */
		MAIL_FILE,    /* content is what is not written yet */
		MAIL_COMMIT,  /* the envelope is out */
		MAIL_FAILED,
	} state;
	struct request request; /* to qmgr, from the first message to the result */
	struct buf content;
	bool wait;           /* the caller was told to wait for ready */
	bool hold_in_memory; /* do not open a file yet: the head may still change */
	int fd;
	char queue_id[33];
	char session[33]; /* named in the envelope; a positive result names it too */
	uint64_t limit, written;
	struct reply failure;
	char failure_text[600];
	char failure_enhanced[20];
};

struct mail_rcpt {
	struct slice address, orcpt, original;
	unsigned notify;
};

struct mail_envelope {
	const char *session;
	struct slice client; /* "name[address]" or the like, for the log and the rate limits */
	struct slice sender;
	uint32_t flags; /* enum mail_flag */
	unsigned ret;
	struct slice envid;
	struct slice token;
	uint64_t arrival; /* microseconds since the epoch */
	const struct mail_rcpt *rcpts;
	size_t count;
};

void mail_init(struct mail *m, struct receiver *r, const struct mail_ops *ops, void *ctx);
/* Starts a message; one under way is given up. */
void mail_begin(struct mail *m);
/* Adds content. False: enough for now, go on after ready. After a failure content is dropped. */
bool mail_add(struct mail *m, struct slice bytes);
/* Puts text at an offset of content that is still in memory (hold_in_memory). */
void mail_insert(struct mail *m, size_t at, struct slice text);
/* Content may go to a file from now on. */
void mail_release(struct mail *m);
/* NULL, or why the message cannot be taken. */
const struct reply *mail_failure(const struct mail *m);
/* The end of the content. Calls result once, maybe at once. */
void mail_commit(struct mail *m, const struct mail_envelope *e);
/* Gives up what is not committed; after mail_commit the message goes on, unheard. */
void mail_abort(struct mail *m);
void mail_free(struct mail *m);

#endif
