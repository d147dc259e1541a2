/* An arena: many small allocations that end together. One per session, one per transaction. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/slice.h"

struct arena {
	struct arena_block *blocks;
	size_t used; /* bytes handed out since the last reset: what a memory limit looks at */
};

/* A zeroed struct is an empty arena.
 *
 * n bytes, aligned for any type, zeroed; never NULL. Freed by arena_reset or arena_free only. */
void *arena_alloc(struct arena *a, size_t n);
/* A copy that lives as long as the arena; NUL-terminated beyond its end. */
struct slice arena_dup(struct arena *a, struct slice s);
char *arena_strdup(struct arena *a, const char *s);
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF(2, 3);
/* Frees everything but the first block, which is kept for reuse. */
void arena_reset(struct arena *a);
void arena_free(struct arena *a);
/* Overwrites what it held, then frees: for secrets. */
void arena_wipe(struct arena *a);

#endif
