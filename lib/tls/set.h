/*
 * The TLS side of a front end (smtpd, submission, login): tls/serving.h with the options of its
 * configuration, and what the log is told. Held by the zygote and inherited by its children.
 * Nothing here blocks but tls_set_init, which reads a file before the jail.
 */
#ifndef TLS_SET_H
#define TLS_SET_H

#include "daemon/daemon.h"
#include "tls/serving.h"

struct tls_set {
	const char *service; /* tickets of another service are refused; borrowed */
	const char *alpn;    /* of the protocol, or NULL */
	struct tls_serving *serving;
	struct buf authorities; /* for auth_external; empty: no client certificate is asked for */
	char *ciphers;
};

/* Before the jail: loads what OpenSSL loads lazily, and with clients the authorities of client
 * certificates. service and alpn live as long as t. An error is logged. */
int tls_set_init(struct tls_set *t, const char *service, const char *alpn, const struct conf *conf,
    bool clients) CHECKED;
/* New values hold for the certificates that master sends after the configuration. */
void tls_set_reload(struct tls_set *t, const struct conf *conf);
/* MSG_TLS_CERTIFICATE or MSG_TLS_TICKET_KEYS. A set that cannot be used is logged, and the former
 * context goes on. warm_it: in a zygote, so that its children find OpenSSL's tables made. */
void tls_set_message(struct tls_set *t, const struct msg *m, bool warm_it);
/* NULL while there is no usable certificate. */
struct tls_ctx *tls_set_ctx(const struct tls_set *t);

#endif
