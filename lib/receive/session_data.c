/*
 * DATA to the verdict: the trace field, the content on its way to qmgr, the envelope, the reply.
 * Runs in the children of smtpd and submission; the content is hostile and passes through unread
 * but for what header_scan knows of it. Invariant: the engine gets one answer for each operation,
 * whatever becomes of the peers.
 */
#include "receive/head.h"
#include "receive/session.h"

#include "mail/date.h"
#include "smtp/trace.h"

#include <stdio.h>

/* --- DATA --- */

static void
add_trace(struct session *s)
{
	const struct conf *c = session_conf(s);
	struct smtp_tx *tx = smtp_server_tx(s->engine);
	struct buf text = { 0 };
	char literal[64], id[40], local[32];
	int64_t now = s->tx_began / 1000000;
	struct smtp_trace t = { .hello = smtp_server_hello(s->engine),
		.name = s->name,
		.address = literal,
		.tls = s->tls_text[0] ? s->tls_text : NULL,
		.hostname = c->myhostname,
		.mail_name = c->mail_name,
		.with = smtp_server_with(s->engine),
		.id = id,
		.time = now,
		.zone = date_local_zone(now) };

	smtp_trace_literal(s->client, literal);
	snprintf(id, sizeof(id), "%s.%u", s->id, s->tx_count);
	if (s->service->kind == SMTP_SUBMISSION && !c->submission_client_header)
		t.hello = SLICE_NULL;
	if (s->local) {
		snprintf(local, sizeof(local), "userid %u", s->uid);
		t.local = local;
	}
	if (tx->rcpt_count == 1)
		t.rcpt = STAILQ_FIRST(&tx->rcpts)->address;
	smtp_trace_format(&text, &t);
	s->trace_length = buf_len(&text);
	(void)mail_add(&s->mail, buf_slice(&text));
	buf_free(&text);
}

void
session_content_begin(struct session *s)
{
	s->wait = WAIT_FOR_NOTHING;
	s->window_used = 0;
	s->window_bytes = 0;
	s->head_done = false;
	mail_begin(&s->mail);
	s->mail.hold_in_memory = true;
	add_trace(s);
	smtp_server_answer_data(s->engine, NULL);
}

static void
accept_data(struct session *s)
{
	if (!turn_waits(s))
		session_content_begin(s);
}

static void
on_bcc(void *ctx, const struct rcpt_answer *a)
{
	struct session *s = ctx;
	struct smtp_tx *tx = smtp_server_tx(s->engine);

	session_enter(s);
	if (reply_is_good(&a->reply))
		s->bcc = session_keep_finals(tx, a);
	else
		log_event(LOG_always_bcc,
		    "sid=%s address=%s reason=%s remedy=\"correct always_bcc\"", s->id,
		    log_cstr(session_conf(s)->always_bcc), log_value(a->reply.text));
	if (a->reply.code / 100 == 4) {
		s->wait = WAIT_FOR_NOTHING;
		smtp_server_answer_data(s->engine, &a->reply);
	} else {
		accept_data(s);
	}
	session_leave(s);
}

void
session_data_begin(void *ctx, struct smtp_server *e)
{
	struct session *s = ctx;
	const struct conf *c = session_conf(s);

	if (!s->service->d->peers[ROLE_QMGR]) {
		smtp_server_answer_data(
		    e, &REPLY(451, "4.3.0", "Error: the queue is not available, try again later"));
		return;
	}
	if (!c->always_bcc[0]) {
		accept_data(s);
		return;
	}
	session_waits(s, WAIT_FOR_BCC);
	rcpt_ask(&s->service->receiver, &s->question, &smtp_server_tx(e)->arena,
	    slice_str(c->always_bcc), smtp_server_tx(e)->sender, s->client,
	    RCPT_MAY_RELAY | RCPT_LOCAL, on_bcc, s);
}

static void
complete_head(struct session *s)
{
	char id[60];
	struct head head = { .scan = &smtp_server_tx(s->engine)->header,
		.at = s->trace_length,
		.began = s->tx_began,
		.id = id };

	s->head_done = true;
	snprintf(id, sizeof(id), "%s.%u", s->id, s->tx_count);
	mail_complete_head(&s->mail, &head, s->service->kind == SMTP_SUBMISSION);
}

static void
pass_failure(struct session *s)
{
	const struct reply *r = mail_failure(&s->mail);

	if (r)
		smtp_server_fail_data(s->engine, r);
}

