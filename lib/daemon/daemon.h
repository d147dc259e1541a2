/*
 * The skeleton of every daemon. master execs the program with its control channel, its
 * configuration snapshot and the log socket; daemon_run does the rest: init, jail, start, loop,
 * links to the peers.
 */
#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H

#include "conf/conf.h"
#include "daemon/log.h"
#include "ipc/chan.h"

struct daemon {
	enum role role;
	const char *service; /* name of the master.cf line, e.g. "smtp", "submissions" */
	struct event_base *base;
	struct ipc_io *io;
	struct conf *conf; /* the present snapshot; replaced at reload, see desc->reload */
	uint32_t conf_generation;
	struct ipc_chan *master;            /* to master; in a zygote's child: to its zygote */
	struct ipc_chan *peers[ROLE_COUNT]; /* the latest standing link to each role, or NULL while
					       there is none */
	void *ctx;                          /* the daemon's own state */
	uint8_t stop_how;  /* of the stop: 2 is an upgrade, a successor runs already (msgs.def) */
	bool stopping;     /* a stop was asked for: no new work */
	bool unprivileged; /* instance of an ordinary user: one uid, no chroot */
	uid_t uid;         /* who the daemon is in its jail (its own number) */
	gid_t gid;
	char root[4096]; /* its root directory as seen from outside, or "" */
	/* Set by init for the jail: largest file this process may write (bytes), TCP ports it may
	 * connect to. */
	int64_t file_limit;
	const uint16_t *ports;
	size_t nports;
	/* Directories (or files) outside of the root that stay readable through Landlock: maps'
	   tables. Roles without a root of their own only; set by init. */
	const char *const *read_paths;
	size_t nread_paths;
	const struct daemon_desc *desc;
	struct daemon_private *private;
};

#define NICE_RECEIVER 5 /* what has come in goes before what still comes */

#define DAEMON_LISTENERS 32 /* listening sockets that a service may have */
/* For how long one that a reload replaced is still accepted on: handshakes are under way. */
#define LISTENER_FORMER_MS 5000

struct daemon_desc {
	enum role role;
	int nice; /* is added to that of master */
	/* Before the jail, as root (or the ordinary user): warm libraries, open what must be open.
	 * d->conf is there. */
	int (*init)(struct daemon *d);
	/* In the jail, before ready is sent. Links come later. */
	int (*start)(struct daemon *d);
	/* A message of a peer, or of master that the skeleton does not handle itself (listener,
	 * tls_*, ...). */
	void (*message)(struct daemon *d, struct ipc_chan *ch, struct msg *m);
	/* A channel came up: a standing link (also in d->peers), or one child of a zygote (role
	 * X-child; not in d->peers). */
	void (*link_up)(struct daemon *d, struct ipc_chan *ch);
	/* It is gone: what was under way on it failed. It is freed after the call and no longer in
	 * d->peers. */
	void (*link_down)(struct daemon *d, struct ipc_chan *ch);
	/* d->conf is the new snapshot, old the former; the skeleton frees old after the call unless
	 * it is kept by daemon_conf_ref. */
	void (*reload)(struct daemon *d, const struct conf *old);
	/* Finish what is under way, then daemon_exit(d). NULL: exit at once. Also called when
	 * master is gone. */
	void (*stop)(struct daemon *d);
	/* A zygote's child lost its zygote: nothing new will come. NULL: exits if it has no
	 * session. */
	void (*orphaned)(struct daemon *d);
	/* A control verb (words[0] ...); answers with control_reply under the same id, now or
	 * later, on ch. */
	void (*control)(struct daemon *d, struct ipc_chan *ch, uint32_t id, uint32_t uid,
	    const struct slice *words, size_t n);
	/* Extra key=value text for `bulkhead status`. */
	void (*status)(struct daemon *d, struct buf *out);
	/* Zygotes: a child ended. */
	void (*child_exit)(struct daemon *d, pid_t pid, int wait_status);
	/* Tests the jail from inside for the report of `bulkhead security`, beside the skeleton's
	 * own probes. */
	void (*probe)(struct daemon *d, struct buf *report);
};

/* The whole life of a daemon: main() returns it. */
int daemon_run(int argc, char **argv, const struct daemon_desc *desc);
/* Leaves the loop after the present turn; exit status 0. */
void daemon_exit(struct daemon *d);
/* The same, and master starts a successor at once: for what can only be read before the jail. */
void daemon_renew(struct daemon *d);
/* Snapshots are counted: a job that began with one keeps it. */
struct conf *daemon_conf_ref(struct daemon *d);
void daemon_conf_unref(struct conf *conf);
/* Sends to the standing peer of that role; ERR_CLOSED while there is none. For what opens an
 * exchange: an answer goes to the channel of its question (ipc_send), for the peer may have a
 * successor meanwhile, which counts its questions with the same numbers. */
int daemon_send(struct daemon *d, enum role peer, const struct msg *m);
/* A control answer in as many chunks as it takes. */
void daemon_control_reply(struct ipc_chan *ch, uint32_t id, int status, struct slice text);
/* Adds a channel of the daemon's own (a child's, a delivery's) under the skeleton's message and
 * link callbacks. */
struct ipc_chan *daemon_adopt(struct daemon *d, int fd, enum role peer);
/* Closes a channel of daemon_adopt; link_down is called for it first. */
void daemon_drop(struct daemon *d, struct ipc_chan *ch);

/* Counters: lib/daemon/counters.def declares them; count() adds to this process's, count_peak()
 * raises a PEAK. */
enum counter {
#define COUNTER(name, doc) COUNT_##name,
#include "daemon/counters.def"
#undef COUNTER
	COUNT_MAX
};
void count(enum counter c, uint64_t n);
void count_peak(enum counter c, uint64_t value);

#endif
