/*
 * The TLS of one front end over its life: certificates and ticket keys arrive as messages
 * (tls_certificate, tls_ticket_keys), a set of certificates replaces the former one whole,
 * connections keep what they began with.
 */
#ifndef TLS_SERVING_H
#define TLS_SERVING_H

#include "tls/tls.h"

struct tls_serving;

/* Borrows the strings of opts for its life; identities and tickets in it are ignored. */
struct tls_serving *tls_serving_new(const struct tls_server_opts *opts);
void tls_serving_free(struct tls_serving **s);
/* After a reload: other options, for the certificates that come from now on. */
void tls_serving_options(struct tls_serving *s, const struct tls_server_opts *opts);
/*
 * Certificate number index of count; name: the server name that picks it, or empty. 1: the set is
 * complete and in use; 0: more are to come; an error with a text for the log: the former set stays
 * in use. 1 with a text: certificates but the first could not be used and are left out.
 */
int tls_serving_certificate(struct tls_serving *s, unsigned index, unsigned count,
    struct slice name, struct slice chain, struct slice key, char *error, size_t size) CHECKED;
int tls_serving_keys(struct tls_serving *s, struct slice keys) CHECKED;
/* True when a certificate in use has expired or soon will, with a text for the log; then not again
 * within the hour. An acceptor asks after each message: new keys come twice a day. */
bool tls_serving_expiring(struct tls_serving *s, char text_r[64]);
/* The present context, or NULL while there is none: no TLS then. Borrowed: a connection holds its
 * own reference. */
struct tls_ctx *tls_serving_ctx(const struct tls_serving *s);

#endif
