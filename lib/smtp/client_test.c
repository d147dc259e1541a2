/*
 * Unit tests of the outbound engine: dialogues that read like the wire. Each is run with the
 * server's bytes whole, byte by byte, and cut in two at every place.
 *   S:line    the server says it (lines that follow each other are fed together)
 *   C:line    the next line that the client wrote
 *   E:event   the next event
 *   >action   the driver does something
 */
#include "smtp/client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define R(a)                                                                                       \
	{                                                                                          \
		.address = {(const unsigned char *)(a), sizeof(a) - 1 }                            \
	}

static const struct client_rcpt one[] = { R("a@x.test") };
static const struct client_rcpt three[] = { R("a@x.test"), R("b@x.test"), R("c@x.test") };
static const struct client_rcpt dsn[] = {
	{ .address = { (const unsigned char *)"a@x.test", 8 },
	    .orcpt = { (const unsigned char *)"rfc822;A+40x.test", 17 },
	    .notify = CLIENT_NOTIFY_SUCCESS | CLIENT_NOTIFY_DELAY },
	{ .address = { (const unsigned char *)"b@x.test", 8 },
	    .orcpt = { (const unsigned char *)"rfc822;a b", 10 },
	    .notify = CLIENT_NOTIFY_NEVER },
};
static const struct client_rcpt hostile[] = { R("a>\r\nRSET\r\n@x.test"),
	R("a@x.test> NOTIFY=NEVER"), R("\"a > b\"@x.test"), R("\"a\\\"@x.test"),
	R("\"a\nb\"@x.test"), R("") };
static const struct client_rcpt umlaut[] = { R("\xc3\xbc@x.test"), R("a@x.test") };

static const struct client_message messages[] = {
	{ .sender = { (const unsigned char *)"s@y.test", 8 }, .rcpts = one, .n = 1, .size = 12 },
	{ .sender = { (const unsigned char *)"s@y.test", 8 }, .rcpts = three, .n = 3, .size = 12 },
	{ .rcpts = dsn,
	    .n = 2,
	    .size = 12,
	    .ret = CLIENT_RET_HDRS,
	    .body = CLIENT_BODY_8BIT,
	    .envid = { (const unsigned char *)"id1", 3 } },
	{ .rcpts = hostile, .n = 6, .size = 12 },
	{ .rcpts = umlaut, .n = 2, .size = 12 },
	{ .rcpts = one, .n = 1, .size = 11, .body = CLIENT_BODY_BINARY },
	{ .rcpts = one, .n = 1, .size = 12, .utf8 = true },
	{ .sender = { (const unsigned char *)"s\r\n@y.test", 10 },
	    .rcpts = one,
	    .n = 1,
	    .size = 12 },
};
static const char content[] = "a\r\n.b\r\n..\r\n";

struct dialogue {
	struct client *c;
	struct buf events;
	size_t piece;
};

static const char *const failures[] = { [CLIENT_FAIL_NONE] = "none",
	[CLIENT_FAIL_REPLY] = "reply",
	[CLIENT_FAIL_LOST] = "lost",
	[CLIENT_FAIL_PROTOCOL] = "protocol",
	[CLIENT_FAIL_NO_TLS] = "no-tls",
	[CLIENT_FAIL_AUTH] = "auth" };

static void
note_reply(struct dialogue *d, const struct client_event *ev)
{
	struct slice text = ev->reply.text;

	if (ev->reply.code) {
		buf_addf(&d->events, " %u %s [", ev->reply.code, ev->reply.enhanced);
		for (size_t i = 0; i < text.n; i++)
			buf_add_byte(&d->events, text.p[i] == '\n' ? '/' : text.p[i]);
		buf_add_str(&d->events, "]");
	}
	buf_add_str(&d->events, "\n");
}

static void
give_content(struct dialogue *d)
{
	struct slice s = slice(content, sizeof(content) - 1);

	for (size_t i = 0; i < s.n; i += d->piece)
		client_content(d->c, slice_sub(s, i, i + d->piece));
	client_content_end(d->c);
}

static void
poll_events(struct dialogue *d)
{
	struct client_event ev;

	for (;;) {
		switch (client_next(d->c, &ev)) {
		case CLIENT_NOTHING:
			return;
		case CLIENT_TLS:
			buf_add_str(&d->events, "tls\n");
			break;
		case CLIENT_MECHANISMS:
			buf_addf(&d->events, "mechanisms %.*s\n", SLICE_ARG(ev.data));
			break;
		case CLIENT_CHALLENGE:
			buf_addf(&d->events, "challenge %.*s\n", SLICE_ARG(ev.data));
			break;
		case CLIENT_READY:
			buf_add_str(&d->events, "ready\n");
			break;
		case CLIENT_RESULT:
			buf_addf(&d->events, "result %zu %s%s", ev.rcpt, ev.local ? "local " : "",
			    client_command_str(ev.command));
			note_reply(d, &ev);
			break;
		case CLIENT_CONTENT:
			buf_add_str(&d->events, "content\n");
			give_content(d);
			break;
		case CLIENT_DONE:
			buf_add_str(&d->events, "done\n");
			break;
		case CLIENT_FAILED:
			buf_addf(&d->events, "failed %s%s %s", ev.at_end ? "at-end " : "",
			    failures[ev.failure], client_command_str(ev.command));
			note_reply(d, &ev);
			break;
		case CLIENT_CLOSED:
			buf_add_str(&d->events, "closed\n");
			break;
		}
	}
}

