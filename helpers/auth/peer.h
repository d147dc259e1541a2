/* What belongs to one channel of auth: its conversations, by request id. */
#ifndef AUTH_PEER_H
#define AUTH_PEER_H

#include "helpers/auth/auth.h"

/* Embedded in an exchange or a client login. */
struct talk {
	struct hash_node node;
	uint32_t id;
	struct peer *peer; /* NULL: the channel has gone */
	void (*gone)(struct talk *talk);
	void (*expired)(struct talk *talk);
	struct ev_timer idle;
};

struct peer {
	struct auth *auth;
	struct ipc_chan *chan;
	struct hash talks;
};

/* Adds a talk to the channel's; ERR_LIMIT when too many are open. One of the same id ends first. */
int talk_open(struct auth *a, struct ipc_chan *ch, uint32_t id, struct talk *talk,
    void (*gone)(struct talk *)) CHECKED;
struct talk *talk_find(struct ipc_chan *ch, uint32_t id);
/* It is the other side's turn: expired is called when auth_exchange_timeout has passed, unless
 * talk_goes_on or talk_close came before. */
void talk_waits(struct talk *talk, void (*expired)(struct talk *));
void talk_goes_on(struct talk *talk);
/* Unlinks; the memory is the caller's. */
void talk_close(struct auth *a, struct talk *talk);

#define CONTAINER(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

#endif
