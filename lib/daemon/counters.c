/*
 * What a process counts (counters.def). Runs in every daemon. An acceptor shares its counters with
 * its children, which are of its own uid; others have theirs alone.
 */
#include "daemon/private.h"

#include <sys/mman.h>

static uint64_t own_counters[COUNT_MAX];
static uint64_t *counters = own_counters;

void
count(enum counter c, uint64_t n)
{
	__atomic_fetch_add(&counters[c], n, __ATOMIC_RELAXED);
}

void
count_peak(enum counter c, uint64_t value)
{
	uint64_t now = __atomic_load_n(&counters[c], __ATOMIC_RELAXED);

	while (now < value && !__atomic_compare_exchange_n(&counters[c], &now, value, true,
				  __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

void
counters_share(void)
{
	void *map = mmap(
	    NULL, sizeof(own_counters), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (map != MAP_FAILED)
		counters = map;
}

void
counters_put(struct buf *out)
{
	for (size_t i = 0; i < COUNT_MAX; i++)
		buf_add_u64(out, __atomic_load_n(&counters[i], __ATOMIC_RELAXED));
}
