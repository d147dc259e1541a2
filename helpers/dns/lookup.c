/*
 * What all requests share. Runs in dns; domains come from envelopes, so from strangers. Invariant:
 * a lookup is in the list from lookup_new to lookup_free, and its channel pointer is NULL or alive.
 */
#include "lookup.h"

#include "mail/domain.h"

#include <arpa/inet.h>
#include <stdlib.h>

const unsigned char lookup_mapped_prefix[12] = { [10] = 0xff, [11] = 0xff };

void *
lookup_new(struct dnsd *dnsd, size_t size, struct ipc_chan *ch, uint32_t id)
{
	struct lookup *l = xcalloc(1, size);

	l->dnsd = dnsd;
	l->ch = ch;
	l->id = id;
	LIST_INSERT_HEAD(&dnsd->lookups, l, next);
	dnsd->under_way++;
	return l;
}

void
lookup_answer(struct lookup *l, struct msg *m)
{
	if (l->ch)
		(void)ipc_send(l->ch, m);
	l->ch = NULL;
}

void
lookup_free(struct lookup *l)
{
	l->dnsd->under_way--;
	LIST_REMOVE(l, next);
	free(l);
}

void
lookup_forget(struct dnsd *dnsd, struct ipc_chan *ch)
{
	struct lookup *l;

	LIST_FOREACH(l, &dnsd->lookups, next)
		if (l->ch == ch)
			l->ch = NULL;
}

int
lookup_domain(struct slice domain, struct dns_name *name_r)
{
	char ascii[DOMAIN_BUF_SIZE];
	int err;

	if (domain.n && domain.p[domain.n - 1] == '.')
		domain.n--;
	if (!domain.n)
		return ERR_SYNTAX;
	if (slice_is_ascii(domain))
		return dns_name_from_text(domain, name_r);
	err = domain_to_ascii(domain, ascii);
	return err ? err : dns_name_from_text(slice_str(ascii), name_r);
}

bool
lookup_literal(struct slice domain, unsigned char address_r[16])
{
	unsigned char raw[16];
	int family;

	if (domain_literal_check(domain) || domain_literal_address(domain, &family, raw))
		return false;
	if (family == AF_INET) {
		memcpy(address_r, lookup_mapped_prefix, 12);
		memcpy(address_r + 12, raw, 4);
	} else {
		memcpy(address_r, raw, 16);
	}
	return true;
}
