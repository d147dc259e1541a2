/*
 * Acceptors: the zygote of a front end holds the listening sockets, calls accept4, reads no byte,
 * counts connections per client, and hands each socket to a child with room or to a fresh one. No
 * child holds a listening socket. A front end's main.c is: daemon_desc with acceptor_* as
 * callbacks, and the child's desc.
 */
#ifndef DAEMON_ACCEPTOR_H
#define DAEMON_ACCEPTOR_H

#include "daemon/zygote.h"

struct acceptor_desc {
	struct daemon_desc
	    daemon; /* role, and what the front end adds: init (warm libraries, conf) */
	const struct daemon_desc
	    *child;                    /* message() of the child gets MSG_CONNECTION on d->master */
	enum role peers[ZYGOTE_PEERS]; /* of the child */
	size_t npeers;
	/* Values of this front end, from its configuration. */
	int64_t (*sessions_per_process)(const struct conf *conf);
	int64_t (*process_limit)(const struct conf *conf);
	int64_t (*sessions_before_recycle)(const struct conf *conf);
	int64_t (*connections_per_client)(const struct conf *conf); /* 0: no limit */
	/* What a client beyond a limit is told before it is closed, e.g. "421 4.7.0 ...\r\n"; tls
	 * listeners get nothing. */
	const char *(*refusal)(struct daemon *d, unsigned listener);
	/* Runs in the zygote when a certificate or ticket keys arrived (rebuild contexts; children
	 * are told by the skeleton). */
	void (*tls)(struct daemon *d, const struct msg *m);
	/* d->ctx of a child: usually the context that init built, shared by fork. */
};

int acceptor_run(int argc, char **argv, const struct acceptor_desc *desc);
/* In the child: a session ended; the acceptor may send another. token is that of its
 * MSG_CONNECTION. */
void acceptor_session_end(struct daemon *child, uint64_t token);
/* In the child: no session is left and it was told to stop (or was recycled): the skeleton exits
 * it. */

#endif
