/*
 * What the files of the broker share: openings (main.c), users and their session processes
 * (session.c).
 */
#ifndef BROKER_BROKER_H
#define BROKER_BROKER_H

#include "daemon/daemon.h"

#include "base/hash.h"

#include <sys/queue.h>

/* status of session_opened */
enum open_status { OPENED, OPEN_REFUSED, OPEN_TEMPORARY, OPEN_LIMIT, OPEN_NO_MAILDIR };

struct session;

/* A session_open that is not answered yet. */
struct opening {
	TAILQ_ENTRY(opening) next; /* of all, or of the session that it waits for */
	struct hash_node by_check; /* while auth is asked: by the id of token_check */
	uint32_t check;
	struct session *session;
	struct ipc_chan *login; /* NULL: the client has gone */
	uint32_t id;
	bool pop3;
	char client[65], sid[33];
	struct buf preamble;
};
TAILQ_HEAD(openings, opening);

/* One user, over all services; there as long as a session is. */
struct user {
	struct hash_node node; /* by name */
	char *name;
	unsigned sessions;
	struct session *imap; /* the one that serves all IMAP connections, or NULL */
	int64_t connections;  /* those on their way included */
};

struct session {
	TAILQ_ENTRY(session) starting; /* while chan is NULL */
	struct broker *b;
	struct user *user;
	bool pop3;
	uint32_t start;        /* id of session_start while it is not live */
	struct ipc_chan *chan; /* NULL: not live yet */
	uint32_t pid, connections;
	struct openings waiting; /* only until it is live */
	struct ev_timer idle;    /* while it starts: how long that may take */
	int64_t last_attach;
};

struct broker {
	struct daemon *d;
	struct hash checks; /* openings by token_check id */
	struct openings asked;
	struct hash users;
	TAILQ_HEAD(, session) starting;
	unsigned openings, nsessions;
};

/* main.c: answers login, with fd where the session is open, and ends the opening. */
void opening_end(
    struct broker *b, struct opening *o, enum open_status status, const char *text, int fd);
/* The same without a session; why is for the log too. */
void opening_fail(struct broker *b, struct opening *o, enum open_status status, const char *why);

/* session.c: auth has said whose the opening is; its session is found or started. */
void session_for(struct broker *b, struct opening *o, const struct msg_token_user *who);
void session_started(struct broker *b, struct ipc_chan *ch, struct msg *m);
void session_count(struct broker *b, struct ipc_chan *ch, const struct msg *m);
/* The session's openings end with why. */
void session_free(struct session *s, const char *why);

#endif
