/* Unit tests of routes: where mail for an address goes. */
#include "helpers/maps/resolve_test_util.h"

/* "KIND transport nexthop port" or "local user uid mailbox extension run argument", or "STATUS
 * enhanced text". */
static const char *
route(struct world *w, const char *address)
{
	static const char *const kinds[] = { "local", "smtp", "lmtp", "error", "discard", "hold" };
	static char out[4096];
	struct resolve_route t;
	struct buf b = { 0 };

	if (resolve_route(&w->r, slice_str(address), &w->arena, &t) == -EAGAIN)
		return "EAGAIN";
	if (t.status)
		buf_addf(&b, "%u %s %s", t.status, t.enhanced, t.text);
	else if (t.kind == ROUTE_LOCAL)
		buf_addf(&b, "local %s %u %.*s '%.*s' %d '%.*s'", t.user.name, t.user.uid,
		    SLICE_ARG(t.mailbox), SLICE_ARG(t.extension), (int)t.run,
		    SLICE_ARG(t.argument));
	else
		buf_addf(&b, "%s %.*s %.*s %u", kinds[t.kind], SLICE_ARG(t.transport),
		    SLICE_ARG(t.nexthop), t.port);
	assert_int_equal(slice_copy(buf_slice(&b), out, sizeof(out)), 0);
	buf_free(&b);
	return out;
}

static void
test_route_local(void **state)
{
	struct world *w = *state;

	assert_string_equal(
	    route(w, "ann@example.test"), "local ann 1002 maildir:/home/ann/Maildir '' 0 ''");
	assert_string_equal(route(w, "Ann+Ext@example.test"),
	    "local ann 1002 maildir:/home/ann/Maildir 'Ext' 0 ''");
	assert_string_equal(
	    route(w, "a+b@example.test"), "local a+b 1003 maildir:/home/a+b/Maildir '' 0 ''");
	assert_string_equal(
	    route(w, "joe@example.test"), "local joe 1001 maildir:/home/joe/Maildir '' 0 ''");
	assert_string_equal(
	    route(w, "prog@example.test"), "local nobody 65534 alias:|/bin/cat '' 4 ''");
	assert_string_equal(route(w, "list@example.test"),
	    "local nobody 65534 alias:joe, ann '' 4 'owner-list@example.test'");
	assert_string_equal(route(w, "solo@example.test"),
	    "local vic@virtual.test 800001 maildir:/v/vic/Maildir '' 0 ''");
	assert_string_equal(
	    route(w, "nosuch@example.test"), "1 5.1.1 unknown user: \"nosuch@example.test\"");
	assert_string_equal(route(w, "bad@example.test"),
	    "2 4.3.5 alias bad: an address holds a blank (a comma is missing, or quotes); correct "
	    "it in "
	    "/etc/aliases (alias_maps) and run newaliases");
	world_table(w, TABLE_ALIAS, "inline:{x=y}");
	assert_string_equal(route(w, "root@example.test"),
	    "2 4.2.0 uid 0 of root is outside of first_valid_uid .. last_valid_uid: add the line "
	    "\"root: NAME\" to /etc/aliases");
	assert_string_equal(route(w, "daemon@example.test"),
	    "2 4.2.0 uid 1 of daemon is outside of first_valid_uid .. last_valid_uid: add the line "
	    "\"daemon: NAME\" to /etc/aliases");
	w->nss_error = ERR_TEMPORARY;
	assert_string_equal(route(w, "ann@example.test"), "2 4.3.0 user look-up failed");
	w->nss_error = -EAGAIN;
	assert_string_equal(route(w, "ann@example.test"), "EAGAIN");
	w->nss_error = 0;
	world_conf(w, "mailbox_transport = lmtp:inet:[127.0.0.1]:24\n");
	assert_string_equal(route(w, "ann@localhost"), "lmtp lmtp [127.0.0.1] 24");
	assert_string_equal(route(w, "daemon@localhost"), "lmtp lmtp [127.0.0.1] 24");
	world_table(w, TABLE_ALIAS, "inline:{{ann=ann, joe}}"); /* the user's own mailbox */
	assert_string_equal(route(w, "ann@localhost"), "lmtp lmtp [127.0.0.1] 24");
	assert_string_equal(
	    route(w, "nosuch@localhost"), "1 5.1.1 unknown user: \"nosuch@localhost\"");
	world_conf(w, "home_mailbox =\nmail_spool_directory = /var/mail\n");
	assert_string_equal(route(w, "ann@localhost"), "local ann 1002 mbox:/var/mail/ann '' 0 ''");
}

/* What an alias gives besides the recipient itself is not lost, and its own mailbox is reached in
 * the end: "\address" asks for that. */
static void
test_route_alias_with_itself(void **state)
{
	struct world *w = *state;

	assert_string_equal(route(w, "vac+e@example.test"),
	    "local nobody 65534 alias:\\vac, |/bin/vacation 'e' 4 ''");
	assert_string_equal(
	    route(w, "\\vac+e@example.test"), "local vac 1004 maildir:/home/vac/Maildir 'e' 0 ''");
	assert_string_equal(
	    route(w, "far@example.test"), "local nobody 65534 alias:far@far.test, |/x '' 4 ''");
	assert_string_equal(route(w, "club@example.test"),
	    "local nobody 65534 alias:club, ann '' 4 'owner-club@example.test'");
	assert_string_equal(
	    route(w, "\\club@example.test"), "1 5.1.1 unknown user: \"club@example.test\"");
	/* expanded before: what came out is the mailbox */
	assert_string_equal(
	    route(w, "bs@example.test"), "1 5.1.1 unknown user: \"bs@example.test\"");
	/* not expanded before: one of them is a mailbox */
	assert_string_equal(
	    route(w, "other@example.test"), "local nobody 65534 alias:\\joe, ann '' 4 ''");
	assert_string_equal(
	    route(w, "both@example.test"), "local nobody 65534 alias:both, \\joe '' 4 ''");
	world_table(w, TABLE_ALIAS, "inline:{joe=joe@far.test}");
	assert_string_equal(
	    route(w, "joe@example.test"), "local nobody 65534 alias:joe@far.test '' 4 ''");
}

