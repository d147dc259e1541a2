/* What messages hold: content and its CRLF view, cached blobs, append, copy and move. */
#include "store/test_util.h"

static void
content_views(void **state)
{
	struct fixture *fx = *state;
	struct content *c;
	char want[4096], got[4096];
	size_t n = 0;
	uint64_t size;
	FILE *f;
	char path[128];

	snprintf(path, sizeof(path), "%s/cur/1.mixed", fx->root);
	f = fopen(path, "w");
	for (int i = 0; i < 100; i++) {
		fprintf(f, "line %d%s", i, i % 3 == 0 ? "\r\n" : i % 3 == 1 ? "\n" : "\r\r\n\n");
		n += (size_t)snprintf(want + n, sizeof(want) - n, "line %d%s", i,
		    i % 3 == 0   ? "\r\n"
		    : i % 3 == 1 ? "\r\n"
				 : "\r\r\n\r\n");
	}
	fclose(f);
	struct mailbox *m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_size(m, 1, &size), 0);
	assert_int_equal(size, n);
	assert_int_equal(content_open(m, 1, &c), 0);
	for (size_t off = 0; off <= n; off += 7) { /* forward */
		ptrdiff_t r = content_read(c, off, got, 11);
		assert_int_equal(r, n - off < 11 ? n - off : 11);
		assert_memory_equal(got, want + off, (size_t)r);
	}
	for (size_t off = n; off-- > 0;) { /* and back */
		assert_true(content_read(c, off, got, 3) >= 1);
		assert_memory_equal(got, want + off, 1);
	}
	content_free(&c);
	/* what this suite wrote is shown as it is, bare LF and NUL included */
	struct append *a;
	struct append_info info = { .dated = true, .date = 1234567890 };
	struct copy_result r;
	assert_int_equal(append_begin(fx->s, SLICE_LIT("INBOX"), &info, 0, &a), 0);
	assert_int_equal(append_write(a, slice("a\nb\0c\r\n", 7)), 0);
	assert_int_equal(append_finish(&a, 1, &r), 0);
	copy_result_free(&r);
	sync_text(m, 0);
	assert_int_equal(content_open(m, 2, &c), 0);
	assert_int_equal(content_size(c), 7);
	assert_int_equal(content_read(c, 0, got, 100), 7);
	assert_memory_equal(got, "a\nb\0c\r\n", 7);
	int64_t date;
	assert_int_equal(mailbox_date(m, 2, &date), 0);
	assert_int_equal(date, 1234567890);
	/* still readable when expunged */
	uint32_t uid = 2;
	assert_int_equal(mailbox_expunge(m, &uid, 1, 0), 0);
	assert_int_equal(content_read(c, 5, got, 100), 2);
	content_free(&c);
	assert_int_equal(content_open(m, 2, &c), ERR_NOT_FOUND);
	mailbox_free(&m);
}

static void
large_converted_file(void **state)
{
	struct fixture *fx = *state;
	struct content *c;
	char got[8];
	uint64_t size;

	run("yes 0123456 | head -c 8000000 > %s/cur/1.big", fx->root);
	struct mailbox *m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_size(m, 1, &size), 0);
	assert_int_equal(size, 9000000);
	assert_int_equal(content_open(m, 1, &c), 0);
	for (uint64_t off = 8999991; off > 1000000; off -= 900000) {
		assert_int_equal(content_read(c, off, got, 7), 7);
		assert_memory_equal(got, "0123456", 7);
	}
	content_free(&c);
	mailbox_free(&m);
}

static void
cache_blobs(void **state)
{
	struct fixture *fx = *state;
	struct buf b = { 0 };

	append_text(fx, "INBOX", "x\r\n", 0);
	struct mailbox *m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_cache_get(m, 1, 1, &b), ERR_NOT_FOUND);
	mailbox_cache_put(m, 1, 1, SLICE_LIT("one"));
	mailbox_cache_put(m, 1, 2, SLICE_LIT("two"));
	mailbox_cache_put(m, 1, 1, SLICE_LIT("uno"));
	assert_int_equal(mailbox_cache_get(m, 1, 1, &b), 0);
	mailbox_free(&m);
	fixture_reopen(fx);
	m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_cache_get(m, 1, 2, &b), 0);
	assert_int_equal(mailbox_cache_get(m, 1, 1, &b), 0);
	assert_true(slice_eq_str(buf_slice(&b), "unotwouno"));
	uint32_t uid = 1;
	assert_int_equal(mailbox_expunge(m, &uid, 1, 0), 0);
	store_flush(fx->s);
	assert_int_equal(mailbox_cache_get(m, 1, 1, &b), ERR_NOT_FOUND);
	mailbox_free(&m);
	buf_free(&b);
}

