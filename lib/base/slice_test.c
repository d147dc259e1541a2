/* Unit tests of slices, cursors, buffers, arenas and the hash table. */
#include "base/arena.h"
#include "base/buf.h"
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static void
test_numbers(void **state)
{
	uint64_t v = 7;

	(void)state;
	assert_int_equal(slice_u64(SLICE_LIT("0"), 10, &v), 0);
	assert_int_equal(v, 0);
	assert_int_equal(slice_u64(SLICE_LIT("10"), 10, &v), 0);
	assert_int_equal(v, 10);
	assert_int_equal(slice_u64(SLICE_LIT("11"), 10, &v), ERR_LIMIT);
	assert_int_equal(slice_u64(SLICE_LIT("18446744073709551615"), UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(slice_u64(SLICE_LIT("18446744073709551616"), UINT64_MAX, &v), ERR_LIMIT);
	assert_int_equal(slice_u64(SLICE_LIT("1x"), UINT64_MAX, &v), ERR_SYNTAX);
	assert_int_equal(slice_u64(SLICE_LIT(""), UINT64_MAX, &v), ERR_SYNTAX);
	for (unsigned max = 0; max < 30; max++)
		for (unsigned n = 0; n < 130; n++) {
			char text[4];
			snprintf(text, sizeof(text), "%u", n);
			assert_int_equal(
			    slice_u64(slice_str(text), max, &v), n <= max ? 0 : ERR_LIMIT);
		}
}

static void
test_cstr_rejects_nul(void **state)
{
	char *s, fixed[4];

	(void)state;
	assert_int_equal(slice_cstr(SLICE_LIT("a\0b"), &s), ERR_SYNTAX);
	assert_null(s);
	assert_int_equal(slice_copy(SLICE_LIT("abc"), fixed, sizeof(fixed)), 0);
	assert_int_equal(slice_copy(SLICE_LIT("abcd"), fixed, sizeof(fixed)), ERR_LIMIT);
}

static void
test_cursor_is_sticky(void **state)
{
	struct buf b = { 0 };
	struct cursor c;

	(void)state;
	buf_add_u16(&b, 0x1234);
	buf_add_counted(&b, SLICE_LIT("hello"));
	for (size_t n = 0; n < buf_len(&b); n++) {
		c = cursor(slice_sub(buf_slice(&b), 0, n));
		cursor_u16(&c);
		cursor_counted(&c, 5);
		assert_int_equal(cursor_end(&c), ERR_TRUNCATED);
		assert_int_equal(cursor_u64(&c), 0);
	}
	c = cursor(buf_slice(&b));
	assert_int_equal(cursor_u16(&c), 0x1234);
	assert_true(slice_eq_str(cursor_counted(&c, 5), "hello"));
	assert_int_equal(cursor_end(&c), 0);
	c = cursor(buf_slice(&b));
	cursor_u16(&c);
	cursor_counted(&c, 4);
	assert_int_equal(cursor_end(&c), ERR_LIMIT);
	buf_free(&b);
}

static void
test_buf_limit(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 8);
	assert_int_equal(buf_add_str(&b, "12345678"), 0);
	assert_int_equal(buf_add_str(&b, "9"), ERR_LIMIT);
	assert_int_equal(b.err, ERR_LIMIT);
	assert_int_equal(buf_len(&b), 8);
	buf_consume(&b, 4);
	assert_int_equal(buf_add_str(&b, "90"), 0);
	assert_true(slice_eq_str(buf_slice(&b), "567890"));
	buf_free(&b);
	for (int i = 0; i < 8; i++)
		assert_int_equal(buf_add_byte(&b, 'x'), 0);
	assert_int_equal(buf_add_byte(&b, 'x'), ERR_LIMIT);
	assert_int_equal(buf_len(&b), 8);
	buf_free(&b);
}

/* Printed text that fits the room that there is, that does not, and that passes the limit. */
static void
test_buf_printed(void **state)
{
	struct buf b = { 0 };
	char want[700] = "";

	(void)state;
	assert_int_equal(buf_addf(&b, "%s", ""), 0);
	for (int i = 0; i < 90; i++) {
		assert_int_equal(buf_addf(&b, "%d-%s,", i, "abc"), 0);
		snprintf(want + strlen(want), sizeof(want) - strlen(want), "%d-%s,", i, "abc");
		if (i % 7 == 6) {
			buf_consume(&b, 3);
			memmove(want, want + 3, strlen(want) - 2);
		}
		assert_true(slice_eq_str(buf_slice(&b), want));
	}
	buf_free(&b);
	buf_init(&b, 8); /* with room for the NUL, which counts */
	assert_int_equal(buf_addf(&b, "%d", 1234567), 0);
	assert_int_equal(buf_addf(&b, "%d", 8), ERR_LIMIT);
	assert_true(slice_eq_str(buf_slice(&b), "1234567"));
	buf_clear(&b);
	assert_int_equal(buf_addf(&b, "%d", 12345678), ERR_LIMIT);
	assert_int_equal(buf_len(&b), 0);
	buf_free(&b);
}

struct item {
	char name[16];
	struct hash_node node;
};

static void
test_hash(void **state)
{
	struct hash h = { 0 };
	struct item *items = calloc(1000, sizeof(*items));
	size_t seen = 0;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		snprintf(items[i].name, sizeof(items[i].name), "k%d", i);
		hash_insert(&h, &items[i].node, slice_str(items[i].name));
	}
	for (int i = 0; i < 1000; i += 2)
		hash_remove(&h, &items[i].node);
	for (struct hash_node *n = hash_next(&h, NULL); n; n = hash_next(&h, n))
		seen++;
	assert_int_equal(seen, 500);
	assert_null(hash_find(&h, SLICE_LIT("k4")));
	assert_ptr_equal(
	    HASH_ELEMENT(hash_find(&h, SLICE_LIT("k5")), struct item, node), &items[5]);
	hash_free(&h);
	free(items);
}

static void
test_siphash_vector(void **state)
{
	unsigned char key[16], in[15];

	(void)state;
	for (unsigned char i = 0; i < 16; i++)
		key[i] = i;
	for (unsigned char i = 0; i < 15; i++)
		in[i] = i;
	assert_true(
	    siphash(key, slice(in, sizeof(in))) == 0xa129ca6149be45e5); /* the paper's appendix A */
}

static void
test_arena(void **state)
{
	struct arena a = { 0 };
	struct slice s = arena_dup(&a, SLICE_LIT("one"));

	(void)state;
	for (int i = 0; i < 10000; i++)
		arena_alloc(&a, 100);
	assert_true(slice_eq_str(s, "one"));
	assert_string_equal(arena_printf(&a, "%d-%s", 7, "x"), "7-x");
	for (int n = 500; n < 530; n++) { /* around what is printed once */
		char *text = arena_printf(&a, "%*s", n, "end");
		assert_int_equal(strlen(text), n);
		assert_string_equal(text + n - 3, "end");
	}
	s = arena_dup(&a, (struct slice){ 0 });
	assert_int_equal(s.n, 0);
	assert_string_equal((const char *)s.p, ""); /* a NUL follows */
	arena_reset(&a);
	assert_int_equal(a.used, 0);
	arena_free(&a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_cstr_rejects_nul),
		cmocka_unit_test(test_cursor_is_sticky),
		cmocka_unit_test(test_buf_limit),
		cmocka_unit_test(test_buf_printed),
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_siphash_vector),
		cmocka_unit_test(test_arena),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
