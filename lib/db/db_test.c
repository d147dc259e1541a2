/* Unit tests of the look-up tables. */
#include "db/type.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[] = "/tmp/db_test.XXXXXX";

static const char *
path(const char *name)
{
	static char text[256];

	snprintf(text, sizeof(text), "%s/%s", dir, name);
	return text;
}

/* Publishes as a careful admin does: a new file, renamed. */
static void
put(const char *name, const char *content)
{
	char tmp[256];
	FILE *f;

	snprintf(tmp, sizeof(tmp), "%s/tmp", dir);
	f = fopen(tmp, "w");
	assert_non_null(f);
	fputs(content, f);
	fclose(f);
	assert_int_equal(rename(tmp, path(name)), 0);
}

static struct db *
opened(const char *type, const char *name, unsigned flags)
{
	struct buf why = { 0 };
	struct db *db;
	char spec[512];

	snprintf(spec, sizeof(spec), "%s:%s", type, name);
	if (db_open(slice_str(spec), flags, &db, &why))
		fail_msg("%.*s", SLICE_ARG(buf_slice(&why)));
	buf_free(&why);
	return db;
}

/* The value, "-" if there is none, "!" on an error. */
static const char *
get(const struct db *db, const char *key)
{
	static char text[1024];
	struct buf value = { 0 };
	int err = db_get(db, slice_str(key), &value);

	if (err == ERR_NOT_FOUND)
		return "-";
	if (err)
		return "!";
	assert_int_equal(slice_copy(buf_slice(&value), text, sizeof(text)), 0);
	buf_free(&value);
	return text;
}

static void
refused(const char *type, const char *name, const char *content, unsigned flags, const char *expect)
{
	struct buf why = { 0 };
	struct db *db;
	char spec[512];

	if (content)
		put(name, content);
	snprintf(spec, sizeof(spec), "%s:%s", type, content ? path(name) : name);
	assert_true(db_open(slice_str(spec), flags, &db, &why) < 0);
	buf_add_byte(&why, 0);
	if (!strstr((const char *)buf_slice(&why).p, expect))
		fail_msg("%s does not say %s", (const char *)buf_slice(&why).p, expect);
	if (db)
		assert_string_equal(get(db, "x"), "!");
	db_free(&db);
	buf_free(&why);
}

static void
test_hash(void **state)
{
	struct db *db;

	(void)state;
	put("t", "# comment\n\nalpha one\n  continued\n\t# inside\n\tagain\nBeta\ttwo three  \n"
		 "\"a b\"@x.org quoted\nalpha second\nlonely\nlast value");
	db = opened("hash", path("t"), 0);
	assert_string_equal(get(db, "alpha"), "one continued again");
	assert_string_equal(get(db, "ALPHA"), "one continued again");
	assert_string_equal(get(db, "beta"), "two three");
	assert_string_equal(get(db, "\"a b\"@x.org"), "quoted");
	assert_string_equal(get(db, "last"), "value");
	assert_string_equal(get(db, "lonely"), "-");
	assert_string_equal(get(db, ""), "-");
	assert_int_equal(db_get(db, slice("a\0b", 3), &(struct buf){ 0 }), ERR_NOT_FOUND);
	db_free(&db);
}

static void
test_aliases(void **state)
{
	struct buf why = { 0 };
	struct db *db;
	char spec[512];

	(void)state;
	put("al", "postmaster: root\nRoot:  joe,\n  ann@x.org\n\"odd name\": nobody\nbad line\n"
		  "prog: \"|/bin/cat -n: x\"\nempty:\n");
	snprintf(spec, sizeof(spec), "hash:%s", path("al"));
	assert_int_equal(db_open(slice_str(spec), DB_ALIASES, &db, &why), 0);
	assert_string_equal(get(db, "POSTMASTER"), "root");
	assert_string_equal(get(db, "root"), "joe, ann@x.org");
	assert_string_equal(get(db, "odd name"), "nobody");
	assert_string_equal(get(db, "prog"), "\"|/bin/cat -n: x\"");
	assert_true(slice_search(buf_slice(&why), SLICE_LIT("line 5 is not")) > 0);
	assert_true(slice_search(buf_slice(&why), SLICE_LIT("line 7 has no value")) > 0);
	buf_free(&why);
	db_free(&db);
}

