/*
 * Plain look-ups of one name and type, for TXT, TLSA and what else a peer wants. Runs in dns. Data
 * of a record as bytes: A 4, AAAA 16; TXT its strings joined; PTR and CNAME the host name; MX
 * preference (2 bytes, big-endian) and host name; TLSA usage, selector, matching type, association.
 */
#include "lookup.h"

#include <stdio.h>

enum { RECORDS_OK, RECORDS_NO_DATA, RECORDS_TEMPORARY, RECORDS_NO_NAME };
enum { ITEM_MAX = 4096, ITEMS_MAX_BYTES = 60000 };

struct records_lookup {
	struct lookup l;
	enum dns_type type;
};

static bool
write_data(struct buf *out, enum dns_type type, const struct dns_record *r)
{
	buf_clear(out);
	if (type == DNS_MX) {
		buf_add_byte(out, (unsigned char)(r->preference >> 8));
		buf_add_byte(out, (unsigned char)r->preference);
	} else if (type == DNS_TLSA) {
		buf_add_byte(out, r->usage);
		buf_add_byte(out, r->selector);
		buf_add_byte(out, r->matching);
	}
	buf_add(out, r->host ? slice_str(r->host) : r->data);
	return buf_len(out) <= ITEM_MAX;
}

static void
on_answer(void *ctx, const struct dns_answer *a)
{
	static const uint8_t statuses[] = { [DNS_OK] = RECORDS_OK,
		[DNS_NODATA] = RECORDS_NO_DATA,
		[DNS_NXDOMAIN] = RECORDS_NO_NAME,
		[DNS_TEMPORARY] = RECORDS_TEMPORARY };
	static const uint8_t rcodes[] = { [DNS_NXDOMAIN] = 3, [DNS_TEMPORARY] = 2 };
	struct records_lookup *x = ctx;
	struct msg m = MSG_INIT(MSG_DNS_RECORDS, x->l.id);
	struct buf items = { 0 }, data = { 0 };
	uint32_t n = 0;

	for (size_t i = 0; i < a->n; i++) {
		struct item_dns_record item = { .type = (uint16_t)x->type, .ttl = a->ttl };

		if (!write_data(&data, x->type, &a->records[i]) ||
		    buf_len(&items) + buf_len(&data) + 16 > ITEMS_MAX_BYTES)
			continue;
		item.data = buf_slice(&data);
		item_dns_record_add(&items, &item);
		n++;
	}
	m.dns_records.status = statuses[a->status];
	m.dns_records.rcode = rcodes[a->status];
	m.dns_records.secure = a->secure;
	m.dns_records.ttl = a->ttl;
	m.dns_records.records = msg_list(&items, n);
	lookup_answer(&x->l, &m);
	buf_free(&items);
	buf_free(&data);
	lookup_free(&x->l);
}

static bool
is_known(unsigned type)
{
	static const enum dns_type known[] = { DNS_A, DNS_AAAA, DNS_MX, DNS_PTR, DNS_TXT, DNS_CNAME,
		DNS_TLSA };

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (type == known[i])
			return true;
	return false;
}

void
lookup_records(
    struct dnsd *dnsd, struct ipc_chan *ch, uint32_t id, struct slice text, unsigned type)
{
	struct records_lookup *x = lookup_new(dnsd, sizeof(*x), ch, id);
	struct dns_name name;

	x->type = (enum dns_type)type;
	if (!is_known(type) || lookup_domain(text, &name)) {
		struct dns_answer none = { .status = DNS_NXDOMAIN };

		on_answer(x, &none);
		return;
	}
	resolver_ask(dnsd->resolver, &name, x->type, on_answer, x);
}
