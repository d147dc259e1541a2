/*
 * Shared texts and slabs. Runs in qmgr. Senders and reasons are chosen by strangers, so the table
 * is keyed. Invariant: a text lives exactly while somebody refers to it.
 */
#include "queue/text.h"

#include <stdlib.h>
#include <sys/random.h>

static void
grow(struct text_table *t)
{
	size_t size = t->size ? t->size * 2 : 64;
	struct sched_text **b = xcalloc(size, sizeof(struct sched_text *));

	if (!t->size && getrandom(t->key, sizeof(t->key), 0) != (ssize_t)sizeof(t->key))
		die("no random numbers");
	for (size_t i = 0; i < t->size; i++)
		for (struct sched_text *x = t->buckets[i], *next; x; x = next) {
			next = x->next;
			x->next = b[x->hash & (size - 1)];
			b[x->hash & (size - 1)] = x;
		}
	free(t->buckets);
	t->buckets = b;
	t->size = size;
}

struct sched_text *
text_hold(struct text_table *t, struct slice s)
{
	struct sched_text *x;
	uint32_t hash;

	s = slice_sub(s, 0, SCHED_TEXT_MAX);
	if (t->count >= t->size)
		grow(t);
	hash = (uint32_t)siphash(t->key, s);
	for (x = t->buckets[hash & (t->size - 1)]; x; x = x->next)
		if (x->hash == hash && slice_eq(slice(x->text, x->n), s)) {
			x->refs++;
			return x;
		}
	x = xmalloc(sizeof(*x) + s.n + 1);
	*x = (struct sched_text){ t->buckets[hash & (t->size - 1)], hash, 1, (uint16_t)s.n };
	if (s.n)
		memcpy(x->text, s.p, s.n);
	x->text[s.n] = '\0';
	t->buckets[hash & (t->size - 1)] = x;
	t->count++;
	t->bytes += sizeof(*x) + s.n + 1;
	return x;
}

void
text_drop(struct text_table *t, struct sched_text **text)
{
	struct sched_text *x = *text, **at;

	*text = NULL;
	if (!x || --x->refs)
		return;
	for (at = &t->buckets[x->hash & (t->size - 1)]; *at != x; at = &(*at)->next)
		;
	*at = x->next;
	t->count--;
	t->bytes -= sizeof(*x) + x->n + 1;
	free(x);
}

const struct sched_text *
text_scan(const struct text_table *t, uint64_t *cursor)
{
	if (t->size)
		return t->buckets[hash_scan_bucket(t->size, cursor)];
	*cursor = 0;
	return NULL;
}

void
text_free(struct text_table *t)
{
	for (size_t i = 0; i < t->size; i++)
		for (struct sched_text *x = t->buckets[i], *next; x; x = next) {
			next = x->next;
			free(x);
		}
	free(t->buckets);
	*t = (struct text_table){ 0 };
}

void *
slab_alloc(struct slab *s)
{
	void *p;

	if (!s->free_list) {
		unsigned char *chunk = xcalloc(SLAB_CHUNK, s->object);

		s->chunks = xrealloc(s->chunks, (s->n_chunks + 1) * sizeof(*s->chunks));
		s->chunks[s->n_chunks++] = chunk;
		for (size_t i = SLAB_CHUNK; i-- > 0;)
			slab_put(s, chunk + i * s->object);
		s->used += SLAB_CHUNK;
	}
	p = s->free_list;
	memcpy(&s->free_list, p, sizeof(void *));
	s->used++;
	return memset(p, 0, s->object);
}

void
slab_put(struct slab *s, void *p)
{
	memset(p, 0, s->object);
	/* The list hangs behind the first word, which tells the free from the used. */
	memcpy(p, &s->free_list, sizeof(void *));
	s->free_list = p;
	s->used--;
}

void *
slab_at(const struct slab *s, size_t i)
{
	if (i / SLAB_CHUNK >= s->n_chunks)
		return NULL;
	return (unsigned char *)s->chunks[i / SLAB_CHUNK] + i % SLAB_CHUNK * s->object;
}

void
slab_free(struct slab *s)
{
	for (size_t i = 0; i < s->n_chunks; i++)
		free(s->chunks[i]);
	free(s->chunks);
	*s = (struct slab){ .object = s->object };
}
