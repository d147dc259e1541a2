/*
 * MAIL and RCPT: the engine's questions put to dns, maps and qmgr. Runs in the children of smtpd
 * and submission. Order: the client's name and its rate, the sender rewritten, then each recipient;
 * each answer comes back once or its time runs out (session_data.c has that and what follows).
 * Invariant: whatever the engine waits for is named in s->wait, so that the loss of a peer and the
 * timer find it.
 */
#include "receive/session.h"

#include <stdio.h>

#define NAME_SECONDS_MAX 600

/* --- the client's name --- */

static struct name_entry *
name_slot(struct session *s)
{
	unsigned h = 0;

	for (size_t i = 0; i < sizeof(s->address.b); i++)
		h = h * 31 + s->address.b[i];
	return &s->service->names[h % NAME_CACHE];
}

static void
take_name(struct session *s, uint8_t status, const char *name)
{
	s->name_known = true;
	if (!status && name[0])
		snprintf(s->name, sizeof(s->name), "%s", name);
}

static void
on_name(struct request *q, struct msg *m)
{
	struct session *s = q->ctx;
	struct name_entry *e = name_slot(s);

	request_end(q);
	session_enter(s);
	s->name_known = true;
	if (m && m->type == MSG_CLIENT_NAME_ANSWER && m->client_name_answer.status != 2) {
		uint32_t ttl = m->client_name_answer.ttl;
		*e = (struct name_entry){ .status = m->client_name_answer.status };
		memcpy(e->address, s->address.b, sizeof(e->address));
		e->until = ev_now_us() +
			   (int64_t)(ttl < NAME_SECONDS_MAX ? ttl : NAME_SECONDS_MAX) * 1000000;
		if (slice_copy(m->client_name_answer.name, e->name, sizeof(e->name)))
			e->name[0] = '\0';
		take_name(s, e->status, e->name);
	}
	if (s->wait == WAIT_FOR_NAME)
		session_name_done(s);
	session_leave(s);
}

void
session_ask_name(struct session *s)
{
	struct msg m = MSG_INIT(MSG_CLIENT_NAME, 0);
	struct name_entry *e = name_slot(s);

	if (s->service->kind != SMTP_SMTPD || !session_conf(s)->smtpd_peername_lookup)
		s->name_known = true;
	if (s->name_known)
		return;
	if (e->until > ev_now_us() && !memcmp(e->address, s->address.b, sizeof(e->address))) {
		take_name(s, e->status, e->name);
		return;
	}
	m.client_name.address = slice(&s->address, sizeof(s->address));
	if (request_send(&s->service->receiver, ROLE_DNS, &m, &s->name_request, on_name, s))
		s->name_known = true;
}

/* --- MAIL --- */

static bool
rewrites_senders(const struct conf *c)
{
	return c->sender_canonical_maps.n || c->canonical_maps.n || c->masquerade_domains.n;
}

static void
on_sender(void *ctx, const struct rcpt_answer *a)
{
	struct session *s = ctx;
	struct smtp_tx *tx = smtp_server_tx(s->engine);
	struct cursor c = cursor(a->finals);
	struct item_final_addr item;

	session_enter(s);
	s->wait = WAIT_FOR_NOTHING;
	if (!reply_is_good(&a->reply)) {
		smtp_server_answer_mail(s->engine, &a->reply);
	} else {
		if (item_final_addr_next(&c, &item))
			tx->sender = arena_dup(&tx->arena, item.address);
		smtp_server_answer_mail(s->engine, NULL);
	}
	session_leave(s);
}

void
session_check_sender(struct session *s)
{
	struct smtp_tx *tx = smtp_server_tx(s->engine);

	if (!tx->sender.n || !rewrites_senders(session_conf(s))) {
		s->wait = WAIT_FOR_NOTHING;
		smtp_server_answer_mail(s->engine, NULL);
		return;
	}
	session_waits(s, WAIT_FOR_SENDER);
	rcpt_ask(&s->service->receiver, &s->question, &tx->arena, tx->sender, SLICE_NULL, s->client,
	    RCPT_SENDER, on_sender, s);
}

static void
on_rate(struct request *q, struct msg *m)
{
	struct session *s = q->ctx;
	bool refused = m && m->type == MSG_RATE_ANSWER && !m->rate_answer.allowed;

	request_end(q);
	session_enter(s);
	s->wait = WAIT_FOR_NOTHING;
	if (refused)
		smtp_server_answer_mail(
		    s->engine, &REPLY_LIMIT(450, "4.7.1",
				   "Error: too much mail from this client, try again later",
				   "smtpd_client_message_rate_limit"));
	else
		session_check_sender(s);
	session_leave(s);
}

static bool
spared(const struct session *s)
{
	const struct conf_list *l = &session_conf(s)->smtpd_client_event_limit_exceptions;

	return s->local || inet_in_list(&s->address, l->v, l->n);
}

/* Asks qmgr to count one more; who counts as one client is as in the acceptor. */
static int
ask_rate(struct session *s, unsigned kind, enum session_wait w, request_done *done)
{
	unsigned bits = inet_is_v4(&s->address)
			    ? 128
			    : (unsigned)session_conf(s)->smtpd_client_ipv6_prefix_length;
	struct inet_addr key = inet_mask(&s->address, bits);
	struct msg m = MSG_INIT(MSG_RATE_CHECK, 0);
	char client[INET_TEXT];

	inet_format(&key, client);
	m.rate_check.client = slice_str(client);
	m.rate_check.kind = (uint8_t)kind;
	m.rate_check.n = 1;
	session_waits(s, w);
	return request_send(&s->service->receiver, ROLE_QMGR, &m, &s->request, done, s);
}

