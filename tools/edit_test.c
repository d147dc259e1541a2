/* Unit tests of the edits of main.cf: every byte beside the edited line stays. */
#include "tools/edit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

static char synced[8]; /* f: a file, d: a folder */

int
fsync(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return -1;
	strncat(synced, S_ISDIR(st.st_mode) ? "d" : "f", sizeof(synced) - strlen(synced) - 1);
	return (int)syscall(SYS_fsync, fd);
}

static const struct {
	enum edit_kind kind;
	const char *before, *name, *value, *after;
	size_t found;
} cases[] = {
	{ EDIT_SET, "", "a", "1", "a = 1\n", 0 },
	{ EDIT_SET, "b = 2", "a", "1", "b = 2\na = 1\n", 0 },
	{ EDIT_SET, "# c\na=0\nb = 2\n", "a", "1", "# c\na = 1\nb = 2\n", 1 },
	{ EDIT_SET, "a = 0\n  more\n# c\n  most\nb = 2\n", "a", "1", "a = 1\n# c\nb = 2\n", 1 },
	{ EDIT_SET, "a = 0\n\f# c\n\v\n more\n", "a", "1", "a = 1\n\f# c\n\v\n", 1 },
	{ EDIT_SET, "a = 0\nb = 2\na = 3\n# end", "a", "1", "a = 0\nb = 2\na = 1\n# end", 2 },
	{ EDIT_SET, "a = 0", "a", "1", "a = 1\n", 1 },
	{ EDIT_SET, "#a = 0\naa = 0\n", "a", "1", "#a = 0\naa = 0\na = 1\n", 0 },
	{ EDIT_SET, "a = 0\n\n# of b\nb = 2\n", "a", "", "a = \n\n# of b\nb = 2\n", 1 },
	{ EDIT_REMOVE, "# c\na = 0\n  more\nb = 2\na = 1\n", "a", NULL, "# c\nb = 2\n", 2 },
	{ EDIT_REMOVE, "b = 2\n", "a", NULL, "b = 2\n", 0 },
	{ EDIT_COMMENT, "a = 0\n  more\n# c\n  most\nb = 2\n", "a", NULL,
	    "#a = 0\n#  more\n# c\n#  most\nb = 2\n", 1 },
};

static void
test_edits(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf out = { 0 };
		size_t found = edit_text(
		    slice_str(cases[i].before), cases[i].kind, cases[i].name, cases[i].value, &out);

		(void)buf_add_byte(&out, '\0');
		assert_string_equal(buf_slice(&out).p, cases[i].after);
		assert_int_equal(found, cases[i].found);
		buf_free(&out);
	}
}

static void
test_replace_keeps_the_mode(void **state)
{
	char path[] = "/tmp/edit_test.XXXXXX";
	struct buf why = { 0 };
	struct stat st;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, 0640), 0);
	close(fd);
	assert_int_equal(edit_replace(path, SLICE_LIT("new\n"), &why), 0);
	assert_string_equal(synced, "fd");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 4);
	assert_int_equal(st.st_mode & 07777, 0640);
	unlink(path);
	assert_int_not_equal(edit_replace(path, SLICE_LIT("new\n"), &why), 0);
	assert_true(
	    slice_has_suffix(buf_slice(&why), "cannot be replaced: No such file or directory"));
	buf_free(&why);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_edits),
		cmocka_unit_test(test_replace_keeps_the_mode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
