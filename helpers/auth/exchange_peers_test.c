/* Unit tests of auth's front towards other daemons: maps, smtp-client, the PAM helper and its
 * successor. */
#include "helpers/auth/exchange_test_util.h"

static void
test_users_for_maps(void **state)
{
	static const struct {
		const char *name;
		uint8_t status;
	} rows[] = { { "alice", 0 }, { "ALICE@mx.example.test", 0 }, { "sales@example.org", 0 },
		{ "alice@other.test", 1 }, { "bob", 1 }, { "", 1 }, { "../alice", 1 }, { "@", 1 } };
	struct end maps = open_end(ROLE_MAPS);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct msg m = MSG_INIT(MSG_USER_GET, 9);
		m.user_get.name = slice_str(rows[i].name);
		assert_int_equal(ipc_send_fd(maps.fd, &m), 0);
		m = answer(&maps);
		assert_int_equal(m.type, MSG_USER_ENTRY);
		if (m.user_entry.status != rows[i].status)
			fail_msg("%s: %d", rows[i].name, m.user_entry.status);
	}
	close_end(&maps);
}

static void
test_smarthost_without_credentials(void **state)
{
	struct end client = open_end(ROLE_SMTP_CLIENT);
	struct msg m = MSG_INIT(MSG_SASL_CLIENT_START, 3);

	(void)state;
	m.sasl_client_start.nexthop = SLICE_LIT("[hub.example]:587");
	m.sasl_client_start.host = SLICE_LIT("hub.example");
	m.sasl_client_start.mechanisms = SLICE_LIT("PLAIN SCRAM-SHA-256");
	m.sasl_client_start.tls = 1;
	assert_int_equal(ipc_send_fd(client.fd, &m), 0);
	m = answer(&client);
	assert_int_equal(m.type, MSG_SASL_CLIENT_STEP);
	assert_int_equal(m.sasl_client_step.status, 1);
	close_end(&client);
}

/* A helper and its successor, as an upgrade has them for a while: who waits for the one goes on
 * when the other ends. */
static void
test_two_helpers(void **state)
{
	struct end login = open_end(ROLE_LOGIN_CHILD);
	struct end pam[2] = { open_end(ROLE_PAM), open_end(ROLE_PAM) };
	struct msg m;

	(void)state;
	atomic_store(&bench.a.sasl.system_users, true);
	for (uint32_t i = 0; i < 2; i++) {
		bench.d.peers[ROLE_PAM] = pam[i].chan;
		start(&login, i + 1, "imap", "PLAIN", SLICE_LIT("\0carol\0secret"), true);
		m = answer(&pam[i]);
		assert_int_equal(m.type, MSG_PAM_CHECK);
		assert_true(slice_eq_str(m.pam_check.user, "carol"));
	}
	for (uint32_t i = 0; i < 2; i++) {
		exchange_helper_down(&bench.a, pam[i].chan);
		m = answer(&login);
		assert_int_equal(m.type, MSG_AUTH_DONE);
		assert_int_equal(m.id, i + 1);
		assert_int_equal(m.auth_done.status, 2);
		assert_true(silent(&login, 20));
	}
	atomic_store(&bench.a.sasl.system_users, false);
	bench.d.peers[ROLE_PAM] = NULL;
	for (int i = 0; i < 2; i++)
		close_end(&pam[i]);
	close_end(&login);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_users_for_maps),
		cmocka_unit_test(test_smarthost_without_credentials),
		cmocka_unit_test(test_two_helpers),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
