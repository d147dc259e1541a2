/* The server engine: transcripts, each fed whole, at every split and byte by byte, with operations
 * answered at once and later; every command in every state; every limit at and one past it. */
#include "smtp/server.h"

#include "mail/base64.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

/* --- an owner that writes down what it is asked, and knows a few addresses --- */

enum pending_op { NOTHING, MAIL_OP, RCPT_OP, DATA_OP, COMMIT_OP, AUTH_OP, TLS_OP, DELAY_OP };

struct owner {
	struct smtp_server *s;
	bool later; /* answer after the feed, not inside the operation */
	enum pending_op pending;
	struct buf log, content, out;
	char verdict[ADDRESS_BUF_SIZE]; /* the address or the SASL bytes asked about */
	char mechanism[24];
	bool has_initial;
	unsigned steps, delays;
};

static void
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

static void
answer_by_name(struct owner *o, void (*answer)(struct smtp_server *, const struct reply *))
{
	if (!strncmp(o->verdict, "bad", 3))
		answer(o->s, &REPLY(550, "5.1.1", "User unknown"));
	else if (!strncmp(o->verdict, "temp", 4))
		answer(o->s, &REPLY(450, "4.1.1", "Later"));
	else
		answer(o->s, NULL);
}

static void
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

static void
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

static void
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

static void
asked(struct owner *o, enum pending_op op)
{
	assert_int_equal(o->pending, NOTHING);
	o->pending = op;
	if (!o->later)
		answer(o);
}

static void
name_asked(struct owner *o, struct slice name)
{
	assert_int_equal(slice_copy(slice_sub(name, 0, 300), o->verdict, sizeof(o->verdict)), 0);
}

static void
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

static void
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

static void
op_data_begin(void *ctx, struct smtp_server *s)
{
	struct owner *o = ctx;

	(void)s;
	buf_clear(&o->content);
	asked(o, DATA_OP);
}

static void
op_data_bytes(void *ctx, struct smtp_server *s, struct slice bytes)
{
	struct owner *o = ctx;

	assert_true(smtp_server_tx(s)->active && bytes.n > 0);
	buf_add(&o->content, bytes);
}

static void
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

static void
op_tx_end(void *ctx, struct smtp_server *s)
{
	struct owner *o = ctx;

	(void)s;
	buf_addf(&o->log, "END\n");
}

static void
op_start_tls(void *ctx, struct smtp_server *s)
{
	struct owner *o = ctx;

	(void)s;
	buf_addf(&o->log, "TLS\n");
	o->pending = TLS_OP;
}

static void
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

static void
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

static void
op_auth_cancel(void *ctx, struct smtp_server *s)
{
	struct owner *o = ctx;

	(void)s;
	buf_addf(&o->log, "CANCEL\n");
}

static void
op_delay(void *ctx, struct smtp_server *s, unsigned ms)
{
	struct owner *o = ctx;

	(void)s;
	o->delays++;
	assert_int_equal(ms, 1000);
	if (o->pending == NOTHING)
		o->pending = DELAY_OP; /* never inside the operation: that is what a delay is */
}

static void
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

static void
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

static void
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

static void
owner_close(struct owner *o)
{
	smtp_server_free(&o->s);
	assert_null(o->s);
	buf_free(&o->log);
	buf_free(&o->content);
	buf_free(&o->out);
}

static void
feed(struct owner *o, struct slice bytes)
{
	smtp_server_feed(o->s, bytes);
	settle(o);
}

/* "\n" in a transcript stands for CRLF, the control characters of "^J" and "^M" for themselves, and
 * "^T" for a finished TLS handshake. */
static void
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

static void
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

static void
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

static void
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
static void
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

/* --- the ways of a message --- */

static void
one_message(void **state)
{
	(void)state;
	check(&base_policy,
	    "EHLO client.example\nMAIL FROM:<a@b.example>\nRCPT TO:<c@D.example>\n"
	    "RCPT TO:<bad@d.example>\nRCPT TO:<temp@d.example>\nRCPT TO:<Postmaster>\nDATA\n"
	    "From: x\n\n..dot\n.more\n.\nQUIT\n",
	    "250-mx.example\n250-PIPELINING\n250-SIZE 1000\n250-STARTTLS\n"
	    "250-ENHANCEDSTATUSCODES\n250-8BITMIME\n250-DSN\n250-SMTPUTF8\n250-CHUNKING\n"
	    "250-BINARYMIME\n250 HELP\n250 2.1.0 Ok\n250 2.1.5 Ok\n550 5.1.1 User unknown\n"
	    "450 4.1.1 Later\n250 2.1.5 Ok\n354 End data with <CR><LF>.<CR><LF>\n"
	    "250 2.0.0 Ok\n221 2.0.0 Bye\n",
	    "MAIL<a@b.example>\nRCPT<c@d.example>\nRCPT<bad@d.example>\nRCPT<temp@d.example>\n"
	    "RCPT<Postmaster@origin.example>\nCOMMIT 2 From: x\\r\\n\\r\\n.dot\\r\\nmore\\r\\n\n"
	    "END\nCLOSE\n");
}

static void
two_messages(void **state)
{
	(void)state;
	check(&base_policy,
	    "HELO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nDATA\nreject\n.\nMAIL FROM:<x@y>\n"
	    "RCPT TO:<e@f>\nDATA\nA: b\n.\nRSET\nNOOP\n",
	    "250 mx.example\n250 2.1.0 Ok\n250 2.1.5 Ok\n354 End data with <CR><LF>.<CR><LF>\n"
	    "554 5.7.1 Content refused\n250 2.1.0 Ok\n250 2.1.5 Ok\n"
	    "354 End data with <CR><LF>.<CR><LF>\n250 2.0.0 Ok\n250 2.0.0 Ok\n250 2.0.0 Ok\n",
	    "MAIL<>\nRCPT<c@d>\nCOMMIT 1 reject\\r\\n\nEND\nMAIL<x@y>\nRCPT<e@f>\n"
	    "COMMIT 1 A: b\\r\\n\nEND\n");
}

static void
empty_data(void **state)
{
	(void)state;
	check(&base_policy, "HELO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nDATA\n.\nNOOP\n",
	    "250 mx.example\n250 2.1.0 Ok\n250 2.1.5 Ok\n354 End data with <CR><LF>.<CR><LF>\n"
	    "250 2.0.0 Ok\n250 2.0.0 Ok\n",
	    "MAIL<>\nRCPT<c@d>\nCOMMIT 1 \nEND\n");
}

