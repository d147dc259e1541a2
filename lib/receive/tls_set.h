/*
 * The TLS side of smtpd and submission: lib/tls/serving.h with this front end's options. Held by
 * the zygote and inherited by its children.
 */
#ifndef RECEIVE_TLS_SET_H
#define RECEIVE_TLS_SET_H

#include "daemon/daemon.h"
#include "tls/serving.h"

struct tls_set {
	const char *service; /* tickets of another service are refused */
	struct tls_serving *serving;
	struct buf authorities; /* for auth_external; empty: no client certificate is asked for */
	char *ciphers;
};

/* Before the jail: loads what OpenSSL loads lazily, and with clients the authorities of client
 * certificates. An error is logged. */
int tls_set_init(
    struct tls_set *t, const char *service, const struct conf *conf, bool clients) CHECKED;
/* New values hold for the certificates that master sends after the configuration. */
void tls_set_reload(struct tls_set *t, const struct conf *conf);
/* MSG_TLS_CERTIFICATE or MSG_TLS_TICKET_KEYS. A set that cannot be used is logged, and the former
 * context goes on. */
void tls_set_message(struct tls_set *t, const struct msg *m);
/* NULL while there is no usable certificate. */
struct tls_ctx *tls_set_ctx(const struct tls_set *t);

#endif