static void
act(struct dialogue *d, const char *action)
{
	if (!strncmp(action, "send ", 5))
		assert_int_equal(client_send(d->c, &messages[action[5] - '0']), 0);
	else if (!strcmp(action, "tls"))
		client_tls_up(d->c);
	else if (!strcmp(action, "plain"))
		client_auth(d->c, "PLAIN", true, SLICE_LIT("\0u\0p"));
	else if (!strcmp(action, "login"))
		client_auth(d->c, "LOGIN", false, SLICE_NULL);
	else if (!strcmp(action, "empty"))
		client_auth(d->c, "EXTERNAL", true, SLICE_NULL);
	else if (!strcmp(action, "long")) {
		static char secret[400];

		memset(secret, 'x', sizeof(secret));
		client_auth(d->c, "PLAIN", true, slice(secret, sizeof(secret)));
	} else if (!strcmp(action, "answer"))
		client_auth(d->c, NULL, true, SLICE_LIT("answer"));
	else if (!strcmp(action, "skip"))
		client_auth_skip(d->c);
	else if (!strcmp(action, "cancel"))
		client_auth_cancel(d->c);
	else if (!strcmp(action, "quit"))
		assert_true(client_quit(d->c));
	else if (!strcmp(action, "no-quit"))
		assert_false(client_quit(d->c));
	else if (!strcmp(action, "eof"))
		client_eof(d->c);
	else
		fail_msg("unknown action %s", action);
	poll_events(d);
}

/* The next line of b must be want. */
static void
want_line(struct buf *b, const char *want, const char *crlf)
{
	struct slice s = buf_slice(b), line = slice_split(&s, '\n');
	size_t n = line.n;

	if (crlf[0] == '\r') {
		assert_true(n && line.p[n - 1] == '\r');
		line.n--;
	}
	if (!slice_eq_str(line, want))
		fail_msg("got %.*s, want %s", SLICE_ARG(line), want);
	buf_consume(b, n + 1);
}

/* cut: feed the server's groups in two pieces, the first of that many bytes; 0: byte by byte.
 * Returns the length of the longest group. */
static size_t
play(const struct client_opts *opts, const char *const *steps, size_t cut)
{
	struct dialogue d = { .c = client_new(opts), .piece = cut ? cut : 1 };
	size_t longest = 0;

	for (size_t i = 0; steps[i]; i++) {
		struct buf group = { 0 };

		for (; steps[i] && !strncmp(steps[i], "S:", 2); i++)
			buf_addf(&group, "%s\r\n", steps[i] + 2);
		if (buf_len(&group)) {
			struct slice s = buf_slice(&group);
			size_t at = 0;

			longest = s.n > longest ? s.n : longest;
			while (at < s.n) {
				size_t n = cut ? (at ? s.n : cut) : at + 1;

				client_feed(d.c, slice_sub(s, at, n));
				poll_events(&d);
				at = n;
			}
			i--;
		} else if (!strncmp(steps[i], "C:", 2)) {
			want_line(client_output(d.c), steps[i] + 2, "\r\n");
		} else if (!strncmp(steps[i], "E:", 2)) {
			want_line(&d.events, steps[i] + 2, "\n");
		} else {
			act(&d, steps[i] + 1);
		}
		buf_free(&group);
	}
	if (buf_len(&d.events))
		fail_msg("left over events: %.*s", SLICE_ARG(buf_slice(&d.events)));
	if (buf_len(client_output(d.c)))
		fail_msg("left over output: %.*s", SLICE_ARG(buf_slice(client_output(d.c))));
	buf_free(&d.events);
	client_free(&d.c);
	return longest;
}

static void
run(struct client_opts opts, const char *const *steps)
{
	size_t longest;

	opts.helo = "me.test";
	longest = play(&opts, steps, 0);
	for (size_t cut = 1; cut <= longest; cut++)
		play(&opts, steps, cut);
}
#define RUN(opts, ...) run((struct client_opts)opts, (const char *const[]){ __VA_ARGS__, NULL })
#define AUTH_AND_TLS                                                                               \
	{                                                                                          \
		.auth = true, .tls_required = true                                                 \
	}
#define NONE                                                                                       \
	{                                                                                          \
		0                                                                                  \
	}

#define GREETED "S:220 x.test ESMTP", "C:EHLO me.test"
#define PIPELINED                                                                                  \
	GREETED, "S:250-x.test hi", "S:250-SIZE 1000", "S:250-8BITMIME", "S:250-DSN",              \
	    "S:250 PIPELINING", "E:ready"

