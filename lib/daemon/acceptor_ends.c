/*
 * Ends of sessions, told in memory that an acceptor's child shares with its acceptor alone: nobody
 * is woken for one. Runs in both, under the service's uid. Hostile: a child that was taken over may
 * put anything there, also while it is read. Invariants: the child writes `put` and the tokens, the
 * acceptor `taken`, and keeps its own count, which no child can change; a token counts only among
 * the sessions of that very child (acceptor_count_end).
 */
#include "daemon/acceptor_private.h"

#include <sys/mman.h>

struct ends {
	uint32_t put, taken;
	uint64_t tokens[ENDS_MAX];
};

struct ends *
ends_new(void)
{
	void *map = mmap(
	    NULL, sizeof(struct ends), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return map == MAP_FAILED ? NULL : map;
}

void
ends_keep(struct ends *e)
{
	if (e && madvise(e, sizeof(*e), MADV_DONTFORK))
		die("cannot keep memory from later children: %s", err_str(err_errno()));
}

void
ends_free(struct ends *e)
{
	if (e)
		munmap(e, sizeof(*e));
}

bool
ends_put(struct ends *e, uint64_t token)
{
	uint32_t put = __atomic_load_n(&e->put, __ATOMIC_RELAXED);

	if (put - __atomic_load_n(&e->taken, __ATOMIC_ACQUIRE) >= ENDS_MAX)
		return false;
	__atomic_store_n(&e->tokens[put % ENDS_MAX], token, __ATOMIC_RELAXED);
	__atomic_store_n(&e->put, put + 1, __ATOMIC_RELEASE);
	return true;
}

bool
ends_take(struct ends *e, uint32_t *taken, uint64_t *token_r)
{
	uint32_t put = __atomic_load_n(&e->put, __ATOMIC_ACQUIRE);

	if (put == *taken)
		return false;
	*token_r = __atomic_load_n(&e->tokens[(*taken)++ % ENDS_MAX], __ATOMIC_RELAXED);
	__atomic_store_n(&e->taken, *taken, __ATOMIC_RELEASE);
	return true;
}
