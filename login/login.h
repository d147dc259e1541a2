/* What the files of login share: the service and its clients. */
#ifndef LOGIN_LOGIN_H
#define LOGIN_LOGIN_H

#include "access/protocol.h"
#include "base/hash.h"
#include "base/inet.h"
#include "daemon/acceptor.h"
#include "tls/set.h"

#include <sys/queue.h>

#define PUMP_BUFFER ((size_t)32768) /* bytes under way in one direction after login */

struct service {
	const struct login_protocol *protocol;
	struct tls_set tls;
	bool wrapped;     /* TLS from the first byte */
	struct daemon *d; /* of a child */
	TAILQ_HEAD(, client) clients;
	struct hash requests; /* clients that wait for auth or broker, by role and id */
};

enum client_state {
	CLIENT_HANDSHAKE,
	CLIENT_DIALOGUE, /* before login, the client's turn */
	CLIENT_AUTH,     /* auth's turn */
	CLIENT_SESSION,  /* broker's turn */
	CLIENT_PUMP,     /* logged in: bytes both ways */
	CLIENT_CLOSING,  /* what is left goes out, then the end */
	CLIENT_LINGER,   /* the end was told: what still comes is dropped */
};

/* One descriptor on the loop, with what it waits for. */
struct watch {
	int fd;
	struct event *readable, *writable;
	bool reading, writing;
};

struct client {
	TAILQ_ENTRY(client) next;
	struct service *s;
	uint64_t token;
	enum client_state state;
	struct watch net, session;
	struct tls_conn *tls;
	struct login *engine;
	struct buf in;  /* plain bytes of the client; after login: on their way to the session */
	struct buf out; /* after login: on their way to the client */
	struct hash_node request;
	uint64_t request_key; /* 0: none */
	uint32_t auth_id;     /* of the exchange under way, or 0 */
	bool want_tls;        /* STARTTLS was accepted: after the reply is out */
	bool client_eof, session_eof, told_eof, said_bye, stalled, stopping;
	size_t out_mark; /* bytes that waited for the client after the last turn */
	char tail[16];   /* the last bytes of the session: does it end a line? */
	size_t tail_n;
	struct ev_timer timer;
	const char *why; /* of its end, while it lingers */
	size_t dropped;
	const char *limit; /* the parameter whose time is over, for the log */
	char address[INET_TEXT], sid[17];
	struct conf *conf;
};

/* client.c: until the login */
void client_new(struct service *s, const struct msg_connection *m, int fd);
/* Everything that can be done now: what is to be said goes out, what the client said is taken, as
 * often as there is something; then the descriptor waits for what is missing. Ends the client where
 * it must. */
void client_advance(struct client *c);
void client_stop(struct client *c, const char *text);
void client_free(struct client *c, const char *why);
/* Bytes of the client into c->in: 1 some came or may come at once, 0 wait, or the end (ERR_CLOSED
 * after a clean one). */
int client_read(struct client *c, size_t limit);
/* Writes b to the client: 0 all is out, -EAGAIN wait, or an error. */
int client_write(struct client *c, struct buf *b);

/* ask.c: auth and broker. Each sets the client's state: DIALOGUE again where nobody can be asked
 * (the engine has been told then). */
void ask_start(struct client *c, const struct login_action *a);
void ask_step(struct client *c, const struct login_action *a);
void ask_session(struct client *c);
void ask_cancel_auth(struct client *c);
/* Nothing is awaited any more. */
void ask_forget(struct client *c);
void client_auth_answer(struct service *s, const struct msg *m);
void client_session_opened(struct service *s, struct msg *m);
void client_peer_down(struct service *s, enum role role);

/* pump.c: after it */
void pump_start(struct client *c, int session_fd);
void pump_run(struct client *c);
void pump_stop(struct client *c);

/* linger.c: all that was to be said is out: frees the client, at once or when it falls silent; and
 * what it says meanwhile. */
void client_end(struct client *c, const char *why);
void client_drop(struct client *c);

/* watch.c */
void watch_open(struct watch *w, struct event_base *base, int fd,
    void (*ready)(evutil_socket_t, short, void *), void *ctx);
void watch_want(struct watch *w, bool read, bool write);
void watch_close(struct watch *w);

#endif
