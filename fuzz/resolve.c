/*
 * Fuzz target: the resolution of addresses in maps. Byte 0: flags of rcpt_check (1 to 16), route
 * (32), the second configuration (64), tables with keys (128); byte 1: which look-ups fail; then
 * lines: the address, and what the tables answer, in turn, or with keys the tables themselves:
 * a letter for the table, KEY=VALUE. Checked: an answer is a whole one, the final addresses fit
 * into one message and are the canonical form of themselves, no route names a user below
 * first_valid_uid; with keys, an answer for which the tables were waited for is the one that comes
 * at once.
 */
#include "fuzz/must.h"
#include "helpers/maps/resolve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
	struct slice answers;
	bool keyed;
	unsigned asked, fail, patience;
};

enum { NAMED = TABLE_COUNT, PASSWD, ACCOUNT }; /* what follows the tables in letters */

/* The line of that table and key; -EAGAIN where this call has asked as often as it may. */
static int
keyed(struct run *r, unsigned table, struct slice key, struct slice *value_r)
{
	struct slice rest = r->answers;

	if (r->asked++ >= r->patience)
		return -EAGAIN;
	if (r->fail >> table % 8 & 1)
		return ERR_TEMPORARY;
	while (rest.n) {
		struct slice line = slice_split(&rest, '\n'), name = slice_split(&line, '=');

		if (name.n && name.p[0] == 'a' + table && line.n &&
		    slice_eq(slice_sub(name, 1, name.n), key)) {
			*value_r = line;
			return 0;
		}
	}
	return ERR_NOT_FOUND;
}

/* The next line, whatever is asked for. */
static int
in_turn(struct run *r, unsigned table, struct slice *value_r)
{
	if (++r->asked % 8 == 7)
		return r->fail & 1 ? ERR_TEMPORARY : r->fail & 2 ? -EAGAIN : ERR_NOT_FOUND;
	if (!r->answers.n || (r->fail >> (2 + table % 6) & 1))
		return ERR_NOT_FOUND;
	*value_r = slice_split(&r->answers, '\n');
	return value_r->n ? 0 : ERR_NOT_FOUND;
}

static int
answer(struct run *r, unsigned table, struct slice key, struct buf *value)
{
	struct slice text = SLICE_NULL;
	int err = r->keyed ? keyed(r, table, key, &text) : in_turn(r, table, &text);

	return err ? err : buf_add(value, text);
}

static int
lookup(void *ctx, enum resolve_table table, struct slice key, bool whole, struct buf *value)
{
	(void)whole;
	must(key.n && slice_find(key, '\n') < 0);
	return answer(ctx, table, key, value);
}

static bool
defined(void *ctx, enum resolve_table table)
{
	const struct run *r = ctx;

	return r->keyed || table != TABLE_RECIPIENT_BCC;
}

static int
named(void *ctx, struct slice spec, struct slice key, struct buf *value)
{
	struct run *r = ctx;

	(void)spec;
	return answer(r, r->keyed ? (unsigned)NAMED : (unsigned)TABLE_TRANSPORT, key, value);
}

/* "jHOME": the letter is a tenth of the uid. */
static int
user(struct run *r, unsigned table, struct slice name, struct arena *a, struct resolve_user *user_r)
{
	struct slice line = SLICE_NULL;
	int err = 0;

	if (r->keyed)
		err = keyed(r, table, name, &line);
	else
		line = slice_split(&r->answers, '\n');
	if (err || !line.n || slice_find(line, 0) >= 0)
		return err ? err : ERR_NOT_FOUND;
	*user_r = (struct resolve_user){ .name = arena_printf(a, "%.*s", SLICE_ARG(name)),
		.uid = line.p[0] * 10u,
		.gid = line.n > 1 ? line.p[1] * 10u : 1,
		.home = arena_printf(a, "%.*s", SLICE_ARG(slice_sub(line, 1, line.n))) };
	return 0;
}

static int
passwd(void *ctx, struct slice name, struct arena *a, struct resolve_user *user_r)
{
	return user(ctx, PASSWD, name, a, user_r);
}

static int
account(void *ctx, struct slice address, struct arena *a, struct resolve_user *user_r)
{
	int err = user(ctx, ACCOUNT, address, a, user_r);

	if (!err)
		user_r->mailbox = user_r->home;
	return err;
}

static bool
own(void *ctx, struct slice literal)
{
	(void)ctx;
	return literal.n % 2;
}

static const struct resolve_ops ops = { lookup, defined, named, passwd, account, own };

#define DOMAINS                                                                                    \
	"myorigin = e.test\nmydestination = e.test, .s.test\nvirtual_alias_domains = a.test\n"     \
	"virtual_mailbox_domains = v.test, hash:/x\nrelay_domains = !n.r.test, r.test\n"           \
	"recipient_delimiter = +-\n"

