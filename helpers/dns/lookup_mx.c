/*
 * The mail hosts of a domain (RFC 5321 5.1, RFC 7505) with their addresses, and its site key. Runs
 * in dns; domains and records are hostile. Invariants: hosts and addresses are bounded; a definite
 * answer is only given when all that it rests on was definite; hosts of our own name, and all that
 * are not better than them, are left out, so that mail never goes round in circles.
 */
#include "lookup.h"

#include "dns/site.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/random.h>

enum { HOSTS_MAX = 16, ADDRESSES_MAX = 16 /* of each family; the item holds 32 */ };
enum { MX_OK, MX_NO_DOMAIN, MX_TEMPORARY, MX_NULL_MX, MX_NO_ADDRESS, MX_OURSELVES };

struct host {
	char name[DNS_HOST_SIZE];
	uint16_t preference;
	uint32_t order; /* random among equals */
	size_t n4, n6;
	unsigned char v4[ADDRESSES_MAX][4], v6[ADDRESSES_MAX][16];
};

/* One question for addresses; the callback has to know which. */
struct address_question {
	struct mx_lookup *mx;
	size_t host;
};

struct mx_lookup {
	struct lookup l;
	char domain[DNS_HOST_SIZE];
	bool site_only, temporary, secure, implicit;
	uint32_t ttl;
	unsigned char site[DNS_SITE_SIZE];
	struct host *hosts;
	size_t n;
	struct address_question questions[HOSTS_MAX * 2];
	size_t open; /* questions without an answer, and one while they are being asked */
};

static void
answer_site(struct mx_lookup *x, int status)
{
	struct msg m = MSG_INIT(MSG_SITE_ANSWER, x->l.id);

	m.site_answer.status = (uint8_t)status;
	m.site_answer.ttl = x->ttl;
	m.site_answer.site = slice(x->site, DNS_SITE_SIZE);
	lookup_answer(&x->l, &m);
}

static void
add_host_item(struct buf *out, const struct host *h)
{
	struct item_mx_host item = { .preference = h->preference, .name = slice_str(h->name) };
	unsigned char addresses[ADDRESSES_MAX * 2 * 16];
	size_t n = 0;

	for (size_t i = 0; i < h->n6; i++, n += 16)
		memcpy(addresses + n, h->v6[i], 16);
	for (size_t i = 0; i < h->n4; i++, n += 16) {
		memcpy(addresses + n, lookup_mapped_prefix, 12);
		memcpy(addresses + n + 12, h->v4[i], 4);
	}
	item.addresses = slice(addresses, n);
	if (n)
		item_mx_host_add(out, &item);
}

static void
answer_mx(struct mx_lookup *x, int status, const char *text)
{
	struct msg m = MSG_INIT(MSG_MX_ANSWER, x->l.id);
	struct buf items = { 0 };
	size_t n = 0;

	for (size_t i = 0; status == MX_OK && i < x->n; i++) {
		add_host_item(&items, &x->hosts[i]);
		n += x->hosts[i].n4 + x->hosts[i].n6 > 0;
	}
	m.mx_answer.status = (uint8_t)status;
	m.mx_answer.secure = x->secure;
	m.mx_answer.ttl = x->ttl;
	m.mx_answer.site = slice(x->site, DNS_SITE_SIZE);
	m.mx_answer.text = slice_str(text);
	m.mx_answer.hosts = msg_list(&items, (uint32_t)n);
	lookup_answer(&x->l, &m);
	buf_free(&items);
}

static void
finish(struct mx_lookup *x, int status, const char *text)
{
	if (x->site_only)
		answer_site(x, status);
	else
		answer_mx(x, status, text);
	free(x->hosts);
	lookup_free(&x->l);
}

static void
finishf(struct mx_lookup *x, int status, const char *fmt)
{
	char text[400];

	snprintf(text, sizeof(text), fmt, x->domain);
	finish(x, status, text);
}

