/*
 * TLS contexts of clients, one for each level of demand (RFC 7435, RFC 7672, RFC 8461). Runs in
 * smtp-client, as its uid; files of trust are read before the jail.
 */
#include "tls/internal.h"

#include <stdlib.h>

#define CIPHERS_OPPORTUNISTIC "DEFAULT@SECLEVEL=0"

static int
keep_session(SSL *ssl, SSL_SESSION *session)
{
	struct tls_conn *conn = SSL_get_app_data(ssl);

	if (!conn)
		return 0;
	/* A copy: OpenSSL marks the live one unusable when the peer leaves without close_notify. */
	tls_session_free(&conn->session);
	conn->session = xcalloc(1, sizeof(*conn->session));
	conn->session->s = SSL_SESSION_dup(session);
	return 0;
}

static int
load_trust(SSL_CTX *ctx, const struct tls_client_opts *o, struct complaint *c)
{
	int err = 0;

	if (o->ca.n)
		err = tls_trust(ctx, o->ca, false, c);
	if (!err && o->ca_file && SSL_CTX_load_verify_file(ctx, o->ca_file) != 1)
		err = tls_complain(c, o->ca_file);
	if (!err && o->default_ca &&
	    SSL_CTX_load_verify_file(ctx, "/etc/ssl/certs/ca-certificates.crt") != 1 &&
	    SSL_CTX_load_verify_file(ctx, X509_get_default_cert_file()) != 1 &&
	    o->level == TLS_VERIFY)
		err = tls_complain(c, "the system's CA bundle");
	ERR_clear_error();
	return err;
}

int
tls_client_new(const struct tls_client_opts *o, struct tls_ctx **ctx_r, char *error, size_t size)
{
	struct complaint c = { error, size };
	struct tls_ctx *t = xcalloc(1, sizeof(*t));
	bool any = o->level == TLS_OPPORTUNISTIC;
	const char *groups = o->groups ? o->groups : any ? GROUPS_CLASSIC ":P-521" : NULL;
	SSL_CTX *ctx = tls_base_new(TLS_CLIENT);
	int err;

	*ctx_r = NULL;
	t->refs = 1;
	t->side = TLS_CLIENT;
	t->level = o->level;
	t->count = 1;
	t->ids = xcalloc(1, sizeof(*t->ids));
	t->ids[0].ctx = ctx;
	ERR_clear_error();
	err = tls_set_parameters(ctx,
	    tls_version_number(o->min_version, any ? TLS1_VERSION : TLS1_2_VERSION),
	    tls_version_number(o->max_version, 0),
	    o->ciphers ? o->ciphers
	    : any      ? CIPHERS_OPPORTUNISTIC
		       : CIPHERS_MODERN,
	    o->ciphersuites, groups, &c);
	if (!err)
		err = load_trust(ctx, o, &c);
	if (!err && o->identity.chain.n)
		err = tls_use_identity(ctx, &o->identity, &c);
	if (!err && o->level == TLS_DANE && SSL_CTX_dane_enable(ctx) != 1)
		err = tls_complain(&c, "DANE");
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx, keep_session);
	if (any) /* what verified levels refuse, old peers need */
		SSL_CTX_set_options(ctx, SSL_OP_LEGACY_SERVER_CONNECT);
	if (err)
		tls_ctx_free(&t);
	*ctx_r = t;
	return err;
}
