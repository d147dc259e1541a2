/* The server engine: every command in every state, TLS and AUTH, and what depends on when bytes
 * come. */
#include "smtp/server_test_util.h"

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
#define X SMTP_CLOSED
#define M SMTP_MAIL
#define D SMTP_DATA
#define R SMTP_READY
#define H SMTP_HELLO
#define C SMTP_RCPT
#define T SMTP_TLS
#define K SMTP_CHUNKS
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

/* The owner waits for room, and what waits for it goes with the transaction. */
static void
pause_and_failure(void **state)
{
	struct smtp_policy p = base_policy;
	struct owner o;

	(void)state;
	p.mend_bare_lf = true; /* so that the content comes in more than one run */
	owner_open(&o, &p, false);
	feed(&o, SLICE_LIT("EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\n"));
	buf_clear(&o.out);
	o.pauses = true;
	smtp_server_feed(o.s, SLICE_LIT("BDAT 9 LAST\r\na\nb\nc\rd\r\nNOOP\r\n"));
	buf_add(&o.out, buf_slice(smtp_server_output(o.s)));
	check_text("pause", "replies", &o.out,
	    "550 5.5.2 Error: bare <CR> received: lines end in <CR><LF>\n250 2.0.0 Ok\n");
	owner_close(&o);
}

static void
without_tls(void **state)
{
	struct owner o;

	(void)state;
	owner_open(&o, &base_policy, false);
	smtp_server_without_tls(o.s);
	feed(&o, SLICE_LIT("EHLO c\r\nSTARTTLS\r\nMAIL FROM:<a@b>\r\n"));
	assert_int_equal(count(&o.out, "250-STARTTLS"), 0);
	assert_int_equal(count(&o.out, "454 4.7.0"), 1);
	assert_int_equal(count(&o.out, "250 2.1.0 Ok"), 1);
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
		cmocka_unit_test(command_matrix),
		cmocka_unit_test(refused_clients),
		cmocka_unit_test(starttls),
		cmocka_unit_test(auth),
		cmocka_unit_test(impatient_clients),
		cmocka_unit_test(shutdown_and_failures),
		cmocka_unit_test(pause_and_failure),
		cmocka_unit_test(without_tls),
		cmocka_unit_test(with_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
