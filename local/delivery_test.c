/* Unit tests of content, Maildir and mbox delivery, on real files. */
#include "local/content.h"
#include "local/maildir.h"
#include "local/mbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[] = "/tmp/delivery_test.XXXXXX";
static bool older_kernel; /* lets nobody name a file that has no name */

int
linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	if (older_kernel && flags & AT_EMPTY_PATH) {
		errno = ENOENT;
		return -1;
	}
	return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}

static struct content
inline_content(struct slice s)
{
	return (struct content){ .bytes = s, .fd = -1, .size = s.n };
}

/* The same bytes in a file, in extents of step bytes with garbage between them. */
static struct content
file_content(struct slice s, size_t step)
{
	char path[] = "/tmp/delivery_content.XXXXXX";
	struct content c = { .fd = mkstemp(path), .size = s.n };
	off_t at = 3;

	assert_true(c.fd >= 0);
	unlink(path);
	for (size_t from = 0; from < s.n; from += step) {
		struct slice part = slice_sub(s, from, from + step);

		assert_true(c.nextents < CONTENT_EXTENTS);
		assert_int_equal(pwrite(c.fd, part.p, part.n, at), (ssize_t)part.n);
		c.extents[c.nextents].offset = (uint64_t)at;
		c.extents[c.nextents++].length = part.n;
		at += (off_t)part.n + 7;
	}
	return c;
}

static struct slice
slurp(const char *path)
{
	static struct buf b;
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	buf_clear(&b);
	while (buf_read(&b, fd, 65536) > 0)
		;
	close(fd);
	return buf_slice(&b);
}

static void
written(const struct content *c, struct slice prelude, enum content_form form, struct slice expect,
    uint64_t crlf)
{
	char path[] = "/tmp/delivery_out.XXXXXX";
	struct content_sizes sizes, measured;
	int fd = mkstemp(path);
	struct slice got;

	assert_int_equal(content_write(c, prelude, form, fd, &sizes), 0);
	close(fd);
	got = slurp(path);
	unlink(path);
	if (!slice_eq(got, expect))
		fail_msg("got %.*s", SLICE_ARG(got));
	assert_int_equal(sizes.written, expect.n);
	assert_int_equal(sizes.crlf, crlf);
	if (form == CONTENT_LF) {
		assert_int_equal(content_measure(c, prelude, &measured), 0);
		assert_memory_equal(&measured, &sizes, sizeof(sizes));
	}
}

static void
test_forms(void **state)
{
	struct slice s =
	    SLICE_LIT("A: b\r\n\r\nFrom x\r\nFrom\r\n>From y\r\nlone \r cr\r\nbare\nlf\r\n\nend\r");
	struct slice lf =
	    SLICE_LIT("P: q\nA: b\n\nFrom x\nFrom\n>From y\nlone \r cr\nbare\nlf\n\nend\r");
	struct slice mbox =
	    SLICE_LIT("P: q\nA: b\n\n>From x\nFrom\n>From y\nlone \r cr\nbare\nlf\n\nend\r");
	struct slice prelude = SLICE_LIT("P: q\r\n");
	struct content c = inline_content(s);

	(void)state;
	written(&c, prelude, CONTENT_LF, lf, s.n + prelude.n + 2);
	written(&c, prelude, CONTENT_MBOX, mbox, s.n + prelude.n + 3);
	for (size_t step = (s.n + 15) / 16; step <= s.n; step++) {
		c = file_content(s, step);
		written(&c, prelude, CONTENT_LF, lf, s.n + prelude.n + 2);
		written(&c, prelude, CONTENT_MBOX, mbox, s.n + prelude.n + 3);
		close(c.fd);
	}
	c = inline_content(s);
	c.binary = true;
	written(&c, SLICE_NULL, CONTENT_LF, s, s.n);
	c = inline_content(SLICE_NULL);
	written(&c, prelude, CONTENT_LF, SLICE_LIT("P: q\n"), 6);
}

