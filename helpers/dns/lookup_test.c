/* Tests of look-ups against a resolver of our own: what is answered. */
#include "helpers/dns/lookup_test_util.h"

static void
test_mx(void **state)
{
	struct world *w = world_new("");
	unsigned char site[16];

	(void)state;
	want_mx(w, "two.test", 0, 0, "10 a.two.test/2;20 b.two.test/1;");
	assert_int_equal(w->secure, 1);
	memcpy(site, w->site, 16);
	want_mx(w, "TWO.test", 0, 0, "10 a.two.test/2;20 b.two.test/1;");
	want_mx(w, "two.test.", 0, 0, "10 a.two.test/2;20 b.two.test/1;");
	assert_memory_equal(site, w->site, 16);
	want_mx(w, "null.test", 0, 3, "");
	want_mx(w, "plain.test", 0, 0, "0 plain.test/1;");
	want_mx(w, "nothing.test", 0, 4, "");
	want_mx(w, "dead.test", 0, 4, "");
	want_mx(w, "odd.test", 0, 4, "");
	want_mx(w, "half.test", 0, 0, "20 a.two.test/2;");
	want_mx(w, "unknown.test", 0, 1, "");
	want_mx(w, "servfail.test", 0, 2, "");
	want_mx(w, "silent.test", 0, 2, "");
	want_mx(w, "loop.test", 0, 5, "");
	want_mx(w, "backup.test", 0, 0, "10 a.two.test/2;");
	want_mx(w,
	    "b\xc3\xbc"
	    "cher.test",
	    0, 0, "10 a.two.test/2;");
	want_mx(w, "two.test", 1, 4, "");
	want_mx(w, "a.two.test", 1, 0, "0 a.two.test/2;");
	want_mx(w, "[b.two.test]", 0, 0, "0 b.two.test/1;");
	want_mx(w, "[192.0.2.77]", 0, 0, "0 [192.0.2.77]/1;");
	want_mx(w, "[IPv6:2001:db8::9]", 0, 0, "0 [IPv6:2001:db8::9]/1;");
	want_mx(w, "localhost", 0, 0, "0 localhost/2;");
	want_mx(w, "", 0, 1, "");
	want_mx(w, "a..b", 0, 1, "");
	want_mx(w, "a b.test", 0, 1, "");
	world_free(w);
}

static void
test_one_protocol(void **state)
{
	struct world *w = world_new("inet_protocols = ipv4\n");

	(void)state;
	want_mx(w, "two.test", 0, 0, "10 a.two.test/1;20 b.two.test/1;");
	world_free(w);
}

static void
test_site(void **state)
{
	struct world *w = world_new("");
	unsigned char site[16];
	const char *const domains[] = { "two.test", "same.test", "plain.test" };

	(void)state;
	be(w, ROLE_QMGR);
	for (int i = 0; i < 3; i++) {
		struct msg m = MSG_INIT(MSG_SITE, 9);

		m.site.domain = slice_str(domains[i]);
		w->answers = 0;
		assert_int_equal(ipc_send(w->peer, &m), 0);
		await(w, 1);
		assert_int_equal(w->status, 0);
		if (i == 0)
			memcpy(site, w->site, 16);
		else if (i == 1)
			assert_memory_equal(site, w->site, 16);
		else
			assert_memory_not_equal(site, w->site, 16);
	}
	world_free(w);
}

static void
test_client_name(void **state)
{
	struct world *w = world_new("");
	int64_t before;

	(void)state;
	be(w, ROLE_SMTPD_CHILD);
	want_name(w, "192.0.2.1", 0, "a.two.test");
	assert_int_equal(w->ttl, 300);
	want_name(w, "2001:db8::1", 0, "a.two.test");
	want_name(w, "192.0.2.2", 3, "liar.test");
	want_name(w, "192.0.2.3", 0, "plain.test");
	want_name(w, "192.0.2.4", 2, "servfail.test");
	want_name(w, "192.0.2.5", 1, "");
	assert_int_equal(w->resolver.tcp_questions, 0);
	unsigned asked = w->resolver.questions;

	want_name(w, "127.0.0.1", 0, "localhost");
	want_name(w, "127.1.2.3", 0, "localhost");
	want_name(w, "::1", 0, "localhost");
	assert_int_equal(w->resolver.questions, asked);
	before = ev_now_us();
	want_name(w, "10.1.2.3", 2, "");
	assert_in_range(ev_now_us() - before, 0, 590000);
	settle(w);
	world_free(w);
}

static void
want_records(struct world *w, const char *name, unsigned type, int status, const char *data)
{
	struct msg m = MSG_INIT(MSG_DNS_GET, 3);

	m.dns_get.name = slice_str(name);
	m.dns_get.type = (uint16_t)type;
	w->answers = 0;
	assert_int_equal(ipc_send(w->peer, &m), 0);
	await(w, 1);
	assert_int_equal(w->status, status);
	assert_string_equal(w->data, data);
}

static void
test_records(void **state)
{
	struct world *w = world_new("");

	(void)state;
	want_records(w, "nothing.test", DNS_TXT, 0, "no host here");
	want_records(w, "long.test", DNS_TXT, 0, "over TCP");
	assert_int_equal(w->resolver.tcp_questions, 1);
	want_records(w, "nothing.test", DNS_TLSA, 1, "");
	want_records(w, "unknown.test", DNS_TXT, 3, "");
	want_records(w, "servfail.test", DNS_TXT, 2, "");
	want_records(w, "nothing.test", 255, 3, "");
	want_records(w, "a..b", DNS_TXT, 3, "");
	world_free(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mx),
		cmocka_unit_test(test_one_protocol),
		cmocka_unit_test(test_site),
		cmocka_unit_test(test_client_name),
		cmocka_unit_test(test_records),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
