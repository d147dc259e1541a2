/*
 * TLS: OpenSSL behind one module, for event loops. A context is made from PEM bytes (a jailed
 * daemon can open no file, so reload hands it bytes too); a connection wraps a non-blocking
 * descriptor that stays the caller's. Nothing here blocks, waits or opens a path after a context
 * was made. One thread per connection; contexts are single-threaded.
 *
 * The caller of STARTTLS drops every plaintext byte that it had buffered before it makes the
 * connection object: this module reads the descriptor only. The process ignores SIGPIPE.
 */
#ifndef TLS_TLS_H
#define TLS_TLS_H

#include "base/buf.h"

#define TLS_TICKET_KEY_SIZE 80 /* 16 name, 32 AES-256, 32 HMAC-SHA-256 */
#define TLS_TICKET_KEYS 3      /* kept: the first seals, all open */
#define TLS_BINDING_MAX 64     /* bytes of channel binding data */

/* Results of handshake, read, write and shutdown beside byte counts and enum err. */
enum tls_want {
	TLS_WANT_READ = -5001,  /* call again when the descriptor is readable */
	TLS_WANT_WRITE = -5002, /* call again when it is writable */
};

enum tls_version {
	TLS_VERSION_DEFAULT, /* servers and verified clients: 1.2; opportunistic clients: whatever
				the library has */
	TLS_VERSION_1_0,
	TLS_VERSION_1_1,
	TLS_VERSION_1_2,
	TLS_VERSION_1_3,
};

struct tls_ctx;
struct tls_conn;
struct tls_session;

/* --- ticket keys: one object per service and process, shared by all contexts that it makes over
 * time --- */
struct tls_tickets;
struct tls_tickets *tls_tickets_new(void);
/* Keys as master draws them, newest first; at most TLS_TICKET_KEYS are kept. Living connections see
 * them at once. n 0 stops tickets. ERR_SYNTAX unless keys.n is a multiple of TLS_TICKET_KEY_SIZE.
 */
int tls_tickets_set(struct tls_tickets *t, struct slice keys) CHECKED;
/* Frees when the last context that uses it has gone. */
void tls_tickets_free(struct tls_tickets **t);

/* --- server --- */
struct tls_identity {
	struct slice
	    chain; /* PEM: the certificate, then intermediates; may hold the private key as well */
	struct slice key; /* PEM private key; empty: it stands in chain */
	/* Server name that picks it, or ".example.org" for all names below; then the names in the
	 * certificate do not. Empty: those do. */
	struct slice name;
};
#define TLS_IDENTITIES_MAX 250 /* of one server */

struct tls_server_opts {
	const char *service; /* "smtp", "submission", "imap", "pop3": tickets of another service are
				refused */
	const char *alpn;    /* the one ALPN name of the service, or NULL; a client that offers only
				others is refused */
	const struct tls_identity
	    *identities;       /* the first is the default; SNI picks the one with that name, else
				  the first whose certificate names it */
	size_t identity_count; /* at least 1 */
	struct tls_tickets *tickets; /* NULL: no resumption; shared, see above */
	unsigned ticket_lifetime;    /* seconds; 0: 7200 */
	enum tls_version min_version, max_version;
	const char *ciphers;      /* TLS 1.2 list; NULL: a modern default */
	const char *ciphersuites; /* TLS 1.3; NULL: the library's */
	const char
	    *groups; /* NULL: X25519:P-256:P-384, the hybrid post-quantum group first where known */
	bool ask_client_cert; /* requested, never required; the caller looks at tls_info */
	/* Read all that the socket has, not record by record: half the system calls, but records
	 * may then wait inside that no event tells of, also right after the handshake: see
	 * tls_pending. */
	bool read_ahead;
	struct slice client_ca; /* PEM bundle that client certificates are verified against */
};

