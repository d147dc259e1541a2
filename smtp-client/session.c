/*
 * The dialogue on a connection: events of the engine (lib/smtp/client.h) become results of the job,
 * steps of auth, a handshake, or the next attempt. Runs in smtp-client. Invariants: no password is
 * asked for before TLS is as strict as smtp_sasl_tls_security_level wants it; after an end of data
 * no other host is tried, since the server may have the message; a function that may have freed the
 * connection says so.
 */
#include "sender.h"

#include <stdarg.h>
#include <stdio.h>

/* Detaches the job; the connection goes. */
static struct job *
give_up(struct conn *c)
{
	struct job *j = c->job;

	snprintf(j->remote, sizeof(j->remote), "%s", c->remote);
	conn_free(&c);
	return j;
}

/* The same where the server is still there: it hears QUIT, if it waits for a command. */
static struct job *
part(struct conn *c)
{
	struct job *j = c->job;

	snprintf(j->remote, sizeof(j->remote), "%s", c->remote);
	session_auth_end(c);
	c->job = NULL;
	j->conn = NULL;
	conn_quit(c);
	return j;
}

/* A kept connection that ended before it said anything about this message: not this message's
 * fault. */
static bool
is_stale(const struct conn *c)
{
	enum client_command w = client_waiting(c->client);

	return c->reused &&
	       (w == CLIENT_CMD_MAIL || w == CLIENT_CMD_RSET || w == CLIENT_CMD_NONE) &&
	       c->job->left == c->job->n;
}

