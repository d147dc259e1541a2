/*
 * Acceptors: the zygote of a front end holds the listening sockets, calls accept4, reads no byte,
 * counts connections per client, and hands each socket to a child with room or to a fresh one. No
 * child holds a listening socket. A front end's main.c is an acceptor_desc and its child's desc.
 */
#ifndef DAEMON_ACCEPTOR_H
#define DAEMON_ACCEPTOR_H

#include "daemon/zygote.h"

struct acceptor_desc {
	/* Role, and what the front end adds: init (warm libraries), reload. */
	struct daemon_desc daemon;
	/* Its message() gets MSG_CONNECTION on d->master. d->ctx of a child is the context that
	 * init built, shared by fork. */
	const struct daemon_desc *child;
	enum role peers[ZYGOTE_PEERS]; /* of the child */
	size_t npeers;
	/* Of this front end, from its configuration; at least 1. */
	int64_t (*sessions_per_process)(const struct conf *conf);
	/* What a client beyond a limit is told before it is closed, e.g. "421 4.7.0 ...\r\n", or
	 * NULL. */
	const char *(*refusal)(struct daemon *d, unsigned listener);
	/* A certificate or ticket keys arrived in the zygote; the skeleton tells the children. */
	void (*tls)(struct daemon *d, const struct msg *m);
};

/* The whole life of a front end: main() returns it. */
int acceptor_run(int argc, char **argv, const struct acceptor_desc *desc);
/* In the child: a session ended; the acceptor may send another. token is that of its
 * MSG_CONNECTION. A child that was told to stop, or lost its acceptor, leaves its loop with the
 * last. */
void acceptor_session_end(struct daemon *child, uint64_t token);

#endif
