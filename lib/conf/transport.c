/*
 * Names and ports of transports, for all who read "transport:nexthop": the check of main.cf, maps,
 * smtp-client and the tools. Pure.
 */
#include "conf/conf.h"

#include <arpa/inet.h>
#include <stdio.h>

bool
conf_transport_known(struct slice name)
{
	static const char *const names[] = { "local", "virtual", "smtp", "relay", "lmtp", "error",
		"retry", "discard", "hold" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (slice_eq_str(name, names[i]))
			return true;
	return slice_has_prefix(name, "smtp-") || slice_has_prefix(name, "lmtp-");
}

bool
conf_nexthop_is_path(struct slice nexthop)
{
	return slice_has_prefix(nexthop, "unix:") || slice_has_prefix(nexthop, "/");
}

unsigned
conf_service_port(struct slice name)
{
	static const struct {
		const char *name;
		unsigned port;
	} services[] = { { "smtp", 25 }, { "lmtp", 24 }, { "submission", 587 },
		{ "submissions", 465 }, { "smtps", 465 }, { "imap", 143 }, { "imap2", 143 },
		{ "imaps", 993 }, { "pop3", 110 }, { "pop3s", 995 } };
	uint64_t port = 0;

	for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++)
		if (slice_eq_str(name, services[i].name))
			return services[i].port;
	return slice_u64(name, 65535, &port) ? 0 : (unsigned)port;
}

const char *
conf_port_text(const char *name, char text[CONF_PORT_TEXT])
{
	unsigned port = conf_service_port(slice_str(name));

	if (!port)
		return name;
	snprintf(text, CONF_PORT_TEXT, "%u", port);
	return text;
}

unsigned
conf_nexthop_port(struct slice nexthop, struct slice *host_r)
{
	ptrdiff_t colon = slice_rfind(nexthop, ':');
	unsigned port;

	*host_r = nexthop;
	if (colon < 0 || (nexthop.p[0] == '[' && slice_rfind(nexthop, ']') > colon))
		return 0;
	port = conf_service_port(slice_sub(nexthop, (size_t)colon + 1, nexthop.n));
	if (port)
		*host_r = slice_sub(nexthop, 0, (size_t)colon);
	return port;
}

bool
conf_nexthop_ok(struct slice nexthop)
{
	struct slice host;
	unsigned char bytes[16];
	char text[256];

	(void)conf_nexthop_port(nexthop, &host);
	if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']') {
		host = slice_sub(host, 1, host.n - 1);
		if (slice_has_caseprefix(host, "IPv6:"))
			host = slice_sub(host, 5, host.n);
		if (!slice_copy(host, text, sizeof(text)) && inet_pton(AF_INET6, text, bytes) == 1)
			return true;
	}
	for (size_t i = 0; i < host.n; i++)
		if (!ascii_is_alnum(host.p[i]) && host.p[i] < 128 && !memchr("-_.", host.p[i], 3))
			return false;
	return host.n > 0;
}

static size_t
add_port(uint64_t port, uint16_t *ports, size_t n, size_t max)
{
	for (size_t i = 0; i < n; i++)
		if (ports[i] == port)
			return n;
	if (!port || n == max)
		return n;
	ports[n] = (uint16_t)port;
	return n + 1;
}

size_t
conf_client_ports(const struct conf *conf, uint16_t *ports, size_t max)
{
	const char *const nexthops[] = { conf->relayhost, conf->default_transport,
		conf->relay_transport, conf->local_transport, conf->virtual_transport,
		conf->mailbox_transport };
	struct slice host;
	uint64_t port;
	size_t n = 0;

	n = add_port((uint64_t)conf->smtp_tcp_port, ports, n, max);
	n = add_port((uint64_t)conf->lmtp_tcp_port, ports, n, max);
	for (size_t i = 0; i < sizeof(nexthops) / sizeof(*nexthops); i++)
		if (nexthops[i])
			n = add_port(
			    conf_nexthop_port(slice_str(nexthops[i]), &host), ports, n, max);
	for (size_t i = 0; i < conf->fallback_relay.n; i++)
		n = add_port(
		    conf_nexthop_port(slice_str(conf->fallback_relay.v[i]), &host), ports, n, max);
	for (size_t i = 0; i < conf->smtp_client_ports.n; i++)
		if (!slice_u64(slice_str(conf->smtp_client_ports.v[i]), 65535, &port))
			n = add_port(port, ports, n, max);
	return n;
}
