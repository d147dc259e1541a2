/*
 * From a next hop to the addresses to try, in order. Runs in smtp-client; the next hop comes from
 * qmgr, hosts and addresses from dns. Invariants: at most smtp_mx_address_limit candidates; hosts
 * stay in the order of dns (best first), the protocols alternate within a host unless one is
 * preferred.
 */
#include "sender.h"

#include "mail/domain.h"

#include <arpa/inet.h>
#include <stdio.h>

static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };

static bool
is_v4(const unsigned char *address)
{
	return !memcmp(address, mapped, sizeof(mapped));
}

void
route_address_text(const unsigned char address[16], char *out, size_t size)
{
	if (is_v4(address))
		inet_ntop(AF_INET, address + 12, out, (socklen_t)size);
	else
		inet_ntop(AF_INET6, address, out, (socklen_t)size);
}

static void
add_candidate(struct job *j, struct slice host, const unsigned char *address)
{
	struct candidate *c;

	if (j->ncandidates >= (size_t)j->s->d->conf->smtp_mx_address_limit ||
	    j->ncandidates == CANDIDATES_MAX)
		return;
	c = &j->candidates[j->ncandidates++];
	*c = (struct candidate){ 0 };
	memcpy(c->address, address, 16);
	snprintf(c->host, sizeof(c->host), "%.*s", SLICE_ARG(host));
}

/* The addresses of one host: the preferred protocol first, then in turn. */
static void
add_host(struct job *j, const struct item_mx_host *h)
{
	const struct conf *conf = j->s->d->conf;
	const unsigned char *order[2][32];
	size_t n[2] = { 0 }, at[2] = { 0 };
	size_t first = conf->smtp_address_preference == CONF_PROTOCOLS_IPV4 ? 1 : 0;

	for (size_t i = 0; i + 16 <= h->addresses.n && i < 512; i += 16) {
		const unsigned char *a = h->addresses.p + i;
		size_t v4 = is_v4(a);

		if (conf->inet_protocols == (v4 ? CONF_PROTOCOLS_IPV6 : CONF_PROTOCOLS_IPV4))
			continue;
		order[v4][n[v4]++] = a;
	}
	while (at[0] < n[0] || at[1] < n[1]) {
		if (at[first] < n[first])
			add_candidate(j, h->name, order[first][at[first]++]);
		if (conf->smtp_address_preference != CONF_PROTOCOLS_ALL && at[first] < n[first])
			continue;
		if (at[!first] < n[!first])
			add_candidate(j, h->name, order[!first][at[!first]++]);
	}
}

static void
fail(struct job *j, bool permanent, const char *enhanced, struct slice text)
{
	job_reason(j, permanent, enhanced, "", "%.*s", SLICE_ARG(text));
	job_finish(j);
}

/* The admin has chosen relayhost: what DNS says of it is no fault of the address. */
static void
fail_for_good(struct job *j, const char *enhanced, struct slice text)
{
	struct slice host;

	(void)conf_nexthop_port(slice_str(j->s->d->conf->relayhost), &host);
	if (!host.n || !slice_caseeq(host, j->nexthop)) {
		fail(j, true, enhanced, text);
		return;
	}
	job_reason(j, false, "4.4.4", "", "relayhost cannot be used: %.*s", SLICE_ARG(text));
	job_finish(j);
}

static void
on_mx(void *ctx, struct msg *m)
{
	struct job *j = ctx;
	struct item_mx_host h;
	struct cursor hosts;

	j->ask = NULL;
	if (!m) {
		fail(j, false, "4.4.3", SLICE_LIT("no answer from the dns daemon; see its log"));
		return;
	}
	if (m->type != MSG_MX_ANSWER) {
		fail(j, false, "4.3.0", SLICE_LIT("unexpected answer from the dns daemon"));
		return;
	}
	switch (m->mx_answer.status) {
	case 0:
		break;
	case 1:
		fail_for_good(j, "5.1.2", m->mx_answer.text);
		return;
	case 3: /* RFC 7505 4.1 */
		fail_for_good(j, "5.1.10", m->mx_answer.text);
		return;
	case 4:
		fail_for_good(j, "5.4.4", m->mx_answer.text);
		return;
	case 5:
		fail_for_good(j, "5.4.6", m->mx_answer.text);
		return;
	default:
		fail(j, false, "4.4.3", m->mx_answer.text);
		return;
	}
	hosts = cursor(m->mx_answer.hosts.raw);
	while (item_mx_host_next(&hosts, &h))
		add_host(j, &h);
	if (!j->ncandidates)
		fail_for_good(j, "5.4.4",
		    SLICE_LIT(
			"no address of the destination is of a protocol that inet_protocols has"));
	else
		job_attempt(j);
}

/* "[192.0.2.1]", "[IPv6:2001:db8::1]", and without the tag, as people write it; 192.0.2.1 of
 * lmtp:inet:192.0.2.1:24. */
static bool
parse_literal(struct slice s, int *family_r, unsigned char raw_r[16])
{
	char text[64];

	if (!domain_literal_check(s))
		return !domain_literal_address(s, family_r, raw_r);
	*family_r = AF_INET;
	if (!slice_copy(s, text, sizeof(text)) && inet_pton(AF_INET, text, raw_r) == 1)
		return true;
	*family_r = AF_INET6;
	return s.n > 2 && s.p[0] == '[' && s.p[s.n - 1] == ']' &&
	       !slice_copy(slice_sub(s, 1, s.n - 1), text, sizeof(text)) &&
	       inet_pton(AF_INET6, text, raw_r) == 1;
}

/* An address needs no look-up at all. */
static bool
take_literal(struct job *j)
{
	unsigned char raw[16], address[16];
	char text[64];
	int family;

	if (!parse_literal(j->nexthop, &family, raw))
		return false;
	if (family == AF_INET) {
		memcpy(address, mapped, sizeof(mapped));
		memcpy(address + 12, raw, 4);
	} else {
		memcpy(address, raw, 16);
	}
	route_address_text(address, text, sizeof(text));
	add_candidate(j, slice_str(text), address);
	return true;
}

void
route_find(struct job *j)
{
	struct msg m = MSG_INIT(MSG_MX, 0);
	struct slice name = j->nexthop;
	const struct conf *conf = j->s->d->conf;

	j->candidates = arena_alloc(&j->arena, CANDIDATES_MAX * sizeof(*j->candidates));
	if (slice_has_prefix(name, "unix:") || slice_has_prefix(name, "/")) {
		fail(j, false, "4.3.5",
		    SLICE_LIT("smtp-client cannot reach unix sockets from its jail; give the LMTP "
			      "server an inet port"));
		return;
	}
	if (take_literal(j)) {
		job_attempt(j);
		return;
	}
	if (name.n > 2 && name.p[0] == '[' && name.p[name.n - 1] == ']') {
		name = slice_sub(name, 1, name.n - 1);
		m.mx.flags = 1;
	}
	if (j->lmtp)
		m.mx.flags = 1;
	m.mx.domain = name;
	j->ask = ask_send(j->s, ROLE_DNS, &m, conf->dns_timeout * 4 + 10000, on_mx, j);
	if (!j->ask)
		fail(j, false, "4.4.3", SLICE_LIT("the dns daemon is not there; see its log"));
}
