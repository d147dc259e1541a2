/*
 * Fuzz target: the end of a channel whose peer was taken over. Bytes 0 and 1: the roles of both
 * ends; byte 2: what the owner of this end does; then records: two bytes of length, the upper two
 * bits of which say how many descriptors travel along, and the bytes. Checked: what reaches the
 * owner is permitted and has the descriptor that it needs and no other, the end of the channel is
 * told once and nothing after it, and no descriptor is left open, whatever was sent.
 */
#include "fuzz/must.h"
#include "ipc/chan.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {               /* what the owner does */
	FREES = 1,   /* frees the channel at the second message */
	ANSWERS = 2, /* answers each message */
	HOLDS = 4,   /* holds the channel from the second message on, until the peer is through */
	ASKED = 8,   /* ipc_chan_asked */
	HASTES = 16, /* looks after each record, not at the end */
	FD_MAX = 3,
};

struct end {
	struct ipc_chan *chan;
	enum role self, peer;
	unsigned does, messages;
	bool closed;
};

/* The third number that a new descriptor would have: two are those of the channel. */
static int
third_free(int file)
{
	int fds[3];

	for (size_t i = 0; i < 3; i++)
		fds[i] = dup(file);
	for (size_t i = 0; i < 3; i++)
		close(fds[i]);
	return fds[2];
}

/* Any message that one may send to the other without a descriptor; false: there is none. */
static bool
may_send(enum role from, enum role to, enum msg_type *type_r)
{
	for (unsigned type = MSG_NONE + 1; type < MSG_TYPE_COUNT; type++)
		if (msg_allowed((enum msg_type)type, from, to) &&
		    msg_fd_rule((enum msg_type)type) != 1 && type != MSG_CREDIT) {
			*type_r = (enum msg_type)type;
			return true;
		}
	return false;
}

static void
on_message(void *ctx, struct ipc_chan *ch, struct msg *m)
{
	struct end *e = ctx;
	int rule = msg_fd_rule(m->type);
	enum msg_type type;

	must(ch == e->chan && !e->closed && msg_allowed(m->type, e->peer, e->self));
	must(rule == 1 ? m->fd >= 0 : rule == 2 || m->fd == -1);
	must(m->fd < 0 || fcntl(m->fd, F_GETFD) == FD_CLOEXEC);
	e->messages++;
	if (e->does & ANSWERS && may_send(e->self, e->peer, &type)) {
		struct msg answer = MSG_INIT(type, m->id);

		(void)ipc_send(ch, &answer);
	}
	if (e->does & HOLDS && e->messages > 1)
		ipc_chan_hold(ch, true);
	if (e->does & FREES && e->messages > 1)
		ipc_chan_free(&e->chan);
}

static void
on_closed(void *ctx, struct ipc_chan *ch, int err, const char *why)
{
	struct end *e = ctx;

	must(ch == e->chan && !e->closed && err && why);
	e->closed = true;
	e->chan = NULL;
}

/* One record and its descriptors, all of them the same file. */
static void
put(int sock, struct slice bytes, unsigned nfds, int file)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * FD_MAX)] = { 0 };
	struct iovec iov = { (void *)(uintptr_t)bytes.p, bytes.n };
	struct msghdr head = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nfds) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		for (unsigned i = 0; i < nfds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &file, sizeof(file));
		head.msg_control = control;
		head.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
	}
	(void)!sendmsg(sock, &head, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void
turn(struct event_base *base)
{
	for (int i = 0; i < 4; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static void
talk(struct end *e, struct ipc_io *io, struct event_base *base, struct cursor *c, int file)
{
	static const struct ipc_ops ops = { on_message, on_closed };
	int fds[2];

	must(!ipc_pair(fds));
	e->chan = ipc_chan_new(io, fds[1], e->peer, &ops, e);
	if (e->does & ASKED)
		ipc_chan_asked(e->chan);
	for (unsigned i = 0; i < 20 && c->at < c->in.n; i++) {
		uint16_t head = cursor_u16(c);
		size_t n = head & 0x3fff, left = c->in.n - c->at;

		put(fds[0], cursor_bytes(c, n < left ? n : left), head >> 14, file);
		if (e->does & HASTES)
			turn(base);
	}
	turn(base);
	e->does &= ~(unsigned)HOLDS;
	if (e->chan)
		ipc_chan_hold(e->chan, false);
	turn(base);
	close(fds[0]);
	turn(base);
	must(!e->chan && (e->closed || (e->does & FREES && e->messages > 1)));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct event_base *base;
	static struct ipc_io *ios[ROLE_COUNT];
	struct end e = { .does = size > 2 ? data[2] : 0 };
	struct cursor c = cursor(slice(data, size));
	int file, next;

	if (size < 3)
		return 0;
	e.self = (enum role)(data[0] % ROLE_COUNT);
	e.peer = (enum role)(data[1] % ROLE_COUNT);
	c.at = 3;
	if (!base)
		base = ev_base_new();
	if (!ios[e.self])
		ios[e.self] = ipc_io_new(base, e.self);
	file = open("/dev/null", O_RDONLY | O_CLOEXEC);
	next = third_free(file);
	talk(&e, ios[e.self], base, &c, file);
	must(third_free(file) == next);
	close(file);
	return 0;
}
