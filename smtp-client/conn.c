/*
 * Connections: sockets and time limits below the dialogue of session.c. Runs in smtp-client;
 * the server is hostile. Invariants: a connection belongs to one job, or is idle in its
 * destination's list, or says QUIT; every state has a time limit; a connection is freed by
 * conn_free alone, and no function here touches one after session.c may have freed it.
 */
#include "sender.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };

void
conn_free(struct conn **conn)
{
	struct conn *c = *conn;
	struct sender *s = c->s;

	*conn = NULL;
	if (c->state == CONN_IDLE)
		TAILQ_REMOVE(&c->dest->idle, c, idle_next);
	TAILQ_REMOVE(&s->conns, c, next);
	s->nconns--;
	if (c->job)
		c->job->conn = NULL;
	session_auth_end(c);
	ev_timer_free(&c->timer);
	if (c->readable)
		event_free(c->readable);
	if (c->writable)
		event_free(c->writable);
	tls_conn_free(&c->tls);
	free(c->names);
	client_free(&c->client);
	if (c->fd >= 0)
		close(c->fd);
	dest_release(s, &c->dest);
	free(c);
}

/* --- time limits --- */

static int64_t
open_limit(const struct conn *c, const struct conf *conf)
{
	switch (client_waiting(c->client)) {
	case CLIENT_CMD_STARTTLS:
		return conf->smtp_starttls_timeout;
	case CLIENT_CMD_MAIL:
		return conf->smtp_mail_timeout;
	case CLIENT_CMD_RCPT:
		return conf->smtp_rcpt_timeout;
	case CLIENT_CMD_DATA:
		return conf->smtp_data_init_timeout;
	case CLIENT_CMD_CONTENT:
		return conf->smtp_data_xfer_timeout;
	case CLIENT_CMD_FINAL:
		return buf_len(client_output(c->client)) ? conf->smtp_data_xfer_timeout
							 : conf->smtp_data_done_timeout;
	case CLIENT_CMD_RSET:
		return conf->smtp_rset_timeout;
	default:
		return conf->smtp_helo_timeout;
	}
}

static void
on_timer(void *ctx)
{
	struct conn *c = ctx;

	switch (c->state) {
	case CONN_IDLE:
		conn_quit(c);
		break;
	case CONN_QUIT:
		conn_free(&c);
		break;
	case CONN_CONNECT:
		session_lost(c, "4.4.1", "connect to %s: connection timed out", c->remote);
		break;
	default:
		session_lost(c, "4.4.2", "conversation with %s timed out while waiting for %s",
		    c->remote, c->client ? client_command_str(client_waiting(c->client)) : "TLS");
		break;
	}
}

static int64_t
age_ms(const struct conn *c)
{
	return (ev_now_us() - c->begun_us) / 1000;
}

void
conn_timer(struct conn *c)
{
	const struct conf *conf = c->s->d->conf;
	int64_t ms;

	switch (c->state) {
	case CONN_CONNECT:
		ms = conf->smtp_connect_timeout;
		break;
	case CONN_HANDSHAKE:
		ms = conf->smtp_starttls_timeout;
		break;
	case CONN_IDLE: /* no longer than the life of a connection that is reused */
		ms = conf->smtp_connection_reuse_time_limit - age_ms(c);
		if (ms > conf->smtp_connection_cache_time_limit)
			ms = conf->smtp_connection_cache_time_limit;
		break;
	case CONN_QUIT:
		ms = conf->smtp_quit_timeout;
		break;
	default:
		ms = open_limit(c, conf);
		break;
	}
	c->moved = false;
	c->replies = c->client ? client_replies(c->client) : 0;
	ev_timer_set(c->s->d->base, &c->timer, ms, on_timer, c);
}

void
conn_still_waits(struct conn *c)
{
	if (c->moved || client_replies(c->client) != c->replies)
		conn_timer(c);
}

/* --- bytes --- */

void
conn_want_write(struct conn *c)
{
	if (!event_pending(c->writable, EV_WRITE, NULL))
		event_add(c->writable, NULL);
}

/* The peer takes no more; what it said before it went may tell why. The engine has it then, and the
 * end of the connection. */
static bool
last_words(struct conn *c)
{
	unsigned char bytes[READ_SIZE];
	ssize_t n = c->tls ? 0 : recv(c->fd, bytes, sizeof(bytes), 0);

	if (n <= 0)
		return false;
	client_feed(c->client, slice(bytes, (size_t)n));
	client_eof(c->client);
	buf_clear(client_output(c->client));
	return true;
}

