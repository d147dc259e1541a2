/*
 * AUTH, step by step through the auth daemon. Runs in the children of submission (and of smtpd
 * where AUTH is offered there). The SASL octets are opaque here; what auth answers is bound to this
 * session's request. Invariant: the token is kept only after auth said yes, and wiped with the
 * session.
 */
#include "receive/session.h"

static void
failed(struct session *s, const struct reply *r)
{
	const struct reply enough =
	    REPLY_LIMIT(421, "4.7.0", "Error: too many failed logins", "auth_failure_limit");
	int64_t limit = session_conf(s)->auth_failure_limit;

	if (limit && ++s->auth_failures >= (unsigned)limit)
		r = &enough;
	smtp_server_answer_auth_failed(s->engine, r);
}

static void
succeeded(struct session *s, const struct msg_auth_done *done)
{
	if (done->token.n > sizeof(s->login_token) ||
	    slice_copy(done->user, s->user, sizeof(s->user))) {
		failed(s, NULL);
		return;
	}
	memcpy(s->login_token, done->token.p, done->token.n);
	s->login_token_n = done->token.n;
	log_event(LOG_smtp_login, "sid=%s client=%s[%s] user=%s", s->id, s->name, s->client,
	    log_cstr(s->user));
	smtp_server_answer_auth_ok(s->engine);
}

static void
done(struct session *s, const struct msg_auth_done *m)
{
	request_end(&s->request);
	s->wait = WAIT_FOR_NOTHING;
	switch (m->status) {
	case 0:
		succeeded(s, m);
		break;
	case 1:
		failed(s, NULL);
		break;
	case 3:
		failed(s, &REPLY(504, "5.5.4", "Error: mechanism not available"));
		break;
	default:
		smtp_server_answer_auth_failed(
		    s->engine, &REPLY(454, "4.7.0", "Temporary authentication failure"));
		break;
	}
}

static void
on_answer(struct request *q, struct msg *m)
{
	struct session *s = q->ctx;
	struct msg_auth_done gone = { .status = 2 };

	session_enter(s);
	if (m && m->type == MSG_AUTH_CHALLENGE) {
		s->wait = WAIT_FOR_NOTHING;
		smtp_server_answer_auth_challenge(s->engine, m->auth_challenge.challenge);
	} else {
		done(s, m && m->type == MSG_AUTH_DONE ? &m->auth_done : &gone);
	}
	session_leave(s);
}

static struct slice
binding(struct session *s, enum tls_binding type, unsigned char out[TLS_BINDING_MAX])
{
	size_t n = 0;

	if (!s->tls || tls_channel_binding(s->tls, type, out, &n))
		return SLICE_NULL;
	return slice(out, n);
}

void
session_auth_start(void *ctx, struct smtp_server *e, struct slice mechanism, bool has_initial,
    struct slice initial)
{
	struct session *s = ctx;
	struct msg m = MSG_INIT(MSG_AUTH_START, 0);
	unsigned char exporter[TLS_BINDING_MAX], endpoint[TLS_BINDING_MAX];
	struct tls_info info;
	char upper[32];

	for (size_t i = 0; i < mechanism.n; i++)
		upper[i] = (char)ascii_upper(mechanism.p[i]);
	m.auth_start.service = SLICE_LIT("smtp");
	m.auth_start.mechanism = slice(upper, mechanism.n);
	m.auth_start.session = slice_str(s->id);
	m.auth_start.client = slice_str(s->client);
	m.auth_start.tls = smtp_server_under_tls(e);
	m.auth_start.has_initial = has_initial;
	m.auth_start.initial = initial;
	m.auth_start.exporter = binding(s, TLS_BINDING_EXPORTER, exporter);
	m.auth_start.endpoint = binding(s, TLS_BINDING_END_POINT, endpoint);
	if (s->tls && session_conf(s)->auth_external) {
		tls_info(s->tls, &info);
		if (info.peer_trusted)
			m.auth_start.external = slice_str(info.peer_name);
	}
	session_waits(s, WAIT_FOR_AUTH);
	if (request_send(&s->service->receiver, ROLE_AUTH, &m, &s->request, on_answer, s))
		done(s, &(struct msg_auth_done){ .status = 2 });
}

void
session_auth_step(void *ctx, struct smtp_server *e, struct slice response)
{
	struct session *s = ctx;
	struct msg m = MSG_INIT(MSG_AUTH_RESPONSE, 0);

	(void)e;
	m.auth_response.response = response;
	session_waits(s, WAIT_FOR_AUTH);
	if (request_more(&s->request, &m))
		done(s, &(struct msg_auth_done){ .status = 2 });
}

void
session_auth_cancel(void *ctx, struct smtp_server *e)
{
	struct session *s = ctx;
	struct msg m = MSG_INIT(MSG_AUTH_CANCEL, 0);

	(void)e;
	if (s->request.active)
		(void)!request_more(&s->request, &m);
	request_end(&s->request);
	if (s->wait == WAIT_FOR_AUTH)
		s->wait = WAIT_FOR_NOTHING;
}
