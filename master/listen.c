/*
 * Listening sockets: TCP over IPv4 and IPv6, and local ones. They are opened once, as root, and
 * outlive the daemons that accept on them, a reload that keeps them, and an upgrade. Where a reload
 * changes the address of a service, the new socket is there before the former one goes, and no
 * client finds the port closed.
 */
#include "master/master.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024
#define FORMER_MS (LISTENER_FORMER_MS + 1000)
#define NO_INTERFACE INT_MAX /* a number that none has */

static struct listener *
find(struct master *m, const char *name)
{
	struct listener *l;

	LIST_FOREACH(l, &m->listeners, next)
		if (!l->until && !strcmp(l->name, name))
			return l;
	return NULL;
}

static struct listener *
keep(struct master *m, const char *name, int fd, bool local)
{
	struct listener *l = xcalloc(1, sizeof(*l));

	snprintf(l->name, sizeof(l->name), "%s", name);
	l->fd = fd;
	l->local = local;
	LIST_INSERT_HEAD(&m->listeners, l, next);
	return l;
}

int
listen_unix(const char *path, int type, mode_t mode, int *fd_r)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	mode_t old;
	int fd, rc;

	if (slice_copy(slice_str(path), addr.sun_path, sizeof(addr.sun_path)))
		return ERR_LIMIT;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno();
	(void)unlink(path);
	old = umask(0777 & ~mode);
	rc = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, BACKLOG) ? err_errno()
										     : 0;
	umask(old);
	if (rc)
		close(fd);
	else
		*fd_r = fd;
	return rc;
}

static int
bind_and_listen(int fd, const struct addrinfo *ai)
{
	return bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, BACKLOG) ? err_errno() : 0;
}

static uint16_t
port_of(const struct sockaddr *sa)
{
	return sa->sa_family == AF_INET6
		   ? ((const struct sockaddr_in6 *)(const void *)sa)->sin6_port
		   : ((const struct sockaddr_in *)(const void *)sa)->sin_port;
}

/* Our own sockets of that port that nobody needs any more let another one share it, or not. */
static bool
share_port(struct master *m, const struct addrinfo *ai, int on)
{
	struct sockaddr_storage ss;
	struct sockaddr *sa = (struct sockaddr *)&ss;
	struct listener *l;
	bool any = false;

	LIST_FOREACH(l, &m->listeners, next) {
		socklen_t n = sizeof(ss);
		if (l->used || l->local || getsockname(l->fd, sa, &n) ||
		    sa->sa_family != ai->ai_family || port_of(sa) != port_of(ai->ai_addr))
			continue;
		any |= !setsockopt(l->fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	}
	return any;
}

/* Only for as long as that takes: a second server on the port of the first is to find it taken. */
static int
listen_beside(struct master *m, int fd, const struct addrinfo *ai)
{
	int on = 1, off = 0, rc = -EADDRINUSE;

	if (!share_port(m, ai, on))
		return rc;
	if (!setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)))
		rc = bind_and_listen(fd, ai);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &off, sizeof(off));
	(void)share_port(m, ai, off);
	return rc;
}

static int
listen_inet(struct master *m, const struct addrinfo *ai, int *fd_r)
{
	int one = 1, rc, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return err_errno();
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	rc = bind_and_listen(fd, ai);
	if (rc == -EADDRINUSE)
		rc = listen_beside(m, fd, ai);
	if (rc)
		close(fd);
	else
		*fd_r = fd;
	return rc;
}

static void
add(struct service *s, struct listener *l)
{
	l->used = true;
	s->listeners[s->nlisteners++] = l;
}

static bool
has(const struct service *s, const struct listener *l)
{
	for (size_t i = 0; i < s->nlisteners; i++)
		if (s->listeners[i] == l)
			return true;
	return false;
}

static int
add_inet(struct master *m, struct service *s, const struct conf_service *row, const char *host,
    const char *port)
{
	struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *list, *ai;
	char name[128], address[64], number[16], digits[CONF_PORT_TEXT];
	int rc, fd = -1, err = 0;

	hints.ai_family = s->conf->inet_protocols == CONF_PROTOCOLS_IPV4   ? AF_INET
			  : s->conf->inet_protocols == CONF_PROTOCOLS_IPV6 ? AF_INET6
									   : AF_UNSPEC;
	rc = getaddrinfo(host, conf_port_text(port, digits), &hints, &list);
	if (rc) {
		log_event(LOG_listen_failed,
		    "file=%s line=%u service=%s reason=\"%s\" remedy=\"name an address of this "
		    "machine and a port number\"",
		    row->file, row->line, s->name, gai_strerror(rc));
		return ERR_SYNTAX;
	}
	for (ai = list; ai; ai = ai->ai_next) {
		struct listener *l;
		if (getnameinfo(ai->ai_addr, ai->ai_addrlen, address, sizeof(address), number,
			sizeof(number), NI_NUMERICHOST | NI_NUMERICSERV))
			continue;
		if (s->nlisteners == DAEMON_LISTENERS) {
			err = ERR_LIMIT;
			log_event(LOG_listen_failed,
			    "file=%s line=%u service=%s address=%s port=%s reason=\"a service has "
			    "no more than %d addresses\" remedy=\"give the others a row of their "
			    "own\"",
			    row->file, row->line, s->name, address, number, DAEMON_LISTENERS);
			continue;
		}
		snprintf(name, sizeof(name), "inet:%s:%s", address, number);
		l = find(m, name);
		if (l && l->used) { /* by this service, whose host has one address twice */
			if (has(s, l))
				continue;
			err = -EADDRINUSE;
			log_event(LOG_listen_failed,
			    "file=%s line=%u service=%s address=%s port=%s reason=\"another row "
			    "listens there\" remedy=\"remove one of the two\"",
			    row->file, row->line, s->name, address, number);
			continue;
		}
		if (!l) {
			rc = listen_inet(m, ai, &fd);
			if (rc == -EAFNOSUPPORT && !host)
				continue; /* a kernel without IPv6 */
			if (rc) {
				err = rc;
				log_event(LOG_listen_failed,
				    "file=%s line=%u service=%s address=%s port=%s reason=\"%s\" "
				    "remedy=\"stop the other server or change the port\"",
				    row->file, row->line, s->name, address, number, err_str(rc));
				continue;
			}
			l = keep(m, name, fd, false);
		}
		add(s, l);
	}
	freeaddrinfo(list);
	return err;
}

