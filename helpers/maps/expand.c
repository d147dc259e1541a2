/*
 * What an address expands to: virtual aliases, those local aliases that give plain addresses, and
 * luser_relay. Runs in maps (uid bh-maps). Hostile: the address; values of tables may be wrong.
 * Expansion is a worklist, not a recursion, bounded in steps and in size; at a bound the recipient
 * is refused whole, never cut.
 */
#include "helpers/maps/expand.h"

#include "db/alias.h"

#include <errno.h>
#include <stdlib.h>

struct final {
	struct hash_node node;
	struct slice address;
};

enum {                     /* of all final addresses: they travel in one message */
	FINALS_MAX = 1000, /* the upper bound of virtual_alias_expansion_limit too */
	FINAL_BYTES = 48 * 1024,
};

void
expand_push(struct expansion *e, struct slice address, const struct work *from, bool to_self)
{
	struct work *w;

	if (e->tail == e->size) {
		e->size = e->size ? e->size * 2 : 8;
		e->queue = xrealloc(e->queue, e->size * sizeof(*e->queue));
	}
	w = &e->queue[e->tail++];
	*w = (struct work){ address, from ? from->depth + 1 : 0, from, to_self };
}

int
expand_finish(struct expansion *e, struct slice address)
{
	struct final *f;

	if (hash_find(&e->finals, address))
		return 0;
	f = arena_alloc(e->a, sizeof(*f));
	f->address = address;
	hash_insert(&e->finals, &f->node, address);
	if (!(e->out->nfinals & (e->out->nfinals - 1))) {
		struct slice *v =
		    arena_alloc(e->a, (e->out->nfinals ? e->out->nfinals * 2 : 1) * sizeof(*v));
		if (e->out->nfinals)
			memcpy(v, e->out->finals, e->out->nfinals * sizeof(*v));
		e->out->finals = v;
	}
	e->out->finals[e->out->nfinals++] = address;
	e->bytes += address.n + 8;
	return e->bytes > FINAL_BYTES || e->out->nfinals > FINALS_MAX ||
		       e->out->nfinals > (size_t)e->r->conf->virtual_alias_expansion_limit
		   ? ERR_LIMIT
		   : 0;
}

/* An address that stands for itself, or for what it came from, is where expansion ends. */
static bool
on_the_way(const struct work *w, struct slice address)
{
	for (; w; w = w->from)
		if (slice_eq(w->address, address))
			return true;
	return false;
}

/* Pushes the results; each is completed first. ERR_SYNTAX names a fault of the table. */
static int
push_items(struct expansion *e, const struct work *w, const struct alias_items *items,
    struct slice extension)
{
	char delimiter = e->r->conf->recipient_delimiter[0];

	for (size_t i = 0; i < items->n; i++) {
		struct resolve_address to;
		struct slice text = items->items[i].text;
		int err;

		if (text.p[0] == '@') {
			struct resolve_address self;
			if (resolve_parse(e->r, w->address, e->a, &self))
				return ERR_SYNTAX;
			text = slice_str(
			    arena_printf(e->a, "%.*s%.*s", SLICE_ARG(self.local), SLICE_ARG(text)));
		}
		err = resolve_parse(e->r, text, e->a, &to);
		if (!err && extension.p && delimiter && !to.extension.p)
			err = resolve_parse(e->r,
			    slice_str(arena_printf(e->a, "%.*s%c%.*s@%.*s", SLICE_ARG(to.local),
				delimiter, SLICE_ARG(extension), SLICE_ARG(to.domain))),
			    e->a, &to);
		if (err)
			return err;
		expand_push(e, to.full, w, items->items[i].kind == ALIAS_SELF);
		if (e->tail - e->head > (size_t)e->r->conf->virtual_alias_expansion_limit + 1)
			return ERR_LIMIT;
	}
	return 0;
}

static int
parse_items(struct expansion *e, struct slice value, struct alias_items *items)
{
	const char *why;

	return alias_parse(
	    e->a, value, false, (size_t)e->r->conf->virtual_alias_expansion_limit + 1, items, &why);
}

/* 1: the virtual tables replaced it; 0: they do not know it. */
static int
expand_virtual(struct expansion *e, const struct work *w, const struct resolve_address *addr)
{
	struct alias_items items;
	enum resolve_form form;
	struct slice value, extension = SLICE_NULL;
	int err = resolve_lookup(e->r, TABLE_VIRTUAL_ALIAS, addr, e->a, &value, &form);

	if (err)
		return err == ERR_NOT_FOUND ? 0 : err;
	if (w->from && on_the_way(w->from, addr->full))
		return 0;
	err = parse_items(e, value, &items);
	if (err)
		return err;
	if (!alias_is_plain(&items) || !items.n)
		return ERR_SYNTAX;
	if (addr->extension.p && form != FORM_ADDRESS && form != FORM_LOCAL &&
	    conf_list_has(&e->r->conf->propagate_unmatched_extensions, SLICE_LIT("virtual")))
		extension = addr->extension;
	err = push_items(e, w, &items, extension);
	return err ? err : 1;
}

