/*
 * TLS connections over a non-blocking descriptor. Runs in every process that speaks TLS, as that
 * process's uid. Hostile: every byte that comes in, which OpenSSL alone looks at before it is
 * authenticated.
 *
 * Invariants: a failed connection does nothing more (OpenSSL forbids a call after a fatal error);
 * the error queue is empty before each call, because it is per thread and sticky; a client's first
 * byte is neither sent nor returned before the level's check has passed.
 */
#include "tls/internal.h"

#include <openssl/x509v3.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

struct tls_conn *
tls_conn_new(struct tls_ctx *ctx, int fd, enum tls_side side)
{
	struct tls_conn *conn = xcalloc(1, sizeof(*conn));

	if (side != ctx->side)
		die("TLS context used for the wrong side");
	conn->ctx = tls_ctx_ref(ctx);
	conn->ssl = SSL_new(ctx->ids[0].ctx);
	if (!conn->ssl || SSL_set_fd(conn->ssl, fd) != 1)
		die("out of memory in OpenSSL");
	SSL_set_app_data(conn->ssl, conn);
	if (side == TLS_SERVER) {
		SSL_set_accept_state(conn->ssl);
		if (ctx->tickets && !tls_tickets_usable(ctx->tickets)) {
			SSL_set_options(conn->ssl, SSL_OP_NO_TICKET);
			SSL_set_num_tickets(conn->ssl, 0);
		}
	} else {
		SSL_set_connect_state(conn->ssl);
	}
	return conn;
}

void
tls_conn_free(struct tls_conn **conn_p)
{
	struct tls_conn *conn = *conn_p;

	*conn_p = NULL;
	if (!conn)
		return;
	/* No goodbye was sent perhaps, but the session was good: without this OpenSSL would drop
	 * it. */
	if (!conn->broken)
		SSL_set_shutdown(conn->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(conn->ssl);
	tls_session_free(&conn->session);
	tls_ctx_free(&conn->ctx);
	free(conn->sni);
	free(conn->error);
	free(conn->digests);
	free(conn);
}

/* --- what a client demands of its peer --- */

static int
hex_digest(const char *hex, unsigned char out[32])
{
	unsigned char *p;
	long n;
	int err = ERR_SYNTAX;

	p = OPENSSL_hexstr2buf(hex, &n);
	if (p && n == 32) {
		memcpy(out, p, 32);
		err = 0;
	}
	OPENSSL_free(p);
	ERR_clear_error();
	return err;
}

static bool
is_address(const char *name)
{
	unsigned char addr[16];

	return inet_pton(AF_INET, name, addr) == 1 || inet_pton(AF_INET6, name, addr) == 1;
}

static int
demand_names(SSL *ssl, const struct tls_peer *peer)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

	for (size_t i = 0; i < peer->name_count; i++) {
		int ok;
		if (is_address(peer->names[i]))
			ok = X509_VERIFY_PARAM_set1_ip_asc(param, peer->names[i]);
		else
			ok = SSL_add1_host(ssl, peer->names[i]);
		if (ok != 1)
			return ERR_SYNTAX;
	}
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
	return peer->name_count ? 0 : ERR_SYNTAX;
}

