/* Delivery into a Maildir: durable under a name that a repeat finds again. */
#ifndef LOCAL_MAILDIR_H
#define LOCAL_MAILDIR_H

#include "local/content.h"

#include <pthread.h>

/* One Maildir; used by several threads at once. */
struct maildir {
	const char *path; /* relative to the working directory, which is the root */
	char host[65];    /* for names: no slash, colon or comma */
	int64_t limit;    /* quota in bytes, 0: none */
	pthread_mutex_t lock;
	bool open, named_by_fsync; /* ext4, XFS: fsync of a file makes its new name durable */
	bool unnamed; /* those two: files have no name before that in new/, where the kernel lets */
	int pid;      /* of this process */
	unsigned int attempts; /* files that were begun in tmp/: part of their names */
	int tmp, fresh, cur;   /* directories */
	int64_t used;          /* bytes in it, as of used_at; only where there is a limit */
	int64_t used_at;       /* monotonic µs */
};

void maildir_init(struct maildir *m, const char *path, struct slice host, int64_t limit);
void maildir_close(struct maildir *m);

/* What is delivered and to whom: the name of the file derives from these. */
struct maildir_mail {
	const struct content *content;
	struct slice prelude; /* header lines to put first, CRLF */
	struct slice queue_id;
	struct slice recipient;
	uint64_t arrival; /* µs since the epoch */
	bool repeat;      /* an earlier attempt may have succeeded: look into cur/ too */
};

/*
 * 0: it is in new/ (or was already, *repeated_r), file and name durable. ERR_LIMIT: over quota,
 * nothing written. Blocks for the disk. Missing directories are made.
 */
int maildir_deliver(struct maildir *m, const struct maildir_mail *mail, bool *repeated_r) CHECKED;

#endif
