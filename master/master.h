/*
 * The supervisor's own types. master is the only process with uid 0 for life; it parses nothing
 * from the network and reads no mail. A file each: services (which there are, back-off, end),
 * process (start, what it says), links (pairs between services), listen (sockets), snapshot
 * (configuration), tls (certificates, ticket keys), control (the control socket), metrics (counters
 * for the metrics daemon), security (what /proc shows), upgrade (re-exec in place), handover (what
 * it leaves to the next one), notify (systemd).
 */
#ifndef MASTER_MASTER_H
#define MASTER_MASTER_H

#include "conf/conf.h"
#include "daemon/daemon.h"
#include "daemon/log.h"
#include "ipc/chan.h"

#include <sys/queue.h>

#define EXIT_CONFIG 78 /* sysexits.h: the unit does not try that again by itself */
#define TICKET_KEYS ((size_t)3)
#define TICKET_KEY ((size_t)80)
#define STATS_ASKED ((size_t)64) /* of a process at once; the answer to an older one counts not */

struct listener {
	char
	    name[128]; /* "inet:127.0.0.1:2525" or "unix:/path": identity over reload and upgrade */
	int fd;
	bool local, used; /* used: named by the present configuration */
	int64_t until;    /* ms, monotonic: a former one is closed then; 0: it is none */
	LIST_ENTRY(listener) next;
};

struct process {
	TAILQ_ENTRY(process) next;
	struct service *service;
	pid_t pid;
	struct ipc_chan *chan;
	bool ready, stop_sent;
	int64_t started;            /* ms, monotonic */
	char *report;               /* what it found by trying, or NULL */
	char *stats;                /* its last answer to `status`, or NULL */
	uint32_t owes[STATS_ASKED]; /* the latest questions for counters; 0: answered */
	size_t asked;
};

struct service {
	TAILQ_ENTRY(service) next;
	struct master *m;
	char *name, *program; /* unique name for logs: "smtp", "127.0.0.1:2525" */
	enum role role;
	const struct conf *conf; /* of the present conf_set */
	int64_t process_limit;   /* of children, or of processes for roles that may have several */
	size_t wanted;           /* processes of its own */
	struct listener *listeners[DAEMON_LISTENERS];
	size_t nlisteners;
	bool on_demand; /* runs from the first client until it has been idle */
	struct event *demand[DAEMON_LISTENERS]; /* on the listeners while it does not run; NULL: not
						   watched */
	TAILQ_HEAD(, process) processes;
	size_t nprocesses;
	unsigned failures; /* in a row */
	int64_t down;      /* since when a process is missing; 0: none is */
	struct ev_timer restart;
	unsigned char ticket_keys[TICKET_KEYS * TICKET_KEY];
	size_t nkeys;
	bool moved;      /* the present reload changed its listeners */
	bool ending;     /* it was told to stop, and never comes back: its like is another one */
	bool incomplete; /* an address of it could not be listened on: see listen-failed */
	bool obsolete;   /* not in the configuration any more */
};

/* A channel between two living processes. */
struct pair {
	LIST_ENTRY(pair) next;
	struct process *a, *b;
	uint32_t number;    /* what it is called between master and both; 0: not made yet */
	unsigned failures;  /* in a row */
	int64_t made, lost; /* ms, monotonic */
	struct ev_timer again;
};

struct client; /* of the control socket */

struct master {
	struct event_base *base;
	struct ipc_io *io;
	char *config_dir;
	struct conf_set *set;
	uint32_t generation;
	bool unprivileged, stopping, stop_late, upgrading;
	int ready_fd;   /* tells the caller of `master -b` how it went; -1 */
	int upgrade_fd; /* what the former master left, until it is taken over; -1 */
	TAILQ_HEAD(, service) services;
	LIST_HEAD(, listener) listeners;
	LIST_HEAD(, client) clients;
	LIST_HEAD(, pair) pairs;
	uint32_t last_pair;
	int log_pair[2]; /* 0: where the log daemon reads; 1: where all write */
	struct listener control;
	struct event *on_control;
	struct ev_timer stop_timer, rotate_timer, former_timer;
	int64_t rotate_ms; /* what the latter is set to */
	uint32_t next_request;
	struct {
		struct ipc_chan *to; /* NULL: nobody asks */
		uint32_t id, reply_id;
		unsigned waiting;
		struct ev_timer deadline;
	} metrics;
	char **argv;
	bool told_ready;
};