static void
test_steps(void **state)
{
	(void)state;
	RUN(NONE, GREETED, "S:250 x.test", "E:ready", ">send 1", "C:MAIL FROM:<s@y.test>",
	    "S:250 ok", "C:RCPT TO:<a@x.test>", "S:250 ok", "C:RCPT TO:<b@x.test>",
	    "S:550-5.1.1 no", "S:550 5.1.1 such user",
	    "E:result 1 RCPT TO 550 5.1.1 [no/such user]", "C:RCPT TO:<c@x.test>",
	    "S:451 4.7.1 later", "E:result 2 RCPT TO 451 4.7.1 [later]", "C:DATA", "S:354 go",
	    "E:content", "C:a", "C:..b", "C:...", "C:.", "S:250 2.0.0 queued as 1",
	    "E:result 0 end of DATA 250 2.0.0 [queued as 1]", "E:done", ">quit", "C:QUIT",
	    "S:221 bye", "E:closed");
}

static void
test_group(void **state)
{
	(void)state;
	RUN(NONE, PIPELINED, ">send 1", "C:MAIL FROM:<s@y.test> SIZE=12", "C:RCPT TO:<a@x.test>",
	    "C:RCPT TO:<b@x.test>", "C:RCPT TO:<c@x.test>", "C:DATA", "S:250 ok", "S:550 no",
	    "S:250 ok", "S:450 4.2.1 busy", "S:354 go", "E:result 0 RCPT TO 550  [no]",
	    "E:result 2 RCPT TO 450 4.2.1 [busy]", "E:content", "C:a", "C:..b", "C:...", "C:.",
	    "S:554 5.7.1 spam", "E:result 1 end of DATA 554 5.7.1 [spam]", "E:done",
	    /* the next message on the same connection: no RSET after an end of data */
	    ">send 0", "C:MAIL FROM:<s@y.test> SIZE=12", "C:RCPT TO:<a@x.test>", "C:DATA",
	    "S:250 ok", "S:250 ok", "S:354 go", "E:content", "C:a", "C:..b", "C:...", "C:.",
	    "S:250 ok", "E:result 0 end of DATA 250  [ok]", "E:done");
	/* not in a group when that is forbidden */
	RUN({ .no_pipelining = true }, PIPELINED, ">send 0", "C:MAIL FROM:<s@y.test> SIZE=12",
	    "S:250 ok", "C:RCPT TO:<a@x.test>", "S:250 ok", "C:DATA", "S:354 go", "E:content",
	    "C:a", "C:..b", "C:...", "C:.", "S:250 ok", "E:result 0 end of DATA 250  [ok]",
	    "E:done");
}

static void
test_refusals(void **state)
{
	(void)state;
	/* MAIL refused; the rest of the group is refused as well */
	RUN(NONE, PIPELINED, ">send 1", "C:MAIL FROM:<s@y.test> SIZE=12", "C:RCPT TO:<a@x.test>",
	    "C:RCPT TO:<b@x.test>", "C:RCPT TO:<c@x.test>", "C:DATA", "S:550 5.7.1 go away",
	    "S:503 5.5.1 no", "S:503 5.5.1 no", "S:503 5.5.1 no", "S:503 5.5.1 no",
	    "E:result 0 MAIL FROM 550 5.7.1 [go away]", "E:result 1 MAIL FROM 550 5.7.1 [go away]",
	    "E:result 2 MAIL FROM 550 5.7.1 [go away]", "E:done", ">quit", "C:QUIT", "S:221 bye",
	    "E:closed");
	/* all recipients refused, DATA refused: RSET goes with the next message */
	RUN(NONE, PIPELINED, ">send 0", "C:MAIL FROM:<s@y.test> SIZE=12", "C:RCPT TO:<a@x.test>",
	    "C:DATA", "S:250 ok", "S:550 no", "S:554 no valid recipients",
	    "E:result 0 RCPT TO 550  [no]", "E:done", ">send 0", "C:RSET",
	    "C:MAIL FROM:<s@y.test> SIZE=12", "C:RCPT TO:<a@x.test>", "C:DATA", "S:250 ok",
	    "S:250 ok", "S:250 ok", "S:451 4.3.0 no", "E:result 0 DATA 451 4.3.0 [no]", "E:done");
	/* all recipients refused and yet 354: a lone dot */
	RUN(NONE, PIPELINED, ">send 0", "C:MAIL FROM:<s@y.test> SIZE=12", "C:RCPT TO:<a@x.test>",
	    "C:DATA", "S:250 ok", "S:550 no", "S:354 go", "E:result 0 RCPT TO 550  [no]", "C:.",
	    "S:554 nobody", "E:done", ">send 0", "C:MAIL FROM:<s@y.test> SIZE=12",
	    "C:RCPT TO:<a@x.test>", "C:DATA", ">eof", "E:failed lost MAIL FROM");
	/* step by step: no DATA when nobody is left, RSET before the next */
	RUN(NONE, GREETED, "S:250 x.test", "E:ready", ">send 0", "C:MAIL FROM:<s@y.test>",
	    "S:250 ok", "C:RCPT TO:<a@x.test>", "S:550 no", "E:result 0 RCPT TO 550  [no]",
	    "E:done", ">send 0", "C:RSET", "S:250 ok", "C:MAIL FROM:<s@y.test>", "S:452 4.3.1 full",
	    "E:result 0 MAIL FROM 452 4.3.1 [full]", "E:done");
	/* 552 without a code of its own: too many recipients, so try again; a full mailbox stays so
	 */
	RUN(NONE, PIPELINED, ">send 1", "C:MAIL FROM:<s@y.test> SIZE=12", "C:RCPT TO:<a@x.test>",
	    "C:RCPT TO:<b@x.test>", "C:RCPT TO:<c@x.test>", "C:DATA", "S:250 ok", "S:552 many",
	    "S:552 5.5.3 many", "S:552 5.2.2 full", "S:503 no", "E:result 0 RCPT TO 452  [many]",
	    "E:result 1 RCPT TO 452 4.5.3 [many]", "E:result 2 RCPT TO 552 5.2.2 [full]", "E:done");
}