static int
add_local(struct master *m, struct service *s, const struct conf_service *row)
{
	char path[256], name[128];
	struct listener *l;
	int fd = -1, err;

	snprintf(path, sizeof(path), "%s%s%s",
	    row->name[0] == '/' ? "" : m->set->conf->run_directory, row->name[0] == '/' ? "" : "/",
	    row->name);
	snprintf(name, sizeof(name), "unix:%.120s", path);
	l = find(m, name);
	if (!l) {
		err = listen_unix(path, SOCK_STREAM, 0666, &fd);
		if (err) {
			log_event(LOG_listen_failed,
			    "file=%s line=%u path=%s reason=\"%s\" remedy=\"make its directory, or "
			    "another path\"",
			    row->file, row->line, log_cstr(path), err_str(err));
			return err;
		}
		l = keep(m, name, fd, true);
	}
	add(s, l);
	return 0;
}

/* "port", "host:port", "[v6]:port" */
static void
split_name(const char *name, char *host, size_t size, const char **port)
{
	const char *colon = strrchr(name, ':');
	struct slice h = slice(name, colon ? (size_t)(colon - name) : 0);

	*port = colon ? colon + 1 : name;
	if (h.n >= 2 && h.p[0] == '[')
		h = slice_sub(h, 1, h.n - 1);
	if (slice_copy(h, host, size))
		host[0] = '\0';
}

int
listeners_for(struct master *m, struct service *s, const struct conf_service *row)
{
	const struct conf_list *interfaces = &s->conf->inet_interfaces;
	char host[256];
	const char *port;
	int err = 0, rc;

	if (s->role == ROLE_METRICS) {
		split_name(s->conf->metrics_listen, host, sizeof(host), &port);
		return add_inet(m, s, row, host, port);
	}
	if (s->role != ROLE_SMTPD && s->role != ROLE_SUBMISSION && s->role != ROLE_LOGIN)
		return 0;
	if (row->type != CONF_SERVICE_INET)
		return add_local(m, s, row);
	split_name(row->name, host, sizeof(host), &port);
	if (host[0])
		return add_inet(m, s, row, host, port);
	for (size_t i = 0; i < interfaces->n; i++) {
		const char *word = interfaces->v[i];
		if (!strcmp(word, "all"))
			rc = add_inet(m, s, row, NULL, port);
		else if (!strcmp(word, "loopback-only"))
			rc = add_inet(m, s, row, "localhost", port);
		else if (word[0] == '[' &&
			 !slice_copy(slice(word + 1, strlen(word) - 2), host, sizeof(host)))
			rc = add_inet(m, s, row, host, port); /* [v6] */
		else
			rc = add_inet(m, s, row, word, port);
		err = err ? err : rc;
	}
	return err;
}

static void
drop(struct listener *l)
{
	close(l->fd);
	if (l->local)
		(void)unlink(l->name + 5);
	LIST_REMOVE(l, next);
	free(l);
}

static void
drop_former(void *arg)
{
	struct master *m = arg;
	struct listener *l, *next;
	int64_t now = master_now_ms();

	for (l = LIST_FIRST(&m->listeners); l; l = next) {
		next = LIST_NEXT(l, next);
		if (l->until && l->until <= now)
			drop(l);
		else if (l->until)
			ev_timer_set(m->base, &m->former_timer, l->until - now, drop_former, m);
	}
}

/* Who connects from now on is not for this socket, which would be taken before one of all addresses
 * otherwise; the acceptor that has it yet takes who waits in it. Until it has closed it master has
 * it too: a reload meanwhile may need its port. */
static void
retire(struct master *m, struct listener *l)
{
	int none = NO_INTERFACE;

	(void)setsockopt(l->fd, SOL_SOCKET, SO_BINDTOIFINDEX, &none, sizeof(none));
	l->until = master_now_ms() + FORMER_MS;
	ev_timer_set(m->base, &m->former_timer, FORMER_MS, drop_former, m);
}

void
listeners_drop_unused(struct master *m)
{
	struct listener *l, *next;

	for (l = LIST_FIRST(&m->listeners); l; l = next) {
		next = LIST_NEXT(l, next);
		if (l->used || l->until)
			continue;
		if (l->local)
			drop(l);
		else
			retire(m, l);
	}
	drop_former(m);
}
