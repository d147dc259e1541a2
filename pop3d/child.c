/*
 * One POP3 session: from session_attach of the broker to the end of the stream to login. Runs as
 * the user with the mail directory as root. Hostile: the client that logged in (pop3/engine.c), the
 * user's files (lib/store). Invariants: one session per process, then it exits; nothing is removed
 * but by QUIT; output waits in the engine, bounded by its watermark, never in the kernel's way.
 */
#include "pop3d/child.h"
#include "pop3d/drop.h"
#include "access/login.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { ATTACH_WAIT_MS = 60000, READ_CHUNK = 4096 };

struct session {
	struct daemon *d;
	int fd;
	struct event *readable, *writable;
	struct ev_timer idle;
	struct buf in;
	bool greeted; /* the preamble is there and the login answered */
	bool ending;  /* the end of the stream, or no mailbox: only the output is left */
	struct store *store;
	struct drop *drop;
	struct pop3_engine *engine;
	char user[257], client[65], sid[33];
	uint64_t sent;
	int64_t began;
};

static void
session_end(struct session *s, const char *why)
{
	struct msg m = MSG_INIT(MSG_SESSION_COUNT, 0);
	const char *limit = NULL, *told = s->engine ? pop3_engine_why(s->engine, &limit) : NULL;

	if (s->fd < 0)
		return;
	log_event(LOG_pop3_session_end,
	    "sid=%s user=%s client=%s sent=%llu seconds=%lld why=\"%s\"%s%s", log_cstr(s->sid),
	    log_cstr(s->user), log_cstr(s->client), (unsigned long long)s->sent,
	    (long long)((ev_now_us() - s->began) / 1000000), told ? told : why,
	    limit ? " limit=" : "", limit ? limit : "");
	event_free(s->readable);
	event_free(s->writable);
	close(s->fd);
	s->fd = -1;
	ev_timer_free(&s->idle);
	pop3_engine_free(&s->engine);
	drop_free(&s->drop);
	store_free(&s->store);
	buf_free(&s->in);
	(void)daemon_send(s->d, ROLE_BROKER, &m);
	daemon_exit(s->d);
}

static void
on_silence(void *ctx)
{
	struct session *s = ctx;

	session_end(
	    s, "silent for pop3_idle_timeout"); /* RFC 1939 section 3: no answer, nothing removed */
}

static void
not_attached(void *ctx)
{
	struct session *s = ctx;

	daemon_exit(s->d);
}

/* False: the session has ended. */
static bool
flush(struct session *s)
{
	struct buf *out = pop3_engine_out(s->engine);

	while (buf_len(out)) {
		ptrdiff_t n = buf_write(out, s->fd);
		if (n == -EAGAIN)
			break;
		if (n < 0) {
			session_end(s, "client gone");
			return false;
		}
		s->sent += (uint64_t)n;
	}
	if (buf_len(out)) {
		event_add(s->writable, NULL);
		return true;
	}
	if (pop3_engine_closed(s->engine)) {
		session_end(s, "closed");
		return false;
	}
	return true;
}

/* Feeds what is there as long as the client takes the answers. */
static void
work(struct session *s)
{
	for (;;) {
		size_t before = buf_len(&s->in);
		buf_consume(&s->in, pop3_engine_feed(s->engine, buf_slice(&s->in)));
		if (!flush(s))
			return;
		if (buf_len(pop3_engine_out(s->engine)))
			break; /* the client is slow: on_writable goes on */
		if (!pop3_engine_busy(s->engine) &&
		    (buf_len(&s->in) == 0 || buf_len(&s->in) == before))
			break;
	}
	if (s->ending && buf_len(pop3_engine_out(s->engine)) == 0) {
		session_end(s, "client gone");
		return;
	}
	if (buf_len(&s->in) < READ_CHUNK && !s->ending)
		event_add(s->readable, NULL);
}

static bool
open_maildrop(struct session *s)
{
	const struct pop3_engine_limits limits = { .max_errors =
						       (unsigned)s->d->conf->pop3_error_limit };
	const char *path = s->d->unprivileged ? s->d->root : "/";
	int rc = store_open(path, NULL, &s->store);

	if (rc == 0 && store_index_renewed(s->store))
		log_event(LOG_index_renewed,
		    "sid=%s user=%s directory=%s reason=\"the index was damaged\"",
		    log_cstr(s->sid), log_cstr(s->user), log_cstr(s->d->root));
	if (rc == 0)
		rc = drop_open(s->store, &s->drop);
	if (rc == 0) {
		s->engine = pop3_engine_new(&drop_ops, s->drop, &limits);
		return true;
	}
	log_event(LOG_pop3_maildrop,
	    "sid=%s user=%s directory=%s reason=\"%s\" remedy=\"make it a Maildir that its user "
	    "may "
	    "read and write\"",
	    log_cstr(s->sid), log_cstr(s->user), log_cstr(s->d->root), err_str(rc));
	(void)!write(s->fd, "-ERR [SYS/TEMP] The mailbox cannot be opened\r\n", 46);
	return false;
}