static void
all_asked(struct mx_lookup *x)
{
	size_t addresses = 0;

	if (--x->open)
		return;
	for (size_t i = 0; i < x->n; i++)
		addresses += x->hosts[i].n4 + x->hosts[i].n6;
	if (addresses)
		finish(x, MX_OK, "");
	else if (x->temporary)
		finishf(x, MX_TEMPORARY,
		    "no answer from DNS for the addresses of the mail hosts of %s");
	else if (x->implicit)
		finishf(x, MX_NO_ADDRESS, "domain %s has neither a mail host nor an address");
	else
		finishf(x, MX_NO_ADDRESS, "none of the mail hosts of %s has an address");
}

static void
on_addresses(void *ctx, const struct dns_answer *a)
{
	struct address_question *q = ctx;
	struct mx_lookup *x = q->mx;
	struct host *h = &x->hosts[q->host];

	if (a->status == DNS_TEMPORARY)
		x->temporary = true;
	if (a->ttl < x->ttl)
		x->ttl = a->ttl;
	for (size_t i = 0; i < a->n; i++) {
		struct slice s = a->records[i].data;

		if (s.n == 4 && h->n4 < ADDRESSES_MAX)
			memcpy(h->v4[h->n4++], s.p, 4);
		if (s.n == 16 && h->n6 < ADDRESSES_MAX)
			memcpy(h->v6[h->n6++], s.p, 16);
	}
	all_asked(x);
}

static void
ask_addresses(struct mx_lookup *x)
{
	static const enum dns_type types[2] = { DNS_AAAA, DNS_A };
	static const int needs[2] = { CONF_PROTOCOLS_IPV4,
		CONF_PROTOCOLS_IPV6 }; /* which setting rules it out */
	int protocols = x->l.dnsd->d->conf->inet_protocols;
	struct dns_name name;

	x->open = 1; /* answers may come before all is asked */
	for (size_t i = 0; i < x->n; i++) {
		if (dns_name_from_text(slice_str(x->hosts[i].name), &name))
			continue;
		for (size_t t = 0; t < 2; t++) {
			struct address_question *q = &x->questions[i * 2 + t];

			if (protocols == needs[t])
				continue;
			*q = (struct address_question){ x, i };
			x->open++;
			resolver_ask(x->l.dnsd->resolver, &name, types[t], on_addresses, q);
		}
	}
	all_asked(x);
}