bool
conn_flush(struct conn *c)
{
	struct buf *out = client_output(c->client);

	while (buf_len(out)) {
		ptrdiff_t n = c->tls ? tls_write_buf(c->tls, out) : buf_write(out, c->fd);

		if (n == TLS_WANT_WRITE || n == -EAGAIN) {
			conn_want_write(c);
			return true;
		}
		if (n == TLS_WANT_READ)
			return true;
		c->moved = true;
		if (n < 0) {
			if (last_words(c))
				return true;
			session_lost(c, "4.4.2", "lost connection with %s while sending %s: %s",
			    c->remote, client_command_str(client_waiting(c->client)),
			    err_str((int)n));
			return false;
		}
	}
	return true;
}

void
conn_read(struct conn *c)
{
	unsigned char bytes[READ_SIZE];

	for (int turns = 0; turns < 4; turns++) {
		ptrdiff_t n = c->tls ? tls_read(c->tls, bytes, sizeof(bytes))
				     : recv(c->fd, bytes, sizeof(bytes), 0);

		if (n < 0 && !c->tls && (errno == EAGAIN || errno == EINTR))
			break;
		if (n == TLS_WANT_READ)
			break;
		if (n == TLS_WANT_WRITE) {
			conn_want_write(c);
			break;
		}
		if (n <= 0) {
			client_eof(c->client);
			break;
		}
		client_feed(c->client, slice(bytes, (size_t)n));
		if (c->tls ? !tls_pending(c->tls) : n < READ_SIZE)
			break;
	}
	session_run(c);
}

/* --- events --- */

static uint16_t
local_port(int fd)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} a = { 0 };
	socklen_t n = sizeof(a);

	if (getsockname(fd, &a.any, &n))
		return 0;
	return ntohs(a.any.sa_family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
}

static void
connected(struct conn *c)
{
	int err = 0;
	socklen_t n = sizeof(err);

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &n))
		err = errno;
	if (err) {
		session_lost(c, "4.4.1", "connect to %s: %s", c->remote, err_str(-err));
		return;
	}
	event_add(c->readable, NULL);
	if (c->s->d->conf->log_level == CONF_LOG_LEVEL_DEBUG)
		c->local_port = local_port(c->fd);
	session_begin(c);
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	(void)fd;
	(void)what;
	ev_turn();
	if (c->state == CONN_HANDSHAKE)
		conn_handshake(c);
	else
		conn_read(c);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	(void)fd;
	(void)what;
	ev_turn();
	if (c->state == CONN_CONNECT)
		connected(c);
	else if (c->state == CONN_HANDSHAKE)
		conn_handshake(c);
	else if (conn_flush(c))
		session_run(c);
}

/* --- connect --- */

static const char *
source_of(bool v4, const struct conf *conf)
{
	return v4 ? conf->smtp_bind_address : conf->smtp_bind_address6;
}

static int
bind_source(int fd, bool v4, const struct conf *conf)
{
	const char *text = source_of(v4, conf);
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	char bare[64];
	int on = 1;

	if (!text[0])
		return 0;
	if (text[0] == '[' && !slice_copy(slice(text + 1, strlen(text) - 2), bare, sizeof(bare)))
		text = bare; /* [v6], as everywhere else in main.cf */
	(void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	if (inet_pton(v4 ? AF_INET : AF_INET6, text,
		v4 ? (void *)&in.sin_addr : (void *)&in6.sin6_addr) != 1)
		return -EINVAL;
	return bind(fd, v4 ? (struct sockaddr *)&in : (struct sockaddr *)&in6,
		   v4 ? sizeof(in) : sizeof(in6))
		   ? err_errno()
		   : 0;
}

static bool
is_v4(const struct conn *c)
{
	return !memcmp(c->to.address, mapped, sizeof(mapped));
}

/* source_r: it failed by the address that is to be ours. */
static int
start_connect(struct conn *c, uint16_t port, bool *source_r)
{
	bool v4 = is_v4(c);
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int on = 1, err;

	*source_r = false;
	memcpy(&in.sin_addr, c->to.address + 12, 4);
	memcpy(&in6.sin6_addr, c->to.address, 16);
	c->fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return err_errno();
	err = bind_source(c->fd, v4, c->s->d->conf);
	if (err) {
		*source_r = true;
		return err;
	}
	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(c->fd, v4 ? (struct sockaddr *)&in : (struct sockaddr *)&in6,
		v4 ? sizeof(in) : sizeof(in6)) &&
	    errno != EINPROGRESS) {
		/* a source that has no way there: that of the loopback, for instance */
		*source_r = errno == EINVAL && source_of(v4, c->s->d->conf)[0];
		return err_errno();
	}
	return 0;
}