static void
chunks(void **state)
{
	(void)state;
	check(&base_policy,
	    "HELO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nBDAT 6\nA: b\nBDAT 0\nBDAT 8 LAST\n\n.\n.\n"
	    "MAIL FROM:<>\nRCPT TO:<c@d>\nBDAT 4 LAST\nA: bNOOP\n",
	    "250 mx.example\n250 2.1.0 Ok\n250 2.1.5 Ok\n250 2.0.0 Ok\n250 2.0.0 Ok\n"
	    "250 2.0.0 Ok\n250 2.1.0 Ok\n250 2.1.5 Ok\n250 2.0.0 Ok\n250 2.0.0 Ok\n",
	    "MAIL<>\nRCPT<c@d>\nCOMMIT 1 A: b\\r\\n\\r\\n.\\r\\n.\\r\\n\nEND\n"
	    "MAIL<>\nRCPT<c@d>\nCOMMIT 1 A: b\\r\\n\nEND\n");
	check(&base_policy, "HELO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nBDAT 4 LAST\nA: bNOOP\n",
	    "250 mx.example\n250 2.1.0 Ok\n250 2.1.5 Ok\n250 2.0.0 Ok\n250 2.0.0 Ok\n",
	    "MAIL<>\nRCPT<c@d>\nCOMMIT 1 A: b\\r\\n\nEND\n");
	check(&base_policy,
	    "EHLO c\nMAIL FROM:<> BODY=BINARYMIME\nRCPT TO:<c@d>\nDATA\nBDAT 8 LAST\n"
	    "a^Jb^Mc^0.^JNOOP\n",
	    NULL, "MAIL<> body=2\nRCPT<c@d>\nCOMMIT 1 a\\nb\\rc\\0.\\n\nEND\n");
}

/* After a chunk that fails nothing of the transaction is left, and pipelined chunks are no
 * commands. */
static void
failed_chunks(void **state)
{
	(void)state;
	check(&base_policy,
	    "HELO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nBDAT 3\na^JbBDAT 6 LAST\nQUIT\nDATA\n"
	    "RCPT TO:<e@f>\nNOOP\n",
	    "250 mx.example\n250 2.1.0 Ok\n250 2.1.5 Ok\n"
	    "550 5.5.2 Error: bare <LF> received: lines end in <CR><LF>\n"
	    "503 5.5.1 Error: need RCPT command\n503 5.5.1 Error: need RCPT command\n"
	    "503 5.5.1 Error: need MAIL command\n250 2.0.0 Ok\n",
	    "MAIL<>\nRCPT<c@d>\nEND\n");
	check(&base_policy, "HELO c\nBDAT 6\nQUIT\nMAIL FROM:<>\nBDAT 6 LAST\nQUIT\nDATA\n",
	    "250 mx.example\n503 5.5.1 Error: need RCPT command\n250 2.1.0 Ok\n"
	    "554 5.5.1 Error: no valid recipients\n503 5.5.1 Error: need RCPT command\n",
	    "MAIL<>\nEND\n");
	check(&base_policy, "BDAT 6\nQUIT\nNOOP\n",
	    "503 5.5.1 Error: send EHLO first\n250 2.0.0 Ok\n", "");
	check(&base_policy,
	    "HELO c\nMAIL FROM:<full@x>\nRCPT TO:<c@d>\nBDAT 6\nQUIT\nMAIL FROM:<>\n",
	    "250 mx.example\n250 2.1.0 Ok\n250 2.1.5 Ok\n452 4.3.1 Queue is full\n250 2.1.0 Ok\n",
	    "MAIL<full@x>\nRCPT<c@d>\nEND\nMAIL<>\nEND\n");
	check(&base_policy, "HELO c\nMAIL FROM:<full@x>\nRCPT TO:<c@d>\nDATA\nDATA\n",
	    "250 mx.example\n250 2.1.0 Ok\n250 2.1.5 Ok\n452 4.3.1 Queue is full\n"
	    "503 5.5.1 Error: need RCPT command\n",
	    "MAIL<full@x>\nRCPT<c@d>\nEND\n");
	check(&base_policy,
	    "HELO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nBDAT 2\n\nMAIL FROM:<>\nRCPT TO:<x@y>\nDATA\n"
	    "RSET\nDATA\n",
	    "250 mx.example\n250 2.1.0 Ok\n250 2.1.5 Ok\n250 2.0.0 Ok\n"
	    "503 5.5.1 Error: BDAT is in progress: end it with LAST or RSET\n"
	    "503 5.5.1 Error: BDAT is in progress: end it with LAST or RSET\n"
	    "503 5.5.1 Error: BDAT is in progress: end it with LAST or RSET\n"
	    "250 2.0.0 Ok\n503 5.5.1 Error: need RCPT command\n",
	    "MAIL<>\nRCPT<c@d>\nEND\n");
	check(&base_policy, "HELO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nBDAT x\nMAIL FROM:<>\n",
	    "250 mx.example\n250 2.1.0 Ok\n250 2.1.5 Ok\n"
	    "501 5.5.4 Syntax: BDAT count [LAST]; cannot go on after this\n",
	    "MAIL<>\nRCPT<c@d>\nEND\nCLOSE\n");
}

/* What follows a refused message must not be read as its content, nor its content as commands. */
static void
bare_line_ends(void **state)
{
	static const char *const lf[] = { "a^J.^J", "a^J.\n", "a\n.^J", "^J.\n", "a^Jb" };
	static const char *const cr[] = { "a^M.^M", "a^M.\n", "a\n.^M", "a\n.^M^M", "a^Mb" };
	char text[200];

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		snprintf(text, sizeof(text),
		    "HELO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nDATA\n%sMAIL FROM:<evil@x>\n.\nNOOP\n",
		    lf[i]);
		check(&base_policy, text,
		    "250 mx.example\n250 2.1.0 Ok\n250 2.1.5 Ok\n"
		    "354 End data with <CR><LF>.<CR><LF>\n"
		    "550 5.5.2 Error: bare <LF> received: lines end in <CR><LF>\n250 2.0.0 Ok\n",
		    "MAIL<>\nRCPT<c@d>\nEND\n");
		snprintf(text, sizeof(text),
		    "HELO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nDATA\n%sMAIL FROM:<evil@x>\n.\nNOOP\n",
		    cr[i]);
		check(&base_policy, text,
		    "250 mx.example\n250 2.1.0 Ok\n250 2.1.5 Ok\n"
		    "354 End data with <CR><LF>.<CR><LF>\n"
		    "550 5.5.2 Error: bare <CR> received: lines end in <CR><LF>\n250 2.0.0 Ok\n",
		    "MAIL<>\nRCPT<c@d>\nEND\n");
	}
	check(&base_policy, "HELO c^JMAIL FROM:<evil@x>\nNOOP\n",
	    "550 5.5.2 Error: bare <LF> received: lines end in <CR><LF>\n250 2.0.0 Ok\n", "");
	check(&base_policy, "HELO c^MMAIL FROM:<evil@x>\nNOOP\n",
	    "550 5.5.2 Error: bare <CR> received: lines end in <CR><LF>\n250 2.0.0 Ok\n", "");
	check(&base_policy, "HELO c\nMAIL FROM:<a^0b@x>\nMAIL FROM:<a@x^0>\nNOOP a^0\nMAIL^0\n",
	    "250 mx.example\n500 5.5.2 Error: bad octet in the command line\n"
	    "500 5.5.2 Error: bad octet in the command line\n"
	    "500 5.5.2 Error: bad octet in the command line\n"
	    "500 5.5.2 Error: bad octet in the command line\n",
	    "");
}

