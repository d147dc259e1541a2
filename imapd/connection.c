/*
 * One IMAP connection: a stream from login, and the session engine that answers on it. Runs in
 * imapd-child as the user. Invariants: at most one buffer of input stays unread; nothing is read
 * while a command runs or output waits; a long command gives way to the other connections after
 * each step; a client that takes nothing for STALL_MS is dropped.
 */
#include "imapd/imapd.h"

#include "access/login.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { READ_SIZE = 16384, STALL_MS = 300000, KEEPALIVE_MS = 240000, PREAMBLE_MS = 10000 };

struct connection {
	LIST_ENTRY(connection) next;
	struct user *u;
	struct imap_session *session; /* NULL: the preamble of login is awaited */
	int fd;
	struct event *readable, *writable;
	bool reading, writing, eof;
	bool behind; /* an idling client that takes no output was not told of a change */
	struct ev_timer timer;
	struct ev_timer again; /* the next turn, after the other connections had theirs */
	struct buf in;
	char *id, *client;
	uint64_t bytes_in, bytes_out;
	int64_t since; /* the client is silent, milliseconds: its last byte, or our answer to it */
};

static void pump(struct connection *c);
static void go_on(struct connection *c);

static void
want(struct event *e, bool *is, bool wanted)
{
	if (*is == wanted)
		return;
	*is = wanted;
	if (wanted)
		(void)event_add(e, NULL);
	else
		(void)event_del(e);
}

static void
connection_free(struct connection *c, const char *why)
{
	static const struct imap_session_counts none;
	const struct imap_session_counts *n = c->session ? imap_session_counts(c->session) : &none;
	struct user *u = c->u;
	const char *limit = NULL, *told = c->session ? imap_session_why(c->session, &limit) : NULL;

	log_event(LOG_imap_disconnect,
	    "sid=%s user=%s client=%s reason=\"%s\"%s%s commands=%llu errors=%llu fetched=%llu "
	    "appended=%llu expunged=%llu in=%llu out=%llu",
	    log_cstr(c->id), log_cstr(u->start->user), log_cstr(c->client), told ? told : why,
	    limit ? " limit=" : "", limit ? limit : "", (unsigned long long)n->commands,
	    (unsigned long long)n->errors, (unsigned long long)n->fetched,
	    (unsigned long long)n->appended, (unsigned long long)n->expunged,
	    (unsigned long long)c->bytes_in, (unsigned long long)c->bytes_out);
	LIST_REMOVE(c, next);
	imap_session_free(&c->session);
	event_free(c->readable);
	event_free(c->writable);
	ev_timer_free(&c->again);
	ev_timer_free(&c->timer);
	close(c->fd);
	buf_free(&c->in);
	free(c->id);
	free(c->client);
	free(c);
	user_left(u);
}

/* --- time --- */

static void set_timer(struct connection *c);

static void
on_timer(void *arg)
{
	struct connection *c = arg;
	int64_t quiet = ev_now_us() / 1000 - c->since;

	if (!c->session) {
		connection_free(c, "login sent nothing");
		return;
	}
	if (buf_len(imap_session_out(c->session))) {
		connection_free(c, "the client takes no output");
		return;
	}
	if (quiet >= c->u->d->conf->imap_idle_timeout && !imap_session_busy(c->session)) {
		imap_session_bye(c->session, "[UNAVAILABLE] Idle for too long");
	} else {
		imap_session_keepalive(c->session);
	}
	pump(c);
}

/* Output that waits has STALL_MS; an idling client is told that we live; else the client's silence
 * counts. */
static void
set_timer(struct connection *c)
{
	int64_t left = c->u->d->conf->imap_idle_timeout - (ev_now_us() / 1000 - c->since);

	if (left < 1)
		left = 1;
	if (buf_len(imap_session_out(c->session)))
		left = STALL_MS;
	else if (imap_session_idling(c->session) && left > KEEPALIVE_MS)
		left = KEEPALIVE_MS;
	ev_timer_set(c->u->d->base, &c->timer, left, on_timer, c);
}

/* --- bytes --- */

/* False: the connection is gone. */
static bool
write_out(struct connection *c)
{
	struct buf *out = imap_session_out(c->session);

	while (buf_len(out)) {
		ptrdiff_t n = buf_write(out, c->fd);

		if (n == -EAGAIN || n == -EWOULDBLOCK)
			break;
		if (n < 0) {
			connection_free(c, err_str((int)n));
			return false;
		}
		c->bytes_out += (uint64_t)n;
	}
	if (buf_len(out))
		return true;
	/* What a large answer or an idle client does not need now is given back. */
	if (out->size > READ_SIZE)
		buf_free(out);
	if (!buf_len(&c->in) && imap_session_idling(c->session))
		buf_free(&c->in);
	if (imap_session_ended(c->session)) {
		connection_free(c, "ended");
		return false;
	}
	return true;
}

static void
log_trouble(const struct connection *c)
{
	int err = imap_session_trouble(c->session);

	if (err)
		log_event(LOG_imap_failed, "sid=%s user=%s reason=\"%s\"", log_cstr(c->id),
		    log_cstr(c->u->start->user), err_str(err));
}

