/*
 * Channels between processes. Runs in every daemon. The peer may be taken over: whatever it sends
 * is checked for role, shape and descriptors here, before any handler sees it; the worst it gets is
 * its own channel closed. Invariants: a message is sent whole or queued whole; a freed channel is
 * not touched after its handler returns (busy/dead); memory queued towards a peer is bounded by the
 * callers, or towards one that only asks by not reading its questions (ipc_chan_asked).
 */
#include "ipc/chan.h"

#include "ipc/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 8 /* messages taken by one system call */
#define AGAIN_MS 10

struct queued {
	STAILQ_ENTRY(queued) next;
	int fd;
	size_t n;
	unsigned char data[];
};

struct ipc_io {
	struct event_base *base;
	enum role self;
	struct buf out;    /* the message being encoded */
	unsigned char *in; /* BATCH areas of MSG_MAX bytes; pages are touched as they are used */
	struct mmsghdr heads[BATCH];
	struct iovec iov[BATCH];
	char control[BATCH][CMSG_SPACE(sizeof(int) * 4)];
	uint32_t last_id; /* of all channels: see ipc_next_id */
};

struct ipc_chan {
	struct ipc_io *io;
	int fd;
	enum role peer;
	const struct ipc_ops *ops;
	void *ctx, *data;
	struct event *readable, *writable;
	STAILQ_HEAD(, queued) queue;
	size_t queued;
	bool busy, dead, reading, credited, crediting;
	bool asked, held, choked; /* reading unless held (by its owner) or choked (answers wait) */
	bool starved;             /* or the kernel had no memory for it just now */
	bool broken; /* a message was lost: what is under way with the peer never ends by itself */
	struct ev_timer again; /* after a shortage */
	int64_t credit;        /* bytes that may still be sent (credited) */
	uint32_t owed;         /* bytes handled and not yet granted again (crediting) */
};

struct ipc_io *
ipc_io_new(struct event_base *base, enum role self)
{
	struct ipc_io *io = xcalloc(1, sizeof(*io));

	io->base = base;
	io->self = self;
	io->in = xmalloc(BATCH * MSG_MAX);
	if (getrandom(&io->last_id, sizeof(io->last_id), 0) != (ssize_t)sizeof(io->last_id))
		die("getrandom: no randomness");
	for (size_t i = 0; i < BATCH; i++) {
		io->iov[i] = (struct iovec){ io->in + i * MSG_MAX, MSG_MAX };
		io->heads[i].msg_hdr.msg_iov = &io->iov[i];
		io->heads[i].msg_hdr.msg_iovlen = 1;
	}
	return io;
}

void
ipc_io_free(struct ipc_io **io)
{
	if (*io) {
		buf_free(&(*io)->out);
		free((*io)->in);
		free(*io);
	}
	*io = NULL;
}

static bool
is_receiver(enum role role)
{
	return msg_allowed(MSG_MAIL_COMMIT, role, ROLE_QMGR);
}

static void
queued_free(struct queued *q)
{
	if (q->fd >= 0)
		close(q->fd);
	explicit_bzero(q->data, q->n); /* rare enough to do for all */
	free(q);
}

static void
drop_queue(struct ipc_chan *ch)
{
	while (!STAILQ_EMPTY(&ch->queue)) {
		struct queued *q = STAILQ_FIRST(&ch->queue);
		STAILQ_REMOVE_HEAD(&ch->queue, next);
		queued_free(q);
	}
	ch->queued = 0;
}

void
ipc_chan_free(struct ipc_chan **chp)
{
	struct ipc_chan *ch = *chp;

	*chp = NULL;
	if (!ch)
		return;
	if (ch->fd >= 0) {
		event_free(ch->readable);
		event_free(ch->writable);
		ev_timer_free(&ch->again);
		close(ch->fd);
		ch->fd = -1;
	}
	drop_queue(ch);
	if (ch->busy) {
		ch->dead = true;
		return;
	}
	free(ch);
}

static void
shut_out(struct ipc_chan *ch, int err, const char *why)
{
	struct ipc_chan *gone = ch;

	if (ch->dead)
		return;
	ch->ops->closed(ch->ctx, ch, err, why);
	if (!ch->dead) /* busy: freed by on_readable, who called us */
		ipc_chan_free(&gone);
}

static void
set_reading(struct ipc_chan *ch)
{
	bool now = !ch->held && !ch->choked && !ch->starved;

	if (ch->fd < 0 || ch->reading == now)
		return;
	ch->reading = now;
	if (now)
		event_add(ch->readable, NULL);
	else
		event_del(ch->readable);
}

/* Who asks and does not read the answers is not heard until it does. */
static void
set_choked(struct ipc_chan *ch)
{
	if (ch->asked && ch->queued > IPC_ANSWERS_MAX)
		ch->choked = true;
	else if (ch->queued <= IPC_ANSWERS_MAX / 2)
		ch->choked = false;
	set_reading(ch);
}

