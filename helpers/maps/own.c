/*
 * The addresses of this machine, for mail to user@[address] where inet_interfaces is "all". Runs in
 * maps: asked of the kernel once, before the jail. What a stranger writes is only compared.
 */
#include "helpers/maps/own.h"

#include "base/err.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>

struct own {
	size_t n;
	struct own_address {
		int family;
		unsigned char bytes[16];
	} v[];
};

static bool
take(const struct sockaddr *from, struct own_address *to)
{
	const void *a = from;

	if (!a || (from->sa_family != AF_INET && from->sa_family != AF_INET6))
		return false;
	*to = (struct own_address){ .family = from->sa_family };
	if (from->sa_family == AF_INET)
		memcpy(to->bytes, &((const struct sockaddr_in *)a)->sin_addr, 4);
	else
		memcpy(to->bytes, &((const struct sockaddr_in6 *)a)->sin6_addr, 16);
	return true;
}

struct own *
own_new(void)
{
	struct ifaddrs *all = NULL, *p;
	struct own *own;
	size_t n = 0;

	if (getifaddrs(&all))
		all = NULL;
	for (p = all; p; p = p->ifa_next)
		n++;
	own = xcalloc(1, sizeof(*own) + n * sizeof(own->v[0]));
	for (p = all; p; p = p->ifa_next)
		own->n += take(p->ifa_addr, &own->v[own->n]);
	freeifaddrs(all);
	return own;
}

bool
own_has(const struct own *own, struct slice literal)
{
	struct own_address a = { .family = slice_find(literal, ':') < 0 ? AF_INET : AF_INET6 };
	char text[64];

	if (slice_copy(literal, text, sizeof(text)) || inet_pton(a.family, text, a.bytes) != 1)
		return false;
	for (size_t i = 0; i < own->n; i++)
		if (own->v[i].family == a.family && !memcmp(own->v[i].bytes, a.bytes, 16))
			return true;
	return false;
}