static int
by_preference(const void *a, const void *b)
{
	const struct host *x = a, *y = b;

	if (x->preference != y->preference)
		return x->preference < y->preference ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static void
set_site(struct mx_lookup *x)
{
	const char *names[HOSTS_MAX];

	if (!x->l.dnsd->d->conf->dns_site_grouping || x->implicit) {
		names[0] = x->domain;
		dns_site_key(names, 1, x->site);
		return;
	}
	for (size_t i = 0; i < x->n; i++)
		names[i] = x->hosts[i].name;
	dns_site_key(names, x->n, x->site);
}

/* RFC 5321 5.1: our own name, and what is no better, may not be tried. True if nothing is left. */
static bool
cut_at_ourselves(struct mx_lookup *x)
{
	const char *me = x->l.dnsd->d->conf->myhostname;

	for (size_t i = 0; i < x->n; i++)
		if (!strcasecmp(x->hosts[i].name, me)) {
			while (i > 0 && x->hosts[i - 1].preference == x->hosts[i].preference)
				i--;
			x->n = i;
			return i == 0;
		}
	return false;
}

static void
add_host(struct mx_lookup *x, const char *name, uint16_t preference)
{
	struct host *h = &x->hosts[x->n++];

	*h = (struct host){ .preference = preference };
	snprintf(h->name, sizeof(h->name), "%s", name);
	if (getrandom(&h->order, sizeof(h->order), 0) != (ssize_t)sizeof(h->order))
		die("getrandom: no randomness");
}

static void
take_hosts(struct mx_lookup *x, const struct dns_answer *a)
{
	struct host *all = xcalloc(a->n + 1, sizeof(*all));

	free(x->hosts);
	x->hosts = all;
	for (size_t i = 0; i < a->n; i++)
		if (a->records[i].host[0])
			add_host(x, a->records[i].host, a->records[i].preference);
	qsort(x->hosts, x->n, sizeof(*x->hosts), by_preference);
	if (x->n > HOSTS_MAX)
		x->n = HOSTS_MAX;
}

static void
take_implicit(struct mx_lookup *x)
{
	x->implicit = true;
	add_host(x, x->domain, 0);
	set_site(x);
	if (x->site_only)
		finish(x, MX_OK, "");
	else if (cut_at_ourselves(x))
		finishf(x, MX_OURSELVES,
		    "mail for %s loops back to this host; is it missing in mydestination?");
	else
		ask_addresses(x);
}

static void
on_mx(void *ctx, const struct dns_answer *a)
{
	struct mx_lookup *x = ctx;

	x->ttl = a->ttl;
	x->secure = a->secure;
	switch (a->status) {
	case DNS_OK:
		break;
	case DNS_NODATA:
		if (a->unusable) /* RFC 5321 5.1: no way round MX records that are there */
			finishf(x, MX_NO_ADDRESS, "none of the mail hosts of %s has a usable name");
		else
			take_implicit(x);
		return;
	case DNS_NXDOMAIN:
		finishf(x, MX_NO_DOMAIN, "domain %s does not exist");
		return;
	default:
		finishf(x, MX_TEMPORARY, "no answer from DNS for the mail hosts of %s");
		return;
	}
	take_hosts(x, a);
	if (!x->n) { /* RFC 7505: the root as the only host */
		finishf(x, MX_NULL_MX, "domain %s does not accept mail (null MX)");
		return;
	}
	set_site(x);
	if (x->site_only)
		finish(x, MX_OK, "");
	else if (cut_at_ourselves(x))
		finishf(x, MX_OURSELVES,
		    "mail for %s loops back to this host; is it missing in mydestination or "
		    "relay_domains?");
	else
		ask_addresses(x);
}

/* "[192.0.2.1]": no question at all. */
static bool
take_literal(struct mx_lookup *x, struct slice domain)
{
	unsigned char address[16];
	struct host *h;

	if (!lookup_literal(domain, address))
		return false;
	add_host(x, x->domain, 0);
	h = &x->hosts[0];
	if (!memcmp(address, lookup_mapped_prefix, 12))
		memcpy(h->v4[h->n4++], address + 12, 4);
	else
		memcpy(h->v6[h->n6++], address, 16);
	x->implicit = true;
	set_site(x);
	finish(x, MX_OK, "");
	return true;
}

static void
start(struct dnsd *dnsd, struct ipc_chan *ch, uint32_t id, struct slice domain, bool site_only,
    bool hosts_only)
{
	struct mx_lookup *x = lookup_new(dnsd, sizeof(*x), ch, id);
	struct dns_name name;
	bool brackets = domain.n > 2 && domain.p[0] == '[' && domain.p[domain.n - 1] == ']';

	x->site_only = site_only;
	x->ttl = DNS_TTL_MAX;
	x->hosts = xcalloc(1, sizeof(*x->hosts));
	snprintf(x->domain, sizeof(x->domain), "%.*s", SLICE_ARG(domain));
	if (take_literal(x, domain))
		return;
	if (brackets) { /* "[host]": that host, whatever its mail hosts are */
		domain = slice_sub(domain, 1, domain.n - 1);
		hosts_only = true;
	}
	if (lookup_domain(domain, &name) || dns_name_host(&name, x->domain)) {
		finishf(x, MX_NO_DOMAIN, "'%s' cannot be a domain name");
		return;
	}
	if (hosts_only)
		take_implicit(x);
	else
		resolver_ask(dnsd->resolver, &name, DNS_MX, on_mx, x);
}

void
lookup_mx(struct dnsd *dnsd, struct ipc_chan *ch, uint32_t id, struct slice domain, unsigned flags)
{
	start(dnsd, ch, id, domain, false, flags & 1);
}

void
lookup_site(struct dnsd *dnsd, struct ipc_chan *ch, uint32_t id, struct slice domain)
{
	start(dnsd, ch, id, domain, true, false);
}