/* The kernel has nothing to spare just now: the peer is there, and the message is not lost. */
static bool
is_short(int err)
{
	return err == -ENOMEM || err == -ENOBUFS || err == -ETOOMANYREFS;
}

static void flush_queue(struct ipc_chan *ch);

static void
on_again(void *arg)
{
	struct ipc_chan *ch = arg;

	if (ch->broken) {
		shut_out(ch, ERR_CLOSED, "cannot be written to");
		return;
	}
	ch->starved = false;
	flush_queue(ch);
}

static void
try_again(struct ipc_chan *ch, int err)
{
	if (err == -EAGAIN)
		event_add(ch->writable, NULL);
	else
		ev_timer_set(ch->io->base, &ch->again, AGAIN_MS, on_again, ch);
}

/* Not from inside a send: its caller may be in the midst of what closed() undoes. A peer that is
 * gone is left to the reader, which first takes what it said before. */
static void
give_up(struct ipc_chan *ch, int err)
{
	drop_queue(ch);
	if (err == -EPIPE || err == -ECONNRESET)
		return;
	ch->broken = true;
	ev_timer_set(ch->io->base, &ch->again, 0, on_again, ch);
}

static bool
has_credit(const struct ipc_chan *ch, size_t n)
{
	return !ch->credited || ch->credit >= (int64_t)n;
}

static void
flush_queue(struct ipc_chan *ch)
{
	int err = 0;

	while (!STAILQ_EMPTY(&ch->queue)) {
		struct queued *q = STAILQ_FIRST(&ch->queue);
		if (!has_credit(ch, q->n))
			break;
		err = ipc_transmit(ch->fd, q->data, q->n, q->fd);
		if (err)
			break;
		ch->credit -= (int64_t)q->n;
		ch->queued -= q->n;
		STAILQ_REMOVE_HEAD(&ch->queue, next);
		queued_free(q);
	}
	if (err == -EAGAIN || is_short(err))
		try_again(ch, err);
	else if (err)
		give_up(ch, err);
	set_choked(ch);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	flush_queue(arg);
}

