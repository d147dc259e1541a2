/*
 * A binary min-heap of nodes that are part of their elements: insert, move and remove in O(log n).
 */
#ifndef QUEUE_HEAP_H
#define QUEUE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
	int64_t due;
	uint32_t at; /* 1 + place in the heap; 0: not in one */
};

struct heap {
	struct heap_node **v;
	size_t n, size;
};

#define HEAP_ELEMENT(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

/* Inserts, or moves if the node is in the heap already. Never fails (memory: die). */
void heap_set(struct heap *h, struct heap_node *node, int64_t due);
/* Removes; a node that is in no heap is left alone. */
void heap_clear(struct heap *h, struct heap_node *node);
void heap_free(struct heap *h);

/* The node that is due first, or NULL. */
static inline struct heap_node *
heap_first(const struct heap *h)
{
	return h->n ? h->v[0] : NULL;
}

#endif
