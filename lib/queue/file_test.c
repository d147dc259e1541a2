/* Unit tests of queue files: what is written is read, and damage anywhere is noticed. */
#include "queue/file.h"
#include "queue/mail.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#define CONTENT "Subject: x\r\n\r\nhello\r\n"

static void
sample(struct envelope *e, struct arena *a, size_t n)
{
	*e = (struct envelope){ .id = 123456789012345,
		.arrival = 99,
		.size = sizeof(CONTENT) - 1,
		.flags = MAIL_8BIT,
		.ret = RET_HDRS,
		.sender = SLICE_LIT("a@example.com"),
		.envid = SLICE_LIT("QQ314"),
		.session = SLICE_LIT("s1"),
		.client = SLICE_LIT("mx.example.com[192.0.2.1]"),
		.n_extents = 1,
		.n_rcpts = n };
	e->content_digest = queue_digest(SLICE_LIT(CONTENT));
	e->extents[0] = (struct envelope_extent){ 0, e->size };
	e->rcpts = arena_alloc(a, n * sizeof(*e->rcpts));
	for (size_t i = 0; i < n; i++) {
		e->rcpts[i].address = slice_str(arena_printf(a, "u%zu@example.net", i));
		e->rcpts[i].original = SLICE_LIT("list@example.net");
		e->rcpts[i].orcpt = SLICE_LIT("rfc822;list@example.net");
		e->rcpts[i].notify = NOTIFY_FAILURE;
	}
	e->rcpts[0].status = envelope_status(a, &e->rcpts[0]);
	e->rcpts[0].status->state = RCPT_DONE;
	rcpt_status_set(
	    e->rcpts[0].status, SLICE_LIT("2.0.0"), SLICE_LIT("ok\r\nx"), SLICE_LIT("h"));
}

static int
make_file(const struct envelope *e, struct queue_layout *l)
{
	char path[] = "/tmp/queue_file_XXXXXX";
	int fd = mkstemp(path);
	struct buf tail = { 0 };
	struct slice parts[2] = { SLICE_LIT(CONTENT) };

	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(queue_file_tail(e, parts[0].n, &tail, l), 0);
	parts[1] = buf_slice(&tail);
	assert_int_equal(queue_write_all(fd, parts, 2, 0), 0);
	buf_free(&tail);
	return fd;
}

static void
test_round_trip(void **state)
{
	struct arena a = { 0 };
	struct envelope e, r;
	struct queue_layout l, l2;
	struct buf content = { 0 };
	struct rcpt_status s = { .state = RCPT_DEFERRED,
		.attempts = 3,
		.last_attempt = 1234567890,
		.notices = NOTIFY_DELAY };
	char code[16];
	int fd;

	(void)state;
	sample(&e, &a, 1000);
	fd = make_file(&e, &l);
	assert_int_equal(queue_file_read(fd, &a, &r, &l2), 0);
	assert_memory_equal(&l, &l2, sizeof(l));
	assert_int_equal(r.n_rcpts, 1000);
	assert_true(slice_eq_str(r.rcpts[999].address, "u999@example.net"));
	assert_true(slice_eq_str(r.sender, "a@example.com") && slice_eq_str(r.envid, "QQ314"));
	assert_int_equal(r.rcpts[0].status->state, RCPT_DONE);
	assert_string_equal(r.rcpts[0].status->text, "ok  x");
	rcpt_status_enhanced(r.rcpts[0].status, code);
	assert_string_equal(code, "2.0.0");
	assert_int_equal(r.rcpts[1].status->state, RCPT_TODO);
	assert_int_equal(queue_file_content(fd, &r, 16384, &content), 0);
	assert_true(slice_eq_str(buf_slice(&content), CONTENT));
	assert_int_equal(queue_file_content(fd, &r, 3, &content), ERR_LIMIT);

	rcpt_status_set(&s, SLICE_LIT("4.4.1"), SLICE_LIT("connect: timed out"), SLICE_LIT("mx"));
	assert_int_equal(queue_file_set_status(fd, &l, 7, &s), 0);
	assert_int_equal(queue_file_set_status(fd, &l, 1000, &s), ERR_STATE);
	assert_int_equal(queue_file_read(fd, &a, &r, &l2), 0);
	assert_memory_equal(r.rcpts[7].status, &s, sizeof(s));
	assert_int_equal(r.rcpts[8].status->state, RCPT_TODO);
	close(fd);
	buf_free(&content);
	arena_free(&a);
}

