/* Unit tests of address resolution: real tables of lib/db, users from a list here. */
#include "helpers/maps/resolve.h"

#include "db/db.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

/* A world of tables; "fail" as a spec is a dead table, pending makes users unanswered. */
struct world {
	struct conf_raw *raw;
	struct conf *conf;
	struct db_list tables[TABLE_COUNT];
	bool dead[TABLE_COUNT];
	int nss_error, account_error;
	struct resolver r;
	struct arena arena;
};

static const struct {
	const char *name;
	unsigned uid;
} users[] = { { "root", 0 }, { "daemon", 1 }, { "nobody", 65534 }, { "joe", 1001 }, { "ann", 1002 },
	{ "a+b", 1003 } };

static int
user_find(struct slice name, struct arena *a, struct resolve_user *u)
{
	for (size_t i = 0; i < sizeof(users) / sizeof(users[0]); i++)
		if (slice_eq_str(name, users[i].name)) {
			*u = (struct resolve_user){
				.name = users[i].name, .uid = users[i].uid, .gid = users[i].uid
			};
			u->home = arena_printf(a, "/home/%s", users[i].name);
			return 0;
		}
	return ERR_NOT_FOUND;
}

static int
lookup(void *ctx, enum resolve_table table, struct slice key, bool whole, struct buf *value)
{
	struct world *w = ctx;
	size_t nss = 0, from = 0;
	int err;

	if (w->dead[table])
		return ERR_TEMPORARY;
	while ((err = db_list_get(&w->tables[table], from, key, whole, value, &nss)) == -EAGAIN) {
		struct resolve_user u;

		err = w->nss_error ? w->nss_error : user_find(key, &w->arena, &u);
		if (err != ERR_NOT_FOUND)
			return err;
		from = nss + 1;
	}
	return err;
}

static bool
defined(void *ctx, enum resolve_table table)
{
	struct world *w = ctx;

	return w->tables[table].n || w->dead[table];
}

static int
named(void *ctx, struct slice spec, struct slice key, struct buf *value)
{
	struct buf why = { 0 };
	struct db *db;
	int err;

	(void)ctx;
	if (slice_eq_str(spec, "dead:x"))
		return ERR_TEMPORARY;
	err = db_open(spec, 0, &db, &why);
	if (!err)
		err = db_get(db, key, value);
	db_free(&db);
	buf_free(&why);
	return err;
}

static int
passwd(void *ctx, struct slice name, struct arena *a, struct resolve_user *user_r)
{
	struct world *w = ctx;

	return w->nss_error ? w->nss_error : user_find(name, a, user_r);
}

static int
account(void *ctx, struct slice address, struct arena *a, struct resolve_user *user_r)
{
	struct world *w = ctx;

	(void)a;
	if (w->account_error)
		return w->account_error;
	if (!slice_eq_str(address, "vic@virtual.test") && !slice_eq_str(address, "solo"))
		return ERR_NOT_FOUND;
	*user_r = (struct resolve_user){ .name = "vic@virtual.test",
		.uid = 800001,
		.gid = 800001,
		.home = "/v/vic",
		.mailbox = "maildir:/v/vic/Maildir" };
	return 0;
}

static bool
own(void *ctx, struct slice literal)
{
	(void)ctx;
	return slice_eq_str(literal, "192.0.2.7") || slice_caseeq_str(literal, "2001:db8::7");
}

static const struct resolve_ops ops = { lookup, defined, named, passwd, account, own };

static void
world_conf(struct world *w, const char *text)
{
	struct conf_problems p = { 0 };
	struct buf all = { 0 };

	conf_free(&w->conf);
	conf_raw_free(&w->raw);
	w->raw = conf_raw_new("mx.example.test");
	conf_raw_read_files(w->raw, false);
	buf_add_str(&all,
	    "myorigin = example.test\nmydestination = example.test, localhost, .sub.test\n"
	    "virtual_alias_domains = alias.test\nvirtual_mailbox_domains = virtual.test\n"
	    "relay_domains = relay.test\nhome_mailbox = Maildir/\nrecipient_delimiter = +\n");
	buf_add_str(&all, text);
	conf_raw_parse(w->raw, "main.cf", buf_slice(&all), &p);
	w->conf = conf_eval(w->raw, NULL, 0, &p);
	for (size_t i = 0; i < p.n; i++)
		if (!p.v[i].warning)
			fail_msg("%s", p.v[i].text);
	conf_problems_free(&p);
	buf_free(&all);
	w->r.conf = w->conf;
}

