/*
 * smtpd: mail from strangers on port 25, and the LMTP server. The zygote runs as bh-smtpd without
 * capabilities and is the acceptor of its service; its children, same uid, hold the sessions
 * (lib/receive). Hostile: all of SMTP, TLS and LMTP that clients send, and how often they connect.
 * Which of the two protocols it speaks is the service's: service_protocol, or the name of its row
 * in master.cf.
 */
#include "receive/service.h"

static struct service service;

static bool
is_lmtp(const struct daemon *d)
{
	if (d->conf->service_protocol != CONF_SERVICE_PROTOCOL_AUTO)
		return d->conf->service_protocol == CONF_SERVICE_PROTOCOL_LMTP;
	return slice_has_prefix(slice_str(d->service), "lmtp") ||
	       slice_eq_str(slice_str(d->service), "24") ||
	       slice_has_suffix(slice_str(d->service), ":24");
}

static int
init(struct daemon *d)
{
	return service_init(d, &service, is_lmtp(d) ? SMTP_LMTP : SMTP_SMTPD);
}

static int64_t
sessions_per_process(const struct conf *c)
{
	return service.kind == SMTP_LMTP ? c->lmtp_sessions_per_process
					 : c->smtpd_sessions_per_process;
}

static const struct daemon_desc child = {
	.role = ROLE_SMTPD_CHILD,
	SERVICE_CHILD,
};

static const struct acceptor_desc acceptor = {
	.daemon = { .role = ROLE_SMTPD,
	    .nice = NICE_RECEIVER,
	    .init = init,
	    .reload = service_reload },
	.child = &child,
	.peers = { ROLE_QMGR, ROLE_MAPS, ROLE_DNS, ROLE_AUTH },
	.npeers = 4,
	.sessions_per_process = sessions_per_process,
	.refusal = service_refusal,
	.tls = service_tls,
};

int
main(int argc, char **argv)
{
	return acceptor_run(argc, argv, &acceptor);
}
