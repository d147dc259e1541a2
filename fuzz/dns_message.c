/* Fuzz target: a DNS answer. The first two bytes choose the type asked for; the question's own name
 * is asked, so that mutated answers still match. */
#include "dns/message.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum dns_type types[] = { DNS_A, DNS_CNAME, DNS_SOA, DNS_PTR, DNS_MX, DNS_TXT,
		DNS_AAAA, DNS_TLSA };
	struct slice message;
	struct dns_name name;
	struct dns_answer *a;
	size_t at = 12, used = 0;
	enum dns_type type;
	char host[DNS_HOST_SIZE];

	if (size < 1)
		return 0;
	type = types[data[0] % 8];
	message = slice(data + 1, size - 1);
	if (dns_name_read(message, &at, &name))
		return 0;
	if (!dns_name_host(&name, host) && strlen(host) > 253)
		abort();
	a = dns_answer_parse(message, &name, type);
	for (size_t i = 0; i < a->n; i++) {
		if (a->records[i].host)
			used += strlen(a->records[i].host);
		for (size_t k = 0; k < a->records[i].data.n; k++)
			used += a->records[i].data.p[k];
	}
	if (a->n > DNS_RECORDS_MAX || a->ttl > DNS_TTL_MAX || (a->status != DNS_OK && a->n) ||
	    used == (size_t)-1)
		abort();
	free(a);
	return 0;
}
