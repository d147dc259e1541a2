/* Tests of the sender as a whole: what a content becomes for a server, and what is no content. */
#include "smtp-client/sender_test_util.h"

static void
test_large_from_descriptor(void **state)
{
	struct world *w = world_new("");
	struct buf want = { 0 };
	int fd = memfd_create("content", MFD_CLOEXEC);

	(void)state;
	for (int i = 0; i < 40000; i++)
		buf_addf(&want,
		    "%08d this line is of 64 bytes, together with its end ......... \r\n", i);
	assert_int_equal(write(fd, buf_slice(&want).p, buf_len(&want)), (ssize_t)buf_len(&want));
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "W:100",
	    "D", "S:250 ok");
	send_one(w, (struct job_opts){ .fd = fd, .length = buf_len(&want) });
	check(w, 0, RESULT_DONE, "2.0.0", "250 ok");
	server_join(&w->server);
	assert_true(slice_eq(buf_slice(&w->server.content), buf_slice(&want)));
	/* the file is shorter than its extents say: no end of data, another try later */
	buf_free(&w->server.content);
	server_listen(&w->server, "127.0.0.1", 0);
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "E");
	send_one(w, (struct job_opts){ .fd = fd, .length = buf_len(&want) + 10 });
	check(w, 0, RESULT_DEFERRED, "4.3.0", "cannot be read");
	server_join(&w->server);
	close(fd);
	buf_free(&want);
	world_free(w);
}

static void
test_8bit(void **state)
{
	struct world *w = world_new("smtp_connection_cache_time_limit = 0s\n");

	(void)state;
	/* BODY=8BITMIME was declared without need; with need; BINARYMIME to servers with and
	 * without */
	START(w, "S:220 x", "C:EHLO", "S:250 x", "C:MAIL FROM:<s@y.test>\r", "S:250 ok", "C:RCPT",
	    "S:250 ok", "C:DATA", "S:354 go", "D", "S:250 ok", "X", "A", "S:220 x", "C:EHLO",
	    "S:250-x", "S:250 PIPELINING", "C:MAIL FROM:<s@y.test>\r", "C:RCPT", "C:DATA",
	    "S:250 ok", "S:250 ok", "S:354 go", "D", "S:250 ok");
	send_one(w, (struct job_opts){ .flags = MAIL_8BIT });
	check(w, 0, RESULT_DONE, "2.0.0", "ok");
	buf_clear(&w->content);
	buf_add_str(&w->content, "Subject: x\r\n\r\n\xfc\xfc\xfc\r\n");
	send_one(w, (struct job_opts){ .flags = MAIL_8BIT });
	check(w, 0, RESULT_DONE, "2.0.0", "ok");
	server_join(&w->server);
	assert_true(slice_has_suffix(buf_slice(&w->server.content), "base64\r\n\r\n/Pz8DQo=\r\n"));
	world_free(w);

	w = world_new("");
	buf_clear(&w->content);
	buf_add_str(&w->content, "Subject: x\r\n\r\n\xfc\n\r.\r\n");
	START(w, HELLO, "S:250-BINARYMIME", "S:250 CHUNKING",
	    "C:MAIL FROM:<s@y.test> BODY=BINARYMIME", "S:250 ok", "C:RCPT", "S:250 ok",
	    "C:BDAT 20 LAST", "C:Subject", "C:\r\n", "C:\xfc\n", "C:\r.\r\n", "S:250 in", "X", "A",
	    HELLO, "S:250 OK", "C:MAIL FROM:<s@y.test>\r", "S:250 ok", "C:RCPT", "S:250 ok",
	    "C:DATA", "S:354 go", "D", "S:250 ok");
	send_one(w, (struct job_opts){ .flags = MAIL_BINARY });
	check(w, 0, RESULT_DONE, "2.0.0", "in");
	send_one(w, (struct job_opts){ .flags = MAIL_BINARY });
	check(w, 0, RESULT_DONE, "2.0.0", "ok");
	server_join(&w->server);
	assert_true(slice_has_suffix(buf_slice(&w->server.content), "base64\r\n\r\n/AoNLg0K\r\n"));
	world_free(w);
}

static void
test_incomplete_content(void **state)
{
	struct world *w = world_new("");

	(void)state;
	send_one(w, (struct job_opts){ .missing = 1 });
	check(w, 0, RESULT_DEFERRED, "4.3.0", "content is not complete");
	assert_int_equal(w->mx_requests, 0);
	close(w->server.listener);
	world_free(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_large_from_descriptor),
		cmocka_unit_test(test_8bit),
		cmocka_unit_test(test_incomplete_content),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
