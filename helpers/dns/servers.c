/*
 * Addresses of resolvers as text. Runs in dns before its jail (resolv.conf, written by root) and at
 * reload (dns_resolvers). No hostile input.
 */
#include "servers.h"

#include <arpa/inet.h>

static bool
is_loopback(int family, const void *address)
{
	static const unsigned char six[16] = { [15] = 1 };

	return family == AF_INET ? *(const unsigned char *)address == 127
				 : !memcmp(address, six, sizeof(six));
}

/* Cuts ":port" off: behind the last colon of an IPv4 address or behind a bracket. */
static int
split_port(struct slice *host, uint64_t *port)
{
	ptrdiff_t colon = slice_rfind(*host, ':');
	bool bracket = host->n && host->p[0] == '[';

	*port = 53;
	if (bracket) {
		ptrdiff_t end = slice_find(*host, ']');

		if (end < 0)
			return ERR_SYNTAX;
		struct slice rest = slice_sub(*host, (size_t)end + 1, host->n);

		*host = slice_sub(*host, 1, (size_t)end);
		if (!rest.n)
			return 0;
		return rest.p[0] == ':' ? slice_u64(slice_sub(rest, 1, rest.n), 65535, port)
					: ERR_SYNTAX;
	}
	if (colon < 0 || slice_find(*host, ':') != colon)
		return 0;
	struct slice digits = slice_sub(*host, (size_t)colon + 1, host->n);

	*host = slice_sub(*host, 0, (size_t)colon);
	return slice_u64(digits, 65535, port);
}

int
servers_add(struct servers *s, struct slice text)
{
	unsigned char address[16];
	char host[64];
	uint64_t port;
	int family = AF_INET;

	if (s->n == SERVERS_MAX)
		return ERR_LIMIT;
	if (split_port(&text, &port) || !port || slice_copy(text, host, sizeof(host)))
		return ERR_SYNTAX;
	if (inet_pton(AF_INET, host, address) != 1) {
		family = AF_INET6;
		if (inet_pton(AF_INET6, host, address) != 1)
			return ERR_SYNTAX;
	}
	s->loopback = (s->n == 0 || s->loopback) && is_loopback(family, address);
	buf_truncate(&s->csv, buf_len(&s->csv) ? buf_len(&s->csv) - 1 : 0); /* the NUL */
	buf_addf(&s->csv, family == AF_INET ? "%s%s:%u" : "%s[%s]:%u", s->n ? "," : "", host,
	    (unsigned)port);
	buf_add_byte(&s->csv, '\0');
	s->ports[s->n++] = (uint16_t)port;
	return 0;
}

void
servers_parse_resolv_conf(struct servers *s, struct slice text)
{
	while (text.n) {
		struct slice line = slice_trim(slice_split(&text, '\n'), true);

		if (!slice_has_prefix(line, "nameserver") || line.n < 12)
			continue;
		line = slice_trim(slice_sub(line, 10, line.n), true);
		if (servers_add(s, line) && s->n == SERVERS_MAX)
			break;
	}
	if (!s->n && servers_add(s, SLICE_LIT("127.0.0.1")))
		die("no resolver");
}

void
servers_free(struct servers *s)
{
	buf_free(&s->csv);
	*s = (struct servers){ 0 };
}
