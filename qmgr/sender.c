/*
 * Senders that are not a login's own address: smtpd_sender_login_maps tells which logins may use
 * them. Runs in qmgr; asks maps for the sender, then without its extension, then for its domain;
 * the first entry that is there decides. Hostile: the sender, which a user chose. A message waits
 * here (m->routing) until maps has answered; what a dead maps was asked is asked of its successor.
 */
#include "qmgr/qmgr.h"

#include <stdlib.h>

struct sender_question {
	TAILQ_ENTRY(sender_question) link;
	uint32_t id;
	struct message *msg;
	unsigned int step; /* 0 the address, 1 without its extension, 2 its domain */
	char *user;
};

static void
refuse(struct qmgr *q, struct message *m, struct slice user)
{
	log_event(LOG_sender_refused,
	    "qid=%s user=%s sender=%s reason=\"not an address of this login\"", m->name,
	    log_value(user), log_value(m->env.sender));
	receive_checked(
	    q, m, SLICE_NULL, 553, "5.7.1", "Sender address is not owned by this login");
}

/* What is asked at this step; empty: nothing. */
static struct slice
key_of(struct qmgr *q, struct sender_question *x, struct arena *arena)
{
	struct slice sender = x->msg->env.sender;
	const char *delimiters = q->d->conf->recipient_delimiter;
	ptrdiff_t at = slice_rfind(sender, '@');
	struct slice local = slice_sub(sender, 0, at < 0 ? SIZE_MAX : (size_t)at);
	struct slice domain = at < 0 ? SLICE_NULL : slice_sub(sender, (size_t)at, SIZE_MAX);

	if (x->step == 0)
		return sender;
	if (x->step == 2)
		return domain;
	for (size_t i = 1; delimiters && i < local.n; i++)
		if (local.p[i] && strchr(delimiters, local.p[i]))
			return slice_str(arena_printf(arena, "%.*s%.*s",
			    SLICE_ARG(slice_sub(local, 0, i)), SLICE_ARG(domain)));
	return SLICE_NULL;
}

/* Asks what is next; false: there is nothing more to ask. */
static bool
ask(struct qmgr *q, struct sender_question *x)
{
	struct msg m = MSG_INIT(MSG_MAP_GET, x->id);
	struct arena arena = { 0 };

	while (x->step <= 2 && !(m.map_get.key = key_of(q, x, &arena)).n)
		x->step++;
	m.map_get.table = SLICE_LIT("smtpd_sender_login_maps");
	if (x->step <= 2)
		(void)daemon_send(q->d, ROLE_MAPS, &m);
	arena_free(&arena);
	return x->step <= 2;
}

void
sender_judge(struct qmgr *q, struct message *m, struct slice user)
{
	struct sender_question *x;

	if (!q->d->conf->smtpd_sender_login_maps.n || !m->env.sender.n) {
		refuse(q, m, user);
		return;
	}
	x = xcalloc(1, sizeof(*x));
	x->id = ++q->next_id;
	x->msg = m;
	x->user = slice_dup(user);
	TAILQ_INSERT_TAIL(&q->senders, x, link);
	m->routing++; /* holds the message */
	(void)ask(q, x);
}

static bool
names(struct slice logins, const char *user)
{
	while (logins.n) {
		size_t n = 0;

		while (n < logins.n && !strchr(", \t", logins.p[n]))
			n++;
		if (n && slice_caseeq_str(slice_sub(logins, 0, n), user))
			return true;
		logins = slice_sub(logins, n + 1, SIZE_MAX);
	}
	return false;
}

void
sender_answer(struct qmgr *q, const struct msg *msg)
{
	const struct msg_map_value *v = &msg->map_value;
	struct sender_question *x;
	struct message *m;

	TAILQ_FOREACH(x, &q->senders, link)
		if (x->id == msg->id)
			break;
	if (!x)
		return;
	if (v->status == 1 && (x->step++, ask(q, x)))
		return;
	TAILQ_REMOVE(&q->senders, x, link);
	m = x->msg;
	message_pin(q, m);
	m->routing--;
	if (v->status > 1)
		receive_checked(q, m, SLICE_NULL, 451, "4.3.0", "Temporary lookup failure");
	else if (v->status == 0 && names(v->value, x->user))
		receive_checked(q, m, slice_str(x->user), 0, NULL, NULL);
	else
		refuse(q, m, slice_str(x->user));
	message_unpin(q, m);
	free(x->user);
	free(x);
	deliver_pump(q);
}

void
sender_link_up(struct qmgr *q)
{
	struct sender_question *x;

	TAILQ_FOREACH(x, &q->senders, link)
		(void)ask(q, x);
}
