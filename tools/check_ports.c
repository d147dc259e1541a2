/*
 * Part of `bulkhead check`: addresses that are to be listened on. A port is tried by binding it;
 * one that is in use is no problem when it is master's own, which /proc tells: the sockets that
 * listen there are among its descriptors. Who may not look there (master runs as somebody else)
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

/* What listens, from /proc/net/tcp or tcp6. */
struct listening {
	uint32_t
	    address[4]; /* as the kernel prints it: words of the machine's order; tcp: the first */
	unsigned port;
	unsigned long inode;
};

static bool
next_listening(FILE *f, bool v6, struct listening *out_r)
{
	char line[512];

	while (fgets(line, sizeof(line), f)) {
		uint32_t *a = out_r->address;
		unsigned state;
		int n = v6 ? sscanf(line, "%*d: %8x%8x%8x%8x:%x", &a[0], &a[1], &a[2], &a[3],
				 &out_r->port) -
				 3
			   : sscanf(line, "%*d: %8x:%x", &a[0], &out_r->port);

		if (n == 2 &&
		    sscanf(line, "%*d: %*s %*s %x %*s %*s %*s %*s %*s %lu", &state,
			&out_r->inode) == 2 &&
		    state == LISTENING)
			return true;
	}
	return false;
}

static bool
is_any(const uint32_t *address, bool v6)
{
	static const uint32_t any[4];

	return !memcmp(address, any, v6 ? 16 : 4);
}

/* Whether one of the two sockets keeps the other from its port. */
static bool
meets(const struct listening *l, const struct addrinfo *ai)
{
	bool v6 = ai->ai_family == AF_INET6;
	const struct sockaddr_in6 *in6 = (const void *)ai->ai_addr;
	const struct sockaddr_in *in = (const void *)ai->ai_addr;
	uint32_t address[4] = { 0 };

	if (v6)
		memcpy(address, &in6->sin6_addr, 16);
	else
		memcpy(address, &in->sin_addr, 4);
	return l->port == ntohs(v6 ? in6->sin6_port : in->sin_port) &&
	       (is_any(l->address, v6) || is_any(address, v6) ||
		   !memcmp(l->address, address, v6 ? 16 : 4));
}

/* True unless a socket that has the address is known to be somebody else's. */
static bool
ours(struct tool *t, const struct addrinfo *ai)
{
	bool v6 = ai->ai_family == AF_INET6, foreign = false;
	FILE *f = fopen(v6 ? "/proc/net/tcp6" : "/proc/net/tcp", "re");
	DIR *fds = master_fds(t);
	struct listening l;

	while (f && fds && !foreign && next_listening(f, v6, &l))
		foreign = meets(&l, ai) && !has_socket(fds, l.inode);
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

struct ports {
	struct tool *t;
	bool running;
	struct taken {
		struct wanted by;
		struct sockaddr_storage address;
	} * taken; /* by the rows before */
	size_t n;
};

/* Another row has exactly this address: two services would take turns at its clients. */
static bool
is_taken(struct ports *p, const struct wanted *s, const struct addrinfo *ai)
{
	struct taken *x;

	for (x = p->taken; x < p->taken + p->n; x++) {
		if (memcmp(&x->address, ai->ai_addr, ai->ai_addrlen) != 0)
			continue;
		if (strcmp(x->by.name, s->name) != 0) /* else lib/conf has said so */
			conf_problem(&p->t->problems, s->file, s->line, "remove one of the two",
			    "%s %s: listens where %s %s of line %u does", s->what, s->name,
			    x->by.what, x->by.name, x->by.line);
		return true;
	}
	p->taken = xrealloc(p->taken, (p->n + 1) * sizeof(*p->taken));
	x = &p->taken[p->n++];
	*x = (struct taken){ .by = *s };
	memcpy(&x->address, ai->ai_addr, ai->ai_addrlen);
	return false;
}

static void
try_bind(struct ports *p, const struct wanted *s, const struct addrinfo *ai)
{
	int one = 1, err = 0, fd;
	char host[64], port[16];

	if (is_taken(p, s, ai))
		return;
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return; /* no IPv6 here */
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, 1))
		err = err_errno();
	close(fd);
	if (!err || (err == -EADDRINUSE && p->running && ours(p->t, ai)))
		return;
	if (getnameinfo(ai->ai_addr, ai->ai_addrlen, host, sizeof(host), port, sizeof(port),
		NI_NUMERICHOST | NI_NUMERICSERV))
		return;
	conf_problem(&p->t->problems, s->file, s->line,
	    err == -EADDRINUSE ? "stop the other server (ss -ltnp shows it), or choose another port"
	    : err == -EACCES   ? "start the suite as root, or choose a port above 1023"
	    : err == -EADDRNOTAVAIL ? "name an address of this machine"
				    : "correct the address or the port",
	    "%s %s: %s port %s: %s", s->what, s->name, host, port, err_str(err));
}

static void
check_address(struct ports *p, const struct wanted *s, const char *host, const char *port)
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
		conf_problem(&p->t->problems, s->file, s->line,
		    "name an address of this machine, and a port by number or as in services(5)",
		    "%s %s: %s port %s: %s", s->what, s->name, host ? host : "*", port,
		    gai_strerror(rc));
		return;
	}
	for (ai = list; ai; ai = ai->ai_next)
		try_bind(p, s, ai);
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
check_service(struct ports *p, const struct conf_service *s)
{
	const struct wanted w = { s->file, s->line, "service", s->name,
		s->conf ? s->conf : p->t->set->conf };
	const struct conf_list *interfaces = &w.conf->inet_interfaces;
	const char *port;
	char host[256];
	size_t i;

	split_name(s->name, host, sizeof(host), &port);
	if (host[0]) {
		check_address(p, &w, host, port);
		return;
	}
	for (i = 0; i < interfaces->n; i++) {
		const char *word = interfaces->v[i];

		if (word[0] == '[' &&
		    !slice_copy(slice(word + 1, strlen(word) - 2), host, sizeof(host)))
			word = host;
		check_address(p, &w,
		    !strcmp(word, "all")             ? NULL
		    : !strcmp(word, "loopback-only") ? "localhost"
						     : word,
		    port);
	}
}

static void
check_metrics(struct ports *p)
{
	const struct tool *t = p->t;
	const struct conf_entry *e = conf_raw_find(t->set->raw, "metrics_listen");
	const struct wanted w = { e ? e->file : t->set->main_cf, e ? e->line : 0,
		"metrics_listen =", t->set->conf->metrics_listen, t->set->conf };
	const char *port;
	char host[256];

	if (!w.name[0])
		return;
	split_name(w.name, host, sizeof(host), &port);
	check_address(p, &w, host, port);
}

void
check_ports(struct tool *t)
{
	struct ports p = { .t = t, .running = control_alive(t) };
	size_t i;

	for (i = 0; i < t->set->services->n; i++) {
		const struct conf_service *s = &t->set->services->v[i];

		if (s->type == CONF_SERVICE_INET)
			check_service(&p, s);
		else if (!strcmp(s->command, "metrics"))
			check_metrics(&p);
	}
	free(p.taken);
}
