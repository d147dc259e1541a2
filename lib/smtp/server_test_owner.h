/* The owner of the server engine in its tests: it writes down what it is asked, and knows a few
 * addresses. */
#ifndef SMTP_SERVER_TEST_OWNER_H
#define SMTP_SERVER_TEST_OWNER_H

#include "mail/base64.h"
#include "smtp/server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum pending_op { NOTHING, MAIL_OP, RCPT_OP, DATA_OP, COMMIT_OP, AUTH_OP, TLS_OP, DELAY_OP };

struct owner {
	struct smtp_server *s;
	bool later;  /* answer after the feed, not inside the operation */
	bool pauses; /* has no room for content */
	enum pending_op pending;
	struct buf log, content, out;
	char verdict[ADDRESS_BUF_SIZE]; /* the address or the SASL bytes asked about */
	char mechanism[24];
	bool has_initial;
	unsigned steps, delays;
};

static inline void
log_bytes(struct buf *log, struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '\r')
			buf_add_str(log, "\\r");
		else if (s.p[i] == '\n')
			buf_add_str(log, "\\n");
		else if (s.p[i])
			buf_add_byte(log, s.p[i]);
		else
			buf_add_str(log, "\\0");
}

static inline void
answer_by_name(struct owner *o, void (*answer)(struct smtp_server *, const struct reply *))
{
	if (!strncmp(o->verdict, "bad", 3))
		answer(o->s, &REPLY(550, "5.1.1", "User unknown"));
	else if (!strncmp(o->verdict, "temp", 4))
		answer(o->s, &REPLY(450, "4.1.1", "Later"));
	else
		answer(o->s, NULL);
}

static inline void
answer_commit(struct owner *o)
{
	struct smtp_tx *tx = smtp_server_tx(o->s);
	struct smtp_rcpt *rcpt, *next;

	if (slice_search(buf_slice(&o->content), SLICE_LIT("perrcpt")) < 0) {
		if (slice_search(buf_slice(&o->content), SLICE_LIT("reject")) >= 0)
			smtp_server_answer_commit(o->s, &REPLY(554, "5.7.1", "Content refused"));
		else
			smtp_server_answer_commit(o->s, NULL);
		return;
	}
	for (rcpt = STAILQ_FIRST(&tx->rcpts); rcpt; rcpt = next) {
		next = STAILQ_NEXT(rcpt, next);
		if (slice_has_prefix(rcpt->address, "full"))
			smtp_server_answer_commit_rcpt(o->s, &REPLY(452, "4.2.2", "Over quota"));
		else
			smtp_server_answer_commit_rcpt(o->s, &REPLY(250, "2.1.5", "Delivered"));
	}
}

static inline void
answer_auth(struct owner *o)
{
	if (!strcmp(o->mechanism, "LOGIN") && o->steps < 2) {
		smtp_server_answer_auth_challenge(
		    o->s, o->steps ? SLICE_LIT("Password:") : SLICE_LIT("Username:"));
		return;
	}
	if (!strcmp(o->mechanism, "PLAIN") && !o->steps && !o->has_initial) {
		smtp_server_answer_auth_challenge(o->s, SLICE_NULL);
		return;
	}
	if (strstr(o->verdict, "good"))
		smtp_server_answer_auth_ok(o->s);
	else
		smtp_server_answer_auth_failed(o->s, NULL);
}

static inline void
answer(struct owner *o)
{
	enum pending_op op = o->pending;

	o->pending = NOTHING;
	switch (op) {
	case MAIL_OP:
		answer_by_name(o, smtp_server_answer_mail);
		break;
	case RCPT_OP:
		answer_by_name(o, smtp_server_answer_rcpt);
		break;
	case DATA_OP:
		if (slice_has_prefix(smtp_server_tx(o->s)->sender, "full"))
			smtp_server_answer_data(o->s, &REPLY(452, "4.3.1", "Queue is full"));
		else
			smtp_server_answer_data(o->s, NULL);
		break;
	case COMMIT_OP:
		answer_commit(o);
		break;
	case AUTH_OP:
		answer_auth(o);
		break;
	case DELAY_OP:
		smtp_server_answer_delay(o->s);
		break;
	case TLS_OP: /* by the transcript */
	case NOTHING:
		break;
	}
}

