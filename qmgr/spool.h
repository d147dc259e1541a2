/*
 * Operations on the files of the spool, for the pool. The loop makes one with spool_op, fills it in
 * and submits it; all descriptors in it belong to the operation until it is done.
 *
 * Below the root of qmgr: a folder for each of the 32 characters of a queue ID, incoming/ (see
 * incoming.h), corrupt/, and the file clock, whose 10 bytes say up to which time IDs may have been
 * given, and by which start.
 */
#ifndef QMGR_SPOOL_H
#define QMGR_SPOOL_H

#include "qmgr/pool.h"
#include "queue/file.h"

struct spool {
	int dirs[QUEUE_DIRS]; /* the folders, open for as long as qmgr lives */
	int incoming, corrupt, root;
	unsigned int start; /* the bits of this start in its queue IDs */
	bool sync_dirs;     /* the file system does not make a new name durable with its file */
};

enum spool_kind {
	SPOOL_CREATE, /* in incoming/, for a receiver: fd (write only) and read_fd come back */
	SPOOL_SEAL,   /* read_fd: no writer is left; size comes back */
	SPOOL_COMMIT, /* content (small) and tail, or tail behind the content of a sealed file,
			 which moves into its folder; fsync */
	SPOOL_UPDATE, /* slots and the time of the next attempt, or the mode */
	SPOOL_UNLINK,
	SPOOL_LOAD,    /* envelope, and content (small) or read_fd (large) */
	SPOOL_CORRUPT, /* into corrupt/ */
	SPOOL_SPACE,   /* free bytes and inodes */
	SPOOL_CLOCK,   /* reserve IDs up to units */
	SPOOL_WALK,    /* one folder or incoming/, SPOOL_WALK_BATCH files a time */
};

struct spool_slot {
	uint32_t rcpt;
	unsigned char bytes[SLOT_SIZE];
};

/* A file that the walk found. */
struct spool_found {
	queue_id id;
	int err;         /* ERR_NOT_FOUND: no footer; ERR_CORRUPT; or that of the system */
	bool open;       /* a receiver was writing it */
	bool held, junk; /* junk: its name is no queue ID */
	int64_t mtime_ms;
	uint64_t arrival, size;
	unsigned int flags;
	unsigned int open_rcpts; /* 0: all are final, and only notices or the unlink are missing */
	char name[64];
	char sender[ENVELOPE_ADDRESS_MAX + 1];
	char domain[256], reason[SLOT_TEXT_MAX + 32]; /* of the first open recipient */
};

#define SPOOL_WALK_BATCH 64u

struct spool_op {
	struct pool_op op; /* first */
	void *owner;       /* of the loop: struct qmgr */
	const struct spool *spool;
	enum spool_kind kind;
	queue_id id;
	char name[QUEUE_ID_SIZE];
	void *ctx; /* the loop's */
	/* descriptors, -1 */
	int fd, read_fd;
	bool incoming; /* UNLINK, WALK: of incoming/ */
	/* COMMIT */
	bool new_file;
	queue_id made_as; /* else: its name in incoming/ */
	struct slice
	    content; /* borrowed from the message, which does not change or end meanwhile */
	struct buf tail;
	uint64_t offset;
	size_t n_copy; /* of read_fd: extents that follow the content */
	struct envelope_extent copy[ENVELOPE_EXTENTS_MAX];
	/* UPDATE */
	struct spool_slot *slots;
	size_t n_slots;
	struct queue_layout layout;
	int64_t mtime_ms; /* 0: as it is */
	mode_t mode;      /* 0: as it is */
	bool sync;        /* UPDATE, UNLINK: somebody waits until it is durable */
	/* SEAL, LOAD, SPACE, CLOCK */
	uint64_t size, free_bytes, free_inodes, units;
	size_t small; /* LOAD: content up to this comes into memory */
	struct arena arena;
	struct envelope env;
	struct buf data;
	bool held;
	/* WALK */
	unsigned int dir;
	void *walk;        /* DIR */
	queue_id own_from; /* IDs of this start, by time and start bits, are not looked at */
	unsigned int own_start;
	struct spool_found *found;
	size_t n_found;
	bool more;
};

/* Before the jail, at root: makes what is missing for that user; 0 or an error, why_r says what. */
int spool_prepare(const char *root, uid_t uid, gid_t gid, char *why_r, size_t why_size) CHECKED;
/* In the jail: opens the folders, reads the clock. start: drawn, changed where the last start had
 * the same. */
int spool_open(
    struct spool *s, unsigned int start, uint64_t *units_r, char *why_r, size_t why_size) CHECKED;

/* A zeroed operation of that kind. Freed with spool_op_free, after done has taken out what it
 * keeps. */
struct spool_op *spool_op(const struct spool *s, enum spool_kind kind, queue_id id,
    void (*done)(struct pool_op *), void *owner, void *ctx);
void spool_op_free(struct spool_op *op);
/* spool_walk.c, for the operation WALK. */
int spool_walk(struct spool_op *o) CHECKED;

#define QUEUE_MODE_HELD ((mode_t)0700) /* valid, and held */

#endif
