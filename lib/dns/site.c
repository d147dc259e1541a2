/*
 * The site key. Runs in dns, on host names out of the network: a domain's owner must not be able to
 * choose hosts that give another site's key, hence a cryptographic hash.
 */
#include "dns/site.h"

#include "base/buf.h"

#define ERR_STATE openssl_err_state /* it collides with base/err.h */
#include <openssl/evp.h>
#undef ERR_STATE

#include <stdlib.h>
#include <strings.h>

static int
by_name(const void *a, const void *b)
{
	return strcasecmp(*(const char *const *)a, *(const char *const *)b);
}

void
dns_site_key(const char *const *hosts, size_t n, unsigned char key_r[DNS_SITE_SIZE])
{
	const char **sorted = xcalloc(n + 1, sizeof(*sorted));
	unsigned char digest[32] = { 0 };
	struct buf all = { 0 };

	for (size_t i = 0; i < n; i++)
		sorted[i] = hosts[i];
	qsort(sorted, n, sizeof(*sorted), by_name);
	for (size_t i = 0; i < n; i++) {
		if (i && !strcasecmp(sorted[i], sorted[i - 1]))
			continue;
		for (const char *p = sorted[i]; *p; p++)
			buf_add_byte(&all, ascii_lower((unsigned char)*p));
		buf_add_byte(&all, '\n');
	}
	if (!EVP_Q_digest(NULL, "SHA256", NULL, buf_slice(&all).p, buf_len(&all), digest, NULL))
		die("site key: OpenSSL has no SHA-256");
	memcpy(key_r, digest, DNS_SITE_SIZE);
	buf_free(&all);
	free(sorted);
}