static inline void
asked(struct owner *o, enum pending_op op)
{
	assert_int_equal(o->pending, NOTHING);
	o->pending = op;
	if (!o->later)
		answer(o);
}

static inline void
name_asked(struct owner *o, struct slice name)
{
	assert_int_equal(slice_copy(slice_sub(name, 0, 300), o->verdict, sizeof(o->verdict)), 0);
}

static inline void
op_check_mail(void *ctx, struct smtp_server *s)
{
	struct owner *o = ctx;
	struct smtp_tx *tx = smtp_server_tx(s);

	assert_true(tx->active);
	buf_addf(&o->log, "MAIL<%.*s>", SLICE_ARG(tx->sender));
	if (tx->body)
		buf_addf(&o->log, " body=%d", tx->body);
	if (tx->smtputf8)
		buf_addf(&o->log, " utf8");
	if (tx->ret)
		buf_addf(&o->log, " ret=%d", tx->ret);
	if (tx->envid.n)
		buf_addf(&o->log, " envid=%.*s", SLICE_ARG(tx->envid));
	if (tx->auth.n)
		buf_addf(&o->log, " auth=%.*s", SLICE_ARG(tx->auth));
	if (tx->declared_size)
		buf_addf(&o->log, " size=%llu", (unsigned long long)tx->declared_size);
	buf_add_byte(&o->log, '\n');
	name_asked(o, tx->sender);
	asked(o, MAIL_OP);
}

static inline void
op_check_rcpt(void *ctx, struct smtp_server *s, struct smtp_rcpt *rcpt)
{
	struct owner *o = ctx;

	(void)s;
	buf_addf(&o->log, "RCPT<%.*s>", SLICE_ARG(rcpt->address));
	if (rcpt->notify)
		buf_addf(&o->log, " notify=%u", rcpt->notify);
	if (rcpt->orcpt.n)
		buf_addf(&o->log, " orcpt=%.*s", SLICE_ARG(rcpt->orcpt));
	buf_add_byte(&o->log, '\n');
	name_asked(o, rcpt->address);
	asked(o, RCPT_OP);
}

static inline void
op_data_begin(void *ctx, struct smtp_server *s)
{
	struct owner *o = ctx;

	(void)s;
	buf_clear(&o->content);
	asked(o, DATA_OP);
}

static inline void
op_data_bytes(void *ctx, struct smtp_server *s, struct slice bytes)
{
	struct owner *o = ctx;

	assert_true(smtp_server_tx(s)->active && bytes.n > 0);
	buf_add(&o->content, bytes);
	if (o->pauses)
		smtp_server_pause(s);
}

static inline void
op_commit(void *ctx, struct smtp_server *s)
{
	struct owner *o = ctx;
	struct smtp_tx *tx = smtp_server_tx(s);

	assert_int_equal(tx->size, buf_len(&o->content));
	buf_addf(&o->log, "COMMIT %u ", tx->rcpt_count);
	log_bytes(&o->log, buf_slice(&o->content));
	buf_add_byte(&o->log, '\n');
	asked(o, COMMIT_OP);
}

static inline void
op_tx_end(void *ctx, struct smtp_server *s)
{
	struct owner *o = ctx;

	(void)s;
	buf_addf(&o->log, "END\n");
}

static inline void
op_start_tls(void *ctx, struct smtp_server *s)
{
	struct owner *o = ctx;

	(void)s;
	buf_addf(&o->log, "TLS\n");
	o->pending = TLS_OP;
}

static inline void
op_auth_start(void *ctx, struct smtp_server *s, struct slice mechanism, bool has_initial,
    struct slice initial)
{
	struct owner *o = ctx;

	(void)s;
	buf_addf(&o->log, "AUTH %.*s", SLICE_ARG(mechanism));
	if (has_initial) {
		buf_add_byte(&o->log, ' ');
		log_bytes(&o->log, initial);
	}
	buf_add_byte(&o->log, '\n');
	assert_int_equal(slice_copy(mechanism, o->mechanism, sizeof(o->mechanism)), 0);
	o->has_initial = has_initial;
	o->steps = 0;
	snprintf(o->verdict, sizeof(o->verdict), "%s",
	    slice_search(initial, SLICE_LIT("good")) >= 0 ? "good" : "");
	asked(o, AUTH_OP);
}

