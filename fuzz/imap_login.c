/*
 * IMAP before login, with a driver that answers as the input says; the first byte: whether TLS is
 * up. The output is bounded, and nothing is taken after the hand-over.
 */
#include "fuzz/login.h"
#include "imap/login.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct login_limits limits = { 300, 200, 5, 30, 3, NULL };
	struct slice in = slice(data + 1, size ? size - 1 : 0);
	bool tls = size && data[0] & 1;
	struct login *l =
	    login_new(&imap_login, &limits, tls ? "PLAIN SCRAM-SHA-256" : "", !tls, tls);
	struct buf preamble = { 0 };
	struct handover h;

	if (fuzz_login(l, in) == LOGIN_DONE) {
		login_handover(l, SLICE_LIT("::1"), SLICE_LIT("x"), &preamble);
		if (handover_decode(buf_slice(&preamble), &h) != (int)buf_len(&preamble) ||
		    !h.tag.n)
			abort();
	}
	if (handover_decode(slice(data, size), &h) > (int)size)
		abort();
	buf_free(&preamble);
	login_free(&l);
	return 0;
}
