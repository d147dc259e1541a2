/*
 * What goes out on a channel. Runs in every daemon. Hostile: a peer that does not read. Invariants:
 * a send never blocks; a message is sent whole or queued whole; memory queued towards a peer is
 * bounded by the callers, or towards one that only asks by not reading its questions
 * (ipc_chan_asked).
 */
#include "ipc/chan_private.h"
#include "ipc/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define AGAIN_MS 10

static void
queued_free(struct queued *q)
{
	if (q->fd >= 0)
		close(q->fd);
	explicit_bzero(q->data, q->n); /* rare enough to do for all */
	free(q);
}

void
chan_drop_queue(struct ipc_chan *ch)
{
	while (!STAILQ_EMPTY(&ch->queue)) {
		struct queued *q = STAILQ_FIRST(&ch->queue);
		STAILQ_REMOVE_HEAD(&ch->queue, next);
		queued_free(q);
	}
	ch->queued = 0;
}

/* Who asks and does not read the answers is not heard until it does. */
static void
set_choked(struct ipc_chan *ch)
{
	if (ch->asked && ch->queued > IPC_ANSWERS_MAX)
		ch->choked = true;
	else if (ch->queued <= IPC_ANSWERS_MAX / 2)
		ch->choked = false;
	chan_set_reading(ch);
}

/* The kernel has nothing to spare just now: the peer is there, and the message is not lost. */
bool
chan_is_short(int err)
{
	return err == -ENOMEM || err == -ENOBUFS || err == -ETOOMANYREFS;
}

static void
on_again(void *arg)
{
	struct ipc_chan *ch = arg;

	if (ch->broken) {
		chan_shut_out(ch, ERR_CLOSED, "cannot be written to");
		return;
	}
	ch->starved = false;
	chan_flush(ch);
}

void
chan_try_again(struct ipc_chan *ch, int err)
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
	chan_drop_queue(ch);
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

void
chan_flush(struct ipc_chan *ch)
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
	if (err == -EAGAIN || chan_is_short(err))
		chan_try_again(ch, err);
	else if (err)
		give_up(ch, err);
	set_choked(ch);
}

void
chan_on_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	chan_flush(arg);
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
	if (err == -EAGAIN || chan_is_short(err)) {
		chan_try_again(ch, err);
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
