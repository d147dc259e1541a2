/*
 * What a finished handshake tells: protocol, cipher, peer and channel binding. Runs in every
 * process that speaks TLS. Hostile: the peer's certificate; its names are escaped by OpenSSL before
 * they leave this file, so that no control character reaches a log line or a header.
 */
#include "tls/internal.h"

#include <openssl/x509v3.h>

#include <stdio.h>

static void
name_text(const X509_NAME *name, char *out, size_t size)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *p;
	long n;

	out[0] = 0;
	if (!bio)
		return;
	X509_NAME_print_ex(
	    bio, name, 0, XN_FLAG_RFC2253 | ASN1_STRFLGS_ESC_CTRL | ASN1_STRFLGS_ESC_MSB);
	n = BIO_get_mem_data(bio, &p);
	if (n > 0)
		snprintf(out, size, "%.*s", (int)n, p);
	BIO_free(bio);
}

/* The name that a client certificate logs in as: a mail address among its alternative names, else
 * the common name. Only plain ASCII without control characters counts. */
static void
login_name(const X509 *cert, char *out, size_t size)
{
	STACK_OF(OPENSSL_STRING) *emails = X509_get1_email((X509 *)(uintptr_t)cert);
	int n = 0;

	out[0] = 0;
	if (emails && sk_OPENSSL_STRING_num(emails) > 0)
		n = snprintf(out, size, "%s", sk_OPENSSL_STRING_value(emails, 0));
	else
		n = X509_NAME_get_text_by_NID(
		    X509_get_subject_name(cert), NID_commonName, out, (int)size);
	X509_email_free(emails);
	if (n < 0 || (size_t)n >= size || strlen(out) != (size_t)n)
		out[0] = 0;
	for (const char *p = out; *p; p++)
		if (*p <= ' ' || *p >= 127)
			out[0] = 0;
}

static void
fingerprint_text(const X509 *cert, char out[65])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	out[0] = 0;
	if (X509_digest(cert, EVP_sha256(), digest, &n) != 1)
		return;
	for (unsigned i = 0; i < n && i < 32; i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

void
tls_info(const struct tls_conn *conn, struct tls_info *info_r)
{
	const SSL_CIPHER *cipher = SSL_get_current_cipher(conn->ssl);
	X509 *cert = SSL_get0_peer_certificate(conn->ssl);
	long verdict = SSL_get_verify_result(conn->ssl);

	memset(info_r, 0, sizeof(*info_r));
	info_r->protocol = SSL_get_version(conn->ssl);
	info_r->cipher = cipher ? SSL_CIPHER_get_name(cipher) : "";
	info_r->bits = cipher ? SSL_CIPHER_get_bits(cipher, &info_r->key_bits) : 0;
	info_r->resumed = SSL_session_reused(conn->ssl) == 1;
	info_r->verify_error = "";
	if (conn->sni)
		snprintf(info_r->sni, sizeof(info_r->sni), "%s", conn->sni);
	if (!cert)
		return;
	name_text(X509_get_subject_name(cert), info_r->peer_subject, sizeof(info_r->peer_subject));
	name_text(X509_get_issuer_name(cert), info_r->peer_issuer, sizeof(info_r->peer_issuer));
	login_name(cert, info_r->peer_name, sizeof(info_r->peer_name));
	fingerprint_text(cert, info_r->peer_fingerprint);
	info_r->peer_trusted = verdict == X509_V_OK;
	if (verdict != X509_V_OK)
		info_r->verify_error = X509_verify_cert_error_string(verdict);
	if (conn->ctx->side == TLS_CLIENT) {
		info_r->peer_verified =
		    conn->matched ||
		    ((conn->ctx->level == TLS_VERIFY || conn->ctx->level == TLS_DANE) &&
			verdict == X509_V_OK);
	}
}

static int
binding_exporter(const struct tls_conn *conn, unsigned char *out, size_t *n_r)
{
	static const char label[] = "EXPORTER-Channel-Binding";

	if (SSL_version(conn->ssl) < TLS1_2_VERSION ||
	    (SSL_version(conn->ssl) == TLS1_2_VERSION && SSL_get_extms_support(conn->ssl) != 1))
		return ERR_NOT_FOUND;
	/* RFC 9266: a context of length zero, which TLS 1.2 tells from none */
	if (SSL_export_keying_material(conn->ssl, out, 32, label, sizeof(label) - 1, NULL, 0, 1) !=
	    1)
		return ERR_NOT_FOUND;
	*n_r = 32;
	return 0;
}

/* RFC 5929: the digest of the certificate's signature, MD5 and SHA-1 replaced by SHA-256; undefined
 * where the signature algorithm has none. */
static int
binding_end_point(const struct tls_conn *conn, unsigned char *out, size_t *n_r)
{
	X509 *cert = conn->ctx->side == TLS_SERVER ? SSL_get_certificate(conn->ssl)
						   : SSL_get0_peer_certificate(conn->ssl);
	const EVP_MD *md;
	unsigned n = 0;
	int md_nid = NID_undef;

	if (!cert || X509_get_signature_info(cert, &md_nid, NULL, NULL, NULL) != 1 ||
	    md_nid == NID_undef)
		return ERR_NOT_FOUND;
	md = md_nid == NID_md5 || md_nid == NID_sha1 ? EVP_sha256() : EVP_get_digestbynid(md_nid);
	if (!md || X509_digest(cert, md, out, &n) != 1 || n > TLS_BINDING_MAX)
		return ERR_NOT_FOUND;
	*n_r = n;
	return 0;
}

int
tls_channel_binding(const struct tls_conn *conn, enum tls_binding type,
    unsigned char out[TLS_BINDING_MAX], size_t *n_r)
{
	int err;

	*n_r = 0;
	if (!SSL_is_init_finished(conn->ssl))
		return ERR_STATE;
	ERR_clear_error();
	err = type == TLS_BINDING_EXPORTER ? binding_exporter(conn, out, n_r)
					   : binding_end_point(conn, out, n_r);
	ERR_clear_error();
	return err;
}
