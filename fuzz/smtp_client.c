/*
 * Fuzz target: whole sessions of the outbound engine. Byte 0: options; byte 1: how many bytes are
 * fed at once; byte 2: which message, and how the driver logs in; the rest is what the server says.
 * Checked: a recipient never gets two results, after "done" each has had one, no event follows the
 * end of the session, and where TLS is required neither envelope nor password goes out without it.
 */
#include "smtp/client.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define A(s)                                                                                       \
	{                                                                                          \
		(const unsigned char *)(s), sizeof(s) - 1                                          \
	}

static const struct client_rcpt rcpts[] = { { .address = A("a@x.test"), .notify = 6 },
	{ .address = A("b@x.test"), .orcpt = A("rfc822;b@x.test") },
	{ .address = A("\xc3\xbc@x.test") } };
static const struct client_rcpt odd[] = {
	{ .address = A("\"a b\\\"\"@x.test"), .notify = CLIENT_NOTIFY_NEVER },
	{ .address = A("a> NOTIFY=<b@x.test") },
	{ .address = A("\"\r\n\"@x.test") },
};
static const struct client_message messages[] = {
	{ .sender = A("s@y.test"), .rcpts = rcpts, .n = 2, .size = 8 },
	{ .rcpts = rcpts, .n = 3, .size = 8, .body = CLIENT_BODY_8BIT, .ret = CLIENT_RET_FULL },
	{ .rcpts = rcpts, .n = 1, .size = 8, .body = CLIENT_BODY_BINARY, .envid = A("x") },
	{ .rcpts = rcpts, .n = 3, .size = 8, .utf8 = true },
	{ .sender = A("s@y.test"), .rcpts = odd, .n = 3, .size = 8 },
};

struct run {
	struct client *c;
	const struct client_message *m;
	unsigned results[3];
	unsigned sent, login;
	bool over, tls_missing;
};

/* The driver's first answer: it may begin with data, without, with more than the line takes, with
 * none, have no login, or give up. */
static void
log_in(struct run *r)
{
	static const unsigned char much[400] = "password";

	switch (r->login % 6) {
	case 0:
		client_auth(r->c, "PLAIN", true, SLICE_LIT("\0u\0p"));
		break;
	case 1:
		client_auth(r->c, "LOGIN", false, SLICE_NULL);
		break;
	case 2:
		client_auth(r->c, "PLAIN", true, slice(much, sizeof(much)));
		break;
	case 3:
		client_auth(r->c, "EXTERNAL", true, SLICE_NULL);
		break;
	case 4:
		client_auth_skip(r->c);
		break;
	default:
		client_auth_cancel(r->c);
	}
}

static void
check_clear(struct slice out)
{
	while (out.n) {
		struct slice line = slice_split(&out, '\n');

		if (!slice_has_prefix(line, "EHLO ") && !slice_has_prefix(line, "LHLO ") &&
		    !slice_has_prefix(line, "HELO ") && !slice_eq_str(line, "STARTTLS\r") &&
		    !slice_eq_str(line, "QUIT\r"))
			abort();
	}
}

static void
take_event(struct run *r, enum client_event_type type, const struct client_event *ev)
{
	if (r->over)
		abort();
	switch (type) {
	case CLIENT_TLS:
		if (r->tls_missing)
			check_clear(buf_slice(client_output(r->c)));
		r->tls_missing = false;
		client_tls_up(r->c);
		break;
	case CLIENT_MECHANISMS:
		log_in(r);
		break;
	case CLIENT_CHALLENGE:
		if (ev->data.n % 2)
			client_auth_cancel(r->c);
		else
			client_auth(r->c, NULL, true, ev->data);
		break;
	case CLIENT_RESULT:
		if (ev->rcpt >= r->m->n || r->results[ev->rcpt]++ || !ev->reply.code)
			abort();
		break;
	case CLIENT_CONTENT:
		client_content(r->c, SLICE_LIT(".a\r\n.\r"));
		client_content(r->c, SLICE_LIT("\nb"));
		client_content_end(r->c);
		break;
	case CLIENT_DONE:
		for (size_t i = 0; i < r->m->n; i++)
			if (!r->results[i])
				abort();
		break;
	case CLIENT_FAILED:
		r->over = !client_quit(r->c);
		break;
	case CLIENT_CLOSED:
		r->over = true;
		break;
	default:
		break;
	}
	if (client_ready(r->c) && r->sent++ < 3) {
		memset(r->results, 0, sizeof(r->results));
		if (client_send(r->c, r->m))
			abort();
	} else if (client_ready(r->c) && !client_quit(r->c)) {
		abort();
	}
}

static void
events(struct run *r)
{
	struct client_event ev;
	enum client_event_type type;

	while ((type = client_next(r->c, &ev)) != CLIENT_NOTHING)
		take_event(r, type, &ev);
	if (r->tls_missing)
		check_clear(buf_slice(client_output(r->c)));
	buf_consume(client_output(r->c), buf_len(client_output(r->c)));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct client_opts opts = { .helo = "me.test" };
	struct run r = { 0 };

	if (size < 3)
		return 0;
	opts.lmtp = data[0] & 1;
	opts.tls = data[0] & 2;
	opts.tls_required = data[0] & 4;
	opts.auth = data[0] & 8;
	opts.no_pipelining = data[0] & 16;
	opts.tls_active = data[0] & 32;
	r.c = client_new(&opts);
	r.m = &messages[data[2] % 5];
	r.login = data[2] / 5;
	r.tls_missing = opts.tls_required && !opts.tls_active;
	for (size_t at = 3, n = data[1] % 64 + 1u; at < size; at += n) {
		client_feed(r.c, slice_sub(slice(data, size), at, at + n));
		events(&r);
	}
	client_eof(r.c);
	events(&r);
	if (!r.over)
		abort();
	client_free(&r.c);
	return 0;
}
