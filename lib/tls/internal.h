/* What the files of lib/tls share; nobody else includes it. */
#ifndef TLS_INTERNAL_H
#define TLS_INTERNAL_H

#include "tls/tls.h"

#include "tls/openssl.h"

struct tls_identity_ctx {
	SSL_CTX *ctx;
	X509 *cert; /* borrowed from ctx */
	char *name; /* in lower case; NULL: the names in cert pick it */
};

struct tls_ctx {
	unsigned refs;
	enum tls_side side;
	enum tls_level level;
	struct tls_identity_ctx *ids; /* [0] is what connections start with */
	size_t count;
	struct tls_tickets *tickets;
	unsigned char service_id[32]; /* SHA-256 of the service's name */
	unsigned char *alpn;          /* length-prefixed, or NULL */
	size_t alpn_size;
	int64_t expiry;
};

struct tls_session {
	SSL_SESSION *s;
};

struct tls_conn {
	SSL *ssl;
	struct tls_ctx *ctx;
	struct tls_session *session;
	char *sni;   /* server: from the client's hello; NULL without */
	char *error; /* of the last failure, or NULL */
	unsigned char (*digests)[32];
	size_t digest_count;
	bool offers_alpn; /* server: the hello offered the service's name */
	bool checked;     /* client: the fingerprint has been compared */
	bool matched;
	bool drained; /* the last read wanted more */
	bool broken;
};

/* Installs the ticket callbacks, or switches tickets off. */
void tls_tickets_install(struct tls_tickets *t, SSL_CTX *ctx);
struct tls_tickets *tls_tickets_ref(struct tls_tickets *t);
bool tls_tickets_usable(const struct tls_tickets *t);
struct tls_ctx *tls_ctx_ref(struct tls_ctx *ctx);

#endif
