/* Unit tests of the message codec and of channels: truncation, lies, roles, descriptors, credits,
 * back pressure. */
#include "ipc/chan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

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

struct seen {
	unsigned messages, closed;
	int err;
	size_t bytes;
	struct ipc_chan *chan;
	char byte;
};

static void
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

static void
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

static void
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

static void
turn(struct pair *p)
{
	for (int i = 0; i < 50; i++)
		event_base_loop(p->base, EVLOOP_NONBLOCK);
}

static void
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

static void
test_descriptor_travels(void **state)
{
	struct pair p;
	struct msg m = MSG_INIT(MSG_MAIL_FILE, 3);
	int pipe_fds[2];

	(void)state;
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	assert_int_equal(write(pipe_fds[1], "z", 1), 1);
	pair_open(&p, ROLE_QMGR, ROLE_SMTPD_CHILD, false);
	assert_int_equal(
	    ipc_send(p.left.chan, &m), ERR_DENIED); /* mail_file without its descriptor */
	m.fd = pipe_fds[0];
	assert_int_equal(ipc_send(p.left.chan, &m), 0);
	close(pipe_fds[0]);
	turn(&p);
	assert_int_equal(p.right.messages, 1);
	assert_int_equal(p.right.byte, 'z');
	close(pipe_fds[1]);
	pair_close(&p, false);
}

static void
test_wrong_role_is_refused_on_both_ends(void **state)
{
	struct pair p;
	struct msg m = MSG_INIT(MSG_NSS_GET, 1);
	struct buf b = { 0 };

	(void)state;
	pair_open(&p, ROLE_SMTPD_CHILD, ROLE_QMGR, true);
	msg_encode(&b, &m);
	assert_int_equal(send(p.raw, buf_slice(&b).p, buf_len(&b), 0), (int)buf_len(&b));
	turn(&p);
	assert_int_equal(p.right.messages, 0);
	assert_int_equal(p.right.closed, 1);
	assert_int_equal(p.right.err, ERR_SYNTAX);
	buf_free(&b);
	pair_close(&p, true);
	pair_open(&p, ROLE_SMTPD_CHILD, ROLE_QMGR, false);
	assert_int_equal(ipc_send(p.left.chan, &m), ERR_DENIED);
	pair_close(&p, false);
}

/* Who may name a peer's role, or end a daemon: its parent, and no other that it talks to. */
static void
test_only_the_parent_links_and_stops(void **state)
{
	static const enum msg_type types[] = { MSG_LINK, MSG_STOP };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		assert_true(msg_allowed(types[i], ROLE_MASTER, ROLE_QMGR));
		assert_true(msg_allowed(types[i], ROLE_SMTPD, ROLE_SMTPD_CHILD));
		assert_true(msg_allowed(types[i], ROLE_LOCAL, ROLE_DELIVERY));
		assert_false(msg_allowed(types[i], ROLE_SMTPD, ROLE_QMGR));
		assert_false(msg_allowed(types[i], ROLE_SMTPD, ROLE_LOGIN_CHILD));
		assert_false(msg_allowed(types[i], ROLE_LOCAL, ROLE_QMGR));
		assert_false(msg_allowed(types[i], ROLE_BROKER, ROLE_IMAPD_CHILD));
		assert_false(msg_allowed(types[i], ROLE_QMGR, ROLE_MASTER));
		assert_false(msg_allowed(types[i], ROLE_MASTER, ROLE_SMTPD_CHILD));
	}
}

static void
test_garbage_closes_the_peer_only(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p, ROLE_SMTPD_CHILD, ROLE_QMGR, true);
	assert_int_equal(send(p.raw, "garbage", 7, 0), 7);
	assert_int_equal(send(p.raw, "more", 4, 0), 4);
	turn(&p);
	assert_int_equal(p.right.closed, 1);
	assert_int_equal(p.right.messages, 0);
	pair_close(&p, true);
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

static void
test_end_is_seen(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p, ROLE_QMGR, ROLE_MAPS, false);
	ipc_chan_free(&p.left.chan);
	turn(&p);
	assert_int_equal(p.right.closed, 1);
	assert_int_equal(p.right.err, ERR_CLOSED);
	pair_close(&p, false);
}

/* What a peer said before it went is heard, also where it had not read all that it was told. */
static void
test_last_words_are_heard(void **state)
{
	struct msg m = MSG_INIT(MSG_MAPS_CHANGED, 1), question = MSG_INIT(MSG_ROUTE, 2);
	struct buf b = { 0 };
	struct pair p;

	(void)state;
	pair_open(&p, ROLE_MAPS, ROLE_QMGR, false);
	question.route.address = SLICE_LIT("u@example.test");
	assert_int_equal(ipc_send(p.right.chan, &question), 0);
	for (int i = 0; i < 20; i++) /* more than one batch */
		assert_int_equal(ipc_send(p.left.chan, &m), 0);
	ipc_chan_free(&p.left.chan);
	turn(&p);
	assert_int_equal(p.right.messages, 20);
	assert_int_equal(p.right.closed, 1);
	assert_int_equal(p.right.err, ERR_CLOSED);
	pair_close(&p, false);

	/* the same for who waits for one */
	pair_open(&p, ROLE_MAPS, ROLE_QMGR, true);
	assert_int_equal(ipc_send_fd(p.raw, &question), 0);
	assert_int_equal(ipc_send(p.right.chan, &question), 0);
	ipc_chan_free(&p.right.chan);
	assert_int_equal(ipc_recv_fd(p.raw, &b, &m), 0);
	assert_int_equal(m.type, MSG_ROUTE);
	assert_int_equal(ipc_recv_fd(p.raw, &b, &m), ERR_CLOSED);
	buf_free(&b);
	pair_close(&p, true);
}

