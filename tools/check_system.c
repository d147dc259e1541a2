/*
 * Part of `bulkhead check`: accounts that are named, and addresses that are to be listened on. A
 * port is tried by binding it, unless the suite runs: its own sockets would be in the way then.
 */
#include "tools/check.h"

#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* Packages create these; roles.def has them. */
static const char *const daemon_users[] = { "bh-smtpd", "bh-submit", "bh-login", "bh-auth",
	"bh-dns", "bh-maps", "bh-nss", "bh-queue", "bh-pickup", "bh-client", "bh-bounce",
	"bh-local", "bh-broker", "bh-imapd", "bh-pop3d", "bh-log", "bh-metrics" };

static void
check_daemon_users(struct tool *t)
{
	struct buf missing = { 0 };
	size_t i;

	for (i = 0; i < sizeof(daemon_users) / sizeof(daemon_users[0]); i++)
		if (!getpwnam(daemon_users[i]))
			(void)buf_addf(&missing, " %s", daemon_users[i]);
	if (buf_len(&missing))
		check_at(t, false, "uid_base",
		    "create them as system users, each with a group of its own, or set uid_base to "
		    "a free range, as in 700000",
		    "the daemons have no users:%.*s", SLICE_ARG(buf_slice(&missing)));
	buf_free(&missing);
}

/* The ranges of daemons and of virtual users must not meet, nor reach below first_valid_uid. */
static void
check_ranges(struct tool *t)
{
	const struct conf *c = t->set->conf;

	if (c->virtual_uid_base < c->first_valid_uid)
		check_at(t, false, "virtual_uid_base", "raise it",
		    "virtual_uid_base = %lld is below first_valid_uid = %lld",
		    (long long)c->virtual_uid_base, (long long)c->first_valid_uid);
	if (c->uid_base && c->uid_base + 100 > c->virtual_uid_base &&
	    c->uid_base < c->virtual_uid_base + c->virtual_uid_count)
		check_at(t, false, "uid_base", "move one of the two",
		    "uid_base = %lld lies in the range of virtual users", (long long)c->uid_base);
}

/* Mail for others waits for ever without a resolver. */
static void
check_resolvers(struct tool *t)
{
	FILE *f;
	char line[512];
	bool found = false;

	if (t->set->conf->dns_resolvers.n)
		return;
	f = fopen("/etc/resolv.conf", "re");
	while (f && !found && fgets(line, sizeof(line), f))
		found = !strncmp(line, "nameserver", 10);
	if (f)
		fclose(f);
	if (!found)
		check_at(t, true, "dns_resolvers", "set dns_resolvers, or mend that file",
		    "/etc/resolv.conf names no server: mail for other domains waits");
}

void
check_accounts(struct tool *t)
{
	const struct conf *c = t->set->conf;

	if (c->admin_group[0] && !getgrnam(c->admin_group))
		check_at(t, false, "admin_group", "create it, or correct the name",
		    "admin_group = %s: no such group", c->admin_group);
	if (geteuid() == 0 && !c->uid_base)
		check_daemon_users(t);
	if (c->default_privs[0] && !getpwnam(c->default_privs))
		check_at(t, false, "default_privs", "create it, or correct the name",
		    "default_privs = %s: no such user", c->default_privs);
	check_ranges(t);
	check_resolvers(t);
}

/* --- ports --- */

static void
try_bind(struct tool *t, const struct conf_service *s, const struct addrinfo *ai, bool running)
{
	int one = 1, err = 0, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char host[64], port[16];

	if (fd < 0)
		return; /* no IPv6 here */
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, 1))
		err = err_errno();
	close(fd);
	if (!err || (err == -EADDRINUSE && running))
		return;
	if (getnameinfo(ai->ai_addr, ai->ai_addrlen, host, sizeof(host), port, sizeof(port),
		NI_NUMERICHOST | NI_NUMERICSERV))
		return;
	conf_problem(&t->problems, s->file, s->line,
	    err == -EADDRINUSE ? "stop the other server (ss -ltnp shows it), or choose another port"
	    : err == -EACCES   ? "start the suite as root, or choose a port above 1023"
	    : err == -EADDRNOTAVAIL ? "name an address of this machine"
				    : NULL,
	    "service %s: %s port %s: %s", s->name, host, port, err_str(err));
}

static void
check_address(
    struct tool *t, const struct conf_service *s, const char *host, const char *port, bool running)
{
	struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *list, *ai;
	const struct conf *c = s->conf ? s->conf : t->set->conf;
	int rc;

	hints.ai_family = c->inet_protocols == CONF_PROTOCOLS_IPV4   ? AF_INET
			  : c->inet_protocols == CONF_PROTOCOLS_IPV6 ? AF_INET6
								     : AF_UNSPEC;
	rc = getaddrinfo(host, port, &hints, &list);
	if (rc) {
		conf_problem(&t->problems, s->file, s->line,
		    "name an address of this machine, and a port by number or as in services(5)",
		    "service %s: %s port %s: %s", s->name, host ? host : "*", port,
		    gai_strerror(rc));
		return;
	}
	for (ai = list; ai; ai = ai->ai_next)
		try_bind(t, s, ai, running);
	freeaddrinfo(list);
}

static void
check_service(struct tool *t, const struct conf_service *s, bool running)
{
	const struct conf_list *interfaces = &(s->conf ? s->conf : t->set->conf)->inet_interfaces;
	const char *colon = strrchr(s->name, ':'), *port = colon ? colon + 1 : s->name;
	struct slice host = slice(s->name, colon ? (size_t)(colon - s->name) : 0);
	char text[256];
	size_t i;

	if (host.n > 1 && host.p[0] == '[')
		host = slice_sub(host, 1, host.n - 1);
	if (host.n) {
		if (!slice_copy(host, text, sizeof(text)))
			check_address(t, s, text, port, running);
		return;
	}
	for (i = 0; i < interfaces->n; i++) {
		const char *word = interfaces->v[i];

		if (word[0] == '[' &&
		    !slice_copy(slice(word + 1, strlen(word) - 2), text, sizeof(text)))
			word = text;
		check_address(t, s,
		    !strcmp(word, "all")             ? NULL
		    : !strcmp(word, "loopback-only") ? "localhost"
						     : word,
		    port, running);
	}
}

void
check_ports(struct tool *t)
{
	bool running = control_alive(t);
	size_t i;

	for (i = 0; i < t->set->services->n; i++)
		if (t->set->services->v[i].type == CONF_SERVICE_INET)
			check_service(t, &t->set->services->v[i], running);
}
