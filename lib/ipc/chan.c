/*
 * Channels between processes: their life, and what comes in; chan_send.c has what goes out. Runs in
 * every daemon. The peer may be taken over: whatever it sends is checked for role, shape and
 * descriptors here, before any handler sees it; the worst it gets is its own channel closed.
 * Invariant: a freed channel is not touched after its handler returns (busy/dead).
 */
#include "ipc/chan_private.h"

#include "ipc/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

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
	chan_drop_queue(ch);
	if (ch->busy) {
		ch->dead = true;
		return;
	}
	free(ch);
}

void
chan_shut_out(struct ipc_chan *ch, int err, const char *why)
{
	struct ipc_chan *gone = ch;

	if (ch->dead)
		return;
	ch->ops->closed(ch->ctx, ch, err, why);
	if (!ch->dead) /* busy: freed by on_readable, who called us */
		ipc_chan_free(&gone);
}

void
chan_set_reading(struct ipc_chan *ch)
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
		chan_shut_out(ch, ERR_SYNTAX, why);
		return;
	}
	if (m.type == MSG_CREDIT) {
		ch->credit += m.credit.bytes;
		if (ch->credit > IPC_CREDIT)
			ch->credit = IPC_CREDIT;
		chan_flush(ch);
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

/* A peer that closed before it had read all of ours: the kernel says ECONNRESET, once, ahead of
 * what the peer had said, which must not be lost. */
static int
receive(const struct ipc_chan *ch)
{
	struct mmsghdr *heads = ch->io->heads;
	int n = recvmmsg(ch->fd, heads, BATCH, MSG_DONTWAIT | MSG_CMSG_CLOEXEC, NULL);

	if (n < 0 && errno == ECONNRESET)
		n = recvmmsg(ch->fd, heads, BATCH, MSG_DONTWAIT | MSG_CMSG_CLOEXEC, NULL);
	return n;
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct ipc_chan *ch = arg;
	struct ipc_io *io = ch->io;
	int i, n;

	(void)fd;
	(void)what;
	ev_turn();
	for (i = 0; i < BATCH; i++) {
		io->heads[i].msg_hdr.msg_control = io->control[i];
		io->heads[i].msg_hdr.msg_controllen = sizeof(io->control[i]);
		io->heads[i].msg_hdr.msg_flags = 0;
	}
	n = receive(ch);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0 && chan_is_short(err_errno())) {
		ch->starved = true;
		chan_set_reading(ch);
		chan_try_again(ch, -ENOMEM);
		return;
	}
	ch->busy = true;
	for (i = 0; i < n && !ch->dead && io->heads[i].msg_len > 0; i++)
		handle(ch, slice(io->iov[i].iov_base, io->heads[i].msg_len), &io->heads[i].msg_hdr);
	drop_descriptors(io, i, n);
	if (n <= 0 || (i < n && !ch->dead))
		chan_shut_out(ch, ERR_CLOSED, "peer is gone");
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
	ch->writable = event_new(io->base, fd, EV_WRITE, chan_on_writable, ch);
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
	chan_set_reading(ch);
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
