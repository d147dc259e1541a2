/* A POP3 session over a real Maildir: what it shows and what QUIT leaves on disk. */
#include "pop3d/drop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static const struct pop3_engine_limits limits = { 4 };

/* The client says in, in pieces of step bytes; everything that comes back. */
static char *
say(struct pop3_engine *e, const char *in, size_t step)
{
	static char out[70000];
	struct slice s = slice_str(in);

	buf_clear(pop3_engine_out(e));
	while (s.n && !pop3_engine_closed(e))
		s = slice_sub(s, pop3_engine_feed(e, slice_sub(s, 0, step)), SIZE_MAX);
	assert_int_equal(slice_copy(buf_slice(pop3_engine_out(e)), out, sizeof(out)), 0);
	return out;
}

/* The same over a real Maildir: what QUIT leaves on disk. */
static void
over_the_store(void **state)
{
	char root[] = "/tmp/bh-pop3-XXXXXX", cmd[600];
	struct store *s;
	struct drop *d;

	(void)state;
	assert_non_null(mkdtemp(root));
	assert_int_equal(store_open(root, NULL, &s), 0);
	snprintf(cmd, sizeof(cmd),
	    "cd %s && printf 'a: b\\n\\n.x\\n' >new/1.a && printf 'c: d\\r\\n\\r\\n' >new/2.b && "
	    "printf 'e: f\\n' >cur/3.c:2,",
	    root);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(drop_open(s, &d), 0);
	struct pop3_engine *e = pop3_engine_new(&drop_ops, d, &limits);
	assert_string_equal(say(e, "LIST\r\n", 9), "+OK 3 messages\r\n1 12\r\n2 8\r\n3 6\r\n.\r\n");
	assert_string_equal(say(e, "RETR 1\r\n", 9), "+OK 12 octets\r\na: b\r\n\r\n..x\r\n.\r\n");
	const char *id = say(e, "UIDL 2\r\n", 9);
	assert_true(slice_has_prefix(slice_str(id), "+OK 2 00000002"));
	assert_int_equal(strlen(id), strlen("+OK 2 ") + 16 + 2);
	assert_string_equal(
	    say(e, "DELE 2\r\nQUIT\r\n", 9), "+OK Marked for deletion\r\n+OK Good bye\r\n");
	pop3_engine_free(&e);
	drop_free(&d);
	store_free(&s);
	snprintf(cmd, sizeof(cmd),
	    "cd %s && test -f cur/1.a:2,S && test ! -e new/2.b && test -f cur/3.c:2, && "
	    "test -z \"$(ls new)\" && rm -rf %s",
	    root, root);
	assert_int_equal(system(cmd), 0);
}

/* Messages that somebody else removes, with ids of Dovecot or of our own: each keeps its id, which
 * nothing else has, and what QUIT has to remove is gone already. */
static void
vanished_messages_keep_their_ids(void **state)
{
	char root[] = "/tmp/bh-pop3-XXXXXX", cmd[700], before[600];
	struct store *s;
	struct drop *d;

	(void)state;
	assert_non_null(mkdtemp(root));
	snprintf(cmd, sizeof(cmd),
	    "cd %s && mkdir new cur tmp && printf 'a: b\n\n' | tee new/1.a new/2.b new/3.c "
	    ">new/4.d && printf '3 V5 N5 G0123456789abcdef0123456789abcdef\n1 Pold-one :1.a\n2 "
	    "Pold-two :2.b\n3 :3.c\n4 :4.d\n' >dovecot-uidlist",
	    root);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(store_open(root, NULL, &s), 0);
	assert_int_equal(drop_open(s, &d), 0);
	struct pop3_engine *e = pop3_engine_new(&drop_ops, d, &limits);
	snprintf(before, sizeof(before), "%s", say(e, "UIDL\r\n", 99));
	assert_string_equal(before, "+OK 4 messages\r\n1 old-one\r\n2 old-two\r\n"
				    "3 0000000300000005\r\n4 0000000400000005\r\n.\r\n");
	snprintf(cmd, sizeof(cmd), "cd %s && rm -f */1.a* */2.b* */3.c*", root);
	assert_int_equal(system(cmd), 0);
	for (int i = 0; i < 3; i++) {
		snprintf(cmd, sizeof(cmd), "RETR %d\r\n", i + 1);
		assert_true(slice_has_prefix(slice_str(say(e, cmd, 99)), "-ERR "));
	}
	assert_string_equal(say(e, "UIDL\r\n", 99), before);
	assert_string_equal(say(e, "UIDL 3\r\n", 99), "+OK 3 0000000300000005\r\n");
	say(e, "DELE 1\r\nDELE 3\r\n", 99);
	assert_string_equal(say(e, "QUIT\r\n", 99), "+OK Good bye\r\n");
	pop3_engine_free(&e);
	drop_free(&d);
	store_free(&s);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", root);
	assert_int_equal(system(cmd), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(over_the_store),
		cmocka_unit_test(vanished_messages_keep_their_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
