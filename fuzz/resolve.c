/*
 * Fuzz target: the resolution of addresses in maps. Byte 0: flags; byte 1: which look-ups fail;
 * then lines: the address, and what the tables answer, in turn. Checked: an answer is a whole one,
 * the final addresses fit into one message and are the canonical form of themselves, no route names
 * a user below first_valid_uid.
 */
#include "fuzz/must.h"
#include "helpers/maps/resolve.h"

#include <errno.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
	struct slice answers;
	unsigned asked, fail;
};

static int
lookup(void *ctx, enum resolve_table table, struct slice key, bool whole, struct buf *value)
{
	struct run *r = ctx;

	(void)whole;
	must(key.n && slice_find(key, '\n') < 0);
	if (++r->asked % 8 == 7)
		return r->fail & 1 ? ERR_TEMPORARY : r->fail & 2 ? -EAGAIN : ERR_NOT_FOUND;
	if (!r->answers.n || (r->fail >> (2 + table % 6) & 1))
		return ERR_NOT_FOUND;
	buf_add(value, slice_split(&r->answers, '\n'));
	return buf_len(value) ? 0 : ERR_NOT_FOUND;
}

static bool
defined(void *ctx, enum resolve_table table)
{
	(void)ctx;
	return table != TABLE_RECIPIENT_BCC;
}

static int
named(void *ctx, struct slice spec, struct slice key, struct buf *value)
{
	(void)spec;
	return lookup(ctx, TABLE_TRANSPORT, key, true, value);
}

static int
passwd(void *ctx, struct slice name, struct arena *a, struct resolve_user *user_r)
{
	struct run *r = ctx;
	struct slice line = slice_split(&r->answers, '\n');

	if (!line.n || slice_find(line, 0) >= 0)
		return ERR_NOT_FOUND;
	*user_r = (struct resolve_user){ .name = arena_printf(a, "%.*s", SLICE_ARG(name)),
		.uid = line.p[0] * 10u,
		.gid = line.n > 1 ? line.p[1] * 10u : 1,
		.home = arena_printf(a, "%.*s", SLICE_ARG(line)) };
	return 0;
}

static int
account(void *ctx, struct slice address, struct arena *a, struct resolve_user *user_r)
{
	int err = passwd(ctx, address, a, user_r);

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

static struct conf *
make_conf(void)
{
	struct conf_problems p = { 0 };
	static struct conf_raw *raw; /* kept: the configuration refers to it */
	struct conf *conf;

	raw = conf_raw_new("mx.example.test");
	conf_raw_read_files(raw, false);
	conf_raw_parse(raw, "main.cf",
	    SLICE_LIT("myorigin = e.test\nmydestination = e.test, .s.test\n"
		      "virtual_alias_domains = a.test\nvirtual_mailbox_domains = v.test, hash:/x\n"
		      "relay_domains = r.test\nhome_mailbox = Maildir/\nrecipient_delimiter = +-\n"
		      "masquerade_domains = e.test\n"),
	    &p);
	conf = conf_eval(raw, NULL, 0, &p);
	must(conf);
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
		struct resolve_address again;

		bytes += v->finals[i].n;
		must(v->finals[i].n && slice_find(v->finals[i], '\n') < 0 &&
		     slice_find(v->finals[i], '\r') < 0 && slice_find(v->finals[i], 0) < 0);
		must(!resolve_parse(r, v->finals[i], a, &again) &&
		     slice_eq(again.full, v->finals[i]));
	}
	must(bytes < 60000);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct conf *conf;
	struct run run = { 0 };
	struct resolver r = { NULL, &ops, &run };
	struct arena arena = { 0 };
	struct resolve_verdict v;
	struct resolve_route route;
	struct slice address;

	if (size < 2)
		return 0;
	if (!conf)
		conf = make_conf();
	r.conf = conf;
	run.fail = data[1];
	run.answers = slice(data + 2, size - 2);
	address = slice_split(&run.answers, '\n');
	if (data[0] & 16) {
		if (!resolve_route(&r, address, &arena, &route) && !route.status &&
		    route.kind == ROUTE_LOCAL)
			must(route.user.uid >= (uint32_t)conf->first_valid_uid);
	} else if (!resolve_rcpt(&r, address, data[0] & 15, &arena, &v)) {
		check_finals(&r, &v, &arena);
	}
	arena_free(&arena);
	return 0;
}
