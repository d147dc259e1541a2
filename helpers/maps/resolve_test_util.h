/* What the tests of address resolution share: tables, users, and a configuration. */
#ifndef MAPS_RESOLVE_TEST_UTIL_H
#define MAPS_RESOLVE_TEST_UTIL_H

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
	{ "a+b", 1003 }, { "vac", 1004 } };

static inline int
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

static inline int
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

static inline bool
defined(void *ctx, enum resolve_table table)
{
	struct world *w = ctx;

	return w->tables[table].n || w->dead[table];
}

static inline int
named(void *ctx, struct slice spec, struct slice key, struct buf *value)
{
	struct buf why = { 0 };
	struct db *db;
	int err;

	(void)ctx;
	if (slice_eq_str(spec, "hash:/dead"))
		return ERR_TEMPORARY;
	err = db_open(spec, 0, &db, &why);
	if (!err)
		err = db_get(db, key, value);
	db_free(&db);
	buf_free(&why);
	return err;
}

static inline int
passwd(void *ctx, struct slice name, struct arena *a, struct resolve_user *user_r)
{
	struct world *w = ctx;

	return w->nss_error ? w->nss_error : user_find(name, a, user_r);
}

static inline int
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

static inline bool
own(void *ctx, struct slice literal)
{
	(void)ctx;
	return slice_eq_str(literal, "192.0.2.7") || slice_caseeq_str(literal, "2001:db8::7");
}

static const struct resolve_ops ops = { lookup, defined, named, passwd, account, own };

static inline void
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

static inline void
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
	"{bs = \\bs, ann}, {bad = a b}, {daemon = |/x}, {vac = \\vac, |/bin/vacation}, "           \
	"{far = far@far.test, |/x}, {club = club, ann}, {owner-club = joe}, "                      \
	"{other = \\joe, ann}, {both = both, \\joe}}"

static inline int
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

static inline int
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

#endif