static void
lmtp(void **state)
{
	struct smtp_policy p = base_policy;

	(void)state;
	p.service = SMTP_LMTP;
	p.hello_required = true;
	check(&p,
	    "EHLO c\nHELO c\nMAIL FROM:<>\nLHLO c\nMAIL FROM:<>\nDATA\nRCPT TO:<bad@d>\nDATA\n"
	    "RCPT TO:<c@d>\nRCPT TO:<full@d>\nRCPT TO:<c@d>\nDATA\nX: perrcpt\n.\nNOOP\n",
	    "500 5.5.2 Error: command not recognized\n500 5.5.2 Error: command not recognized\n"
	    "503 5.5.1 Error: send EHLO first\n"
	    "250-mx.example\n250-PIPELINING\n250-SIZE 1000\n250-STARTTLS\n"
	    "250-ENHANCEDSTATUSCODES\n250-8BITMIME\n250-DSN\n250-SMTPUTF8\n250-CHUNKING\n"
	    "250-BINARYMIME\n250 HELP\n250 2.1.0 Ok\n503 5.5.1 Error: no valid recipients\n"
	    "550 5.1.1 User unknown\n503 5.5.1 Error: no valid recipients\n250 2.1.5 Ok\n"
	    "250 2.1.5 Ok\n250 2.1.5 Ok\n354 End data with <CR><LF>.<CR><LF>\n"
	    "250 2.1.5 Delivered\n452 4.2.2 Over quota\n250 2.1.5 Delivered\n250 2.0.0 Ok\n",
	    "MAIL<>\nRCPT<bad@d>\nRCPT<c@d>\nRCPT<full@d>\nRCPT<c@d>\n"
	    "COMMIT 3 X: perrcpt\\r\\n\nEND\n");
	check(&p,
	    "LHLO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nRCPT TO:<e@d>\nDATA\na^Jb\n.\nMAIL FROM:<>\n"
	    "BDAT 2 LAST\n\nMAIL FROM:<>\nRCPT TO:<c@d>\nRCPT TO:<e@d>\nBDAT 2 LAST\n^M^JNOOP\n",
	    NULL,
	    "MAIL<>\nRCPT<c@d>\nRCPT<e@d>\nEND\nMAIL<>\nEND\nMAIL<>\nRCPT<c@d>\nRCPT<e@d>\n"
	    "COMMIT 2 \\r\\n\nEND\n");
}

/* --- parameters --- */

struct line_case {
	const char *line, *reply, *log;
};

static void
check_lines(
    const struct smtp_policy *policy, const char *before, const struct line_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct buf in;
		struct owner o;
		buf_init(&in, 0);
		owner_open(&o, policy, false);
		expand(before, &in);
		feed(&o, buf_slice(&in));
		buf_clear(&o.out);
		buf_clear(&o.log);
		expand(cases[i].line, &in);
		feed(&o, buf_slice(&in));
		feed(&o, SLICE_LIT("\r\n"));
		check_text(cases[i].line, "reply", &o.out, cases[i].reply);
		if (cases[i].log)
			check_text(cases[i].line, "operations", &o.log, cases[i].log);
		owner_close(&o);
		buf_free(&in);
	}
}

#define CASES(c) (c), sizeof(c) / sizeof((c)[0])
#define BAD_VALUE "501 5.5.4 Error: bad parameter value\n"
#define BAD_PARAM "501 5.5.4 Error: bad parameter syntax\n"
#define NO_PARAM "555 5.5.4 Error: parameter not recognized\n"
#define MAIL_OK "250 2.1.0 Ok\n"
#define RCPT_OK "250 2.1.5 Ok\n"
#define BAD_SENDER "501 5.1.7 Bad sender address syntax\n"
#define BAD_RCPT "501 5.1.3 Bad recipient address syntax\n"

