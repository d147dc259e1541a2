/*
 * TLS contexts: parameters, certificates and what a hello picks among them. Runs in every process
 * that speaks TLS, as that process's uid; built from bytes, so also inside a jail. Hostile: the
 * client's hello (server name, ALPN list).
 *
 * Invariants: a context never changes after it was made (reload makes another); it lives until its
 * last connection has gone; ids[0] answers every name that no other certificate bears. No password
 * is ever asked for a key.
 */
#include "tls/internal.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <stdlib.h>
#include <stdio.h>
#include <time.h>

/* TLS 1.2 with forward secrecy and AEAD only; 1.3 has nothing else. */
#define CIPHERS_MODERN "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
#define CIPHERS_OPPORTUNISTIC "DEFAULT@SECLEVEL=0"
#define GROUPS_HYBRID "X25519MLKEM768:X25519:P-256:P-384"
#define GROUPS_CLASSIC "X25519:P-256:P-384"

struct complaint {
	char *text;
	size_t size;
};

static int
complain(struct complaint *c, const char *thing)
{
	unsigned long e = ERR_peek_last_error();
	const char *reason = e ? ERR_reason_error_string(e) : NULL;

	if (c->text)
		snprintf(c->text, c->size, "%s: %s", thing, reason ? reason : "not usable");
	ERR_clear_error();
	return ERR_SYNTAX;
}

/* --- PEM --- */

static int
no_password(char *p, int size, int writing, void *arg)
{
	(void)p;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

static int
use_chain(SSL_CTX *ctx, struct slice pem, struct complaint *c)
{
	BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
	X509 *cert;
	size_t n = 0;
	int err = 0;

	if (!bio)
		die("out of memory in OpenSSL");
	while (!err && (cert = PEM_read_bio_X509(bio, NULL, no_password, NULL))) {
		int ok = n++ == 0 ? SSL_CTX_use_certificate(ctx, cert)
				  : SSL_CTX_add1_chain_cert(ctx, cert);
		if (!ok)
			err = complain(c, n == 1 ? "certificate" : "intermediate certificate");
		X509_free(cert);
	}
	if (!err && (n == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE))
		err = complain(c, n == 0 ? "no certificate found" : "certificate chain");
	ERR_clear_error();
	BIO_free(bio);
	return err;
}

static int
use_key(SSL_CTX *ctx, struct slice pem, struct complaint *c)
{
	BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
	EVP_PKEY *key;
	int err = 0;

	if (!bio)
		die("out of memory in OpenSSL");
	key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
	if (!key)
		err = complain(c, "private key (it must not be encrypted)");
	else if (SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1)
		err = complain(c, "private key does not fit the certificate");
	EVP_PKEY_free(key);
	ERR_clear_error();
	BIO_free(bio);
	return err;
}

static int
use_identity(SSL_CTX *ctx, const struct tls_identity *id, struct complaint *c)
{
	int err;

	if (id->chain.n > 1 << 20 || id->key.n > 1 << 20)
		return complain(c, "certificate file is over 1 MiB");
	err = use_chain(ctx, id->chain, c);
	return err ? err : use_key(ctx, id->key.n ? id->key : id->chain, c);
}

static int
trust(SSL_CTX *ctx, struct slice pem, bool name_them, struct complaint *c)
{
	BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
	X509 *cert;
	size_t n = 0;

	if (!bio)
		die("out of memory in OpenSSL");
	while ((cert = PEM_read_bio_X509(bio, NULL, no_password, NULL))) {
		X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), cert);
		if (name_them)
			SSL_CTX_add_client_CA(ctx, cert);
		X509_free(cert);
		n++;
	}
	BIO_free(bio);
	if (n == 0)
		return complain(c, "no CA certificate found");
	ERR_clear_error();
	return 0;
}

/* --- what both sides share --- */

static int
version_number(enum tls_version v, int otherwise)
{
	switch (v) {
	case TLS_VERSION_1_0:
		return TLS1_VERSION;
	case TLS_VERSION_1_1:
		return TLS1_1_VERSION;
	case TLS_VERSION_1_2:
		return TLS1_2_VERSION;
	case TLS_VERSION_1_3:
		return TLS1_3_VERSION;
	default:
		return otherwise;
	}
}

