/*
 * TLS contexts: what both sides share: parameters, certificates and keys, trust, and life. Runs in
 * every process that speaks TLS, as that process's uid; built from bytes, so also inside a jail.
 *
 * Invariants: a context never changes after it was made (reload makes another); it lives until its
 * last connection has gone. No password is ever asked for a key.
 */
#include "tls/internal.h"

#include <openssl/pem.h>

#include <stdio.h>
#include <stdlib.h>

#define GROUPS_HYBRID "X25519MLKEM768:X25519:P-256:P-384"

int
tls_complain(struct complaint *c, const char *thing)
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
			err = tls_complain(c, n == 1 ? "certificate" : "intermediate certificate");
		X509_free(cert);
	}
	if (!err && (n == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE))
		err = tls_complain(c, n == 0 ? "no certificate found" : "certificate chain");
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
		err = tls_complain(c, "private key (it must not be encrypted)");
	else if (SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1)
		err = tls_complain(c, "private key does not fit the certificate");
	EVP_PKEY_free(key);
	ERR_clear_error();
	BIO_free(bio);
	return err;
}

int
tls_use_identity(SSL_CTX *ctx, const struct tls_identity *id, struct complaint *c)
{
	int err;

	if (id->chain.n > 1 << 20 || id->key.n > 1 << 20)
		return tls_complain(c, "certificate file is over 1 MiB");
	err = use_chain(ctx, id->chain, c);
	return err ? err : use_key(ctx, id->key.n ? id->key : id->chain, c);
}

int
tls_trust(SSL_CTX *ctx, struct slice pem, bool name_them, struct complaint *c)
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
		return tls_complain(c, "no CA certificate found");
	ERR_clear_error();
	return 0;
}

/* --- what both sides share --- */

int
tls_version_number(enum tls_version v, int otherwise)
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

SSL_CTX *
tls_base_new(enum tls_side side)
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

int
tls_set_parameters(SSL_CTX *ctx, int min, int max, const char *ciphers, const char *suites,
    const char *groups, struct complaint *c)
{
	if (SSL_CTX_set_min_proto_version(ctx, min) != 1 ||
	    SSL_CTX_set_max_proto_version(ctx, max) != 1)
		return tls_complain(c, "TLS protocol versions");
	if (SSL_CTX_set_cipher_list(ctx, ciphers) != 1)
		return tls_complain(c, "TLS cipher list");
	if (suites && SSL_CTX_set_ciphersuites(ctx, suites) != 1)
		return tls_complain(c, "TLS 1.3 cipher suites");
	if (groups) {
		if (SSL_CTX_set1_groups_list(ctx, groups) != 1)
			return tls_complain(c, "TLS groups");
	} else if (SSL_CTX_set1_groups_list(ctx, GROUPS_HYBRID) != 1 &&
		   SSL_CTX_set1_groups_list(ctx, GROUPS_CLASSIC) != 1) {
		return tls_complain(c, "TLS groups");
	}
	ERR_clear_error();
	return 0;
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
