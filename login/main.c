/*
 * login (uid bh-login, empty root): the TLS and login front of IMAP and POP3. This process is the
 * acceptor; its children (login-child) hold the clients. One row of master.cf is one protocol and
 * one kind of TLS. Hostile: clients, met in client.c and pump.c. No child opens a path, makes a
 * socket, or can name a user that auth has not confirmed.
 */
#include "login/login.h"
#include "imap/login.h"
#include "pop3/login.h"

#include <stdio.h>
#include <stdlib.h>

/* --- certificates and keys, in the acceptor and in its children --- */

static void
take_tls(struct service *s, const struct daemon *d, const struct msg *m, bool warm)
{
	char error[256];
	int err;

	if (m->type == MSG_TLS_TICKET_KEYS) {
		if (tls_serving_keys(s->tls, m->tls_ticket_keys.keys) < 0)
			log_event(LOG_ticket_keys, "service=%s reason=\"malformed\"",
			    log_cstr(d->service));
		return;
	}
	err = tls_serving_certificate(s->tls, m->tls_certificate.index, m->tls_certificate.count,
	    m->tls_certificate.name, m->tls_certificate.chain, m->tls_certificate.key, error,
	    sizeof(error));
	if (err < 0)
		log_event(LOG_certificate_unusable,
		    "service=%s reason=%s remedy=\"see smtpd_tls_cert_file; the former certificate "
		    "stays in use\"",
		    log_cstr(d->service), log_cstr(error));
	else if (err == 1 && error[0])
		log_event(LOG_certificate_left_out,
		    "service=%s reason=%s remedy=\"correct tls_server_sni_maps or "
		    "smtpd_tls_chain_files and reload\"",
		    log_cstr(d->service), log_cstr(error));
	if (err == 1 && warm)
		tls_server_warm(tls_serving_ctx(s->tls));
}

static void
acceptor_tls(struct daemon *d, const struct msg *m)
{
	take_tls(d->ctx, d, m, true);
}

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
		take_tls(s, d, m, false);
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
		else if (c->state != CLIENT_CLOSING)
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

/* Before the jail. */
static int
read_authorities(struct daemon *d, struct buf *out)
{
	const char *file = d->conf->smtpd_tls_CAfile;
	int err = file && *file ? tls_read_file(file, out) : ERR_NOT_FOUND;

	if (err)
		log_event(LOG_authorities,
		    "service=%s file=%s reason=\"%s\" remedy=\"auth_external needs "
		    "smtpd_tls_CAfile\"",
		    log_cstr(d->service), log_cstr(file ? file : ""), err_str(err));
	return err;
}

static struct tls_server_opts
tls_options(struct service *s, const struct daemon *d)
{
	const struct conf *conf = d->conf;

	free(s->ciphers);
	s->ciphers = xstrdup(conf->tls_ciphers);
	return (struct tls_server_opts){
		.service = s->name,
		.alpn = s->protocol->name,
		.ciphers = s->ciphers,
		.ticket_lifetime = (unsigned)(conf->tls_session_lifetime / 1000),
		.min_version = conf->tls_minimum_version == CONF_TLS_VERSION_TLS1_3
				   ? TLS_VERSION_1_3
				   : TLS_VERSION_1_2,
		.read_ahead = true,
		.ask_client_cert = conf->auth_external && buf_len(&s->authorities) > 0,
		.client_ca = buf_slice(&s->authorities),
	};
}

static int
init(struct daemon *d)
{
	struct service *s = xcalloc(1, sizeof(*s));
	struct tls_server_opts opts;
	int err = 0;

	s->protocol = is_pop3(d) ? &pop3_login : &imap_login;
	s->wrapped = d->conf->smtpd_tls_wrappermode;
	s->name = xstrdup(d->service);
	s->d = d;
	TAILQ_INIT(&s->clients);
	d->ctx = s;
	if (d->conf->auth_external)
		err = read_authorities(d, &s->authorities);
	opts = tls_options(s, d);
	s->tls = tls_serving_new(&opts);
	return err;
}

/* New values hold for the certificates that master sends after the configuration, and for new
 * clients. */
static void
reload(struct daemon *d, const struct conf *old)
{
	struct service *s = d->ctx;
	struct tls_server_opts opts = tls_options(s, d);

	(void)old;
	s->wrapped = d->conf->smtpd_tls_wrappermode;
	tls_serving_options(s->tls, &opts);
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
