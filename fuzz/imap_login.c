/*
 * IMAP before login, with a driver that answers as the input says. The output is bounded, and
 * nothing is taken after the hand-over.
 */
#include "imap/login.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct imap_login_limits limits = { 300, 200, 5, 30, 3, NULL };
	struct slice in = slice(data, size);
	bool tls = size && data[0] & 1;
	struct imap_login *l = imap_login_new(&limits, tls ? "PLAIN SCRAM-SHA-256" : "", !tls, tls);
	struct imap_login_action a = { .want = IMAP_LOGIN_MORE };
	struct buf preamble = { 0 };
	struct imap_handover h;

	imap_login_greet(l);
	for (unsigned turns = 0; turns < 500; turns++) {
		size_t n = imap_login_feed(l, slice_sub(in, 0, 1 + turns * 7 % 40), &a);
		unsigned char answer = n < in.n ? in.p[n] : 0;

		in = slice_sub(in, n, in.n);
		if (a.want == IMAP_LOGIN_CLOSE || a.want == IMAP_LOGIN_DONE ||
		    (a.want == IMAP_LOGIN_MORE && !in.n))
			break;
		if (a.want == IMAP_LOGIN_STARTTLS)
			imap_login_tls_done(l, "PLAIN");
		else if (a.want == IMAP_LOGIN_AUTH_START || a.want == IMAP_LOGIN_AUTH_STEP) {
			if (answer % 3 == 0)
				imap_login_challenge(l, a.data);
			else if (answer % 3 == 1)
				imap_login_auth_failed(l, answer % 6);
			else
				imap_login_auth_ok(l, a.data, answer & 64);
		}
		if (buf_len(imap_login_out(l)) > 100000)
			abort();
	}
	if (a.want == IMAP_LOGIN_DONE) {
		if (imap_login_feed(l, SLICE_LIT("a NOOP\r\n"), &a) != 0)
			abort();
		imap_login_handover(l, SLICE_LIT("::1"), SLICE_LIT("x"), &preamble);
		if (imap_handover_decode(buf_slice(&preamble), &h) != (int)buf_len(&preamble) ||
		    !h.tag.n)
			abort();
	}
	if (imap_handover_decode(slice(data, size), &h) > (int)size)
		abort();
	buf_free(&preamble);
	imap_login_free(&l);
	return 0;
}
