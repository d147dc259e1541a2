/* Unit tests of recipients: their verdicts and what they become. */
#include "helpers/maps/resolve_test_util.h"

/* "CODE ENHANCED finals..." or "CODE ENHANCED text", or "EAGAIN". */
static const char *
rcpt(struct world *w, const char *address, uint32_t flags)
{
	static char out[4096];
	struct resolve_verdict v;
	struct buf b = { 0 };

	if (resolve_rcpt(&w->r, slice_str(address), flags, &w->arena, &v) == -EAGAIN)
		return "EAGAIN";
	buf_addf(&b, "%u %s", v.code, v.enhanced);
	for (size_t i = 0; i < v.nfinals; i++)
		buf_addf(&b, " %.*s", SLICE_ARG(v.finals[i]));
	if (v.code >= 300)
		buf_addf(&b, " %s", v.text);
	assert_true((v.code / 100 == 2) == (v.nfinals > 0));
	assert_int_equal(slice_copy(buf_slice(&b), out, sizeof(out)), 0);
	buf_free(&b);
	return out;
}

static void
test_classes(void **state)
{
	struct world *w = *state;

	assert_string_equal(rcpt(w, "ann@[127.0.0.1]", 0), "250 2.1.5 ann@[127.0.0.1]");
	assert_string_equal(rcpt(w, "ann@[192.0.2.7]", 0), "250 2.1.5 ann@[192.0.2.7]");
	assert_string_equal(
	    rcpt(w, "ann@[IPv6:2001:db8::7]", 0), "250 2.1.5 ann@[ipv6:2001:db8::7]");
	assert_string_equal(
	    rcpt(w, "ann@[192.0.2.8]", 0), "554 5.7.1 <ann@[192.0.2.8]>: Relay access denied");
	assert_string_equal(rcpt(w, "ann@[IPv6:::1]", 0), "250 2.1.5 ann@[ipv6:::1]");
	assert_string_equal(
	    rcpt(w, "ann@[192.0.2.1]", 0), "554 5.7.1 <ann@[192.0.2.1]>: Relay access denied");
	assert_string_equal(rcpt(w, "ann@example.test", 0), "250 2.1.5 ann@example.test");
	assert_string_equal(rcpt(w, "ANN@EXAMPLE.TEST", 0), "250 2.1.5 ANN@example.test");
	assert_string_equal(rcpt(w, "ann", 0), "250 2.1.5 ann@example.test");
	assert_string_equal(rcpt(w, "ann+x@localhost", 0), "250 2.1.5 ann+x@localhost");
	assert_string_equal(rcpt(w, "ann@a.sub.test", 0), "250 2.1.5 ann@a.sub.test");
	assert_string_equal(rcpt(w, "nosuch@example.test", 0),
	    "550 5.1.1 <nosuch@example.test>: Recipient address rejected: User unknown in local "
	    "recipient table");
	assert_string_equal(
	    rcpt(w, "x@far.test", 0), "554 5.7.1 <x@far.test>: Relay access denied");
	assert_string_equal(
	    rcpt(w, "x@sub.test", 0), "554 5.7.1 <x@sub.test>: Relay access denied");
	assert_string_equal(rcpt(w, "x@far.test", RESOLVE_MAY_RELAY), "250 2.1.5 x@far.test");
	assert_string_equal(rcpt(w, "x@relay.test", 0), "250 2.1.5 x@relay.test");
	assert_string_equal(rcpt(w, "x@a.relay.test", 0), "250 2.1.5 x@a.relay.test");
	assert_string_equal(rcpt(w, "vic@virtual.test", 0), "250 2.1.5 vic@virtual.test");
	assert_string_equal(rcpt(w, "vic+t@virtual.test", 0), "250 2.1.5 vic+t@virtual.test");
	assert_string_equal(rcpt(w, "solo@example.test", 0), "250 2.1.5 solo@example.test");
	assert_string_equal(rcpt(w, "nosuch@virtual.test", 0),
	    "550 5.1.1 <nosuch@virtual.test>: Recipient address rejected: User unknown in virtual "
	    "mailbox table");
	assert_string_equal(rcpt(w, "nosuch@alias.test", 0),
	    "550 5.1.1 <nosuch@alias.test>: Recipient address rejected: User unknown in virtual "
	    "alias table");
	assert_string_equal(rcpt(w, "a b@example.test", 0), "553 5.1.3 Bad address syntax");
	assert_string_equal(rcpt(w, "user%far.test@example.test", 0),
	    "550 5.1.1 <user%far.test@example.test>: Recipient address rejected: User unknown in "
	    "local recipient table");
	assert_string_equal(rcpt(w, "\"user@far.test\"@example.test", 0),
	    "550 5.1.1 <\"user@far.test\"@example.test>: Recipient address rejected: User unknown "
	    "in local recipient table");
}

