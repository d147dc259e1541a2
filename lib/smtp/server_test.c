/* The server engine: the ways of a message and its parameters, as transcripts, each fed whole, at
 * every split and byte by byte, with operations answered at once and later. */
#include "smtp/server_test_util.h"

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
	    UP_TO_RCPT
	    "354 End data with <CR><LF>.<CR><LF>\n"
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
	    UP_TO_RCPT "354 End data with <CR><LF>.<CR><LF>\n"
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
	    UP_TO_RCPT "250 2.0.0 Ok\n250 2.0.0 Ok\n"
		       "250 2.0.0 Ok\n250 2.1.0 Ok\n250 2.1.5 Ok\n250 2.0.0 Ok\n250 2.0.0 Ok\n",
	    "MAIL<>\nRCPT<c@d>\nCOMMIT 1 A: b\\r\\n\\r\\n.\\r\\n.\\r\\n\nEND\n"
	    "MAIL<>\nRCPT<c@d>\nCOMMIT 1 A: b\\r\\n\nEND\n");
	check(&base_policy, "HELO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nBDAT 4 LAST\nA: bNOOP\n",
	    UP_TO_RCPT "250 2.0.0 Ok\n250 2.0.0 Ok\n",
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
	    UP_TO_RCPT "550 5.5.2 Error: bare <LF> received: lines end in <CR><LF>\n"
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
	    UP_TO_RCPT "452 4.3.1 Queue is full\n250 2.1.0 Ok\n",
	    "MAIL<full@x>\nRCPT<c@d>\nEND\nMAIL<>\nEND\n");
	check(&base_policy, "HELO c\nMAIL FROM:<full@x>\nRCPT TO:<c@d>\nDATA\nDATA\n",
	    UP_TO_RCPT "452 4.3.1 Queue is full\n"
		       "503 5.5.1 Error: need RCPT command\n",
	    "MAIL<full@x>\nRCPT<c@d>\nEND\n");
	check(&base_policy,
	    "HELO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nBDAT 2\n\nMAIL FROM:<>\nRCPT TO:<x@y>\nDATA\n"
	    "RSET\nDATA\n",
	    UP_TO_RCPT "250 2.0.0 Ok\n"
		       "503 5.5.1 Error: BDAT is in progress: end it with LAST or RSET\n"
		       "503 5.5.1 Error: BDAT is in progress: end it with LAST or RSET\n"
		       "503 5.5.1 Error: BDAT is in progress: end it with LAST or RSET\n"
		       "250 2.0.0 Ok\n503 5.5.1 Error: need RCPT command\n",
	    "MAIL<>\nRCPT<c@d>\nEND\n");
	check(&base_policy, "HELO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nBDAT x\nMAIL FROM:<>\n",
	    UP_TO_RCPT "501 5.5.4 Syntax: BDAT count [LAST]; cannot go on after this\n",
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
		    UP_TO_RCPT
		    "354 End data with <CR><LF>.<CR><LF>\n"
		    "550 5.5.2 Error: bare <LF> received: lines end in <CR><LF>\n250 2.0.0 Ok\n",
		    "MAIL<>\nRCPT<c@d>\nEND\n");
		snprintf(text, sizeof(text),
		    "HELO c\nMAIL FROM:<>\nRCPT TO:<c@d>\nDATA\n%sMAIL FROM:<evil@x>\n.\nNOOP\n",
		    cr[i]);
		check(&base_policy, text,
		    UP_TO_RCPT
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