static void
world_table(struct world *w, enum resolve_table table, const char *spec)
{
	struct buf why = { 0 };

	db_list_free(&w->tables[table]);
	if (db_list_open(&w->tables[table], slice_str(spec), 0, &why))
		fail_msg("%.*s", SLICE_ARG(buf_slice(&why)));
	buf_free(&why);
}

#define ALIASES                                                                                    \
	"inline:{{postmaster = root}, {root = joe}, {team = joe, ann@far.test}, "                  \
	"{prog = |/bin/cat}, {list = joe, ann}, {owner-list = joe}, {self = self, ann}, "          \
	"{mix = joe, |/bin/cat}, {loop1 = loop2}, {loop2 = loop1}, {joe = joe, ann}, "             \
	"{bs = \\bs, ann}, {bad = a b}, {daemon = |/x}}"

static int
setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	w->r = (struct resolver){ NULL, &ops, w };
	world_conf(w, "");
	world_table(w, TABLE_ALIAS, ALIASES);
	world_table(w, TABLE_LOCAL_RECIPIENT, "unix:passwd.byname " ALIASES);
	*state = w;
	return 0;
}

static int
teardown(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < TABLE_COUNT; i++)
		db_list_free(&w->tables[i]);
	conf_free(&w->conf);
	conf_raw_free(&w->raw);
	arena_free(&w->arena);
	free(w);
	return 0;
}

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

/* One answer has room for so many, whatever the parameter says. */
static void
test_bound_of_an_answer(void **state)
{
	struct world *w = *state;
	struct resolve_verdict v;

	world_conf(w, "virtual_alias_expansion_limit = 5000\n");
	for (unsigned n = 1000; n <= 1001; n++) {
		struct buf spec = { 0 };

		buf_add_str(&spec, "inline:{{t@far.test = a@x.test");
		for (unsigned i = 1; i < n; i++)
			buf_addf(&spec, ", a%u@x.test", i);
		buf_add_str(&spec, "}}");
		buf_add_byte(&spec, 0);
		world_table(w, TABLE_VIRTUAL_ALIAS, (const char *)buf_slice(&spec).p);
		buf_free(&spec);
		assert_int_equal(
		    resolve_rcpt(&w->r, SLICE_LIT("t@far.test"), RESOLVE_MAY_RELAY, &w->arena, &v),
		    0);
		assert_int_equal(v.code, n == 1000 ? 250 : 452);
		assert_int_equal(v.nfinals, n == 1000 ? 1000 : 0);
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
	world_conf(w, "mydestination = dead:x, example.test\n");
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
	world_conf(w, "append_dot_mydomain = yes\nmydomain = example.test\n");
	assert_string_equal(rcpt(w, "u@host", RESOLVE_MAY_RELAY), "250 2.1.5 u@host.example.test");
	world_table(w, TABLE_RELAY_RECIPIENT, "inline:{@open.relay.test=x, u@relay.test=x}");
	assert_string_equal(rcpt(w, "u@relay.test", 0), "250 2.1.5 u@relay.test");
	assert_string_equal(rcpt(w, "any@open.relay.test", 0), "250 2.1.5 any@open.relay.test");
	assert_string_equal(rcpt(w, "v@relay.test", 0),
	    "550 5.1.1 <v@relay.test>: Recipient address rejected: User unknown in relay recipient "
	    "table");
}

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
	assert_string_equal(
	    route(w, "nosuch@localhost"), "1 5.1.1 unknown user: \"nosuch@localhost\"");
	world_conf(w, "home_mailbox =\nmail_spool_directory = /var/mail\n");
	assert_string_equal(route(w, "ann@localhost"), "local ann 1002 mbox:/var/mail/ann '' 0 ''");
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
		cmocka_unit_test_setup_teardown(test_classes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_always_valid, setup, teardown),
		cmocka_unit_test_setup_teardown(test_aliases, setup, teardown),
		cmocka_unit_test_setup_teardown(test_virtual, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bound_of_an_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_canonical, setup, teardown),
		cmocka_unit_test_setup_teardown(test_trouble_is_never_unknown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_extras, setup, teardown),
		cmocka_unit_test_setup_teardown(test_route_local, setup, teardown),
		cmocka_unit_test_setup_teardown(test_route_virtual, setup, teardown),
		cmocka_unit_test_setup_teardown(test_route_remote, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
