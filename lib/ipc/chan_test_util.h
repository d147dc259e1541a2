/* What the tests of channels share: two ends in one process, and what each has seen. */
#ifndef IPC_CHAN_TEST_UTIL_H
#define IPC_CHAN_TEST_UTIL_H

#include "ipc/chan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

struct seen {
	unsigned messages, closed;
	int err;
	size_t bytes;
	struct ipc_chan *chan;
	char byte;
};

static inline void
on_message(void *ctx, struct ipc_chan *ch, struct msg *m)
{
	struct seen *s = ctx;

	(void)ch;
	s->messages++;
	if (m->type == MSG_MAIL_COMMIT)
		s->bytes += m->mail_commit.content.n;
	if (m->fd >= 0)
		assert_int_equal(read(m->fd, &s->byte, 1), 1);
}

static inline void
on_closed(void *ctx, struct ipc_chan *ch, int err, const char *why)
{
	struct seen *s = ctx;

	(void)ch;
	(void)why;
	s->closed++;
	s->err = err;
	s->chan = NULL;
}

static const struct ipc_ops ops = { on_message, on_closed };

struct pair {
	struct event_base *base;
	struct ipc_io *left_io, *right_io;
	struct seen left, right;
	int raw; /* the left end's descriptor when it is raw */
};

static inline void
pair_open(struct pair *p, enum role left, enum role right, bool raw)
{
	int fds[2];

	memset(p, 0, sizeof(*p));
	assert_int_equal(ipc_pair(fds), 0);
	p->base = ev_base_new();
	p->left_io = ipc_io_new(p->base, left);
	p->right_io = ipc_io_new(p->base, right);
	p->raw = fds[0];
	if (!raw)
		p->left.chan = ipc_chan_new(p->left_io, fds[0], right, &ops, &p->left);
	p->right.chan = ipc_chan_new(p->right_io, fds[1], left, &ops, &p->right);
}

static inline void
turn(struct pair *p)
{
	for (int i = 0; i < 50; i++)
		event_base_loop(p->base, EVLOOP_NONBLOCK);
}

static inline void
pair_close(struct pair *p, bool raw)
{
	ipc_chan_free(&p->left.chan);
	ipc_chan_free(&p->right.chan);
	if (raw)
		close(p->raw);
	ipc_io_free(&p->left_io);
	ipc_io_free(&p->right_io);
	event_base_free(p->base);
}

#endif
