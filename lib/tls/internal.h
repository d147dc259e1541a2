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

/* TLS 1.2 with forward secrecy and AEAD only; 1.3 has nothing else. */
#define CIPHERS_MODERN "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
#define GROUPS_CLASSIC "X25519:P-256:P-384"

/* ctx.c: what the contexts of both sides are made with. Errors have a text in the complaint. */
struct complaint {
	char *text; /* or NULL */
	size_t size;
};
int tls_complain(struct complaint *c, const char *thing);
SSL_CTX *tls_base_new(enum tls_side side);
int tls_version_number(enum tls_version v, int otherwise);
int tls_set_parameters(SSL_CTX *ctx, int min, int max, const char *ciphers, const char *suites,
    const char *groups, struct complaint *c) CHECKED;
int tls_use_identity(SSL_CTX *ctx, const struct tls_identity *id, struct complaint *c) CHECKED;
/* The certificates of a bundle as roots; name_them: to clients too. */
int tls_trust(SSL_CTX *ctx, struct slice pem, bool name_them, struct complaint *c) CHECKED;

/* Installs the ticket callbacks, or switches tickets off. */
void tls_tickets_install(struct tls_tickets *t, SSL_CTX *ctx);
struct tls_tickets *tls_tickets_ref(struct tls_tickets *t);
bool tls_tickets_usable(const struct tls_tickets *t);
struct tls_ctx *tls_ctx_ref(struct tls_ctx *ctx);

#endif