static void
test_large(void **state)
{
	struct buf in = { 0 }, out = { 0 };
	struct content c;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		buf_addf(&in, "From line %d of it\r\n", i);
		buf_addf(&out, ">From line %d of it\n", i);
	}
	c = file_content(buf_slice(&in), buf_len(&in) / 3 + 1);
	written(&c, SLICE_NULL, CONTENT_MBOX, buf_slice(&out), buf_len(&in) + 20000);
	c.extents[c.nextents - 1].length += 100;
	c.size += 100; /* the file is shorter than the envelope says */
	{
		struct content_sizes sizes;
		int fd = open("/dev/null", O_WRONLY);
		/* what lies behind the last extent in the file is not there */
		assert_int_equal(ftruncate(c.fd, (off_t)(c.extents[c.nextents - 1].offset +
							 c.extents[c.nextents - 1].length - 100)),
		    0);
		assert_int_equal(
		    content_write(&c, SLICE_NULL, CONTENT_LF, fd, &sizes), ERR_TRUNCATED);
		close(fd);
	}
	close(c.fd);
	buf_free(&in);
	buf_free(&out);
}

static void
test_delivered_to(void **state)
{
	struct content c = inline_content(SLICE_LIT("A: b\r\nDelivered-To: x@y.z\r\nDELIVERED-TO:  "
						    "Joe@X.org \r\n\r\nDelivered-To: body@x\r\n"));
	bool found;

	(void)state;
	assert_int_equal(content_delivered_to(&c, SLICE_LIT("joe@x.org"), false, 1000, &found), 0);
	assert_true(found);
	assert_int_equal(content_delivered_to(&c, SLICE_LIT("body@x"), false, 1000, &found), 0);
	assert_false(found);
	assert_int_equal(content_delivered_to(&c, SLICE_LIT("joe@x.org"), false, 20, &found), 0);
	assert_false(found);
	c = inline_content(SLICE_LIT("Delivered-To: x@y.z\r\nDelivered-To: a@y.z\r\n\r\n"));
	assert_int_equal(content_delivered_to(&c, SLICE_LIT("x@y.z"), true, 1000, &found), 0);
	assert_false(found);
	assert_int_equal(content_delivered_to(&c, SLICE_LIT("a@y.z"), true, 1000, &found), 0);
	assert_true(found);
}

/* A header section whose end is about where a read of the file ends, and one that is longer. */
static void
test_delivered_to_in_a_file(void **state)
{
	(void)state;
	for (size_t pad = 8140; pad < 8200; pad++) {
		struct buf b = { 0 };
		struct content c;
		bool found;

		buf_add_str(&b, "X: ");
		while (buf_len(&b) < pad)
			buf_add_byte(&b, 'x');
		buf_add_str(&b, pad % 2 ? "\r\n" : "\n");
		buf_add_str(&b, "Delivered-To: late@x\r\n\r\nDelivered-To: body@x\r\n");
		while (buf_len(&b) < 40000)
			buf_add_str(&b, "more\r\n");
		c = file_content(buf_slice(&b), 5000);
		assert_int_equal(
		    content_delivered_to(&c, SLICE_LIT("late@x"), false, 32768, &found), 0);
		assert_true(found);
		assert_int_equal(
		    content_delivered_to(&c, SLICE_LIT("body@x"), false, 32768, &found), 0);
		assert_false(found);
		assert_int_equal(
		    content_delivered_to(&c, SLICE_LIT("late@x"), false, pad, &found), 0);
		assert_false(found); /* the limit comes before it */
		close(c.fd);
		buf_free(&b);
	}
}

static const char *
only_file(const char *folder)
{
	static _Thread_local char path[1024];
	struct dirent *e;
	DIR *d = opendir(folder);
	int n = 0;

	assert_non_null(d);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
			n++;
		}
	closedir(d);
	return n == 1 ? path : n ? "many" : "none";
}

static struct maildir_mail
mail_to(const struct content *c, const char *recipient)
{
	return (struct maildir_mail){ .content = c,
		.prelude = SLICE_LIT("Return-Path: <>\r\n"),
		.queue_id = SLICE_LIT("QID1"),
		.recipient = slice_str(recipient),
		.arrival = 1700000000 };
}