/* RFC 5321 3.1, 3.8: who refused us waits for QUIT, unless it closes (421) or there is no telling.
 */
static void
test_quit_after_refusal(void **state)
{
	const struct client_opts needs_tls = { .tls_required = true };

	(void)state;
	RUN(NONE, "S:554 5.7.1 not you", "E:failed reply connection 554 5.7.1 [not you]", ">quit",
	    "C:QUIT", "S:221 bye", "E:closed");
	RUN(NONE, "S:521 no mail here", "E:failed reply connection 521  [no mail here]", ">quit",
	    "C:QUIT", ">eof", "E:closed");
	RUN(NONE, "S:421 busy", "E:failed reply connection 421  [busy]", ">no-quit");
	RUN(NONE, "S:hello", "E:failed protocol connection", ">no-quit");
	RUN(NONE, ">eof", "E:failed lost connection", ">no-quit");
	RUN(NONE, GREETED, "S:550 a", "C:HELO me.test", "S:550 b", "E:failed reply HELO 550  [b]",
	    ">quit", "C:QUIT", ">no-quit", "S:221 bye", "E:closed", ">no-quit");
	run(needs_tls,
	    (const char *const[]){ GREETED, "S:250 x.test", "E:failed no-tls EHLO 250  [x.test]",
		">quit", "C:QUIT", "S:221 bye", "E:closed", NULL });
	run(needs_tls,
	    (const char *const[]){ GREETED, "S:250-x.test", "S:250 STARTTLS", "C:STARTTLS",
		"S:454 4.7.0 no", "E:failed no-tls STARTTLS 454 4.7.0 [no]", ">quit", "C:QUIT",
		"S:221 bye", "E:closed", NULL });
	/* not in the middle of a message, nor of an exchange of AUTH */
	RUN(NONE, PIPELINED, ">send 0", ">no-quit", "C:MAIL FROM:<s@y.test> SIZE=12",
	    "C:RCPT TO:<a@x.test>", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "E:content",
	    "C:a", "C:..b", "C:...", "C:.", ">no-quit", "S:250 ok",
	    "E:result 0 end of DATA 250  [ok]", "E:done");
	RUN({ .auth = true }, GREETED, "S:250-x.test", "S:250 AUTH PLAIN", "E:mechanisms PLAIN",
	    ">quit", "C:QUIT", "S:221 bye", "E:closed");
	RUN({ .auth = true }, GREETED, "S:250-x.test", "S:250 AUTH LOGIN", "E:mechanisms LOGIN",
	    ">login", "C:AUTH LOGIN", "S:334 VXNlcm5hbWU6", "E:challenge Username:", ">no-quit");
	RUN({ .auth = true }, GREETED, "S:250-x.test", "S:250 AUTH PLAIN", "E:mechanisms PLAIN",
	    ">plain", "C:AUTH PLAIN AHUAcA==", "S:535 5.7.8 no",
	    "E:failed auth AUTH 535 5.7.8 [no]", ">quit", "C:QUIT", "S:221 bye", "E:closed");
}

