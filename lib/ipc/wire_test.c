/* Unit tests of messages as bytes: each type cut at each byte, lengths that lie, and limits. */
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

/* Every type with all fields empty or zero: decodes whole, fails at every shorter length and with a
 * byte more. */
static void
test_every_type_truncated(void **state)
{
	(void)state;
	for (int t = MSG_NONE + 1; t < MSG_TYPE_COUNT; t++) {
		struct msg m, back;
		struct buf b = { 0 };
		memset(&m, 0, sizeof(m));
		m.type = (enum msg_type)t;
		m.id = 7;
		msg_encode(&b, &m);
		assert_int_equal(msg_decode(buf_slice(&b), &back), 0);
		assert_int_equal(back.type, t);
		assert_int_equal(back.id, 7);
		for (size_t n = 0; n < buf_len(&b); n++)
			assert_int_not_equal(msg_decode(slice_sub(buf_slice(&b), 0, n), &back), 0);
		buf_add_byte(&b, 0);
		assert_int_not_equal(msg_decode(buf_slice(&b), &back), 0);
		buf_free(&b);
	}
}

/* Each length field of a full message set to a lie. */
static void
test_lying_lengths(void **state)
{
	struct msg m = MSG_INIT(MSG_MAIL_COMMIT, 1), back;
	struct item_env_rcpt r = { .address = SLICE_LIT("a@b.example") };
	struct buf items = { 0 }, b = { 0 };

	(void)state;
	item_env_rcpt_add(&items, &r);
	item_env_rcpt_add(&items, &r);
	m.mail_commit.sender = SLICE_LIT("s@b.example");
	m.mail_commit.rcpts = msg_list(&items, 2);
	m.mail_commit.content = SLICE_LIT("x\r\n");
	msg_encode(&b, &m);
	assert_int_equal(msg_decode(buf_slice(&b), &back), 0);
	assert_int_equal(back.mail_commit.rcpts.n, 2);
	for (size_t i = 6; i + 4 <= buf_len(&b); i++) {
		static const unsigned char lie[4] = { 0xff, 0xff, 0xff, 0x7f };
		unsigned char keep[4];
		memcpy(keep, b.data + b.head + i, 4);
		memcpy(b.data + b.head + i, lie, 4);
		(void)!msg_decode(
		    buf_slice(&b), &back); /* any verdict, no read past the end: ASan looks on */
		memcpy(b.data + b.head + i, keep, 4);
	}
	buf_free(&items);
	buf_free(&b);
}

static void
test_text_refuses_line_ends(void **state)
{
	static const char *const bad[] = { "a\rb", "a\nb" };
	struct msg m = MSG_INIT(MSG_ROUTE, 1), back;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct buf b = { 0 };
		m.route.address = i < 2 ? slice_str(bad[i]) : slice("a\0b", 3);
		msg_encode(&b, &m);
		assert_int_equal(msg_decode(buf_slice(&b), &back), ERR_SYNTAX);
		buf_free(&b);
	}
}

static void
test_limit_and_one_past(void **state)
{
	char address[1025];
	struct msg m = MSG_INIT(MSG_ROUTE, 1), back;

	(void)state;
	memset(address, 'a', sizeof(address));
	for (size_t n = 1024; n <= 1025; n++) {
		struct buf b = { 0 };
		m.route.address = slice(address, n);
		msg_encode(&b, &m);
		assert_int_equal(msg_decode(buf_slice(&b), &back), n == 1024 ? 0 : ERR_LIMIT);
		buf_free(&b);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_type_truncated),
		cmocka_unit_test(test_lying_lengths),
		cmocka_unit_test(test_text_refuses_line_ends),
		cmocka_unit_test(test_limit_and_one_past),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
