/* The heap behind the timers of the scheduler. Runs in qmgr. A zeroed struct is an empty heap. */
#include "queue/heap.h"

#include "base/err.h"

#include <stdlib.h>

static void
place(struct heap *h, size_t at, struct heap_node *node)
{
	h->v[at] = node;
	node->at = (uint32_t)at + 1;
}

static void
sift(struct heap *h, size_t at, struct heap_node *node)
{
	while (at) {
		size_t up = (at - 1) / 2;

		if (h->v[up]->due <= node->due)
			break;
		place(h, at, h->v[up]);
		at = up;
	}
	for (;;) {
		size_t down = 2 * at + 1;

		if (down + 1 < h->n && h->v[down + 1]->due < h->v[down]->due)
			down++;
		if (down >= h->n || h->v[down]->due >= node->due)
			break;
		place(h, at, h->v[down]);
		at = down;
	}
	place(h, at, node);
}

void
heap_set(struct heap *h, struct heap_node *node, int64_t due)
{
	node->due = due;
	if (node->at) {
		sift(h, node->at - 1, node);
		return;
	}
	if (h->n == h->size) {
		h->size = h->size ? h->size + h->size / 2 : 64;
		h->v = xrealloc(h->v, h->size * sizeof(*h->v));
	}
	h->v[h->n] = node;
	sift(h, h->n++, node);
}

void
heap_clear(struct heap *h, struct heap_node *node)
{
	size_t at = node->at;
	struct heap_node *last;

	if (!at)
		return;
	node->at = 0;
	last = h->v[--h->n];
	if (last != node)
		sift(h, at - 1, last);
	if (h->size > 256 && h->n < h->size / 4) {
		h->size /= 2;
		h->v = xrealloc(h->v, h->size * sizeof(*h->v));
	}
}

void
heap_free(struct heap *h)
{
	free(h->v);
	*h = (struct heap){ 0 };
}
