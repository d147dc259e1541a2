/*
 * Which services talk to which, and the socket pairs between them. A pair is made for each two
 * living processes of an edge, as soon as the younger one has been started; after a death the
 * survivor sees EOF and gets a new pair with the successor.
 */
#include "master/master.h"

#include <unistd.h>

static const struct {
	enum role a, b;
} edges[] = {
	{ ROLE_SMTPD, ROLE_QMGR },
	{ ROLE_SMTPD, ROLE_MAPS },
	{ ROLE_SMTPD, ROLE_DNS },
	{ ROLE_SMTPD, ROLE_AUTH },
	{ ROLE_SUBMISSION, ROLE_QMGR },
	{ ROLE_SUBMISSION, ROLE_MAPS },
	{ ROLE_SUBMISSION, ROLE_DNS },
	{ ROLE_SUBMISSION, ROLE_AUTH },
	{ ROLE_PICKUP, ROLE_QMGR },
	{ ROLE_PICKUP, ROLE_MAPS },
	{ ROLE_BOUNCE, ROLE_QMGR },
	{ ROLE_BOUNCE, ROLE_MAPS },
	{ ROLE_QMGR, ROLE_MAPS },
	{ ROLE_QMGR, ROLE_AUTH },
	{ ROLE_QMGR, ROLE_DNS },
	{ ROLE_QMGR, ROLE_LOCAL },
	{ ROLE_QMGR, ROLE_SMTP_CLIENT },
	{ ROLE_SMTP_CLIENT, ROLE_DNS },
	{ ROLE_SMTP_CLIENT, ROLE_AUTH },
	{ ROLE_SMTP_CLIENT, ROLE_MAPS },
	{ ROLE_LOGIN, ROLE_AUTH },
	{ ROLE_LOGIN, ROLE_BROKER },
	{ ROLE_BROKER, ROLE_AUTH },
	{ ROLE_BROKER, ROLE_IMAPD },
	{ ROLE_BROKER, ROLE_POP3D },
	{ ROLE_AUTH, ROLE_MAPS },
	{ ROLE_AUTH, ROLE_NSS },
	{ ROLE_AUTH, ROLE_PAM },
	{ ROLE_MAPS, ROLE_NSS },
};

static bool
is_edge(enum role a, enum role b)
{
	for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++)
		if ((edges[i].a == a && edges[i].b == b) || (edges[i].a == b && edges[i].b == a))
			return true;
	return false;
}

static void
give(struct process *p, enum role peer, int fd)
{
	struct msg m = MSG_INIT(MSG_LINK, 0);

	m.link.role = (uint8_t)peer;
	m.fd = fd;
	(void)ipc_send(p->chan, &m);
	close(fd);
}

void
links_connect(struct master *m, struct process *p)
{
	struct service *s;
	struct process *q;
	int fds[2];

	TAILQ_FOREACH(s, &m->services, next) {
		if (!is_edge(p->service->role, s->role))
			continue;
		TAILQ_FOREACH(q, &s->processes, next) {
			if (q == p || !q->chan)
				continue;
			if (ipc_pair(fds)) {
				log_event(LOG_link_failed,
				    "a=%s b=%s remedy=\"raise the limit of open files\"",
				    p->service->name, s->name);
				return;
			}
			give(p, s->role, fds[0]);
			give(q, p->service->role, fds[1]);
		}
	}
}
