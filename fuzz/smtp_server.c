/*
 * Fuzz target: whole sessions of the server engine. Byte 0: the policy; byte 1: how many bytes are
 * fed at once; byte 2: how operations are answered; the rest is what the client says. Checked: an
 * operation is never started while another waits, content arrives only inside a transaction with
 * recipients and in CRLF lines unless it is BINARYMIME, every transaction ends once.
 */
#include "fuzz/must.h"
#include "smtp/server.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum op { NOTHING, MAIL_OP, RCPT_OP, DATA_OP, COMMIT_OP, AUTH_OP, TLS_OP, DELAY_OP };

struct run {
	struct smtp_server *s;
	enum op pending;
	unsigned answers, asked;
	bool at_once, in_tx, closed, auth, lmtp;
	unsigned char last; /* octet of content */
};

static bool
next_bit(struct run *r)
{
	return r->answers >> (r->asked++ % 8) & 1;
}

static void
answer(struct run *r)
{
	static const struct reply no = { 550, { (const unsigned char *)"5.7.1", 5 },
		{ (const unsigned char *)"no\r\nyes\n", 8 }, NULL };
	enum op op = r->pending;
	bool good = next_bit(r);

	r->pending = NOTHING;
	switch (op) {
	case MAIL_OP:
		smtp_server_answer_mail(r->s, good ? NULL : &no);
		break;
	case RCPT_OP:
		smtp_server_answer_rcpt(r->s, good ? NULL : &no);
		break;
	case DATA_OP:
		smtp_server_answer_data(r->s, good ? NULL : &no);
		break;
	case COMMIT_OP:
		if (r->lmtp && next_bit(r)) { /* one for each recipient, as they come */
			for (size_t n = smtp_server_tx(r->s)->rcpt_count; n-- > 0;)
				smtp_server_answer_commit_rcpt(r->s, next_bit(r) ? NULL : &no);
			break;
		}
		smtp_server_answer_commit(r->s, good ? NULL : &no);
		break;
	case AUTH_OP:
		if (next_bit(r)) {
			smtp_server_answer_auth_challenge(r->s, SLICE_LIT("a\0b"));
			break;
		}
		r->auth = false;
		if (good)
			smtp_server_answer_auth_ok(r->s);
		else
			smtp_server_answer_auth_failed(r->s, NULL);
		break;
	case TLS_OP:
		smtp_server_answer_tls(r->s, good);
		break;
	case DELAY_OP:
		smtp_server_answer_delay(r->s);
		break;
	case NOTHING:
		break;
	}
}

static void
start(struct run *r, enum op op)
{
	must(r->pending == NOTHING && !r->closed);
	r->pending = op;
	if (r->at_once)
		answer(r);
}

static void
check_mail(void *ctx, struct smtp_server *s)
{
	struct run *r = ctx;

	must(!r->in_tx && smtp_server_tx(s)->active);
	r->in_tx = true;
	start(r, MAIL_OP);
}

static void
check_rcpt(void *ctx, struct smtp_server *s, struct smtp_rcpt *rcpt)
{
	struct run *r = ctx;

	(void)s;
	must(r->in_tx && rcpt->address.n && slice_find(rcpt->address, '\n') < 0 &&
	     slice_find(rcpt->address, '\r') < 0 && slice_find(rcpt->address, '\0') < 0);
	start(r, RCPT_OP);
}

static void
data_begin(void *ctx, struct smtp_server *s)
{
	struct run *r = ctx;

	must(r->in_tx && smtp_server_tx(s)->rcpt_count);
	r->last = '\n';
	start(r, DATA_OP);
}

static void
data_bytes(void *ctx, struct smtp_server *s, struct slice bytes)
{
	struct run *r = ctx;
	struct smtp_tx *tx = smtp_server_tx(s);

	must(r->in_tx && r->pending == NOTHING && bytes.n);
	for (size_t i = 0; i < bytes.n && tx->body != SMTP_BODY_BINARYMIME; i++) {
		must((bytes.p[i] == '\n') == (r->last == '\r'));
		r->last = bytes.p[i];
	}
}

static void
commit(void *ctx, struct smtp_server *s)
{
	struct run *r = ctx;
	struct smtp_tx *tx = smtp_server_tx(s);

	must(r->in_tx && tx->rcpt_count && tx->ended);
	must(tx->body == SMTP_BODY_BINARYMIME || !tx->size || r->last == '\n');
	start(r, COMMIT_OP);
}