int64_t master_now_ms(void);
void master_fail(struct master *m, const char *fmt, ...) PRINTF(2, 3) NORETURN;

/* services.c */
void services_build(struct master *m); /* from m->set; keeps what stays, marks what goes */
void service_start_missing(struct master *m);
void services_stop(struct master *m, uint8_t how);
void services_reap(struct master *m);
struct service *service_by_role(struct master *m, enum role role);
void services_stop_for_upgrade(struct master *m);
size_t services_alive(const struct master *m);
bool services_all_ready(const struct master *m);
int64_t backoff_ms(const struct master *m, unsigned failures); /* the pause before the next try */
#define STEADY_MS 10000 /* what lasted that long did not fail at its start */

/* process.c */
int process_start(struct master *m, struct service *s) CHECKED; /* what failed is logged */
void process_forget(struct process *p);                         /* frees it and its channel */
void process_send_listeners(struct process *p);                 /* all of its service's */
/* Asks for its counters. Each question is answered once, by whom it was put to. */
int process_ask_stats(struct process *p, uint32_t id) CHECKED;
/* It was asked that and has not answered; from now on it owes no answer. */
bool process_owed(struct process *p, uint32_t id);
int role_ids(const struct master *m, enum role role, uid_t *uid_r, gid_t *gid_r) CHECKED;

/* links.c: pairs between a fresh process and every living peer; what one of both says of its end */
void links_connect(struct master *m, struct process *p);
void links_lost(struct master *m, const struct process *p, uint32_t number);
void links_forget_process(struct master *m, const struct process *p);

/* listen.c */
int listeners_for(struct master *m, struct service *s, const struct conf_service *row) CHECKED;
void listeners_drop_unused(struct master *m);
int listen_unix(const char *path, int type, mode_t mode, int *fd_r) CHECKED;

/* snapshot.c */
int snapshot_fd(struct service *s) CHECKED;               /* sealed memfd, or a negative error */
bool config_load(struct master *m, struct buf *problems); /* replaces m->set only if it is good */
int directories_make(
    struct master *m) CHECKED; /* roots, run directory, spool, with owner and mode */
const char *role_root(const struct master *m, enum role role, char *buf, size_t size);

/* tls.c */
int tls_prepare(struct master *m)
    CHECKED; /* a self-made certificate where the configured default does not exist */
void tls_send_certificates(struct service *s, struct process *p);
void tls_send_keys(struct service *s, struct process *p);
/* New ticket keys for all, and again when tls_session_lifetime is over. */
void tls_rotate(struct master *m);
/* After a reload: at the pace of the new tls_session_lifetime. */
void tls_rearm(struct master *m);

/* control.c */
/* Gives the control socket to admin_group, at a start and a reload. */
void control_group(struct master *m);
int control_open(struct master *m) CHECKED;
/* from a daemon */
void control_answer(struct master *m, const struct ipc_chan *from, struct msg *reply);
void control_stopped(struct master *m); /* tells those who asked for it */
void control_daemon_gone(struct master *m, struct process *p);
void master_reload(struct master *m, struct buf *out, int *status_r);
void master_stop(struct master *m);

/* metrics.c */
void metrics_get(struct master *m, struct ipc_chan *from, uint32_t id);
bool metrics_stats(struct master *m, const struct process *p, const struct msg *msg);
void metrics_gone(struct master *m, struct process *p);

/* home.c: makes the directory words[0] for uid and gid, words[1] and [2]; an exit status. */
int home_make(const struct master *m, const struct slice words[3], struct buf *out);

/* security.c */
void security_report(struct master *m, struct buf *out);
/* Tells what the kernel lacks of what the jails could use. */
void security_tell_missing(void);

/* upgrade.c */
int upgrade_check(
    struct master *m, struct buf *out) CHECKED; /* status: 0 if the new program starts */
void upgrade_exec(struct master *m);            /* returns only when it failed */
void upgrade_resume(struct master *m);
void upgrade_take_keys(struct master *m);

/* handover.c */
/* A memfd that tells of m's sockets and ticket keys, or a negative error. */
int handover_write(const struct master *m) CHECKED;
/* Wipes it first: keys stand in it. */
void handover_close(int fd);
/* What such a file says: the sockets, at the start; the keys, once there are services. */
void handover_take_sockets(struct master *m, struct slice state);
void handover_take_keys(struct master *m, struct slice state);

/* notify.c */
void notify(const char *state);

#endif