/* A peer that was started anew has another channel; what it is asked must not be taken for what its
 * predecessor was asked. */
static void
test_ids_do_not_repeat(void **state)
{
	struct pair p, q;
	struct ipc_chan *again;
	uint32_t first, ids[2];
	int fds[2];

	(void)state;
	pair_open(&p, ROLE_AUTH, ROLE_PAM, false);
	assert_int_equal(ipc_pair(fds), 0);
	again = ipc_chan_new(p.left_io, fds[0], ROLE_PAM, &ops, &p.left);
	first = ipc_next_id(p.left.chan);
	assert_int_not_equal(ipc_next_id(again), first);
	ipc_chan_free(&again);
	close(fds[1]);
	for (int i = 0; i < 2; i++) { /* two processes */
		pair_open(&q, ROLE_AUTH, ROLE_PAM, false);
		ids[i] = ipc_next_id(q.left.chan);
		pair_close(&q, false);
	}
	assert_int_not_equal(ids[0], ids[1]);
	pair_close(&p, false);
}

/* A message of no bytes looks like the end; a descriptor in it is not kept. */
static void
test_empty_message_with_descriptor(void **state)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct msghdr head = { .msg_control = control.space, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&head);
	struct pair p;
	int pipe_fds[2];
	char byte;

	(void)state;
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
	pair_open(&p, ROLE_SMTPD_CHILD, ROLE_QMGR, true);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &pipe_fds[1], sizeof(int));
	assert_int_equal(sendmsg(p.raw, &head, 0), 0);
	assert_int_equal(sendmsg(p.raw, &head, 0), 0);
	close(pipe_fds[1]);
	turn(&p);
	assert_int_equal(p.right.closed, 1);
	assert_int_equal(read(pipe_fds[0], &byte, 1), 0); /* nobody holds the other end */
	close(pipe_fds[0]);
	pair_close(&p, true);
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

/* What the other end would refuse is not sent: the message is lost, and not the channel. */
static void
test_sender_keeps_to_the_table(void **state)
{
	static const char text[1100];
	struct item_word word = { .word = slice(text, 1100) };
	struct msg m = MSG_INIT(MSG_ROUTE, 1), c = MSG_INIT(MSG_CONTROL_REQUEST, 1);
	struct buf words = { 0 };
	char address[1025];
	struct pair p;

	(void)state;
	memset(address, 'a', sizeof(address));
	pair_open(&p, ROLE_QMGR, ROLE_MAPS, false);
	m.route.address = slice(address, 1025);
	assert_int_equal(ipc_send(p.left.chan, &m), ERR_LIMIT);
	m.route.address = SLICE_LIT("a\nb");
	assert_int_equal(ipc_send(p.left.chan, &m), ERR_SYNTAX);
	m.route.address = slice(address, 1024);
	assert_int_equal(ipc_send(p.left.chan, &m), 0);
	turn(&p);
	assert_int_equal(p.right.messages, 1);
	assert_int_equal(p.right.closed, 0);
	pair_close(&p, false);
	pair_open(&p, ROLE_MASTER, ROLE_MAPS, false);
	for (int n = 0; n < 65; n++)
		item_word_add(&words, &word);
	c.control_request.words = msg_list(&words, 65);
	assert_int_equal(ipc_send(p.left.chan, &c), ERR_LIMIT);
	buf_clear(&words);
	word.word.n = 0;
	for (int n = 0; n < 65; n++)
		item_word_add(&words, &word);
	c.control_request.words = msg_list(&words, 65);
	assert_int_equal(ipc_send(p.left.chan, &c), ERR_LIMIT);
	buf_free(&words);
	pair_close(&p, false);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shortage),
		cmocka_unit_test(test_descriptor_travels),
		cmocka_unit_test(test_wrong_role_is_refused_on_both_ends),
		cmocka_unit_test(test_only_the_parent_links_and_stops),
		cmocka_unit_test(test_garbage_closes_the_peer_only),
		cmocka_unit_test(test_credit),
		cmocka_unit_test(test_end_is_seen),
		cmocka_unit_test(test_last_words_are_heard),
		cmocka_unit_test(test_ids_do_not_repeat),
		cmocka_unit_test(test_empty_message_with_descriptor),
		cmocka_unit_test(test_queued_descriptor_closes_on_exec),
		cmocka_unit_test(test_answers_that_nobody_reads),
		cmocka_unit_test(test_end_of_who_did_not_read),
		cmocka_unit_test(test_sender_keeps_to_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
