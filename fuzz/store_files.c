/*
 * Fuzz target: what a store keeps beside its journals. The first byte chooses: rows and attributes
 * of the index, subscriptions, special uses, the last UIDVALIDITY. Checked: what is read is written
 * so that it is read as the same again, an edit for one folder changes no other, and a UIDVALIDITY
 * is never given twice.
 */
#include "fuzz/must.h"
#include "store/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
row(struct slice in)
{
	struct folder_row a, b;
	struct buf out = { 0 }, again = { 0 };
	int64_t date;
	uint64_t bytes;

	if (attr_decode(in, &date, &bytes) == 0) {
		attr_encode(date, bytes, &out);
		must(slice_eq(buf_slice(&out), in));
		buf_clear(&out);
	}
	if (row_decode(in, &a) == 0) {
		must(a.status.uidnext && a.status.uidvalidity);
		row_encode(&a, &out);
		must(buf_len(&out) == in.n && !row_decode(buf_slice(&out), &b));
		row_encode(&b, &again);
		must(slice_eq(buf_slice(&out), buf_slice(&again)));
	}
	buf_free(&out);
	buf_free(&again);
}

static void
subscriptions(struct slice in)
{
	struct buf names = { 0 }, text = { 0 }, again = { 0 };
	char name[STORE_NAME_MAX + 1];

	subscriptions_parse(in, &names);
	for (struct slice rest = buf_slice(&names); rest.n;) {
		struct slice one = slice_split(&rest, '\0');

		must(store_name(one, name, NULL) == 0 && slice_eq_str(one, name));
	}
	must(subscriptions_format(buf_slice(&names), &text) == 0);
	subscriptions_parse(buf_slice(&text), &again);
	must(slice_eq(buf_slice(&names), buf_slice(&again)));
	buf_free(&names);
	buf_free(&text);
	buf_free(&again);
}

/* The bits, the name to edit, the name of another folder; then the file. */
static void
special(struct slice in)
{
	unsigned bits = in.n ? in.p[0] % (SPECIAL_IMPORTANT << 1) : 0, others;
	struct slice rest = slice_sub(in, 1, in.n), first = slice_split(&rest, '\n'),
		     second = slice_split(&rest, '\n');
	char name[STORE_NAME_MAX + 1], other[STORE_NAME_MAX + 1];
	struct buf out = { 0 }, again = { 0 };

	if (store_name(first, name, NULL) < 0 || store_name(second, other, NULL) < 0)
		return;
	others = special_of(rest, other);
	special_edit(rest, name, bits, &out);
	must(special_of(buf_slice(&out), name) == bits);
	must(strcmp(name, other) == 0 || special_of(buf_slice(&out), other) == others);
	special_edit(buf_slice(&out), name, bits, &again);
	must(slice_eq(buf_slice(&out), buf_slice(&again)));
	buf_free(&out);
	buf_free(&again);
}

/* Two numbers, then the file. */
static void
uidvalidity(struct slice in)
{
	struct cursor c = cursor(in);
	uint32_t above = cursor_u32(&c), now = cursor_u32(&c), next, later;
	struct slice file = slice_sub(in, c.at, in.n);
	struct buf text = { 0 };
	uint64_t last;

	next = uidvalidity_after(file, above, now);
	must(next && (next > above || above == UINT32_MAX));
	if (above != UINT32_MAX && !slice_u64(slice_trim(file, true), UINT32_MAX - 1, &last))
		must(next > last);
	buf_addf(&text, "%u\n", next);
	later = uidvalidity_after(buf_slice(&text), 0, now);
	must(later && (later > next || next == UINT32_MAX));
	buf_free(&text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	void (*const tries[])(struct slice) = { row, subscriptions, special, uidvalidity };

	if (size)
		tries[data[0] % 4](slice(data + 1, size - 1));
	return 0;
}
