/*
 * What a client of login asks auth and the broker: its SASL exchange, then the stream to its user's
 * session. Runs in login-child (bh-login, empty root). Hostile: the client's SASL data, which is
 * passed on unread. Invariants: a client has at most one request under way; an answer is matched by
 * role and id, one that nobody waits for is dropped; a token is kept no longer than to show it.
 */
#include "login/login.h"

#include <stdlib.h>

/* --- requests to auth and broker --- */

static int
ask(struct client *c, enum role role, struct msg *m)
{
	struct ipc_chan *ch = c->s->d->peers[role];
	int err;

	if (!ch)
		return ERR_CLOSED;
	if (m->id == 0)
		m->id = ipc_next_id(ch);
	err = ipc_send(ch, m);
	if (err)
		return err;
	c->request_key = (uint64_t)role << 32 | m->id;
	hash_insert(&c->s->requests, &c->request, slice(&c->request_key, sizeof(c->request_key)));
	return 0;
}

static void
forget_request(struct client *c)
{
	if (c->request_key)
		hash_remove(&c->s->requests, &c->request);
	c->request_key = 0;
}

static struct client *
asked(struct service *s, enum role role, uint32_t id)
{
	uint64_t key = (uint64_t)role << 32 | id;
	struct hash_node *node = hash_find(&s->requests, slice(&key, sizeof(key)));
	struct client *c = node ? HASH_ELEMENT(node, struct client, request) : NULL;

	if (c)
		forget_request(c);
	return c;
}

void
ask_cancel_auth(struct client *c)
{
	struct msg m = MSG_INIT(MSG_AUTH_CANCEL, c->auth_id);

	if (c->auth_id)
		(void)daemon_send(c->s->d, ROLE_AUTH, &m);
	c->auth_id = 0;
}

void
ask_forget(struct client *c)
{
	ask_cancel_auth(c);
	forget_request(c);
}

/* --- login --- */

void
ask_start(struct client *c, const struct login_action *a)
{
	struct msg m = MSG_INIT(MSG_AUTH_START, 0);
	unsigned char exporter[TLS_BINDING_MAX], endpoint[TLS_BINDING_MAX];
	struct tls_info info;
	size_t n;

	m.auth_start.service = slice_str(c->s->protocol->name);
	m.auth_start.mechanism = slice_str(a->mechanism);
	m.auth_start.session = slice_str(c->sid);
	m.auth_start.client = slice_str(c->address);
	m.auth_start.tls = c->tls != NULL;
	m.auth_start.has_initial = a->has_data;
	m.auth_start.initial = a->data;
	if (c->tls && tls_channel_binding(c->tls, TLS_BINDING_EXPORTER, exporter, &n) == 0)
		m.auth_start.exporter = slice(exporter, n);
	if (c->tls && tls_channel_binding(c->tls, TLS_BINDING_END_POINT, endpoint, &n) == 0)
		m.auth_start.endpoint = slice(endpoint, n);
	if (c->tls && c->conf->auth_external) {
		tls_info(c->tls, &info);
		if (info.peer_trusted)
			m.auth_start.external = slice_str(info.peer_name);
	}
	buf_wipe(&c->out);
	c->state = CLIENT_AUTH;
	if (ask(c, ROLE_AUTH, &m) == 0) {
		c->auth_id = m.id;
		return;
	}
	c->state = CLIENT_DIALOGUE;
	log_event(LOG_auth_missing,
	    "sid=%s client=%s remedy=\"auth is not running: see its lines before\"", c->sid,
	    c->address);
	login_auth_failed(c->engine, LOGIN_FAIL_TEMPORARY);
}

void
ask_step(struct client *c, const struct login_action *a)
{
	struct msg m = MSG_INIT(MSG_AUTH_RESPONSE, c->auth_id);

	m.auth_response.response = a->data;
	c->state = CLIENT_AUTH;
	if (c->auth_id && ask(c, ROLE_AUTH, &m) == 0)
		return;
	c->state = CLIENT_DIALOGUE;
	c->auth_id = 0;
	login_auth_failed(c->engine, LOGIN_FAIL_TEMPORARY);
}

void
client_auth_answer(struct service *s, const struct msg *m)
{
	struct client *c = asked(s, ROLE_AUTH, m->id);

	if (!c)
		return;
	c->state = CLIENT_DIALOGUE;
	if (m->type == MSG_AUTH_CHALLENGE) {
		login_challenge(c->engine, m->auth_challenge.challenge);
		client_advance(c);
		return;
	}
	c->auth_id = 0;
	if (m->auth_done.status == 0 && m->auth_done.token.n > 0) {
		buf_add(&c->out, m->auth_done.token); /* kept there until the engine is through */
		login_auth_ok(c->engine, m->auth_done.final, m->auth_done.final.n > 0);
	} else {
		login_auth_failed(c->engine, m->auth_done.status == 1   ? LOGIN_FAIL_CREDENTIALS
					     : m->auth_done.status == 3 ? LOGIN_FAIL_MECHANISM
									: LOGIN_FAIL_TEMPORARY);
	}
	client_advance(c);
}

void
ask_session(struct client *c)
{
	struct msg m = MSG_INIT(MSG_SESSION_OPEN, 0);
	int err;

	m.session_open.token = buf_slice(&c->out);
	m.session_open.service = slice_str(c->s->protocol->name);
	m.session_open.client = slice_str(c->address);
	m.session_open.session = slice_str(c->sid);
	c->state = CLIENT_SESSION;
	err = ask(c, ROLE_BROKER, &m);
	buf_wipe(&c->out);
	if (err) {
		c->state = CLIENT_DIALOGUE;
		login_unavailable(c->engine, LOGIN_FAIL_TEMPORARY);
	}
}

void
client_session_opened(struct service *s, struct msg *m)
{
	struct client *c = asked(s, ROLE_BROKER, m->id);
	struct buf preamble = { 0 };
	int fd = m->fd;

	if (!c)
		return; /* the descriptor is closed by the caller: the session sees the end */
	if (m->session_opened.status || fd < 0) {
		c->state = CLIENT_DIALOGUE;
		login_unavailable(c->engine, m->session_opened.status == 3 ? LOGIN_FAIL_LIMIT
					     : m->session_opened.status == 4
						 ? LOGIN_FAIL_MAILBOX
						 : LOGIN_FAIL_TEMPORARY);
		client_advance(c);
		return;
	}
	m->fd = -1;
	/* First the preamble, then what the client sent behind its login, then copies. */
	login_handover(c->engine, slice_str(c->address), slice_str(c->sid), &preamble);
	buf_add(&preamble, buf_slice(&c->in));
	buf_wipe(&c->in);
	c->in = preamble;
	buf_add(&c->out, buf_slice(login_out(c->engine)));
	login_free(&c->engine);
	pump_start(c, fd);
}

void
client_peer_down(struct service *s, enum role role)
{
	struct client *c, *after;

	for (c = TAILQ_FIRST(&s->clients); c; c = after) {
		after = TAILQ_NEXT(c, next);
		if (c->request_key >> 32 != (uint64_t)role)
			continue;
		forget_request(c);
		c->auth_id = 0;
		c->state = CLIENT_DIALOGUE;
		if (role == ROLE_AUTH)
			login_auth_failed(c->engine, LOGIN_FAIL_TEMPORARY);
		else
			login_unavailable(c->engine, LOGIN_FAIL_TEMPORARY);
		client_advance(c);
	}
	if (role == ROLE_AUTH)
		TAILQ_FOREACH(c, &s->clients, next)
			c->auth_id = 0;
}
