/*
 * A client of IMAP or POP3 until it has logged in, in login-child (bh-login, empty root). Hostile:
 * every byte of the client; the engine and OpenSSL meet them. Passwords pass through and are wiped
 * with the buffers.
 *
 * Invariants: no byte that came before TLS is used after it; a password is asked for and passed on
 * only under TLS (the engine is given no mechanism before); who the client is comes from auth's
 * token, which login cannot read; every state has a timer; a client ends in client_free alone.
 */
#include "login/login.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

/* --- end --- */

void
client_free(struct client *c, const char *why)
{
	struct service *s = c->s;
	struct daemon *d = s->d;
	const char *limit = NULL;
	const char *ended = c->engine ? login_ended(c->engine, &limit) : NULL;

	if (c->limit)
		limit = c->limit;
	log_event(LOG_disconnect, "sid=%s client=%s service=%s state=%s reason=\"%s\"%s%s", c->sid,
	    c->address, s->protocol->name,
	    c->state == CLIENT_PUMP || c->session.readable ? "session" : "login",
	    ended ? ended : why, limit ? " limit=" : "", limit ? limit : "");
	TAILQ_REMOVE(&s->clients, c, next);
	ask_forget(c);
	ev_timer_free(&c->timer);
	if (c->engine)
		login_free(&c->engine);
	tls_conn_free(&c->tls);
	acceptor_session_end(d, c->token); /* before the client sees it and comes back */
	watch_close(&c->net);
	watch_close(&c->session);
	buf_wipe(&c->in);
	buf_wipe(&c->out);
	daemon_conf_unref(c->conf);
	free(c);
}

static void
timed_out(void *ctx)
{
	struct client *c = ctx;

	if (c->state == CLIENT_DIALOGUE || c->state == CLIENT_AUTH || c->state == CLIENT_SESSION) {
		c->limit = "login_timeout";
		client_stop(c, "Too long without a login");
	} else if (c->state == CLIENT_HANDSHAKE) {
		c->limit = "smtpd_starttls_timeout";
		client_free(c, "TLS handshake took too long");
	} else {
		client_free(c, "client takes no data");
	}
}

static void
set_timer(struct client *c, int64_t ms)
{
	ev_timer_set(c->s->d->base, &c->timer, ms, timed_out, c);
}

/* Says goodbye in the protocol's words and closes when it is out. */
void
client_stop(struct client *c, const char *text)
{
	if (c->state == CLIENT_HANDSHAKE || !c->engine) {
		client_free(c, text);
		return;
	}
	ask_forget(c);
	login_bye(c->engine, text);
	c->state = CLIENT_CLOSING;
	set_timer(c, 5000);
	client_advance(c);
}

/* --- bytes --- */

int
client_read(struct client *c, size_t limit)
{
	size_t room = limit > buf_len(&c->in) ? limit - buf_len(&c->in) : 0;
	ptrdiff_t n;

	if (room == 0)
		return 0;
	n = c->tls ? tls_read_buf(c->tls, &c->in, room) : buf_read(&c->in, c->net.fd, room);
	if (n > 0)
		return c->tls && tls_pending(c->tls);
	if (n == 0)
		return ERR_CLOSED;
	return n == -EAGAIN || n == TLS_WANT_READ || n == TLS_WANT_WRITE ? 0 : (int)n;
}

int
client_write(struct client *c, struct buf *b)
{
	int err;

	if (c->tls) {
		err = tls_write_buf(c->tls, b);
		return err == TLS_WANT_WRITE || err == TLS_WANT_READ ? -EAGAIN : err;
	}
	while (buf_len(b) > 0) {
		ptrdiff_t n = buf_write(b, c->net.fd);
		if (n < 0)
			return (int)n;
	}
	return 0;
}

static const char *
failure_text(const struct client *c, int err)
{
	return c->tls && err != ERR_CLOSED ? tls_error(c->tls)
	       : err == ERR_CLOSED         ? "client closed"
					   : err_str(err);
}

/* --- TLS --- */