static void
test_relay_domains_but_one(void **state)
{
	struct world *w = *state;

	world_conf(w, "relay_domains = !secret.relay.test, relay.test\n");
	assert_string_equal(rcpt(w, "x@relay.test", 0), "250 2.1.5 x@relay.test");
	assert_string_equal(rcpt(w, "x@a.relay.test", 0), "250 2.1.5 x@a.relay.test");
	assert_string_equal(rcpt(w, "x@secret.relay.test", 0),
	    "554 5.7.1 <x@secret.relay.test>: Relay access denied");
	assert_string_equal(rcpt(w, "x@a.secret.relay.test", 0),
	    "554 5.7.1 <x@a.secret.relay.test>: Relay access denied");
	world_conf(w, "relay_domains = inline:{{relay.test=x}}, !relay.test\n");
	assert_string_equal(rcpt(w, "x@a.relay.test", 0), "250 2.1.5 x@a.relay.test");
}

static void
test_always_valid(void **state)
{
	struct world *w = *state;

	world_table(w, TABLE_ALIAS, "inline:{x=y}");
	world_table(w, TABLE_LOCAL_RECIPIENT, "inline:{x=y}");
	assert_string_equal(rcpt(w, "root@example.test", 0), "250 2.1.5 root@example.test");
	assert_string_equal(rcpt(w, "Postmaster", 0), "250 2.1.5 root@example.test");
	assert_string_equal(rcpt(w, "abuse@localhost", 0), "250 2.1.5 root@example.test");
	assert_string_equal(rcpt(w, "", 0), "250 2.1.5 root@example.test");
	assert_string_equal(rcpt(w, "postmaster@far.test", 0),
	    "554 5.7.1 <postmaster@far.test>: Relay access denied");
	world_conf(w, "empty_address_recipient = ann@far.test\n");
	assert_string_equal(rcpt(w, "", 0), "554 5.7.1 <ann@far.test>: Relay access denied");
}

static void
test_aliases(void **state)
{
	struct world *w = *state;

	assert_string_equal(rcpt(w, "team@example.test", 0),
	    "250 2.1.5 ann@far.test joe@example.test ann@example.test");
	assert_string_equal(
	    rcpt(w, "root@localhost", 0), "250 2.1.5 joe@example.test ann@example.test");
	assert_string_equal(rcpt(w, "team+x@example.test", 0),
	    "250 2.1.5 ann@far.test joe@example.test ann@example.test");
	assert_string_equal(rcpt(w, "prog@example.test", 0), "250 2.1.5 prog@example.test");
	assert_string_equal(rcpt(w, "mix@example.test", 0), "250 2.1.5 mix@example.test");
	assert_string_equal(rcpt(w, "list@example.test", 0), "250 2.1.5 list@example.test");
	assert_string_equal(
	    rcpt(w, "self@example.test", 0), "250 2.1.5 self@example.test ann@example.test");
	assert_string_equal(
	    rcpt(w, "self@localhost", 0), "250 2.1.5 ann@example.test self@example.test");
	assert_string_equal(
	    rcpt(w, "bs@example.test", 0), "250 2.1.5 bs@example.test ann@example.test");
	/* another one's mailbox is the delivery's to ask for */
	assert_string_equal(rcpt(w, "other@example.test", 0), "250 2.1.5 other@example.test");
	assert_string_equal(rcpt(w, "both@example.test", 0), "250 2.1.5 both@example.test");
	assert_string_equal(
	    rcpt(w, "joe", RESOLVE_MAY_RELAY | RESOLVE_MAILBOX), "250 2.1.5 \\joe@example.test");
	assert_string_equal(
	    rcpt(w, "x@far.test", RESOLVE_MAY_RELAY | RESOLVE_MAILBOX), "250 2.1.5 x@far.test");
	assert_string_equal(rcpt(w, "\\joe@example.test", 0), "553 5.1.3 Bad address syntax");
	assert_string_equal(rcpt(w, "loop1@example.test", 0), "250 2.1.5 loop1@example.test");
	assert_string_equal(rcpt(w, "bad@example.test", 0), "250 2.1.5 bad@example.test");
	assert_string_equal(
	    rcpt(w, "team@example.test", RESOLVE_FINAL), "250 2.1.5 team@example.test");
}

