/* Tests of the sender as a whole: messages, results, and the hosts that are tried. */
#include "smtp-client/sender_test_util.h"

static void
test_send_and_reuse(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, GROUP, TAKE, TAKE, "C:QUIT", "S:221 bye");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "250 2.0.0 taken");
	assert_non_null(strstr(w->remote, "mx0.test[127.0.0.1]:"));
	assert_string_equal(w->result[0].remote, w->remote);
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	assert_int_equal(w->mx_requests, 1);
	idle(w, 2200); /* smtp_connection_cache_time_limit */
	server_join(&w->server);
	assert_int_equal(w->server.connections, 1);
	assert_true(slice_eq_str(buf_slice(&w->server.content),
	    "Subject: x\r\n\r\n..dot\r\nSubject: x\r\n\r\n..dot\r\nSubject: x\r\n\r\n..dot\r\n"));
	world_free(w);
}

static void
test_results_per_recipient(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:RCPT", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok",
	    "S:550-5.1.1 no such", "S:550 5.1.1 user", "S:451 later", "S:354 go", "D", "S:250 ok");
	send_one(w, (struct job_opts){ .rcpts = 3 });
	check(w, 0, RESULT_DONE, "2.0.0", "250 ok");
	check(w, 1, RESULT_FAILED, "5.1.1", "550 5.1.1 no such user (in reply to RCPT TO)");
	check(w, 2, RESULT_DEFERRED, "4.0.0", "451 later (in reply to RCPT TO)");
	server_join(&w->server);
	world_free(w);
}

/* A server with DSN takes the notices over with the message. */
static void
test_dsn(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, HELLO, "S:250-DSN", "S:250 PIPELINING", TAKE);
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_PASSED, "2.0.0", "taken");
	server_join(&w->server);
	world_free(w);
}

static void
test_next_host(void **state)
{
	struct world *w = world_new("smtp_mx_session_limit = 3\n");
	struct server busy;

	(void)state;
	/* nobody listens at the first, the second is busy, the third takes it */
	w->addresses[0] = "127.0.0.9";
	w->addresses[1] = "127.0.0.2";
	w->addresses[2] = "127.0.0.1";
	server_listen(&busy, "127.0.0.2", w->server.port);
	server_start(&busy, SCRIPT("S:421 4.3.2 busy", "X"), SLICE_NULL);
	START(w, GROUP, TAKE);
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	assert_non_null(strstr(w->remote, "mx2.test[127.0.0.1]"));
	server_join(&busy);
	server_join(&w->server);
	world_free(w);
}

static void
test_no_host(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, "S:554 5.7.1 not you", "C:QUIT", "S:221 bye");
	w->addresses[1] = "127.0.0.9";
	send_one(w, (struct job_opts){ .rcpts = 2 });
	check(w, 0, RESULT_UNREACHED, "4.4.1", "connect to mx1.test[127.0.0.9]:");
	check(w, 1, RESULT_UNREACHED, "4.4.1", "Connection refused");
	server_join(&w->server);
	world_free(w);
}

static void
test_hello_refused(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, "S:220 x", "C:EHLO", "S:550 5.7.1 go away", "C:HELO", "S:550 5.7.1 go away",
	    "C:QUIT", "S:221 bye");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_FAILED, "5.7.1", "550 5.7.1 go away (in reply to HELO)");
	assert_non_null(strstr(w->result[0].remote, "mx0.test"));
	server_join(&w->server);
	world_free(w);
}

static void
test_dns_says(void **state)
{
	static const struct {
		uint8_t status;
		int result;
		const char *enhanced;
	} cases[] = { { 1, RESULT_FAILED, "5.1.2" }, { 2, RESULT_UNREACHED, "4.4.3" },
		{ 3, RESULT_FAILED, "5.1.10" }, { 4, RESULT_FAILED, "5.4.4" },
		{ 5, RESULT_FAILED, "5.4.6" } };
	struct world *w = world_new("");

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		w->mx_status = cases[i].status;
		send_one(w, (struct job_opts){ 0 });
		check(w, 0, cases[i].result, cases[i].enhanced, "dns says so");
	}
	send_one(w, (struct job_opts){ .nexthop = "unix:/lmtp", .lmtp = 1 });
	check(w, 0, RESULT_DEFERRED, "4.3.5", "unix sockets");
	close(w->server.listener);
	world_free(w);
}

