/*
 * Fuzz target: the user store. The first byte chooses: a record from the file, or a name as a
 * client claims it. Checked: a record that is taken has one encoding; a name that is folded is a
 * name, and folded already.
 */
#include "db/users_private.h"
#include "fuzz/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
record(struct slice in)
{
	struct user user = { 0 };
	struct buf out = { 0 };

	if (users_record_decode(in, &user))
		return;
	must(user.uid && user.gid && user.sender_count <= USERS_SENDERS_MAX);
	users_record_encode(&user, &out);
	must(slice_eq(buf_slice(&out), in));
	buf_free(&out);
}

static void
name(struct slice in)
{
	struct arena arena = { 0 };
	struct slice folded, again;

	if (users_name_ok(in)) {
		folded = users_fold(&arena, in);
		again = users_fold(&arena, folded);
		must(slice_eq(folded, again));
		must(folded.n > USERS_NAME_MAX || users_name_ok(folded));
	}
	arena_free(&arena);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size)
		(data[0] % 2 ? name : record)(slice(data + 1, size - 1));
	return 0;
}
