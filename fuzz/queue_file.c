/*
 * Queue files from a hostile disk: footer, record and slots of any bytes must be read within their
 * bounds, and what decodes must encode to a file that decodes to the same.
 */
#include "queue/file.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_again(struct envelope *e, const struct queue_layout *l)
{
	struct buf tail = { 0 };
	struct queue_layout l2, l3;
	struct envelope e2;
	struct arena a = { 0 };
	struct slice s;

	if (queue_file_tail(e, l->record_offset, &tail, &l2))
		abort();
	s = buf_slice(&tail);
	if (queue_footer_decode(s.p + s.n - QUEUE_FOOTER_SIZE, l2.file_size, &l3))
		abort();
	if (queue_tail_decode(slice_sub(s, 0, s.n - QUEUE_FOOTER_SIZE), &l3, &a, &e2))
		abort();
	if (e2.n_rcpts != e->n_rcpts || !slice_eq(e2.sender, e->sender) || e2.id != e->id)
		abort();
	arena_free(&a);
	buf_free(&tail);
}

/* With a first byte that is odd, the digests are made good, so that the parts behind them are met.
 */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena a = { 0 };
	struct envelope e;
	struct queue_layout l;
	unsigned char *copy;
	size_t n;

	if (size < 1 + QUEUE_FOOTER_SIZE)
		return 0;
	n = size - 1;
	copy = xmalloc(n);
	memcpy(copy, data + 1, n);
	if (data[0] & 1)
		queue_footer_repair(copy, n);
	if (queue_footer_decode(copy + n - QUEUE_FOOTER_SIZE, n, &l) == 0 &&
	    queue_tail_decode(
		slice(copy + l.record_offset, n - QUEUE_FOOTER_SIZE - (size_t)l.record_offset), &l,
		&a, &e) == 0)
		check_again(&e, &l);
	arena_free(&a);
	free(copy);
	return 0;
}
