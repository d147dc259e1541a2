/* Requests of peers under way: each is a small state machine over questions to the resolvers. */
#ifndef DNS_LOOKUP_H
#define DNS_LOOKUP_H

#include "daemon/daemon.h"
#include "resolver.h"

#include <sys/queue.h>

enum { LOOKUPS_MAX = 50000 };

/* What a request embeds as its first member. */
struct lookup {
	LIST_ENTRY(lookup) next;
	struct dnsd *dnsd;
	struct ipc_chan *ch; /* NULL once the peer is gone or has its answer */
	uint32_t id;
};

struct dnsd {
	struct daemon *d;
	struct resolver *resolver;
	LIST_HEAD(, lookup) lookups;
	size_t under_way;
	uint64_t requests;
};

/* dnsd.c */
extern const struct daemon_desc dnsd_desc;

/* Each answers on ch under id, now or later, exactly once while ch lives. */
void lookup_client_name(struct dnsd *dnsd, struct ipc_chan *ch, uint32_t id, struct slice address);
void lookup_mx(
    struct dnsd *dnsd, struct ipc_chan *ch, uint32_t id, struct slice domain, unsigned flags);
void lookup_site(struct dnsd *dnsd, struct ipc_chan *ch, uint32_t id, struct slice domain);
void lookup_records(
    struct dnsd *dnsd, struct ipc_chan *ch, uint32_t id, struct slice name, unsigned type);

/* lookup.c, for these */
void *lookup_new(struct dnsd *dnsd, size_t size, struct ipc_chan *ch, uint32_t id);
/* Sends the answer if the peer is there; the lookup answers no more. */
void lookup_answer(struct lookup *l, struct msg *m);
void lookup_free(struct lookup *l);
/* The peer is gone. */
void lookup_forget(struct dnsd *dnsd, struct ipc_chan *ch);
/* A domain as mail gives it (U-labels allowed) to the wire. ERR_SYNTAX or ERR_LIMIT. */
int lookup_domain(struct slice domain, struct dns_name *name_r) CHECKED;
/* The address of "[192.0.2.1]" or "[IPv6:...]" as 16 bytes, IPv4 mapped. */
bool lookup_literal(struct slice domain, unsigned char address_r[16]);

extern const unsigned char lookup_mapped_prefix[12];

#endif
