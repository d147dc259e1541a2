/* One login of a client: what exchange.c and exchange_system.c share. */
#ifndef AUTH_EXCHANGE_H
#define AUTH_EXCHANGE_H

#include "helpers/auth/peer.h"

enum phase {
	PHASE_IDLE, /* the front end's turn */
	PHASE_RUNNING,
	PHASE_PAM,
	PHASE_NSS,
	PHASE_DELAY,
};

struct exchange {
	struct job job;
	struct talk talk;
	struct hash_node waiting; /* for pam or nss, by role and id */
	uint64_t waiting_key;
	const struct ipc_chan *asked; /* which of them, while one is up and another goes */
	struct auth *a;
	struct sasl_exchange x;
	enum phase phase;
	bool gone;
	char client[65], session[33], external[257];
	unsigned char exporter[64], endpoint[128];
	struct buf in, out;
	bool has_in, has_out;
	enum sasl_result result;
	struct ev_timer delay;
	uint8_t late_status;
	const char *late_text;
};

/* exchange.c: each ends the exchange, a refusal maybe after a while; e is not touched any more. why
 * is for the log. */
void exchange_refuse(struct exchange *e, const char *why);
void exchange_temporary(struct exchange *e, const char *why);
void exchange_succeed(struct exchange *e, struct account *account);
/* exchange_system.c: the password that e->x holds is for the PAM helper. */
void exchange_ask_pam(struct exchange *e);

#endif