static void
test_hello(void **state)
{
	(void)state;
	RUN(NONE, GREETED, "S:502 what", "C:HELO me.test", "S:250 x", "E:ready");
	RUN(NONE, GREETED, "S:502 what", "C:HELO me.test", "S:550 no",
	    "E:failed reply HELO 550  [no]");
	RUN(NONE, GREETED, "S:451 4.3.0 later", "E:failed reply EHLO 451 4.3.0 [later]");
	RUN(NONE, "S:554 5.7.1 no", "E:failed reply connection 554 5.7.1 [no]");
	RUN(NONE, "S:421 4.3.2 busy", "E:failed reply connection 421 4.3.2 [busy]");
	RUN(NONE, "S:220-a", "S:220-", "S:220 b", "C:EHLO me.test", ">eof", "E:failed lost EHLO");
	RUN({ .lmtp = true }, "S:220 x", "C:LHLO me.test", "S:502 no",
	    "E:failed reply EHLO 502  [no]");
	/* no SMTP at all */
	RUN(NONE, "S:HTTP/1.0 400 Bad", "E:failed protocol connection");
	RUN(NONE, "S:220-a", "S:250 b", "E:failed protocol connection");
	RUN(NONE, "S:2200 a", "E:failed protocol connection");
	RUN(NONE, "S:120 a", "E:failed protocol connection");
	RUN(NONE, "S:", "E:failed protocol connection");
	/* a reply that nobody asked for */
	RUN(NONE, PIPELINED, "S:421 4.4.2 idle too long",
	    "E:failed reply no command 421 4.4.2 [idle too long]");
	RUN(NONE, PIPELINED, ">eof", "E:failed lost no command");
	RUN(NONE, PIPELINED, ">quit", "C:QUIT", ">eof", "E:closed");
}

static void
test_lost(void **state)
{
	(void)state;
	RUN(NONE, PIPELINED, ">send 0", "C:MAIL FROM:<s@y.test> SIZE=12", "C:RCPT TO:<a@x.test>",
	    "C:DATA", "S:250 ok", "S:421 4.3.2 closing",
	    "E:failed reply RCPT TO 421 4.3.2 [closing]");
	RUN(NONE, PIPELINED, ">send 0", "C:MAIL FROM:<s@y.test> SIZE=12", "C:RCPT TO:<a@x.test>",
	    "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "E:content", "C:a", "C:..b", "C:...",
	    "C:.", ">eof", "E:failed at-end lost end of DATA");
	/* 421 in place of the last reply: a result, then the end */
	RUN(NONE, PIPELINED, ">send 0", "C:MAIL FROM:<s@y.test> SIZE=12", "C:RCPT TO:<a@x.test>",
	    "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "E:content", "C:a", "C:..b", "C:...",
	    "C:.", "S:421 4.3.0 down", "E:result 0 end of DATA 421 4.3.0 [down]", "E:done",
	    "E:failed reply end of DATA 421 4.3.0 [down]");
	RUN(NONE, PIPELINED, ">send 0", "C:MAIL FROM:<s@y.test> SIZE=12", "C:RCPT TO:<a@x.test>",
	    "C:DATA", "S:250 ok", "S:250 ok", "S:250 what", "E:failed protocol DATA");
}

#define LMTP "S:220 x", "C:LHLO me.test", "S:250-x", "S:250 PIPELINING", "E:ready"

static void
test_lmtp(void **state)
{
	(void)state;
	RUN({ .lmtp = true }, LMTP, ">send 1", "C:MAIL FROM:<s@y.test>", "C:RCPT TO:<a@x.test>",
	    "C:RCPT TO:<b@x.test>", "C:RCPT TO:<c@x.test>", "C:DATA", "S:250 ok", "S:250 ok",
	    "S:550 no", "S:250 ok", "S:354 go", "E:result 1 RCPT TO 550  [no]", "E:content", "C:a",
	    "C:..b", "C:...", "C:.", "S:250 ok", "S:452 4.2.2 full",
	    "E:result 0 end of DATA 250  [ok]", "E:result 2 end of DATA 452 4.2.2 [full]", "E:done",
	    ">send 0", "C:MAIL FROM:<s@y.test>", "C:RCPT TO:<a@x.test>", "C:DATA", "S:250 ok",
	    "S:550 no", "S:503 no", "E:result 0 RCPT TO 550  [no]", "E:done");
	RUN({ .lmtp = true }, LMTP, ">send 1", "C:MAIL FROM:<s@y.test>", "C:RCPT TO:<a@x.test>",
	    "C:RCPT TO:<b@x.test>", "C:RCPT TO:<c@x.test>", "C:DATA", "S:250 ok", "S:250 ok",
	    "S:250 no", "S:250 ok", "S:354 go", "E:content", "C:a", "C:..b", "C:...", "C:.",
	    "S:250 ok", "E:result 0 end of DATA 250  [ok]", ">eof",
	    "E:failed at-end lost end of DATA");
}

static void
test_starttls(void **state)
{
	(void)state;
	RUN({ .tls = true }, GREETED, "S:250-x", "S:250-PIPELINING", "S:250 STARTTLS", "C:STARTTLS",
	    "S:220 go", "E:tls", ">tls", "C:EHLO me.test", "S:250-x", "S:250 STARTTLS", "E:ready",
	    ">send 0", "C:MAIL FROM:<s@y.test>", ">eof", "E:failed lost MAIL FROM");
	RUN({ .tls = true }, GREETED, "S:250-x", "S:250 STARTTLS", "C:STARTTLS", "S:454 4.7.0 no",
	    "E:ready");
	RUN({ .tls = true }, GREETED, "S:250 x", "E:ready");
	RUN({ .tls_required = true }, GREETED, "S:250 x", "E:failed no-tls EHLO 250  [x]");
	RUN({ .tls_required = true }, GREETED, "S:500 x", "C:HELO me.test", "S:250 x",
	    "E:failed no-tls HELO 250  [x]");
	RUN({ .tls_required = true }, GREETED, "S:250-x", "S:250 STARTTLS", "C:STARTTLS",
	    "S:454 4.7.0 no", "E:failed no-tls STARTTLS 454 4.7.0 [no]");
	/* an old server under TLS is no reason to go back */
	RUN({ .tls = true }, GREETED, "S:250-x", "S:250 STARTTLS", "C:STARTTLS", "S:220 go",
	    "E:tls", ">tls", "C:EHLO me.test", "S:502 no", "E:failed reply EHLO 502  [no]");
}