static void
test_maildir(void **state)
{
	struct content c = inline_content(SLICE_LIT("Subject: x\r\n\r\nbody\r\n"));
	struct maildir_mail mail = mail_to(&c, "joe@x.org");
	struct maildir m;
	bool repeated;
	char cur[1024];
	struct stat st;

	(void)state;
	maildir_init(&m, "a/b/Maildir", SLICE_LIT("mx.ex:am/ple.test"), 0);
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), 0);
	assert_false(repeated);
	assert_int_equal(stat("a/b/Maildir/cur", &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_string_equal(only_file("a/b/Maildir/tmp"), "none");
	assert_true(slice_eq_str(
	    slurp(only_file("a/b/Maildir/new")), "Return-Path: <>\nSubject: x\n\nbody\n"));
	assert_non_null(strstr(only_file("a/b/Maildir/new"), "mx.ex_am_ple.test,S=33,W=37"));
	/* The same job again is found in new/. */
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), 0);
	assert_true(repeated);
	assert_true(strcmp(only_file("a/b/Maildir/new"), "many") != 0);
	/* ... and in cur/ with flags, when the job says that it may be a repeat. */
	snprintf(cur, sizeof(cur), "a/b/Maildir/cur/%s:2,S",
	    strrchr(only_file("a/b/Maildir/new"), '/') + 1);
	assert_int_equal(rename(only_file("a/b/Maildir/new"), cur), 0);
	mail.repeat = true;
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), 0);
	assert_true(repeated);
	assert_string_equal(only_file("a/b/Maildir/new"), "none");
	/* Another recipient is another file. */
	mail = mail_to(&c, "ann@x.org");
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), 0);
	assert_false(repeated);
	assert_string_not_equal(only_file("a/b/Maildir/new"), "none");
	/* A file that a killed attempt left in tmp/ is in nobody's way. */
	assert_int_equal(rename(only_file("a/b/Maildir/new"), "a/b/Maildir/tmp/x"), 0);
	{
		char left[1024];
		snprintf(left, sizeof(left), "%s", "a/b/Maildir/tmp/x");
		assert_int_equal(unlink(left), 0);
	}
	/* The user moves the Maildir away under our descriptors: a new one is made. */
	assert_int_equal(system("rm -r a/b/Maildir"), 0);
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), 0);
	assert_string_not_equal(only_file("a/b/Maildir/new"), "none");
	maildir_close(&m);
	assert_int_equal(system("rm -r a"), 0);
}

#define LINES 200000

/* One of two who deliver the same message at once, as when qmgr has died and its successor repeats
 * what a child of the dead one still does. */
struct attempt {
	struct maildir m;
	const struct maildir_mail *mail;
	off_t size; /* of the file in new/ when this one said that it is there */
	int err;
	useconds_t after;
};

static void *
attempt_run(void *arg)
{
	struct attempt *a = arg;
	struct stat st;
	bool repeated;

	usleep(a->after);
	a->err = maildir_deliver(&a->m, a->mail, &repeated);
	if (!a->err)
		a->size = stat(only_file("twice/new"), &st) ? -1 : st.st_size;
	return NULL;
}

static void
test_maildir_two_attempts(void **state)
{
	struct buf text = { 0 };

	(void)state;
	for (int i = 0; i < LINES; i++)
		buf_add_str(&text, "0123456789\r\n");
	for (int round = 0; round < 24; round++) {
		struct content c = inline_content(buf_slice(&text));
		struct maildir_mail mail = mail_to(&c, "joe@x.org");
		struct attempt a[2] = { { .mail = &mail },
			{ .mail = &mail, .after = (useconds_t)round * 300 } };
		pthread_t threads[2];
		older_kernel = round / 2 % 2;

		mail.repeat = round % 2;
		for (int i = 0; i < 2; i++) {
			maildir_init(&a[i].m, "twice", SLICE_LIT("h"), 0);
			a[i].m.attempts = (unsigned)i * 1000; /* as if of two processes */
			assert_int_equal(pthread_create(&threads[i], NULL, attempt_run, &a[i]), 0);
		}
		for (int i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
		assert_true(!a[0].err || !a[1].err);
		for (int i = 0; i < 2; i++) {
			if (!a[i].err) /* "Return-Path: <>" stands before it */
				assert_int_equal(a[i].size, LINES * 11 + 16);
			maildir_close(&a[i].m);
		}
		assert_int_equal(unlink(only_file("twice/new")), 0);
		assert_string_equal(only_file("twice/tmp"), "none");
	}
	older_kernel = false;
	buf_free(&text);
}

/* What a killed attempt left in tmp/ goes when the message is tried again, and only then. */
static void
test_maildir_leftovers(void **state)
{
	struct content c = inline_content(SLICE_LIT("Subject: x\r\n\r\nbody\r\n"));
	struct maildir_mail mail = mail_to(&c, "joe@x.org");
	struct maildir m;
	char left[1024];
	bool repeated;

	(void)state;
	maildir_init(&m, "left", SLICE_LIT("h"), 0);
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), 0);
	snprintf(left, sizeof(left), "left/tmp/%s", strrchr(only_file("left/new"), '/') + 1);
	*strstr(left, ",S=") = 0;
	snprintf(left + strlen(left), sizeof(left) - strlen(left), ".P1A0");
	assert_int_equal(rename(only_file("left/new"), left), 0);
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), 0);
	assert_false(repeated);
	assert_string_equal(only_file("left/tmp"), left);
	assert_int_equal(unlink(only_file("left/new")), 0);
	mail.repeat = true;
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), 0);
	assert_false(repeated);
	assert_string_equal(only_file("left/tmp"), "none");
	assert_string_not_equal(only_file("left/new"), "none");
	maildir_close(&m);
	assert_int_equal(system("rm -r left"), 0);
}