void
session_data_bytes(void *ctx, struct smtp_server *e, struct slice bytes)
{
	struct session *s = ctx;
	const struct header_scan *h = &smtp_server_tx(e)->header;
	bool more = mail_add(&s->mail, bytes);

	/* only a submitted message may need something at its head once its first field is known */
	if (!s->head_done && (h->done || (h->fields && s->service->kind != SMTP_SUBMISSION))) {
		complete_head(s);
		more = more && !s->mail.wait;
	}
	pass_failure(s);
	if (!more) {
		session_waits(s, WAIT_FOR_ROOM);
		smtp_server_pause(e);
	}
}

/* --- the end of data --- */

static uint32_t
envelope_flags(const struct session *s, const struct smtp_tx *tx)
{
	uint32_t flags = 0;

	if (tx->body == SMTP_BODY_8BITMIME)
		flags |= MAIL_8BIT;
	if (tx->body == SMTP_BODY_BINARYMIME)
		flags |= MAIL_BINARY;
	if (tx->smtputf8)
		flags |= MAIL_UTF8;
	if (s->local)
		flags |= MAIL_LOCAL;
	if (smtp_server_authenticated(s->engine))
		flags |= MAIL_AUTHENTICATED;
	if (s->service->kind == SMTP_LMTP)
		flags |= MAIL_PER_RCPT;
	return flags;
}

static size_t
add_finals(struct mail_rcpt *out, size_t n, struct rcpt_finals *f, const struct mail_rcpt *like)
{
	struct cursor c = cursor(f->list);
	struct item_final_addr item;

	f->first = (uint32_t)n;
	while (item_final_addr_next(&c, &item)) {
		out[n] = *like;
		out[n++].address = item.address;
	}
	return n;
}

static struct mail_rcpt *
gather_rcpts(struct session *s, struct smtp_tx *tx, size_t *n_r)
{
	struct mail_rcpt *out = arena_alloc(&tx->arena,
	    (session_final_count(tx) + (s->bcc ? s->bcc->count : 0) + 1) * sizeof(*out));
	struct smtp_rcpt *rcpt;
	size_t n = 0;

	STAILQ_FOREACH(rcpt, &tx->rcpts, next) {
		struct mail_rcpt like = {
			.orcpt = rcpt->orcpt, .original = rcpt->address, .notify = rcpt->notify
		};
		n = add_finals(out, n, rcpt->user, &like);
	}
	if (s->bcc) {
		struct mail_rcpt like = { .original = slice_str(session_conf(s)->always_bcc),
			.notify = NOTIFY_NEVER };
		n = add_finals(out, n, s->bcc, &like);
	}
	*n_r = n;
	return out;
}

static void
send_envelope(struct session *s)
{
	struct smtp_tx *tx = smtp_server_tx(s->engine);
	char client[320];
	struct mail_envelope env = { .session = s->id,
		.client = slice_str(client),
		.sender = tx->sender,
		.flags = envelope_flags(s, tx),
		.ret = tx->ret,
		.envid = tx->envid,
		.token = slice(s->login_token, s->login_token_n),
		.arrival = (uint64_t)s->tx_began };

	snprintf(client, sizeof(client), "%s[%s]", s->name, s->client);
	env.rcpts = gather_rcpts(s, tx, &env.count);
	session_waits(s, WAIT_FOR_COMMIT);
	turn_commits(s);
	mail_commit(&s->mail, &env);
}

void
session_commit(void *ctx, struct smtp_server *e)
{
	struct session *s = ctx;

	(void)e;
	if (!s->head_done)
		complete_head(s);
	if (s->mail.state == MAIL_OPENING) {
		s->mail.wait = true;
		session_waits(s, WAIT_FOR_FILE);
		return;
	}
	send_envelope(s);
}

/* ready: the spool file is there, or will not be. */
static void
on_ready(void *ctx)
{
	struct session *s = ctx;

	session_enter(s);
	if (s->wait == WAIT_FOR_FILE) {
		send_envelope(s);
	} else {
		s->wait = WAIT_FOR_NOTHING;
		pass_failure(s);
		smtp_server_resume(s->engine);
	}
	session_leave(s);
}

/* LMTP: what became of one recipient, which may stand for several addresses. It has a reply of its
 * own when each of them is listed with the same status; the whole reply holds for the others. */
static struct reply
rcpt_reply(const struct rcpt_finals *f, const struct reply *whole, const struct msg_list *results)
{
	struct cursor c = cursor(results->raw);
	struct item_rcpt_result item, last = { 0 };
	uint32_t n = 0;

	while (item_rcpt_result_next(&c, &item)) {
		if (item.slot < f->first || item.slot - f->first >= f->count)
			continue;
		if (n++ && item.status != last.status)
			return *whole;
		last = item;
	}
	if (!n || n != f->count)
		return *whole;
	return (struct reply){ .code = last.status == RESULT_FAILED ? 550 : 250,
		.enhanced = last.enhanced,
		.text = last.text };
}