/* A wrong relayhost bounces nothing. */
static void
test_dns_says_of_relayhost(void **state)
{
	struct world *w = world_new("relayhost = smart.test:587\n");

	(void)state;
	for (unsigned status = 1; status <= 5; status++) {
		w->mx_status = (uint8_t)status;
		send_one(w, (struct job_opts){ .nexthop = "smart.test" });
		check(w, 0, RESULT_UNREACHED, status == 2 ? "4.4.3" : "4.4.4",
		    status == 2 ? "dns says so" : "relayhost cannot be used: dns says so");
	}
	send_one(w, (struct job_opts){ .nexthop = "other.test" });
	check(w, 0, RESULT_FAILED, "5.4.6", "dns says so");
	close(w->server.listener);
	world_free(w);
}

static void
test_lost_after_the_end(void **state)
{
	struct world *w = world_new("");

	(void)state;
	w->addresses[1] = "127.0.0.1";
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "D", "X");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.4.2", "the message may be sent more than once");
	server_join(&w->server);
	assert_int_equal(w->server.connections, 1);
	world_free(w);
}

static void
test_stale_connection(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, GROUP, TAKE, "C:MAIL", "X", "A", GROUP, TAKE, "S:421 idle too long", "X", "A",
	    GROUP, TAKE);
	for (int i = 0; i < 3; i++) {
		send_one(w, (struct job_opts){ 0 });
		check(w, 0, RESULT_DONE, "2.0.0", "taken");
	}
	server_join(&w->server);
	assert_int_equal(w->server.connections, 3);
	world_free(w);
}

/* A server that says why and goes, in the middle of the content: what it said counts, whether the
 * end is met by a read or by a write. */
static void
test_refused_in_content(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		struct world *w = world_new("");
		int fd = memfd_create("content", MFD_CLOEXEC);

		assert_int_equal(ftruncate(fd, 20 << 20), 0);
		START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go",
		    "W:20", "S:552 5.3.4 too large", "X");
		send_one(w, (struct job_opts){ .fd = fd, .length = 20 << 20 });
		check(w, 0, RESULT_FAILED, "5.3.4", "552 5.3.4 too large");
		server_join(&w->server);
		world_free(w);
	}
}

static void
test_lmtp(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, "S:220 x", "C:LHLO me.test", "S:250-x", "S:250 PIPELINING", "C:MAIL", "C:RCPT",
	    "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:250 ok", "S:354 go", "D",
	    "S:250 2.0.0 in", "S:452 4.2.2 full");
	send_one(w, (struct job_opts){ .nexthop = "[127.0.0.1]", .lmtp = 1, .rcpts = 2 });
	check(w, 0, RESULT_DONE, "2.0.0", "in");
	check(w, 1, RESULT_DEFERRED, "4.2.2", "452 4.2.2 full (in reply to end of DATA)");
	assert_int_equal(w->mx_requests, 0);
	server_join(&w->server);
	world_free(w);
}

static void
test_many_recipients(void **state)
{
	struct world *w = world_new("");
	static const char *script[200];
	static char long_reply[2000];
	size_t n = 0;

	(void)state;
	memcpy(long_reply, "S:550 5.1.1 ", 12);
	memset(long_reply + 12, 'x', 1900);
	for (const char *const *p = SCRIPT(GROUP, "C:MAIL"); *p; p++)
		script[n++] = *p;
	for (int i = 0; i < 64; i++)
		script[n++] = "C:RCPT";
	script[n++] = "C:DATA";
	script[n++] = "S:250 ok";
	for (int i = 0; i < 64; i++)
		script[n++] = long_reply;
	script[n++] = "S:503 nobody";
	server_start(&w->server, script, SLICE_NULL);
	send_one(w, (struct job_opts){ .rcpts = 64 });
	assert_int_equal(w->results, 64);
	for (size_t i = 0; i < 64; i++)
		check(w, i, RESULT_FAILED, "5.1.1", "xxxxxxxx");
	server_join(&w->server);
	world_free(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_send_and_reuse),
		cmocka_unit_test(test_results_per_recipient),
		cmocka_unit_test(test_dsn),
		cmocka_unit_test(test_next_host),
		cmocka_unit_test(test_no_host),
		cmocka_unit_test(test_hello_refused),
		cmocka_unit_test(test_dns_says),
		cmocka_unit_test(test_dns_says_of_relayhost),
		cmocka_unit_test(test_lost_after_the_end),
		cmocka_unit_test(test_stale_connection),
		cmocka_unit_test(test_refused_in_content),
		cmocka_unit_test(test_lmtp),
		cmocka_unit_test(test_many_recipients),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
