/*
 * libsasl2 behind one file: its start, our auxprop plugin over the user store, one step of an
 * exchange. The steps run in workers; an exchange is in one thread at a time.
 */
#ifndef AUTH_SASL_H
#define AUTH_SASL_H

#include "db/users.h"
#include "helpers/auth/cache.h"

#include <stdatomic.h>

/* What workers read while the loop may change it. */
struct sasl_shared {
	struct users *users;
	struct cache *cache;
	unsigned char secret[32];
	atomic_uint rounds;
	atomic_bool system_users; /* a name that the store lacks may be one of PAM's */
};

enum sasl_result {
	SASL_STEP_CONTINUE, /* out is the challenge, or the client's response */
	SASL_STEP_OK,       /* server: user is confirmed; out: final data if has_out */
	SASL_STEP_REFUSED,  /* wrong password, no such user, not the identity asked for */
	SASL_STEP_PAM,      /* user and password are to be tried with PAM */
	SASL_STEP_PROTOCOL, /* the client broke the mechanism's syntax */
	SASL_STEP_TEMPORARY,
	SASL_STEP_NO_MECHANISM,
};

/* One exchange; server and client use what is theirs. Zeroed before its first step. */
struct sasl_exchange {
	struct sasl_shared *shared;
	void *conn;
	void *callbacks;
	bool client, started, asked;
	char service[17], mechanism[33];
	unsigned ssf;                    /* bits of TLS */
	struct slice exporter, endpoint; /* channel binding; empty: not available */
	bool plus_offered;               /* the -PLUS form is on our list */
	char local_domain[256];          /* server: tried for a name without one; "": none */
	const char *external;            /* identity of the client certificate, or NULL */
	/* server: what the step found out */
	struct arena arena;
	struct user user; /* valid when found */
	bool looked_up, found;
	bool undecided; /* the store failed or memory was refused: neither right nor wrong */
	char claimed[USERS_NAME_MAX + 1]; /* the name that the client gave, for the log */
	struct buf password;              /* SASL_STEP_PAM */
	struct buf message;               /* LOGIN: what PLAIN will say */
	bool cached;
	const char *why; /* a constant text for the log */
	/* client: what it logs in with */
	const char *login, *secret, *host, *mechanisms;
	void *secret_copy;
	/* the binding that was chosen, as libsasl2 wants it */
	void *binding;
};

/* Before anything else: memory refused to libsasl2 or libcrypto ends the process, which is begun
 * anew. They would take a hash that was not computed for a wrong password. */
void sasl_setup_memory(void);
/* Loads the plugins; before the jail. Dies with a remedy where they are missing. */
void sasl_setup(struct sasl_shared *shared);
/*
 * One step. has_in: data of the peer (for a server's first step the initial response, if any). out
 * gets what is to be sent; has_out tells empty data from none. Blocks for as long as a key
 * derivation takes.
 */
enum sasl_result sasl_step(
    struct sasl_exchange *x, struct slice in, bool has_in, struct buf *out, bool *has_out);
void sasl_exchange_free(struct sasl_exchange *x);

#endif