/* Builds a context. On failure *ctx_r is NULL and error (if not NULL) gets a text that names
 * file-independent thing and reason; so it has, with 0, when identities but the first could not be
 * used and are left out. The PEM bytes are not kept. */
int tls_server_new(
    const struct tls_server_opts *opts, struct tls_ctx **ctx_r, char *error, size_t size) CHECKED;
/* Runs one handshake with itself in memory, so that whatever OpenSSL loads lazily is loaded before
 * a zygote forks. */
void tls_server_warm(struct tls_ctx *ctx);
/* Seconds since the epoch when the first of its certificates expires. */
int64_t tls_server_expiry(const struct tls_ctx *ctx);

/* --- client --- */
enum tls_level {
	TLS_OPPORTUNISTIC, /* any protocol, cipher and certificate: DEFAULT@SECLEVEL=0 ("may") */
	TLS_ENCRYPT,       /* modern parameters, any certificate ("encrypt") */
	TLS_VERIFY, /* modern parameters, chain to a CA and one of the names ("verify", "secure") */
	TLS_FINGERPRINT, /* modern parameters, certificate or public key with one of the digests */
	TLS_DANE,        /* modern parameters, one of the TLSA records matches */
};

struct tls_client_opts {
	enum tls_level level;
	struct slice
	    ca; /* PEM bundle, for TLS_VERIFY and (informative) for the others; empty: none */
	const char *ca_file; /* read while the context is made, so before the jail; NULL: none */
	bool default_ca;     /* the system's bundle, read likewise */
	enum tls_version min_version, max_version;
	const char *ciphers, *ciphersuites, *groups;
	struct tls_identity identity; /* client certificate; chain empty: none */
};
int tls_client_new(
    const struct tls_client_opts *opts, struct tls_ctx **ctx_r, char *error, size_t size) CHECKED;

struct tls_tlsa {
	uint8_t usage, selector, matching;
	struct slice data;
};

/* What one client connection wants; all pointers are borrowed for the time of tls_conn_new_client.
 */
struct tls_peer {
	const char *sni;          /* NULL or an address literal: none sent */
	const char *const *names; /* TLS_VERIFY: one must match (wildcards by RFC 6125); TLS_DANE:
				     the base domain first */
	size_t name_count;
	const char *const *fingerprints; /* TLS_FINGERPRINT: SHA-256 as hex, colons allowed, of
					    certificate or SPKI */
	size_t fingerprint_count;
	const struct tls_tlsa
	    *tlsa; /* TLS_DANE: usages 2 and 3 are used, others skipped (RFC 7672) */
	size_t tlsa_count;
	struct tls_session *session; /* to resume, or NULL; stays the caller's */
};

/* The context lives on until its last connection is freed: reload frees the old one at once. */
void tls_ctx_free(struct tls_ctx **ctx);

/* --- connections --- */
enum tls_side {
	TLS_SERVER,
	TLS_CLIENT,
};

/* fd is non-blocking and stays the caller's to close. A client made this way has level
 * opportunistic or encrypt. */
struct tls_conn *tls_conn_new(struct tls_ctx *ctx, int fd, enum tls_side side);
/* ERR_LIMIT, ERR_SYNTAX: a name, digest or TLSA list that cannot be used (an empty usable list
 * included). */
int tls_conn_new_client(
    struct tls_ctx *ctx, int fd, const struct tls_peer *peer, struct tls_conn **conn_r) CHECKED;
/* Frees at once, sends nothing. NULL inside is fine. */
void tls_conn_free(struct tls_conn **conn);

/*
 * Results of the four calls below: a count (0 where said), TLS_WANT_*, or a negative enum err after
 * which the connection can only be freed: ERR_CLOSED (the peer is gone without close_notify),
 * ERR_DENIED (the peer's certificate failed the level), ERR_SYNTAX (the handshake or a record broke
 * the protocol, or nothing is in common), or an errno. tls_error() has the text for the log.
 */
