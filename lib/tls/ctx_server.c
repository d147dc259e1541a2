/*
 * TLS contexts of servers: identities, tickets, and what a hello picks among them. Runs in every
 * process that speaks TLS as a server, as that process's uid. Hostile: the client's hello (server
 * name, ALPN list). Invariant: ids[0] answers every name that no other certificate bears.
 */
#include "tls/internal.h"

#include <openssl/x509v3.h>

#include <stdlib.h>
#include <time.h>

/* Keeps the hello's server name and whether our ALPN name is on its list. Both are parsed here,
 * because a ticket is opened before OpenSSL's own callbacks for them run. */
static void
read_hello(SSL *ssl, struct tls_conn *conn)
{
	const unsigned char *p;
	struct slice name, list;
	size_t n;

	if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &n) == 1 && n >= 5) {
		size_t len = (size_t)(p[3] << 8 | p[4]);
		name = slice_sub(slice(p, n), 5, 5 + len);
		if (p[2] == TLSEXT_NAMETYPE_host_name && name.n == len && len > 0 && len < 256 &&
		    slice_find(name, 0) < 0) {
			free(conn->sni);
			conn->sni = slice_dup(name);
			for (char *s = conn->sni; *s; s++)
				*s = (char)ascii_lower((unsigned char)*s);
		}
	}
	if (!conn->ctx->alpn ||
	    SSL_client_hello_get0_ext(
		ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &p, &n) != 1)
		return;
	for (list = slice_sub(slice(p, n), 2, n); list.n > 0;
	     list = slice_sub(list, 1 + (size_t)list.p[0], list.n)) {
		struct slice item = slice_sub(list, 0, 1 + (size_t)list.p[0]);
		if (slice_eq(item, slice(conn->ctx->alpn, conn->ctx->alpn_size)))
			conn->offers_alpn = true;
	}
}

/* Whether the identity has this name, or a name of which it is a part. */
static bool
is_named(const struct tls_identity_ctx *id, struct slice sni, bool whole)
{
	struct slice name = id->name ? slice_str(id->name) : SLICE_NULL;

	if (whole)
		return name.n && slice_eq(sni, name);
	return name.n && name.p[0] == '.' && sni.n > name.n && slice_has_suffix(sni, id->name);
}

/* The identity for a server name: by its own name, by the longest one above, by certificate. */
static size_t
pick_identity(const struct tls_ctx *ctx, const char *sni)
{
	size_t best = ctx->count;

	for (size_t i = 0; i < ctx->count; i++)
		if (is_named(&ctx->ids[i], slice_str(sni), true))
			return i;
	for (size_t i = 0; i < ctx->count; i++)
		if (is_named(&ctx->ids[i], slice_str(sni), false) &&
		    (best == ctx->count || strlen(ctx->ids[i].name) > strlen(ctx->ids[best].name)))
			best = i;
	for (size_t i = 0; i < ctx->count && best == ctx->count; i++)
		if (!ctx->ids[i].name && X509_check_host(ctx->ids[i].cert, sni, 0,
					     X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1)
			best = i;
	return best == ctx->count ? 0 : best;
}

static int
client_hello_cb(SSL *ssl, int *alert, void *arg)
{
	struct tls_conn *conn = SSL_get_app_data(ssl);
	const struct tls_ctx *ctx;
	size_t i;

	(void)alert;
	(void)arg;
	if (!conn)
		return SSL_CLIENT_HELLO_SUCCESS;
	read_hello(ssl, conn);
	ctx = conn->ctx;
	i = conn->sni ? pick_identity(ctx, conn->sni) : 0;
	if (i > 0)
		SSL_set_SSL_CTX(ssl, ctx->ids[i].ctx);
	return SSL_CLIENT_HELLO_SUCCESS;
}

static int
alpn_cb(SSL *ssl, const unsigned char **out, unsigned char *out_size, const unsigned char *in,
    unsigned in_size, void *arg)
{
	const struct tls_ctx *ctx = arg;
	const struct tls_conn *conn = SSL_get_app_data(ssl);

	(void)in;
	(void)in_size;
	if (conn && !conn->offers_alpn)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = ctx->alpn + 1;
	*out_size = ctx->alpn[0];
	return SSL_TLSEXT_ERR_OK;
}

static int
accept_any(int ok, X509_STORE_CTX *store)
{
	(void)ok;
	(void)store;
	return 1; /* the result stays readable; the caller decides */
}

static int
server_identity(struct tls_ctx *t, const struct tls_server_opts *o, size_t i,
    struct tls_identity_ctx *id, struct complaint *c)
{
	SSL_CTX *ctx = id->ctx = tls_base_new(TLS_SERVER);
	struct tm tm;
	int64_t end;
	int err;

	err = tls_set_parameters(ctx, tls_version_number(o->min_version, TLS1_2_VERSION),
	    tls_version_number(o->max_version, 0), o->ciphers ? o->ciphers : CIPHERS_MODERN,
	    o->ciphersuites, o->groups, c);
	if (!err)
		err = tls_use_identity(ctx, &o->identities[i], c);
	if (err)
		return err;
	id->cert = SSL_CTX_get0_certificate(ctx);
	if (o->identities[i].name.n) {
		id->name = slice_dup(o->identities[i].name);
		for (char *s = id->name; *s; s++)
			*s = (char)ascii_lower((unsigned char)*s);
	}
	if (ASN1_TIME_to_tm(X509_get0_notAfter(id->cert), &tm) == 1) {
		end = (int64_t)timegm(&tm);
		if (t->expiry == 0 || end < t->expiry)
			t->expiry = end;
	}
	SSL_CTX_set_read_ahead(ctx, o->read_ahead);
	SSL_CTX_set_timeout(ctx, o->ticket_lifetime ? o->ticket_lifetime : 7200);
	SSL_CTX_set_session_id_context(ctx, t->service_id, sizeof(t->service_id));
	tls_tickets_install(t->tickets, ctx);
	SSL_CTX_set_client_hello_cb(ctx, client_hello_cb, NULL);
	if (t->alpn)
		SSL_CTX_set_alpn_select_cb(ctx, alpn_cb, t);
	if (o->ask_client_cert) {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, accept_any);
		SSL_CTX_set_verify_depth(ctx, 9);
		if (o->client_ca.n)
			err = tls_trust(ctx, o->client_ca, true, c);
	}
	return err;
}

