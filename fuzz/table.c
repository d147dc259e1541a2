/*
 * Fuzzes the text of tables. The first byte chooses the type. A table that loads is asked for each
 * of its own words, and for all that it has; one that does not says why.
 */
#include "db/db.h"
#include "db/type.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct db_type *types[] = { &db_hash, &db_cidr, &db_regexp, &db_pcre, &db_inline,
		&db_static, &db_unix };
	const struct db_type *type;
	struct db_source src = { .spec = "fuzz" };
	struct buf why = { 0 }, value = { 0 };
	void *state = NULL;
	struct slice rest, word;

	if (size < 2)
		return 0;
	type = types[(data[0] & 15) % 7];
	src.flags = data[0] >> 4 & (DB_ALIASES | DB_NO_EXPAND);
	src.text = src.name = rest = slice(data + 1, size - 1);
	if (!type->load(&src, &state, &why)) {
		for (int i = 0; i < 20 && db_list_next(&rest, &word); i++) {
			if (!word.p)
				break;
			(void)type->get(state, word, &value);
			buf_clear(&value);
			(void)type->get(state, slice_split(&word, '/'), &value); /* of a network */
			buf_clear(&value);
		}
		type->unload(state);
	}
	buf_free(&why);
	buf_free(&value);
	return 0;
}
