/*
 * An intrusive hash table with keyed hashing (SipHash-2-4), for keys that strangers choose.
 * For lists use <sys/queue.h>.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/slice.h"

struct hash_node {
	struct hash_node *next;
	struct slice
	    key; /* owned by the element that embeds the node; must not change while linked */
	uint64_t hash;
};

struct hash {
	struct hash_node **buckets;
	size_t size, count; /* size: a power of two, or 0 */
	unsigned char key[16];
};

/* The element that embeds node. */
#define HASH_ELEMENT(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

uint64_t siphash(const unsigned char key[16], struct slice s);

/* A zeroed struct is an empty table; its key is drawn (getrandom) at the first insert. */
struct hash_node *hash_find(const struct hash *h, struct slice key);
/* Links node under key; the caller has made sure that the key is not there yet. */
void hash_insert(struct hash *h, struct hash_node *node, struct slice key);
/* Unlinks; node must be linked. */
void hash_remove(struct hash *h, struct hash_node *node);
/* Frees the bucket array; the elements are the caller's. */
void hash_free(struct hash *h);
/* Iteration: start with i = 0 and node NULL; the current node may be removed if next was fetched
 * before. */
struct hash_node *hash_next(const struct hash *h, const struct hash_node *node);
/* Iteration that may pause while elements come and go: *cursor starts with 0 and is 0 again after
 * the last call; the result is a list by node->next, often empty. What is there all the while is
 * given exactly once, also when the table grows in between. */
struct hash_node *hash_scan(const struct hash *h, uint64_t *cursor);
/* The same walk for a table of its own make: the bucket of *cursor among size (a power of two). */
size_t hash_scan_bucket(size_t size, uint64_t *cursor);

#endif
