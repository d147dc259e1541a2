/* Unit tests of the client engine: dialogues of a session and of its transactions. */
#include "smtp/client_test_util.h"

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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
