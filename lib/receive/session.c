/*
 * The life of one client: opened from an acceptor's message, driven by bytes, answers and timers,
 * ended once. Runs in the children of smtpd and submission under their uids; the client is hostile.
 * Invariants: an entry from outside stands between session_enter and session_leave, and only the
 * outermost leave writes, closes or frees; a session is freed exactly once and its acceptor told.
 */
#include "receive/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LINGER_US 2000000
#define CLOSE_US 10000000
#define COMMIT_US 600000000 /* an answer that comes too late costs a duplicate, so wait long */

static void arm(struct session *s);

void
session_enter(struct session *s)
{
	s->depth++;
}

/* Nothing is under way and the client may be sent away. */
static bool
is_idle(const struct session *s)
{
	enum smtp_state state = smtp_server_state(s->engine);

	return s->wait == WAIT_FOR_NOTHING &&
	       (state == SMTP_CONNECTED || state == SMTP_HELLO || state == SMTP_READY);
}

static bool
is_over(const struct session *s)
{
	if (s->dead)
		return true;
	if (buf_len(smtp_server_output(s->engine)) && !s->held)
		return false;
	if (s->closing)
		return s->io != IO_LINGER;
	return s->eof && s->wait == WAIT_FOR_NOTHING && !s->held;
}

static bool
in_content(const struct session *s)
{
	enum smtp_state state = smtp_server_state(s->engine);

	return state == SMTP_DATA || state == SMTP_CHUNK;
}

/* What the client owes, it owes from our answer on: the time of a command begins with that, and
 * smtpd_min_data_rate is about the time in which content is owed: between two BDAT and while we
 * have no room for it none is. */
static void
watch_client(struct session *s)
{
	bool waits = s->wait != WAIT_FOR_NOTHING, now = in_content(s) && !waits;

	if (s->waited && !waits)
		s->last_input = ev_now_us();
	s->waited = waits;
	if (now && !s->in_content)
		s->window_start = ev_now_us() - s->window_used;
	else if (!now && s->in_content)
		s->window_used = ev_now_us() - s->window_start;
	s->in_content = now;
}

void
session_leave(struct session *s)
{
	if (--s->depth)
		return;
	if (s->stopping && !s->closing && is_idle(s)) {
		s->depth++;
		smtp_server_shutdown(
		    s->engine, &REPLY(421, "4.3.2", "Service is restarting, come back at once"));
		s->depth--;
	}
	watch_client(s);
	session_flush(s);
	if (is_over(s)) {
		session_free(s);
		return;
	}
	session_events(s);
	arm(s);
}

void
session_waits(struct session *s, enum session_wait w)
{
	s->wait = w;
	s->asked = ev_now_us();
}

/* --- timers --- */

static int64_t
ms(int64_t v)
{
	return v * 1000;
}

static int64_t
wait_deadline(const struct session *s)
{
	const struct conf *c = session_conf(s);
	int64_t us = ms(s->wait == WAIT_FOR_TURN ? c->commit_turn_time : c->policy_timeout);

	if (s->wait == WAIT_FOR_COMMIT && us < COMMIT_US)
		us = COMMIT_US;
	return s->asked + us;
}

static int64_t
client_deadline(const struct session *s)
{
	const struct conf *c = session_conf(s);

	if (s->io == IO_LINGER)
		return s->last_input + LINGER_US;
	if (s->closing)
		return s->last_input + CLOSE_US;
	if (s->io == IO_HANDSHAKE)
		return s->last_input + ms(c->smtpd_starttls_timeout);
	return s->last_input + ms(c->smtpd_timeout);
}