/* Every prefix is without a footer; every flipped byte is noticed or only costs a repeat. */
static void
test_damage(void **state)
{
	struct arena a = { 0 };
	struct envelope e, r;
	struct queue_layout l, l2;
	unsigned char byte, bad;
	int fd;

	(void)state;
	sample(&e, &a, 2);
	fd = make_file(&e, &l);
	for (uint64_t at = 0; at < l.file_size; at++) {
		int err;

		assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
		bad = byte ^ 0x10;
		assert_int_equal(pwrite(fd, &bad, 1, (off_t)at), 1);
		err = queue_file_read(fd, &a, &r, &l2);
		if (at < l.record_offset ||
		    (at >= l.record_offset + l.record_length && at < l.slots_offset)) {
			struct buf b = { 0 };

			assert_int_equal(err, 0);
			if (at < l.record_offset)
				assert_int_equal(queue_file_content(fd, &r, 999, &b), ERR_CORRUPT);
			buf_free(&b);
		} else if (at >= l.slots_offset && at < l.file_size - QUEUE_FOOTER_SIZE) {
			assert_int_equal(err, 0);
			assert_int_equal(
			    r.rcpts[(at - l.slots_offset) / SLOT_SIZE].status->state, RCPT_TODO);
		} else {
			assert_true(err == ERR_CORRUPT || err == ERR_NOT_FOUND);
		}
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	}
	for (off_t n = (off_t)l.file_size - 1; n >= 0; n--) {
		assert_int_equal(ftruncate(fd, n), 0);
		assert_int_equal(queue_file_read(fd, &a, &r, &l2), ERR_NOT_FOUND);
	}
	close(fd);
	arena_free(&a);
}

static void
test_limits(void **state)
{
	struct arena a = { 0 };
	struct envelope e, r;
	struct queue_layout l;
	struct buf b = { 0 };

	(void)state;
	sample(&e, &a, 1);
	e.n_rcpts = 0;
	assert_int_equal(queue_file_tail(&e, 0, &b, &l), ERR_LIMIT);
	e.n_rcpts = ENVELOPE_RECIPIENTS_MAX + 1;
	assert_int_equal(queue_file_tail(&e, 0, &b, &l), ERR_LIMIT);
	e.n_rcpts = 1;
	/* Extents that do not add up, or lie outside of the content. */
	e.extents[0].length = 5;
	buf_clear(&b);
	envelope_encode(&e, &b);
	assert_int_equal(envelope_decode(buf_slice(&b), &a, &r), ERR_CORRUPT);
	e.size = 5;
	buf_clear(&b);
	assert_int_equal(queue_file_tail(&e, 4, &b, &l), 0);
	assert_int_equal(
	    queue_tail_decode(
		slice_sub(buf_slice(&b), 0, buf_len(&b) - QUEUE_FOOTER_SIZE), &l, &a, &r),
	    ERR_CORRUPT);
	/* CR, LF and NUL never come out of a file. */
	e.sender = slice("a\nb", 3);
	buf_clear(&b);
	envelope_encode(&e, &b);
	assert_int_equal(envelope_decode(buf_slice(&b), &a, &r), ERR_CORRUPT);
	buf_free(&b);
	arena_free(&a);
}

/* A reply of several lines is whole in memory; a slot on the disk holds its beginning, and says so.
 */
