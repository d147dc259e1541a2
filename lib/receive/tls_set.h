/*
 * The TLS side of a front end that lives in a jail: certificates and ticket keys come as messages
 * of master, contexts are built from them. Held by the zygote and inherited by its children.
 */
#ifndef RECEIVE_TLS_SET_H
#define RECEIVE_TLS_SET_H

#include "daemon/daemon.h"
#include "tls/tls.h"

struct tls_set {
	const char *service; /* tickets of another service are refused */
	const char *alpn;
	struct tls_tickets *tickets;
	struct tls_ctx *ctx; /* NULL: no usable certificate */
	struct tls_set_item {
		struct buf chain, key, name;
	} items[TLS_IDENTITIES_MAX]; /* the set that is coming in */
	size_t count;
};

/* Before the jail: loads what OpenSSL loads lazily. */
void tls_set_init(struct tls_set *t, const char *service, const char *alpn);
/* MSG_TLS_CERTIFICATE or MSG_TLS_TICKET_KEYS. A certificate that cannot be used is logged, and the
 * former context goes on. */
void tls_set_message(struct tls_set *t, const struct conf *conf, const struct msg *m);

#endif