static void
test_inline_static_unix(void **state)
{
	struct db *db = opened("inline", "{a=b, {c = d e}, f=}", 0);

	(void)state;
	assert_string_equal(get(db, "a"), "b");
	assert_string_equal(get(db, "C"), "d e");
	assert_string_equal(get(db, "f"), "");
	assert_string_equal(get(db, "b"), "-");
	db_free(&db);
	db = opened("static", "yes", 0);
	assert_string_equal(get(db, "whatever"), "yes");
	assert_true(db_traits(db) & DB_PATTERN);
	db_free(&db);
	db = opened("static", "{two words}", 0);
	assert_string_equal(get(db, "whatever"), "two words");
	db_free(&db);
	db = opened("unix", "passwd.byname", 0);
	assert_int_equal(db_get(db, SLICE_LIT("root"), &(struct buf){ 0 }), -EAGAIN);
	db_free(&db);
	refused("inline", "{a}", NULL, 0, "inline:{name=value");
	refused("inline", "{a=b, a=c}", NULL, 0, "each name once");
	refused("inline", "a=b", NULL, 0, "inline:{name=value");
	refused("unix", "group.byname", NULL, 0, "passwd.byname");
	refused("nosuch", "x", NULL, 0, "not a table");
	refused("hash", "relative", NULL, 0, "must begin with /");
	refused("hash", "/nonexistent/x", NULL, 0, "cannot read /nonexistent/x");
}

static void
test_cidr(void **state)
{
	struct db *db;

	(void)state;
	put("c", "192.0.2.0/25 low\n192.0.2.128/32 one\n192.0.2.0/24 high\n"
		 "if 2001:db8::/32\n2001:db8:1::/48 inner\n!2001:db8:2::/48 rest\nendif\n"
		 "[2001:db8:2::1] bracket\n0.0.0.0/0 v4\n");
	db = opened("cidr", path("c"), 0);
	assert_string_equal(get(db, "192.0.2.1"), "low");
	assert_string_equal(get(db, "192.0.2.127"), "low");
	assert_string_equal(get(db, "192.0.2.128"), "one");
	assert_string_equal(get(db, "192.0.2.129"), "high");
	assert_string_equal(get(db, "198.51.100.1"), "v4");
	assert_string_equal(get(db, "2001:db8:1::5"), "inner");
	assert_string_equal(get(db, "2001:db8:3::5"), "rest");
	assert_string_equal(get(db, "2001:db8:2::1"), "bracket");
	assert_string_equal(get(db, "2001:db8:2::2"), "-");
	assert_string_equal(get(db, "2001:db9::1"), "-");
	assert_string_equal(get(db, "example.org"), "-");
	db_free(&db);
	refused("cidr", "c2", "192.0.2.1/24 x\n", 0, "bits set behind the prefix");
	refused("cidr", "c2", "192.0.2.0/33 x\n", 0, "length of prefix");
	refused("cidr", "c2", "192.0.2.0/ x\n", 0, "length of prefix");
	refused("cidr", "c2", "192.0.2.0/24\n", 0, "no value");
	refused("cidr", "c2", "host x\n", 0, "not an address");
	refused("cidr", "c2", "if 192.0.2.0/24\n", 0, "without endif");
	refused("cidr", "c2", "endif\n", 0, "without if");
}

static void
test_regexp(void **state)
{
	struct db *db;

	(void)state;
	put("r", "/^a(b+)c$/ $1-${1}$$\n!/@/ nodomain\nif /@x\\.org$/\n/^(.*)@/ $(1)@y.org\nendif\n"
		 "/UP/i exact\n#/x/ no\n|pipe|  sep\n");
	db = opened("regexp", path("r"), 0);
	assert_string_equal(get(db, "abbc"), "bb-bb$");
	assert_string_equal(get(db, "ABBC"), "BB-BB$");
	assert_string_equal(get(db, "plain"), "nodomain");
	assert_string_equal(get(db, "joe@X.ORG"), "joe@y.org");
	assert_string_equal(get(db, "up@z"), "-");
	assert_string_equal(get(db, "UP@z"), "exact");
	assert_string_equal(get(db, "pipe@z"), "sep");
	db_free(&db);
	put("r",
	    "/\\<pills?\\>/ word\n/[\\<]|[]\\<[:digit:]]x[^]a]/ bracket\n/\\\\</ back\n// empty\n");
	db = opened("regexp", path("r"), 0);
	assert_string_equal(get(db, "buy pill@x"), "word");
	assert_string_equal(get(db, "pillow@x"), "empty");
	assert_string_equal(get(db, "a<b"), "bracket");
	assert_string_equal(get(db, "7xb"), "bracket");
	assert_string_equal(get(db, "a\\>b"), "empty");
	db_free(&db);
	refused("regexp", "r2", "/(/ x\n", 0, "PCRE2 does not accept");
	refused("regexp", "r2", "/a/\n", 0, "no value");
	refused("regexp", "r2", "/a x\n", 0, "end of the pattern");
	refused("regexp", "r2", "a x\n", 0, "no /pattern/");
	refused("regexp", "r2", "/a/q x\n", 0, "unknown flag");
	refused("regexp", "r2", "/a/ $1\n", 0, "group that the pattern does not have");
	refused("regexp", "r2", "!/(a)/ $1\n", 0, "group");
	refused("regexp", "r2", "/a/ $x\n", 0, "neither $1");
	refused("regexp", "r2", "/(a)/ |run $1\n", DB_NO_EXPAND, "commands or files");
	refused("pcre", "r2", "if /a/\n/b/ c\n", 0, "without endif");
}

