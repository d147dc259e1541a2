/*
 * The name of a client: the PTR record of its address, confirmed by the A or AAAA records of that
 * name. Runs in dns. Loopback has the name localhost without a question; private addresses, whose
 * zones are often nowhere, get at most half a second. Invariant: the answer is sent once, by the
 * records or by the deadline; the records that come later only fill the cache.
 */
#include "lookup.h"

#include <stdio.h>

enum { PRIVATE_MS = 500, NAMES_MAX = 4, LOOPBACK_TTL = 3600 };
enum { CONFIRMED, NO_NAME, TEMPORARY, UNCONFIRMED };

struct client_lookup {
	struct lookup l;
	struct ev_timer deadline;
	unsigned char address[16];
	size_t width; /* 4 or 16 */
	char names[NAMES_MAX][DNS_HOST_SIZE];
	size_t n, at;
	bool temporary;
	uint32_t ttl;
};

static const unsigned char *
raw(const struct client_lookup *c)
{
	return c->width == 4 ? c->address + 12 : c->address;
}

static void
answer(struct client_lookup *c, int status, const char *name)
{
	struct msg m = MSG_INIT(MSG_CLIENT_NAME_ANSWER, c->l.id);

	m.client_name_answer.status = (uint8_t)status;
	m.client_name_answer.name = slice_str(name);
	m.client_name_answer.ttl = c->ttl;
	lookup_answer(&c->l, &m);
}

static void
finish(struct client_lookup *c, int status, const char *name)
{
	answer(c, status, name);
	ev_timer_free(&c->deadline);
	lookup_free(&c->l);
}

static void
on_deadline(void *ctx)
{
	struct client_lookup *c = ctx;

	c->ttl = 0;
	answer(c, TEMPORARY, "");
}

static void ask_forward(struct client_lookup *c);

static void
on_forward(void *ctx, const struct dns_answer *a)
{
	struct client_lookup *c = ctx;

	if (a->ttl < c->ttl)
		c->ttl = a->ttl;
	for (size_t i = 0; i < a->n; i++)
		if (slice_eq(a->records[i].data, slice(raw(c), c->width))) {
			finish(c, CONFIRMED, c->names[c->at]);
			return;
		}
	if (a->status == DNS_TEMPORARY)
		c->temporary = true;
	c->at++;
	ask_forward(c);
}

static void
ask_forward(struct client_lookup *c)
{
	struct dns_name name;

	if (c->at == c->n) {
		finish(c, c->temporary ? TEMPORARY : UNCONFIRMED, c->names[0]);
		return;
	}
	if (dns_name_from_text(slice_str(c->names[c->at]), &name)) {
		c->at++;
		ask_forward(c);
		return;
	}
	resolver_ask(c->l.dnsd->resolver, &name, c->width == 4 ? DNS_A : DNS_AAAA, on_forward, c);
}

static void
on_ptr(void *ctx, const struct dns_answer *a)
{
	struct client_lookup *c = ctx;

	c->ttl = a->ttl;
	for (size_t i = 0; i < a->n && c->n < NAMES_MAX; i++)
		if (a->records[i].host[0])
			snprintf(c->names[c->n++], DNS_HOST_SIZE, "%s", a->records[i].host);
	if (c->n)
		ask_forward(c);
	else
		finish(c, a->status == DNS_TEMPORARY ? TEMPORARY : NO_NAME, "");
}

static bool
is_private(const unsigned char *p, size_t width)
{
	if (width == 16) /* RFC 4193, and link-local */
		return (p[0] & 0xfe) == 0xfc || (p[0] == 0xfe && (p[1] & 0xc0) == 0x80);
	return p[0] == 10 || (p[0] == 172 && (p[1] & 0xf0) == 16) || (p[0] == 192 && p[1] == 168) ||
	       (p[0] == 169 && p[1] == 254) || (p[0] == 100 && (p[1] & 0xc0) == 64);
}

static bool
is_loopback(const unsigned char *p, size_t width)
{
	static const unsigned char six[16] = { [15] = 1 };

	return width == 4 ? p[0] == 127 : !memcmp(p, six, 16);
}

void
lookup_client_name(struct dnsd *dnsd, struct ipc_chan *ch, uint32_t id, struct slice address)
{
	struct client_lookup *c = lookup_new(dnsd, sizeof(*c), ch, id);
	struct daemon *d = dnsd->d;
	struct dns_name name;

	if (address.n == 4) {
		memcpy(c->address, lookup_mapped_prefix, 12);
		memcpy(c->address + 12, address.p, 4);
	} else if (address.n == 16) {
		memcpy(c->address, address.p, 16);
	} else {
		finish(c, NO_NAME, "");
		return;
	}
	c->width = memcmp(c->address, lookup_mapped_prefix, 12) ? 16 : 4;
	if (is_loopback(raw(c), c->width)) {
		c->ttl = LOOPBACK_TTL;
		finish(c, CONFIRMED, "localhost");
		return;
	}
	ev_timer_set(d->base, &c->deadline,
	    is_private(raw(c), c->width) ? PRIVATE_MS : d->conf->dns_timeout, on_deadline, c);
	dns_name_reverse(slice(raw(c), c->width), &name);
	resolver_ask(dnsd->resolver, &name, DNS_PTR, on_ptr, c);
}
