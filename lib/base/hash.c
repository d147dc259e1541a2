/*
 * The keyed hash table. Runs in every process on keys that strangers choose; the key of the hash
 * is random per table, so nobody can aim at one bucket. Grows at one element per bucket.
 */
#include "base/hash.h"

#include <stdlib.h>
#include <sys/random.h>

static inline uint64_t
rotl(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

static inline void
sip_round(uint64_t v[4])
{
	v[0] += v[1], v[1] = rotl(v[1], 13) ^ v[0], v[0] = rotl(v[0], 32);
	v[2] += v[3], v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3], v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1], v[1] = rotl(v[1], 17) ^ v[2], v[2] = rotl(v[2], 32);
}

static uint64_t
load64(const unsigned char *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

uint64_t
siphash(const unsigned char key[16], struct slice s)
{
	uint64_t k0 = load64(key, 8), k1 = load64(key + 8, 8), m;
	uint64_t v[4] = { k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261,
		k1 ^ 0x7465646279746573 };
	size_t at = 0;

	for (; s.n - at >= 8; at += 8) {
		m = load64(s.p + at, 8);
		v[3] ^= m, sip_round(v), sip_round(v), v[0] ^= m;
	}
	m = (uint64_t)s.n << 56 | load64(s.p + at, s.n - at);
	v[3] ^= m, sip_round(v), sip_round(v), v[0] ^= m;
	v[2] ^= 0xff;
	for (int i = 0; i < 4; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct hash_node *
hash_find(const struct hash *h, struct slice key)
{
	uint64_t hash;

	if (!h->count)
		return NULL;
	hash = siphash(h->key, key);
	for (struct hash_node *n = h->buckets[hash & (h->size - 1)]; n; n = n->next)
		if (n->hash == hash && slice_eq(n->key, key))
			return n;
	return NULL;
}

static void
resize(struct hash *h, size_t size)
{
	struct hash_node **buckets = xcalloc(size, sizeof(*buckets));

	for (size_t i = 0; i < h->size; i++)
		for (struct hash_node *n = h->buckets[i], *next; n; n = next) {
			next = n->next;
			n->next = buckets[n->hash & (size - 1)];
			buckets[n->hash & (size - 1)] = n;
		}
	free(h->buckets);
	h->buckets = buckets;
	h->size = size;
}

void
hash_insert(struct hash *h, struct hash_node *node, struct slice key)
{
	if (!h->size) {
		if (getrandom(h->key, sizeof(h->key), 0) != (ssize_t)sizeof(h->key))
			die("getrandom: no randomness");
		resize(h, 16);
	} else if (h->count >= h->size) {
		resize(h, h->size * 2);
	}
	node->key = key;
	node->hash = siphash(h->key, key);
	node->next = h->buckets[node->hash & (h->size - 1)];
	h->buckets[node->hash & (h->size - 1)] = node;
	h->count++;
}

void
hash_remove(struct hash *h, struct hash_node *node)
{
	struct hash_node **at = &h->buckets[node->hash & (h->size - 1)];

	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
	node->next = NULL;
	h->count--;
}

void
hash_free(struct hash *h)
{
	free(h->buckets);
	*h = (struct hash){ 0 };
}

struct hash_node *
hash_next(const struct hash *h, const struct hash_node *node)
{
	size_t i = 0;

	if (node) {
		if (node->next)
			return node->next;
		i = (node->hash & (h->size - 1)) + 1;
	}
	for (; i < h->size; i++)
		if (h->buckets[i])
			return h->buckets[i];
	return NULL;
}

static uint64_t
reverse(uint64_t v)
{
	uint64_t r = 0;

	for (unsigned i = 0; i < 64; i++)
		r |= (v >> i & 1) << (63 - i);
	return r;
}

/* Buckets in the order of their reversed numbers: when the table doubles, a bucket becomes two that
 * follow each other in this order, so all before the cursor stays before it. */
size_t
hash_scan_bucket(size_t size, uint64_t *cursor)
{
	size_t bucket = (size_t)*cursor & (size - 1);

	*cursor = reverse(reverse(*cursor | ~(uint64_t)(size - 1)) + 1);
	return bucket;
}

struct hash_node *
hash_scan(const struct hash *h, uint64_t *cursor)
{
	if (h->size)
		return h->buckets[hash_scan_bucket(h->size, cursor)];
	*cursor = 0;
	return NULL;
}