/* Numbers of two digits, and patterns with more groups than a match can tell. */
static void
test_many_groups(void **state)
{
	char text[512] = "/^";
	struct db *db;

	(void)state;
	put("g", "/^(1)(2)(3)(4)(5)(6)(7)(8)(9)(a)(b)(c)$/ $12${11}$1\n");
	db = opened("pcre", path("g"), 0);
	assert_string_equal(get(db, "123456789abc"), "cb1");
	db_free(&db);
	refused("pcre", "g2", "/^(1)(2)$/ $12\n", 0, "group that the pattern does not have");
	refused("pcre", "g2", "/^(1)$/ $1234\n", 0, "neither $1");
	for (int i = 0; i < 100; i++)
		strcat(text, "(a)");
	strcat(text, "/ x$1\n");
	refused("pcre", "g2", text, 0, "more than 99 groups");
}

/* A pattern that explodes must end in a temporary error, soon. */
static void
test_match_limit(void **state)
{
	struct db *db;

	(void)state;
	put("p", "/^(a+)+$/ x\n/./ y\n");
	db = opened("pcre", path("p"), 0);
	assert_string_equal(get(db, "aaaa"), "x");
	assert_string_equal(
	    get(db, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"), "!");
	db_free(&db);
}

static void
test_refresh(void **state)
{
	struct buf why = { 0 };
	struct db *db;

	(void)state;
	put("f", "a 1\n");
	db = opened("hash", path("f"), 0);
	assert_int_equal(db_refresh(db, &why), 0);
	put("f", "a 2\n");
	assert_int_equal(db_refresh(db, &why), 1);
	assert_string_equal(get(db, "a"), "2");
	unlink(path("f"));
	assert_true(db_refresh(db, &why) < 0);
	assert_string_equal(get(db, "a"), "2"); /* what was good stays in use */
	db_free(&db);
	put("q", "/a/ 1\n");
	db = opened("regexp", path("q"), 0);
	put("q", "/(/ 1\n");
	assert_true(db_refresh(db, &why) < 0);
	assert_string_equal(get(db, "a"), "1");
	put("q", "/a/ 3\n");
	assert_int_equal(db_refresh(db, &why), 1);
	assert_string_equal(get(db, "a"), "3");
	db_free(&db);
	buf_free(&why);
}

static void
test_lmdb(void **state)
{
	struct buf why = { 0 };
	struct db *db;
	char src[256], dst[300], long_key[600];
	size_t n;

	(void)state;
	put("l", "one 1\nTwo 2\none again\n");
	snprintf(src, sizeof(src), "%s", path("l"));
	snprintf(dst, sizeof(dst), "%s.lmdb", src);
	refused("lmdb", src, NULL, 0, "bulkhead map");
	assert_int_equal(db_build(src, dst, 0, &n, &why), 0);
	assert_int_equal(n, 2);
	assert_true(slice_search(buf_slice(&why), SLICE_LIT("line 3: a second entry")) > 0);
	db = opened("lmdb", src, 0);
	assert_string_equal(get(db, "ONE"), "1");
	assert_string_equal(get(db, "two"), "2");
	assert_string_equal(get(db, "three"), "-");
	memset(long_key, 'k', sizeof(long_key) - 1);
	long_key[sizeof(long_key) - 1] = 0;
	assert_string_equal(get(db, long_key), "-");
	assert_string_equal(get(db, ""), "-");
	put("l", "three 3\n");
	assert_int_equal(db_build(src, dst, 0, &n, &why), 0);
	assert_string_equal(get(db, "one"), "1"); /* the old file lives on until the refresh */
	assert_int_equal(db_refresh(db, &why), 1);
	assert_string_equal(get(db, "one"), "-");
	assert_string_equal(get(db, "three"), "3");
	db_free(&db);
	put("l", "a: b, c\n");
	assert_int_equal(db_build(src, dst, DB_ALIASES, &n, &why), 0);
	db = opened("lmdb", src, 0);
	assert_string_equal(get(db, "A"), "b, c");
	db_free(&db);
	assert_true(db_build("/nonexistent/x", dst, 0, &n, &why) < 0);
	put("big", "");
	{
		FILE *f = fopen(path("big"), "w");
		for (int i = 0; i < 50000; i++)
			fprintf(f, "k%d v%d\n", i, i);
		fclose(f);
	}
	snprintf(src, sizeof(src), "%s", path("big"));
	snprintf(dst, sizeof(dst), "%s.lmdb", src);
	assert_int_equal(db_build(src, dst, 0, &n, &why), 0);
	assert_int_equal(n, 50000);
	db = opened("lmdb", src, 0);
	assert_string_equal(get(db, "k49999"), "v49999");
	db_free(&db);
	buf_clear(&why);
	assert_int_equal(db_build_within(1 << 20, src, dst, 0, &n, &why), ERR_CORRUPT);
	snprintf(long_key, sizeof(long_key),
	    "cannot write %s: %zu entries of %s fill the 1048576 bytes that it may have; divide",
	    dst, n, src);
	assert_true(slice_has_prefix(buf_slice(&why), long_key));
	db = opened("lmdb", src, 0); /* the former one stays */
	assert_string_equal(get(db, "k49999"), "v49999");
	db_free(&db);
	buf_free(&why);
}

/* The table of a text of passwords is as closed as the text. */
static void
test_lmdb_mode(void **state)
{
	static const mode_t modes[] = { 0600, 0640, 0644, 0755 };
	mode_t former = umask(0);
	struct buf why = { 0 };
	char src[256], dst[300];
	struct stat st;
	size_t n;

	(void)state;
	put("m", "one 1\n");
	snprintf(src, sizeof(src), "%s", path("m"));
	snprintf(dst, sizeof(dst), "%s.lmdb", src);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		umask(i % 2 ? 077 : 0);
		assert_int_equal(chmod(src, modes[i]), 0);
		assert_int_equal(db_build(src, dst, 0, &n, &why), 0);
		assert_int_equal(stat(dst, &st), 0);
		assert_int_equal(st.st_mode & 07777, modes[i] & 0644);
	}
	umask(former);
	buf_free(&why);
}

static void
test_list(void **state)
{
	struct db_list list;
	struct buf why = { 0 }, value = { 0 };
	size_t nss = 99;

	(void)state;
	assert_int_equal(
	    db_list_open(&list,
		SLICE_LIT("inline:{a=1, b=2},  unix:passwd.byname\ninline:{c=3} static:s"), 0,
		&why),
	    0);
	assert_int_equal(list.n, 4);
	assert_int_equal(db_list_get(&list, 0, SLICE_LIT("a"), true, &value, &nss), 0);
	assert_true(slice_eq_str(buf_slice(&value), "1"));
	buf_clear(&value);
	assert_int_equal(db_list_get(&list, 0, SLICE_LIT("c"), false, &value, &nss), -EAGAIN);
	assert_int_equal(nss, 1);
	assert_int_equal(db_list_get(&list, 2, SLICE_LIT("c"), false, &value, &nss), 0);
	buf_clear(&value);
	assert_int_equal(db_list_get(&list, 2, SLICE_LIT("d"), false, &value, &nss), ERR_NOT_FOUND);
	assert_int_equal(db_list_get(&list, 2, SLICE_LIT("d"), true, &value, &nss), 0);
	assert_true(slice_eq_str(buf_slice(&value), "s"));
	db_list_free(&list);
	assert_true(db_list_open(&list, SLICE_LIT("inline:{a=1"), 0, &why) < 0);
	db_list_free(&list);
	/* A dead table in front makes the answer temporary, never "unknown". */
	assert_true(
	    db_list_open(&list, SLICE_LIT("hash:/nonexistent/x inline:{a=1}"), 0, &why) < 0);
	assert_int_equal(list.n, 2);
	assert_int_equal(db_list_get(&list, 0, SLICE_LIT("a"), true, &value, &nss), ERR_TEMPORARY);
	db_list_free(&list);
	buf_free(&why);
	buf_free(&value);
}

static int
setup(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
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
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_aliases),
		cmocka_unit_test(test_inline_static_unix),
		cmocka_unit_test(test_cidr),
		cmocka_unit_test(test_regexp),
		cmocka_unit_test(test_many_groups),
		cmocka_unit_test(test_match_limit),
		cmocka_unit_test(test_refresh),
		cmocka_unit_test(test_lmdb),
		cmocka_unit_test(test_lmdb_mode),
		cmocka_unit_test(test_list),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
