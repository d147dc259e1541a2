/*
 * A certificate for an instance that has none yet, and the reading of certificate files. Runs in
 * master and in the tools, before any jail; the names come from the admin's configuration and are
 * checked, because OpenSSL's text form of extensions would read a comma as the start of another
 * name.
 */
#include "tls/internal.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int
alt_names(const char *const *names, size_t count, struct buf *b)
{
	unsigned char addr[16];

	for (size_t i = 0; i < count; i++) {
		bool ip = inet_pton(AF_INET, names[i], addr) == 1 ||
			  inet_pton(AF_INET6, names[i], addr) == 1;
		for (const char *s = names[i]; *s && !ip; s++)
			if (!ascii_is_alnum((unsigned char)*s) && !strchr("-._*", *s))
				return ERR_SYNTAX;
		if (!*names[i] || strlen(names[i]) > 253)
			return ERR_SYNTAX;
		buf_addf(b, "%s%s:%s", i ? "," : "", ip ? "IP" : "DNS", names[i]);
	}
	buf_add_byte(b, 0);
	return count ? 0 : ERR_SYNTAX;
}

static bool
add_extension(X509 *cert, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *ext;
	bool ok;

	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = ext && X509_add_ext(cert, ext, -1) == 1;
	X509_EXTENSION_free(ext);
	return ok;
}

static bool
fill(X509 *cert, EVP_PKEY *key, const char *cn, const char *san, int days)
{
	unsigned char serial[16], short_cn[65];
	X509_NAME *name = X509_get_subject_name(cert);
	BIGNUM *bn;
	bool ok;

	if (RAND_bytes(serial, sizeof(serial)) != 1)
		return false;
	serial[0] = (unsigned char)((serial[0] & 0x7f) | 0x40);
	bn = BN_bin2bn(serial, sizeof(serial), NULL);
	ok = bn && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(cert)) != NULL;
	BN_free(bn);
	snprintf((char *)short_cn, sizeof(short_cn), "%s", cn); /* ub-common-name is 64 */
	return ok && X509_set_version(cert, X509_VERSION_3) == 1 &&
	       X509_gmtime_adj(X509_getm_notBefore(cert), -3600) &&
	       X509_time_adj_ex(X509_getm_notAfter(cert), days, 0, NULL) &&
	       X509_set_pubkey(cert, key) == 1 &&
	       X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, short_cn, -1, -1, 0) == 1 &&
	       X509_set_issuer_name(cert, name) == 1 &&
	       add_extension(cert, NID_subject_alt_name, san) &&
	       add_extension(cert, NID_basic_constraints, "critical,CA:FALSE") &&
	       add_extension(cert, NID_key_usage, "critical,digitalSignature") &&
	       add_extension(cert, NID_ext_key_usage, "serverAuth,clientAuth") &&
	       add_extension(cert, NID_subject_key_identifier, "hash") &&
	       X509_sign(cert, key, EVP_sha256()) > 0;
}

int
tls_selfsigned(const char *const *names, size_t count, int days, struct buf *pem_r)
{
	struct buf san = { 0 };
	EVP_PKEY *key = NULL;
	X509 *cert = NULL;
	BIO *bio = NULL;
	char *p;
	int err = alt_names(names, count, &san);

	if (err)
		goto out;
	err = ERR_TEMPORARY;
	key = EVP_EC_gen("P-256");
	cert = X509_new();
	bio = BIO_new(BIO_s_mem());
	if (!key || !cert || !bio || !fill(cert, key, names[0], (const char *)san.data, days))
		goto out;
	if (PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1 &&
	    PEM_write_bio_X509(bio, cert) == 1) {
		long n = BIO_get_mem_data(bio, &p);
		err = buf_add(pem_r, slice(p, (size_t)n));
		OPENSSL_cleanse(p, (size_t)n);
	}
out:
	ERR_clear_error();
	BIO_free(bio);
	X509_free(cert);
	EVP_PKEY_free(key);
	buf_free(&san);
	return err;
}

int
tls_read_file(const char *path, struct buf *out_r)
{
	struct stat st;
	ptrdiff_t n = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), err = 0;

	if (fd < 0)
		return err_errno();
	if (fstat(fd, &st) < 0)
		err = err_errno();
	else if (!S_ISREG(st.st_mode))
		err = ERR_SYNTAX;
	while (!err && (n = buf_read(out_r, fd, 65536)) != 0) {
		if (n < 0)
			err = (int)n;
		else if (buf_len(out_r) > 1 << 20)
			err = ERR_LIMIT;
	}
	close(fd);
	return err;
}
