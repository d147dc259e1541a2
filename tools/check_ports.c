/*
 * Part of `bulkhead check`: addresses that are to be listened on. A port is tried by binding it;
 * one that is in use is no problem when it is master's own, which /proc tells: the socket that
 * listens there is among its descriptors. Who may not look there (master runs as somebody else)
 * gets the benefit of the doubt.
 */
#include "tools/check.h"

#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LISTENING 0x0A /* TCP_LISTEN in /proc/net/tcp */

/* The descriptors of master, or NULL when it does not run or is not ours to look at. */
static DIR *
master_fds(struct tool *t)
{
	char *path = xasprintf("%s/master.pid", tool_conf(t)->run_directory);
	FILE *f = fopen(path, "re");
	long pid = 0;
	DIR *dir = NULL;

	free(path);
	if (f) {
		if (fscanf(f, "%ld", &pid) != 1)
			pid = 0;
		fclose(f);
	}
	if (pid > 1) {
		path = xasprintf("/proc/%ld/fd", pid);
		dir = opendir(path);
		free(path);
	}
	return dir;
}

static bool
has_socket(DIR *fds, unsigned long inode)
{
	char wanted[64], link[64];
	const struct dirent *e;
	ssize_t n;

	snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
	rewinddir(fds);
	while ((e = readdir(fds))) {
		n = readlinkat(dirfd(fds), e->d_name, link, sizeof(link) - 1);
		link[n > 0 ? n : 0] = '\0';
		if (!strcmp(link, wanted))
			return true;
	}
	return false;
}

/* True unless a socket that listens on the port is known to be somebody else's. */
static bool
ours(struct tool *t, const struct addrinfo *ai)
{
	bool v6 = ai->ai_family == AF_INET6, foreign = false;
	unsigned port = ntohs(v6 ? ((struct sockaddr_in6 *)(void *)ai->ai_addr)->sin6_port
				 : ((struct sockaddr_in *)(void *)ai->ai_addr)->sin_port);
	FILE *f = fopen(v6 ? "/proc/net/tcp6" : "/proc/net/tcp", "re");
	DIR *fds = master_fds(t);
	char line[512];

	while (f && fds && !foreign && fgets(line, sizeof(line), f)) {
		unsigned local, state;
		unsigned long inode;

		if (sscanf(line, "%*d: %*[0-9A-Fa-f]:%x %*s %x %*s %*s %*s %*s %*s %lu", &local,
			&state, &inode) == 3 &&
		    local == port && state == LISTENING)
			foreign = !has_socket(fds, inode);
	}
	if (f)
		fclose(f);
	if (fds)
		closedir(fds);
	return !foreign;
}

/* Where an address was set, and how to call it. */
struct wanted {
	const char *file;
	unsigned line;
	const char *what, *name; /* "service", its name; "metrics_listen =", its value */
	const struct conf *conf;
};

static void
try_bind(struct tool *t, const struct wanted *s, const struct addrinfo *ai, bool running)
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
	if (!err || (err == -EADDRINUSE && running && ours(t, ai)))
		return;
	if (getnameinfo(ai->ai_addr, ai->ai_addrlen, host, sizeof(host), port, sizeof(port),
		NI_NUMERICHOST | NI_NUMERICSERV))
		return;
	conf_problem(&t->problems, s->file, s->line,
	    err == -EADDRINUSE ? "stop the other server (ss -ltnp shows it), or choose another port"
	    : err == -EACCES   ? "start the suite as root, or choose a port above 1023"
	    : err == -EADDRNOTAVAIL ? "name an address of this machine"
				    : "correct the address or the port",
	    "%s %s: %s port %s: %s", s->what, s->name, host, port, err_str(err));
}

static void
check_address(
    struct tool *t, const struct wanted *s, const char *host, const char *port, bool running)
{
	struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *list, *ai;
	const struct conf *c = s->conf;
	char digits[CONF_PORT_TEXT];
	int rc;

	hints.ai_family = c->inet_protocols == CONF_PROTOCOLS_IPV4   ? AF_INET
			  : c->inet_protocols == CONF_PROTOCOLS_IPV6 ? AF_INET6
								     : AF_UNSPEC;
	rc = getaddrinfo(host, conf_port_text(port, digits), &hints, &list);
	if (rc) {
		conf_problem(&t->problems, s->file, s->line,
		    "name an address of this machine, and a port by number or as in services(5)",
		    "%s %s: %s port %s: %s", s->what, s->name, host ? host : "*", port,
		    gai_strerror(rc));
		return;
	}
	for (ai = list; ai; ai = ai->ai_next)
		try_bind(t, s, ai, running);
	freeaddrinfo(list);
}

/* "port", "host:port", "[v6]:port" */
static void
split_name(const char *name, char *host, size_t size, const char **port)
{
	const char *colon = strrchr(name, ':');
	struct slice h = slice(name, colon ? (size_t)(colon - name) : 0);

	*port = colon ? colon + 1 : name;
	if (h.n > 1 && h.p[0] == '[')
		h = slice_sub(h, 1, h.n - 1);
	if (slice_copy(h, host, size))
		host[0] = '\0';
}

static void
check_service(struct tool *t, const struct conf_service *s, bool running)
{
	const struct wanted w = { s->file, s->line, "service", s->name,
		s->conf ? s->conf : t->set->conf };
	const struct conf_list *interfaces = &w.conf->inet_interfaces;
	const char *port;
	char host[256];
	size_t i;

	split_name(s->name, host, sizeof(host), &port);
	if (host[0]) {
		check_address(t, &w, host, port, running);
		return;
	}
	for (i = 0; i < interfaces->n; i++) {
		const char *word = interfaces->v[i];

		if (word[0] == '[' &&
		    !slice_copy(slice(word + 1, strlen(word) - 2), host, sizeof(host)))
			word = host;
		check_address(t, &w,
		    !strcmp(word, "all")             ? NULL
		    : !strcmp(word, "loopback-only") ? "localhost"
						     : word,
		    port, running);
	}
}

static void
check_metrics(struct tool *t, bool running)
{
	const struct conf_entry *e = conf_raw_find(t->set->raw, "metrics_listen");
	const struct wanted w = { e ? e->file : t->set->main_cf, e ? e->line : 0,
		"metrics_listen =", t->set->conf->metrics_listen, t->set->conf };
	const char *port;
	char host[256];

	if (!w.name[0])
		return;
	split_name(w.name, host, sizeof(host), &port);
	check_address(t, &w, host, port, running);
}

void
check_ports(struct tool *t)
{
	bool running = control_alive(t);
	size_t i;

	for (i = 0; i < t->set->services->n; i++) {
		const struct conf_service *s = &t->set->services->v[i];

		if (s->type == CONF_SERVICE_INET)
			check_service(t, s, running);
		else if (!strcmp(s->command, "metrics"))
			check_metrics(t, running);
	}
}
