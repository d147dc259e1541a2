/*
 * submission: mail from our own users on ports 587 and 465 and on the local socket of sendmail(1).
 * The zygote runs as bh-submit without capabilities and is the acceptor of its service; its
 * children, same uid, hold the sessions (lib/receive). Hostile: users' SMTP and TLS, and every
 * local process that may reach the socket. Users of the local socket are known by the kernel's word
 * for their uid; who of them may submit is looked up by name here, before the jail.
 */
#include "receive/service.h"

#include <pwd.h>

static struct service service;

/* authorized_submit_users: names, !names, static:anyone. */
static void
find_users(struct daemon *d)
{
	const struct conf_list *l = &d->conf->authorized_submit_users;

	for (size_t i = 0; i < l->n; i++) {
		bool no = l->v[i][0] == '!';
		const struct passwd *pw;
		if (!strcmp(l->v[i], "static:anyone")) {
			service.anyone = true;
			continue;
		}
		pw = getpwnam(l->v[i] + no);
		if (!pw) {
			log_event(LOG_submit_user,
			    "name=%s reason=\"no such user\" remedy=\"correct "
			    "authorized_submit_users\"",
			    log_cstr(l->v[i]));
			continue;
		}
		if (service.n_submit == sizeof(service.submit) / sizeof(service.submit[0]))
			break;
		service.submit[service.n_submit].uid = pw->pw_uid;
		service.submit[service.n_submit++].no = no;
	}
}

static int
init(struct daemon *d)
{
	find_users(d);
	return service_init(d, &service, SMTP_SUBMISSION);
}

/* Users are looked up before the jail: a successor does it; the sessions under way live on. */
static void
reload(struct daemon *d, const struct conf *old)
{
	service_reload(d, old);
	if (conf_differs(d->conf, old, "authorized_submit_users"))
		daemon_renew(d);
}

static int64_t
sessions_per_process(const struct conf *c)
{
	return c->submission_sessions_per_process;
}

static const struct daemon_desc child = {
	.role = ROLE_SUBMISSION_CHILD,
	SERVICE_CHILD,
};

static const struct acceptor_desc acceptor = {
	.daemon = { .role = ROLE_SUBMISSION,
	    .nice = NICE_RECEIVER,
	    .init = init,
	    .reload = reload },
	.child = &child,
	.peers = { ROLE_QMGR, ROLE_MAPS, ROLE_AUTH },
	.npeers = 3,
	.sessions_per_process = sessions_per_process,
	.refusal = service_refusal,
	.tls = service_tls,
};

int
main(int argc, char **argv)
{
	return acceptor_run(argc, argv, &acceptor);
}
