/* A dialogue before login with a driver that answers as the input says: what the targets of IMAP
 * and POP3 share. */
#ifndef FUZZ_LOGIN_H
#define FUZZ_LOGIN_H

#include "access/protocol.h"

#include <stdlib.h>

/* Feeds in to l until it closes, hands over or the input ends; what it wanted last. Its output is
 * bounded. */
static enum login_want
fuzz_login(struct login *l, struct slice in)
{
	struct login_action a = { .want = LOGIN_MORE };

	login_greet(l);
	for (unsigned turns = 0; turns < 500; turns++) {
		size_t n = login_feed(l, slice_sub(in, 0, 1 + turns * 7 % 40), &a);
		unsigned char answer = n < in.n ? in.p[n] : 0;

		in = slice_sub(in, n, in.n);
		if (a.want == LOGIN_DONE && answer == 'X') { /* no session can be had */
			login_unavailable(l, (enum login_failure)(turns % 5));
			a.want = LOGIN_MORE;
			continue;
		}
		if (a.want == LOGIN_CLOSE || a.want == LOGIN_DONE ||
		    (a.want == LOGIN_MORE && !in.n))
			break;
		if (a.want == LOGIN_STARTTLS)
			login_tls_done(l, "PLAIN");
		else if (a.want == LOGIN_AUTH_START || a.want == LOGIN_AUTH_STEP) {
			if (answer % 3 == 0)
				login_challenge(l, a.data);
			else if (answer % 3 == 1)
				login_auth_failed(l, (enum login_failure)(answer % 5));
			else
				login_auth_ok(l, a.data, answer & 64);
		}
		if (buf_len(login_out(l)) > 100000)
			abort();
	}
	if (a.want != LOGIN_DONE)
		return a.want;
	if (login_feed(l, SLICE_LIT("a NOOP\r\n"), &a) != 0) /* the session's now */
		abort();
	return LOGIN_DONE;
}

#endif