static void
mail_parameters(void **state)
{
	static const struct line_case cases[] = {
		{ "MAIL FROM:<a@b>", MAIL_OK, "MAIL<a@b>\n" },
		{ "mail from:<a@b>", MAIL_OK, "MAIL<a@b>\n" },
		{ "MAIL FROM: <a@b>", MAIL_OK, "MAIL<a@b>\n" },
		{ "MAIL FROM:a@b", MAIL_OK, "MAIL<a@b>\n" },
		{ "MAIL FROM:<a@b>  ", MAIL_OK, "MAIL<a@b>\n" },
		{ "MAIL FROM:<user>", MAIL_OK, "MAIL<user@origin.example>\n" },
		{ "MAIL FROM:<@x.example:a@b>", MAIL_OK, "MAIL<a@b>\n" },
		{ "MAIL FROM:<\"a b\"@c>", MAIL_OK, "MAIL<\"a b\"@c>\n" },
		{ "MAIL FROM:<a@[127.0.0.1]>", MAIL_OK, "MAIL<a@[127.0.0.1]>\n" },
		{ "MAIL", "501 5.5.4 Syntax: MAIL FROM:<address> [parameters]\n", "" },
		{ "MAIL FROM", "501 5.5.4 Syntax: MAIL FROM:<address> [parameters]\n", "" },
		{ "MAIL <a@b>", "501 5.5.4 Syntax: MAIL FROM:<address> [parameters]\n", "" },
		{ "MAIL FROM:", BAD_SENDER, "" },
		{ "MAIL FROM:<a@b", BAD_SENDER, "" },
		{ "MAIL FROM:<a@b>x", BAD_SENDER, "" },
		{ "MAIL FROM:<a@>", BAD_SENDER, "" },
		{ "MAIL FROM:<a..b@c>", BAD_SENDER, "" },
		{ "MAIL FROM:<a@b_>", MAIL_OK, NULL },
		{ "MAIL FROM:<a@-b>", BAD_SENDER, "" },
		{ "MAIL FROM:<m\xc3\xbc@b>", "550 5.6.7 Error: non-ASCII address needs SMTPUTF8\n",
		    "" },
		{ "MAIL FROM:<m\xc3\xbc@b> SMTPUTF8", MAIL_OK, "MAIL<m\xc3\xbc@b> utf8\n" },
		{ "MAIL FROM:<m\xc3@b> SMTPUTF8", BAD_SENDER, "" },
		{ "MAIL FROM:<a@b\xc3\xbc> smtputf8 BODY=8BITMIME", MAIL_OK,
		    "MAIL<a@xn--b-eha> body=1 utf8\n" },
		{ "MAIL FROM:<a@b> SMTPUTF8=1", BAD_PARAM, "" },
		{ "MAIL FROM:<a@b> SIZE=1000", MAIL_OK, "MAIL<a@b> size=1000\n" },
		{ "MAIL FROM:<a@b> SIZE=0", MAIL_OK, NULL },
		{ "MAIL FROM:<a@b> SIZE=1001", "552 5.3.4 Message size exceeds fixed limit\n", "" },
		{ "MAIL FROM:<a@b> SIZE=99999999999999999999",
		    "552 5.3.4 Message size exceeds fixed limit\n", "" },
		{ "MAIL FROM:<a@b> SIZE=999999999999999999999", BAD_VALUE, "" },
		{ "MAIL FROM:<a@b> SIZE=-1", BAD_VALUE, "" },
		{ "MAIL FROM:<a@b> SIZE=1x", BAD_VALUE, "" },
		{ "MAIL FROM:<a@b> SIZE=", BAD_PARAM, "" },
		{ "MAIL FROM:<a@b> SIZE", BAD_PARAM, "" },
		{ "MAIL FROM:<a@b> SIZE=1 SIZE=2", BAD_PARAM, "" },
		{ "MAIL FROM:<a@b> BODY=7BIT", MAIL_OK, "MAIL<a@b>\n" },
		{ "MAIL FROM:<a@b> body=8bitmime", MAIL_OK, "MAIL<a@b> body=1\n" },
		{ "MAIL FROM:<a@b> BODY=9BIT", BAD_VALUE, "" },
		{ "MAIL FROM:<a@b> RET=FULL", MAIL_OK, "MAIL<a@b> ret=1\n" },
		{ "MAIL FROM:<a@b> RET=hdrs ENVID=Q+20x", MAIL_OK,
		    "MAIL<a@b> ret=2 envid=Q+20x\n" },
		{ "MAIL FROM:<a@b> RET=NONE", BAD_VALUE, "" },
		{ "MAIL FROM:<a@b> RET=FULL RET=FULL", BAD_PARAM, "" },
		{ "MAIL FROM:<a@b> ENVID=Q+0Ax", BAD_VALUE, "" },
		{ "MAIL FROM:<a@b> ENVID=Q+2", BAD_VALUE, "" },
		{ "MAIL FROM:<a@b> AUTH=<>", NO_PARAM, "" },
		{ "MAIL FROM:<a@b> NOTIFY=NEVER", NO_PARAM, "" },
		{ "MAIL FROM:<a@b> FOO", NO_PARAM, "" },
		{ "MAIL FROM:<a@b> FOO=bar", NO_PARAM, "" },
		{ "MAIL FROM:<a@b> =bar", BAD_PARAM, "" },
		{ "MAIL FROM:<a@b> -X", BAD_PARAM, "" },
	};
	static const struct line_case no_esmtp[] = {
		{ "MAIL FROM:<a@b> SIZE=1", NO_PARAM, "" },
		{ "MAIL FROM:<a@b>", MAIL_OK, NULL },
	};
	char long_line[300];
	struct line_case bounds[2];

	(void)state;
	check_lines(&base_policy, "EHLO c\n", CASES(cases));
	check_lines(&base_policy, "HELO c\n", CASES(no_esmtp));
	snprintf(long_line, sizeof(long_line), "MAIL FROM:<a@b> ENVID=%0100d", 0);
	bounds[0] = (struct line_case){ long_line, MAIL_OK, NULL };
	check_lines(&base_policy, "EHLO c\n", bounds, 1);
	snprintf(long_line, sizeof(long_line), "MAIL FROM:<a@b> ENVID=%0101d", 0);
	bounds[0] = (struct line_case){ long_line, BAD_VALUE, NULL };
	check_lines(&base_policy, "EHLO c\n", bounds, 1);
}

static void
rcpt_parameters(void **state)
{
	static const struct line_case cases[] = {
		{ "RCPT TO:<a@b>", RCPT_OK, "RCPT<a@b>\n" },
		{ "rcpt to: <a@b>", RCPT_OK, "RCPT<a@b>\n" },
		{ "RCPT TO:<postmaster>", RCPT_OK, "RCPT<postmaster@origin.example>\n" },
		{ "RCPT TO:<@x,@y:a@b>", RCPT_OK, "RCPT<a@b>\n" },
		{ "RCPT TO:<@x:@y:a@b>", BAD_RCPT, "" },
		{ "RCPT TO:<>", BAD_RCPT, "" },
		{ "RCPT TO:<a@b> NOTIFY=success,FAILURE ORCPT=rfc822;a+2Bb@c", RCPT_OK,
		    "RCPT<a@b> notify=6 orcpt=rfc822;a+2Bb@c\n" },
		{ "RCPT TO:<a@b> NOTIFY=NEVER", RCPT_OK, "RCPT<a@b> notify=1\n" },
		{ "RCPT TO:<a@b> NOTIFY=NEVER,DELAY", BAD_VALUE, "" },
		{ "RCPT TO:<a@b> NOTIFY=NEVER NOTIFY=NEVER", BAD_PARAM, "" },
		{ "RCPT TO:<a@b> NOTIFY", BAD_PARAM, "" },
		{ "RCPT TO:<a@b> ORCPT=a@b", BAD_VALUE, "" },
		{ "RCPT TO:<a@b> ORCPT=rfc822;a+0D@b", BAD_VALUE, "" },
		{ "RCPT TO:<a@b> SIZE=1", NO_PARAM, "" },
		{ "RCPT TO:<m\xc3\xbc@b>", "553 5.6.7 Error: non-ASCII address needs SMTPUTF8\n",
		    "" },
		{ "RCPT FROM:<a@b>", "501 5.5.4 Syntax: RCPT TO:<address> [parameters]\n", "" },
		{ "RCPT", "501 5.5.4 Syntax: RCPT TO:<address> [parameters]\n", "" },
		{ "DATA now", "501 5.5.4 Error: this command takes no arguments\n", "" },
		{ "VRFY x", "252 2.0.0 Cannot VRFY user, but will take mail for it if it exists\n",
		    "" },
		{ "VRFY", "501 5.5.4 Syntax: VRFY address [SMTPUTF8]\n", "" },
		{ "EXPN x", "502 5.5.1 Error: command not implemented\n", "" },
		{ "FOO", "500 5.5.2 Error: command not recognized\n", "" },
		{ "LHLO c", "500 5.5.2 Error: command not recognized\n", "" },
		{ "", "500 5.5.2 Error: command not recognized\n", "" },
		{ "GET / HTTP/1.1", "500 5.5.2 Error: this is an SMTP server. Goodbye.\n",
		    "END\nCLOSE\n" },
	};

	(void)state;
	check_lines(&base_policy, "EHLO c\nMAIL FROM:<x@y>\n", CASES(cases));
}

