/*
 * Fuzz target: our own logins at smarthosts, libsasl2's parsers included. The first byte picks the
 * mechanisms that the server announces and the state of TLS; then come its counted challenges.
 * Checked: without TLS the password is never sent, and no server that lacks the password is
 * believed by SCRAM.
 */
#include "helpers/auth/sasl.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sasl_shared shared;

/* The library is set up for both sides at once, so it wants a store. */
static void
setup(void)
{
	static const struct users_opts opts = {
		.rounds = 4096, .uid_base = 800000, .uid_count = 10, .mailbox_base = "/m"
	};
	char dir[] = "/tmp/bulkhead-fuzz.XXXXXX", path[64], lock[80];

	if (!mkdtemp(dir))
		abort();
	snprintf(path, sizeof(path), "%s/u", dir);
	snprintf(lock, sizeof(lock), "%s-lock", path);
	if (users_open(path, true, &opts, &shared.users, NULL, 0))
		abort();
	unlink(lock);
	unlink(path);
	rmdir(dir);
	shared.cache = cache_new();
	sasl_setup(&shared);
}

static void
exchange(uint8_t kind, struct slice in)
{
	static const char *const lists[] = { "PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-1",
		"PLAIN LOGIN SCRAM-SHA-256", "SCRAM-SHA-256-PLUS CRAM-MD5", "EXTERNAL", "X" };
	struct sasl_exchange x = { .shared = &shared,
		.client = true,
		.ssf = kind & 8 ? 0 : 256,
		.login = "joe@relay.example",
		.secret = "not in any seed",
		.host = "relay.example",
		.mechanisms = lists[kind % 8] };
	struct cursor c = cursor(in);
	struct buf out = { 0 };
	bool has_out, first = true;

	snprintf(x.service, sizeof(x.service), "smtp");
	for (int i = 0; i < 8; i++) {
		struct slice part = first ? SLICE_NULL : cursor_bytes(&c, cursor_u8(&c));
		enum sasl_result r;
		if (c.err)
			part = cursor_rest(&c);
		buf_clear(&out);
		r = sasl_step(&x, part, !first, &out, &has_out);
		if (slice_search(buf_slice(&out), slice_str(x.secret)) >= 0 &&
		    (kind & 8 || slice_has_prefix(slice_str(x.mechanism), "SCRAM")))
			abort();
		if (r == SASL_STEP_OK && slice_has_prefix(slice_str(x.mechanism), "SCRAM"))
			abort();
		if (r != SASL_STEP_CONTINUE || c.err)
			break;
		first = false;
	}
	buf_free(&out);
	sasl_exchange_free(&x);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!shared.users)
		setup();
	if (size && size < 4096)
		exchange(data[0], slice(data + 1, size - 1));
	return 0;
}
