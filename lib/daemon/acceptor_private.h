/* What the files of the acceptor share: its state, the counts per client, the workers. */
#ifndef DAEMON_ACCEPTOR_PRIVATE_H
#define DAEMON_ACCEPTOR_PRIVATE_H

#include "base/hash.h"
#include "base/inet.h"
#include "daemon/acceptor.h"
#include "daemon/private.h"

struct client;
struct ends;

struct listener {
	struct acceptor_state *a;
	struct event *event;
	int fd;
	bool local;
	uint8_t index;
};

struct session {
	struct hash_node node; /* by token */
	uint64_t token;
	struct client *client; /* NULL: not counted */
	struct worker *worker;
};

struct worker {
	TAILQ_ENTRY(worker) next, shares;
	struct zygote_child *child;
	unsigned sessions;
	struct ends *ends; /* and it is among the sharing; NULL: the child sends each */
	uint32_t ends_taken;
	uint64_t served;
	bool retired; /* takes no new session */
	struct ev_timer idle;
	struct acceptor_state *a;
};

struct acceptor_state {
	const struct acceptor_desc *desc;
	struct daemon *d;
	struct listener listeners[DAEMON_LISTENERS];
	struct listener former[DAEMON_LISTENERS]; /* replaced by a reload: what waits is taken */
	size_t nlisteners, nformer;
	struct hash clients, sessions;
	TAILQ_HEAD(, client) quiet; /* quiet longest first */
	size_t nquiet;
	TAILQ_HEAD(, worker) workers, sharing;
	size_t nworkers;
	uint64_t next_token;
	struct ends *born_with; /* of the worker that is being forked: in a child, its own */
	int cores;
	bool paused, used; /* used: accepted something since the last look */
	bool linked;       /* all links have been there */
	int64_t started;
	struct ev_timer idle, resume, last, former_end;
};

/* acceptor_clients.c */
/* Counts a connection of that address for s: NULL, or the text of the limit that it is beyond. */
const char *acceptor_over_limit(
    struct acceptor_state *a, struct session *s, const struct inet_addr *addr);
/* A session of that client ended; NULL: it was not counted. */
void acceptor_client_release(struct acceptor_state *a, struct client *c);

/* acceptor_ends.c */
#define ENDS_MAX 256 /* divides 2^32: the counts may turn over */
/* Before the fork of a worker; NULL where there is no memory. */
struct ends *ends_new(void);
/* In the acceptor, after that fork: the children that follow do not get it. Dies if they would. */
void ends_keep(struct ends *e);
void ends_free(struct ends *e);
/* In the child. False: ENDS_MAX are there, as long as the acceptor has taken none. */
bool ends_put(struct ends *e, uint64_t token) CHECKED;
/* In the acceptor, which counts in *taken what it took. False: there is no more. */
bool ends_take(struct ends *e, uint32_t *taken, uint64_t *token_r) CHECKED;

/* acceptor_workers.c */
/* Counts the sessions that ended without a message. */
void acceptor_take_ends(struct acceptor_state *a);
/* A worker with room, started where there is none, or NULL. */
struct worker *acceptor_worker(struct acceptor_state *a);
/* Sends it the connection in m; false: it could not be sent. */
bool acceptor_hand_over(struct worker *w, struct session *s, const struct msg *m);
/* Forgets a session that no worker took. */
void acceptor_session_free(struct acceptor_state *a, struct session *s);
/* The worker behind ch says that the session of that token, one of its own, ended. */
void acceptor_count_end(struct acceptor_state *a, struct ipc_chan *ch, uint64_t token);
/* The process is gone, and all that it had. */
void acceptor_worker_ended(struct acceptor_state *a, struct worker *w);
/* Sessions keep the configuration that they began with: workers of the old one get no new session
 * and end with their last. */
void acceptor_retire_workers(struct acceptor_state *a);

#endif
