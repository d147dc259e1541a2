/* A unit test of what an owner of a source may try while root builds its table. */
#include "db/type.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { STRANGER = 54321 };

static void
fill(const char *name, uid_t owner, size_t lines)
{
	FILE *f = fopen(name, "w");

	assert_non_null(f);
	for (size_t i = 0; i < lines; i++)
		fprintf(f, "key%zu %01000d\n", i, 7);
	fclose(f);
	assert_int_equal(chown(name, owner, owner), 0);
}

/* As soon as the secret is opened the link leads elsewhere. */
static void *
swap(void *arg)
{
	char event[4096];

	if (read(*(int *)arg, event, sizeof(event)) <= 0 || rename("link2", "link"))
		return arg;
	return NULL;
}

static void
test_link_that_changes_while_root_reads(void **state)
{
	static const char *const names[] = { "secret", "own", "link", "table" };
	char dir[] = "/tmp/build_test.XXXXXX";
	struct buf why = { 0 };
	struct stat st;
	pthread_t thread;
	void *failed;
	size_t n;
	int watch;

	(void)state;
	if (geteuid())
		skip();
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	assert_int_equal(chown(dir, STRANGER, STRANGER), 0);
	fill("secret", 0, 30000);
	fill("own", STRANGER, 1);
	assert_int_equal(symlink("secret", "link"), 0);
	assert_int_equal(symlink("own", "link2"), 0);
	watch = inotify_init1(IN_CLOEXEC);
	assert_true(inotify_add_watch(watch, "secret", IN_OPEN) >= 0);
	assert_int_equal(pthread_create(&thread, NULL, swap, &watch), 0);
	assert_int_equal(db_build("link", "table", 0, &n, &why), 0);
	assert_int_equal(pthread_join(thread, &failed), 0);
	assert_null(failed);
	assert_int_equal(n, 30000);
	assert_int_equal(stat("table", &st), 0);
	assert_int_equal(st.st_uid, 0);
	close(watch);
	buf_free(&why);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(unlink(names[i]), 0);
	assert_int_equal(rmdir(dir), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_link_that_changes_while_root_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
