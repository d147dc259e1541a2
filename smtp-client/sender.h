/*
 * smtp-client: jobs of qmgr, destinations with their idle connections, connections. One struct
 * sender per process; everything hangs on it.
 */
#ifndef SMTP_CLIENT_SENDER_H
#define SMTP_CLIENT_SENDER_H

#include "base/arena.h"
#include "base/hash.h"
#include "daemon/daemon.h"
#include "queue/mail.h"
#include "smtp/client.h"
#include "tls/tls.h"

#include <sys/queue.h>

enum {
	DESTS_KEPT_MAX = 1000, /* destinations kept for their TLS sessions */
	DEST_KEPT_S = 3600,
	CANDIDATES_MAX = 100, /* smtp_mx_address_limit's bound */
	RCPTS_MAX = 64,       /* of a job, by msgs.def */
	EXTENTS_MAX = 16,     /* likewise */
	READ_SIZE = 16384,
	CONTENT_PIECE = 65536, /* of a large message, read and written at once */
	OUTPUT_HIGH = 131072,  /* no more content is read while that much waits */
	REASON_SIZE = 600,
	CONVERT_MAX = 32 << 20, /* bytes of a message that may be converted in memory */
};

/* --- questions to dns, maps and auth, by id (ask.c) --- */

struct ask;
typedef void ask_answer(void *ctx, struct msg *m); /* m NULL: the peer is gone or silent */

/* --- a destination (dest.c): a next hop, its idle connections, its TLS session --- */

struct dest {
	struct hash_node node;
	TAILQ_ENTRY(dest) unused; /* kept for its TLS session only: oldest first */
	int64_t unused_since;     /* us; 0: in use */
	TAILQ_HEAD(, conn) idle;  /* the last used first */
	struct tls_session *session;
	int session_level;   /* of TLS, when it was made */
	char *session_names; /* that the certificate was asked for then */
	size_t users;        /* jobs and connections */
	char key[];
};

/* --- a job (job.c) --- */

struct rcpt {
	uint32_t slot;
	struct slice address, orcpt;
	struct slice said; /* whom the result is about, by the connection that gave it */
	uint8_t notify;
	bool done;
	enum result_status status;
	char enhanced[CLIENT_REPLY_ENHANCED_SIZE];
	const char *text, *remote;
};

struct extent {
	uint64_t offset, length;
};

struct candidate {
	char host[256]; /* its name, or the address as text */
	unsigned char address[16];
	bool plain; /* its TLS failed, and TLS is not required */
};

/* What TLS a destination gets (policy.c). */
struct policy {
	int level; /* enum conf_tls_level */
	bool wrapper;
	char separator;     /* of the words of match: names have ':', fingerprints '|' */
	struct slice match; /* of a policy map; empty: by the parameters */
};

struct job {
	TAILQ_ENTRY(job) next;
	struct sender *s;
	struct ipc_chan *ch; /* qmgr; NULL once it is gone */
	uint32_t id;
	struct arena arena;
	struct slice queue_id, from, envid, nexthop;
	uint32_t flags;
	uint8_t ret;
	uint64_t size;
	bool lmtp;
	uint16_t port;
	struct rcpt *rcpts;
	size_t n, left; /* left: without a result */
	struct slice content;
	int fd; /* -1: the content is inline */
	struct extent extents[EXTENTS_MAX];
	size_t nextents;

	struct dest *dest;
	struct ask *ask;
	struct ev_timer limit; /* smtp_delivery_time_limit */
	bool over;             /* it has passed, and the reply to the end of data is waited for */
	struct policy policy;
	struct slice policy_key; /* the next hop, or a domain above it */
	size_t policy_at;
	struct candidate *candidates;
	size_t ncandidates, at;
	size_t fallback_at; /* of fallback_relay: the next to try */
	unsigned sessions;  /* that got as far as a greeting */
	struct conn *conn;
	/* why the last attempt failed: what recipients without a result of their own get */
	bool permanent;
	bool our_fault; /* of the configuration here: an address could not be tried */
	char enhanced[CLIENT_REPLY_ENHANCED_SIZE];
	char reason[REASON_SIZE], reason_remote[256];
	/* of the message on its connection */
	struct client_message message;
	struct buf converted; /* content for a server without 8BITMIME or BINARYMIME */
	bool is_converted;
	struct client_rcpt client_rcpts[RCPTS_MAX];
	size_t map[RCPTS_MAX]; /* index of the engine to index of rcpts */
	size_t extent_at;
	uint64_t extent_done;
	bool dsn; /* the next hop took over the notices */
	int64_t begun_us, connected_us;
	char remote[320], tls[128];
};

/* --- a connection (conn.c: the socket; conn_tls.c: TLS; session.c: the dialogue) --- */

enum conn_state { CONN_CONNECT, CONN_HANDSHAKE, CONN_OPEN, CONN_IDLE, CONN_QUIT };

struct conn {
	TAILQ_ENTRY(conn) next;      /* of the sender's */
	TAILQ_ENTRY(conn) idle_next; /* of its destination's, while idle */
	struct sender *s;
	struct dest *dest;
	struct job *job; /* NULL while idle or quitting */
	enum conn_state state;
	int fd;
	struct event *readable, *writable;
	struct ev_timer timer;
	unsigned reloads; /* the sender's, when it was opened */
	struct client *client;
	struct tls_conn *tls;
	char *names; /* that its certificate has to have */
	struct tls_info tls_info;
	struct ask *ask; /* of auth */
	struct candidate to;
	char remote[320]; /* "host[address]:port" */
	int level;
	bool reused, sending;
	bool ended;          /* it failed after an end of data */
	bool moved;          /* bytes were written, or its state changed, since the timer was set */
	unsigned replies;    /* that had come by then */
	uint16_t local_port; /* for the log, at its level debug; else 0 */
	unsigned messages;
	int64_t begun_us;
};