static void
test_route_virtual(void **state)
{
	struct world *w = *state;

	world_conf(w, "virtual_mailbox_base = /v\n");
	world_table(w, TABLE_VIRTUAL_MAILBOX, "inline:{a@virtual.test=a/, m@virtual.test=dom/m}");
	assert_string_equal(route(w, "vic+x@virtual.test"),
	    "local vic@virtual.test 800001 maildir:/v/vic/Maildir 'x' 0 ''");
	assert_string_equal(
	    route(w, "nosuch@virtual.test"), "1 5.1.1 unknown user: \"nosuch@virtual.test\"");
	world_table(w, TABLE_VIRTUAL_UID, "static:5000");
	assert_string_equal(
	    route(w, "a@virtual.test"), "local a@virtual.test 5000 maildir:/v/a '' 0 ''");
	assert_string_equal(
	    route(w, "m@virtual.test"), "local m@virtual.test 5000 mbox:/v/dom/m '' 0 ''");
	world_table(w, TABLE_VIRTUAL_UID, "static:x");
	assert_int_equal(
	    strncmp(route(w, "a@virtual.test"), "2 4.3.5 virtual_mailbox_maps", 28), 0);
	world_table(w, TABLE_VIRTUAL_UID, "static:5");
	assert_string_equal(route(w, "a@virtual.test"),
	    "2 4.3.5 uid 5 of a@virtual.test is outside of first_valid_uid .. last_valid_uid");
	w->account_error = ERR_TEMPORARY;
	assert_string_equal(route(w, "a@virtual.test"), "2 4.3.0 look-up of a user in auth failed");
}

static void
test_route_remote(void **state)
{
	struct world *w = *state;

	assert_string_equal(route(w, "x@far.test"), "smtp smtp far.test 0");
	assert_string_equal(route(w, "x@[192.0.2.1]"), "smtp smtp [192.0.2.1] 0");
	world_conf(w, "relayhost = [127.0.0.1]:2525\n");
	assert_string_equal(route(w, "x@far.test"), "smtp smtp [127.0.0.1] 2525");
	assert_string_equal(route(w, "x@relay.test"), "smtp smtp [127.0.0.1] 2525");
	world_table(w, TABLE_TRANSPORT, "inline:{a.test=:, relay.test=smtp:, b.test=:next.test}");
	assert_string_equal(route(w, "x@a.test"), "smtp smtp [127.0.0.1] 2525"); /* no change */
	assert_string_equal(route(w, "x@relay.test"), "smtp smtp relay.test 0");
	assert_string_equal(route(w, "x@b.test"), "smtp smtp next.test 0");
	world_table(w, TABLE_TRANSPORT, "");
	world_conf(w, "relayhost = smart.test:submission\n");
	assert_string_equal(route(w, "x@far.test"), "smtp smtp smart.test 587");
	world_table(w, TABLE_TRANSPORT,
	    "inline:{{a.test=smtp:[mail.test]:26}, {.a.test=lmtp:unix:/run/l}, "
	    "{u@b.test=discard:}, {b.test=error:5.1.2 no such place}, {c.test=retry:4.3.1 later}, "
	    "{d.test=:next.test}, {e.test=local:}, {f.test=lmtp:inet:h.test:24}, "
	    "{v6.test=smtp:[2001:db8::1]:26}, {g.test=smtp-slow:}, {*=slow:}}");
	assert_string_equal(route(w, "x@a.test"), "smtp smtp [mail.test] 26");
	assert_string_equal(route(w, "x@b.a.test"),
	    "2 4.3.5 lmtp:unix:/run/l is out of reach: smtp-client opens no path; let that server "
	    "listen on a port of 127.0.0.1");
	assert_string_equal(route(w, "x@c.b.a.test"), route(w, "x@b.a.test"));
	assert_string_equal(route(w, "u@b.test"), "discard discard b.test 0");
	assert_string_equal(route(w, "u+e@b.test"), "discard discard b.test 0");
	assert_string_equal(route(w, "x@b.test"), "1 5.1.2 no such place");
	assert_string_equal(route(w, "x@c.test"), "2 4.3.1 later");
	assert_string_equal(route(w, "x@d.test"), "smtp smtp next.test 0");
	assert_string_equal(
	    route(w, "ann@e.test"), "local ann 1002 maildir:/home/ann/Maildir '' 0 ''");
	assert_string_equal(route(w, "x@f.test"), "lmtp lmtp h.test 24");
	assert_string_equal(route(w, "x@v6.test"), "smtp smtp [2001:db8::1] 26");
	assert_string_equal(route(w, "x@g.test"), "smtp smtp-slow g.test 0");
	assert_string_equal(route(w, "x@other.test"),
	    "2 4.3.0 mail transport unavailable: there is no transport \"slow\"; correct "
	    "transport_maps");
	w->dead[TABLE_TRANSPORT] = true;
	assert_string_equal(route(w, "x@far.test"), "2 4.3.0 transport look-up failed");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_route_local, setup, teardown),
		cmocka_unit_test_setup_teardown(test_route_alias_with_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(test_route_virtual, setup, teardown),
		cmocka_unit_test_setup_teardown(test_route_remote, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
