/* Folder names: modified UTF-7 both ways, what a client may call a folder, names on disk. */
#include "store/internal.h"
#include "store/test_util.h"

static void
check_mutf7(const char *utf8, const char *mutf7)
{
	struct buf b = { 0 };

	assert_int_equal(mutf7_encode(slice_str(utf8), &b), 0);
	assert_true(slice_eq_str(buf_slice(&b), mutf7));
	buf_clear(&b);
	assert_int_equal(mutf7_decode(slice_str(mutf7), &b), 0);
	assert_true(slice_eq_str(buf_slice(&b), utf8));
	buf_free(&b);
}

static void
mutf7_both_ways(void **state)
{
	(void)state;
	check_mutf7("", "");
	check_mutf7("plain", "plain");
	check_mutf7("a&b", "a&-b");
	check_mutf7("Entwürfe", "Entw&APw-rfe");
	check_mutf7("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-");
	check_mutf7("📬", "&2D3c7A-");
	check_mutf7("é", "&AOk-");
	check_mutf7("é&é", "&AOk-&-&AOk-");
	check_mutf7("ää", "&AOQA5A-");
	check_mutf7("äää", "&AOQA5ADk-");
}

static void
mutf7_refused(void **state)
{
	static const char *const bad[] = { "&", "&U", "&U,BTFw", "&AGE-", "&2D0-", "&3Kw-", "&AP-",
		"&APx-", "&A-", "&=-", "\x80", "a\nb", "&APwAA-", "&AOk-&AOk-" };
	struct buf b = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		buf_clear(&b);
		assert_int_equal(mutf7_decode(slice_str(bad[i]), &b), ERR_SYNTAX);
	}
	assert_int_equal(mutf7_encode(slice_str("\xff"), &b), ERR_SYNTAX);
	assert_int_equal(mutf7_encode(slice_str("\xed\xa0\x80"), &b), ERR_SYNTAX);
	buf_free(&b);
}

static void
client_names(void **state)
{
	static const struct {
		const char *in, *out; /* NULL: refused */
	} t[] = {
		{ "inbox", "INBOX" }, { "Inbox/Sub", "INBOX/Sub" }, { "inboxes", "inboxes" },
		{ "a/b", "a/b" }, { "a/b/", "a/b" }, { "/a", NULL }, { "a//b", NULL }, { "", NULL },
		{ "/", NULL }, { "a.b", NULL }, { "..", NULL }, { "../x", NULL }, { "~root", NULL },
		{ "a\tb", NULL }, { "a\x7f", NULL }, { "\xc2\x85", NULL }, { "\xe2\x80\xa8", NULL },
		{ "\xff", NULL }, { "e\xcc\x81", "\xc3\xa9" }, /* NFC */
	};
	char out[STORE_NAME_MAX + 1], longer[STORE_NAME_MAX + 8];
	const char *why;

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		int rc = store_name(slice_str(t[i].in), out, &why);
		assert_int_equal(rc, t[i].out ? 0 : ERR_SYNTAX);
		if (t[i].out)
			assert_string_equal(out, t[i].out);
		else
			assert_non_null(why);
	}
	memset(longer, 'x', sizeof(longer));
	assert_int_equal(store_name(slice(longer, 254), out, &why), 0);
	assert_int_equal(store_name(slice(longer, 255), out, &why), ERR_SYNTAX);
	assert_int_equal(store_name(slice(longer, STORE_NAME_MAX + 1), out, &why), ERR_SYNTAX);
	assert_int_equal(store_name(slice("a\0b", 3), out, &why), ERR_SYNTAX);
}

static void
disk_names(void **state)
{
	static const struct {
		const char *disk, *name;
	} t[] = {
		{ ".", "INBOX" },
		{ ".Sent", "Sent" },
		{ ".a.b", "a/b" },
		{ ".INBOX.x", "INBOX/x" },
		{ ".Entw&APw-rfe", "Entwürfe" },
		{ ".Entwürfe", "Entwürfe" },
		{ ".R&D", "R&D" },
		{ "..", NULL },
		{ "..bh-deleted.1", NULL },
		{ ".a..b", NULL },
		{ ".a.", NULL },
		{ "cur", NULL },
		{ ".\xff", NULL },
	};
	struct buf b = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		buf_clear(&b);
		int rc = name_from_disk(t[i].disk, &b);
		assert_int_equal(rc, t[i].name ? 0 : ERR_SYNTAX);
		if (t[i].name)
			assert_true(slice_eq_str(buf_slice(&b), t[i].name));
	}
	buf_free(&b);
}

static void
file_names(void **state)
{
	struct file_name fn;
	char info[128];
	const char *name = "1700000000.M1P2.host,S=120,W=125:2,FSac";

	(void)state;
	maildir_parse(name, strlen(name), &fn);
	assert_int_equal(fn.base_len, strchr(name, ':') - name);
	assert_int_equal(fn.flags, FLAG_FLAGGED | FLAG_SEEN);
	assert_int_equal(fn.keywords, 5);
	assert_int_equal(fn.size, 120);
	assert_int_equal(fn.vsize, 125);
	maildir_parse("x:1,S", 5, &fn);
	assert_int_equal(fn.flags, 0);
	assert_true(fn.size == SIZE_UNKNOWN);
	assert_int_equal(maildir_info(SLICE_NULL, FLAG_SEEN | FLAG_DRAFT, 2, info), 6);
	assert_string_equal(info, ":2,DSb");
	maildir_info(SLICE_LIT(":2,SXT"), FLAG_PASSED, 0, info);
	assert_string_equal(info, ":2,PX");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mutf7_both_ways),
		cmocka_unit_test(mutf7_refused),
		cmocka_unit_test(client_names),
		cmocka_unit_test(disk_names),
		cmocka_unit_test(file_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
