/* Unit tests of requests that cannot be answered now: what is said, and what the log says. */
#include "helpers/maps/maps.h"
#include "helpers/maps/resolve_test_util.h"
#include "ipc/ignore_test_util.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

struct asker {
	struct world world; /* for its configuration */
	struct daemon d;
	struct maps maps;
	struct ipc_chan *chan;
	int peer, log, stderr_before;
	char rules[32];
};

/* The code of the answer; 0: it waits for a user. */
static unsigned
check(struct asker *k, const char *address)
{
	struct msg m = MSG_INIT(MSG_RCPT_CHECK, 1), answer;
	unsigned char bytes[4096];
	ssize_t n;

	m.rcpt_check.address = slice_str(address);
	request(&k->maps, k->chan, &m);
	n = recv(k->peer, bytes, sizeof(bytes), MSG_DONTWAIT);
	if (n < 0)
		return 0;
	assert_int_equal(msg_decode(slice(bytes, (size_t)n), &answer), 0);
	assert_int_equal(answer.type, MSG_RCPT_VERDICT);
	return answer.rcpt_verdict.code;
}

/* How often the log has the text. */
static unsigned
logged(struct asker *k, const char *text)
{
	char all[65536];
	ssize_t n;
	unsigned times = 0;

	fflush(stderr);
	n = pread(k->log, all, sizeof(all) - 1, 0);
	assert_true(n >= 0);
	all[n] = '\0';
	for (const char *at = all; (at = strstr(at, text)); at++)
		times++;
	return times;
}

static void
begin(struct asker *k)
{
	int fd, fds[2];

	strcpy(k->rules, "/tmp/requests_test.XXXXXX");
	fd = mkstemp(k->rules);
	assert_true(fd >= 0);
	assert_true(dprintf(fd, "/^(a+)+@x$/ joe\n") > 0);
	close(fd);
	world_conf(&k->world, arena_printf(&k->world.arena,
				  "virtual_alias_maps = pcre:%s\nalias_maps =\n"
				  "local_recipient_maps = unix:passwd.byname\n",
				  k->rules));
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	k->peer = fds[1];
	k->d.base = event_base_new();
	k->d.conf = k->world.conf;
	k->d.io = ipc_io_new(k->d.base, ROLE_MAPS);
	k->chan = ipc_chan_new(k->d.io, fds[0], ROLE_SMTPD_CHILD, &ignore_ops, NULL);
	k->maps.d = &k->d;
	k->maps.tables = tables_open(k->d.conf);
	requests_init(&k->maps);
	k->stderr_before = dup(2);
	k->log = memfd_create("log", MFD_CLOEXEC);
	assert_int_equal(dup2(k->log, 2), 2);
}

static void
end(struct asker *k)
{
	requests_forget(&k->maps, k->chan);
	users_free(&k->maps.users);
	tables_free(&k->maps.tables);
	ev_timer_free(&k->maps.again);
	arena_free(&k->maps.arena);
	ipc_chan_free(&k->chan);
	ipc_io_free(&k->d.io);
	event_base_free(k->d.base);
	close(k->peer);
	assert_int_equal(dup2(k->stderr_before, 2), 2);
	close(k->stderr_before);
	close(k->log);
	unlink(k->rules);
	conf_free(&k->world.conf);
	conf_raw_free(&k->world.raw);
	arena_free(&k->world.arena);
}

/* The admin hears of a rule that explodes, by table and key, and not for each stranger's try. */
static void
test_a_rule_beyond_its_limit_is_told(void **state)
{
	struct asker k = { .log = -1 };

	(void)state;
	begin(&k);
	for (int i = 0; i < 3; i++)
		assert_int_equal(
		    check(&k, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab@example.test"), 451);
	assert_int_equal(logged(&k, "pattern-limit"), 1);
	assert_int_equal(logged(&k, k.rules), 1);
	assert_int_equal(logged(&k, "aab@example.test"), 1);
	end(&k);
}

static void
test_too_many_that_wait_are_told(void **state)
{
	struct asker k = { .log = -1 };

	(void)state;
	begin(&k);
	for (int i = 0; i < 5000; i++)
		assert_int_equal(check(&k, "ann@example.test"), 0);
	assert_int_equal(logged(&k, "maps-full"), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(check(&k, "ann@example.test"), 451);
	assert_int_equal(logged(&k, "maps-full"), 1);
	assert_int_equal(logged(&k, "waiting=5000"), 1);
	end(&k);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_rule_beyond_its_limit_is_told),
		cmocka_unit_test(test_too_many_that_wait_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