/* 0 when done. */
int tls_handshake(struct tls_conn *conn) CHECKED;
/* Bytes read, 0 when the peer closed cleanly. The descriptor may be silent while bytes wait inside:
 * read until TLS_WANT_READ or look at tls_pending(). */
ptrdiff_t tls_read(struct tls_conn *conn, void *p, size_t n) CHECKED;
/* Reads at most max bytes to the tail of b; -ENOBUFS if b's limit leaves no room. */
ptrdiff_t tls_read_buf(struct tls_conn *conn, struct buf *b, size_t max) CHECKED;
/* Bytes written, possibly fewer than n (a record at a time, 16 KiB). After TLS_WANT_* call again
 * with the same bytes (the memory may have moved, more may follow). n 0 does nothing. */
ptrdiff_t tls_write(struct tls_conn *conn, const void *p, size_t n) CHECKED;
/* Writes from the head of b until it is empty (0), or TLS_WANT_*, or an error; consumes what was
 * written. */
int tls_write_buf(struct tls_conn *conn, struct buf *b) CHECKED;
/* Sends close_notify, does not wait for the peer's: 0 when it is sent, TLS_WANT_WRITE, or an error.
 */
int tls_shutdown(struct tls_conn *conn) CHECKED;

/* True while bytes wait inside (decrypted or not), so that a read may give some without the
 * descriptor being readable. */
bool tls_pending(const struct tls_conn *conn);
/* Why the last call failed: a constant text or one that lives in the connection. */
const char *tls_error(const struct tls_conn *conn);

struct tls_info {
	const char *protocol; /* "TLSv1.3" */
	const char *cipher;   /* "TLS_AES_256_GCM_SHA384" */
	int bits, key_bits;   /* as in "(256/256 bits)": used, and of the algorithm */
	bool resumed;
	char sni[256];          /* server: as the client sent it, lower case; "" without */
	char peer_subject[256]; /* RFC 2253, control characters escaped; "" without certificate */
	char peer_issuer[256];
	char peer_name[256]; /* its first mail address, else its common name; "" where unusable */
	char peer_fingerprint[65]; /* SHA-256 of the certificate, lower-case hex; "" without */
	bool peer_trusted;         /* the chain leads to a known CA */
	bool peer_verified;        /* and the level's name, digest or TLSA record matched */
	const char *verify_error;  /* why not trusted, or "" */
};
/* After the handshake. Strings are constant or inside *info_r. */
void tls_info(const struct tls_conn *conn, struct tls_info *info_r);

/* A client's session for a later connection, or NULL if the peer gave none (TLS 1.3: after the
 * first read). The caller frees it. */
struct tls_session *tls_session_take(struct tls_conn *conn);
void tls_session_free(struct tls_session **s);

enum tls_binding {
	TLS_BINDING_EXPORTER,  /* tls-exporter, RFC 9266 */
	TLS_BINDING_END_POINT, /* tls-server-end-point, RFC 5929 */
};
/* Bytes of the channel binding. ERR_NOT_FOUND where it is not defined: a TLS 1.2 session without
 * extended master secret, a certificate whose signature has no digest (Ed25519). */
int tls_channel_binding(const struct tls_conn *conn, enum tls_binding type,
    unsigned char out[TLS_BINDING_MAX], size_t *n_r) CHECKED;

/* --- for master and tools --- */
/* A key (EC P-256) and a certificate that it signs itself, as PEM, key first, valid from now for
 * days; names[0] is the common name, all are subjectAltNames (addresses as such). pem_r is wiped by
 * the caller. */
int tls_selfsigned(const char *const *names, size_t count, int days, struct buf *pem_r) CHECKED;
/* A whole regular file of at most 1 MiB, for use before the jail; the buffer is the caller's to
 * wipe. */
int tls_read_file(const char *path, struct buf *out_r) CHECKED;
/* Draws one ticket key. */
void tls_ticket_key_draw(unsigned char key[TLS_TICKET_KEY_SIZE]);

#endif