static void
test_virtual(void **state)
{
	struct world *w = *state;

	world_table(w, TABLE_VIRTUAL_ALIAS,
	    "inline:{{info@alias.test = ann@example.test, x@far.test}, {@catch.test = "
	    "joe@far.test}, "
	    "{@whole.test = @far.test}, {ann@example.test = ann@example.test, copy@far.test}, "
	    "{v1@far.test = v2@far.test}, {v2@far.test = v3@far.test}, {v3@far.test = |cmd}, "
	    "{joe@alias.test = joe}, {bare = z@far.test}}");
	assert_string_equal(
	    rcpt(w, "info@alias.test", 0), "250 2.1.5 x@far.test ann@example.test copy@far.test");
	assert_string_equal(rcpt(w, "any@catch.test", RESOLVE_MAY_RELAY), "250 2.1.5 joe@far.test");
	assert_string_equal(
	    rcpt(w, "any@catch.test", 0), "554 5.7.1 <any@catch.test>: Relay access denied");
	assert_string_equal(
	    rcpt(w, "any+e@whole.test", RESOLVE_MAY_RELAY), "250 2.1.5 any+e@far.test");
	assert_string_equal(
	    rcpt(w, "ann@example.test", 0), "250 2.1.5 ann@example.test copy@far.test");
	assert_string_equal(rcpt(w, "v1@far.test", RESOLVE_MAY_RELAY),
	    "451 4.3.5 An alias of the recipient has an invalid value");
	assert_string_equal(rcpt(w, "joe+ext@alias.test", 0),
	    "250 2.1.5 joe@example.test ann@example.test copy@far.test");
	assert_string_equal(rcpt(w, "bare@example.test", 0), "250 2.1.5 z@far.test");
	assert_string_equal(rcpt(w, "bare@far.test", RESOLVE_MAY_RELAY), "250 2.1.5 bare@far.test");
}

static void
test_bounds(void **state)
{
	struct world *w = *state;

	world_conf(w, "virtual_alias_expansion_limit = 3\nvirtual_alias_recursion_limit = 4\n");
	world_table(w, TABLE_VIRTUAL_ALIAS,
	    "inline:{{t3@far.test = a@x.test, b@x.test, c@x.test}, "
	    "{t4@far.test = a@x.test, b@x.test, c@x.test, d@x.test}}");
	assert_string_equal(
	    rcpt(w, "t3@far.test", RESOLVE_MAY_RELAY), "250 2.1.5 a@x.test b@x.test c@x.test");
	assert_string_equal(rcpt(w, "t4@far.test", RESOLVE_MAY_RELAY),
	    "452 4.5.3 Recipient stands for too many addresses (virtual_alias_expansion_limit)");
	world_table(w, TABLE_VIRTUAL_ALIAS,
	    "inline:{c0@x.test=c1@x.test, c1@x.test=c2@x.test, c2@x.test=c3@x.test, "
	    "c3@x.test=c4@x.test, c4@x.test=c5@x.test}");
	assert_string_equal(rcpt(w, "c1@x.test", RESOLVE_MAY_RELAY), "250 2.1.5 c5@x.test");
	assert_string_equal(rcpt(w, "c0@x.test", RESOLVE_MAY_RELAY),
	    "554 5.4.6 Recipient expands in a loop (virtual_alias_recursion_limit)");
}