static inline void
op_auth_step(void *ctx, struct smtp_server *s, struct slice response)
{
	struct owner *o = ctx;

	(void)s;
	buf_addf(&o->log, "STEP ");
	log_bytes(&o->log, response);
	buf_add_byte(&o->log, '\n');
	o->steps++;
	snprintf(o->verdict, sizeof(o->verdict), "%s",
	    slice_search(response, SLICE_LIT("good")) >= 0 ? "good" : "");
	asked(o, AUTH_OP);
}

static inline void
op_auth_cancel(void *ctx, struct smtp_server *s)
{
	struct owner *o = ctx;

	(void)s;
	buf_addf(&o->log, "CANCEL\n");
}

static inline void
op_delay(void *ctx, struct smtp_server *s, unsigned ms)
{
	struct owner *o = ctx;

	(void)s;
	o->delays++;
	assert_int_equal(ms, 1000);
	if (o->pending == NOTHING)
		o->pending = DELAY_OP; /* never inside the operation: that is what a delay is */
}

static inline void
op_close(void *ctx, struct smtp_server *s)
{
	struct owner *o = ctx;

	(void)s;
	buf_addf(&o->log, "CLOSE\n");
}

static const struct smtp_ops ops = {
	.check_mail = op_check_mail,
	.check_rcpt = op_check_rcpt,
	.data_begin = op_data_begin,
	.data_bytes = op_data_bytes,
	.commit = op_commit,
	.tx_end = op_tx_end,
	.start_tls = op_start_tls,
	.auth_start = op_auth_start,
	.auth_step = op_auth_step,
	.auth_cancel = op_auth_cancel,
	.delay = op_delay,
	.close = op_close,
};

static const struct slice forbidden[] = { { (const unsigned char *)"CONNECT", 7 },
	{ (const unsigned char *)"GET", 3 }, { (const unsigned char *)"POST", 4 } };

static const struct smtp_policy base_policy = {
	.service = SMTP_SMTPD,
	.hostname = "mx.example",
	.banner = "mx.example ESMTP Test",
	.origin = "origin.example",
	.extensions = SMTP_EXT_ALL & ~SMTP_EXT_AUTH,
	.auth_needs_tls = true,
	.auth_mechanisms = "",
	.auth_mechanisms_tls = "PLAIN LOGIN",
	.forbidden = forbidden,
	.forbidden_n = 3,
	.size_limit = 1000,
	.discard_limit = 100000,
	.recipient_limit = 3,
	.recipient_overshoot = 2,
	.soft_error_limit = 10,
	.hard_error_limit = 20,
	.junk_command_limit = 100,
	.line_limit = 512,
	.auth_line_limit = 1024,
	.hop_limit = 3,
	.header_size_limit = 200,
	.header_section_limit = 400,
	.header_count_limit = 20,
};

static inline void
settle(struct owner *o)
{
	while (o->pending != NOTHING && o->pending != TLS_OP)
		answer(o);
	buf_add(&o->out, buf_slice(smtp_server_output(o->s)));
	buf_clear(smtp_server_output(o->s));
	if (o->pending == NOTHING)
		smtp_server_resume(o->s);
	if (buf_len(smtp_server_output(o->s)) || (o->pending && o->pending != TLS_OP))
		settle(o);
}

static inline void
owner_open(struct owner *o, const struct smtp_policy *policy, bool later)
{
	*o = (struct owner){ .later = later };
	buf_init(&o->log, 0);
	buf_init(&o->content, 0);
	buf_init(&o->out, 0);
	o->s = smtp_server_new(policy, &ops, o);
	smtp_server_greet(o->s, false);
	settle(o);
}

static inline void
owner_close(struct owner *o)
{
	smtp_server_free(&o->s);
	assert_null(o->s);
	buf_free(&o->log);
	buf_free(&o->content);
	buf_free(&o->out);
}

static inline void
feed(struct owner *o, struct slice bytes)
{
	smtp_server_feed(o->s, bytes);
	settle(o);
}

#endif
