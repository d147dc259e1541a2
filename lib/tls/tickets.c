/*
 * Session tickets: sealed with keys that master draws per service and hands to every process of it,
 * so that a session resumes in another process, after a reload and after an upgrade. Runs in every
 * process that speaks TLS as a server. Hostile: the ticket, which is not looked at before its HMAC
 * holds.
 *
 * A ticket is bound three ways: by the keys (per service), by the session id context (OpenSSL
 * refuses another), and by a digest of service, server name and ALPN result that the ticket carries
 * and that must equal what the new hello asks.
 */
#include "tls/internal.h"

#include <openssl/core_names.h>

#include <stdlib.h>

struct ticket_key {
	unsigned char name[16], aes[32], mac[32];
};

struct tls_tickets {
	unsigned refs;
	size_t count;
	struct ticket_key keys[TLS_TICKET_KEYS];
};

struct tls_tickets *
tls_tickets_new(void)
{
	struct tls_tickets *t = xcalloc(1, sizeof(*t));

	t->refs = 1;
	return t;
}

struct tls_tickets *
tls_tickets_ref(struct tls_tickets *t)
{
	if (t)
		t->refs++;
	return t;
}

void
tls_tickets_free(struct tls_tickets **t)
{
	if (*t && --(*t)->refs == 0) {
		OPENSSL_cleanse(*t, sizeof(**t));
		free(*t);
	}
	*t = NULL;
}

bool
tls_tickets_usable(const struct tls_tickets *t)
{
	return t && t->count > 0;
}

int
tls_tickets_set(struct tls_tickets *t, struct slice keys)
{
	size_t n = keys.n / TLS_TICKET_KEY_SIZE;

	if (keys.n % TLS_TICKET_KEY_SIZE != 0)
		return ERR_SYNTAX;
	if (n > TLS_TICKET_KEYS)
		n = TLS_TICKET_KEYS;
	/* With no key the old ones stay in place for handshakes under way; new connections give no
	 * ticket. */
	for (size_t i = 0; i < n; i++) {
		memcpy(t->keys[i].name, keys.p + i * TLS_TICKET_KEY_SIZE, 16);
		memcpy(t->keys[i].aes, keys.p + i * TLS_TICKET_KEY_SIZE + 16, 32);
		memcpy(t->keys[i].mac, keys.p + i * TLS_TICKET_KEY_SIZE + 48, 32);
	}
	t->count = n;
	return 0;
}

void
tls_ticket_key_draw(unsigned char key[TLS_TICKET_KEY_SIZE])
{
	if (RAND_bytes(key, TLS_TICKET_KEY_SIZE) != 1)
		die("cannot draw a TLS ticket key: the random generator of OpenSSL fails");
}

static struct tls_tickets *
tickets_of(SSL *ssl)
{
	const struct tls_conn *conn = SSL_get_app_data(ssl);

	return conn ? conn->ctx->tickets : NULL;
}

static int
key_use(const struct ticket_key *key, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
    int seal)
{
	unsigned char copy[32];
	OSSL_PARAM params[3];
	int ok;

	memcpy(copy, key->mac, sizeof(copy));
	params[0] = OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, copy, sizeof(copy));
	params[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"sha256", 0);
	params[2] = OSSL_PARAM_construct_end();
	ok = EVP_MAC_CTX_set_params(mac, params) == 1 &&
	     EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->aes, iv, seal) == 1;
	OPENSSL_cleanse(copy, sizeof(copy));
	return ok;
}

/* Returns 1 to go on, 2 to go on and renew, 0 for no such key, -1 for a failure, as OpenSSL defines
 * it. */
static int
ticket_key_cb(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
    EVP_MAC_CTX *mac, int seal)
{
	const struct tls_tickets *t = tickets_of(ssl);

	if (!t)
		return seal ? -1 : 0;
	if (seal) {
		if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1)
			return -1;
		memcpy(name, t->keys[0].name, sizeof(t->keys[0].name));
		return key_use(&t->keys[0], iv, cipher, mac, 1) ? 1 : -1;
	}
	for (size_t i = 0; i < t->count; i++)
		if (memcmp(name, t->keys[i].name, sizeof(t->keys[i].name)) == 0) {
			if (!key_use(&t->keys[i], iv, cipher, mac, 0))
				return -1;
			return i == 0 ? 1 : 2;
		}
	return 0;
}

static void
binding_digest(SSL *ssl, unsigned char out[32])
{
	const struct tls_conn *conn = SSL_get_app_data(ssl);
	struct buf b = { 0 };

	buf_add(&b, slice(conn->ctx->service_id, sizeof(conn->ctx->service_id)));
	buf_add_counted(&b, slice_str(conn->sni));
	buf_add_u8(&b, conn->offers_alpn);
	EVP_Digest(buf_slice(&b).p, buf_len(&b), out, NULL, EVP_sha256(), NULL);
	buf_free(&b);
}

static int
ticket_seal_cb(SSL *ssl, void *arg)
{
	unsigned char digest[32];

	(void)arg;
	binding_digest(ssl, digest);
	return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), digest, sizeof(digest));
}

static SSL_TICKET_RETURN
ticket_open_cb(SSL *ssl, SSL_SESSION *session, const unsigned char *name, size_t name_size,
    SSL_TICKET_STATUS status, void *arg)
{
	unsigned char digest[32];
	void *sealed;
	size_t n;

	(void)name;
	(void)name_size;
	(void)arg;
	if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
		return SSL_TICKET_RETURN_IGNORE_RENEW;
	binding_digest(ssl, digest);
	if (SSL_SESSION_get0_ticket_appdata(session, &sealed, &n) != 1 || n != sizeof(digest) ||
	    CRYPTO_memcmp(sealed, digest, n) != 0)
		return SSL_TICKET_RETURN_IGNORE_RENEW;
	/* Clients of TLS 1.3 use a ticket once (RFC 8446, appendix C.4), so each connection must
	 * get the next. */
	if (status == SSL_TICKET_SUCCESS && SSL_version(ssl) < TLS1_3_VERSION)
		return SSL_TICKET_RETURN_USE;
	return SSL_TICKET_RETURN_USE_RENEW;
}

void
tls_tickets_install(struct tls_tickets *t, SSL_CTX *ctx)
{
	if (!t) {
		SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
		SSL_CTX_set_num_tickets(ctx, 0);
		return;
	}
	SSL_CTX_set_num_tickets(ctx, 1);
	SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, ticket_key_cb);
	SSL_CTX_set_session_ticket_cb(ctx, ticket_seal_cb, ticket_open_cb, NULL);
}