static void
tx_end(void *ctx, struct smtp_server *s)
{
	struct run *r = ctx;

	(void)s;
	must(r->in_tx);
	r->in_tx = false;
}

static void
start_tls(void *ctx, struct smtp_server *s)
{
	struct run *r = ctx;

	(void)s;
	must(!r->in_tx && r->pending == NOTHING);
	r->pending = TLS_OP; /* a handshake takes its time */
}

static void
auth_start(void *ctx, struct smtp_server *s, struct slice mechanism, bool has_initial,
    struct slice initial)
{
	struct run *r = ctx;

	(void)s;
	(void)has_initial;
	(void)initial;
	must(mechanism.n && !r->auth);
	r->auth = true;
	start(r, AUTH_OP);
}

static void
auth_step(void *ctx, struct smtp_server *s, struct slice response)
{
	struct run *r = ctx;

	(void)s;
	(void)response;
	must(r->auth);
	start(r, AUTH_OP);
}

static void
auth_cancel(void *ctx, struct smtp_server *s)
{
	struct run *r = ctx;

	(void)s;
	must(r->auth);
	r->auth = false;
	r->pending = NOTHING;
}

static void
delay(void *ctx, struct smtp_server *s, unsigned ms)
{
	struct run *r = ctx;

	(void)s;
	(void)ms;
	if (r->pending == NOTHING)
		r->pending = DELAY_OP;
}

static void
on_close(void *ctx, struct smtp_server *s)
{
	struct run *r = ctx;

	(void)s;
	must(!r->closed);
	r->closed = true;
}

static const struct smtp_ops ops = { .check_mail = check_mail,
	.check_rcpt = check_rcpt,
	.data_begin = data_begin,
	.data_bytes = data_bytes,
	.commit = commit,
	.tx_end = tx_end,
	.start_tls = start_tls,
	.auth_start = auth_start,
	.auth_step = auth_step,
	.auth_cancel = auth_cancel,
	.delay = delay,
	.close = on_close };

static void
settle(struct run *r)
{
	for (unsigned i = 0; i < 1000 && r->pending != NOTHING; i++)
		answer(r);
	while (buf_len(smtp_server_output(r->s))) {
		buf_clear(smtp_server_output(r->s));
		smtp_server_resume(r->s);
		for (unsigned i = 0; i < 1000 && r->pending != NOTHING; i++)
			answer(r);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct smtp_policy p = { .hostname = "mx.example",
		.banner = "ESMTP",
		.extensions = SMTP_EXT_ALL,
		.auth_mechanisms = "PLAIN",
		.auth_mechanisms_tls = "PLAIN",
		.size_limit = 5000,
		.discard_limit = 20000,
		.recipient_limit = 5,
		.recipient_overshoot = 2,
		.soft_error_limit = 5,
		.hard_error_limit = 10,
		.error_delay_ms = 1,
		.junk_command_limit = 20,
		.line_limit = 512,
		.auth_line_limit = 1024,
		.hop_limit = 5,
		.header_size_limit = 500,
		.header_section_limit = 1000,
		.header_count_limit = 20,
		.chunk_limit = 20 };
	static const struct slice forbidden[] = { { (const unsigned char *)"GET", 3 } };
	struct run r = { 0 };
	size_t step;

	if (size < 3)
		return 0;
	p.forbidden = forbidden;
	p.forbidden_n = 1;
	p.service = data[0] % 3;
	p.strict_pipelining = data[0] & 4;
	p.auth_needs_tls = data[0] & 8;
	p.tls_required = data[0] & 16;
	p.auth_required = data[0] & 32;
	p.hello_required = data[0] & 64;
	p.origin = data[0] & 128 ? "origin.example" : NULL;
	step = data[1] ? data[1] : 4096;
	r.answers = data[2];
	r.at_once = data[2] & 1;
	r.lmtp = p.service == SMTP_LMTP;
	r.s = smtp_server_new(&p, &ops, &r);
	smtp_server_greet(r.s, false);
	settle(&r);
	for (size_t at = 3; at < size && !r.closed; at += step) {
		smtp_server_feed(r.s, slice_sub(slice(data, size), at, at + step));
		settle(&r);
	}
	r.pending = NOTHING;
	smtp_server_free(&r.s);
	must(!r.in_tx && !r.auth);
	return 0;
}
