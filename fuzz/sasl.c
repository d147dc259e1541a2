/*
 * Fuzz target: whole SASL exchanges against the server side, libsasl2's parsers included. The first
 * byte picks the mechanism and the state of TLS; then come counted messages of the client. No input
 * may end in a confirmed login but with the right password, which the seeds do not have.
 */
#include "helpers/auth/sasl.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sasl_shared shared;
static char dir[] = "/tmp/bulkhead-fuzz.XXXXXX";

static void
clean(void)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/u-lock", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/u", dir);
	unlink(path);
	rmdir(dir);
}

static void
setup(void)
{
	static const struct users_opts opts = { .rounds = 4096,
		.sha1 = true,
		.uid_base = 800000,
		.uid_count = 10,
		.mailbox_base = "/m" };
	struct arena arena = { 0 };
	struct user user = { .name = SLICE_LIT("a") };
	char path[64];

	if (!mkdtemp(dir))
		abort();
	atexit(clean);
	snprintf(path, sizeof(path), "%s/u", dir);
	if (users_open(path, true, &opts, &shared.users, NULL, 0) ||
	    users_make_verifiers(shared.users, SLICE_LIT("not in any seed"), &arena, &user) ||
	    users_add(shared.users, &arena, &user))
		abort();
	arena_free(&arena);
	shared.cache = cache_new();
	atomic_store(&shared.rounds, 4096);
	sasl_setup(&shared);
}

static void
exchange(uint8_t kind, struct slice in)
{
	static const char *const mechanisms[] = { "PLAIN", "LOGIN", "SCRAM-SHA-256",
		"SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "EXTERNAL", "X" };
	struct sasl_exchange x = {
		.shared = &shared, .ssf = kind & 8 ? 0 : 256, .plus_offered = !(kind & 16)
	};
	struct cursor c = cursor(in);
	struct buf out = { 0 };
	bool has_out, first = true;

	snprintf(x.service, sizeof(x.service), "imap");
	snprintf(x.mechanism, sizeof(x.mechanism), "%s", mechanisms[kind % 8]);
	if (!(kind & 32))
		x.exporter = SLICE_LIT("0123456789abcdef0123456789abcdef");
	x.endpoint = SLICE_LIT("0123456789abcdef0123456789abcdef");
	for (int i = 0; i < 8; i++) {
		struct slice part = cursor_bytes(&c, cursor_u8(&c));
		enum sasl_result r;
		if (c.err)
			part = cursor_rest(&c);
		buf_clear(&out);
		r = sasl_step(&x, part, !(first && kind & 64), &out, &has_out);
		first = false;
		if (r == SASL_STEP_OK)
			abort();
		if (r != SASL_STEP_CONTINUE || c.err)
			break;
	}
	buf_free(&out);
	sasl_exchange_free(&x);
}

/* Verifiers and passwords: what the store or an import may hold. */
static void
texts(struct slice in)
{
	struct buf out = { 0 };
	char *text;

	(void)!scram_prepare(in, &out);
	buf_free(&out);
	(void)users_name_ok(in);
	if (slice_cstr(in, &text) == 0) {
		(void)scram_rounds(text);
		free(text);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!shared.users)
		setup();
	if (size == 0 || size > 4096)
		return 0;
	if (data[0] & 128)
		texts(slice(data + 1, size - 1));
	else
		exchange(data[0], slice(data + 1, size - 1));
	return 0;
}