static void
test_long_texts(void **state)
{
	unsigned char slot[SLOT_SIZE];
	struct rcpt_status s = { .state = RCPT_DEFERRED }, back;
	char text[700];

	(void)state;
	memset(text, 'x', sizeof(text));
	rcpt_status_set(&s, SLICE_LIT("4.2.0"), slice((unsigned char *)text, sizeof(text)),
	    SLICE_LIT("mx.example.test.mail.protection.example.org[2001:db8:1010:c0e::1b]:25"));
	assert_int_equal(strlen(s.text), RCPT_TEXT_MAX);
	slot_encode(&s, SLOT_SIZE, slot);
	assert_int_equal(slot_decode(slot, SLOT_SIZE, &back), 0);
	assert_int_equal(strlen(back.text), SLOT_TEXT_MAX);
	assert_string_equal(back.text + SLOT_TEXT_MAX - 4, "x...");
	assert_string_equal(back.remote, s.remote);
	for (size_t n = SLOT_TEXT_MAX - 1; n <= SLOT_TEXT_MAX; n++) {
		rcpt_status_set(
		    &s, SLICE_LIT("4.2.0"), slice((unsigned char *)text, n), SLICE_NULL);
		slot_encode(&s, SLOT_SIZE, slot);
		assert_int_equal(slot_decode(slot, SLOT_SIZE, &back), 0);
		assert_string_equal(back.text, s.text);
	}
	/* Never within a UTF-8 sequence. */
	for (size_t at = SLOT_TEXT_MAX - 10; at < SLOT_TEXT_MAX + 10; at++) {
		memset(text, 'x', sizeof(text));
		memcpy(text + at, "\xc3\xa4", 2);
		rcpt_status_set(
		    &s, SLICE_LIT("4.2.0"), slice((unsigned char *)text, 500), SLICE_NULL);
		slot_encode(&s, SLOT_SIZE, slot);
		assert_int_equal(slot_decode(slot, SLOT_SIZE, &back), 0);
		assert_true(!strchr(back.text, 0xc3) || strstr(back.text, "\xc3\xa4"));
	}
}

/* A file of the former format, with slots of half the size: read, and updated in its own slots. */
static void
test_small_slots(void **state)
{
	char path[] = "/tmp/queue_file_XXXXXX";
	int fd = mkstemp(path);
	struct arena a = { 0 };
	struct envelope e, r;
	struct queue_layout l, l2;
	struct rcpt_status s = { .state = RCPT_DEFERRED };
	struct buf file = { 0 };
	unsigned char slot[SLOT_SIZE_OLD];
	char text[300];

	(void)state;
	unlink(path);
	sample(&e, &a, 2);
	buf_add_str(&file, CONTENT);
	assert_int_equal(queue_file_tail(&e, sizeof(CONTENT) - 1, &file, &l), 0);
	/* the slots again, smaller, and a footer that says nothing of their size */
	buf_truncate(&file, l.record_offset + l.record_length);
	while (buf_len(&file) % SLOT_SIZE_OLD)
		buf_add_byte(&file, 0);
	l.slots_offset = buf_len(&file);
	for (size_t i = 0; i < 2; i++) {
		slot_encode(e.rcpts[i].status, SLOT_SIZE_OLD, slot);
		buf_add(&file, slice(slot, sizeof(slot)));
	}
	l.file_size = buf_len(&file) + QUEUE_FOOTER_SIZE;
	buf_add_str(&file, "BHQUEUE1");
	buf_add_u64(&file, l.record_offset);
	buf_add_u32(&file, l.record_length);
	buf_add_u32(&file, 2);
	buf_add_u64(&file, l.slots_offset);
	buf_add_u64(&file, l.record_digest);
	buf_add_u64(&file, l.file_size);
	buf_add_u64(&file, 0);
	buf_add_u64(&file, 0);
	queue_footer_repair(file.data + file.head, buf_len(&file));
	assert_int_equal(queue_write_all(fd, (struct slice[]){ buf_slice(&file) }, 1, 0), 0);
	assert_int_equal(queue_file_read(fd, &a, &r, &l2), 0);
	assert_int_equal(l2.slot_size, SLOT_SIZE_OLD);
	assert_int_equal(r.rcpts[0].status->state, RCPT_DONE);
	assert_string_equal(r.rcpts[0].status->text, "ok  x");

	memset(text, 'y', sizeof(text));
	rcpt_status_set(&s, SLICE_LIT("4.2.0"), slice((unsigned char *)text, sizeof(text)),
	    SLICE_LIT("mx.example.net[192.0.2.1]:25"));
	assert_int_equal(queue_file_set_status(fd, &l2, 1, &s), 0);
	assert_int_equal(queue_file_read(fd, &a, &r, &l2), 0);
	assert_int_equal(r.rcpts[0].status->state, RCPT_DONE);
	assert_int_equal(r.rcpts[1].status->state, RCPT_DEFERRED);
	assert_int_equal(strlen(r.rcpts[1].status->text), 160);
	assert_string_equal(r.rcpts[1].status->text + 157, "...");
	assert_string_equal(r.rcpts[1].status->remote, "mx.example.net[192.0.2.1]:25");
	close(fd);
	buf_free(&file);
	arena_free(&a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_slots),
		cmocka_unit_test(test_long_texts),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
