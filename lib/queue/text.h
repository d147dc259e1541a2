/* Shared, counted texts and slabs of equal objects: what keeps a waiting message small. */
#ifndef QUEUE_TEXT_H
#define QUEUE_TEXT_H

#include "queue/sched.h"

#define SCHED_TEXT_MAX 1024u

struct text_table {
	struct sched_text **buckets;
	size_t size, count, bytes;
	unsigned char key[16];
};

/* The shared copy (cut at SCHED_TEXT_MAX) with one more reference; drop gives one back. */
struct sched_text *text_hold(struct text_table *t, struct slice s);
void text_drop(struct text_table *t, struct sched_text **text);
/* As hash_scan: a list by next. */
const struct sched_text *text_scan(const struct text_table *t, uint64_t *cursor);
void text_free(struct text_table *t);

struct slab {
	size_t object; /* size, set by the owner before the first use */
	void **chunks;
	size_t n_chunks;
	void *free_list;
	size_t used;
};

#define SLAB_CHUNK 256u

/* Zeroed memory. The first word of a free object is the list's, the second is zeroed. */
void *slab_alloc(struct slab *s);
void slab_put(struct slab *s, void *p);
/* Object number i, in use or not; NULL past the end. */
void *slab_at(const struct slab *s, size_t i);
void slab_free(struct slab *s);

#endif