static uint16_t
port_of(const struct job *j)
{
	const struct conf *conf = j->s->d->conf;

	return j->port ? j->port : (uint16_t)(j->lmtp ? conf->lmtp_tcp_port : conf->smtp_tcp_port);
}

/* No connection could be begun. What is our own fault is told as that, and 4.3. does not count
 * against the site. */
static void
not_begun(struct conn *c, uint16_t port, int err, bool source)
{
	bool v4 = is_v4(c);

	if (source) {
		c->job->our_fault = true;
		session_lost(c, "4.3.5",
		    "connect to %s: not from %s = %s: %s; make it an address of this machine that "
		    "leads there, or leave it out",
		    c->remote, v4 ? "smtp_bind_address" : "smtp_bind_address6",
		    source_of(v4, c->s->d->conf), err_str(err));
	} else if (err == -EACCES) {
		session_lost(c, "4.3.5",
		    "connect to %s: the jail of smtp-client has no port %u; add it to "
		    "smtp_client_ports and restart",
		    c->remote, port);
	} else if (err == -EMFILE || err == -ENFILE || err == -ENOMEM || err == -ENOBUFS) {
		session_lost(c, "4.3.0",
		    "connect to %s: %s here; raise the limits of open files and memory", c->remote,
		    err_str(err));
	} else {
		session_lost(c, "4.4.1", "connect to %s: %s", c->remote, err_str(err));
	}
}

void
conn_open(struct job *j, const struct candidate *to)
{
	struct sender *s = j->s;
	struct conn *c = xcalloc(1, sizeof(*c));
	char address[64];
	bool source;
	int err;

	*c = (struct conn){
		.s = s,
		.job = j,
		.dest = j->dest,
		.fd = -1,
		.to = *to,
		.begun_us = ev_now_us(),
		.reloads = s->reloads,
	};
	c->dest->users++;
	c->level = to->plain ? CONF_TLS_LEVEL_NONE : j->policy.level;
	j->conn = c;
	TAILQ_INSERT_TAIL(&s->conns, c, next);
	s->nconns++;
	route_address_text(to->address, address, sizeof(address));
	snprintf(c->remote, sizeof(c->remote), "%s[%s]:%u", to->host, address, port_of(j));
	err = start_connect(c, port_of(j), &source);
	if (err) {
		not_begun(c, port_of(j), err, source);
		return;
	}
	c->readable = event_new(s->d->base, c->fd, EV_READ | EV_PERSIST, on_readable, c);
	c->writable = event_new(s->d->base, c->fd, EV_WRITE, on_writable, c);
	event_add(c->writable, NULL);
	conn_timer(c);
}

/* --- reuse --- */

bool
conn_reuse(struct job *j)
{
	struct conn *c = TAILQ_FIRST(&j->dest->idle);

	if (!c)
		return false;
	TAILQ_REMOVE(&j->dest->idle, c, idle_next);
	c->state = CONN_OPEN;
	c->reused = c->moved = true;
	c->job = j;
	j->conn = c;
	j->s->reuses++;
	if (c->tls)
		snprintf(
		    j->tls, sizeof(j->tls), "%s with %s", c->tls_info.protocol, c->tls_info.cipher);
	session_send(c);
	session_run(c);
	return true;
}

void
conn_keep(struct conn *c)
{
	const struct conf *conf = c->s->d->conf;

	conn_save_session(c);
	/* What was opened under other parameters may lack what they demand now, TLS above all. */
	if (c->s->d->stopping || c->reloads != c->s->reloads ||
	    !conf->smtp_connection_cache_time_limit ||
	    age_ms(c) >= conf->smtp_connection_reuse_time_limit ||
	    (conf->smtp_connection_reuse_count_limit &&
		c->messages >= (unsigned)conf->smtp_connection_reuse_count_limit)) {
		conn_quit(c);
		return;
	}
	c->state = CONN_IDLE;
	TAILQ_INSERT_HEAD(&c->dest->idle, c, idle_next);
	conn_timer(c);
}

void
conn_quit(struct conn *c)
{
	if (c->state == CONN_IDLE)
		TAILQ_REMOVE(&c->dest->idle, c, idle_next);
	c->state = CONN_QUIT;
	if (!client_quit(c->client))
		conn_free(&c);
	else if (conn_flush(c))
		conn_timer(c);
}
