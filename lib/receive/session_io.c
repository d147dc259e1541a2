/*
 * The bytes of one client: plain read and write on its descriptor, or TLS. Runs in the children of
 * smtpd and submission; the client is hostile. Budget of a plaintext round trip: one wait of the
 * loop, one read, one write. Invariants: after STARTTLS no byte that was read before it reaches the
 * engine (it refuses input until answer_tls, and what it had is dropped there); at most 64 KiB are
 * read in one turn and, while the engine waits, at most 64 KiB are kept.
 */
#include "receive/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEPT_MAX 65536u

static void on_readable(evutil_socket_t fd, short what, void *ctx);
static void on_writable(evutil_socket_t fd, short what, void *ctx);

void
session_io_start(struct session *s)
{
	struct event_base *base = s->service->d->base;

	s->readable = event_new(base, s->fd, EV_READ | EV_PERSIST, on_readable, s);
	s->writable = event_new(base, s->fd, EV_WRITE | EV_PERSIST, on_writable, s);
}

void
session_io_stop(struct session *s)
{
	if (s->readable)
		event_free(s->readable);
	if (s->writable)
		event_free(s->writable);
	tls_conn_free(&s->tls);
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

/* Where the kernel does not watch the connection any more (no memory, fs.epoll.max_user_watches),
 * it ends: without its events it would hang until the client gives up. */
static void
set_event(struct session *s, struct event *ev, bool *now, bool wanted)
{
	if (*now == wanted)
		return;
	*now = wanted;
	if (!wanted) {
		event_del(ev);
	} else if (event_add(ev, NULL)) {
		log_event(LOG_session_unwatched, "sid=%s client=%s", s->id, s->client);
		(void)shutdown(s->fd, SHUT_RDWR);
		event_active(s->readable, EV_READ, 0);
	}
}

/* While the engine waits, a client may send ahead a little: the event stays, which saves two system
 * calls a command. */
void
session_events(struct session *s)
{
	bool room = smtp_server_wants_input(s->engine) || smtp_server_pending(s->engine) < KEPT_MAX;
	bool output = buf_len(smtp_server_output(s->engine)) && !s->held;

	if (s->io == IO_HANDSHAKE)
		return; /* set by the handshake */
	set_event(s, s->readable, &s->reading,
	    !s->eof && (room || s->io == IO_LINGER) && (!s->closing || s->io == IO_LINGER));
	set_event(s, s->writable, &s->writing, output);
	/* what OpenSSL holds raises no event of its own */
	if (s->inside && s->reading && s->io == IO_TLS) {
		s->inside = false;
		event_active(s->readable, EV_READ, 0);
	}
}

/* --- output --- */

/* Unread input would make the kernel send a reset, which may overtake our last reply. */
static void
linger(struct session *s)
{
	if (s->io == IO_LINGER || s->eof || !s->rejects || s->dead)
		return;
	if (s->io == IO_TLS)
		(void)!tls_shutdown(s->tls);
	s->io = IO_LINGER;
	s->last_input = ev_now_us();
	shutdown(s->fd, SHUT_WR);
}

/* The last reply and the end of the connection that follows at once share a segment. */
static ptrdiff_t
write_last(struct session *s, struct buf *out)
{
	ssize_t n = send(s->fd, buf_slice(out).p, buf_len(out), MSG_MORE | MSG_NOSIGNAL);

	if (n < 0)
		return err_errno();
	buf_consume(out, (size_t)n);
	return n;
}

static int
write_some(struct session *s, struct buf *out)
{
	ptrdiff_t n;

	if (s->io == IO_TLS)
		return tls_write_buf(s->tls, out);
	if (s->closing && !s->rejects && !s->local)
		n = write_last(s, out);
	else
		n = buf_write(out, s->fd);
	return n < 0 ? (int)n : 0;
}

static void
log_tls_failed(const struct session *s)
{
	log_event(LOG_tls_failed, "sid=%s client=%s[%s] reason=%s", s->id, s->name, s->client,
	    log_cstr(tls_error(s->tls)));
}

/* The connection is of no more use. That a client has gone is said at its end; a fault of TLS is
 * not. */
static void
lost(struct session *s, ptrdiff_t err)
{
	s->dead = true;
	if (s->io == IO_TLS && (err == ERR_SYNTAX || err == -ENOMEM))
		log_tls_failed(s);
}

void
session_flush(struct session *s)
{
	struct buf *out = smtp_server_output(s->engine);

	while (buf_len(out) && !s->held && !s->dead && (s->io == IO_PLAIN || s->io == IO_TLS)) {
		int err = write_some(s, out);
		if (err == -EAGAIN || err == TLS_WANT_WRITE || err == TLS_WANT_READ)
			return;
		if (err) {
			lost(s, err);
			return;
		}
		if (buf_len(out))
			continue;
		s->depth++;
		smtp_server_resume(s->engine);
		s->depth--;
	}
	if (buf_len(out) || s->held)
		return;
	buf_free(out); /* an idle session keeps no buffer */
	if (s->start_tls) {
		s->start_tls = false;
		session_handshake(s);
	}
	if (s->closing && !s->dead) {
		linger(s);
		if (s->io == IO_TLS)
			(void)!tls_shutdown(s->tls);
	}
}

/* --- TLS --- */

static void
describe_tls(struct session *s)
{
	struct tls_info info;

	tls_info(s->tls, &info);
	if (session_conf(s)->smtpd_tls_received_header)
		snprintf(s->tls_text, sizeof(s->tls_text), "%s with cipher %s (%d/%d bits)",
		    info.protocol, info.cipher, info.bits, info.key_bits);
	if (session_conf(s)->smtpd_tls_loglevel)
		log_event(LOG_tls,
		    "sid=%s client=%s[%s] protocol=%s cipher=%s bits=%d resumed=%d sni=%s", s->id,
		    s->name, s->client, info.protocol, info.cipher, info.bits, info.resumed,
		    log_cstr(info.sni));
}

static void
handshake_done(struct session *s)
{
	s->io = IO_TLS;
	/* The client's first command may have come with the end of its handshake, and raises no
	 * event any more. */
	s->inside = tls_pending(s->tls);
	describe_tls(s);
	if (smtp_server_state(s->engine) == SMTP_CONNECTED)
		smtp_server_greet(s->engine, true);
	else
		smtp_server_answer_tls(s->engine, true);
}

static void
handshake_failed(struct session *s)
{
	log_tls_failed(s);
	if (smtp_server_state(s->engine) == SMTP_TLS)
		smtp_server_answer_tls(s->engine, false);
	s->dead = true;
}

static void
handshake_step(struct session *s)
{
	int rc = tls_handshake(s->tls);

	if (rc == TLS_WANT_READ || rc == TLS_WANT_WRITE) {
		set_event(s, s->readable, &s->reading, rc == TLS_WANT_READ);
		set_event(s, s->writable, &s->writing, rc == TLS_WANT_WRITE);
	} else if (rc) {
		handshake_failed(s);
	} else {
		handshake_done(s);
	}
}

void
session_handshake(struct session *s)
{
	s->last_input = ev_now_us();
	s->io = IO_HANDSHAKE;
	if (!tls_set_ctx(&s->service->tls)) {
		log_event(LOG_tls_unavailable,
		    "sid=%s client=%s reason=\"no usable certificate\" remedy=\"set "
		    "smtpd_tls_cert_file\"",
		    s->id, s->client);
		s->dead = true;
		return;
	}
	s->tls = tls_conn_new(tls_set_ctx(&s->service->tls), s->fd, TLS_SERVER);
	handshake_step(s);
}

/* --- input --- */

static ptrdiff_t
read_some(struct session *s, unsigned char *p, size_t n)
{
	ssize_t got;

	if (s->io == IO_TLS)
		return tls_read(s->tls, p, n);
	do
		got = read(s->fd, p, n);
	while (got < 0 && errno == EINTR);
	return got < 0 ? err_errno() : got;
}

static void
take(struct session *s, struct slice bytes)
{
	enum smtp_state state = smtp_server_state(s->engine);
	/* a password must not be left in the shared buffer for a later reader, whatever becomes of
	 * the exchange */
	bool secret = state == SMTP_AUTH || slice_has_caseprefix(bytes, "AUTH ");

	/* A command that comes octet by octet has the time of one command. */
	if (state == SMTP_DATA || state == SMTP_CHUNK || slice_find(bytes, '\n') >= 0)
		s->last_input = ev_now_us();
	if (s->wait == WAIT_FOR_NOTHING)
		s->window_bytes += bytes.n;
	smtp_server_feed(s->engine, bytes);
	if (secret || smtp_server_state(s->engine) == SMTP_AUTH || s->wait == WAIT_FOR_AUTH)
		explicit_bzero(s->service->input, bytes.n);
}

/* Plain: one read a turn. TLS: as long as bytes wait inside, for which no event would come; what is
 * left at the bound is taken in the next turn. */
static void
read_input(struct session *s)
{
	size_t total = 0;

	s->inside = false;
	do {
		ptrdiff_t n = read_some(s, s->service->input, SERVICE_INPUT);
		if (n == -EAGAIN || n == TLS_WANT_READ || n == TLS_WANT_WRITE)
			return;
		if (!n || n == ERR_CLOSED) {
			s->eof = true;
			return;
		}
		if (n < 0) {
			lost(s, n);
			return;
		}
		total += (size_t)n;
		take(s, slice(s->service->input, (size_t)n));
		if (s->io != IO_TLS || s->closing || !tls_pending(s->tls))
			return;
	} while (total < SERVICE_INPUT && smtp_server_pending(s->engine) < KEPT_MAX);
	s->inside = true;
}

static void
drop_input(struct session *s)
{
	ssize_t n = read(s->fd, s->service->input, SERVICE_INPUT);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		s->dead = true;
}

static void
on_readable(evutil_socket_t fd, short what, void *ctx)
{
	struct session *s = ctx;

	(void)fd;
	(void)what;
	ev_turn();
	session_enter(s);
	if (s->io == IO_LINGER)
		drop_input(s);
	else if (s->io == IO_HANDSHAKE)
		handshake_step(s);
	else
		read_input(s);
	session_leave(s);
}

static void
on_writable(evutil_socket_t fd, short what, void *ctx)
{
	struct session *s = ctx;

	(void)fd;
	(void)what;
	ev_turn();
	session_enter(s);
	if (s->io == IO_HANDSHAKE)
		handshake_step(s);
	session_leave(s); /* writes */
}
