/* Unit tests of the operations on the spool, run without threads: each against a folder in /tmp. */
#include "qmgr/incoming.h"

#include "queue/mail.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define CONTENT "Subject: x\r\n\r\nhello\r\n"
#define ID ((queue_id)123456789 << 10 | 5)

static struct spool spool;

static int
setup(void **state)
{
	char path[] = "/tmp/spool_test_XXXXXX", why[256];
	uint64_t units;

	*state = NULL;
	spool = (struct spool){ 0 };
	if (!mkdtemp(path) || spool_prepare(path, getuid(), getgid(), why, sizeof(why)) ||
	    chdir(path))
		return -1;
	return spool_open(&spool, 7, &units, why, sizeof(why)) || units;
}

static int
teardown(void **state)
{
	char path[64];

	(void)state;
	for (unsigned int i = 0; i < QUEUE_DIRS; i++) {
		snprintf(path, sizeof(path), "%c", queue_dir_name(i));
		close(spool.dirs[i]);
		rmdir(path);
	}
	close(spool.incoming);
	close(spool.corrupt);
	close(spool.root);
	if (getcwd(path, sizeof(path))) {
		unlink("clock");
		rmdir("incoming");
		rmdir("corrupt");
		if (chdir("/") == 0)
			rmdir(path);
	}
	return 0;
}

static struct spool_op *
make(enum spool_kind kind)
{
	return spool_op(&spool, kind, ID, NULL, NULL, NULL);
}

static int
run(struct spool_op *o)
{
	o->op.work(&o->op);
	return o->op.err;
}

static int
run_once(enum spool_kind kind)
{
	struct spool_op *o = make(kind);
	int err = run(o);

	spool_op_free(o);
	return err;
}

static void
fill(struct envelope *e, struct envelope_rcpt *r)
{
	*r = (struct envelope_rcpt){ .address = SLICE_LIT("u@example.net"),
		.original = SLICE_LIT("u@example.net") };
	*e = (struct envelope){ .id = ID,
		.arrival = 1,
		.size = sizeof(CONTENT) - 1,
		.sender = SLICE_LIT("s@example.com"),
		.n_extents = 1,
		.n_rcpts = 1,
		.rcpts = r };
	e->extents[0] = (struct envelope_extent){ 0, e->size };
}

static int
commit(bool new_file, struct queue_layout *l)
{
	struct spool_op *o = make(SPOOL_COMMIT);
	struct envelope_rcpt r;
	struct envelope e;
	int err;

	fill(&e, &r);
	o->new_file = new_file;
	o->mode = QUEUE_MODE_VALID;
	if (new_file)
		o->content = SLICE_LIT(CONTENT);
	else
		o->offset = e.size, o->made_as = ID;
	assert_int_equal(queue_file_tail(&e, e.size, &o->tail, l), 0);
	err = run(o);
	spool_op_free(o);
	return err;
}

static struct spool_op *
load(int want)
{
	struct spool_op *o = make(SPOOL_LOAD);

	o->small = 1000;
	assert_int_equal(run(o), want);
	return o;
}

static struct spool_op *
walk(unsigned int own_start)
{
	struct spool_op *o = make(SPOOL_WALK);

	o->dir = queue_id_dir(ID);
	o->own_from = ID;
	o->own_start = own_start;
	assert_int_equal(run(o), 0);
	assert_false(o->more);
	return o;
}

static void
test_small(void **state)
{
	struct queue_layout l;
	struct spool_op *o;
	struct rcpt_status s = { .state = RCPT_DEFERRED, .attempts = 2, .last_attempt = 5 };

	(void)state;
	assert_int_equal(commit(true, &l), 0);
	assert_int_equal(commit(true, &l), -EEXIST); /* and the first one is still there */
	o = load(0);
	assert_true(slice_eq_str(buf_slice(&o->data), CONTENT));
	assert_int_equal(o->read_fd, -1);
	assert_false(o->held);
	spool_op_free(o);

	o = make(SPOOL_UPDATE);
	o->layout = l;
	o->slots = xcalloc(1, sizeof(*o->slots));
	o->n_slots = 1;
	slot_encode(&s, o->layout.slot_size, o->slots[0].bytes);
	o->mtime_ms = 1234567890123;
	o->mode = QUEUE_MODE_HELD;
	assert_int_equal(run(o), 0);
	spool_op_free(o);
	o = load(0);
	assert_int_equal(o->env.rcpts[0].status->attempts, 2);
	assert_int_equal(o->mtime_ms, 1234567890123);
	assert_true(o->held);
	spool_op_free(o);

	o = walk(6); /* files of another start */
	assert_int_equal(o->n_found, 1);
	assert_true(o->found[0].id == ID && !o->found[0].err && o->found[0].held);
	assert_string_equal(o->found[0].sender, "s@example.com");
	assert_string_equal(o->found[0].domain, "example.net");
	assert_int_equal(o->found[0].open_rcpts, 1);
	spool_op_free(o);
	o = walk(ID & 1023); /* our own */
	assert_int_equal(o->n_found, 0);
	spool_op_free(o);

	assert_int_equal(run_once(SPOOL_CORRUPT), 0);
	spool_op_free(load(-ENOENT));
	assert_int_equal(run_once(SPOOL_UNLINK), -ENOENT);
	assert_int_equal(unlinkat(spool.corrupt, (o = make(SPOOL_SPACE))->name, 0), 0);
	assert_int_equal(run(o), 0);
	assert_true(o->free_bytes > 0 && o->free_inodes > 0);
	spool_op_free(o);
}

