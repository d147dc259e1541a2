/*
 * The daemon's callbacks: start, requests, links, reload. Runs in dns. Hostile: names in requests.
 * Invariant: requests under way are bounded; what the jail will forbid is done in init.
 */
#include "lookup.h"

#include "dns/site.h"

static int
dns_init(struct daemon *d)
{
	struct dnsd *dnsd = xcalloc(1, sizeof(*dnsd));
	const char *warm[] = { "warm" };
	unsigned char key[DNS_SITE_SIZE];
	char why[256];

	dnsd->d = d;
	d->ctx = dnsd;
	LIST_INIT(&dnsd->lookups);
	dnsd->resolver = resolver_new(d->conf, why, sizeof(why));
	if (!dnsd->resolver) {
		log_event(LOG_dns_start, "reason=%s", log_cstr(why));
		return ERR_SYNTAX;
	}
	d->ports = resolver_ports(dnsd->resolver, &d->nports);
	dns_site_key(warm, 1, key); /* OpenSSL loads what it wants to load now */
	return 0;
}

static int
dns_start(struct daemon *d)
{
	resolver_start(((struct dnsd *)d->ctx)->resolver, d->base);
	return 0;
}

static void
dns_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct dnsd *dnsd = d->ctx;

	if (dnsd->under_way >= LOOKUPS_MAX) {
		log_event(LOG_dns_overload,
		    "peer=%s reason=\"%d requests under way\" remedy=\"see whether the resolver "
		    "answers\"",
		    role_table[ipc_chan_peer(ch)].name, LOOKUPS_MAX);
		return; /* the asker's own time limit ends it */
	}
	dnsd->requests++;
	switch (m->type) {
	case MSG_CLIENT_NAME:
		lookup_client_name(dnsd, ch, m->id, m->client_name.address);
		break;
	case MSG_SITE:
		lookup_site(dnsd, ch, m->id, m->site.domain);
		break;
	case MSG_MX:
		lookup_mx(dnsd, ch, m->id, m->mx.domain, m->mx.flags);
		break;
	case MSG_DNS_GET:
		lookup_records(dnsd, ch, m->id, m->dns_get.name, m->dns_get.type);
		break;
	default:
		break;
	}
}

static void
dns_link_down(struct daemon *d, struct ipc_chan *ch)
{
	lookup_forget(d->ctx, ch);
}

static void
dns_reload(struct daemon *d, const struct conf *old)
{
	struct dnsd *dnsd = d->ctx;
	char why[256];

	(void)old;
	if (resolver_configure(dnsd->resolver, d->conf, why, sizeof(why)))
		log_event(LOG_dns_reload, "reason=%s remedy=\"the former resolvers stay in use\"",
		    log_cstr(why));
}

static void
dns_status(struct daemon *d, struct buf *out)
{
	struct dnsd *dnsd = d->ctx;
	struct resolver_stats s;

	resolver_stats(dnsd->resolver, &s);
	buf_addf(out,
	    "requests=%llu questions=%llu cached=%llu sent=%llu failed=%llu in_flight=%zu "
	    "waiting=%zu cache=%zu",
	    (unsigned long long)dnsd->requests, (unsigned long long)s.asked,
	    (unsigned long long)s.cached, (unsigned long long)s.sent, (unsigned long long)s.failed,
	    s.in_flight, s.waiting, s.cache_entries);
}

const struct daemon_desc dnsd_desc = {
	.role = ROLE_DNS,
	.init = dns_init,
	.start = dns_start,
	.message = dns_message,
	.link_down = dns_link_down,
	.reload = dns_reload,
	.status = dns_status,
};
