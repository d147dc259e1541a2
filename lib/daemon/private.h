/* What the files of the skeleton share. */
#ifndef DAEMON_PRIVATE_H
#define DAEMON_PRIVATE_H

#include "daemon/daemon.h"
#include "daemon/zygote.h"
#include "base/hash.h"

#include <sys/queue.h>

/* Descriptors that master hands to a program that it execs. */
enum { FD_CONTROL = 3, FD_CONFIG = 4, FD_LOG = 5 };

struct link {
	LIST_ENTRY(link) next;
	struct ipc_chan *chan;
};

struct child {
	struct hash_node node; /* by pid */
	struct zygote_child pub;
	struct daemon *d;
	enum role peers[ZYGOTE_PEERS];
	size_t npeers;
};

/* How late the loop is: lag.c. */
struct lag {
	struct ev_timer probe;
	int64_t due_us;  /* of the probe; 0: not armed */
	int64_t late_us; /* end of the last turn that was too long */
	bool probed;     /* in this turn */
};

struct daemon_private {
	LIST_HEAD(, link) links;
	struct hash children; /* of a zygote */
	struct event *on_child, *on_term;
	struct ev_timer flush;
	int log_fd;
	bool flush_armed, leave;
	struct lag lag;
	bool lingers; /* replaced by an upgrade, and still asked by others that were */
	struct ev_timer linger;
	int status;
	const void *acceptor; /* struct acceptor_state of an acceptor or its child */
	unsigned sessions;    /* in an acceptor's child: connections that it has */
};

/* The loop and the links of a fresh process, before its jail. */
void daemon_setup(struct daemon *d, int control_fd, enum role control_peer);
/* Runs until daemon_exit; returns the exit status. */
int daemon_loop(struct daemon *d);
/* A standing link to a peer, from a descriptor. */
struct ipc_chan *daemon_link(struct daemon *d, int fd, enum role peer);
/* Reports a link as gone and frees it. */
void daemon_drop(struct daemon *d, struct ipc_chan *ch);
/* daemon_run with the state of an acceptor. */
int daemon_run_with(int argc, char **argv, const struct daemon_desc *desc, const void *acceptor);
/* A snapshot from a descriptor of master's, or NULL with why. */
struct conf *daemon_read_snapshot(int fd, char *why, size_t size);
/* After each turn of the loop. */
void lag_turn(struct daemon *d);
/* Before any fork: the counters lie in memory that the children share. */
void counters_share(void);
/* Appends all values as u64, in the order of counters.def. */
void counters_put(struct buf *out);
/* After fork: forgets what the parent had gathered. */
void log_reset(enum role role);
void zygote_watch_children(struct daemon *d);
void zygote_repair(struct daemon *d, enum role peer);
void zygote_forget_chan(struct daemon *d, struct ipc_chan *ch);
/* Tells master to start a successor at once. */
#define EXIT_RENEW 75

#endif