static const char *const configurations[] = {
	DOMAINS "home_mailbox = Maildir/\nmasquerade_domains = e.test\n",
	DOMAINS
	"luser_relay = $user+$extension@far.test\nmailbox_transport = lmtp:inet:127.0.0.1:24\n"
	"relayhost = [hub.test]:26\nexpand_owner_alias = yes\nallow_percent_hack = yes\n"
	"virtual_alias_expansion_limit = 3\nvirtual_alias_recursion_limit = 2\n"
	"masquerade_domains = !x.e.test, e.test\nmasquerade_exceptions = root\n"
	"virtual_mailbox_base = /v\npropagate_unmatched_extensions = canonical, virtual\n",
};

static struct conf *
make_conf(size_t which)
{
	static struct conf_raw *raws[2]; /* kept: the configuration refers to it */
	struct conf_problems p = { 0 };
	struct conf_raw *raw = raws[which] = conf_raw_new("mx.example.test");
	struct conf *conf;

	conf_raw_read_files(raw, false);
	conf_raw_parse(raw, "main.cf", slice_str(configurations[which]), &p);
	conf = conf_eval(raw, NULL, 0, &p);
	must(conf && !p.errors);
	conf_problems_free(&p);
	return conf;
}

static void
check_finals(const struct resolver *r, const struct resolve_verdict *v, struct arena *a)
{
	size_t bytes = 0;

	must(v->code >= 200 && v->code < 600 && v->enhanced && v->text);
	must((v->code < 300) == (v->nfinals > 0));
	for (size_t i = 0; i < v->nfinals; i++) {
		struct slice one = v->finals[i];
		struct resolve_address again;

		bytes += one.n;
		must(one.n && slice_find(one, '\n') < 0 && slice_find(one, '\r') < 0 &&
		     slice_find(one, 0) < 0);
		one = slice_sub(one, one.p[0] == '\\', one.n); /* the mailbox itself */
		if (!r->conf->allow_percent_hack)
			must(!resolve_parse(r, one, a, &again) && slice_eq(again.full, one));
	}
	must(bytes < 60000);
}

static bool
same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static bool
same_verdict(const struct resolve_verdict *a, const struct resolve_verdict *b)
{
	for (size_t i = 0; i < a->nfinals && i < b->nfinals; i++)
		if (!slice_eq(a->finals[i], b->finals[i]))
			return false;
	return a->code == b->code && a->nfinals == b->nfinals && a->cacheable == b->cacheable &&
	       same_text(a->enhanced, b->enhanced) && same_text(a->text, b->text);
}

static bool
same_route(const struct resolve_route *a, const struct resolve_route *b)
{
	return a->status == b->status && a->kind == b->kind && a->port == b->port &&
	       a->run == b->run && a->flags == b->flags && a->user.uid == b->user.uid &&
	       same_text(a->enhanced, b->enhanced) && same_text(a->text, b->text) &&
	       same_text(a->user.name, b->user.name) && slice_eq(a->transport, b->transport) &&
	       slice_eq(a->nexthop, b->nexthop) && slice_eq(a->mailbox, b->mailbox) &&
	       slice_eq(a->extension, b->extension) && slice_eq(a->argument, b->argument);
}

/* Calls once more each time that more of the tables have answered. */
static void
step_by_step(const struct resolver *r, struct slice address, uint32_t flags, bool route,
    const struct resolve_verdict *v, const struct resolve_route *to)
{
	struct run *run = r->ctx;
	struct arena arena = { 0 };
	struct resolve_verdict verdict = { 0 };
	struct resolve_route other = { 0 };
	int err;

	run->patience = 0;
	do {
		run->asked = 0;
		run->patience += 1 + run->patience / 8;
		arena_reset(&arena);
		err = route ? resolve_route(r, address, &arena, &other)
			    : resolve_rcpt(r, address, flags, &arena, &verdict);
	} while (err == -EAGAIN);
	must(!err && (route ? same_route(to, &other) : same_verdict(v, &verdict)));
	arena_free(&arena);
}

static void
resolve(const struct resolver *r, struct slice address, uint32_t flags, bool route)
{
	struct run *run = r->ctx;
	struct arena arena = { 0 };
	struct resolve_verdict v = { 0 };
	struct resolve_route to = { 0 };
	int err;

	run->patience = UINT32_MAX;
	err = route ? resolve_route(r, address, &arena, &to)
		    : resolve_rcpt(r, address, flags, &arena, &v);
	must(!err || (err == -EAGAIN && !run->keyed));
	if (!err && !route)
		check_finals(r, &v, &arena);
	if (!err && route && !to.status && to.kind == ROUTE_LOCAL)
		must(to.user.uid >= (uint32_t)r->conf->first_valid_uid);
	if (run->keyed)
		step_by_step(r, address, flags, route, &v, &to);
	arena_free(&arena);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct conf *conf[2];
	struct run run = { 0 };
	struct resolver r = { NULL, &ops, &run };
	struct slice address;

	if (size < 2)
		return 0;
	for (size_t i = 0; i < 2 && !conf[i]; i++)
		conf[i] = make_conf(i);
	r.conf = conf[data[0] >> 6 & 1];
	run.keyed = data[0] & 128;
	run.fail = data[1];
	run.answers = slice(data + 2, size - 2);
	address = slice_split(&run.answers, '\n');
	resolve(&r, address, data[0] & 31, data[0] & 32);
	return 0;
}
