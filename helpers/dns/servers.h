/* The resolvers of an instance, from dns_resolvers or /etc/resolv.conf. */
#ifndef DNS_SERVERS_H
#define DNS_SERVERS_H

#include "base/buf.h"
#include "conf/conf.h"

#define SERVERS_MAX CONF_RESOLVERS_MAX

struct servers {
	struct buf csv; /* as ares_set_servers_ports_csv wants them, NUL-terminated */
	uint16_t ports[SERVERS_MAX];
	size_t n;
	bool loopback; /* all of them: the AD bit may be believed */
};

/* "127.0.0.1", "127.0.0.1:53", "::1", "[::1]:53". ERR_SYNTAX, or ERR_LIMIT past SERVERS_MAX. */
int servers_add(struct servers *s, struct slice text) CHECKED;
/* The nameserver lines of resolv.conf(5); 127.0.0.1 where there are none, as resolv.conf(5) says.
 * Scoped IPv6 addresses are left out. */
void servers_parse_resolv_conf(struct servers *s, struct slice text);
void servers_free(struct servers *s);

#endif