static void
copy_and_move(void **state)
{
	struct fixture *fx = *state;
	struct copy_result r;

	assert_int_equal(store_create(fx->s, SLICE_LIT("A/B"), 0), 0);
	for (int i = 0; i < 3; i++)
		append_text(fx, "INBOX", i == 1 ? "one\r\n" : "x\r\n", FLAG_SEEN);
	struct mailbox *m = box(fx, "INBOX", 0);
	int k = mailbox_keyword_index(m, SLICE_LIT("$Work"), true);
	uint32_t uids[] = { 1, 2 };
	struct flag_change c = { .op = FLAG_OP_ADD, .keywords = 1ull << k };
	assert_int_equal(mailbox_store_flags(m, uids, 2, &c, NULL, NULL), 0);
	assert_int_equal(mailbox_copy(m, uids, 2, SLICE_LIT("none"), false, &r), ERR_NOT_FOUND);
	copy_result_free(&r);
	assert_int_equal(mailbox_copy(m, uids, 2, SLICE_LIT("A/B"), false, &r), 0);
	assert_int_equal(r.to.count, 2);
	assert_int_equal(r.to.uids[1], 2);
	copy_result_free(&r);
	struct mailbox *d = box(fx, "A/B", 0);
	assert_int_equal(mailbox_count(d), 2);
	assert_int_equal(mailbox_message(d, 2)->flags, FLAG_SEEN);
	assert_string_equal(mailbox_keyword(d, 0), "$Work");
	assert_true(mailbox_message(d, 2)->keywords == 1);
	assert_true(mailbox_message(d, 2)->emailid == mailbox_message(m, 2)->emailid);
	assert_string_equal(content_text(d, 2), "one\r\n");
	assert_int_equal(mailbox_copy(m, uids + 1, 1, SLICE_LIT("A/B"), true, &r), 0);
	assert_int_equal(r.from.uids[0], 2);
	assert_int_equal(r.to.uids[0], 3);
	copy_result_free(&r);
	assert_string_equal(sync_text(m, 0), "-2 k0");
	assert_string_equal(sync_text(d, 0), "+3");
	/* within one folder */
	assert_int_equal(mailbox_copy(m, uids, 1, SLICE_LIT("INBOX"), false, &r), 0);
	copy_result_free(&r);
	assert_string_equal(sync_text(m, 0), "+3");
	assert_int_equal(mailbox_copy(m, uids, 1, SLICE_LIT("INBOX"), true, &r), 0);
	copy_result_free(&r);
	assert_string_equal(sync_text(m, 0), "-1 +3");
	mailbox_free(&m);
	mailbox_free(&d);
	fixture_reopen(fx);
	m = box(fx, "A/B", 0);
	assert_int_equal(mailbox_count(m), 3);
	mailbox_free(&m);
}

static void
multi_append(void **state)
{
	struct fixture *fx = *state;
	struct append *list[2];
	struct append_info info = { .flags = FLAG_DRAFT, .keywords = { SLICE_LIT("kw") } };
	struct copy_result r;

	info.keyword_count = 1;
	assert_int_equal(
	    append_begin(fx->s, SLICE_LIT("nowhere"), &info, 0, &list[0]), ERR_NOT_FOUND);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(append_begin(fx->s, SLICE_LIT("INBOX"), &info, 0, &list[i]), 0);
		assert_int_equal(append_write(list[i], SLICE_LIT("x\r\n")), 0);
	}
	append_free(&list[1]); /* aborted: nothing is left in tmp/ */
	run("test $(ls %s/tmp | wc -l) = 1", fx->root);
	assert_int_equal(append_begin(fx->s, SLICE_LIT("INBOX"), &info, 0, &list[1]), 0);
	assert_int_equal(append_finish(list, 2, &r), 0);
	assert_int_equal(r.to.count, 2);
	copy_result_free(&r);
	run("test $(ls %s/tmp | wc -l) = 0", fx->root);
	struct mailbox *m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_count(m), 2);
	assert_int_equal(mailbox_message(m, 1)->flags, FLAG_DRAFT);
	assert_true(mailbox_message(m, 1)->keywords == 1);
	mailbox_free(&m);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(content_views),
		T(large_converted_file),
		T(cache_blobs),
		T(copy_and_move),
		T(multi_append),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
