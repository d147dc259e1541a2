/*
 * login (uid bh-login, empty root): the TLS and login front of IMAP and POP3. This process is the
 * acceptor; its children (login-child) hold the clients. One row of master.cf is one protocol and
 * one kind of TLS. Hostile: clients, met in client.c and pump.c. No child opens a path, makes a
 * socket, or can name a user that auth has not confirmed.
 */
#include "login/login.h"
#include "imap/login.h"
#include "pop3/login.h"

#include <stdlib.h>

/* --- the children --- */

static int
child_start(struct daemon *d)
{
	struct service *s = d->ctx;

	s->d = d;
	return 0;
}

static void
child_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct service *s = d->ctx;
	int fd;

	(void)ch;
	switch (m->type) {
	case MSG_CONNECTION:
		fd = m->fd;
		m->fd = -1;
		client_new(s, &m->connection, fd);
		break;
	case MSG_TLS_CERTIFICATE:
	case MSG_TLS_TICKET_KEYS:
		tls_set_message(&s->tls, m, false);
		break;
	case MSG_AUTH_CHALLENGE:
	case MSG_AUTH_DONE:
		client_auth_answer(s, m);
		break;
	case MSG_SESSION_OPENED:
		client_session_opened(s, m);
		break;
	default:
		break;
	}
}

static void
child_link_down(struct daemon *d, struct ipc_chan *ch)
{
	client_peer_down(d->ctx, ipc_chan_peer(ch));
}

/* Who has not logged in is sent away, sessions are wound up. At an upgrade nobody is told to stop.
 */
static void
child_stop(struct daemon *d)
{
	struct service *s = d->ctx;
	struct client *c, *after;

	for (c = TAILQ_FIRST(&s->clients); c; c = after) {
		after = TAILQ_NEXT(c, next);
		if (c->state == CLIENT_PUMP)
			pump_stop(c);
		else if (c->state != CLIENT_CLOSING && c->state != CLIENT_LINGER)
			client_stop(c, "Server is shutting down");
	}
}

/* --- the acceptor --- */

static bool
is_pop3(const struct daemon *d)
{
	static const char *const names[] = { "pop3", "pop3s", "110", "995" };
	const char *port = strrchr(d->service, ':');

	if (d->conf->service_protocol != CONF_SERVICE_PROTOCOL_AUTO)
		return d->conf->service_protocol == CONF_SERVICE_PROTOCOL_POP3;
	port = port ? port + 1 : d->service;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(port, names[i]) == 0)
			return true;
	return false;
}

static int
init(struct daemon *d)
{
	struct service *s = xcalloc(1, sizeof(*s));

	s->protocol = is_pop3(d) ? &pop3_login : &imap_login;
	s->wrapped = d->conf->smtpd_tls_wrappermode;
	s->d = d;
	TAILQ_INIT(&s->clients);
	d->ctx = s;
	return tls_set_init(&s->tls, d->service, s->protocol->name, d->conf, true);
}

/* New values hold for the certificates that master sends after the configuration, and for new
 * clients. */
static void
reload(struct daemon *d, const struct conf *old)
{
	struct service *s = d->ctx;

	(void)old;
	s->wrapped = d->conf->smtpd_tls_wrappermode;
	tls_set_reload(&s->tls, d->conf);
}

/* Certificates and ticket keys. */
static void
acceptor_tls(struct daemon *d, const struct msg *m)
{
	struct service *s = d->ctx;

	tls_set_message(&s->tls, m, true);
}

static int64_t
sessions_per_process(const struct conf *conf)
{
	return conf->login_sessions_per_process;
}

static const char *
refusal(struct daemon *d, unsigned listener)
{
	const struct service *s = d->ctx;

	(void)listener;
	return s->wrapped ? NULL : s->protocol->too_many;
}

int
main(int argc, char **argv)
{
	static const struct daemon_desc child = { .role = ROLE_LOGIN_CHILD,
		.start = child_start,
		.message = child_message,
		.link_down = child_link_down,
		.stop = child_stop };
	static const struct acceptor_desc desc = {
		.daemon = { .role = ROLE_LOGIN, .init = init, .reload = reload },
		.child = &child,
		.peers = { ROLE_AUTH, ROLE_BROKER },
		.npeers = 2,
		.sessions_per_process = sessions_per_process,
		.refusal = refusal,
		.tls = acceptor_tls
	};

	return acceptor_run(argc, argv, &desc);
}