enum tls_kind { KIND_MAY, KIND_ENCRYPT, KIND_VERIFY, KIND_FINGERPRINT, KIND_COUNT };

struct sender {
	struct daemon *d;
	struct tls_ctx *tls[KIND_COUNT]; /* NULL: could not be made; the log says why */
	TAILQ_HEAD(, job) jobs;
	TAILQ_HEAD(, conn) conns;
	struct hash dests, asks;
	TAILQ_HEAD(, dest) unused;
	size_t nunused;
	size_t njobs, nconns;
	uint32_t next_id;
	struct buf piece; /* for pread */
	uint16_t ports[128];
	size_t nports;
	uint64_t sessions, reuses, messages;
	unsigned reloads;
};

/* sender.c */
extern const struct daemon_desc sender_desc;

/* ask.c */
/* Sends m (its id is set here) to peer and calls back once, later, unless cancelled. NULL if the
 * peer is not there: no callback then. ms: how long to wait. */
struct ask *ask_send(
    struct sender *s, enum role peer, struct msg *m, int64_t ms, ask_answer *answer, void *ctx);
/* Another message within the same exchange. False if the peer is not there. */
bool ask_again(struct ask *a, struct msg *m, int64_t ms);
void ask_cancel(struct ask **a);
/* An answer on that channel. */
void ask_take(struct sender *s, const struct ipc_chan *ch, struct msg *m);
void ask_peer_gone(struct sender *s, const struct ipc_chan *ch);
/* In the callback: keeps the ask for ask_again; else it is freed after the callback. */
void ask_keep(struct ask *a);

/* dest.c */
struct dest *dest_get(struct sender *s, const struct job *j);
void dest_release(struct sender *s, struct dest **dest);
/* Frees those that are not in use. */
void dest_forget_all(struct sender *s);

/* policy.c */
/* Finds the policy of the job's next hop, then calls job_route. */
void policy_find(struct job *j);
int policy_tls_init(struct sender *s);
/* The context and the peer's names for a connection; NULL: not available. */
struct tls_ctx *policy_context(struct sender *s, int level);
bool policy_requires_tls(int level);
/* policy_entry.c */
/* An entry of the map: NULL, and p has its level and names (in a), or what is wrong with it: one
 * that is half understood would send mail with less than its admin wants. */
const char *policy_entry(struct policy *p, struct slice value, struct arena *a);

/* route.c */
/* Finds the candidates of the job, then calls job_attempt. */
void route_find(struct job *j);
void route_address_text(const unsigned char address[16], char *out, size_t size);

/* job.c */
void job_start(struct sender *s, struct ipc_chan *ch, struct msg *m);
void job_route(struct job *j);
/* The next candidate, or the end. */
void job_attempt(struct job *j);
/* Why this attempt failed; recipients without a result get it if it was the last. */
void job_reason(struct job *j, bool permanent, const char *enhanced, const char *remote,
    const char *fmt, ...) PRINTF(5, 6);
/* Ends the job: what has no result gets the last reason. */
void job_finish(struct job *j);
void job_result(struct job *j, size_t i, const struct client_event *ev, const char *remote);
/* The recipients without a result as a message for the engine. */
void job_message(struct job *j, unsigned features);
/* The next piece of content; 0 at its end, negative on an error. Borrowed until the next call. */
int job_content(struct job *j, struct slice *piece_r);
void job_content_rewind(struct job *j);
void job_forget_qmgr(struct sender *s, struct ipc_chan *ch);

/* conn.c */
/* Begins to connect to a candidate on behalf of the job. */
void conn_open(struct job *j, const struct candidate *to);
/* Takes an idle connection of the job's destination; false if there is none. */
bool conn_reuse(struct job *j);
/* Writes what waits and arms what is to be armed; false if the connection failed (and was told so).
 */
bool conn_flush(struct conn *c);
void conn_timer(struct conn *c);
/* Sets it anew where something has come of the wait: a whole reply, or bytes that were written. A
 * reply that trickles has the time of one. */
void conn_still_waits(struct conn *c);
void conn_want_write(struct conn *c);
/* Gives the engine what has come and runs the session; the connection may be gone after it. */
void conn_read(struct conn *c);
void conn_free(struct conn **c);
/* Says QUIT, where that may be, and closes when the server has answered, or soon. */
void conn_quit(struct conn *c);
void conn_keep(struct conn *c);

/* conn_tls.c */
/* False: it failed, the session was told so, and the connection is gone. */
bool conn_start_tls(struct conn *c);
/* Goes on with it, now that the socket is ready. */
void conn_handshake(struct conn *c);
/* The session that the server gave stays with the destination. */
void conn_save_session(struct conn *c);

/* session.c */
void session_begin(struct conn *c);
/* Runs the engine's events until there are none, then flushes; the connection may be gone after it.
 */
void session_run(struct conn *c);
void session_send(struct conn *c);
/* Tells auth that the exchange is over, if there is one. */
void session_auth_end(struct conn *c);
/* The transport failed: text says how. */
void session_lost(struct conn *c, const char *enhanced, const char *fmt, ...) PRINTF(3, 4);

#endif
