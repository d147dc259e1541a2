/* Tests of the sender as a whole: time limits, and the ends of those it works for. */
#include "smtp-client/sender_test_util.h"

static void
test_time_limits(void **state)
{
	struct world *w = world_new(
	    "smtp_helo_timeout = 1s\nsmtp_mail_timeout = 1s\nsmtp_data_done_timeout = 1s\n");

	(void)state;
	START(w, "W:1500", "A", GROUP, "C:MAIL", "W:1500", "A", GROUP, "C:MAIL", "C:RCPT", "C:DATA",
	    "S:250 ok", "S:250 ok", "S:354 go", "D", "W:1500");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.4.2", "timed out while waiting for connection");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.4.2", "timed out while waiting for MAIL FROM");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.4.2",
	    "timed out while waiting for end of DATA -- the message may be");
	server_join(&w->server);
	world_free(w);
}

/* A reply that trickles has the time of one, however many lines it has. */
static void
test_trickling_reply(void **state)
{
	struct world *w = world_new("smtp_helo_timeout = 1s\n");

	(void)state;
	START(w, "S:220-a", "W:600", "S:220-b", "W:600", "S:220-c", "W:600");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.4.2", "timed out while waiting for connection");
	server_join(&w->server);
	world_free(w);
}

/* A job ends before qmgr gives it up, or the server has it twice; but for the reply to its end. */
static void
test_delivery_time_limit(void **state)
{
	struct world *w = world_new("smtp_delivery_time_limit = 1s\nsmtp_data_done_timeout = 2s\n");

	(void)state;
	START(w, HELLO, "S:250 SIZE", "C:MAIL", "W:700", "S:250 ok", "C:RCPT", "W:700", "A", GROUP,
	    "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "D", "W:1500",
	    "S:250 taken", "A", GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok",
	    "S:354 go", "D", "S:250-taken", "W:1900", "S:250-and", "W:1900");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.4.2", "took longer than smtp_delivery_time_limit");
	assert_null(strstr(w->result[0].text, "more than once"));
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	idle(w, 2500); /* the connection is not kept longer */
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.4.2", "the message may be sent more than once");
	assert_int_equal(((struct sender *)w->d.ctx)->nconns, 0);
	server_join(&w->server);
	world_free(w);
}

/* What is no answer to the end of data says nothing of the message: no other host gets it. */
static void
test_nonsense_after_the_end(void **state)
{
	struct world *w = world_new("");

	(void)state;
	w->addresses[1] = "127.0.0.1";
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "D",
	    "S:354 go on");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.5.0", "the message may be sent more than once");
	server_join(&w->server);
	world_free(w);
}

/* A reply too many would be taken for that to the next MAIL: the connection is not used again. */
static void
test_one_reply_too_many(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "D",
	    "S:250 taken\r\n250 and taken", "E", "A", GROUP, "C:MAIL", "C:RCPT", "C:RCPT", "C:DATA",
	    "S:250 ok", "S:250 ok", "S:550 no", "S:354 go", "D", "S:250 taken");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	send_one(w, (struct job_opts){ .rcpts = 2 });
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	check(w, 1, RESULT_FAILED, "5.0.0", "550 no");
	server_join(&w->server);
	world_free(w);
}

/* A source that is none is a fault of ours: qmgr does not count it against the site. */
static void
test_source_address(void **state)
{
	static const char *const sources[][2] = { { "192.0.2.77", "127.0.0.1" },
		{ "127.0.0.1", "192.0.2.1" } };

	(void)state;
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
		char main_cf[80], text[80];
		struct world *w;

		snprintf(main_cf, sizeof(main_cf), "smtp_bind_address = %s\n", sources[i][0]);
		snprintf(text, sizeof(text), "not from smtp_bind_address = %s: ", sources[i][0]);
		w = world_new(main_cf);
		w->addresses[0] = sources[i][1];
		send_one(w, (struct job_opts){ 0 });
		check(w, 0, RESULT_DEFERRED, "4.3.5", text);
		close(w->server.listener);
		world_free(w);
	}
}

static void
test_qmgr_dies(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok");
	submit(w, (struct job_opts){ 0 });
	idle(w, 300);
	ipc_chan_free(&w->qmgr);
	while (w->own_qmgr)
		event_base_loop(w->d.base, EVLOOP_ONCE);
	assert_int_equal(((struct sender *)w->d.ctx)->njobs, 0);
	assert_int_equal(((struct sender *)w->d.ctx)->nconns, 0);
	server_join(&w->server);
	world_free(w);
}