/* A reply that stands behind the answer to STARTTLS, at every cut. */
static void
test_injection(void **state)
{
	static const struct client_opts opts = { .helo = "me", .tls = true };
	struct slice s = SLICE_LIT("220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n250 x\r\n");

	(void)state;
	for (size_t cut = 0; cut <= s.n; cut++) {
		struct dialogue d = { .c = client_new(&opts) };

		client_feed(d.c, slice_sub(s, 0, cut));
		poll_events(&d);
		client_feed(d.c, slice_sub(s, cut, s.n));
		poll_events(&d);
		/* all at once, it already stands behind the answer to EHLO */
		assert_true(slice_has_suffix(buf_slice(&d.events), "failed protocol STARTTLS\n") ||
			    slice_has_suffix(buf_slice(&d.events), "failed protocol EHLO\n"));
		buf_free(&d.events);
		client_free(&d.c);
	}
}

/* A reply ahead of its command would be taken for that to MAIL. */
static void
test_reply_ahead(void **state)
{
	static const struct client_opts opts = { .helo = "me" };
	struct dialogue d = { .c = client_new(&opts) };

	(void)state;
	client_feed(d.c, SLICE_LIT("220 x\r\n"));
	poll_events(&d);
	client_feed(d.c, SLICE_LIT("250 x\r\n250 ahead\r\n"));
	poll_events(&d);
	assert_true(slice_has_suffix(buf_slice(&d.events), "failed protocol EHLO\n"));
	buf_free(&d.events);
	client_free(&d.c);
}

#define AUTH_OFFERED                                                                               \
	GREETED, "S:250-x", "S:250-AUTH=LOGIN", "S:250 AUTH plain LOGIN bad/mech",                 \
	    "E:mechanisms LOGIN PLAIN LOGIN"

static void
test_auth(void **state)
{
	(void)state;
	RUN({ .auth = true }, AUTH_OFFERED, ">plain", "C:AUTH PLAIN AHUAcA==", "S:235 2.7.0 ok",
	    "E:ready");
	RUN({ .auth = true }, AUTH_OFFERED, ">plain", "C:AUTH PLAIN AHUAcA==", "S:535 5.7.8 no",
	    "E:failed auth AUTH 535 5.7.8 [no]");
	RUN({ .auth = true }, AUTH_OFFERED, ">login", "C:AUTH LOGIN", "S:334 VXNlcm5hbWU6",
	    "E:challenge Username:", ">answer", "C:YW5zd2Vy", "S:334 ", "E:challenge ", ">cancel",
	    "C:*", "S:501 5.7.0 ok", "E:failed auth AUTH 501 5.7.0 [ok]");
	RUN({ .auth = true }, AUTH_OFFERED, ">login", "C:AUTH LOGIN", "S:334 !!", "C:*", "S:501 x",
	    "E:failed auth AUTH 501  [x]");
	RUN({ .auth = true }, AUTH_OFFERED, ">cancel", "E:failed auth EHLO");
	RUN({ .auth = true }, AUTH_OFFERED, ">empty", "C:AUTH EXTERNAL =", "S:235 ok", "E:ready");
	RUN({ .auth = true }, AUTH_OFFERED, ">long", "C:AUTH PLAIN", ">eof", "E:failed lost AUTH");
	RUN({ .auth = true }, GREETED, "S:250 x", "E:mechanisms ", ">skip", "E:ready");
	RUN(AUTH_AND_TLS, GREETED, "S:250-x", "S:250 AUTH PLAIN",
	    "E:failed no-tls EHLO 250  [x/AUTH PLAIN]");
}

