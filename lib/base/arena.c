/*
 * Arenas: bump allocation in blocks of 4 KiB or more. Runs in every process. Invariant: what
 * arena_alloc returned stays where it is until arena_reset or arena_free.
 */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCK_SIZE ((size_t)4096 - 64)

struct arena_block {
	struct arena_block *next;
	size_t size, used;
	_Alignas(16) unsigned char data[];
};

static struct arena_block *
block_new(struct arena *a, size_t n)
{
	size_t size = n > BLOCK_SIZE ? n : BLOCK_SIZE;
	struct arena_block *b = xmalloc(sizeof(*b) + size);

	*b = (struct arena_block){ .next = a->blocks, .size = size };
	a->blocks = b;
	return b;
}

/* Holds whatever was there before. */
static void *
take(struct arena *a, size_t n)
{
	struct arena_block *b = a->blocks;
	void *p;

	if (n > SIZE_MAX / 2)
		die("arena request of %zu bytes", n);
	n = (n + 15) & ~(size_t)15;
	if (!b || b->size - b->used < n)
		b = block_new(a, n);
	p = b->data + b->used;
	b->used += n;
	a->used += n;
	return p;
}

void *
arena_alloc(struct arena *a, size_t n)
{
	return memset(take(a, n), 0, n);
}

struct slice
arena_dup(struct arena *a, struct slice s)
{
	unsigned char *p = take(a, s.n + 1);

	if (s.n)
		memcpy(p, s.p, s.n);
	p[s.n] = '\0';
	return slice(p, s.n);
}

char *
arena_strdup(struct arena *a, const char *s)
{
	return (char *)(uintptr_t)arena_dup(a, slice_str(s)).p;
}

char *
arena_printf(struct arena *a, const char *fmt, ...)
{
	FILLED_LATER char text[512]; /* longer ones are printed twice */
	char *p;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0)
		die("bad format: %s", fmt);
	if ((size_t)n < sizeof(text))
		return arena_strdup(a, text);
	p = take(a, (size_t)n + 1);
	va_start(ap, fmt);
	vsnprintf(p, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return p;
}

void
arena_reset(struct arena *a)
{
	while (a->blocks && a->blocks->next) {
		struct arena_block *b = a->blocks;
		a->blocks = b->next;
		free(b);
	}
	if (a->blocks)
		a->blocks->used = 0;
	a->used = 0;
}

void
arena_wipe(struct arena *a)
{
	for (struct arena_block *b = a->blocks; b; b = b->next)
		explicit_bzero(b->data, b->size);
	arena_free(a);
}

void
arena_free(struct arena *a)
{
	while (a->blocks) {
		struct arena_block *b = a->blocks;
		a->blocks = b->next;
		free(b);
	}
	a->used = 0;
}
