/* Tests of look-ups against a resolver of our own: who shares an answer, and who is gone before it
 * comes. */
#include "helpers/dns/lookup_test_util.h"

static void
test_questions_are_shared(void **state)
{
	struct world *w = world_new("");
	struct resolver_stats s;

	(void)state;
	w->answers = 0;
	for (uint32_t i = 1; i <= 500; i++) {
		struct msg m = MSG_INIT(MSG_DNS_GET, i);

		m.dns_get.name = SLICE_LIT("plain.test");
		m.dns_get.type = DNS_A;
		assert_int_equal(ipc_send(w->peer, &m), 0);
	}
	await(w, 500);
	assert_int_equal(w->resolver.questions, 1);
	/* many names at once: never more in flight than the bound, and all are answered */
	w->answers = 0;
	for (uint32_t i = 1; i <= 1000; i++) {
		struct msg m = MSG_INIT(MSG_DNS_GET, i);
		char name[40];

		snprintf(name, sizeof(name), "n%u.unknown.test", i);
		m.dns_get.name = slice_str(name);
		m.dns_get.type = DNS_A;
		assert_int_equal(ipc_send(w->peer, &m), 0);
		resolver_stats(((struct dnsd *)w->d.ctx)->resolver, &s);
		assert_in_range(s.in_flight, 0, RESOLVER_IN_FLIGHT_MAX);
		if (i % 50 == 0)
			event_base_loop(w->d.base, EVLOOP_NONBLOCK);
	}
	await(w, 1000);
	resolver_stats(((struct dnsd *)w->d.ctx)->resolver, &s);
	assert_int_equal(s.in_flight, 0);
	assert_int_equal(s.waiting, 0);
	world_free(w);
}

static void
test_hosts(void **state)
{
	struct world *w =
	    world_new("dns_hosts = h.test=192.0.2.50, h.test=[2001:db8::50], i.test=192.0.2.51\n");

	(void)state;
	want_mx(w, "h.test", 0, 0, "0 h.test/2;");
	want_mx(w, "I.test", 0, 0, "0 i.test/1;");
	assert_int_equal(w->resolver.questions, 0);
	world_free(w);
}

static void
test_peer_goes(void **state)
{
	struct world *w = world_new("");
	struct msg m = MSG_INIT(MSG_MX, 1);

	(void)state;
	m.mx.domain = SLICE_LIT("silent.test");
	assert_int_equal(ipc_send(w->peer, &m), 0);
	while (!((struct dnsd *)w->d.ctx)->under_way)
		event_base_loop(w->d.base, EVLOOP_ONCE);
	dnsd_desc.link_down(&w->d, w->own);
	be(w, ROLE_SMTP_CLIENT);
	w->answers = 0;
	settle(w);
	assert_int_equal(w->answers, 0);
	want_mx(w, "two.test", 0, 0, "10 a.two.test/2;20 b.two.test/1;");
	world_free(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_questions_are_shared),
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_peer_goes),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
