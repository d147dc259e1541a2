/*
 * Which services talk to which, and the socket pairs between them. A pair is made for each two
 * living processes of an edge, as soon as the younger one has been started. After a death the
 * survivor sees EOF and gets a new pair with the successor. Where both live, because one of them
 * shut the other out for a fault, they get a new pair after a pause, which grows for those who do
 * it again and again. Runs as root. Hostile: a daemon that was taken over; it can name no pair but
 * its own, and what it costs its peer is no more than closing its end does.
 */
#include "master/master.h"

#include <stdlib.h>
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
give(struct process *p, const struct process *peer, uint32_t pair, uint32_t replaces, int fd)
{
	struct msg m = MSG_INIT(MSG_LINK, 0);

	m.link.role = (uint8_t)peer->service->role;
	m.link.pair = pair;
	m.link.replaces = replaces;
	m.fd = fd;
	if (p->chan)
		(void)ipc_send(p->chan, &m);
	close(fd);
}

static void join_later(struct pair *pair);

/* 0 is no pair's number. */
static uint32_t
next_number(struct master *m)
{
	if (!++m->last_pair)
		m->last_pair = 1;
	return m->last_pair;
}

static bool
join(struct pair *pair)
{
	struct master *m = pair->a->service->m;
	uint32_t before = pair->number;
	int fds[2];

	if (ipc_pair(fds)) {
		log_event(LOG_link_failed, "a=%s b=%s remedy=\"raise the limit of open files\"",
		    pair->a->service->name, pair->b->service->name);
		join_later(pair);
		return false;
	}
	pair->number = next_number(m);
	pair->made = master_now_ms();
	give(pair->a, pair->b, pair->number, before, fds[0]);
	give(pair->b, pair->a, pair->number, before, fds[1]);
	return true;
}

static void
join_again(void *arg)
{
	struct pair *pair = arg;

	if (!pair->a->chan || !pair->b->chan)
		return; /* on its way out: its end is reaped, however long that takes */
	if (!pair->a->service->m->stopping && join(pair))
		log_event(LOG_link_renewed, "a=%s b=%s after_ms=%lld times=%u",
		    pair->a->service->name, pair->b->service->name,
		    (long long)(pair->made - pair->lost), pair->failures);
}

static void
join_later(struct pair *pair)
{
	struct master *m = pair->a->service->m;

	ev_timer_set(m->base, &pair->again, backoff_ms(m, pair->failures++), join_again, pair);
}

void
links_connect(struct master *m, struct process *p)
{
	struct service *s;
	struct process *q;

	TAILQ_FOREACH(s, &m->services, next) {
		if (!is_edge(p->service->role, s->role))
			continue;
		TAILQ_FOREACH(q, &s->processes, next) {
			struct pair *pair;
			if (q == p || !q->chan)
				continue;
			pair = xcalloc(1, sizeof(*pair));
			pair->a = p;
			pair->b = q;
			LIST_INSERT_HEAD(&m->pairs, pair, next);
			(void)join(pair);
		}
	}
}

/* The second of both to tell names a pair that is none any more. Who died is reaped meanwhile. */
void
links_lost(struct master *m, const struct process *p, uint32_t number)
{
	struct pair *pair;

	LIST_FOREACH(pair, &m->pairs, next)
		if (pair->number == number && (pair->a == p || pair->b == p))
			break;
	if (!pair || (pair->again.event && evtimer_pending(pair->again.event, NULL)))
		return;
	pair->lost = master_now_ms();
	if (pair->lost - pair->made >= STEADY_MS)
		pair->failures = 0;
	join_later(pair);
}

void
links_forget_process(struct master *m, const struct process *p)
{
	struct pair *pair, *next;

	for (pair = LIST_FIRST(&m->pairs); pair; pair = next) {
		next = LIST_NEXT(pair, next);
		if (pair->a != p && pair->b != p)
			continue;
		LIST_REMOVE(pair, next);
		ev_timer_free(&pair->again);
		free(pair);
	}
}