/* --- every command in every state it may meet --- */

static void
command_matrix(void **state)
{
	static const char *const verbs[] = { "EHLO c", "HELO c", "STARTTLS", "AUTH PLAIN",
		"MAIL FROM:<a@b>", "RCPT TO:<a@b>", "DATA", "BDAT 0", "BDAT 0 LAST", "RSET", "NOOP",
		"VRFY x", "HELP", "EXPN x", "FOO", "QUIT" };
	static const struct {
		const char *before;
		unsigned code[16];
		enum smtp_state after[16];
	} rows[] = {
#define R SMTP_READY
#define H SMTP_HELLO
#define M SMTP_MAIL
#define C SMTP_RCPT
#define D SMTP_DATA
#define T SMTP_TLS
#define K SMTP_CHUNKS
#define X SMTP_CLOSED
		{ "",
		    { 250, 250, 220, 503, 250, 503, 503, 503, 503, 250, 250, 252, 214, 502, 500,
			221 },
		    { R, R, T, H, M, H, H, H, H, H, H, H, H, H, H, X } },
		{ "EHLO c\n",
		    { 250, 250, 220, 503, 250, 503, 503, 503, 503, 250, 250, 252, 214, 502, 500,
			221 },
		    { R, R, T, R, M, R, R, R, R, R, R, R, R, R, R, X } },
		{ "EHLO c\nMAIL FROM:<a@b>\n",
		    { 250, 250, 503, 503, 503, 250, 554, 554, 554, 250, 250, 252, 214, 502, 500,
			221 },
		    { R, R, M, M, M, C, M, R, R, R, M, M, M, M, M, X } },
		{ "EHLO c\nMAIL FROM:<a@b>\nRCPT TO:<a@b>\n",
		    { 250, 250, 503, 503, 503, 250, 354, 250, 250, 250, 250, 252, 214, 502, 500,
			221 },
		    { R, R, C, C, C, C, D, K, R, R, C, C, C, C, C, X } },
		{ "EHLO c\nMAIL FROM:<a@b>\nRCPT TO:<a@b>\nBDAT 0\n",
		    { 250, 250, 503, 503, 503, 503, 503, 250, 250, 250, 250, 252, 214, 502, 500,
			221 },
		    { R, R, K, K, K, K, K, K, R, R, K, K, K, K, K, X } },
		{ "EHLO c\nMAIL FROM:<a@b>\nRCPT TO:<a@b>\nDATA\n.\n",
		    { 250, 250, 220, 503, 250, 503, 503, 503, 503, 250, 250, 252, 214, 502, 500,
			221 },
		    { R, R, T, R, M, R, R, R, R, R, R, R, R, R, R, X } },
#undef R
#undef H
#undef M
#undef C
#undef D
#undef T
#undef K
#undef X
	};

	(void)state;
	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
		for (size_t v = 0; v < 16; v++) {
			char name[120], code[4] = { 0 };
			struct owner o;
			struct buf in;
			buf_init(&in, 0);
			snprintf(name, sizeof(name), "%s after %s", verbs[v], rows[r].before);
			owner_open(&o, &base_policy, false);
			expand(rows[r].before, &in);
			feed(&o, buf_slice(&in));
			buf_clear(&o.out);
			feed(&o, slice_str(verbs[v]));
			feed(&o, SLICE_LIT("\r\n"));
			memcpy(code, buf_slice(&o.out).p, 3);
			if ((unsigned)atoi(code) != rows[r].code[v] ||
			    smtp_server_state(o.s) != rows[r].after[v])
				fail_msg("%s: %s, state %s", name, code,
				    smtp_state_name(smtp_server_state(o.s)));
			owner_close(&o);
			buf_free(&in);
		}
	}
}

static void
refused_clients(void **state)
{
	struct owner o;

	(void)state;
	owner_open(&o, &base_policy, false);
	smtp_server_free(&o.s);
	buf_clear(&o.out);
	o.s = smtp_server_new(&base_policy, &ops, &o);
	smtp_server_refuse(o.s, &REPLY(554, "5.7.1", "No mail from you"));
	settle(&o);
	feed(&o, SLICE_LIT("EHLO c\r\nMAIL FROM:<>\r\nFOO\r\nQUIT\r\n"));
	check_text("refused", "replies", &o.out,
	    "554 No mail from you\n503 5.5.1 Error: this server takes no mail from you\n"
	    "503 5.5.1 Error: this server takes no mail from you\n"
	    "503 5.5.1 Error: this server takes no mail from you\n221 2.0.0 Bye\n");
	owner_close(&o);
}

/* --- TLS and AUTH --- */

static void
starttls(void **state)
{
	struct owner o;
	struct smtp_policy p = base_policy;

	(void)state;
	check(&base_policy, "EHLO c\nSTARTTLS\n^TMAIL FROM:<a@b>\nSTARTTLS\nRSET\nSTARTTLS\nNOOP\n",
	    NULL, "TLS\nMAIL<a@b>\nEND\n");
	/* a command in the same segment as STARTTLS must vanish */
	owner_open(&o, &base_policy, false);
	feed(&o, SLICE_LIT("EHLO c\r\nSTARTTLS\r\nMAIL FROM:<evil@x>\r\n"));
	feed(&o, SLICE_LIT("RCPT TO:<evil@x>\r\n"));
	assert_false(smtp_server_wants_input(o.s));
	smtp_server_answer_tls(o.s, true);
	o.pending = NOTHING;
	settle(&o);
	assert_int_equal(smtp_server_state(o.s), SMTP_HELLO);
	assert_true(smtp_server_under_tls(o.s));
	assert_int_equal(smtp_server_hello(o.s).n, 0);
	buf_clear(&o.out);
	feed(&o, SLICE_LIT("RCPT TO:<x@y>\r\nEHLO c\r\n"));
	check_text("after the handshake", "replies", &o.out,
	    "503 5.5.1 Error: need MAIL command\n250-mx.example\n250-PIPELINING\n"
	    "250-SIZE 1000\n250-ENHANCEDSTATUSCODES\n250-8BITMIME\n250-DSN\n250-SMTPUTF8\n"
	    "250-CHUNKING\n250-BINARYMIME\n250 HELP\n");
	check_text("after the handshake", "operations", &o.log, "TLS\n");
	owner_close(&o);
	owner_open(&o, &base_policy, false);
	feed(&o, SLICE_LIT("STARTTLS\r\n"));
	smtp_server_answer_tls(o.s, false);
	assert_int_equal(smtp_server_state(o.s), SMTP_CLOSED);
	o.pending = NOTHING;
	owner_close(&o);
	p.tls_required = true;
	check(&p, "EHLO c\nMAIL FROM:<a@b>\nVRFY x\nNOOP\nSTARTTLS\n^TEHLO c\nMAIL FROM:<a@b>\n",
	    NULL, "TLS\nMAIL<a@b>\nEND\n");
	p.extensions &= ~SMTP_EXT_STARTTLS;
	check(
	    &p, "HELO c\nSTARTTLS\n", "250 mx.example\n502 5.5.1 Error: TLS is not offered\n", "");
}