static void
test_extensions(void **state)
{
	(void)state;
	RUN(NONE, PIPELINED, ">send 2", "C:MAIL FROM:<> SIZE=12 BODY=8BITMIME RET=HDRS ENVID=id1",
	    "C:RCPT TO:<a@x.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;A+40x.test",
	    "C:RCPT TO:<b@x.test> NOTIFY=NEVER", "C:DATA", ">eof", "E:failed lost MAIL FROM");
	RUN(NONE, GREETED, "S:250-x", "S:250 8BITMIME", "E:ready", ">send 2",
	    "C:MAIL FROM:<> BODY=8BITMIME", "S:250 ok", "C:RCPT TO:<a@x.test>", ">eof",
	    "E:failed lost RCPT TO");
	RUN(NONE, GREETED, "S:250-x", "S:250 SIZE 11", "E:ready", ">send 0",
	    "E:result 0 local MAIL FROM 552 5.3.4 [message of 12 bytes exceeds the server's size "
	    "limit of 11 bytes]",
	    "E:done", ">quit", "C:QUIT", "S:221 x", "E:closed");
	RUN(NONE, GREETED, "S:250-x", "S:250 SIZE 12", "E:ready", ">send 0",
	    "C:MAIL FROM:<s@y.test> SIZE=12");
	RUN(NONE, GREETED, "S:250-x", "S:250 SIZE 0", "E:ready", ">send 0",
	    "C:MAIL FROM:<s@y.test> SIZE=12");
	RUN(NONE, GREETED, "S:250 x", "E:ready", ">send 2",
	    "E:result 0 local MAIL FROM 554 5.6.3 [message has 8-bit content, and the server does "
	    "not offer 8BITMIME]",
	    "E:result 1 local MAIL FROM 554 5.6.3 [message has 8-bit content, and the server does "
	    "not offer 8BITMIME]",
	    "E:done");
	RUN(NONE, GREETED, "S:250-x", "S:250 SMTPUTF8", "E:ready", ">send 6",
	    "C:MAIL FROM:<> SMTPUTF8");
	RUN(NONE, GREETED, "S:250 x", "E:ready", ">send 6",
	    "E:result 0 local MAIL FROM 553 5.6.7 [message or addresses need SMTPUTF8, which the "
	    "server does not "
	    "offer]",
	    "E:done");
	RUN(NONE, PIPELINED, ">send 4",
	    "E:result 0 local RCPT TO 553 5.6.7 [recipient address needs SMTPUTF8, which the "
	    "server does not offer]",
	    "C:MAIL FROM:<> SIZE=12", "C:RCPT TO:<a@x.test>", "C:DATA");
}

static void
test_binary(void **state)
{
	(void)state;
	RUN(NONE, GREETED, "S:250-x", "S:250-PIPELINING", "S:250-CHUNKING", "S:250 BINARYMIME",
	    "E:ready", ">send 5", "C:MAIL FROM:<> BODY=BINARYMIME", "C:RCPT TO:<a@x.test>",
	    "S:250 ok", "S:250 ok", "E:content", "C:BDAT 11 LAST", "C:a", "C:.b", "C:..",
	    "S:250 ok", "E:result 0 end of DATA 250  [ok]", "E:done");
	RUN(NONE, GREETED, "S:250-x", "S:250-PIPELINING", "S:250-CHUNKING", "S:250 BINARYMIME",
	    "E:ready", ">send 5", "C:MAIL FROM:<> BODY=BINARYMIME", "C:RCPT TO:<a@x.test>",
	    "S:250 ok", "S:550 no", "E:result 0 RCPT TO 550  [no]", "E:done", ">send 0", "C:RSET",
	    "C:MAIL FROM:<s@y.test>", "C:RCPT TO:<a@x.test>", "C:DATA");
	RUN(NONE, GREETED, "S:250-x", "S:250 BINARYMIME", "E:ready", ">send 5",
	    "E:result 0 local MAIL FROM 554 5.6.3 [message is BODY=BINARYMIME, which the server "
	    "does not offer]",
	    "E:done");
}

static void
test_hostile_addresses(void **state)
{
	(void)state;
#define BAD " local RCPT TO 553 5.1.3 [recipient address cannot be sent over SMTP]"
	RUN(NONE, GREETED, "S:250-x", "S:250 PIPELINING", "E:ready", ">send 3", "E:result 0" BAD,
	    "E:result 1" BAD, "E:result 3" BAD, "E:result 4" BAD, "E:result 5" BAD,
	    "C:MAIL FROM:<>", "C:RCPT TO:<\"a > b\"@x.test>", "C:DATA");
	RUN(NONE, PIPELINED, ">send 7",
	    "E:result 0 local MAIL FROM 553 5.1.7 [sender address cannot be sent over SMTP]",
	    "E:done");
}

/* --- content --- */

static void
check_content(const char *in, size_t n, const char *want)
{
	static const struct client_opts opts = { .helo = "me" };

	for (size_t piece = 1; piece <= n + 1; piece++) {
		struct client *c = client_new(&opts);
		struct client_event ev;

		client_feed(c, SLICE_LIT("220 x\r\n250 x\r\n"));
		while (client_next(c, &ev) != CLIENT_NOTHING)
			;
		assert_int_equal(client_send(c, &messages[0]), 0);
		client_feed(c, SLICE_LIT("250 x\r\n250 x\r\n354 x\r\n"));
		while (client_next(c, &ev) != CLIENT_CONTENT)
			;
		buf_clear(client_output(c));
		for (size_t i = 0; i < n; i += piece)
			client_content(c, slice_sub(slice(in, n), i, i + piece));
		client_content_end(c);
		if (!slice_eq_str(buf_slice(client_output(c)), want))
			fail_msg("piece %zu: got %.*s, want %s", piece,
			    SLICE_ARG(buf_slice(client_output(c))), want);
		client_free(&c);
	}
}