static int64_t
earliest(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t
deadline(const struct session *s)
{
	const struct conf *c = session_conf(s);
	int64_t at;

	if (s->held)
		return INT64_MAX;
	if (s->wait != WAIT_FOR_NOTHING)
		return wait_deadline(s);
	at = client_deadline(s);
	if (c->smtpd_session_time_limit && !s->local)
		at = earliest(at, s->opened + ms(c->smtpd_session_time_limit));
	if (in_content(s) && c->smtpd_min_data_rate && !s->local)
		at = earliest(at, s->window_start + ms(c->smtpd_min_data_rate_window));
	return at;
}

static void
time_out(struct session *s, const struct reply *r)
{
	const char *limit = s->io == IO_HANDSHAKE ? "smtpd_starttls_timeout" : r->limit;

	log_event(LOG_smtp_timeout, "sid=%s client=%s[%s] state=%s text=%s limit=%s", s->id,
	    s->name, s->client, smtp_state_name(smtp_server_state(s->engine)), log_value(r->text),
	    limit);
	if (s->io == IO_HANDSHAKE || s->io == IO_LINGER || s->closing)
		s->dead = true;
	else
		smtp_server_shutdown(s->engine, r);
}

static bool
too_slow(struct session *s, int64_t now)
{
	const struct conf *c = session_conf(s);
	int64_t elapsed = now - s->window_start;

	if (!in_content(s) || !c->smtpd_min_data_rate || s->local ||
	    elapsed < ms(c->smtpd_min_data_rate_window))
		return false;
	if ((int64_t)s->window_bytes >= c->smtpd_min_data_rate * (elapsed / 1000000)) {
		s->window_start = now;
		s->window_bytes = 0;
		return false;
	}
	return true;
}

static void
on_timer(void *ctx)
{
	struct session *s = ctx;
	const struct conf *c = session_conf(s);
	int64_t now = ev_now_us();

	s->armed = 0;
	session_enter(s);
	if (s->held) {
		/* the delay has its own timer */
	} else if (s->wait != WAIT_FOR_NOTHING) {
		if (now >= wait_deadline(s))
			session_wait_expired(s);
	} else if (now >= client_deadline(s)) {
		time_out(s, &REPLY_LIMIT(421, "4.4.2", "Error: timeout exceeded", "smtpd_timeout"));
	} else if (c->smtpd_session_time_limit && !s->local &&
		   now >= s->opened + ms(c->smtpd_session_time_limit)) {
		time_out(s, &REPLY_LIMIT(421, "4.4.2", "Error: session is too long",
				"smtpd_session_time_limit"));
	} else if (too_slow(s, now)) {
		time_out(s, &REPLY_LIMIT(421, "4.4.2", "Error: data comes too slowly",
				"smtpd_min_data_rate"));
	}
	session_leave(s);
}

/* Set only when it must fire earlier than it would: input does not move it. */
static void
arm(struct session *s)
{
	int64_t at = deadline(s), now;

	if (at == INT64_MAX || (s->armed && s->armed <= at))
		return;
	now = ev_now_us();
	s->armed = at;
	ev_timer_set(
	    s->service->d->base, &s->timer, at > now ? (at - now) / 1000 + 1 : 1, on_timer, s);
}

/* --- the engine's calls that are about the connection --- */

static void
on_delay_over(void *ctx)
{
	struct session *s = ctx;

	session_enter(s);
	s->held = false;
	smtp_server_answer_delay(s->engine);
	session_leave(s);
}

static void
op_delay(void *ctx, struct smtp_server *e, unsigned delay_ms)
{
	struct session *s = ctx;

	(void)e;
	s->held = true;
	ev_timer_set(s->service->d->base, &s->delay, delay_ms, on_delay_over, s);
}

static void
op_start_tls(void *ctx, struct smtp_server *e)
{
	struct session *s = ctx;

	(void)e;
	s->start_tls = true; /* when the 220 is written */
}

static void
op_refused(void *ctx, struct smtp_server *e, const struct reply *r)
{
	struct session *s = ctx;
	struct smtp_tx *tx = smtp_server_tx(e);

	s->rejects++;
	log_event(LOG_smtp_refused,
	    "sid=%s client=%s[%s] state=%s code=%u enhanced=%s text=%s from=%s helo=%s%s%s", s->id,
	    s->name, s->client, smtp_state_name(smtp_server_state(e)), r->code,
	    log_value(r->enhanced), log_value(r->text), tx->active ? log_value(tx->sender) : "-",
	    log_value(smtp_server_hello(e)), r->limit ? " limit=" : "", r->limit ? r->limit : "");
}

static void
op_close(void *ctx, struct smtp_server *e)
{
	struct session *s = ctx;

	(void)e;
	s->closing = true;
	s->wait = WAIT_FOR_NOTHING;
	if (s->held) {
		ev_timer_clear(&s->delay);
		s->held = false;
	}
}

const struct smtp_ops session_ops = { .check_mail = session_check_mail,
	.check_rcpt = session_check_rcpt,
	.data_begin = session_data_begin,
	.data_bytes = session_data_bytes,
	.commit = session_commit,
	.tx_end = session_tx_end,
	.start_tls = op_start_tls,
	.auth_start = session_auth_start,
	.auth_step = session_auth_step,
	.auth_cancel = session_auth_cancel,
	.delay = op_delay,
	.refused = op_refused,
	.close = op_close };

/* --- life --- */

static void
describe_client(struct session *s, const struct msg_connection *m)
{
	const struct conf_list *nets = &session_conf(s)->mynetworks;

	s->local = m->local;
	s->uid = m->uid;
	s->port = m->port;
	snprintf(s->name, sizeof(s->name), "unknown");
	if (s->local) {
		snprintf(s->client, sizeof(s->client), "local:%u", m->uid);
		s->trusted = s->name_known = true;
		return;
	}
	if (m->address.n == sizeof(s->address))
		memcpy(&s->address, m->address.p, sizeof(s->address));
	inet_format(&s->address, s->client);
	s->trusted = inet_in_list(&s->address, nets->v, nets->n);
}

static bool
may_submit(const struct session *s)
{
	const struct service *sv = s->service;

	for (size_t i = 0; i < sv->n_submit; i++)
		if (sv->submit[i].uid == s->uid)
			return !sv->submit[i].no;
	return sv->anyone || !s->uid;
}

static void
greet_after_wait(void *ctx)
{
	struct session *s = ctx;

	session_enter(s);
	s->held = false;
	smtp_server_greet(s->engine, false);
	session_leave(s);
}

static void
begin(struct session *s)
{
	int64_t wait =
	    s->service->kind == SMTP_SMTPD && !s->trusted ? session_conf(s)->smtpd_greet_wait : 0;

	if (s->local && s->service->kind == SMTP_SUBMISSION && !may_submit(s)) {
		smtp_server_refuse(s->engine,
		    &REPLY(554, "5.7.1", "You may not submit mail: see authorized_submit_users"));
	} else if (s->policy->wrapper && !s->local) {
		session_handshake(s);
	} else if (wait) {
		s->held = true;
		ev_timer_set(s->service->d->base, &s->delay, wait, greet_after_wait, s);
	} else {
		smtp_server_greet(s->engine, false);
	}
}

void
session_open(struct service *service, struct msg *m)
{
	struct session *s = xcalloc(1, sizeof(*s));

	s->service = service;
	s->policy = service_policy_ref(service->policy);
	s->token = m->connection.token;
	s->fd = m->fd;
	m->fd = -1;
	s->opened = s->last_input = ev_now_us();
	receiver_session_id(&service->receiver, s->id);
	describe_client(s, &m->connection);
	s->stopping = service->d->stopping;
	s->engine =
	    smtp_server_new(s->local ? &s->policy->local : &s->policy->net, &session_ops, s);
	if (!tls_set_ctx(&service->tls))
		smtp_server_without_tls(s->engine);
	mail_init(&s->mail, &service->receiver, &session_mail_ops, s);
	TAILQ_INSERT_TAIL(&service->sessions, s, next);
	log_event(
	    LOG_smtp_connect, "sid=%s client=%s service=%s", s->id, s->client, service->d->service);
	session_io_start(s);
	session_enter(s);
	session_ask_name(s);
	begin(s);
	session_leave(s);
}

void
session_free(struct session *s)
{
	struct service *service = s->service;

	log_event(LOG_smtp_disconnect,
	    "sid=%s client=%s[%s] user=%s messages=%u recipients=%u rejects=%u state=%s", s->id,
	    s->name, s->client, s->user[0] ? log_cstr(s->user) : "-", s->messages, s->recipients,
	    s->rejects, smtp_state_name(smtp_server_state(s->engine)));
	TAILQ_REMOVE(&service->sessions, s, next);
	request_end(&s->name_request);
	rcpt_cancel(&s->question);
	turn_leave(s);
	smtp_server_free(&s->engine);
	request_end(&s->request);
	mail_free(&s->mail);
	acceptor_session_end(service->d, s->token); /* before the client sees it and comes back */
	session_io_stop(s);
	ev_timer_free(&s->timer);
	ev_timer_free(&s->delay);
	service_policy_unref(s->policy);
	explicit_bzero(s, sizeof(*s));
	free(s);
}

void
session_stop(struct session *s)
{
	session_enter(s);
	s->stopping = true;
	session_leave(s);
}