/* One answer has room for 1,000 addresses, which is the most that the parameter may be, and for so
 * many bytes. */
static void
test_bound_of_an_answer(void **state)
{
	struct world *w = *state;
	struct resolve_verdict v;

	for (unsigned n = 999; n <= 1001; n++) { /* the first has long names: 72 bytes each */
		struct buf spec = { 0 };

		buf_add_str(&spec, "inline:{{t@far.test = a@x.test");
		for (unsigned i = 1; i < n; i++)
			buf_addf(&spec, n == 999 ? ", a%u@%060u.test" : ", a%u@x.test", i, 7);
		buf_add_str(&spec, "}}");
		buf_add_byte(&spec, 0);
		world_table(w, TABLE_VIRTUAL_ALIAS, (const char *)buf_slice(&spec).p);
		buf_free(&spec);
		assert_int_equal(
		    resolve_rcpt(&w->r, SLICE_LIT("t@far.test"), RESOLVE_MAY_RELAY, &w->arena, &v),
		    0);
		assert_int_equal(v.code, n == 1000 ? 250 : 452);
		assert_int_equal(v.nfinals, n == 1000 ? 1000 : 0);
		if (n == 999)
			assert_string_equal(v.text,
			    "Recipient stands for addresses of more than 48 KiB in all: :include: "
			    "them in a local alias");
	}
}

static void
test_canonical(void **state)
{
	struct world *w = *state;

	world_table(w, TABLE_CANONICAL,
	    "inline:{old@far.test=ann@example.test, @gone.test=@example.test, "
	    "ann=a.nn@example.test}");
	world_table(w, TABLE_ALIAS, "inline:{a.nn=ann}");
	assert_string_equal(rcpt(w, "joe@gone.test", 0), "250 2.1.5 joe@example.test");
	assert_string_equal(rcpt(w, "old@far.test", 0),
	    "550 5.1.1 <a.nn@example.test>: Recipient address rejected: User unknown in local "
	    "recipient table");
	world_table(w, TABLE_LOCAL_RECIPIENT, "unix:passwd.byname inline:{a.nn=x}");
	assert_string_equal(rcpt(w, "old@far.test", 0), "250 2.1.5 ann@example.test");
	assert_string_equal(rcpt(w, "joe", RESOLVE_SENDER), "250 2.1.0 joe@example.test");
	assert_string_equal(rcpt(w, "ann+x", RESOLVE_SENDER), "250 2.1.0 a.nn+x@example.test");
	world_conf(
	    w, "masquerade_domains = !keep.far.test far.test\nmasquerade_exceptions = root\n");
	assert_string_equal(rcpt(w, "joe@a.b.far.test", RESOLVE_SENDER), "250 2.1.0 joe@far.test");
	assert_string_equal(
	    rcpt(w, "joe@keep.far.test", RESOLVE_SENDER), "250 2.1.0 joe@keep.far.test");
	assert_string_equal(
	    rcpt(w, "root@a.far.test", RESOLVE_SENDER), "250 2.1.0 root@a.far.test");
	assert_string_equal(rcpt(w, "joe@afar.test", RESOLVE_SENDER), "250 2.1.0 joe@afar.test");
}

static void
test_trouble_is_never_unknown(void **state)
{
	static const enum resolve_table local[] = { TABLE_CANONICAL, TABLE_RECIPIENT_CANONICAL,
		TABLE_VIRTUAL_ALIAS, TABLE_ALIAS, TABLE_LOCAL_RECIPIENT, TABLE_RELOCATED };
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
		w->dead[local[i]] = true;
		assert_string_equal(
		    rcpt(w, "ann@example.test", 0), "451 4.3.0 Temporary lookup failure");
		w->dead[local[i]] = false;
	}
	w->dead[TABLE_RELAY_RECIPIENT] = true;
	assert_string_equal(rcpt(w, "x@relay.test", 0), "451 4.3.0 Temporary lookup failure");
	w->dead[TABLE_VIRTUAL_MAILBOX] = true;
	assert_string_equal(rcpt(w, "x@virtual.test", 0), "451 4.3.0 Temporary lookup failure");
	w->account_error = ERR_TEMPORARY;
	assert_string_equal(rcpt(w, "vic@virtual.test", 0), "451 4.3.0 Temporary lookup failure");
	assert_string_equal(
	    rcpt(w, "nosuch@example.test", 0), "451 4.3.0 Temporary lookup failure");
	w->nss_error = ERR_TEMPORARY;
	assert_string_equal(rcpt(w, "ann@example.test", 0), "451 4.3.0 Temporary lookup failure");
	w->nss_error = -EAGAIN;
	assert_string_equal(rcpt(w, "ann@example.test", 0), "EAGAIN");
	world_conf(w, "mydestination = hash:/dead, example.test\n");
	assert_string_equal(rcpt(w, "ann@example.test", 0), "451 4.3.0 Temporary lookup failure");
}

