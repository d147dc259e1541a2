/*
 * The envelope of a message: who sends it, to whom, what became of each recipient, and where the
 * content lies. In memory it is one arena; on disk it is the envelope record and the status slots
 * of a queue file (docs/QUEUE.md).
 */
#ifndef QUEUE_ENVELOPE_H
#define QUEUE_ENVELOPE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/hash.h"
#include "queue/id.h"
#include "queue/state.h"

#define ENVELOPE_ADDRESS_MAX 1024u
#define ENVELOPE_RECIPIENTS_MAX 65536u
#define ENVELOPE_EXTENTS_MAX 16u
/* The record of an envelope with the most recipients is smaller than this. */
#define ENVELOPE_RECORD_MAX ((size_t)256 << 20)

/* Of the files that are made, and of those of before, which are read and updated as they are. */
#define SLOT_SIZE 512u
#define SLOT_SIZE_OLD 256u
#define SLOT_TEXT_MAX 384u
#define RCPT_TEXT_MAX 512u
#define SLOT_REMOTE_MAX 98u

/* What is known of one recipient; the fixed-size part of a queue file. */
struct rcpt_status {
	enum rcpt_state state;
	unsigned int notices; /* NOTIFY_* bits of the notices that are durable */
	unsigned int attempts;
	uint64_t last_attempt; /* seconds since the epoch, 0: never */
	unsigned int enhanced[3];
	char text[RCPT_TEXT_MAX + 1];     /* the reply or reason; a slot holds its beginning */
	char remote[SLOT_REMOTE_MAX + 1]; /* the host that gave it, or empty */
};

struct envelope_rcpt {
	struct slice address;       /* final, what is delivered to */
	struct slice original;      /* as given at RCPT */
	struct slice orcpt;         /* ORCPT as given ("rfc822;..."), or empty */
	unsigned int notify;        /* NOTIFY_* */
	struct rcpt_status *status; /* NULL: TODO, never tried */
};

struct envelope_extent {
	uint64_t offset, length;
};

struct envelope {
	queue_id id;
	uint64_t arrival;    /* microseconds since the epoch */
	uint64_t size;       /* bytes of the message: the sum of the extents */
	unsigned int flags;  /* MAIL_* */
	unsigned int ret;    /* enum mail_ret */
	unsigned int hops;   /* expansions of .forward and :include: that led here */
	struct slice sender; /* empty: the null sender */
	struct slice envid;
	struct slice session; /* of the receiver, for the trace */
	struct slice client;
	struct slice user;       /* the login that auth confirmed, or empty */
	uint64_t content_digest; /* of a small content; 0: not taken */
	size_t n_extents, n_rcpts;
	struct envelope_extent extents[ENVELOPE_EXTENTS_MAX];
	struct envelope_rcpt *rcpts;
};

/* The status of a recipient, made in the arena at the first call. */
struct rcpt_status *envelope_status(struct arena *a, struct envelope_rcpt *r);
/* Sets code and texts, cut to the size of a slot and with control bytes replaced. */
void rcpt_status_set(
    struct rcpt_status *s, struct slice enhanced, struct slice text, struct slice remote);
/* "4.4.1", or "" when there is none. */
void rcpt_status_enhanced(const struct rcpt_status *s, char out_r[16]);

/* Appends the envelope record. */
void envelope_encode(const struct envelope *e, struct buf *out);
/* Reads a record; slices point into it, rcpts lie in the arena. ERR_CORRUPT. */
int envelope_decode(struct slice record, struct arena *a, struct envelope *out_r) CHECKED;

/* One slot of that size, one of the two. A slot that fails its check is read as TODO: a repeat,
 * never a loss. */
void slot_encode(const struct rcpt_status *s, size_t size, unsigned char *out_r);
int slot_decode(const unsigned char *in, size_t size, struct rcpt_status *out_r) CHECKED;

/* The digest of record and content: 64 bits against damage, not against an attacker. Never 0. */
uint64_t queue_digest(struct slice s);

#endif