static void
test_content(void **state)
{
	(void)state;
#define CHECK(in, want) check_content(in, sizeof(in) - 1, want)
	CHECK("", ".\r\n");
	CHECK("a\r\n", "a\r\n.\r\n");
	CHECK("a", "a\r\n.\r\n");
	CHECK(".", "..\r\n.\r\n");
	CHECK(".\r\n.\r\n", "..\r\n..\r\n.\r\n");
	CHECK("a.\r\n..b\r\n", "a.\r\n...b\r\n.\r\n");
	CHECK("\r\n.\r\n", "\r\n..\r\n.\r\n");
	/* smuggling: nothing but CRLF ends a line, whatever the content holds */
	CHECK("a\n.\n", "a\r\n..\r\n.\r\n");
	CHECK("a\n.\r\nb", "a\r\n..\r\nb\r\n.\r\n");
	CHECK("a\r.\r\n", "a .\r\n.\r\n");
	CHECK("a\r\n.\r", "a\r\n.. \r\n.\r\n");
	CHECK("a\r\r\n.\r\n", "a \r\n..\r\n.\r\n");
	CHECK("\r", " \r\n.\r\n");
	CHECK("\r\r\n\n\r", " \r\n\r\n \r\n.\r\n");
}

/* --- replies --- */

static int
read_reply(struct slice in, struct client_reply *reply)
{
	static struct client_reply_reader r;

	client_reply_free(&r);
	return client_reply_read(&r, &in, reply);
}

static void
test_reply(void **state)
{
	struct client_reply r;
	struct buf b = { 0 };

	(void)state;
	assert_int_equal(read_reply(SLICE_LIT("250\r\n"), &r), 1);
	assert_int_equal(r.code, 250);
	assert_int_equal(r.text.n, 0);
	assert_int_equal(read_reply(SLICE_LIT("550 5.1.1\n"), &r), 1);
	assert_string_equal(r.enhanced, "5.1.1");
	assert_int_equal(read_reply(SLICE_LIT("550 5.7.509 a\tb\0c\x1b\r\n"), &r), 1);
	assert_string_equal(r.enhanced, "5.7.509");
	assert_true(slice_eq_str(r.text, "a b?c?"));
	assert_int_equal(read_reply(SLICE_LIT("250 2.1.0 \xc3\xbc \r\n"), &r), 1);
	assert_true(slice_eq_str(r.text, "\xc3\xbc "));
	assert_int_equal(read_reply(SLICE_LIT("250 \xc3 x\r\n"), &r), 1);
	assert_true(slice_eq_str(r.text, "? x"));
	static const char *const not_enhanced[] = { "550 4.1.1 x\n", "550 5.1. x\n",
		"550 5.1.1234 x\n", "550 5.1.1x\n", "550 5.\n", "354 3.0.0 x\n",
		"550 5.1234.1 x\n" };

	for (size_t i = 0; i < sizeof(not_enhanced) / sizeof(*not_enhanced); i++) {
		assert_int_equal(read_reply(slice_str(not_enhanced[i]), &r), 1);
		assert_string_equal(r.enhanced, "");
	}
	/* limits, at the limit and one past it */
	for (int extra = 0; extra < 2; extra++) {
		buf_clear(&b);
		buf_add_str(&b, "250 ");
		while (buf_len(&b) < (size_t)CLIENT_REPLY_LINE_MAX + (size_t)extra)
			buf_add_byte(&b, 'x');
		buf_add_str(&b, "\n");
		assert_int_equal(read_reply(buf_slice(&b), &r), extra ? ERR_LIMIT : 1);
		buf_clear(&b);
		for (int i = 1; i < CLIENT_REPLY_LINES_MAX + extra; i++)
			buf_add_str(&b, "250-x\n");
		buf_add_str(&b, "250 x\n");
		assert_int_equal(read_reply(buf_slice(&b), &r), extra ? ERR_LIMIT : 1);
	}
	buf_clear(&b);
	for (int i = 0; i < 20; i++)
		buf_addf(&b, "250-%03000d\n", 0);
	assert_int_equal(read_reply(buf_slice(&b), &r), ERR_LIMIT);
	buf_free(&b);
	read_reply(SLICE_LIT("250 x\n"), &r);
	assert_int_equal(read_reply(SLICE_NULL, &r), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_steps),
		cmocka_unit_test(test_group),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_quit_after_refusal),
		cmocka_unit_test(test_hello),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_lmtp),
		cmocka_unit_test(test_starttls),
		cmocka_unit_test(test_reply_ahead),
		cmocka_unit_test(test_injection),
		cmocka_unit_test(test_auth),
		cmocka_unit_test(test_extensions),
		cmocka_unit_test(test_binary),
		cmocka_unit_test(test_hostile_addresses),
		cmocka_unit_test(test_content),
		cmocka_unit_test(test_reply),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