/* Runs the loop until the server's script stands at its step P. */
static void
await_server(struct world *w)
{
	int turns = DEADLINE_MS;

	while (sem_trywait(&w->server.reached)) {
		assert_true(turns-- > 0);
		idle(w, 1);
	}
}

/* qmgr dies while the end of data waits in our own buffer, because the server does not read: it
 * never goes, or the message would arrive now and again from the next qmgr. */
static void
test_qmgr_dies_before_the_end_is_sent(void **state)
{
	struct world *w = world_new("");
	struct sender *s = w->d.ctx;
	int small = 1, turns = DEADLINE_MS;
	struct conn *c;

	(void)state;
	while (buf_len(&w->content) < 40000)
		buf_add_str(&w->content, "a line of a content that no small buffer takes\r\n");
	setsockopt(w->server.listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "P", "S:250 ok", "S:250 ok", "S:354 go", "P",
	    "N");
	submit(w, (struct job_opts){ 0 });
	await_server(w);
	c = TAILQ_FIRST(&s->conns);
	setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	sem_post(&w->server.go);
	await_server(w);
	while (client_waiting(c->client) != CLIENT_CMD_FINAL) {
		assert_true(turns-- > 0);
		idle(w, 1);
	}
	assert_true(buf_len(client_output(c->client)) > 0);
	ipc_chan_free(&w->qmgr);
	while (w->own_qmgr)
		event_base_loop(w->d.base, EVLOOP_ONCE);
	assert_int_equal(s->njobs, 0);
	assert_int_equal(s->nconns, 0);
	sem_post(&w->server.go);
	server_join(&w->server);
	world_free(w);
}

/* qmgr dies while the end of data waits for its reply; its successor, whose jobs have the same
 * numbers, hears nothing of it. */
static void
test_qmgr_has_a_successor(void **state)
{
	struct world *w = world_new("");
	struct ipc_chan *old;
	int turns = DEADLINE_MS;

	(void)state;
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "D", "P",
	    "S:250 2.0.0 for the dead", "C:MAIL", "C:RCPT TO:<r0@", "C:RCPT TO:<r1@", "C:DATA",
	    "S:250 ok", "S:250 ok", "S:250 ok", "S:354 go", "D", "S:250 2.0.0 for the living");
	submit(w, (struct job_opts){ 0 });
	await_server(w);
	old = w->qmgr;
	w->next_qmgr = join(w, ROLE_QMGR, &w->ios[3]);
	w->qmgr = NULL;
	ipc_chan_free(&old);
	while (w->own_qmgr)
		event_base_loop(w->d.base, EVLOOP_ONCE);
	assert_int_equal(((struct sender *)w->d.ctx)->njobs, 1);
	sem_post(&w->server.go);
	while (((struct sender *)w->d.ctx)->njobs) {
		assert_true(turns-- > 0);
		idle(w, 1);
	}
	idle(w, 50);
	assert_int_equal(w->results_at[1], 0);
	w->next_id = 0;
	send_one(w, (struct job_opts){ .rcpts = 2 });
	assert_int_equal(w->results, 2);
	check(w, 1, RESULT_DONE, "2.0.0", "for the living");
	idle(w, 50);
	assert_int_equal(w->results_at[0], 0);
	assert_int_equal(w->results_at[1], 1);
	server_join(&w->server);
	world_free(w);
}

/* An answer counts on the channel of its question only, whatever its number. */
static void
test_dns_has_a_successor(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, GROUP, TAKE);
	w->dns_is_slow = true;
	submit(w, (struct job_opts){ 0 });
	while (!w->mx_id)
		event_base_loop(w->d.base, EVLOOP_ONCE);
	struct ipc_chan *own = w->d.peers[ROLE_DNS];
	w->next_dns = join(w, ROLE_DNS, &w->ios[4]);
	w->mx_status = 1;
	answer_mx(w, w->next_dns, w->mx_id);
	idle(w, 50);
	assert_false(w->done);
	w->mx_status = 0;
	answer_mx(w, w->dns, w->mx_id);
	await(w);
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	server_join(&w->server);
	ipc_chan_free(&own);
	world_free(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_time_limits),
		cmocka_unit_test(test_trickling_reply),
		cmocka_unit_test(test_delivery_time_limit),
		cmocka_unit_test(test_nonsense_after_the_end),
		cmocka_unit_test(test_one_reply_too_many),
		cmocka_unit_test(test_source_address),
		cmocka_unit_test(test_qmgr_dies),
		cmocka_unit_test(test_qmgr_dies_before_the_end_is_sent),
		cmocka_unit_test(test_qmgr_has_a_successor),
		cmocka_unit_test(test_dns_has_a_successor),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
