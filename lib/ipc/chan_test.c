/* Unit tests of channels: truncation, lies, roles, descriptors, how they end. */
#include "ipc/chan_test_util.h"

#include <fcntl.h>

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
		cmocka_unit_test(test_descriptor_travels),
		cmocka_unit_test(test_wrong_role_is_refused_on_both_ends),
		cmocka_unit_test(test_only_the_parent_links_and_stops),
		cmocka_unit_test(test_garbage_closes_the_peer_only),
		cmocka_unit_test(test_end_is_seen),
		cmocka_unit_test(test_last_words_are_heard),
		cmocka_unit_test(test_ids_do_not_repeat),
		cmocka_unit_test(test_empty_message_with_descriptor),
		cmocka_unit_test(test_sender_keeps_to_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