static void
answer_each(struct session *s, const struct reply *r, const struct msg_list *results)
{
	struct smtp_rcpt *rcpt = STAILQ_FIRST(&smtp_server_tx(s->engine)->rcpts), *next;

	/* the last answer ends the transaction, and one of 421 the session */
	for (; rcpt && !s->closing; rcpt = next) {
		struct reply each = rcpt_reply(rcpt->user, r, results);
		next = STAILQ_NEXT(rcpt, next);
		smtp_server_answer_commit_rcpt(s->engine, &each);
	}
}

static void
log_result(struct session *s, const struct reply *r, struct slice queue_id)
{
	struct smtp_tx *tx = smtp_server_tx(s->engine);

	if (reply_is_good(r)) {
		s->messages++;
		count(COUNT_messages_received, 1);
	} else {
		count(COUNT_messages_rejected, 1);
	}
	log_event(LOG_smtp_message,
	    "sid=%s qid=%s client=%s[%s] user=%s from=%s size=%llu nrcpt=%u with=%s code=%u "
	    "text=%s",
	    s->id, queue_id.n ? log_value(queue_id) : "-", s->name, s->client,
	    s->user[0] ? log_cstr(s->user) : "-", log_value(tx->sender),
	    (unsigned long long)tx->size, tx->rcpt_count, smtp_server_with(s->engine), r->code,
	    log_value(r->text));
}

static void
on_result(void *ctx, const struct reply *r, struct slice queue_id, const struct msg_list *results)
{
	struct session *s = ctx;
	struct reply good = { .code = 250, .enhanced = SLICE_LIT("2.0.0") };
	char text[64];

	session_enter(s);
	s->wait = WAIT_FOR_NOTHING;
	turn_leave(s);
	log_result(s, r, queue_id);
	if (reply_is_good(r)) {
		snprintf(text, sizeof(text), "Ok: queued as %.*s", SLICE_ARG(queue_id));
		good.text = queue_id.n ? slice_str(text) : SLICE_LIT("Ok");
		r = &good;
	}
	if (s->service->kind == SMTP_LMTP && results->n)
		answer_each(s, r, results);
	else
		smtp_server_answer_commit(s->engine, r);
	session_leave(s);
}

const struct mail_ops session_mail_ops = { .ready = on_ready, .result = on_result };

void
session_tx_end(void *ctx, struct smtp_server *e)
{
	struct session *s = ctx;

	(void)e;
	turn_leave(s);
	rcpt_cancel(&s->question);
	mail_abort(&s->mail);
	if (s->wait == WAIT_FOR_ROOM)
		s->wait = WAIT_FOR_NOTHING;
	s->bcc = NULL;
}

/* --- time is up --- */

void
session_wait_expired(struct session *s)
{
	const struct reply late =
	    REPLY(451, "4.3.0", "Error: no answer from inside, try again later");
	enum session_wait w = s->wait;

	if (w == WAIT_FOR_TURN) {
		turn_leave(s);
		session_content_begin(s);
		return;
	}
	log_event(LOG_peer_silent,
	    "sid=%s waiting=%d reason=\"no answer within policy_timeout\" remedy=\"look at the log "
	    "of that daemon\"",
	    s->id, (int)w);
	s->wait = WAIT_FOR_NOTHING;
	switch (w) {
	case WAIT_FOR_NAME:
		request_end(&s->name_request);
		s->name_known = true;
		session_name_done(s);
		break;
	case WAIT_FOR_RATE:
		request_end(&s->request);
		session_check_sender(s);
		break;
	case WAIT_FOR_SENDER:
		rcpt_cancel(&s->question);
		smtp_server_answer_mail(s->engine, &late);
		break;
	case WAIT_FOR_RCPT_RATE:
		request_end(&s->request);
		smtp_server_answer_rcpt(s->engine, &late);
		break;
	case WAIT_FOR_RCPT:
		rcpt_cancel(&s->question);
		smtp_server_answer_rcpt(s->engine, &late);
		break;
	case WAIT_FOR_BCC:
		rcpt_cancel(&s->question);
		smtp_server_answer_data(s->engine, &late);
		break;
	case WAIT_FOR_AUTH:
		request_end(&s->request);
		smtp_server_answer_auth_failed(
		    s->engine, &REPLY(454, "4.7.0", "Temporary authentication failure"));
		break;
	case WAIT_FOR_ROOM:
		mail_abort(&s->mail);
		smtp_server_fail_data(s->engine, &late);
		smtp_server_resume(s->engine);
		break;
	case WAIT_FOR_FILE:
	case WAIT_FOR_COMMIT:
		mail_abort(&s->mail);
		smtp_server_answer_commit(s->engine, &late);
		break;
	case WAIT_FOR_TURN:
	case WAIT_FOR_NOTHING:
		break;
	}
}
