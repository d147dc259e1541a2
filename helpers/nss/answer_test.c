/* Unit tests of the answer about a user: whatever the system says, there is exactly one. */
#include "helpers/nss/answer.h"
#include "ipc/ignore_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <unistd.h>

/* What who asked receives. */
static struct msg
answered(struct buf *buf, const char *name, const struct lookup *l)
{
	struct event_base *base = event_base_new();
	struct ipc_io *io = ipc_io_new(base, ROLE_NSS);
	struct msg m;
	struct ipc_chan *ch;
	int fds[2];

	assert_int_equal(ipc_pair(fds), 0);
	ch = ipc_chan_new(io, fds[0], ROLE_MAPS, &ignore_ops, NULL);
	answer_send(ch, 7, slice_str(name), l);
	answer_send(NULL, 8, slice_str(name), l);
	ipc_chan_free(&ch);
	assert_int_equal(ipc_recv_fd(fds[1], buf, &m), 0);
	assert_int_equal(m.type, MSG_NSS_USER);
	assert_int_equal(m.id, 7);
	close(fds[1]);
	ipc_io_free(&io);
	event_base_free(base);
	return m;
}

static void
test_entries_that_fit(void **state)
{
	char home[4097], name[] = "ann", other[] = "Ann";
	struct lookup l = { .status = LOOKUP_FOUND, .ngroups = LOOKUP_GROUPS };
	struct buf buf = { 0 };
	struct msg m;

	(void)state;
	memset(home, 'h', 4096);
	home[4096] = '\0';
	l.pw.pw_name = other;
	l.pw.pw_dir = home;
	l.pw.pw_uid = 1000;
	m = answered(&buf, name, &l);
	assert_int_equal(m.nss_user.status, LOOKUP_FOUND);
	assert_true(slice_eq_str(m.nss_user.name, "Ann"));
	assert_true(slice_eq_str(m.nss_user.home, home));
	assert_int_equal(m.nss_user.uid, 1000);
	assert_int_equal(m.nss_user.groups.n, LOOKUP_GROUPS);
	m = answered(&buf, name, NULL);
	assert_int_equal(m.nss_user.status, LOOKUP_UNKNOWN);
	buf_free(&buf);
}

static void
test_entries_that_do_not(void **state)
{
	char longer[4098], ends[] = "/home/a\nb", plain[] = "/home/ann", name[] = "ann",
			   bad[] = "a\rb";
	char *const rows[][2] = { { name, longer }, { name, ends }, { bad, plain },
		{ longer, plain } };
	struct buf buf = { 0 };

	(void)state;
	memset(longer, 'h', 4097);
	longer[4097] = '\0';
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct lookup l = { .status = LOOKUP_FOUND, .ngroups = 1 };
		struct msg m;

		l.pw.pw_name = rows[i][0];
		l.pw.pw_dir = rows[i][1];
		l.pw.pw_uid = 1000;
		m = answered(&buf, "ann", &l);
		assert_int_equal(m.nss_user.status, LOOKUP_TROUBLE);
		assert_true(slice_eq_str(m.nss_user.name, "ann"));
		assert_int_equal(m.nss_user.uid, 0);
		assert_int_equal(m.nss_user.home.n, 0);
	}
	buf_free(&buf);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries_that_fit),
		cmocka_unit_test(test_entries_that_do_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
