/* What the tests of the server engine share: an owner that writes down what it is asked, and the
 * player of transcripts. */
#ifndef SMTP_SERVER_TEST_UTIL_H
#define SMTP_SERVER_TEST_UTIL_H

#include "smtp/server_test_owner.h"

/* What is answered to EHLO, MAIL and one good RCPT. */
#define UP_TO_RCPT "250 mx.example\n250 2.1.0 Ok\n250 2.1.5 Ok\n"

/* "\n" in a transcript stands for CRLF, the control characters of "^J" and "^M" for themselves, and
 * "^T" for a finished TLS handshake. */
static inline void
expand(const char *text, struct buf *out)
{
	buf_clear(out);
	for (; *text; text++) {
		if (*text == '\n') {
			buf_add_str(out, "\r\n");
		} else if (*text == '^' && text[1]) {
			text++;
			buf_add_byte(out, *text == 'J'   ? '\n'
					  : *text == 'M' ? '\r'
					  : *text == '0' ? '\0'
					  : *text == 'T' ? '\1'
							 : (unsigned char)*text);
		} else {
			buf_add_byte(out, (unsigned char)*text);
		}
	}
}

static inline void
play(struct owner *o, struct slice in, size_t first, size_t rest)
{
	while (in.n) {
		size_t n = first ? first : rest;
		ptrdiff_t tls = slice_find(in, '\1');
		if (!tls) {
			assert_int_equal(o->pending, TLS_OP);
			o->pending = NOTHING;
			smtp_server_answer_tls(o->s, true);
			settle(o);
			in = slice_sub(in, 1, in.n);
			continue;
		}
		if (tls > 0 && n > (size_t)tls)
			n = (size_t)tls;
		feed(o, slice_sub(in, 0, n));
		in = slice_sub(in, n, in.n);
		first = 0;
	}
}

static inline void
check_text(const char *name, const char *what, struct buf *got, const char *expected)
{
	struct buf plain;

	buf_init(&plain, 0);
	for (size_t i = 0; i < buf_len(got); i++)
		if (buf_slice(got).p[i] != '\r')
			buf_add_byte(&plain, buf_slice(got).p[i]);
	if (!slice_eq_str(buf_slice(&plain), expected))
		fail_msg("%s: %s:\n%.*s--- expected:\n%s", name, what, (int)buf_len(&plain),
		    (const char *)buf_slice(&plain).p, expected);
	buf_free(&plain);
}

#define GREETING "220 mx.example ESMTP Test\n"

static inline void
play_and_check(const struct smtp_policy *policy, struct slice in, size_t first, size_t rest,
    bool later, const char *out, const char *log)
{
	char name[80];
	struct owner o;

	snprintf(name, sizeof(name), "first %zu, then %zu, %s", first, rest,
	    later ? "answered later" : "answered at once");
	owner_open(&o, policy, later);
	play(&o, in, first, rest);
	if (out) {
		buf_consume(&o.out, sizeof(GREETING));
		check_text(name, "replies", &o.out, out);
	}
	smtp_server_free(&o.s);
	if (log)
		check_text(name, "operations", &o.log, log);
	owner_close(&o);
}

/* The same transcript whole, cut in two at every place, and byte by byte. */
static inline void
check(const struct smtp_policy *policy, const char *transcript, const char *out, const char *log)
{
	struct buf in;

	buf_init(&in, 0);
	expand(transcript, &in);
	for (int later = 0; later < 2; later++) {
		for (size_t first = 1; first <= buf_len(&in); first++)
			play_and_check(policy, buf_slice(&in), first, 1 << 20, later, out, log);
		play_and_check(policy, buf_slice(&in), 0, 1, later, out, log);
		play_and_check(policy, buf_slice(&in), 0, 3, later, out, log);
	}
	buf_free(&in);
}

static inline unsigned
count(struct buf *out, const char *what)
{
	struct slice s = buf_slice(out);
	unsigned n = 0;
	ptrdiff_t at;

	while ((at = slice_search(s, slice_str(what))) >= 0) {
		s = slice_sub(s, (size_t)at + 1, s.n);
		n++;
	}
	return n;
}

static inline struct smtp_policy
submission_policy(void)
{
	struct smtp_policy p = base_policy;

	p.service = SMTP_SUBMISSION;
	p.extensions = SMTP_EXT_ALL;
	p.auth_required = p.tls_required = p.hello_required = true;
	return p;
}

#define MAIL_OK "250 2.1.0 Ok\n"

#endif