/* 1: an alias of plain addresses replaced it; 0: none, or one that is left to the delivery. */
static int
expand_alias(struct expansion *e, const struct work *w, const struct resolve_address *addr)
{
	struct alias_items items;
	struct slice value, owner;
	struct resolve_address list;
	int err;

	if (w->to_self || (w->from && on_the_way(w->from, addr->full)))
		return 0;
	e->asked_nss = true;
	err = resolve_alias(e->r, addr, e->a, &value);
	if (err)
		return err == ERR_NOT_FOUND ? 0 : err;
	err = parse_items(e, value, &items);
	if (err)
		return err == ERR_LIMIT ? err : 0; /* the delivery says what is wrong with it */
	for (size_t i = 0; i < items.n; i++) {
		if (items.items[i].kind != ALIAS_ADDRESS && items.items[i].kind != ALIAS_SELF)
			return 0;
		err = resolve_is_mailbox(e->r, addr, &items.items[i], e->a);
		if (err)
			return err < 0 ? err : 0;
	}
	if (resolve_parse(e->r, slice_str(arena_printf(e->a, "owner-%.*s", SLICE_ARG(addr->local))),
		e->a, &list))
		return 0;
	list.domain = addr->domain;
	if (e->r->ops->defined(e->r->ctx, TABLE_ALIAS)) {
		err = resolve_alias(e->r, &list, e->a, &owner);
		if (err != ERR_NOT_FOUND)
			return err; /* 0: a list with an owner */
	}
	if (!items.n)
		return ERR_SYNTAX;
	err = push_items(e, w, &items, SLICE_NULL);
	return err ? err : 1;
}

struct luser {
	const struct conf *conf;
	const struct resolve_address *addr;
};

static int
luser_name(void *ctx, struct slice name, struct buf *out)
{
	const struct luser *l = ctx;

	if (slice_eq_str(name, "user"))
		return buf_add(out, l->addr->user);
	if (slice_eq_str(name, "local"))
		return buf_add(out, l->addr->local);
	if (slice_eq_str(name, "extension"))
		return buf_add(out, l->addr->extension);
	if (slice_eq_str(name, "domain"))
		return buf_add(out, l->addr->domain);
	if (slice_eq_str(name, "recipient"))
		return buf_add(out, l->addr->full);
	if (slice_eq_str(name, "recipient_delimiter"))
		return buf_add_str(out, l->conf->recipient_delimiter);
	return ERR_NOT_FOUND;
}

/* 1: an unknown local user goes to luser_relay. */
static int
expand_luser(struct expansion *e, const struct work *w, const struct resolve_address *addr)
{
	struct luser luser = { e->r->conf, addr };
	struct resolve_user user;
	struct resolve_address to;
	struct buf text = { 0 };
	char why[CONF_WHY];
	struct slice value;
	int err;

	if (!e->r->conf->luser_relay[0] || resolve_always_valid(addr->user) || w->from)
		return 0;
	err = resolve_alias(e->r, addr, e->a, &value);
	if (err != ERR_NOT_FOUND)
		return err; /* 0: one that is left to the delivery */
	err = e->r->ops->passwd(e->r->ctx, addr->user, e->a, &user);
	if (err == ERR_NOT_FOUND)
		err = e->r->ops->account(e->r->ctx, addr->user, e->a, &user);
	if (err != ERR_NOT_FOUND)
		return err;
	err =
	    conf_expand(slice_str(e->r->conf->luser_relay), false, luser_name, &luser, &text, why);
	if (!err)
		err = resolve_parse(e->r, buf_slice(&text), e->a, &to);
	buf_free(&text);
	if (err)
		return ERR_SYNTAX;
	expand_push(e, to.full, w, false);
	return 1;
}

static int
expand_one(struct expansion *e, const struct work *w)
{
	struct resolve_address addr;
	enum resolve_class class;
	int err = resolve_parse(e->r, w->address, e->a, &addr);

	if (err)
		return err;
	if (w->depth > (unsigned)e->r->conf->virtual_alias_recursion_limit)
		return ERR_STATE;
	err = expand_virtual(e, w, &addr);
	if (err)
		return err < 0 ? err : 0;
	err = resolve_class(e->r, addr.domain, e->a, &class);
	if (!err && class == CLASS_LOCAL) {
		err = expand_alias(e, w, &addr);
		if (!err)
			err = expand_luser(e, w, &addr);
	}
	if (err)
		return err < 0 ? err : 0;
	if (w->to_self && !w->from && class == CLASS_LOCAL) /* qmgr asked for the mailbox */
		addr.full = slice_str(arena_printf(e->a, "\\%.*s", SLICE_ARG(addr.full)));
	return expand_finish(e, addr.full);
}

/* The worklist grows by moving, so what is worked on is copied into the arena first. */
int
expand_run(struct expansion *e, struct slice address, bool to_self)
{
	int err = 0;

	expand_push(e, address, NULL, to_self);
	while (!err && e->head < e->tail) {
		struct work *w = arena_alloc(e->a, sizeof(*w));

		*w = e->queue[e->head++];
		err = expand_one(e, w);
	}
	if (err == ERR_LIMIT && e->bytes > FINAL_BYTES)
		return resolve_reply(e->out, 452, "4.5.3",
		    "Recipient stands for addresses of more than 48 KiB in all: :include: them in "
		    "a local alias");
	if (err == ERR_LIMIT)
		return resolve_reply(e->out, 452, "4.5.3",
		    "Recipient stands for too many addresses (virtual_alias_expansion_limit)");
	if (err == ERR_STATE)
		return resolve_reply(e->out, 554, "5.4.6",
		    "Recipient expands in a loop (virtual_alias_recursion_limit)");
	if (err == ERR_SYNTAX)
		return resolve_reply(
		    e->out, 451, "4.3.5", "An alias of the recipient has an invalid value");
	if (err)
		return resolve_trouble(e->out, err);
	e->out->code = 250;
	e->out->enhanced = "2.1.5";
	e->out->text = "Ok";
	return 0;
}