static void
check_rate(struct session *s)
{
	if (!session_conf(s)->smtpd_client_message_rate_limit || spared(s)) {
		session_check_sender(s);
		return;
	}
	if (ask_rate(s, 1, WAIT_FOR_RATE, on_rate))
		session_check_sender(s);
}

void
session_name_done(struct session *s)
{
	s->wait = WAIT_FOR_NOTHING;
	check_rate(s);
}

void
session_check_mail(void *ctx, struct smtp_server *e)
{
	struct session *s = ctx;
	int64_t limit = session_conf(s)->smtpd_session_message_limit;

	s->tx_count++;
	s->tx_began = ev_wall_us();
	s->bcc = NULL;
	if (limit && s->tx_count > (unsigned)limit && !s->local) {
		smtp_server_answer_mail(e,
		    &REPLY_LIMIT(421, "4.7.0", "Error: too many messages in one session, come back",
			"smtpd_session_message_limit"));
		return;
	}
	if (s->name_known)
		check_rate(s);
	else
		session_waits(s, WAIT_FOR_NAME);
}

/* --- RCPT --- */

struct rcpt_finals *
session_keep_finals(struct smtp_tx *tx, const struct rcpt_answer *a)
{
	struct rcpt_finals *f = arena_alloc(&tx->arena, sizeof(*f));

	f->list = arena_dup(&tx->arena, a->finals);
	f->count = a->count;
	return f;
}

/* How many addresses the envelope has so far. */
uint32_t
session_final_count(struct smtp_tx *tx)
{
	struct smtp_rcpt *rcpt;
	uint32_t n = 0;

	STAILQ_FOREACH(rcpt, &tx->rcpts, next) {
		struct rcpt_finals *f = rcpt->user;
		n += f->count;
	}
	return n;
}

static void
accept_rcpt(struct session *s)
{
	s->wait = WAIT_FOR_NOTHING;
	s->recipients++;
	smtp_server_answer_rcpt(s->engine, NULL);
}

static void
on_rcpt_rate(struct request *q, struct msg *m)
{
	struct session *s = q->ctx;

	request_end(q);
	session_enter(s);
	if (m && m->type == MSG_RATE_ANSWER && !m->rate_answer.allowed) {
		s->wait = WAIT_FOR_NOTHING;
		smtp_server_answer_rcpt(
		    s->engine, &REPLY_LIMIT(450, "4.7.1",
				   "Error: too many recipients from this client, try again later",
				   "smtpd_client_recipient_rate_limit"));
	} else {
		accept_rcpt(s);
	}
	session_leave(s);
}

static void
check_rcpt_rate(struct session *s)
{
	if (!session_conf(s)->smtpd_client_recipient_rate_limit || spared(s)) {
		accept_rcpt(s);
		return;
	}
	if (ask_rate(s, 2, WAIT_FOR_RCPT_RATE, on_rcpt_rate))
		accept_rcpt(s);
}

/* What the client wrote and what it stands for: the log and the queue know the latter only. */
static void
log_rewritten(struct session *s, struct slice address, const struct rcpt_answer *a)
{
	struct cursor c = cursor(a->finals);
	struct item_final_addr item;

	if (!item_final_addr_next(&c, &item) ||
	    (a->count == 1 && slice_caseeq(item.address, address)))
		return;
	log_event(LOG_smtp_recipient, "sid=%s orig_to=%s to=%s count=%u", s->id, log_value(address),
	    log_value(item.address), (unsigned)a->count);
}

static void
on_rcpt(void *ctx, const struct rcpt_answer *a)
{
	struct session *s = ctx;
	struct smtp_tx *tx = smtp_server_tx(s->engine);
	struct smtp_rcpt *rcpt = s->candidate;
	int64_t limit = session_conf(s)->smtpd_recipient_limit;

	session_enter(s);
	s->wait = WAIT_FOR_NOTHING;
	if (!reply_is_good(&a->reply)) {
		count(COUNT_recipients_rejected, 1);
		smtp_server_answer_rcpt(s->engine, &a->reply);
	} else if (limit && a->count > 1 && session_final_count(tx) + a->count > (uint64_t)limit) {
		/* an alias that is too large for the rest of the envelope is refused, never cut */
		smtp_server_answer_rcpt(
		    s->engine, &REPLY_LIMIT(452, "4.5.3", "Error: too many recipients",
				   "smtpd_recipient_limit"));
	} else {
		log_rewritten(s, rcpt->address, a);
		rcpt->user = session_keep_finals(tx, a);
		check_rcpt_rate(s);
	}
	session_leave(s);
}

static uint32_t
rcpt_flags(const struct session *s)
{
	if (s->local)
		return RCPT_MAY_RELAY | RCPT_LOCAL;
	if (smtp_server_authenticated(s->engine))
		return RCPT_MAY_RELAY;
	return s->trusted && s->service->kind != SMTP_LMTP ? RCPT_MAY_RELAY : 0;
}

void
session_check_rcpt(void *ctx, struct smtp_server *e, struct smtp_rcpt *rcpt)
{
	struct session *s = ctx;
	struct smtp_tx *tx = smtp_server_tx(e);

	s->candidate = rcpt;
	session_waits(s, WAIT_FOR_RCPT);
	rcpt_ask(&s->service->receiver, &s->question, &tx->arena, rcpt->address, tx->sender,
	    s->client, rcpt_flags(s), on_rcpt, s);
}