/* One turn: takes what was read, runs a step, writes, and says what to wait for. */
static void
pump(struct connection *c)
{
	struct imap_session *s = c->session;
	size_t before = buf_len(&c->in);
	bool ran = false;

	if (imap_session_busy(s) &&
	    buf_len(imap_session_out(s)) < (size_t)c->u->d->conf->imap_output_watermark) {
		imap_session_run(s);
		ran = true;
	}
	if (!imap_session_busy(s) && buf_len(&c->in)) {
		buf_consume(&c->in, imap_session_feed(s, buf_slice(&c->in)));
		ran = true;
	}
	if (ran) {
		log_trouble(c);
		user_active(c->u);
		if (!imap_session_busy(s))
			connections_changed(c->u, c);
	}
	/* An answer ends here; what an idling client is told by itself is none. */
	if (ran || (buf_len(imap_session_out(s)) && !imap_session_idling(s)))
		c->since = ev_now_us() / 1000;
	if (!write_out(c))
		return;
	if (c->behind && !buf_len(imap_session_out(s))) {
		c->behind = false;
		imap_session_changed(s);
		if (!write_out(c))
			return;
	}
	want(c->writable, &c->writing, buf_len(imap_session_out(s)) > 0);
	/* What came before the end of the stream is answered; half a command is not. */
	if (c->eof && !c->writing && !imap_session_busy(s) && buf_len(&c->in) == before) {
		connection_free(c, "the client closed the connection");
		return;
	}
	want(c->readable, &c->reading,
	    !c->eof && !imap_session_busy(s) && !c->writing && buf_len(&c->in) < READ_SIZE);
	/* More to do without waiting for anything: after the others had their turn. */
	if (!c->writing && (imap_session_busy(s) || c->eof || buf_len(&c->in)))
		go_on(c);
	set_timer(c);
}

static void
on_again(void *arg)
{
	pump(arg);
}

/* A timer of no time: libevent looks at the descriptors first, which an active event would not wait
 * for. */
static void
go_on(struct connection *c)
{
	ev_timer_set(c->u->d->base, &c->again, 0, on_again, c);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	ev_turn();
	pump(arg);
}

/* login sends its preamble first (lib/imap/login.h). False: not there yet, or the connection is
 * gone. */
static bool
take_preamble(struct connection *c)
{
	const struct conf *conf = c->u->d->conf;
	struct imap_session_config config = { .store = c->u->store,
		.charsets = c->u->start->charsets,
		.max_command = (size_t)conf->imap_command_limit,
		.max_literal = (size_t)conf->imap_literal_limit,
		.max_depth = (unsigned)conf->imap_parenthesis_limit,
		.max_nesting = (unsigned)conf->mime_nesting_limit,
		.watermark = (size_t)conf->imap_output_watermark,
		.max_append = (uint64_t)conf->imap_append_limit,
		.max_errors = (unsigned)conf->imap_error_limit };
	struct handover h;
	int n = handover_decode(buf_slice(&c->in), &h);

	if (n < 0)
		connection_free(c, "the preamble of login is malformed");
	if (n <= 0)
		return false;
	c->session = imap_session_new(&config, h.tag);
	log_event(LOG_imap_connect, "sid=%s user=%s client=%s tls=%s", log_cstr(c->id),
	    log_cstr(c->u->start->user), log_cstr(c->client), h.tls ? "yes" : "no");
	buf_consume(&c->in, (size_t)n);
	return true;
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct connection *c = arg;
	ptrdiff_t n = buf_read(&c->in, fd, READ_SIZE);

	(void)what;
	ev_turn();
	if (n == -EAGAIN || n == -EWOULDBLOCK)
		return;
	if (n < 0 || (!n && !c->session)) {
		connection_free(c, n < 0 ? err_str((int)n) : "the client closed the connection");
		return;
	}
	c->eof = !n;
	c->bytes_in += (uint64_t)n;
	c->since = ev_now_us() / 1000;
	if (c->session || take_preamble(c))
		pump(c);
}

void
connections_changed(struct user *u, const struct connection *but)
{
	struct connection *c, *after;

	for (c = LIST_FIRST(&u->all); c; c = after) {
		after = LIST_NEXT(c, next);
		if (c == but || !c->session || !imap_session_idling(c->session))
			continue;
		if (buf_len(imap_session_out(c->session)) >=
		    (size_t)u->d->conf->imap_output_watermark) {
			c->behind = true;
			continue;
		}
		imap_session_changed(c->session);
		if (buf_len(imap_session_out(c->session)) && !c->writing)
			go_on(c);
	}
}

void
connections_bye(struct user *u, const char *text)
{
	struct connection *c;

	LIST_FOREACH(c, &u->all, next) {
		if (!c->session)
			continue;
		imap_session_bye(c->session, text);
		go_on(c);
	}
}

static struct event *
event(struct connection *c, int fd, short what, void (*fn)(evutil_socket_t, short, void *))
{
	struct event *e = event_new(c->u->d->base, fd, what, fn, c);

	if (!e)
		die("out of memory for an event");
	return e;
}

void
connection_new(struct user *u, int fd, const struct msg_session_attach *attach)
{
	struct connection *c = xcalloc(1, sizeof(*c));

	c->u = u;
	c->fd = fd;
	c->id = slice_dup(attach->session);
	c->client = slice_dup(attach->client);
	c->since = ev_now_us() / 1000;
	c->readable = event(c, fd, EV_READ | EV_PERSIST, on_readable);
	c->writable = event(c, fd, EV_WRITE | EV_PERSIST, on_writable);
	LIST_INSERT_HEAD(&u->all, c, next);
	if (ev_nonblock(fd) < 0) {
		connection_free(c, "the descriptor cannot be used");
		return;
	}
	want(c->readable, &c->reading, true);
	ev_timer_set(u->d->base, &c->timer, PREAMBLE_MS, on_timer, c);
}
