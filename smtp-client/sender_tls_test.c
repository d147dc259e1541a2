/* Tests of the sender as a whole: TLS and logins. */
#include "smtp-client/sender_test_util.h"

static void
test_tls(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START_TLS(w, HELLO, "S:250 STARTTLS", "C:STARTTLS", "S:220 go", "T", "C:EHLO", "S:250-x",
	    "S:250 PIPELINING", TAKE, TAKE);
	for (int i = 0; i < 2; i++) {
		send_one(w, (struct job_opts){ 0 });
		check(w, 0, RESULT_DONE, "2.0.0", "taken");
		assert_non_null(strstr(w->tls, "TLSv1.3 with "));
	}
	server_join(&w->server);
	world_free(w);
}

/* TLS from the first byte; the greeting may come in one packet with the end of the handshake. */
static void
test_wrapper(void **state)
{
	struct world *w = world_new("smtp_tls_wrappermode = yes\nsmtp_tls_security_level = "
				    "encrypt\nsmtp_connection_cache_time_limit = 0s\n");

	(void)state;
	START_TLS(w, "T", GROUP, TAKE, "X", "A", "T", GROUP, TAKE, "X", "A", "T", GROUP, TAKE, "X",
	    "A", "T", GROUP, TAKE);
	for (int i = 0; i < 4; i++) {
		send_one(w, (struct job_opts){ 0 });
		check(w, 0, RESULT_DONE, "2.0.0", "taken");
	}
	server_join(&w->server);
	world_free(w);
}

static void
test_tls_fails(void **state)
{
	struct world *w = world_new("");

	(void)state;
	/* may: the same host again, in the clear */
	START(w, HELLO, "S:250 STARTTLS", "C:STARTTLS", "S:220 go", "W:50", "G", "X", "A", HELLO,
	    "S:250-STARTTLS", "S:250 PIPELINING", TAKE);
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	assert_string_equal(w->tls, "");
	server_join(&w->server);
	world_free(w);

	w = world_new("smtp_tls_security_level = encrypt\n");
	START(w, HELLO, "S:250 STARTTLS", "C:STARTTLS", "S:220 go", "W:50", "G", "X");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.7.5", "TLS with mx0.test");
	server_join(&w->server);
	world_free(w);

	w = world_new("smtp_tls_security_level = encrypt\n");
	START(w, GROUP, "X");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.7.4", "does not offer it");
	server_join(&w->server);
	world_free(w);
}

static void
test_verify(void **state)
{
	struct world *w = world_new("smtp_tls_security_level = verify\n");

	(void)state;
	/* a certificate that no authority has signed */
	START_TLS(w, HELLO, "S:250 STARTTLS", "C:STARTTLS", "S:220 go", "T");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.7.5", "TLS with mx0.test");
	pthread_join(w->server.thread, NULL);
	close(w->server.listener);
	tls_ctx_free(&w->server.ctx);
	buf_free(&w->server.in);
	world_free(w);
}

static void
test_auth(void **state)
{
	struct world *w = world_new("smtp_sasl_auth_enable = yes\n");

	(void)state;
	START_TLS(w, HELLO, "S:250 STARTTLS", "C:STARTTLS", "S:220 go", "T", "C:EHLO", "S:250-x",
	    "S:250-PIPELINING", "S:250 AUTH PLAIN",
	    "C:AUTH PLAIN AHVzZXIAcGFzcw==", "S:235 2.7.0 hello", TAKE, TAKE);
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	send_one(w, (struct job_opts){ 0 });
	server_join(&w->server);
	idle(w, 20);
	assert_int_equal(w->auth_requests, 1);
	assert_int_equal(w->auth_ends, 1);
	world_free(w);
}

static void
test_auth_refusals(void **state)
{
	struct world *w = world_new("smtp_sasl_auth_enable = yes\n");

	(void)state;
	/* there is a password, and no TLS for it: not one byte of it goes out */
	START(w, HELLO, "S:250 AUTH PLAIN", "C:QUIT", "S:221 bye");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.7.8", "the password needs TLS");
	server_join(&w->server);
	idle(w, 20);
	assert_int_equal(w->auth_ends, 1);
	world_free(w);

	/* no password for this destination: as without */
	w = world_new("smtp_sasl_auth_enable = yes\n");
	w->auth_status = 1;
	START(w, HELLO, "S:250-AUTH PLAIN", "S:250 PIPELINING", TAKE);
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	server_join(&w->server);
	world_free(w);

	w = world_new("smtp_sasl_auth_enable = yes\nsmtp_sasl_tls_security_level = may\n");
	START(w, HELLO, "S:250 AUTH PLAIN", "C:AUTH PLAIN", "S:535 5.7.8 wrong", "C:QUIT",
	    "S:221 bye");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.7.8", "the server says: wrong");
	server_join(&w->server);
	idle(w, 20);
	assert_int_equal(w->auth_ends, 1);
	world_free(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_wrapper),
		cmocka_unit_test(test_tls_fails),
		cmocka_unit_test(test_verify),
		cmocka_unit_test(test_auth),
		cmocka_unit_test(test_auth_refusals),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
