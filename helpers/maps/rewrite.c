/*
 * Rewriting of addresses by the canonical tables, and masquerading of senders. Runs in maps (uid
 * bh-maps); addresses come from strangers, tables from the admin. The number of passes is bounded.
 */
#include "helpers/maps/resolve.h"

enum { CANONICAL_LIMIT = 10 /* passes of one table */ };

/* One pass of one table: 1 if the address changed. */
static int
rewrite_once(const struct resolver *r, enum resolve_table table, struct arena *a,
    struct resolve_address *addr)
{
	struct resolve_address to;
	enum resolve_form form;
	struct slice value;
	int err = resolve_lookup(r, table, addr, a, &value, &form);

	if (err)
		return err == ERR_NOT_FOUND ? 0 : err;
	if (value.n && value.p[0] == '@') /* @domain: the local-part stays */
		value = slice_str(
		    arena_printf(a, "%.*s%.*s", SLICE_ARG(addr->local), SLICE_ARG(value)));
	else if (addr->extension.p && form != FORM_ADDRESS && form != FORM_LOCAL &&
		 r->conf->recipient_delimiter[0] &&
		 conf_list_has(&r->conf->propagate_unmatched_extensions, SLICE_LIT("canonical"))) {
		if (resolve_parse(r, value, a, &to))
			return ERR_TEMPORARY;
		value = slice_str(arena_printf(a, "%.*s%c%.*s@%.*s", SLICE_ARG(to.local),
		    r->conf->recipient_delimiter[0], SLICE_ARG(addr->extension),
		    SLICE_ARG(to.domain)));
	}
	if (resolve_parse(r, value, a, &to))
		return ERR_TEMPORARY;
	if (slice_eq(to.full, addr->full))
		return 0;
	*addr = to;
	return 1;
}

int
resolve_rewrite(const struct resolver *r, enum resolve_table table, struct arena *a,
    struct resolve_address *addr)
{
	for (int i = 0; i < CANONICAL_LIMIT; i++) {
		int err = rewrite_once(r, table, a, addr);

		if (err <= 0)
			return err;
	}
	return 0;
}

int
resolve_masquerade(const struct resolver *r, struct arena *a, struct resolve_address *addr)
{
	const struct conf *conf = r->conf;

	if (conf_list_has(&conf->masquerade_exceptions, addr->plain))
		return 0;
	for (size_t i = 0; i < conf->masquerade_domains.n; i++) {
		struct slice word = slice_str(conf->masquerade_domains.v[i]);
		bool spared = word.n && word.p[0] == '!';
		struct slice name = spared ? slice_sub(word, 1, word.n) : word;
		size_t n = addr->domain.n;

		if (slice_caseeq(addr->domain, name))
			return 0;
		if (n <= name.n || addr->domain.p[n - name.n - 1] != '.' ||
		    !slice_caseeq(slice_sub(addr->domain, n - name.n, n), name))
			continue;
		if (spared)
			return 0;
		return resolve_parse(r,
		    slice_str(
			arena_printf(a, "%.*s@%.*s", SLICE_ARG(addr->local), SLICE_ARG(name))),
		    a, addr);
	}
	return 0;
}