/* The mechanisms that make sense on this connection: none without TLS, -PLUS only where TLS gives a
 * binding. */
static void
mechanisms(const struct client *c, char *out, size_t size)
{
	const struct conf_list *list = &c->conf->auth_mechanisms;
	unsigned char data[TLS_BINDING_MAX];
	bool binds;
	size_t n, at = 0;

	out[0] = 0;
	if (!c->tls)
		return;
	binds = tls_channel_binding(c->tls, TLS_BINDING_EXPORTER, data, &n) == 0 ||
		tls_channel_binding(c->tls, TLS_BINDING_END_POINT, data, &n) == 0;
	for (size_t i = 0; i < list->n && at < size; i++) {
		if (!binds && slice_has_casesuffix(slice_str(list->v[i]), "-PLUS"))
			continue;
		at += (size_t)snprintf(out + at, size - at, "%s%s", at ? " " : "", list->v[i]);
	}
	if (c->conf->auth_external && at < size)
		snprintf(out + at, size - at, "%sEXTERNAL", at ? " " : "");
}

static void
log_tls(const struct client *c)
{
	struct tls_info info;

	if (c->conf->smtpd_tls_loglevel < 1)
		return;
	tls_info(c->tls, &info);
	log_event(LOG_tls, "sid=%s client=%s protocol=%s cipher=%s bits=%d resumed=%s sni=%s",
	    c->sid, c->address, info.protocol, info.cipher, info.bits, info.resumed ? "yes" : "no",
	    log_cstr(info.sni));
}

static void
begin_tls(struct client *c)
{
	struct tls_ctx *ctx = tls_set_ctx(&c->s->tls);

	if (!ctx) {
		client_free(c, "no certificate: see smtpd_tls_cert_file");
		return;
	}
	buf_wipe(&c->in); /* what came in plain is not used any more */
	c->tls = tls_conn_new(ctx, c->net.fd, TLS_SERVER);
	c->state = CLIENT_HANDSHAKE;
	set_timer(c, c->conf->smtpd_starttls_timeout);
	client_advance(c);
}

static void
begin_dialogue(struct client *c)
{
	struct login_limits limits = {
		.max_command = (size_t)c->conf->login_command_size_limit,
		.max_auth = (size_t)c->conf->smtpd_sasl_response_limit,
		.max_errors = (unsigned)c->conf->login_error_limit,
		.max_commands = (unsigned)c->conf->login_command_limit,
		.max_auth_failures = (unsigned)c->conf->auth_failure_limit,
		.greeting = c->conf->login_greeting,
	};
	char names[512];

	mechanisms(c, names, sizeof(names));
	c->state = CLIENT_DIALOGUE;
	set_timer(c, c->conf->login_timeout);
	if (c->engine) {
		login_tls_done(c->engine, names);
		return;
	}
	c->engine = login_new(c->s->protocol, &limits, names,
	    !c->tls && c->conf->login_tls_security_level != CONF_SERVER_TLS_NONE &&
		tls_set_ctx(&c->s->tls),
	    c->tls != NULL);
	login_greet(c->engine);
}

static void
handshake(struct client *c)
{
	int err = tls_handshake(c->tls);

	if (err == 0) {
		log_tls(c);
		begin_dialogue(c);
		client_advance(c);
	} else if (err == TLS_WANT_READ || err == TLS_WANT_WRITE) {
		watch_want(&c->net, err == TLS_WANT_READ, err == TLS_WANT_WRITE);
	} else {
		client_free(c, failure_text(c, err));
	}
}

/* --- the dialogue --- */

/* One action of the engine; false: wait or end. */
static bool
act(struct client *c, const struct login_action *a)
{
	switch (a->want) {
	case LOGIN_MORE:
		return false;
	case LOGIN_AUTH_START:
		ask_start(c, a);
		return c->state == CLIENT_DIALOGUE;
	case LOGIN_AUTH_STEP:
		ask_step(c, a);
		return c->state == CLIENT_DIALOGUE;
	case LOGIN_AUTH_ABORT:
		ask_cancel_auth(c);
		buf_wipe(&c->out);
		return true;
	case LOGIN_DONE:
		ask_session(c);
		return c->state == CLIENT_DIALOGUE;
	case LOGIN_STARTTLS:
		c->want_tls = true;
		return false;
	default:
		c->state = CLIENT_CLOSING;
		set_timer(c, 5000);
		return false;
	}
}