static void
test_large(void **state)
{
	struct queue_layout l;
	struct spool_op *o, *seal = make(SPOOL_SEAL);
	int writer;

	(void)state;
	o = make(SPOOL_CREATE);
	assert_int_equal(run(o), 0);
	writer = dup(o->fd);
	seal->read_fd = o->read_fd;
	o->read_fd = -1;
	spool_op_free(o);
	assert_int_equal(write(writer, CONTENT, sizeof(CONTENT) - 1), sizeof(CONTENT) - 1);
	/* A writer is left. */
	assert_int_equal(run(seal), ERR_DENIED);
	close(writer);
	assert_int_equal(run(seal), 0);
	assert_int_equal(seal->size, sizeof(CONTENT) - 1);
	/* Until it is committed nobody takes it for a queue file, and a start removes it. */
	spool_op_free(load(-ENOENT));
	o = make(SPOOL_WALK);
	o->incoming = true;
	assert_int_equal(run(o), 0);
	assert_int_equal(o->n_found, 1);
	assert_true(o->found[0].open && !o->found[0].junk);
	spool_op_free(o);
	/* What an earlier use left behind the content is not in the queue file. */
	o = make(SPOOL_CREATE);
	writer = openat(spool.incoming, o->name, O_WRONLY | O_APPEND);
	assert_int_equal(write(writer, "more", 4), 4);
	close(writer);
	spool_op_free(o);
	assert_int_equal(commit(false, &l), 0);
	o = load(0);
	assert_true(slice_eq_str(buf_slice(&o->data), CONTENT));
	spool_op_free(o);
	spool_op_free(seal);
	assert_int_equal(run_once(SPOOL_UNLINK), 0);
}

static void
use_incoming(struct incoming_file *f, const char *content)
{
	assert_true(f->write_fd >= 0 && f->read_fd >= 0);
	assert_int_equal(write(f->write_fd, content, strlen(content)), strlen(content));
	close(f->write_fd);
}

/* A file is used again, empty of what it held, unless somebody could still see it. */
static void
test_wiped(void **state)
{
	struct spool_op *o = make(SPOOL_CREATE);
	struct incoming_file f = { .name = ID };
	struct stat before, after;
	char bytes[8] = "xxxxxxxx";

	(void)state;
	assert_int_equal(run(o), 0);
	f.write_fd = o->fd, f.read_fd = o->read_fd;
	o->fd = o->read_fd = -1;
	use_incoming(&f, "secret");
	assert_int_equal(fstat(f.read_fd, &before), 0);
	close(f.read_fd);
	incoming_clean(spool.incoming, &f, 6);
	assert_int_equal(fstat(f.read_fd, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_int_equal(read(f.read_fd, bytes, sizeof(bytes)), 6);
	assert_memory_equal(bytes, "\0\0\0\0\0\0xx", 8);
	/* Its last reader has not closed it yet; the next user's content must not reach him. */
	use_incoming(&f, "secret");
	incoming_clean(spool.incoming, &f, 6);
	assert_true(f.write_fd < 0 && f.read_fd < 0);
	assert_int_equal(faccessat(spool.incoming, o->name, F_OK, 0), -1);
	spool_op_free(o);
}

static void
test_wiped_too_large(void **state)
{
	struct spool_op *o = make(SPOOL_CREATE);
	struct incoming_file f = { .name = ID };

	(void)state;
	assert_int_equal(run(o), 0);
	f.write_fd = o->fd;
	f.read_fd = o->read_fd;
	o->fd = -1;
	use_incoming(&f, "1234567");
	spool_op_free(o);
	incoming_clean(spool.incoming, &f, 6);
	assert_true(f.write_fd < 0 && f.read_fd < 0);
}

/* What a receiver wrote looks like a queue file, footer and all: its mode tells. */
static void
test_forged(void **state)
{
	struct queue_layout l;
	struct spool_op *o;

	(void)state;
	assert_int_equal(commit(true, &l), 0);
	o = make(SPOOL_UNLINK);
	assert_int_equal(fchmodat(spool.dirs[queue_id_dir(ID)], o->name, QUEUE_MODE_OPEN, 0), 0);
	spool_op_free(o);
	o = walk(6);
	assert_int_equal(o->n_found, 1);
	assert_true(o->found[0].open);
	spool_op_free(o);
	assert_int_equal(run_once(SPOOL_UNLINK), 0);
}

static void
test_clock(void **state)
{
	struct spool again = { 0 };
	char why[256];
	struct spool_op *o = make(SPOOL_CLOCK);
	uint64_t units;

	(void)state;
	o->units = 0x123456789abc;
	assert_int_equal(run(o), 0);
	spool_op_free(o);
	assert_int_equal(spool_open(&again, 7, &units, why, sizeof(why)), 0);
	assert_true(units == 0x123456789abc);
	assert_int_equal(again.start, 8); /* not that of the start before */
	for (unsigned int i = 0; i < QUEUE_DIRS; i++)
		close(again.dirs[i]);
	close(again.incoming);
	close(again.corrupt);
	close(again.root);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_wiped),
		cmocka_unit_test(test_wiped_too_large),
		cmocka_unit_test(test_forged),
		cmocka_unit_test(test_clock),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