static int
demand_tlsa(SSL *ssl, const struct tls_peer *peer)
{
	int usable = 0;

	if (peer->name_count == 0 || SSL_dane_enable(ssl, peer->names[0]) != 1)
		return ERR_SYNTAX;
	SSL_dane_set_flags(ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
	for (size_t i = 1; i < peer->name_count; i++)
		if (SSL_add1_host(ssl, peer->names[i]) != 1)
			return ERR_SYNTAX;
	for (size_t i = 0; i < peer->tlsa_count; i++) {
		const struct tls_tlsa *r = &peer->tlsa[i];
		if ((r->usage == 2 || r->usage == 3) &&
		    SSL_dane_tlsa_add(
			ssl, r->usage, r->selector, r->matching, r->data.p, r->data.n) > 0)
			usable++;
	}
	SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
	ERR_clear_error();
	return usable ? 0 : ERR_SYNTAX;
}

static int
demand(struct tls_conn *conn, const struct tls_peer *peer)
{
	switch (conn->ctx->level) {
	case TLS_VERIFY:
		return demand_names(conn->ssl, peer);
	case TLS_DANE:
		return demand_tlsa(conn->ssl, peer);
	case TLS_FINGERPRINT:
		conn->digests = xcalloc(peer->fingerprint_count, sizeof(*conn->digests));
		for (size_t i = 0; i < peer->fingerprint_count; i++)
			if (hex_digest(peer->fingerprints[i], conn->digests[conn->digest_count++]) <
			    0)
				return ERR_SYNTAX;
		return conn->digest_count ? 0 : ERR_SYNTAX;
	default:
		return 0;
	}
}

int
tls_conn_new_client(
    struct tls_ctx *ctx, int fd, const struct tls_peer *peer, struct tls_conn **conn_r)
{
	struct tls_conn *conn = tls_conn_new(ctx, fd, TLS_CLIENT);
	int err;

	*conn_r = NULL;
	ERR_clear_error();
	err = demand(conn, peer);
	if (!err && peer->sni && !is_address(peer->sni) &&
	    SSL_set_tlsext_host_name(conn->ssl, peer->sni) != 1)
		err = ERR_LIMIT;
	/* A session's own certificate check does not run again on resumption, so a session is used
	 * at the same level only; the caller keeps them apart by context. */
	if (!err && peer->session && peer->session->s)
		SSL_set_session(conn->ssl, peer->session->s);
	if (err)
		tls_conn_free(&conn);
	*conn_r = conn;
	return err;
}

static bool
digest_matches(const struct tls_conn *conn, const unsigned char *der, int n)
{
	unsigned char digest[32];

	if (n <= 0)
		return false;
	EVP_Digest(der, (size_t)n, digest, NULL, EVP_sha256(), NULL);
	for (size_t i = 0; i < conn->digest_count; i++)
		if (CRYPTO_memcmp(digest, conn->digests[i], sizeof(digest)) == 0)
			return true;
	return false;
}

static bool
fingerprint_matches(const struct tls_conn *conn)
{
	X509 *cert = SSL_get0_peer_certificate(conn->ssl);
	unsigned char *der = NULL;
	bool ok = false;

	if (!cert)
		return false;
	ok = digest_matches(conn, der, i2d_X509(cert, &der));
	OPENSSL_free(der);
	der = NULL;
	if (!ok) {
		int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
		ok = digest_matches(conn, der, n);
		OPENSSL_free(der);
	}
	return ok;
}

/* --- failures --- */

static int
failed(struct tls_conn *conn, int err, const char *text)
{
	conn->broken = true;
	free(conn->error);
	conn->error = xstrdup(text);
	ERR_clear_error();
	return err;
}

/* What the library says last of it ("init fail") does not name it. */
static bool
memory_refused(void)
{
	unsigned long e;
	bool found = false;

	while ((e = ERR_get_error()))
		found |= ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE ||
			 ERR_GET_REASON(e) == ERR_R_INIT_FAIL;
	return found;
}

static int
library_failed(struct tls_conn *conn)
{
	unsigned long e = ERR_peek_error();
	const char *reason = ERR_reason_error_string(e);
	char text[256];

	if (memory_refused())
		return failed(
		    conn, -ENOMEM, "out of memory: raise the memory limit of this service");
	if (ERR_GET_LIB(e) == ERR_LIB_SSL &&
	    ERR_GET_REASON(e) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		return failed(conn, ERR_CLOSED, "peer closed the connection");
	if (ERR_GET_LIB(e) == ERR_LIB_SSL && ERR_GET_REASON(e) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
		snprintf(text, sizeof(text), "certificate not accepted: %s",
		    X509_verify_cert_error_string(SSL_get_verify_result(conn->ssl)));
		return failed(conn, ERR_DENIED, text);
	}
	return failed(conn, ERR_SYNTAX, reason ? reason : "TLS protocol error");
}

/* Turns OpenSSL's answer into one of ours; saved_errno is that of the call. */
static int
outcome(struct tls_conn *conn, int ret, int saved_errno)
{
	switch (SSL_get_error(conn->ssl, ret)) {
	case SSL_ERROR_WANT_READ:
		return TLS_WANT_READ;
	case SSL_ERROR_WANT_WRITE:
		return TLS_WANT_WRITE;
	case SSL_ERROR_ZERO_RETURN:
		return failed(conn, ERR_CLOSED, "peer closed the TLS session");
	case SSL_ERROR_SYSCALL:
		if (ERR_peek_error())
			return library_failed(conn);
		if (saved_errno > 0)
			return failed(conn, -saved_errno, err_str(-saved_errno));
		return failed(conn, ERR_CLOSED, "peer closed the connection");
	default:
		return library_failed(conn);
	}
}

static bool
ready(struct tls_conn *conn)
{
	if (conn->broken)
		return false;
	ERR_clear_error();
	errno = 0;
	return true;
}

/* --- the four calls --- */

int
tls_handshake(struct tls_conn *conn)
{
	int ret;

	if (!ready(conn))
		return ERR_STATE;
	ret = SSL_do_handshake(conn->ssl);
	if (ret != 1)
		return outcome(conn, ret, errno);
	if (conn->ctx->level == TLS_FINGERPRINT && !conn->checked) {
		conn->checked = true;
		conn->matched = fingerprint_matches(conn);
		if (!conn->matched)
			return failed(conn, ERR_DENIED,
			    "certificate not accepted: its fingerprint is not on the list");
	}
	return 0;
}

ptrdiff_t
tls_read(struct tls_conn *conn, void *p, size_t n)
{
	size_t got = 0;
	int ret, err;

	if (!SSL_is_init_finished(conn->ssl) && (ret = tls_handshake(conn)) != 0)
		return ret;
	if (!ready(conn))
		return ERR_STATE;
	ret = SSL_read_ex(conn->ssl, p, n, &got);
	if (ret == 1) {
		conn->drained = false;
		return (ptrdiff_t)got;
	}
	err = errno;
	conn->drained = true;
	if (SSL_get_error(conn->ssl, ret) == SSL_ERROR_ZERO_RETURN)
		return 0;
	return outcome(conn, ret, err);
}

ptrdiff_t
tls_read_buf(struct tls_conn *conn, struct buf *b, size_t max)
{
	unsigned char *p;
	ptrdiff_t got;

	if (b->limit) {
		size_t room = b->limit > buf_len(b) ? b->limit - buf_len(b) : 0;
		if (max > room)
			max = room;
	}
	if (max == 0 || !(p = buf_reserve(b, max)))
		return -ENOBUFS;
	got = tls_read(conn, p, max);
	if (got > 0)
		buf_commit(b, (size_t)got);
	return got;
}

ptrdiff_t
tls_write(struct tls_conn *conn, const void *p, size_t n)
{
	size_t put = 0;
	int ret;

	if (n == 0)
		return 0;
	if (!SSL_is_init_finished(conn->ssl) && (ret = tls_handshake(conn)) != 0)
		return ret;
	if (!ready(conn))
		return ERR_STATE;
	ret = SSL_write_ex(conn->ssl, p, n, &put);
	if (ret == 1)
		return (ptrdiff_t)put;
	return outcome(conn, ret, errno);
}

int
tls_write_buf(struct tls_conn *conn, struct buf *b)
{
	while (buf_len(b) > 0) {
		struct slice s = buf_slice(b);
		ptrdiff_t put = tls_write(conn, s.p, s.n);
		if (put < 0)
			return (int)put;
		buf_consume(b, (size_t)put);
	}
	return 0;
}

int
tls_shutdown(struct tls_conn *conn)
{
	int ret;

	if (!ready(conn))
		return ERR_STATE;
	if (!SSL_is_init_finished(conn->ssl))
		return 0;
	ret = SSL_shutdown(conn->ssl);
	if (ret >= 0)
		return 0;
	ret = outcome(conn, ret, errno);
	return ret == TLS_WANT_READ ? 0 : ret;
}

bool
tls_pending(const struct tls_conn *conn)
{
	return !conn->broken && !conn->drained && SSL_has_pending(conn->ssl) == 1;
}

const char *
tls_error(const struct tls_conn *conn)
{
	return conn->error ? conn->error : "no error";
}

struct tls_session *
tls_session_take(struct tls_conn *conn)
{
	struct tls_session *s = conn->session;
	SSL_SESSION *live = SSL_get_session(conn->ssl);

	conn->session = NULL;
	/* OpenSSL does not announce a ticket that TLS 1.2 renewed on resumption. */
	if (!s && live && !conn->broken && SSL_session_reused(conn->ssl) &&
	    SSL_version(conn->ssl) < TLS1_3_VERSION) {
		s = xcalloc(1, sizeof(*s));
		s->s = SSL_SESSION_dup(live);
	}
	return s;
}

void
tls_session_free(struct tls_session **s)
{
	if (*s) {
		SSL_SESSION_free((*s)->s);
		free(*s);
	}
	*s = NULL;
}
