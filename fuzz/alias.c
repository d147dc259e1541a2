/* Fuzzes alias values, .forward and :include: files and command words: what a user may write. */
#include "db/alias.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena arena = { 0 };
	struct alias_items items;
	const char *why;
	char **argv;
	size_t argc;

	for (int lines = 0; lines < 2; lines++) {
		int err = alias_parse(&arena, slice(data, size), lines, 50, &items, &why);

		if ((err != 0) != (why != NULL) || items.n > 50)
			abort();
		for (size_t i = 0; !err && i < items.n; i++) {
			struct slice text = items.items[i].text;

			if (!text.n || text.n > ALIAS_ITEM_MAX || slice_find(text, 0) >= 0 ||
			    slice_find(text, '\n') >= 0 || slice_find(text, '\r') >= 0)
				abort();
			if (items.items[i].kind == ALIAS_FILE && text.p[0] != '/')
				abort();
			if (items.items[i].kind == ALIAS_COMMAND &&
			    !alias_words(&arena, text, 20, &argv, &argc) && (!argc || argv[argc]))
				abort();
		}
		arena_reset(&arena);
	}
	arena_free(&arena);
	return 0;
}
