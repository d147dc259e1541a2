/* Domain names: the wire form inside the suite's DNS code, text at its edges. */
#ifndef DNS_NAME_H
#define DNS_NAME_H

#include "base/slice.h"

#define DNS_NAME_MAX 255 /* bytes on the wire, the root label included (RFC 1035 2.3.4) */
#define DNS_LABEL_MAX 63
#define DNS_HOST_SIZE 254 /* a host name as text without its last dot, and a NUL */

/* Uncompressed labels in lower case, ending with the root label. n is 0 only in a zeroed struct. */
struct dns_name {
	uint8_t n;
	unsigned char wire[DNS_NAME_MAX];
};

/* Text with dots between labels, one at the end allowed; "" and "." are the root. Any byte but a
 * dot may stand in a label: no escapes. ERR_SYNTAX for an empty label or a control character,
 * ERR_LIMIT for a long one. */
int dns_name_from_text(struct slice text, struct dns_name *out_r) CHECKED;
/* Reads a name at *at of the message, following compression pointers, which may only point
 * backwards; *at then stands behind the name. ERR_TRUNCATED, ERR_SYNTAX or ERR_LIMIT. */
int dns_name_read(struct slice message, size_t *at, struct dns_name *out_r) CHECKED;
/* The text of a name whose labels are of letters, digits, hyphens and underscores only: ERR_SYNTAX
 * for others, which no host has. The root gives "". */
int dns_name_host(const struct dns_name *name, char host_r[DNS_HOST_SIZE]) CHECKED;
/* The name under in-addr.arpa (4 bytes) or ip6.arpa (16 bytes) of an address in network order. */
void dns_name_reverse(struct slice address, struct dns_name *out_r);
bool dns_name_eq(const struct dns_name *a, const struct dns_name *b);

static inline struct slice
dns_name_slice(const struct dns_name *name)
{
	return slice(name->wire, name->n);
}

#endif
