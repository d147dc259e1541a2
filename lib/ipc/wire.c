/*
 * Records on a SOCK_SEQPACKET socket, and the blocking forms on a plain descriptor. Runs in every
 * process. The peer may be taken over: no descriptor that it sends is left open by a record that is
 * refused.
 */
#include "ipc/wire.h"

#include "ipc/chan.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

int
ipc_transmit(int sock, const void *data, size_t n, int fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)data, n };
	struct msghdr head = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t sent;

	if (fd < 0) {
		do
			sent = send(sock, data, n, MSG_NOSIGNAL);
		while (sent < 0 && errno == EINTR);
		return sent < 0 ? err_errno() : 0;
	}
	head.msg_control = control.space;
	head.msg_controllen = sizeof(control.space);
	struct cmsghdr *c = CMSG_FIRSTHDR(&head);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	do
		sent = sendmsg(sock, &head, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? err_errno() : 0;
}

int
ipc_take_fd(struct msghdr *head)
{
	int fd = -1;
	size_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c; c = CMSG_NXTHDR(head, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0);
		     at += sizeof(int), n++) {
			int one;
			memcpy(&one, CMSG_DATA(c) + at, sizeof(one));
			if (n)
				close(one);
			else
				fd = one;
		}
	}
	if (n > 1) {
		close(fd);
		return -2;
	}
	return fd;
}

int
ipc_pair(int fds_r[2])
{
	int size = (int)IPC_CREDIT * 2;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds_r))
		return err_errno();
	for (int i = 0; i < 2; i++)
		(void)setsockopt(fds_r[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	return 0;
}

bool
ipc_is_channel(int fd)
{
	int type = 0;
	socklen_t n = sizeof(type);

	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) && type == SOCK_SEQPACKET;
}

int
ipc_send_fd(int sock, const struct msg *m)
{
	struct buf out;
	int err;

	buf_init(&out, MSG_MAX);
	msg_encode(&out, m);
	err = out.err ? out.err : ipc_transmit(sock, buf_slice(&out).p, buf_len(&out), m->fd);
	buf_wipe(&out);
	return err;
}

int
ipc_recv_fd(int sock, struct buf *b, struct msg *m)
{
	char control[CMSG_SPACE(sizeof(int) * 4)] __attribute__((aligned(16)));
	struct msghdr head = { .msg_control = control, .msg_controllen = sizeof(control) };
	struct iovec iov;
	ssize_t n;
	int reset = 0;

	buf_clear(b);
	iov = (struct iovec){ buf_reserve(b, MSG_MAX), MSG_MAX };
	if (!iov.iov_base)
		return ERR_LIMIT;
	head.msg_iov = &iov;
	head.msg_iovlen = 1;
	do
		n = recvmsg(sock, &head, MSG_CMSG_CLOEXEC);
	while (n < 0 && (errno == EINTR || (errno == ECONNRESET && !reset++))); /* as in chan.c */
	if (n < 0)
		return err_errno();
	buf_commit(b, (size_t)n);
	m->fd = ipc_take_fd(&head);
	if (n == 0) {
		if (m->fd >= 0)
			close(m->fd);
		return ERR_CLOSED;
	}
	if (m->fd == -2 || (head.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
	    msg_decode(buf_slice(b), m)) {
		if (m->fd >= 0)
			close(m->fd);
		return ERR_SYNTAX;
	}
	return 0;
}