static void
test_extras(void **state)
{
	struct world *w = *state;

	world_table(w, TABLE_RELOCATED, "inline:{{gone@example.test = new@far.test}}");
	assert_string_equal(rcpt(w, "gone@example.test", 0),
	    "550 5.1.6 <gone@example.test>: Recipient address rejected: User has moved to "
	    "new@far.test");
	world_table(w, TABLE_RECIPIENT_BCC, "inline:{ann@example.test=watch@far.test}");
	assert_string_equal(
	    rcpt(w, "ann@example.test", 0), "250 2.1.5 watch@far.test ann@example.test");
	world_conf(w, "luser_relay = lost+$user@far.test\n");
	assert_string_equal(rcpt(w, "nosuch+q@example.test", 0), "250 2.1.5 lost+nosuch@far.test");
	assert_string_equal(rcpt(w, "solo@example.test", 0), "250 2.1.5 solo@example.test");
	assert_string_equal(rcpt(w, "prog@example.test", 0), "250 2.1.5 prog@example.test");
	assert_string_equal(rcpt(w, "list@example.test", 0), "250 2.1.5 list@example.test");
	world_conf(w, "unknown_local_recipient_reject_code = 450\n");
	assert_string_equal(rcpt(w, "nosuch@example.test", 0),
	    "450 4.1.1 <nosuch@example.test>: Recipient address rejected: User unknown in local "
	    "recipient table");
	world_conf(w, "allow_percent_hack = yes\n");
	assert_string_equal(
	    rcpt(w, "u%far.test@example.test", 0), "554 5.7.1 <u@far.test>: Relay access denied");
	world_table(w, TABLE_VIRTUAL_ALIAS, "inline:{@alias.test=@example.test}");
	assert_string_equal(rcpt(w, "u%far.test@alias.test", 0),
	    "554 5.7.1 <u%far.test@alias.test>: Relay access denied");
	assert_string_equal(
	    rcpt(w, "u%far.test@alias.test", RESOLVE_MAY_RELAY), "250 2.1.5 u@far.test");
	world_table(w, TABLE_VIRTUAL_ALIAS, "");
	world_conf(w, "append_dot_mydomain = yes\nmydomain = example.test\n");
	assert_string_equal(rcpt(w, "u@host", RESOLVE_MAY_RELAY), "250 2.1.5 u@host.example.test");
	world_table(w, TABLE_RELAY_RECIPIENT, "inline:{@open.relay.test=x, u@relay.test=x}");
	assert_string_equal(rcpt(w, "u@relay.test", 0), "250 2.1.5 u@relay.test");
	assert_string_equal(rcpt(w, "any@open.relay.test", 0), "250 2.1.5 any@open.relay.test");
	assert_string_equal(rcpt(w, "v@relay.test", 0),
	    "550 5.1.1 <v@relay.test>: Recipient address rejected: User unknown in relay recipient "
	    "table");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_classes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_relay_domains_but_one, setup, teardown),
		cmocka_unit_test_setup_teardown(test_always_valid, setup, teardown),
		cmocka_unit_test_setup_teardown(test_aliases, setup, teardown),
		cmocka_unit_test_setup_teardown(test_virtual, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bound_of_an_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_canonical, setup, teardown),
		cmocka_unit_test_setup_teardown(test_trouble_is_never_unknown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_extras, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