static struct smtp_policy
submission_policy(void)
{
	struct smtp_policy p = base_policy;

	p.service = SMTP_SUBMISSION;
	p.extensions = SMTP_EXT_ALL;
	p.auth_required = p.tls_required = p.hello_required = true;
	return p;
}

#define EHLO_TLS                                                                                   \
	"250-mx.example\n250-PIPELINING\n250-SIZE 1000\n250-AUTH PLAIN LOGIN\n"                    \
	"250-ENHANCEDSTATUSCODES\n250-8BITMIME\n250-DSN\n250-SMTPUTF8\n250-CHUNKING\n"             \
	"250-BINARYMIME\n250 HELP\n"

static void
auth(void **state)
{
	struct smtp_policy p = submission_policy();

	(void)state;
	check(&p, "HELO c\nAUTH PLAIN AGdvb2Q=\nEHLO c\nAUTH PLAIN AGdvb2Q=\nMAIL FROM:<a@b>\n",
	    NULL, "");
	check(&p,
	    "STARTTLS\n^TEHLO c\nMAIL FROM:<a@b>\nAUTH PLAIN AGdvb2QAeA==\nAUTH PLAIN =\n"
	    "MAIL FROM:<a@b> AUTH=<>\nAUTH PLAIN =\n",
	    "220 2.0.0 Ready to start TLS\n" EHLO_TLS "530 5.7.0 Authentication required\n"
	    "235 2.7.0 Authentication successful\n503 5.5.1 Error: already authenticated\n" MAIL_OK
	    "503 5.5.1 Error: a mail transaction is in progress\n",
	    "TLS\nAUTH PLAIN \\0good\\0x\nMAIL<a@b> auth=<>\nEND\n");
	check(&p, "STARTTLS\n^TEHLO c\nAUTH PLAIN\nAGdvb2QAeA==\n",
	    "220 2.0.0 Ready to start TLS\n" EHLO_TLS "334 \n"
	    "235 2.7.0 Authentication successful\n",
	    "TLS\nAUTH PLAIN\nSTEP \\0good\\0x\n");
	check(&p,
	    "STARTTLS\n^TEHLO c\nAUTH LOGIN\neA==\ngood\nAUTH LOGIN\neA==\ngoodgood\n"
	    "AUTH LOGIN\n*\nAUTH LOGIN\neA\nNOOP\nAUTH PLAIN eA\nAUTH\nAUTH B@D\n"
	    "AUTH ABCDEFGHIJKLMNOPQRSTU\nAUTH PLAIN =\n",
	    "220 2.0.0 Ready to start TLS\n" EHLO_TLS "334 VXNlcm5hbWU6\n334 UGFzc3dvcmQ6\n"
	    "535 5.7.8 Error: authentication failed\n334 VXNlcm5hbWU6\n334 UGFzc3dvcmQ6\n"
	    "535 5.7.8 Error: authentication failed\n334 VXNlcm5hbWU6\n"
	    "501 5.7.0 Authentication cancelled by the client\n334 VXNlcm5hbWU6\n"
	    "501 5.5.2 Error: bad base64 in the response\n250 2.0.0 Ok\n"
	    "501 5.5.2 Error: bad base64 in the initial response\n"
	    "501 5.5.4 Syntax: AUTH mechanism [initial-response]\n"
	    "501 5.5.4 Syntax: AUTH mechanism [initial-response]\n"
	    "501 5.5.4 Syntax: AUTH mechanism [initial-response]\n"
	    "535 5.7.8 Error: authentication failed\n",
	    NULL);
	/* an exchange that the client leaves is ended */
	check(&p, "STARTTLS\n^TEHLO c\nAUTH LOGIN\na^Jb\nNOOP\n",
	    "220 2.0.0 Ready to start TLS\n" EHLO_TLS "334 VXNlcm5hbWU6\n"
	    "550 5.5.2 Error: bare <LF> received: lines end in <CR><LF>\n250 2.0.0 Ok\n",
	    "TLS\nAUTH LOGIN\nCANCEL\n");
}

/* --- limits --- */

static void
repeat(struct buf *out, const char *text, unsigned n)
{
	while (n--)
		buf_add_str(out, text);
}

static unsigned
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

/* Feeds text and returns how often what stands in the replies. */
static unsigned
replies_to(const struct smtp_policy *p, struct buf *text, const char *what, bool *closed_r)
{
	struct owner o;
	unsigned n;

	owner_open(&o, p, false);
	for (size_t at = 0; at < buf_len(text); at += 7) {
		feed(&o, slice_sub(buf_slice(text), at, at + 7));
	}
	n = count(&o.out, what);
	if (closed_r)
		*closed_r = smtp_server_state(o.s) == SMTP_CLOSED;
	owner_close(&o);
	return n;
}

/* What became of single recipients of LMTP is no error of the client; a message for nobody is one.
 */
static void
lmtp_failures(void **state)
{
	struct smtp_policy p = base_policy;
	struct owner o;

	(void)state;
	p.service = SMTP_LMTP;
	owner_open(&o, &p, false);
	feed(&o, SLICE_LIT("LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<full@d>\r\nRCPT TO:<full@d>\r\n"
			   "RCPT TO:<full@d>\r\nDATA\r\nX: perrcpt\r\n.\r\n"));
	assert_int_equal(count(&o.out, "452 4.2.2"), 3);
	assert_int_equal(smtp_server_errors(o.s), 1);
	feed(&o, SLICE_LIT("MAIL FROM:<>\r\nRCPT TO:<full@d>\r\nRCPT TO:<a@d>\r\n"
			   "DATA\r\nX: perrcpt\r\n.\r\n"));
	assert_int_equal(count(&o.out, "452 4.2.2"), 4);
	assert_int_equal(smtp_server_errors(o.s), 0);
	owner_close(&o);
}

