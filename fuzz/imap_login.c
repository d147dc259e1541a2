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
	static const struct login_limits limits = { 300, 200, 5, 30, 3, NULL };
	struct slice in = slice(data, size);
	bool tls = size && data[0] & 1;
	struct login *l =
	    login_new(&imap_login, &limits, tls ? "PLAIN SCRAM-SHA-256" : "", !tls, tls);
	struct login_action a = { .want = LOGIN_MORE };
	struct buf preamble = { 0 };
	struct handover h;

	login_greet(l);
	for (unsigned turns = 0; turns < 500; turns++) {
		size_t n = login_feed(l, slice_sub(in, 0, 1 + turns * 7 % 40), &a);
		unsigned char answer = n < in.n ? in.p[n] : 0;

		in = slice_sub(in, n, in.n);
		if (a.want == LOGIN_CLOSE || a.want == LOGIN_DONE ||
		    (a.want == LOGIN_MORE && !in.n))
			break;
		if (a.want == LOGIN_STARTTLS)
			login_tls_done(l, "PLAIN");
		else if (a.want == LOGIN_AUTH_START || a.want == LOGIN_AUTH_STEP) {
			if (answer % 3 == 0)
				login_challenge(l, a.data);
			else if (answer % 3 == 1)
				login_auth_failed(l, answer % 4);
			else
				login_auth_ok(l, a.data, answer & 64);
		}
		if (buf_len(login_out(l)) > 100000)
			abort();
	}
	if (a.want == LOGIN_DONE) {
		if (login_feed(l, SLICE_LIT("a NOOP\r\n"), &a) != 0)
			abort();
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