static void
test_maildir_with_an_older_kernel(void **state)
{
	older_kernel = true;
	test_maildir(state);
	test_maildir_leftovers(state);
	older_kernel = false;
}

static void
test_maildir_quota(void **state)
{
	struct content c =
	    inline_content(SLICE_LIT("0123456789012345678901234567890123456789\r\n"));
	struct maildir_mail mail = mail_to(&c, "q1");
	struct maildir m;
	bool repeated;

	(void)state;
	maildir_init(&m, "quota", SLICE_LIT("h"), 130);
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), 0);
	mail.recipient = SLICE_LIT("q2");
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), 0);
	mail.recipient = SLICE_LIT("q3");
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), ERR_LIMIT);
	assert_int_equal(system("rm quota/new/*"), 0);
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), 0);
	/* Folders count too, and names without a size. */
	assert_int_equal(
	    system("mkdir -p quota/.Sent/cur && head -c 100 /dev/zero > quota/.Sent/cur/x"), 0);
	mail.recipient = SLICE_LIT("q4");
	m.used_at = 0;
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), ERR_LIMIT);
	maildir_close(&m);
}

/* Sizes in names are the user's to choose: none makes room, and their sum has no end. */
static void
test_maildir_quota_of_any_name(void **state)
{
	static const struct {
		const char *names[2];
		int want;
	} t[] = {
		{ { "a,S=-900:2,", "b,S=60" }, 0 },
		{ { "a,S=-900", "b" }, 0 },
		{ { "a,S=+90,W=9", "b,S= 90" }, 0 },
		{ { "a,S=90x", "b,S=" }, 0 },
		{ { "a,S=-900,W=1", "b,S=100:2,S" }, ERR_LIMIT },
		{ { "a,S=9223372036854775807", "b,S=9223372036854775807:2,S" }, ERR_LIMIT },
		{ { "a,S=9223372036854775807", "b,S=9" }, ERR_LIMIT },
		{ { "a,S=99999999999999999999", "b,S=60" }, 0 },
		{ { "a,S=99999999999999999999", "b,S=100" }, ERR_LIMIT },
	};
	struct content c = inline_content(SLICE_LIT("0123456789\r\n"));
	struct maildir_mail mail = mail_to(&c, "any");
	struct maildir m;
	char command[300];
	bool repeated;

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
		snprintf(command, sizeof(command),
		    "rm -rf any && mkdir -p any/cur && touch 'any/cur/%s' 'any/cur/%s'",
		    t[i].names[0], t[i].names[1]);
		assert_int_equal(system(command), 0);
		maildir_init(&m, "any", SLICE_LIT("h"), 120);
		if (maildir_deliver(&m, &mail, &repeated) != t[i].want)
			fail_msg("%s, %s", t[i].names[0], t[i].names[1]);
		maildir_close(&m);
	}
}

static void
test_maildir_is_file(void **state)
{
	struct content c = inline_content(SLICE_LIT("x\r\n"));
	struct maildir_mail mail = mail_to(&c, "q1");
	struct maildir m;
	bool repeated;

	(void)state;
	assert_int_equal(system("echo x > plain"), 0);
	maildir_init(&m, "plain", SLICE_LIT("h"), 0);
	assert_int_equal(maildir_deliver(&m, &mail, &repeated), -ENOTDIR);
	if (!geteuid()) {
		assert_int_equal(system("mkdir foreign.d && chown 12345 foreign.d"), 0);
		maildir_init(&m, "foreign.d", SLICE_LIT("h"), 0);
		assert_int_equal(maildir_deliver(&m, &mail, &repeated), ERR_DENIED);
	}
}

static const struct mbox_options both = {
	.fcntl_lock = true, .dotlock = true, .lock_ms = 200, .stale_ms = 60000
};