static void
recipient_limits(void **state)
{
	struct owner o;

	(void)state;
	owner_open(&o, &base_policy, false);
	feed(&o, SLICE_LIT("HELO c\r\nMAIL FROM:<>\r\n"));
	for (int i = 0; i < 3; i++)
		feed(&o, SLICE_LIT("RCPT TO:<a@b>\r\n"));
	assert_int_equal(count(&o.out, "250 2.1.5"), 3);
	for (int i = 0; i < 2; i++)
		feed(&o, SLICE_LIT("RCPT TO:<a@b>\r\n"));
	assert_int_equal(count(&o.out, "452 4.5.3"), 2);
	assert_int_equal(smtp_server_errors(o.s), 0);
	feed(&o, SLICE_LIT("RCPT TO:<a@b>\r\n"));
	assert_int_equal(smtp_server_errors(o.s), 1);
	feed(&o, SLICE_LIT("DATA\r\nA: b\r\n.\r\n"));
	assert_int_equal(count(&o.out, "250 2.0.0"), 1);
	assert_int_equal(smtp_server_errors(o.s), 0);
	owner_close(&o);
}

/* Errors without end, as the local socket allows them, do not fill memory. */
static void
refused_recipients_are_bounded(void **state)
{
	struct smtp_policy policy = base_policy;
	struct buf line = { 0 };
	struct owner o;

	(void)state;
	policy.hard_error_limit = policy.soft_error_limit = 0;
	buf_add_str(&line, "RCPT TO:<");
	for (int i = 0; i < 250; i++)
		buf_add_byte(&line, 'a');
	buf_add_str(&line, "@b> FOO\r\n");
	owner_open(&o, &policy, false);
	feed(&o, SLICE_LIT("EHLO c\r\nMAIL FROM:<>\r\n"));
	for (int i = 0; i < 10000 && !count(&o.out, "452 4.5.3"); i++) {
		buf_clear(&o.out);
		feed(&o, buf_slice(&line));
	}
	assert_int_equal(count(&o.out, "452 4.5.3"), 1);
	assert_true(smtp_server_tx(o.s)->arena.used < 2 << 20);
	feed(&o, SLICE_LIT("RSET\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n"));
	assert_int_equal(count(&o.out, "250 2.1.5"), 1);
	buf_free(&line);
	owner_close(&o);
}

static void
error_limits(void **state)
{
	struct smtp_policy p = base_policy;
	struct owner o;
	struct buf in;
	bool closed;

	(void)state;
	buf_init(&in, 0);
	repeat(&in, "FOO\r\n", 19);
	repeat(&in, "NOOP\r\n", 1);
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", &closed), 1);
	assert_false(closed);
	buf_clear(&in);
	repeat(&in, "FOO\r\n", 20);
	repeat(&in, "NOOP\r\n", 1);
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", &closed), 0);
	assert_true(closed);
	assert_int_equal(replies_to(&p, &in, "500 5.5.2", NULL), 20);
	assert_int_equal(replies_to(&p, &in, "421 4.7.0", NULL), 1);
	/* junk: 100 commands are free, the next 20 are errors */
	buf_clear(&in);
	repeat(&in, "NOOP\r\n", 119);
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", &closed), 119);
	assert_false(closed);
	repeat(&in, "RSET\r\n", 5);
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", &closed), 120);
	assert_true(closed);
	/* delays from the 11th error on */
	p.error_delay_ms = 1000;
	owner_open(&o, &p, false);
	buf_clear(&in);
	repeat(&in, "FOO\r\n", 10);
	feed(&o, buf_slice(&in));
	assert_int_equal(o.delays, 0);
	smtp_server_feed(o.s, SLICE_LIT("FOO\r\nNOOP\r\n"));
	assert_int_equal(o.delays, 1);
	assert_false(smtp_server_wants_input(o.s));
	assert_int_equal(count(smtp_server_output(o.s), "250"), 0);
	settle(&o);
	assert_int_equal(count(&o.out, "250 2.0.0"), 1);
	owner_close(&o);
	buf_free(&in);
}

static void
line_limits(void **state)
{
	struct smtp_policy p = submission_policy();
	struct owner o;
	struct buf in;

	(void)state;
	buf_init(&in, 0);
	buf_add_str(&in, "NOOP ");
	repeat(&in, "x", 512 - 7);
	buf_add_str(&in, "\r\n");
	assert_int_equal(replies_to(&base_policy, &in, "250 2.0.0", NULL), 1);
	buf_clear(&in);
	buf_add_str(&in, "NOOP ");
	repeat(&in, "x", 512 - 6);
	buf_add_str(&in, "\r\nNOOP\r\n");
	assert_int_equal(replies_to(&base_policy, &in, "500 5.5.2 Error: line too long", NULL), 1);
	assert_int_equal(replies_to(&base_policy, &in, "250 2.0.0", NULL), 1);
	/* discarded input ends the session at its limit */
	buf_clear(&in);
	repeat(&in, "x", 100001);
	p.discard_limit = 100000;
	assert_int_equal(replies_to(&p, &in, "421 4.7.0 Error: too much", NULL), 1);
	/* AUTH lines may be longer */
	owner_open(&o, &p, false);
	feed(&o, SLICE_LIT("STARTTLS\r\n"));
	o.pending = NOTHING;
	smtp_server_answer_tls(o.s, true);
	feed(&o, SLICE_LIT("EHLO c\r\n"));
	buf_clear(&o.out);
	buf_clear(&in);
	buf_add_str(&in, "AUTH PLAIN ");
	repeat(&in, "YWFh", (1024 - 13) / 4);
	buf_add_str(&in, "\r\n");
	feed(&o, buf_slice(&in));
	assert_int_equal(count(&o.out, "535"), 1);
	feed(&o, SLICE_LIT("AUTH LOGIN\r\n"));
	buf_clear(&in);
	repeat(&in, "YWFh", 1024 / 4);
	buf_add_str(&in, "\r\nNOOP\r\n");
	feed(&o, buf_slice(&in));
	assert_int_equal(count(&o.out, "500 5.5.6"), 1);
	assert_int_equal(count(&o.out, "250 2.0.0"), 1);
	owner_close(&o);
	buf_free(&in);
}

static void
begin_data(struct buf *in)
{
	buf_clear(in);
	buf_add_str(in, "HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n");
}