/* What login sends first. False: the session has ended, or more is needed. */
static bool
take_preamble(struct session *s)
{
	struct handover h;
	int n = handover_decode(buf_slice(&s->in), &h);

	if (n == 0 && s->ending)
		n = ERR_TRUNCATED;
	if (n < 0) {
		session_end(s, "bad preamble");
		return false;
	}
	if (n == 0) {
		event_add(s->readable, NULL);
		return false;
	}
	if (!open_maildrop(s)) {
		session_end(s, "no mailbox");
		return false;
	}
	log_event(LOG_pop3_session, "sid=%s user=%s client=%s tls=%d messages=%u", log_cstr(s->sid),
	    log_cstr(s->user), log_cstr(s->client), h.tls, drop_count(s->drop));
	pop3_engine_start(s->engine, h.tag);
	buf_consume(&s->in, (size_t)n);
	s->greeted = true;
	return true;
}

static void
on_readable(evutil_socket_t fd, short what, void *ctx)
{
	struct session *s = ctx;
	ptrdiff_t n = buf_read(&s->in, fd, READ_CHUNK);

	(void)what;
	ev_turn();
	if (n == -EAGAIN) {
		event_add(s->readable, NULL);
		return;
	}
	s->ending = n <= 0;
	ev_timer_set(s->d->base, &s->idle, s->d->conf->pop3_idle_timeout, on_silence, s);
	if (s->greeted || take_preamble(s))
		work(s);
}

static void
on_writable(evutil_socket_t fd, short what, void *ctx)
{
	struct session *s = ctx;

	(void)fd;
	(void)what;
	ev_turn();
	ev_timer_set(s->d->base, &s->idle, s->d->conf->pop3_idle_timeout, on_silence, s);
	if (flush(s))
		work(s);
}

static void
attach(struct session *s, struct msg *m)
{
	const struct msg_session_attach *a = &m->session_attach;

	if (s->fd >= 0 || m->fd < 0)
		return; /* one session per process; the stream is closed by the channel */
	s->fd = m->fd;
	m->fd = -1;
	s->began = ev_now_us();
	(void)!slice_copy(a->user, s->user, sizeof(s->user));
	(void)!slice_copy(a->client, s->client, sizeof(s->client));
	(void)!slice_copy(a->session, s->sid, sizeof(s->sid));
	if (ev_nonblock(s->fd) < 0) {
		daemon_exit(s->d);
		return;
	}
	s->readable = event_new(s->d->base, s->fd, EV_READ, on_readable, s);
	s->writable = event_new(s->d->base, s->fd, EV_WRITE, on_writable, s);
	event_add(s->readable, NULL);
	ev_timer_set(s->d->base, &s->idle, s->d->conf->pop3_idle_timeout, on_silence, s);
}

/* --- the daemon --- */

int
pop3_child_before_root(struct daemon *d, void *arg)
{
	(void)d;
	return store_make_root(arg);
}

static int
start(struct daemon *d)
{
	struct session *s = xcalloc(1, sizeof(*s));

	s->d = d;
	s->fd = -1;
	d->ctx = s;
	ev_timer_set(d->base, &s->idle, ATTACH_WAIT_MS, not_attached, s);
	return 0;
}

static void
message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	(void)ch;
	if (m->type == MSG_SESSION_ATTACH)
		attach(d->ctx, m);
}

/* A session lives on without the broker and without its zygote (an upgrade); nothing else does. */
static void
link_down(struct daemon *d, struct ipc_chan *ch)
{
	const struct session *s = d->ctx;

	if (ipc_chan_peer(ch) == ROLE_BROKER && s->fd < 0)
		daemon_exit(d);
}

static void
orphaned(struct daemon *d)
{
	const struct session *s = d->ctx;

	if (s->fd < 0)
		daemon_exit(d);
}

static void
stop(struct daemon *d)
{
	struct session *s = d->ctx;

	if (s->fd < 0 || !s->engine) {
		daemon_exit(d);
		return;
	}
	pop3_engine_bye(s->engine, "[SYS/TEMP] The server is going down");
	if (flush(s) && s->fd >= 0)
		s->ending = true;
}

const struct daemon_desc pop3_child_desc = {
	.role = ROLE_POP3D_CHILD,
	.start = start,
	.message = message,
	.link_down = link_down,
	.orphaned = orphaned,
	.stop = stop,
};
