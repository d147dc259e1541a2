/*
 * The folder incoming/: files of large content that receivers write. A file is named by the queue
 * ID it was made under and moves into its folder with the commit. That of a message which was
 * delivered without one is wiped and used again: pages that are there cost a fifth of fresh ones,
 * and no name is made and removed.
 *
 * Nobody sees another's content by it: a file is wiped only when no descriptor of it is left in any
 * process or socket (a write lease is the probe), and its next users get new ones.
 */
#ifndef QMGR_INCOMING_H
#define QMGR_INCOMING_H

#include "qmgr/spool.h"

#define INCOMING_MOST 256u

/* A file for its next user: write_fd goes to the receiver, read_fd is qmgr's. */
struct incoming_file {
	queue_id name;
	int write_fd, read_fd;
};

/* incoming_spare_files of them at most. */
struct incoming {
	size_t cleaning; /* in the operation under way */
	struct incoming_file clean[INCOMING_MOST];
	size_t n_clean;
	queue_id used[INCOMING_MOST];
	size_t n_used;
};

struct qmgr;

/* A wiped file, whose descriptors are the caller's now. False: one must be made. */
bool incoming_take(struct qmgr *q, struct incoming_file *f_r);
/* Its message is over, and it was not committed: used again, or removed. */
void incoming_give(struct qmgr *q, queue_id name);
/* In a thread: wipes the file f->name of that folder and opens it anew; both descriptors are -1 and
 * the file is gone where somebody still has it open, it is larger than limit, or an error came. */
void incoming_clean(int dir, struct incoming_file *f, uint64_t limit);
/* What waits for being wiped longer than it need. */
void incoming_tidy(struct qmgr *q);
/* The end of the daemon: removes all that no message has. */
void incoming_stop(struct qmgr *q);

#endif