static void
talk(struct client *c)
{
	struct login_action a;

	do {
		size_t n;
		memset(&a, 0, sizeof(a));
		n = login_feed(c->engine, buf_slice(&c->in), &a);
		buf_consume(&c->in, n);
	} while (act(c, &a));
}

void
client_advance(struct client *c)
{
	int more = 1, err;

	if (c->state == CLIENT_HANDSHAKE) {
		handshake(c);
		return;
	}
	for (int turns = 0; turns < 16; turns++) {
		if (c->state == CLIENT_DIALOGUE && !c->want_tls)
			talk(c);
		err = client_write(c, login_out(c->engine));
		if (err == -EAGAIN) {
			watch_want(&c->net, false, true);
			return;
		}
		if (err) {
			client_free(c, failure_text(c, err));
			return;
		}
		if (c->state == CLIENT_CLOSING) {
			client_end(c, "closed");
			return;
		}
		if (c->want_tls) {
			c->want_tls = false;
			begin_tls(c);
			return;
		}
		if (c->state != CLIENT_DIALOGUE || !more)
			break;
		more = client_read(c, c->s->protocol->input);
		if (more < 0) {
			client_free(c, failure_text(c, more));
			return;
		}
	}
	/* While auth or broker think, the client is read a little ahead at most: its end must be
	 * seen. */
	watch_want(&c->net, buf_len(&c->in) < c->s->protocol->input, false);
	/* Records that TLS holds already raise no event: the other clients have their turn, then
	 * these. */
	if (c->state == CLIENT_DIALOGUE && c->tls && tls_pending(c->tls))
		event_active(c->net.readable, EV_READ, 0);
}

/* The descriptor is ready. Also called by the pump's descriptors through pump_run. */
static void
on_ready(evutil_socket_t fd, short what, void *ctx)
{
	struct client *c = ctx;
	int err;

	(void)fd;
	ev_turn();
	if (c->state == CLIENT_PUMP) {
		pump_run(c);
		return;
	}
	if (c->state == CLIENT_LINGER) {
		client_drop(c);
		return;
	}
	if ((c->state == CLIENT_AUTH || c->state == CLIENT_SESSION) && what & EV_READ) {
		err = client_read(c, c->s->protocol->input);
		if (err < 0) {
			client_free(c, failure_text(c, err));
			return;
		}
	}
	client_advance(c);
}

static void
draw_sid(char out[17])
{
	static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
	unsigned char raw[12];

	if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw))
		die("getrandom: no randomness");
	for (size_t i = 0; i < sizeof(raw); i++)
		out[i] = digits[raw[i] % 32];
	out[sizeof(raw)] = 0;
}

void
client_new(struct service *s, const struct msg_connection *m, int fd)
{
	struct client *c = xcalloc(1, sizeof(*c));
	struct inet_addr addr;
	int one = 1;

	c->s = s;
	c->token = m->token;
	c->conf = daemon_conf_ref(s->d);
	c->session.fd = -1;
	buf_init(&c->in, 0);
	draw_sid(c->sid);
	if (m->address.n == sizeof(addr)) {
		memcpy(&addr, m->address.p, sizeof(addr));
		inet_format(&addr, c->address);
	} else {
		snprintf(c->address, sizeof(c->address), "local");
	}
	TAILQ_INSERT_TAIL(&s->clients, c, next);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	watch_open(&c->net, s->d->base, fd, on_ready, c);
	log_event(LOG_connect, "sid=%s client=%s port=%u service=%s", c->sid, c->address, m->port,
	    s->protocol->name);
	if (s->wrapped)
		begin_tls(c);
	else {
		begin_dialogue(c);
		client_advance(c);
	}
}