static int
enqueue(struct ipc_chan *ch, struct slice s, int fd)
{
	struct queued *q = xmalloc(sizeof(*q) + s.n);

	q->n = s.n;
	q->fd = -1;
	if (fd >= 0 && (q->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0) {
		int err = err_errno();
		free(q);
		return err;
	}
	memcpy(q->data, s.p, s.n);
	STAILQ_INSERT_TAIL(&ch->queue, q, next);
	ch->queued += s.n;
	set_choked(ch);
	return 0;
}

/* What io->out holds goes out, or waits. */
static int
send_encoded(struct ipc_chan *ch, int fd)
{
	const struct buf *out = &ch->io->out;
	int err;

	if (!STAILQ_EMPTY(&ch->queue) || !has_credit(ch, buf_len(out)))
		return enqueue(ch, buf_slice(out), fd);
	err = ipc_transmit(ch->fd, buf_slice(out).p, buf_len(out), fd);
	if (err == -EAGAIN || is_short(err)) {
		try_again(ch, err);
		return enqueue(ch, buf_slice(out), fd);
	}
	if (err) {
		give_up(ch, err);
		return ERR_CLOSED;
	}
	ch->credit -= (int64_t)buf_len(out);
	return 0;
}

int
ipc_send(struct ipc_chan *ch, const struct msg *m)
{
	struct buf *out;
	int err, rule = msg_fd_rule(m->type);

	if (ch->fd < 0 || ch->broken)
		return ERR_CLOSED;
	if (!msg_allowed(m->type, ch->io->self, ch->peer) || (rule == 1 && m->fd < 0) ||
	    (rule == 0 && m->fd >= 0))
		return ERR_DENIED;
	out = &ch->io->out;
	buf_clear(out);
	msg_encode(out, m);
	if (buf_len(out) > MSG_MAX)
		out->err = ERR_LIMIT;
	err = out->err ? out->err : send_encoded(ch, m->fd);
	if (msg_secret(m->type))
		explicit_bzero(out->data, out->size);
	return err;
}

int
ipc_answer(struct ipc_chan *ch, const struct msg *m, const struct msg *instead)
{
	int err = ipc_send(ch, m);

	if (err == ERR_LIMIT || err == ERR_SYNTAX)
		(void)ipc_send(ch, instead);
	return err;
}

static const char *
fault_of(const struct ipc_chan *ch, struct slice in, struct msg *m, int flags)
{
	int rule;

	if (flags & (MSG_TRUNC | MSG_CTRUNC))
		return "message or descriptors truncated";
	if (m->fd == -2)
		return "more than one descriptor";
	if (msg_decode(in, m))
		return "message does not decode";
	if (!msg_allowed(m->type, ch->peer, ch->io->self))
		return "message not permitted for this peer";
	rule = msg_fd_rule(m->type);
	if ((rule == 0 && m->fd >= 0) || (rule == 1 && m->fd < 0))
		return "descriptor missing or not expected";
	return NULL;
}

static void
grant(struct ipc_chan *ch, size_t n)
{
	struct msg m = MSG_INIT(MSG_CREDIT, 0);

	ch->owed += (uint32_t)n;
	if (!ch->crediting || ch->owed < IPC_CREDIT / 2 || ch->dead)
		return;
	m.credit.bytes = ch->owed;
	ch->owed = 0;
	if (ipc_send(ch, &m))
		return; /* the reader sees the end of the channel */
}

static void
handle(struct ipc_chan *ch, struct slice in, struct msghdr *head)
{
	struct msg m;
	const char *why;

	m.fd = ipc_take_fd(head);
	why = fault_of(ch, in, &m, head->msg_flags);
	if (why) {
		if (m.fd >= 0)
			close(m.fd);
		shut_out(ch, ERR_SYNTAX, why);
		return;
	}
	if (m.type == MSG_CREDIT) {
		ch->credit += m.credit.bytes;
		if (ch->credit > IPC_CREDIT)
			ch->credit = IPC_CREDIT;
		flush_queue(ch);
		return;
	}
	ch->ops->message(ch->ctx, ch, &m);
	if (msg_secret(m.type))
		explicit_bzero((void *)(uintptr_t)in.p, in.n);
	if (m.fd >= 0)
		close(m.fd);
	if (!ch->dead)
		grant(ch, in.n);
}

/* Of messages from to n that nobody will read: those behind one that shut the peer out, and one of
 * no bytes, which looks like the end but may carry descriptors all the same. */
static void
drop_descriptors(struct ipc_io *io, int from, int n)
{
	for (int i = from; i < n; i++) {
		int fd = ipc_take_fd(&io->heads[i].msg_hdr);
		if (fd >= 0)
			close(fd);
	}
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct ipc_chan *ch = arg;
	struct ipc_io *io = ch->io;
	int i, n;

	(void)what;
	ev_turn();
	for (i = 0; i < BATCH; i++) {
		io->heads[i].msg_hdr.msg_control = io->control[i];
		io->heads[i].msg_hdr.msg_controllen = sizeof(io->control[i]);
		io->heads[i].msg_hdr.msg_flags = 0;
	}
	n = recvmmsg(fd, io->heads, BATCH, MSG_DONTWAIT | MSG_CMSG_CLOEXEC, NULL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0 && is_short(err_errno())) {
		ch->starved = true;
		set_reading(ch);
		try_again(ch, -ENOMEM);
		return;
	}
	ch->busy = true;
	for (i = 0; i < n && !ch->dead && io->heads[i].msg_len > 0; i++)
		handle(ch, slice(io->iov[i].iov_base, io->heads[i].msg_len), &io->heads[i].msg_hdr);
	drop_descriptors(io, i, n);
	if (n <= 0 || (i < n && !ch->dead))
		shut_out(ch, ERR_CLOSED, "peer is gone");
	ch->busy = false;
	if (ch->dead)
		free(ch);
}

struct ipc_chan *
ipc_chan_new(struct ipc_io *io, int fd, enum role peer, const struct ipc_ops *ops, void *ctx)
{
	struct ipc_chan *ch = xcalloc(1, sizeof(*ch));
	int err = ev_nonblock(fd);

	if (err)
		die("channel to %s: %s", role_table[peer].name, err_str(err));
	*ch = (struct ipc_chan){ .io = io, .fd = fd, .peer = peer, .ops = ops, .ctx = ctx };
	STAILQ_INIT(&ch->queue);
	ch->credited = peer == ROLE_QMGR && is_receiver(io->self);
	ch->crediting = io->self == ROLE_QMGR && is_receiver(peer);
	ch->credit = IPC_CREDIT;
	ch->readable = event_new(io->base, fd, EV_READ | EV_PERSIST, on_readable, ch);
	ch->writable = event_new(io->base, fd, EV_WRITE, on_writable, ch);
	if (!ch->readable || !ch->writable || event_add(ch->readable, NULL))
		die("channel to %s: the loop refuses it", role_table[peer].name);
	ch->reading = true;
	return ch;
}

uint32_t
ipc_next_id(struct ipc_chan *ch)
{
	if (!++ch->io->last_id)
		ch->io->last_id = 1;
	return ch->io->last_id;
}

enum role
ipc_chan_peer(const struct ipc_chan *ch)
{
	return ch->peer;
}

int
ipc_chan_fd(const struct ipc_chan *ch)
{
	return ch->fd;
}

size_t
ipc_chan_queued(const struct ipc_chan *ch)
{
	return ch->queued;
}

void
ipc_chan_hold(struct ipc_chan *ch, bool hold)
{
	ch->held = hold;
	set_reading(ch);
}

void
ipc_chan_asked(struct ipc_chan *ch)
{
	ch->asked = true;
}

void
ipc_chan_set_data(struct ipc_chan *ch, void *data)
{
	ch->data = data;
}

void *
ipc_chan_data(const struct ipc_chan *ch)
{
	return ch->data;
}
