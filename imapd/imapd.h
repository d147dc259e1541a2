/* imapd: the zygote (main.c), the process of one user (user.c) and its connections (connection.c).
 */
#ifndef IMAPD_IMAPD_H
#define IMAPD_IMAPD_H

#include "daemon/zygote.h"
#include "imap/session.h"

#include <sys/queue.h>

/* What a user's process is started with; made in the zygote before the fork. */
struct imapd_start {
	char *user;
	char *home;
	char *root; /* the mail directory, absolute */
	gid_t groups[65];
	size_t ngroups;
	struct charsets *charsets;
};

/* The process of one user. */
extern const struct daemon_desc imapd_user_desc;
/* before_root of its zygote_spec: makes the mail directory where it is missing and may be made. */
int imapd_make_root(struct daemon *child, void *start);

struct connection;
LIST_HEAD(connections, connection);

struct user {
	struct daemon *d;
	const struct imapd_start *start;
	struct store *store;
	struct event *watch; /* the store's descriptor */
	struct ev_timer flush, poll;
	struct connections all;
	unsigned count;
	bool broker_gone;
	bool polling;
	bool told_unwatched; /* in the log */
};

/* Takes over fd: a new connection, told about to the client by its first output. */
void connection_new(struct user *u, int fd, const struct msg_session_attach *attach);
/* The store saw a change: idling clients are told. but (may be NULL) is left out. */
void connections_changed(struct user *u, const struct connection *but);
/* "* BYE text" to all, and the end. */
void connections_bye(struct user *u, const char *text);

/* A connection has ended. */
void user_left(struct user *u);
/* Something was done: the index is written when there is a rest. */
void user_active(struct user *u);

#endif