static void
test_mbox(void **state)
{
	struct content c = inline_content(SLICE_LIT("Subject: x\r\n\r\nFrom here\r\n"));
	struct slice from = SLICE_LIT("From a@b Thu Jan  1 00:00:00 1970\n");
	struct mbox_options limited = both;
	int fd;

	(void)state;
	assert_int_equal(mbox_append("box", -1, &c, from, SLICE_LIT("P: q\r\n"), &both), 0);
	assert_true(slice_eq_str(
	    slurp("box"), "From a@b Thu Jan  1 00:00:00 1970\nP: q\nSubject: x\n\n>From here\n\n"));
	assert_int_equal(access("box.lock", F_OK), -1);
	/* A last line without its end is ended first. */
	assert_int_equal(system("printf half > box2"), 0);
	assert_int_equal(mbox_append("box2", -1, &c, from, SLICE_NULL, &both), 0);
	assert_true(slice_has_prefix(slurp("box2"), "half\nFrom a@b"));
	/* Held locks: temporary, and the file is as it was. */
	assert_int_equal(system("touch box.lock"), 0);
	assert_int_equal(mbox_append("box", -1, &c, from, SLICE_NULL, &both), ERR_TEMPORARY);
	assert_int_equal(system("touch -d '2 hours ago' box.lock"), 0);
	assert_int_equal(mbox_append("box", -1, &c, from, SLICE_NULL, &both), 0);
	fd = open("box", O_RDWR);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &(struct flock){ .l_type = F_WRLCK }), 0);
	assert_int_equal(mbox_append("box", -1, &c, from, SLICE_NULL, &both), ERR_TEMPORARY);
	close(fd);
	assert_int_equal(access("box.lock", F_OK), -1);
	/* Limit of the file. */
	limited.size_limit = 100;
	assert_int_equal(mbox_append("box", -1, &c, from, SLICE_NULL, &limited), ERR_LIMIT);
	/* A file of somebody else is not a mailbox of ours. */
	if (!geteuid()) {
		struct mbox_options owned = both;

		owned.owned = true;
		assert_int_equal(system("touch foreign && chown 12345 foreign"), 0);
		assert_int_equal(
		    mbox_append("foreign", -1, &c, from, SLICE_NULL, &owned), ERR_DENIED);
		assert_int_equal(mbox_append("foreign", -1, &c, from, SLICE_NULL, &both), 0);
	}
	/* Links are not followed. */
	assert_int_equal(symlink("/etc/passwd", "link"), 0);
	assert_int_equal(mbox_append("link", -1, &c, from, SLICE_NULL, &both), -ELOOP);
	assert_int_equal(link("box", "hard"), 0);
	assert_int_equal(mbox_append("hard", -1, &c, from, SLICE_NULL, &both), -EMLINK);
	assert_int_equal(mkdir("folder", 0700), 0);
	assert_int_equal(mbox_append("folder", -1, &c, from, SLICE_NULL, &both), -EISDIR);
}

/* What cannot be written whole is cut off again. */
static void
test_mbox_truncates(void **state)
{
	struct content c = { .fd = open("/dev/null", O_RDONLY), .size = 100, .nextents = 1 };

	(void)state;
	c.extents[0].length = 100;
	assert_int_equal(system("printf 'From x\\n\\n' > torn"), 0);
	assert_int_equal(
	    mbox_append("torn", -1, &c, SLICE_LIT("From y\n"), SLICE_NULL, &both), ERR_TRUNCATED);
	assert_true(slice_eq_str(slurp("torn"), "From x\n\n"));
	close(c.fd);
}

static int
setup(void **state)
{
	(void)state;
	return mkdtemp(dir) && !chdir(dir) ? 0 : -1;
}

static int
teardown(void **state)
{
	char command[300];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_delivered_to),
		cmocka_unit_test(test_delivered_to_in_a_file),
		cmocka_unit_test(test_maildir),
		cmocka_unit_test(test_maildir_two_attempts),
		cmocka_unit_test(test_maildir_leftovers),
		cmocka_unit_test(test_maildir_with_an_older_kernel),
		cmocka_unit_test(test_maildir_quota),
		cmocka_unit_test(test_maildir_quota_of_any_name),
		cmocka_unit_test(test_maildir_is_file),
		cmocka_unit_test(test_mbox),
		cmocka_unit_test(test_mbox_truncates),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
