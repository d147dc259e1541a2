/*
 * The TLS side of a front end that lives in a jail: certificates and ticket keys come as messages
 * of master, contexts are built from them. Held by the zygote and inherited by its children.
 */
#ifndef RECEIVE_TLS_SET_H
#define RECEIVE_TLS_SET_H

#include "daemon/daemon.h"
#include "tls/tls.h"

#define TLS_SET_MAX 32

struct tls_set {
	const char *service; /* tickets of another service are refused */
	const char *alpn;
	struct tls_tickets *tickets;
	struct tls_ctx *ctx; /* NULL: no usable certificate */
	struct buf chains[TLS_SET_MAX], keys[TLS_SET_MAX];
	size_t count;
	int64_t last_us; /* of the last certificate: master sends a set in one go */
};

/* Before the jail: loads what OpenSSL loads lazily. */
void tls_set_init(struct tls_set *t, const char *service, const char *alpn);
/* MSG_TLS_CERTIFICATE or MSG_TLS_TICKET_KEYS. A certificate that cannot be used is logged, and the
 * former context goes on. */
void tls_set_message(struct tls_set *t, const struct conf *conf, const struct msg *m);

#endif
