/* The journal's format and the parsers of Dovecot's files, without a file. */
#include "store/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct seen {
	unsigned n;
	struct record last;
	char name[300];
};

static void
note(void *ctx, const struct record *r)
{
	struct seen *s = ctx;

	s->n++;
	s->last = *r;
	assert_true(r->name.n <= 255);
}

static void
three_frames(struct buf *b)
{
	static const struct record r[] = {
		{ RECORD_ASSIGN, 7, 9, 5, 11, 1700000000, 3, 1, { 0 }, { 0 } },
		{ RECORD_FLAGS, 7, 10, 1ull << 63, 0, 0, 1, 0, { 0 }, { 0 } },
		{ RECORD_EXPUNGE, 7, 11, 0, 0, 0, 0, 0, { 0 }, { 0 } },
	};

	for (int i = 0; i < 3; i++) {
		struct record x = r[i];
		size_t mark = journal_begin_frame(b);
		x.name = i ? SLICE_NULL : SLICE_LIT("123.base");
		x.info = SLICE_LIT(":2,S");
		journal_put(b, &x);
		journal_end_frame(b, mark);
	}
}

static void
round_trip(void **state)
{
	struct buf b = { 0 };
	struct seen s = { 0 };
	bool damaged;

	(void)state;
	three_frames(&b);
	assert_int_equal(journal_parse(buf_slice(&b), note, &s, &damaged), buf_len(&b));
	assert_false(damaged);
	assert_int_equal(s.n, 3);
	assert_int_equal(s.last.uid, 7);
	assert_true(s.last.modseq == 11);
	/* cut at every byte: only whole frames count */
	for (size_t cut = 0; cut < buf_len(&b); cut++) {
		struct seen t = { 0 };
		size_t n = journal_parse(slice_sub(buf_slice(&b), 0, cut), note, &t, &damaged);
		assert_true(n <= cut);
		assert_false(damaged);
		assert_int_equal(t.n, n == 0 ? 0 : t.n);
		assert_true(t.n < 3);
	}
	/* every byte turned over: what stands before the frame counts; all but the last frame are
	 * damage, their lengths included */
	size_t last = buf_len(&b) - (JOURNAL_FRAME_HEAD + 13);
	for (size_t i = 0; i < buf_len(&b); i++) {
		struct seen t = { 0 };
		b.data[b.head + i] ^= 0x20;
		size_t n = journal_parse(buf_slice(&b), note, &t, &damaged);
		assert_true(n <= i);
		assert_int_equal(damaged, i < last);
		b.data[b.head + i] ^= 0x20;
	}
	buf_free(&b);
}

static void
damage_is_told_from_tearing(void **state)
{
	struct buf b = { 0 };
	struct seen s = { 0 };
	bool damaged;

	(void)state;
	three_frames(&b);
	b.data[b.head + JOURNAL_FRAME_HEAD + 3] ^= 1; /* inside the first frame */
	assert_int_equal(journal_parse(buf_slice(&b), note, &s, &damaged), 0);
	assert_true(damaged);
	buf_clear(&b);
	three_frames(&b);
	b.data[b.tail - 1] ^= 1; /* in the last */
	journal_parse(buf_slice(&b), note, &s, &damaged);
	assert_false(damaged);
	buf_clear(&b);
	three_frames(&b);
	for (int i = 0; i < 64; i++)
		buf_add_byte(&b, 0); /* a size without its data, as after a power cut */
	size_t n = journal_parse(buf_slice(&b), note, &s, &damaged);
	assert_int_equal(n, buf_len(&b) - 64);
	assert_false(damaged);
	/* a sound frame with a record that breaks the rules */
	buf_clear(&b);
	size_t mark = journal_begin_frame(&b);
	journal_put(&b,
	    &(struct record){ .type = RECORD_ASSIGN, .uid = 1, .name = SLICE_LIT("../../etc") });
	journal_end_frame(&b, mark);
	assert_int_equal(journal_parse(buf_slice(&b), note, &s, &damaged), 0);
	assert_true(damaged);
	buf_free(&b);
}

static void
header(void **state)
{
	struct buf b = { 0 };
	struct journal_header h = { 42, 43, 44 }, got;

	(void)state;
	journal_put_header(&b, &h);
	assert_int_equal(buf_len(&b), JOURNAL_HEADER);
	assert_int_equal(journal_get_header(buf_slice(&b), &got), 0);
	assert_true(got.mailboxid == 42 && got.uidvalidity == 43 && got.generation == 44);
	for (size_t i = 0; i < JOURNAL_HEADER; i++) {
		assert_int_equal(
		    journal_get_header(slice_sub(buf_slice(&b), 0, i), &got), ERR_TRUNCATED);
		b.data[b.head + i] ^= 1;
		assert_int_equal(journal_get_header(buf_slice(&b), &got), ERR_CORRUPT);
		b.data[b.head + i] ^= 1;
	}
	buf_free(&b);
}

static void
add_entry(void *ctx, const struct uidlist_entry *e)
{
	buf_addf(ctx, "%u=%.*s", e->uid, SLICE_ARG(e->base));
	if (e->pop3_uidl.n)
		buf_addf(ctx, "(%.*s)", SLICE_ARG(e->pop3_uidl));
	buf_add_str(ctx, ";");
}

static void
check_uidlist(const char *text, int rc, uint32_t validity, uint32_t next, const char *want)
{
	struct buf b = { 0 };
	uint32_t v, n;

	assert_int_equal(uidlist_parse(slice_str(text), &v, &n, add_entry, &b), rc);
	if (rc == 0) {
		assert_int_equal(v, validity);
		assert_int_equal(n, next);
		assert_true(slice_eq_str(buf_slice(&b), want));
	}
	buf_free(&b);
}

static void
uidlists(void **state)
{
	(void)state;
	check_uidlist("3 V1795637903 N5 G310063128d42\n"
		      "1 :1795637901.M321644P32040.vm,S=18,W=21\n"
		      "3 W21 S18 Pold-uidl :x.y:2,S\n",
	    0, 1795637903, 5, "1=1795637901.M321644P32040.vm,S=18,W=21;3=x.y(old-uidl);");
	check_uidlist("1 100 9\n1 a\n8 b:2,\n", 0, 100, 9, "1=a;8=b;");
	/* lines that make no sense are left out, the next UID is above all */
	check_uidlist("3 V5 N2\n0 :zero\n2 :two\n2 :again\n1 :back\nx :y\n9 :../e\n4294967295 "
		      ":max\n7\n6 :six",
	    0, 5, 7, "2=two;6=six;");
	check_uidlist("3 N5\n", ERR_SYNTAX, 0, 0, NULL);
	check_uidlist("2 V5 N5\n", ERR_SYNTAX, 0, 0, NULL);
	check_uidlist("", ERR_SYNTAX, 0, 0, NULL);
	check_uidlist("1 0 9\n", ERR_SYNTAX, 0, 0, NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(damage_is_told_from_tearing),
		cmocka_unit_test(header),
		cmocka_unit_test(uidlists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
