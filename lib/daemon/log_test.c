/*
 * The sending side of the log against a socket that takes no more: never blocks, drops the ordinary
 * first, keeps a reserve for what events.def keeps, and says how many were dropped.
 */
#include "daemon/daemon.h"
#include "daemon/private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct seen {
	unsigned ordinary, kept, dropped;
	char event[65], last[512];
};

static unsigned tries;

/* In the place of libc's: counts what the log costs while it is full. */
ssize_t
send(int fd, const void *p, size_t n, int flags)
{
	tries++;
	return sendto(fd, p, n, flags, NULL, 0);
}

static void
drain(int fd, struct seen *seen)
{
	static unsigned char record[MSG_MAX];
	struct msg m;
	struct item_log_record r;
	ssize_t n;

	while ((n = recv(fd, record, sizeof(record), MSG_DONTWAIT)) > 0) {
		assert_int_equal(msg_decode(slice(record, (size_t)n), &m), 0);
		assert_int_equal(m.type, MSG_LOG_RECORDS);
		if (m.log_records.dropped) {
			seen->dropped += m.log_records.dropped;
			snprintf(seen->event, sizeof(seen->event), "%.*s",
			    SLICE_ARG(m.log_records.dropped_event));
		}
		for (struct cursor c = cursor(m.log_records.records.raw);
		     item_log_record_next(&c, &r);) {
			if (slice_eq_str(r.event, "auth-failed"))
				seen->kept++;
			else
				seen->ordinary++;
			snprintf(seen->last, sizeof(seen->last), "%.*s", SLICE_ARG(r.text));
		}
	}
}

static void
open_log(int pair[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	log_init(pair[1], ROLE_AUTH, LOG_INFO_);
}

static void
close_log(int pair[2])
{
	log_reset(ROLE_TOOL);
	log_init(-1, ROLE_TOOL, LOG_INFO_);
	close(pair[0]);
	close(pair[1]);
}

static void
test_a_flood_leaves_a_reserve(void **state)
{
	struct seen seen = { 0 };
	int pair[2];
	enum { FLOOD = 100000, KEPT = 60 };

	(void)state;
	open_log(pair);
	tries = 0;
	for (unsigned i = 0; i < FLOOD; i++)
		log_event(LOG_connect, "sid=%u client=192.0.2.1", i);
	for (unsigned i = 0; i < KEPT; i++)
		log_event(LOG_auth_failed, "sid=%u client=192.0.2.1 reason=\"wrong password\"", i);
	log_event(LOG_connect, "sid=last");
	assert_in_range(tries, 2, FLOOD / 2); /* not with each record */
	drain(pair[0], &seen);
	assert_int_equal(seen.kept, 0); /* nobody read: they wait in this process */
	log_flush();
	drain(pair[0], &seen);
	assert_int_equal(seen.kept, KEPT);
	assert_true(seen.ordinary > 100);
	assert_int_equal(seen.ordinary + seen.dropped, FLOOD + 1);
	assert_string_equal(seen.event, "connect");
	assert_false(log_pending());
	/* The reserve has an end too. */
	memset(&seen, 0, sizeof(seen));
	for (unsigned i = 0; i < FLOOD; i++)
		log_event(LOG_auth_failed, "sid=%u client=192.0.2.1 reason=\"wrong password\"", i);
	drain(pair[0], &seen);
	log_flush();
	drain(pair[0], &seen);
	assert_int_equal(seen.kept + seen.dropped, FLOOD);
	assert_true(seen.dropped > 0);
	assert_string_equal(seen.event, "auth-failed");
	close_log(pair);
}

static void
test_a_warning_ends_with_its_remedy(void **state)
{
	struct seen seen = { 0 };
	int pair[2];

	(void)state;
	open_log(pair);
	log_event(LOG_link_failed, "a=%s b=%s", "x", "y");
	drain(pair[0], &seen);
	assert_string_equal(seen.last, "a=x b=y remedy=\"Raise the limit of open files.\"");
	log_event(LOG_link_failed, "a=%s remedy=\"of its own\"", "x");
	drain(pair[0], &seen);
	assert_string_equal(seen.last, "a=x remedy=\"of its own\"");
	log_event(LOG_started, "config=%s", "/");
	log_flush();
	drain(pair[0], &seen);
	assert_string_equal(seen.last, "config=/");
	close_log(pair);
}

static void
test_each_name_is_found(void **state)
{
	(void)state;
	for (size_t i = 0; i < LOG_EVENT_COUNT; i++) {
		assert_ptr_equal(log_event_find(slice_str(log_events[i].name)), &log_events[i]);
		assert_true(log_event_texts[i].means[0] != '\0');
		assert_true(log_events[i].level < LOG_WARN_ || log_events[i].remedy[0]);
	}
	assert_null(log_event_find(SLICE_LIT("no-such-event")));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_flood_leaves_a_reserve),
		cmocka_unit_test(test_a_warning_ends_with_its_remedy),
		cmocka_unit_test(test_each_name_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