static SSL_CTX *
base_new(enum tls_side side)
{
	SSL_CTX *ctx = SSL_CTX_new(side == TLS_SERVER ? TLS_server_method() : TLS_client_method());

	if (!ctx)
		die("cannot make a TLS context: OpenSSL is not usable");
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
				  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_options(
	    ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_default_passwd_cb(ctx, no_password);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	return ctx;
}

static int
set_parameters(SSL_CTX *ctx, int min, int max, const char *ciphers, const char *suites,
    const char *groups, struct complaint *c)
{
	if (SSL_CTX_set_min_proto_version(ctx, min) != 1 ||
	    SSL_CTX_set_max_proto_version(ctx, max) != 1)
		return complain(c, "TLS protocol versions");
	if (SSL_CTX_set_cipher_list(ctx, ciphers) != 1)
		return complain(c, "TLS cipher list");
	if (suites && SSL_CTX_set_ciphersuites(ctx, suites) != 1)
		return complain(c, "TLS 1.3 cipher suites");
	if (groups) {
		if (SSL_CTX_set1_groups_list(ctx, groups) != 1)
			return complain(c, "TLS groups");
	} else if (SSL_CTX_set1_groups_list(ctx, GROUPS_HYBRID) != 1 &&
		   SSL_CTX_set1_groups_list(ctx, GROUPS_CLASSIC) != 1) {
		return complain(c, "TLS groups");
	}
	ERR_clear_error();
	return 0;
}

/* --- server --- */

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
	SSL_CTX *ctx = id->ctx = base_new(TLS_SERVER);
	struct tm tm;
	int64_t end;
	int err;

	err = set_parameters(ctx, version_number(o->min_version, TLS1_2_VERSION),
	    version_number(o->max_version, 0), o->ciphers ? o->ciphers : CIPHERS_MODERN,
	    o->ciphersuites, o->groups, c);
	if (!err)
		err = use_identity(ctx, &o->identities[i], c);
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
			err = trust(ctx, o->client_ca, true, c);
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
		err = complain(&c, "no certificate given");
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
	SSL_CTX *client_ctx = base_new(TLS_CLIENT);
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

/* --- client --- */

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
		err = trust(ctx, o->ca, false, c);
	if (!err && o->ca_file && SSL_CTX_load_verify_file(ctx, o->ca_file) != 1)
		err = complain(c, o->ca_file);
	if (!err && o->default_ca &&
	    SSL_CTX_load_verify_file(ctx, "/etc/ssl/certs/ca-certificates.crt") != 1 &&
	    SSL_CTX_load_verify_file(ctx, X509_get_default_cert_file()) != 1 &&
	    o->level == TLS_VERIFY)
		err = complain(c, "the system's CA bundle");
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
	SSL_CTX *ctx = base_new(TLS_CLIENT);
	int err;

	*ctx_r = NULL;
	t->refs = 1;
	t->side = TLS_CLIENT;
	t->level = o->level;
	t->count = 1;
	t->ids = xcalloc(1, sizeof(*t->ids));
	t->ids[0].ctx = ctx;
	ERR_clear_error();
	err =
	    set_parameters(ctx, version_number(o->min_version, any ? TLS1_VERSION : TLS1_2_VERSION),
		version_number(o->max_version, 0),
		o->ciphers ? o->ciphers
		: any      ? CIPHERS_OPPORTUNISTIC
			   : CIPHERS_MODERN,
		o->ciphersuites, groups, &c);
	if (!err)
		err = load_trust(ctx, o, &c);
	if (!err && o->identity.chain.n)
		err = use_identity(ctx, &o->identity, &c);
	if (!err && o->level == TLS_DANE && SSL_CTX_dane_enable(ctx) != 1)
		err = complain(&c, "DANE");
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx, keep_session);
	if (any) /* what verified levels refuse, old peers need */
		SSL_CTX_set_options(ctx, SSL_OP_LEGACY_SERVER_CONNECT);
	if (err)
		tls_ctx_free(&t);
	*ctx_r = t;
	return err;
}

/* --- life --- */

struct tls_ctx *
tls_ctx_ref(struct tls_ctx *ctx)
{
	ctx->refs++;
	return ctx;
}

void
tls_ctx_free(struct tls_ctx **ctx)
{
	struct tls_ctx *t = *ctx;

	*ctx = NULL;
	if (!t || --t->refs > 0)
		return;
	for (size_t i = 0; i < t->count; i++) {
		SSL_CTX_free(t->ids[i].ctx);
		free(t->ids[i].name);
	}
	tls_tickets_free(&t->tickets);
	free(t->ids);
	free(t->alpn);
	free(t);
}
