/*
 * Channels: one end of a SOCK_SEQPACKET pair on the event loop, with typed messages of msgs.def.
 * Never blocks. A peer is known by its end: its role is given when the channel is made, and a
 * message that this role may not send, that does not decode or that carries a wrong descriptor
 * closes the channel; it never ends the process.
 */
#ifndef IPC_CHAN_H
#define IPC_CHAN_H

#include "ev/ev.h"
#include "ipc/msgs.h"

#define IPC_CREDIT ((uint32_t)262144)     /* bytes that a receiver may have under way to qmgr */
#define IPC_ANSWERS_MAX ((size_t)1048576) /* bytes of answers that a peer may leave unread */

struct ipc_chan;

struct ipc_ops {
	/* One message. Slices in it end with the call; a descriptor left in m->fd is closed after
	 * it. */
	void (*message)(void *ctx, struct ipc_chan *ch, struct msg *m);
	/* The peer is gone (ERR_CLOSED) or was shut out (why names the fault). The channel is freed
	   by the caller of this function after it returns; the handler forgets it. Not called for
	   ipc_chan_free. */
	void (*closed)(void *ctx, struct ipc_chan *ch, int err, const char *why);
};

/* What all channels of a process share: its role, loop and receive buffers. */
struct ipc_io;
struct ipc_io *ipc_io_new(struct event_base *base, enum role self);
void ipc_io_free(struct ipc_io **io);

/* Takes over fd (made non-blocking). ctx is for ops. Reading starts with the next loop turn. */
struct ipc_chan *ipc_chan_new(
    struct ipc_io *io, int fd, enum role peer, const struct ipc_ops *ops, void *ctx);
/* Closes and frees; may be called from inside a handler of the same channel. Queued messages are
 * dropped. */
void ipc_chan_free(struct ipc_chan **ch);

/*
 * Sends m, or queues it when the socket is full or the credit used up (the queue is bounded by what
 * the caller has under way, or see ipc_chan_asked). A descriptor in m->fd is borrowed when it goes
 * out at once and duplicated when queued: the caller closes its own in both cases. ERR_CLOSED;
 * ERR_LIMIT: larger than MSG_MAX, or a field or list than msgs.def lets it be; ERR_SYNTAX: a text
 * field with an octet that is none; ERR_DENIED: msgs.def does not let this role send it to that
 * peer (a bug here).
 */
int ipc_send(struct ipc_chan *ch, const struct msg *m);
/* Answers with m, or where m holds what no message may (data from outside: ERR_LIMIT, ERR_SYNTAX)
 * with instead, so that who asked is never left waiting. Returns what kept m from going out; the
 * caller says it in the log. */
int ipc_answer(struct ipc_chan *ch, const struct msg *m, const struct msg *instead);
/* A fresh request id, never 0, for messages that want an answer on this channel. Ids do not repeat
 * over the channels of a process, and begin at random: when a peer or this process was started
 * anew, an answer to a question from before finds nobody. */
uint32_t ipc_next_id(struct ipc_chan *ch);

enum role ipc_chan_peer(const struct ipc_chan *ch);
int ipc_chan_fd(const struct ipc_chan *ch);
/* Bytes queued and not yet sent. */
size_t ipc_chan_queued(const struct ipc_chan *ch);
/* While held, no message is read: back pressure on that peer. */
void ipc_chan_hold(struct ipc_chan *ch, bool hold);
/* The peer asks and this process answers: while more than IPC_ANSWERS_MAX wait for it to read, no
 * more of it is read. For one side of a pair only, and the other must never hold, else both wait
 * for each other. */
void ipc_chan_asked(struct ipc_chan *ch);
/* The caller's own pointer, beside ctx: for what belongs to one channel (a session, a child). */
void ipc_chan_set_data(struct ipc_chan *ch, void *data);
void *ipc_chan_data(const struct ipc_chan *ch);

/* A connected pair, both close-on-exec, buffers set to the credit. 0 or a negative error. */
int ipc_pair(int fds_r[2]) CHECKED;
/* Whether a descriptor that came from a peer can be one end of a channel. */
bool ipc_is_channel(int fd);
/* Blocking forms on a plain descriptor, for start-up and tools: one message out, one in (bytes stay
 * in buf). */
int ipc_send_fd(int sock, const struct msg *m) CHECKED;
int ipc_recv_fd(int sock, struct buf *buf, struct msg *m) CHECKED;

#endif