void
session_lost(struct conn *c, const char *enhanced, const char *fmt, ...)
{
	bool at_end, stale;
	char text[REASON_SIZE];
	struct job *j;
	va_list ap;

	if (!c->job) {
		conn_free(&c);
		return;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	at_end = c->client && (c->ended || client_waiting(c->client) == CLIENT_CMD_FINAL);
	stale = c->client && is_stale(c);
	j = give_up(c);
	/* That we could not even try one address is no news of the others. */
	if (!stale && !(j->our_fault && !strcmp(enhanced, "4.4.1")))
		job_reason(j, false, enhanced, "", "%s%s", text,
		    at_end ? " -- the message may be sent more than once" : "");
	if (at_end)
		job_finish(j);
	else
		job_attempt(j);
}

void
session_begin(struct conn *c)
{
	const struct conf *conf = c->s->d->conf;
	struct job *j = c->job;
	bool wrapper = j->policy.wrapper && !c->to.plain;
	struct client_opts o = { .helo = conf->smtp_helo_name,
		.lmtp = j->lmtp,
		.tls = c->level != CONF_TLS_LEVEL_NONE,
		.tls_required = policy_requires_tls(c->level),
		.tls_active = wrapper,
		.auth = conf->smtp_sasl_auth_enable && !j->lmtp };

	j->sessions++;
	c->s->sessions++;
	if (!j->connected_us)
		j->connected_us = ev_now_us();
	c->client = client_new(&o);
	c->state = CONN_OPEN;
	if (wrapper)
		conn_start_tls(c);
	else
		conn_timer(c);
}

void
session_send(struct conn *c)
{
	struct job *j = c->job;

	if (!j->connected_us)
		j->connected_us = ev_now_us();
	snprintf(j->remote, sizeof(j->remote), "%s", c->remote);
	job_message(j, client_features(c->client));
	log_event(LOG_smtp_send, "qid=%s job=%u remote=%s port=%u reused=%s message=%u nrcpt=%zu",
	    log_value(j->queue_id), j->id, log_cstr(c->remote), c->local_port,
	    c->reused ? "yes" : "no", c->messages + 1, j->message.n);
	c->sending = false;
	if (client_send(c->client, &j->message))
		log_event(LOG_smtp_state,
		    "qid=%s remote=%s reason=\"the session was not ready\" remedy=\"report this\"",
		    log_value(j->queue_id), log_cstr(c->remote));
}

/* --- auth --- */

static void
auth_failed(struct conn *c, const char *enhanced, const char *why, struct slice text)
{
	struct job *j = c->job;

	job_reason(j, false, enhanced, "", "no login at %s: %s%s%.*s", c->remote, why,
	    text.n ? ": " : "", SLICE_ARG(text));
	part(c); /* text may have lived in it */
	log_event(LOG_smtp_auth_failed,
	    "qid=%s remote=%s reason=%s remedy=\"see smtp_sasl_password_maps\"",
	    log_value(j->queue_id), log_cstr(j->remote), log_cstr(j->reason));
	job_finish(j);
}

static bool
tls_is_enough(const struct conn *c)
{
	int level = c->s->d->conf->smtp_sasl_tls_security_level;

	if (!policy_requires_tls(level))
		return true;
	return c->tls && (level == CONF_TLS_LEVEL_ENCRYPT || c->tls_info.peer_verified);
}

static void
on_auth(void *ctx, struct msg *m)
{
	struct conn *c = ctx;
	char mechanism[64];

	if (!m || m->type != MSG_SASL_CLIENT_STEP) {
		c->ask = NULL;
		auth_failed(c, "4.3.0", "the auth daemon gives no answer", SLICE_NULL);
		return;
	}
	switch (m->sasl_client_step.status) {
	case 0:
		break;
	case 1: /* no password for this next hop */
		c->ask = NULL;
		client_auth_skip(c->client);
		session_run(c);
		return;
	default:
		c->ask = NULL;
		auth_failed(c, "4.7.8", "refused here", m->sasl_client_step.text);
		return;
	}
	if (!tls_is_enough(c)) {
		auth_failed(c, "4.7.8",
		    "the password needs TLS (smtp_sasl_tls_security_level), and the connection has "
		    "not enough of it",
		    SLICE_NULL);
		return;
	}
	if (slice_copy(m->sasl_client_step.mechanism, mechanism, sizeof(mechanism)))
		mechanism[0] = '\0';
	ask_keep(c->ask);
	client_auth(c->client, mechanism, m->sasl_client_step.has_data, m->sasl_client_step.data);
	session_run(c);
}

/* False: the connection is gone. */
static bool
auth_start(struct conn *c, struct slice mechanisms)
{
	struct job *j = c->job;
	struct msg m = MSG_INIT(MSG_SASL_CLIENT_START, 0);

	m.sasl_client_start.nexthop =
	    slice_str(j->port ? arena_printf(&j->arena, "%.*s:%u", SLICE_ARG(j->nexthop), j->port)
			      : arena_printf(&j->arena, "%.*s", SLICE_ARG(j->nexthop)));
	m.sasl_client_start.host = slice_str(c->to.host);
	m.sasl_client_start.sender = j->from;
	m.sasl_client_start.mechanisms = mechanisms;
	m.sasl_client_start.tls = c->tls != NULL;
	c->ask = ask_send(c->s, ROLE_AUTH, &m, 30000, on_auth, c);
	if (c->ask)
		return true;
	auth_failed(c, "4.3.0", "the auth daemon is not there", SLICE_NULL);
	return false;
}

static bool
auth_challenge(struct conn *c, struct slice challenge)
{
	struct msg m = MSG_INIT(MSG_SASL_CLIENT_RESPONSE, 0);

	m.sasl_client_response.challenge = challenge;
	if (c->ask && ask_again(c->ask, &m, 30000))
		return true;
	auth_failed(c, "4.3.0", "the auth daemon is not there", SLICE_NULL);
	return false;
}

void
session_auth_end(struct conn *c)
{
	struct msg m = MSG_INIT(MSG_SASL_CLIENT_END, 0);

	if (c->ask)
		(void)ask_again(c->ask, &m, 1000);
	ask_cancel(&c->ask);
}

/* --- the end of a session --- */

static void
failed_by_reply(struct conn *c, const struct client_event *ev)
{
	const struct client_reply *r = &ev->reply;
	bool refused = ev->command == CLIENT_CMD_EHLO || ev->command == CLIENT_CMD_HELO;
	/* RFC 7504: 521 in the greeting says "no mail here", ever; 554 is used for moods */
	bool permanent = r->code / 100 == 5 &&
			 (refused || (ev->command == CLIENT_CMD_GREETING && r->code == 521));
	char enhanced[CLIENT_REPLY_ENHANCED_SIZE];
	struct job *j = c->job;

	snprintf(enhanced, sizeof(enhanced), "%s", r->enhanced[0] ? r->enhanced : "4.0.0");
	enhanced[0] = permanent ? '5' : '4';
	job_reason(j, permanent, enhanced, c->remote, "%u %s%s%.*s (in reply to %s)", r->code,
	    r->enhanced, r->enhanced[0] ? " " : "", SLICE_ARG(r->text),
	    client_command_str(ev->command));
	job_attempt(part(c));
}

/* A reply in the middle of the content: it is the fate of those who were accepted. */
static void
failed_in_content(struct conn *c, const struct client_event *ev)
{
	struct client_event each = *ev;
	struct job *j = c->job;

	for (size_t i = 0; i < j->message.n; i++) {
		each.address = j->message.rcpts[i].address;
		job_result(j, i, &each, c->remote);
	}
	job_finish(give_up(c));
}

static void
session_failed(struct conn *c, const struct client_event *ev)
{
	const struct client_reply *r = &ev->reply;

	if (!c->job) {
		conn_free(&c);
		return;
	}
	c->ended = ev->at_end;
	switch (ev->failure) {
	case CLIENT_FAIL_REPLY:
		if (ev->command == CLIENT_CMD_CONTENT && r->code >= 400)
			failed_in_content(c, ev);
		else if (is_stale(c)) /* "421 idle too long" on a kept connection */
			job_attempt(give_up(c));
		else
			failed_by_reply(c, ev);
		break;
	case CLIENT_FAIL_NO_TLS:
		if (r->code >= 400)
			job_reason(c->job, false, "4.7.4", "",
			    "TLS is required, and %s refuses it: %u %.*s", c->remote, r->code,
			    SLICE_ARG(r->text));
		else
			job_reason(c->job, false, "4.7.4", "",
			    "TLS is required, and %s does not offer it", c->remote);
		job_attempt(part(c));
		break;
	case CLIENT_FAIL_AUTH:
		auth_failed(c, "4.7.8", "the server says", r->text);
		break;
	case CLIENT_FAIL_PROTOCOL:
		session_lost(c, "4.5.0", "what %s said about %s is no SMTP", c->remote,
		    client_command_str(ev->command));
		break;
	default:
		session_lost(c, "4.4.2", "lost connection with %s while waiting for %s", c->remote,
		    client_command_str(ev->command));
		break;
	}
}

static void
message_done(struct conn *c)
{
	struct job *j = c->job;

	c->messages++;
	c->s->messages++;
	c->job = NULL;
	j->conn = NULL;
	job_finish(j);
	if (client_ready(c->client))
		conn_keep(c);
	else
		conn_free(&c); /* 421 in place of the last reply */
}

/* False: the run is over for now, and the connection may be gone. */
static bool
take_event(struct conn *c, enum client_event_type type, const struct client_event *ev)
{
	switch (type) {
	case CLIENT_TLS:
		conn_start_tls(c);
		return false;
	case CLIENT_MECHANISMS:
		return auth_start(c, ev->data);
	case CLIENT_CHALLENGE:
		return auth_challenge(c, ev->data);
	case CLIENT_READY:
		session_auth_end(c);
		session_send(c);
		return true;
	case CLIENT_RESULT:
		job_result(c->job, ev->rcpt, ev, c->remote);
		return true;
	case CLIENT_CONTENT:
		c->sending = true;
		return true;
	case CLIENT_DONE:
		message_done(c);
		return false;
	case CLIENT_FAILED:
		session_failed(c, ev);
		return false;
	case CLIENT_CLOSED:
		conn_free(&c);
		return false;
	default:
		return true;
	}
}

/* Reads content until enough waits to be written. False: it cannot be read, the connection is gone.
 */
static bool
give_content(struct conn *c)
{
	struct job *j;
	struct slice piece;

	while (c->sending && buf_len(client_output(c->client)) < OUTPUT_HIGH) {
		int got = job_content(c->job, &piece);

		if (got < 0) { /* the server gets no end of data, so it has no message */
			j = give_up(c);
			job_reason(j, false, "4.3.0", "",
			    "the message's content cannot be read: %s", err_str(got));
			log_event(LOG_smtp_content,
			    "qid=%s reason=\"%s\" remedy=\"see the queue's disk; the message stays "
			    "in the queue\"",
			    log_value(j->queue_id), err_str(got));
			job_finish(j);
			return false;
		}
		client_content(c->client, piece);
		if (!got) {
			client_content_end(c->client);
			c->sending = false;
		}
	}
	return true;
}

void
session_run(struct conn *c)
{
	struct client_event ev;
	enum client_event_type type;

	for (;;) {
		while ((type = client_next(c->client, &ev)) != CLIENT_NOTHING)
			if (!take_event(c, type, &ev))
				return;
		if (c->sending && !give_content(c))
			return;
		if (!conn_flush(c))
			return;
		if (!c->sending || buf_len(client_output(c->client)))
			break;
	}
	if (c->state == CONN_OPEN)
		conn_still_waits(c);
}
