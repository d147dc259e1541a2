/* Unit tests of channels that cannot send or are not read: shortage, credits, back pressure. */
#include "ipc/chan_test_util.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

static int send_fails, recv_fails; /* how often, and with which errno */
static int send_errno = ENOBUFS;

ssize_t
send(int fd, const void *data, size_t n, int flags)
{
	if (send_fails > 0) {
		send_fails--;
		errno = send_errno;
		return -1;
	}
	return syscall(SYS_sendto, fd, data, n, flags, NULL, 0);
}

int
recvmmsg(int fd, struct mmsghdr *heads, unsigned int n, int flags, struct timespec *t)
{
	if (recv_fails > 0) {
		recv_fails--;
		errno = ENOMEM;
		return -1;
	}
	return (int)syscall(SYS_recvmmsg, fd, heads, n, flags, t);
}

/* More than the credit: the rest waits at the sender until the receiver grants, and all arrives. */
static void
test_credit(void **state)
{
	static unsigned char content[16384];
	struct pair p;
	struct msg m = MSG_INIT(MSG_MAIL_COMMIT, 1);
	size_t n = 64;

	(void)state;
	m.mail_commit.content = slice(content, sizeof(content));
	pair_open(&p, ROLE_SMTPD_CHILD, ROLE_QMGR, false);
	ipc_chan_hold(p.right.chan, true);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(ipc_send(p.left.chan, &m), 0);
	turn(&p);
	assert_true(
	    ipc_chan_queued(p.left.chan) >= (n - IPC_CREDIT / sizeof(content)) * sizeof(content));
	ipc_chan_hold(p.right.chan, false);
	for (int i = 0; i < 200 && p.right.messages < n; i++)
		turn(&p);
	assert_int_equal(p.right.messages, n);
	assert_int_equal(p.right.bytes, n * sizeof(content));
	assert_int_equal(ipc_chan_queued(p.left.chan), 0);
	pair_close(&p, false);
}

/* The kernel is short of memory: nothing is lost, nothing overtakes, nobody is shut out. */
static void
test_shortage(void **state)
{
	static const int errors[] = { ENOBUFS, ENOMEM, ETOOMANYREFS };
	struct pair p;
	struct msg m = MSG_INIT(MSG_MAIL_COMMIT, 1);

	(void)state;
	for (size_t e = 0; e < sizeof(errors) / sizeof(errors[0]); e++) {
		pair_open(&p, ROLE_SMTPD_CHILD, ROLE_QMGR, false);
		send_errno = errors[e];
		send_fails = 3;
		recv_fails = 2;
		for (unsigned i = 0; i < 10; i++)
			assert_int_equal(ipc_send(p.left.chan, &m), 0);
		assert_true(ipc_chan_queued(p.left.chan) > 0);
		for (int i = 0; i < 500 && p.right.messages < 10; i++) {
			turn(&p);
			usleep(2000);
		}
		assert_int_equal(p.right.messages, 10);
		assert_int_equal(p.left.closed + p.right.closed, 0);
		assert_int_equal(ipc_chan_queued(p.left.chan), 0);
		assert_int_equal(send_fails + recv_fails, 0);
		pair_close(&p, false);
	}
	/* What cannot be sent at all is not lost in silence: both ends see the end. */
	pair_open(&p, ROLE_SMTPD_CHILD, ROLE_QMGR, false);
	send_errno = EIO;
	send_fails = 1;
	assert_int_equal(ipc_send(p.left.chan, &m), ERR_CLOSED);
	assert_int_equal(p.left.closed, 0); /* not from inside the call */
	assert_int_equal(ipc_send(p.left.chan, &m), ERR_CLOSED);
	for (int i = 0; i < 500 && p.right.closed == 0; i++) {
		turn(&p);
		usleep(2000);
	}
	assert_int_equal(p.left.closed, 1);
	assert_int_equal(p.right.closed, 1);
	assert_int_equal(p.right.messages, 0);
	pair_close(&p, false);
	send_errno = ENOBUFS;
	/* One that goes while it waits. */
	pair_open(&p, ROLE_SMTPD_CHILD, ROLE_QMGR, false);
	send_fails = 1;
	assert_int_equal(ipc_send(p.left.chan, &m), 0);
	recv_fails = 1;
	turn(&p);
	pair_close(&p, false);
	recv_fails = send_fails = 0;
}

/* Descriptors that a program started now would inherit. */
static size_t
inherited(void)
{
	size_t n = 0;

	for (int fd = 0; fd < 256; fd++) {
		int flags = fcntl(fd, F_GETFD);
		n += flags >= 0 && !(flags & FD_CLOEXEC);
	}
	return n;
}

