/*
 * Zygotes: a warmed, single-threaded parent forks the processes that come and go. The child gets
 * its own loop, its own jail and fresh pairs to its peers; every other descriptor of the parent is
 * closed in it.
 */
#ifndef DAEMON_ZYGOTE_H
#define DAEMON_ZYGOTE_H

#include "daemon/daemon.h"

#define ZYGOTE_PEERS 6

struct zygote_spec {
	const struct daemon_desc
	    *desc; /* the child's: role, start (init is not called), message, ... */
	enum role peers[ZYGOTE_PEERS]; /* a pair to each; the far end goes over the zygote's own
					  link (MSG_CHILD) */
	size_t npeers;
	enum role direct; /* with direct_fd_r: a pair to this role whose far end the caller sends
			     itself */
	int *direct_fd_r;
	/* Children that become a user (zygotes with capabilities); otherwise the child keeps the
	 * zygote's uid. */
	bool become;
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t ngroups;
	const char *root; /* becomes the child's root directory, opened as that user; NULL: keeps
			     the zygote's */
	/* Runs in the child as the user, before chroot: opens what lies outside of root. A negative
	 * error ends the child. */
	int (*before_root)(struct daemon *child, void *arg);
	void *arg;      /* d->ctx of the child at its start */
	int keep_fd[4]; /* descriptors of the parent that stay open in the child (0: none) */
};

struct zygote_child {
	pid_t pid;
	struct ipc_chan *chan; /* to the child; freed with the child's end */
	void *data;            /* the caller's */
};

/*
 * Forks. In the parent: the child's record (owned by the zygote until child_exit has been called
 * for it), or NULL with *err_r. In the child: runs spec->desc on a loop of its own and never
 * returns. Not callable once threads run.
 */
struct zygote_child *zygote_fork(struct daemon *d, const struct zygote_spec *spec, int *err_r);
/* The record of a living child, or NULL. */
struct zygote_child *zygote_find(struct daemon *d, pid_t pid);
/* Number of living children. */
size_t zygote_count(const struct daemon *d);
/* Tells all children to finish (MSG_STOP). */
void zygote_stop_children(struct daemon *d, uint8_t how);

#endif
