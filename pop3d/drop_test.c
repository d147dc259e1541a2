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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(over_the_store),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
