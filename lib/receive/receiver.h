/*
 * What every receiver of mail does with the daemons behind it: asks maps about recipients, hands
 * messages to qmgr. Used by the children of smtpd and submission, and by pickup. One loop, one
 * thread; nothing blocks but write(2) to a spool file that qmgr gave.
 */
#ifndef RECEIVE_RECEIVER_H
#define RECEIVE_RECEIVER_H

#include "base/arena.h"
#include "base/hash.h"
#include "daemon/daemon.h"
#include "smtp/reply.h"

#include <sys/queue.h>

/* --- requests: messages that are answered under their id --- */

struct receiver;
struct request;
/* m is NULL when the peer is gone: then the request is over. */
typedef void request_done(struct request *q, struct msg *m);

/* Embedded by its owner and zeroed before the first use. */
struct request {
	struct hash_node node;
	struct {
		struct ipc_chan *chan;
		uint64_t id;
	} key;
	struct receiver *r;
	request_done *done;
	void *ctx;
	bool active;
};

/* Sends m, whose id is set here, to the standing peer. ERR_CLOSED while there is none. The request
 * stays active, whatever comes, until request_end or the loss of the peer. */
int request_send(struct receiver *r, enum role peer, struct msg *m, struct request *q,
    request_done *done, void *ctx) CHECKED;
/* A further message under the same id. */
int request_more(struct request *q, struct msg *m) CHECKED;
/* Answers are no longer wanted; not active is fine. */
void request_end(struct request *q);

/* --- the receiver of a process --- */

struct verdict;
TAILQ_HEAD(verdicts, verdict);

struct receiver {
	struct daemon *d;
	struct hash requests;
	struct hash cache; /* positive verdicts of maps */
	struct verdicts cache_order;
	struct buf scratch, scratch2; /* lists of a message that is being sent */
	char session_prefix[8];
	uint32_t session_count;
};

void receiver_init(struct receiver *r, struct daemon *d);
/* An answer of maps, qmgr, dns or auth, or maps_changed. */
void receiver_message(struct receiver *r, struct ipc_chan *ch, struct msg *m);
void receiver_link_down(struct receiver *r, struct ipc_chan *ch);
/* A session id that is unique among all processes for long enough: at most 15 characters. */
void receiver_session_id(struct receiver *r, char out_r[16]);

/* --- recipients --- */

/* What maps said: a reply, and with 2xx the addresses that the recipient stands for. */
struct rcpt_answer {
	struct reply reply;
	struct slice finals; /* list of final_addr */
	uint32_t count;
};

struct rcpt_question {
	struct request request;
	struct slice key; /* flags and address, in memory of the caller's arena */
	void (*done)(void *ctx, const struct rcpt_answer *a);
	void *ctx;
};

enum rcpt_flag {
	RCPT_MAY_RELAY = 1,
	RCPT_LOCAL = 2,
	RCPT_SENDER = 8, /* the address is a sender: finals hold its rewritten form */
};

/* Calls done, at once when the answer is known. The answer is borrowed for the call. A peer that is
 * gone is answered with 451. */
void rcpt_ask(struct receiver *r, struct rcpt_question *q, struct arena *arena,
    struct slice address, struct slice sender, const char *client, uint32_t flags,
    void (*done)(void *ctx, const struct rcpt_answer *a), void *ctx);
void rcpt_cancel(struct rcpt_question *q);

#endif
