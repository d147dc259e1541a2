/* DNS messages: builds queries and takes answers apart, within bounds. */
#ifndef DNS_MESSAGE_H
#define DNS_MESSAGE_H

#include "base/buf.h"
#include "dns/name.h"

enum dns_type {
	DNS_A = 1,
	DNS_CNAME = 5,
	DNS_SOA = 6,
	DNS_PTR = 12,
	DNS_MX = 15,
	DNS_TXT = 16,
	DNS_AAAA = 28,
	DNS_TLSA = 52,
};

enum {
	DNS_PAYLOAD = 1232,      /* what we say that we take over UDP */
	DNS_RECORDS_MAX = 100,   /* of one answer: the rest is dropped */
	DNS_CNAMES_MAX = 8,      /* links of an alias chain */
	DNS_TTL_MAX = 86400,     /* seconds */
	DNS_NEGATIVE_MAX = 3600, /* seconds */
};

enum dns_status {
	DNS_OK,     /* at least one record */
	DNS_NODATA, /* the name exists, the type does not */
	DNS_NXDOMAIN,
	DNS_TEMPORARY, /* no usable answer: server failure, refused, malformed, timed out */
};

/* One record of the type asked for. Pointers live as long as the answer. */
struct dns_record {
	uint16_t preference;               /* MX */
	uint8_t usage, selector, matching; /* TLSA */
	const char *host;                  /* MX, PTR, CNAME; "" is the root (a null MX) */
	struct slice data; /* A 4 bytes, AAAA 16, TXT its strings joined, TLSA the association */
};

struct dns_answer {
	enum dns_status status;
	bool unusable; /* of DNS_NODATA: there are records of the type, and none can be used */
	bool secure;   /* AD: worth what the resolver and the way to it are worth */
	uint32_t ttl;  /* seconds that this answer may be kept, negative answers included */
	size_t n;
	size_t size;           /* bytes of memory that the whole takes */
	const char *canonical; /* the name at the end of the alias chain; "" where it is no host */
	struct dns_record records[];
};

/* Appends a query of one question, class IN: recursion desired, AD set (RFC 6840 5.7), EDNS. */
void dns_query_build(struct buf *out, uint16_t id, const struct dns_name *name, enum dns_type type);

/* The answer to that question in message, in one block that the caller frees with free(). Never
 * NULL: a message that is malformed or answers something else gives DNS_TEMPORARY. A record with
 * bad data is left out; an alias chain is followed. */
struct dns_answer *dns_answer_parse(
    struct slice message, const struct dns_name *name, enum dns_type type);
/* An answer without records: for time-outs and the like. */
struct dns_answer *dns_answer_empty(enum dns_status status, uint32_t ttl);
/* n addresses of width bytes each (4 or 16), as if name had them: DNS_NODATA for none. */
struct dns_answer *dns_answer_addresses(const struct dns_name *name, const unsigned char *addresses,
    size_t n, size_t width, uint32_t ttl);
/* A copy that the caller frees with free(). */
struct dns_answer *dns_answer_copy(const struct dns_answer *answer);

#endif
