/*
 * After login: bytes both ways between the client (through TLS) and the stream of the user's
 * session, in login-child (bh-login). Hostile: both ends; nothing is looked at here but how the
 * session's last line ended. Invariants: at most PUMP_BUFFER bytes wait per direction, so a slow
 * reader stops its writer; an idle pair holds no buffer; when one end is gone what it sent still
 * goes out, then the other is closed.
 */
#include "login/login.h"

#include <errno.h>
#include <sys/socket.h>

#define ROUNDS 8 /* of reading and writing in one turn of the loop, for the sake of the others */

static void
on_session_ready(evutil_socket_t fd, short what, void *ctx)
{
	(void)fd;
	(void)what;
	ev_turn();
	pump_run(ctx);
}

static void
stalled(void *ctx)
{
	client_free(ctx, "client takes no data");
}

void
pump_start(struct client *c, int session_fd)
{
	c->state = CLIENT_PUMP;
	ev_timer_clear(&c->timer);
	watch_open(&c->session, c->s->d->base, session_fd, on_session_ready, c);
	pump_run(c);
}

/* Remembers how the session's output ends. */
static void
note_tail(struct client *c, struct slice s)
{
	size_t n = s.n < sizeof(c->tail) ? s.n : sizeof(c->tail);

	if (s.n == 0)
		return;
	if (memmem(s.p, s.n, "* BYE", 5))
		c->said_bye = true;
	memcpy(c->tail, s.p + s.n - n, n);
	c->tail_n = n;
}

/* From the session to c->out: 1 more may be there, 0 nothing now, or the end. */
static int
session_read(struct client *c)
{
	size_t before = buf_len(&c->out), room = before < PUMP_BUFFER ? PUMP_BUFFER - before : 0;
	ptrdiff_t n;

	if (room == 0)
		return 0;
	n = buf_read(&c->out, c->session.fd, room);
	if (n > 0) {
		note_tail(c, slice_sub(buf_slice(&c->out), before, before + (size_t)n));
		return (size_t)n == room;
	}
	if (n == -EAGAIN)
		return 0;
	c->session_eof = true;
	/* A session that did not say goodbye died: the client is told, where a line has just ended.
	 */
	if (c->s->protocol->gone && !c->said_bye && (!c->client_eof || c->stopping) &&
	    (c->tail_n == 0 || (c->tail_n >= 2 && memcmp(c->tail + c->tail_n - 2, "\r\n", 2) == 0)))
		buf_add_str(&c->out, c->s->protocol->gone);
	return 0;
}

static int
session_write(struct client *c)
{
	while (buf_len(&c->in) > 0) {
		struct slice s = buf_slice(&c->in);
		ssize_t n = send(c->session.fd, s.p, s.n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0)
			return err_errno();
		buf_consume(&c->in, (size_t)n);
	}
	return 0;
}

/* One round; false: nothing moves any more. Sets *why at the end of the client. */
static bool
round_trip(struct client *c, const char **why)
{
	bool moved = false;
	size_t before;
	int err;

	if (!c->session_eof) {
		before = buf_len(&c->in);
		err = session_write(c);
		moved |= buf_len(&c->in) < before;
		if (err && err != -EAGAIN) { /* it is gone; what it said last is read below */
			buf_wipe(&c->in);
			c->client_eof = true;
		}
		before = buf_len(&c->out);
		if (session_read(c) > 0 || buf_len(&c->out) > before)
			moved = true;
	}
	before = buf_len(&c->out);
	err = client_write(c, &c->out);
	moved |= buf_len(&c->out) < before;
	if (err && err != -EAGAIN) {
		*why = "client gone";
		return false;
	}
	if (c->session_eof && buf_len(&c->out) == 0) {
		*why = "session ended";
		return false;
	}
	if (!c->client_eof && !c->session_eof) {
		before = buf_len(&c->in);
		err = client_read(c, PUMP_BUFFER);
		if (err < 0)
			c->client_eof = true;
		if (err > 0 || buf_len(&c->in) > before)
			moved = true;
	}
	return moved;
}

/* Tells the session that no more will come, once all that came has been passed on. */
static void
pass_eof(struct client *c)
{
	if (c->client_eof && !c->told_eof && buf_len(&c->in) == 0 && !c->session_eof) {
		c->told_eof = true;
		(void)shutdown(c->session.fd, SHUT_WR);
	}
}

void
pump_run(struct client *c)
{
	const char *why = NULL;
	bool out_waits, in_waits;
	int rounds = 0;

	while (rounds++ < ROUNDS && round_trip(c, &why) && !why)
		;
	if (why) {
		client_end(c, why);
		return;
	}
	pass_eof(c);
	out_waits = buf_len(&c->out) > 0;
	in_waits = buf_len(&c->in) > 0;
	watch_want(&c->net, !c->client_eof && buf_len(&c->in) < PUMP_BUFFER, out_waits);
	watch_want(&c->session, !c->session_eof && buf_len(&c->out) < PUMP_BUFFER,
	    in_waits && !c->session_eof);
	if (!out_waits) {
		buf_free(&c->out);
		ev_timer_clear(&c->timer);
	} else if (!c->stalled || c->out_mark != buf_len(&c->out)) {
		ev_timer_set(c->s->d->base, &c->timer, c->conf->imap_idle_timeout, stalled, c);
	}
	c->stalled = out_waits;
	c->out_mark = buf_len(&c->out);
	if (!in_waits)
		buf_free(&c->in);
	/* What TLS holds decrypted does not make the descriptor readable: come back by ourselves.
	 */
	if (c->tls && !c->client_eof && buf_len(&c->in) < PUMP_BUFFER && tls_pending(c->tls))
		event_active(c->net.readable, EV_READ, 0);
}

/* The suite stops: what the client has said is answered, then the session is told that there is no
 * more. */
void
pump_stop(struct client *c)
{
	c->stopping = true;
	c->client_eof = true;
	pump_run(c);
}
