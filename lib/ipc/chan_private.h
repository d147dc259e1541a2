/* What chan.c and chan_send.c share. */
#ifndef IPC_CHAN_PRIVATE_H
#define IPC_CHAN_PRIVATE_H

#include "ipc/chan.h"

#include <sys/queue.h>
#include <sys/socket.h>

#define BATCH 8 /* messages taken by one system call */

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

/* chan.c */
void chan_shut_out(struct ipc_chan *ch, int err, const char *why);
/* Reads, or not, by what the channel says of it. */
void chan_set_reading(struct ipc_chan *ch);

/* chan_send.c */
/* The kernel has nothing to spare just now: the peer is there, and the message is not lost. */
bool chan_is_short(int err);
void chan_drop_queue(struct ipc_chan *ch);
void chan_flush(struct ipc_chan *ch);
/* After -EAGAIN or a shortage. */
void chan_try_again(struct ipc_chan *ch, int err);
void chan_on_writable(evutil_socket_t fd, short what, void *arg);

#endif