/* What waits in a queue must not be inherited by a program that is started meanwhile. */
static void
test_queued_descriptor_closes_on_exec(void **state)
{
	static unsigned char text[500];
	struct pair p;
	struct msg filler = MSG_INIT(MSG_MAIL_RESULT, 1), m = MSG_INIT(MSG_MAIL_FILE, 3);
	size_t before, others = inherited();

	(void)state;
	memset(text, 'x', sizeof(text));
	filler.mail_result.text = slice(text, sizeof(text));
	pair_open(&p, ROLE_QMGR, ROLE_SMTPD_CHILD, false);
	ipc_chan_hold(p.right.chan, true);
	while (!ipc_chan_queued(p.left.chan))
		assert_int_equal(ipc_send(p.left.chan, &filler), 0);
	before = ipc_chan_queued(p.left.chan);
	m.fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	assert_int_equal(ipc_send(p.left.chan, &m), 0);
	assert_true(ipc_chan_queued(p.left.chan) > before);
	assert_int_equal(inherited(), others);
	close(m.fd);
	pair_close(&p, false);
}

/* Answers each question with as much as a message holds. */
static void
on_question(void *ctx, struct ipc_chan *ch, struct msg *m)
{
	static unsigned char value[8192];
	struct msg answer = MSG_INIT(MSG_MAP_VALUE, m->id);
	struct seen *s = ctx;

	s->messages++;
	answer.map_value.value = slice(value, sizeof(value));
	(void)ipc_send(ch, &answer); /* the peer may have gone */
}

/* Who asks on and on and reads nothing is not heard any more, and costs no more memory; when it
 * reads, it is answered all the same. */
static void
test_answers_that_nobody_reads(void **state)
{
	static const struct ipc_ops answers = { on_question, on_closed };
	struct msg m = MSG_INIT(MSG_MAP_GET, 1);
	struct buf b = { 0 };
	char answer[9000];
	unsigned asked = 0, got = 0;
	struct pair p;

	(void)state;
	pair_open(&p, ROLE_SMTPD_CHILD, ROLE_MAPS, true);
	ipc_chan_free(&p.right.chan);
	close(p.raw);
	int fds[2];
	assert_int_equal(ipc_pair(fds), 0);
	p.raw = fds[0];
	p.right.chan = ipc_chan_new(p.right_io, fds[1], ROLE_SMTPD_CHILD, &answers, &p.right);
	ipc_chan_asked(p.right.chan);
	msg_encode(&b, &m);
	for (int i = 0; i < 100000; i++) {
		if (send(p.raw, buf_slice(&b).p, buf_len(&b), MSG_DONTWAIT) < 0)
			break;
		asked++;
		event_base_loop(p.base, EVLOOP_NONBLOCK);
		assert_true(ipc_chan_queued(p.right.chan) <= IPC_ANSWERS_MAX + 8 * 8300);
	}
	assert_true(asked < 100000 && p.right.messages < asked);
	for (int i = 0; i < 1000 && got < asked; i++) {
		while (recv(p.raw, answer, sizeof(answer), MSG_DONTWAIT) > 0)
			got++;
		turn(&p);
	}
	assert_int_equal(got, asked);
	buf_free(&b);
	pair_close(&p, true);
}

/* The end of a peer whose questions are not read is seen all the same. */
static void
test_end_of_who_did_not_read(void **state)
{
	static const struct ipc_ops answers = { on_question, on_closed };
	struct msg m = MSG_INIT(MSG_MAP_GET, 1);
	struct buf b = { 0 };
	struct pair p;
	int fds[2];

	(void)state;
	pair_open(&p, ROLE_SMTPD_CHILD, ROLE_MAPS, true);
	ipc_chan_free(&p.right.chan);
	close(p.raw);
	assert_int_equal(ipc_pair(fds), 0);
	p.right.chan = ipc_chan_new(p.right_io, fds[1], ROLE_SMTPD_CHILD, &answers, &p.right);
	ipc_chan_asked(p.right.chan);
	msg_encode(&b, &m);
	while (send(fds[0], buf_slice(&b).p, buf_len(&b), MSG_DONTWAIT) > 0)
		event_base_loop(p.base, EVLOOP_NONBLOCK);
	close(fds[0]);
	turn(&p);
	assert_int_equal(p.right.closed, 1);
	assert_int_equal(p.right.err, ERR_CLOSED);
	buf_free(&b);
	pair_close(&p, false);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shortage),
		cmocka_unit_test(test_credit),
		cmocka_unit_test(test_queued_descriptor_closes_on_exec),
		cmocka_unit_test(test_answers_that_nobody_reads),
		cmocka_unit_test(test_end_of_who_did_not_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
