/*
 * The callbacks of smtpd and submission, zygote and child. Runs in both, under the service's uid.
 * Invariants: the zygote reads no byte of a client; a child serves only connections that its zygote
 * sent it.
 */
#include "receive/service.h"

#include "receive/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int
service_init(struct daemon *d, struct service *s, enum smtp_service kind)
{
	const struct conf *c = d->conf;
	const char *name = kind == SMTP_SUBMISSION ? "submission"
			   : kind == SMTP_LMTP     ? "lmtp"
						   : "smtp";
	int64_t largest = c->message_size_limit ? c->message_size_limit + (2 << 20) : 0;

	s->kind = kind;
	TAILQ_INIT(&s->sessions);
	tzset(); /* reads the zone's file, which the jail will not let us */
	(void)time(NULL);
	d->file_limit = largest;
	d->ctx = s;
	return tls_set_init(&s->tls, name, NULL, c, kind == SMTP_SUBMISSION);
}

void
service_tls(struct daemon *d, const struct msg *m)
{
	struct service *s = d->ctx;

	tls_set_message(&s->tls, m, true);
}

void
service_reload(struct daemon *d, const struct conf *old)
{
	struct service *s = d->ctx;

	(void)old;
	tls_set_reload(&s->tls, d->conf);
}

const char *
service_refusal(struct daemon *d, unsigned listener)
{
	(void)listener;
	return d->conf->smtpd_tls_wrappermode ? NULL : "421 4.7.0 Error: too many connections\r\n";
}

int
service_child_start(struct daemon *d)
{
	struct service *s = d->ctx;

	s->d = d;
	s->policy = service_policy_new(d, s->kind);
	s->input = xmalloc(SERVICE_INPUT);
	receiver_init(&s->receiver, d);
	turn_init(s);
	return 0;
}

void
service_child_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct service *s = d->ctx;

	switch (m->type) {
	case MSG_CONNECTION:
		session_open(s, m);
		return;
	case MSG_TLS_CERTIFICATE:
	case MSG_TLS_TICKET_KEYS:
		tls_set_message(&s->tls, m, false);
		return;
	default:
		receiver_message(&s->receiver, ch, m);
	}
}

void
service_child_link_down(struct daemon *d, struct ipc_chan *ch)
{
	struct service *s = d->ctx;

	receiver_link_down(&s->receiver, ch);
}

/* Sessions go on under the policy that they began with. */
void
service_child_stop(struct daemon *d)
{
	struct service *s = d->ctx;
	struct session *ses, *next;

	if (TAILQ_EMPTY(&s->sessions)) {
		daemon_exit(d);
		return;
	}
	for (ses = TAILQ_FIRST(&s->sessions); ses; ses = next) {
		next = TAILQ_NEXT(ses, next);
		session_stop(ses); /* may free it; the last one ends the process */
	}
}

/* The zygote is gone: what is under way is finished, nothing new begins. */
void
service_child_orphaned(struct daemon *d)
{
	d->stopping = true;
	service_child_stop(d);
}
