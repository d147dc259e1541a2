/* Unit tests of hash tables: a walk in turns while the table grows and elements go. */
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <stdio.h>

enum { N = 3000, STAYS = 1000 };

struct item {
	struct hash_node node;
	char name[16];
	unsigned seen;
};

static void
add(struct hash *h, struct item *it, unsigned i)
{
	snprintf(it->name, sizeof(it->name), "item%u", i);
	hash_insert(h, &it->node, slice_str(it->name));
}

/* What stays from the first to the last step is given once, what comes or goes at most once. */
static void
test_scan(void **state)
{
	struct item *items = calloc(N, sizeof(*items));
	struct hash h = { 0 };
	uint64_t cursor = 0;
	unsigned added = STAYS + 100, removed = STAYS, steps = 0;

	(void)state;
	for (unsigned i = 0; i < added; i++)
		add(&h, &items[i], i);
	do {
		for (struct hash_node *n = hash_scan(&h, &cursor); n; n = n->next)
			HASH_ELEMENT(n, struct item, node)->seen++;
		for (unsigned k = 0; k < 3 && added < N; k++, added++)
			add(&h, &items[added], added);
		if (removed < STAYS + 100) {
			hash_remove(&h, &items[removed].node);
			removed++;
		}
		assert_true(++steps < 10 * N);
	} while (cursor);
	assert_true(added > 2048); /* it has grown under way */
	for (unsigned i = 0; i < N; i++)
		assert_true(i < STAYS ? items[i].seen == 1 : items[i].seen <= 1);
	hash_free(&h);
	assert_null(hash_scan(&h, &cursor));
	assert_true(cursor == 0);
	free(items);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scan),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
