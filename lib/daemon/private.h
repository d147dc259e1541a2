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
	struct link *from; /* the zygote's over which it came, while that is there */
	size_t children;   /* that came over this one */
	bool limited;      /* one too many was refused, and said so */
	uint32_t pair;     /* master's name of it; 0: not of master */
	bool
	    standing; /* made by the parent; else a child of a peer's, or one of the daemon's own */
};

struct child {
	struct hash_node node; /* by pid */
	struct zygote_child pub;
	struct daemon *d;
	enum role peers[ZYGOTE_PEERS];
	size_t npeers;
	unsigned lost;   /* bits: of these peers its link has ended */
	unsigned losses; /* links that it lost while the zygote's own stood */
	struct ev_timer again;
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
	size_t children_max; /* of one zygote */
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
extern const struct ipc_ops daemon_link_ops; /* what any channel of the skeleton does */
/* Its end was seen: reported, and no longer in d->peers. Its owner frees the channel. */
void links_forget(struct daemon *d, struct ipc_chan *ch);
/* MSG_LINK of the parent; MSG_CHILD of a zygote (an error: it handed on what is no channel). */
void links_take(struct daemon *d, struct msg *m);
int links_take_child(struct daemon *d, const struct ipc_chan *from, struct msg *m) CHECKED;
/* How many children of one zygote there is room for. Before the jail, which refuses the question.
 */
size_t links_children_max(void);
/* A helper that an upgrade replaced answers, as if nothing were, those that were replaced with it:
 * a receiver in its transaction, a client that logs in. */
bool links_ask(const struct daemon *d);
/* A link has gone: who waited for that, ends. */
void daemon_link_gone(struct daemon *d);
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
void zygote_link_lost(struct daemon *d, const struct ipc_chan *ch, unsigned peer);
void zygote_forget_chan(struct daemon *d, struct ipc_chan *ch);
/* Tells master to start a successor at once. */
#define EXIT_RENEW 75

#endif