int
tls_server_new(const struct tls_server_opts *o, struct tls_ctx **ctx_r, char *error, size_t size)
{
	struct complaint c = { error, size };
	struct tls_ctx *t = xcalloc(1, sizeof(*t));
	int err = 0;

	*ctx_r = NULL;
	t->refs = 1;
	t->side = TLS_SERVER;
	t->tickets = tls_tickets_ref(o->tickets);
	EVP_Digest(o->service, strlen(o->service), t->service_id, NULL, EVP_sha256(), NULL);
	if (o->alpn) {
		size_t n = strlen(o->alpn);
		t->alpn_size = n + 1;
		t->alpn = xmalloc(n + 1);
		t->alpn[0] = (unsigned char)n;
		memcpy(t->alpn + 1, o->alpn, n);
	}
	if (error && size)
		*error = '\0';
	t->ids = xcalloc(o->identity_count + 1, sizeof(*t->ids));
	ERR_clear_error();
	if (o->identity_count == 0)
		err = tls_complain(&c, "no certificate given");
	for (size_t i = 0; !err && i < o->identity_count; i++) {
		struct tls_identity_ctx *id = &t->ids[t->count];

		err = server_identity(t, o, i, id, &c);
		if (!err) {
			t->count++;
			continue;
		}
		SSL_CTX_free(id->ctx);
		free(id->name);
		*id = (struct tls_identity_ctx){ 0 };
		if (i > 0)
			err = 0;
	}
	if (err)
		tls_ctx_free(&t);
	*ctx_r = t;
	return err;
}

int64_t
tls_server_expiry(const struct tls_ctx *ctx)
{
	return ctx->expiry;
}

void
tls_server_warm(struct tls_ctx *ctx)
{
	SSL_CTX *client_ctx = tls_base_new(TLS_CLIENT);
	SSL *server = SSL_new(ctx->ids[0].ctx), *client = SSL_new(client_ctx);
	BIO *a, *b;
	char byte;

	if (!server || !client || BIO_new_bio_pair(&a, 0, &b, 0) != 1)
		die("out of memory in OpenSSL");
	SSL_set_num_tickets(server, 0); /* no connection object stands behind it */
	SSL_set_options(server, SSL_OP_NO_TICKET);
	SSL_set_bio(server, a, a);
	SSL_set_bio(client, b, b);
	SSL_set_accept_state(server);
	SSL_set_connect_state(client);
	if (ctx->alpn)
		SSL_set_alpn_protos(client, ctx->alpn, (unsigned)ctx->alpn_size);
	for (int i = 0; i < 8 && !(SSL_is_init_finished(server) && SSL_is_init_finished(client));
	     i++) {
		SSL_do_handshake(client);
		SSL_do_handshake(server);
	}
	SSL_write(client, "x", 1);
	SSL_read(server, &byte, 1);
	SSL_write(server, "x", 1);
	SSL_read(client, &byte, 1);
	ERR_clear_error();
	SSL_free(server);
	SSL_free(client);
	SSL_CTX_free(client_ctx);
}
