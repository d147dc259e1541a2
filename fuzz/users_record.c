/*
 * Fuzz target: the user store. The first byte chooses: a record from the file, a name as a client
 * claims it, a verifier, or a password. Checked: a record that is taken has one encoding; a name
 * that is folded is a name, and folded already; rounds lie within the bounds; what a password is
 * prepared to is text without control characters.
 */
#include "db/scram.h"
#include "db/users_private.h"
#include "fuzz/must.h"

#include <unistr.h>

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

static void
verifier(struct slice in)
{
	char text[SCRAM_VERIFIER_MAX];

	if (!slice_copy(in, text, sizeof(text)))
		must(scram_rounds(text) <= SCRAM_ROUNDS_MAX);
}

static void
password(struct slice in)
{
	struct buf out = { 0 };

	if (!scram_prepare(in, &out)) {
		struct slice s = buf_slice(&out);

		must(s.n && !u8_check(s.p, s.n));
		for (size_t i = 0; i < s.n; i++)
			must(s.p[i] >= ' ' && s.p[i] != 127);
	}
	buf_free(&out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	void (*const tries[])(struct slice) = { record, name, verifier, password };

	if (size)
		tries[data[0] % 4](slice(data + 1, size - 1));
	return 0;
}