static void
content_limits(void **state)
{
	struct smtp_policy p = base_policy;
	struct buf in;
	bool closed;

	(void)state;
	buf_init(&in, 0);
	begin_data(&in);
	buf_add_str(&in, "A: b\r\n\r\n");
	repeat(&in, "x", 1000 - 10);
	buf_add_str(&in, "\r\n.\r\n");
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", NULL), 1);
	begin_data(&in);
	buf_add_str(&in, "A: b\r\n\r\n");
	repeat(&in, "x", 1000 - 9);
	buf_add_str(&in, "\r\n.\r\nDATA\r\n");
	assert_int_equal(replies_to(&p, &in, "552 5.3.4 Error: message is", NULL), 1);
	assert_int_equal(replies_to(&p, &in, "503 5.5.1", NULL), 1);
	repeat(&in, "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 1002 LAST\r\n\r\n", 1);
	repeat(&in, "x", 1000);
	assert_int_equal(replies_to(&p, &in, "552 5.3.4 Error: message is", NULL), 2);
	begin_data(&in);
	repeat(&in, "Received: x\r\n", 3);
	buf_add_str(&in, ".\r\n");
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", NULL), 1);
	begin_data(&in);
	repeat(&in, "Received: x\r\n", 4);
	buf_add_str(&in, ".\r\n");
	assert_int_equal(replies_to(&p, &in, "554 5.4.6", NULL), 1);
	begin_data(&in);
	repeat(&in, "A: x\r\n", 20);
	buf_add_str(&in, ".\r\n");
	assert_int_equal(replies_to(&p, &in, "250 2.0.0", NULL), 1);
	begin_data(&in);
	repeat(&in, "A: x\r\n", 21);
	buf_add_str(&in, ".\r\n");
	assert_int_equal(replies_to(&p, &in, "552 5.3.4 Error: message header", NULL), 1);
	begin_data(&in);
	repeat(&in, "x", 110000);
	assert_int_equal(replies_to(&p, &in, "421 4.7.0 Error: too much", &closed), 1);
	assert_true(closed);
	buf_clear(&in);
	buf_add_str(&in, "HELO c\r\nBDAT 999999999999\r\n");
	repeat(&in, "x", 100001);
	assert_int_equal(replies_to(&p, &in, "421 4.7.0 Error: too much", NULL), 1);
	buf_free(&in);
}

/* --- what depends on when bytes come --- */

static void
impatient_clients(void **state)
{
	struct smtp_policy p = base_policy;
	struct owner o;

	(void)state;
	p.strict_pipelining = true;
	owner_open(&o, &p, false);
	feed(&o, SLICE_LIT("EHLO c\r\nMAIL FROM:<>\r\n"));
	assert_int_equal(count(&o.out, "554 5.5.0"), 1);
	assert_int_equal(smtp_server_state(o.s), SMTP_CLOSED);
	owner_close(&o);
	owner_open(&o, &p, false);
	feed(&o, SLICE_LIT("EHLO c\r\n"));
	feed(&o, SLICE_LIT("MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<a@b>\r\nDATA\r\n"));
	assert_int_equal(smtp_server_state(o.s), SMTP_DATA);
	owner_close(&o);
	owner_open(&o, &p, false);
	feed(&o, SLICE_LIT("EHLO c\r\n"));
	feed(&o, SLICE_LIT("MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nSubject: x\r\n.\r\n"));
	assert_int_equal(count(&o.out, "554 5.5.0"), 1);
	check_text("data before 354", "operations", &o.log, "MAIL<>\nRCPT<a@b>\nEND\nCLOSE\n");
	owner_close(&o);
	/* before the greeting */
	owner_open(&o, &p, false);
	smtp_server_free(&o.s);
	buf_clear(&o.out);
	o.s = smtp_server_new(&p, &ops, &o);
	feed(&o, SLICE_LIT("EHLO c\r\n"));
	assert_int_equal(buf_len(&o.out), 0);
	smtp_server_greet(o.s, false);
	settle(&o);
	assert_int_equal(count(&o.out, "220 "), 1);
	assert_int_equal(count(&o.out, "554 "), 1);
	owner_close(&o);
}

static void
shutdown_and_failures(void **state)
{
	struct owner o;

	(void)state;
	owner_open(&o, &base_policy, true);
	feed(&o, SLICE_LIT("HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nA: b\r\n"));
	smtp_server_fail_data(o.s, &REPLY(451, "4.3.0", "Queue is gone"));
	feed(&o, SLICE_LIT("x\r\n.\r\nMAIL FROM:<>\r\n"));
	assert_int_equal(count(&o.out, "451 4.3.0 Queue is gone"), 1);
	assert_int_equal(smtp_server_state(o.s), SMTP_MAIL);
	/* an answer after the end is ignored */
	smtp_server_feed(o.s, SLICE_LIT("RCPT TO:<a@b>\r\n"));
	assert_int_equal(o.pending, RCPT_OP);
	smtp_server_shutdown(o.s, &REPLY(421, "4.4.2", "Error: timeout exceeded"));
	smtp_server_answer_rcpt(o.s, NULL);
	smtp_server_answer_commit(o.s, NULL);
	smtp_server_feed(o.s, SLICE_LIT("NOOP\r\n"));
	o.pending = NOTHING;
	settle(&o);
	assert_int_equal(count(&o.out, "421 4.4.2"), 1);
	assert_int_equal(count(&o.out, "250 2.1.5"), 1);
	assert_int_equal(smtp_server_state(o.s), SMTP_CLOSED);
	owner_close(&o);
}

static void
with_words(void **state)
{
	struct smtp_policy p = submission_policy();
	struct owner o;

	(void)state;
	owner_open(&o, &base_policy, false);
	feed(&o, SLICE_LIT("HELO c\r\n"));
	assert_string_equal(smtp_server_with(o.s), "SMTP");
	feed(&o, SLICE_LIT("EHLO c\r\n"));
	assert_string_equal(smtp_server_with(o.s), "ESMTP");
	owner_close(&o);
	owner_open(&o, &p, false);
	feed(&o, SLICE_LIT("STARTTLS\r\n"));
	o.pending = NOTHING;
	smtp_server_answer_tls(o.s, true);
	feed(&o, SLICE_LIT("EHLO c\r\n"));
	feed(&o, SLICE_LIT("AUTH PLAIN AGdvb2QAeA==\r\nMAIL FROM:<a@b>\r\n"));
	assert_string_equal(smtp_server_with(o.s), "ESMTPSA");
	feed(&o, SLICE_LIT("RSET\r\nMAIL FROM:<a@b> SMTPUTF8\r\n"));
	assert_string_equal(smtp_server_with(o.s), "UTF8SMTPSA");
	owner_close(&o);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_message),
		cmocka_unit_test(two_messages),
		cmocka_unit_test(empty_data),
		cmocka_unit_test(chunks),
		cmocka_unit_test(failed_chunks),
		cmocka_unit_test(bare_line_ends),
		cmocka_unit_test(lmtp),
		cmocka_unit_test(mail_parameters),
		cmocka_unit_test(rcpt_parameters),
		cmocka_unit_test(command_matrix),
		cmocka_unit_test(refused_clients),
		cmocka_unit_test(starttls),
		cmocka_unit_test(auth),
		cmocka_unit_test(lmtp_failures),
		cmocka_unit_test(recipient_limits),
		cmocka_unit_test(refused_recipients_are_bounded),
		cmocka_unit_test(error_limits),
		cmocka_unit_test(line_limits),
		cmocka_unit_test(content_limits),
		cmocka_unit_test(impatient_clients),
		cmocka_unit_test(shutdown_and_failures),
		cmocka_unit_test(with_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
