/*
 * The daemon's callbacks: start, messages, links, reload, stop. Runs in smtp-client. Invariant: an
 * answer of a peer is looked up by its id and its role, and a job is only taken from qmgr (lib/ipc
 * sees to that).
 */
#include "sender.h"

#include <stdlib.h>

static void
collect_ports(struct sender *s)
{
	const struct conf_list *words = &s->d->conf->smtp_client_ports;
	uint64_t port;

	s->nports = conf_client_ports(s->d->conf, s->ports, sizeof(s->ports) / sizeof(*s->ports));
	for (size_t i = 0; i < words->n; i++)
		if (slice_u64(slice_str(words->v[i]), 65535, &port))
			log_event(LOG_smtp_ports,
			    "word=%s reason=\"no port number\" remedy=\"mend smtp_client_ports\"",
			    log_cstr(words->v[i]));
}

static int
sender_init(struct daemon *d)
{
	struct sender *s = xcalloc(1, sizeof(*s));

	s->d = d;
	d->ctx = s;
	TAILQ_INIT(&s->jobs);
	TAILQ_INIT(&s->conns);
	TAILQ_INIT(&s->unused);
	collect_ports(s);
	d->ports = s->ports;
	d->nports = s->nports;
	if (d->conf->smtp_tls_security_level == CONF_TLS_LEVEL_DANE ||
	    d->conf->smtp_tls_security_level == CONF_TLS_LEVEL_DANE_ONLY)
		log_event(LOG_smtp_tls_level,
		    "level=dane reason=\"DANE is not there yet\" remedy=\"dane is treated as may; "
		    "mail under dane-only waits\"");
	return policy_tls_init(s);
}

static void
quit_idle(struct sender *s)
{
	struct conn *c, *next;

	for (c = TAILQ_FIRST(&s->conns); c; c = next) {
		next = TAILQ_NEXT(c, next);
		if (c->state == CONN_IDLE)
			conn_quit(c);
	}
}

static void
sender_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct sender *s = d->ctx;

	switch (m->type) {
	case MSG_SEND_JOB:
		job_start(s, ch, m);
		break;
	case MSG_MAPS_CHANGED: /* a policy may demand TLS now that idle connections lack */
		s->reloads++;
		quit_idle(s);
		break;
	case MSG_MX_ANSWER:
	case MSG_DNS_RECORDS:
	case MSG_MAP_VALUE:
	case MSG_SASL_CLIENT_STEP:
		ask_take(s, ch, m);
		break;
	default:
		break;
	}
}

static void
sender_link_down(struct daemon *d, struct ipc_chan *ch)
{
	struct sender *s = d->ctx;

	if (ipc_chan_peer(ch) == ROLE_QMGR)
		job_forget_qmgr(s, ch);
	else
		ask_peer_gone(s, ch);
}

static void
sender_reload(struct daemon *d, const struct conf *old)
{
	static const char *const at_start[] = { "smtp_tls_CAfile", "smtp_tls_cert_file",
		"smtp_tls_key_file", "tls_minimum_version", "tls_ciphers" };
	struct sender *s = d->ctx;
	size_t before = s->nports;

	s->reloads++;
	quit_idle(s);
	collect_ports(s);
	if (s->nports > before)
		log_event(LOG_smtp_ports,
		    "reason=\"a jail cannot be widened while it stands\" remedy=\"restart the "
		    "suite to reach the new ports\"");
	s->nports = before;
	for (size_t i = 0; i < sizeof(at_start) / sizeof(at_start[0]); i++)
		if (conf_differs(d->conf, old, at_start[i]))
			log_event(LOG_smtp_tls_files,
			    "parameter=%s reason=\"it is read at the start only\" "
			    "remedy=\"restart the suite\"",
			    at_start[i]);
}

static void
sender_stop(struct daemon *d)
{
	struct sender *s = d->ctx;

	quit_idle(s);
	if (!s->njobs)
		daemon_exit(d);
}

static void
sender_status(struct daemon *d, struct buf *out)
{
	struct sender *s = d->ctx;

	buf_addf(out, "jobs=%zu connections=%zu sessions=%llu reused=%llu messages=%llu", s->njobs,
	    s->nconns, (unsigned long long)s->sessions, (unsigned long long)s->reuses,
	    (unsigned long long)s->messages);
}

const struct daemon_desc sender_desc = {
	.role = ROLE_SMTP_CLIENT,
	.init = sender_init,
	.message = sender_message,
	.link_down = sender_link_down,
	.reload = sender_reload,
	.stop = sender_stop,
	.status = sender_status,
};
