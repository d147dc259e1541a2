/*
 * What a recipient becomes: canonical tables, relay rules, the check that it exists, then virtual
 * aliases and those local aliases that give plain addresses. Runs in maps (uid bh-maps); the
 * address comes from strangers. Expansion is a worklist, not a recursion, bounded in steps and in
 * size; at a bound the recipient is refused whole, never cut. A dead table is 451, never 550.
 */
#include "helpers/maps/resolve.h"

#include "base/hash.h"
#include "db/alias.h"

#include <errno.h>
#include <stdlib.h>

struct final {
	struct hash_node node;
	struct slice address;
};

struct work {
	struct slice address;
	unsigned depth;
	const struct work *from; /* what it came from: a result that is on this way is final */
	bool to_self;            /* \name: no alias of it is looked up */
};

struct expansion {
	const struct resolver *r;
	struct arena *a;
	struct resolve_verdict *out;
	struct work *queue;
	size_t head, tail, size;
	struct hash finals;
	size_t bytes;
	bool asked_nss;
};

enum { /* of all final addresses: they travel in one message */
	FINALS_MAX = 1000,
	FINAL_BYTES = 48 * 1024,
};

static int
reply(struct resolve_verdict *out, unsigned code, const char *enhanced, const char *text)
{
	out->code = code;
	out->enhanced = enhanced;
	out->text = text;
	out->finals = NULL;
	out->nfinals = 0;
	return 0;
}

/* Maps an error of a look-up to the verdict; -EAGAIN is handed up. */
static int
trouble(struct resolve_verdict *out, int err)
{
	if (err == -EAGAIN)
		return -EAGAIN;
	return reply(out, 451, "4.3.0", "Temporary lookup failure");
}

/* --- senders --- */

static int
sender(const struct resolver *r, struct resolve_address *addr, struct arena *a,
    struct resolve_verdict *out)
{
	int err = resolve_rewrite(r, TABLE_SENDER_CANONICAL, a, addr);

	if (!err)
		err = resolve_rewrite(r, TABLE_CANONICAL, a, addr);
	if (!err)
		err = resolve_masquerade(r, a, addr);
	if (err)
		return trouble(out, err);
	reply(out, 250, "2.1.0", "Ok");
	out->finals = arena_alloc(a, sizeof(struct slice));
	out->finals[0] = addr->full;
	out->nfinals = 1;
	return 0;
}

/* --- is it taken? --- */

static bool
is_always_valid(struct slice user)
{
	return slice_eq_str(user, "root") || slice_eq_str(user, "postmaster") ||
	       slice_eq_str(user, "abuse") || slice_eq_str(user, "mailer-daemon");
}

/* 0 if the recipient exists, ERR_NOT_FOUND with the name of the table in *where_r, or trouble. */
static int
exists(const struct resolver *r, enum resolve_class class, const struct resolve_address *addr,
    struct arena *a, const char **where_r, bool *asked_nss)
{
	struct resolve_user user;
	enum resolve_form form;
	struct slice value;
	int err;

	switch (class) {
	case CLASS_LOCAL:
		*where_r = "local recipient table";
		if (!r->ops->defined(r->ctx, TABLE_LOCAL_RECIPIENT) || r->conf->luser_relay[0] ||
		    is_always_valid(addr->user))
			return 0;
		*asked_nss = true;
		err = resolve_lookup(r, TABLE_LOCAL_RECIPIENT, addr, a, &value, &form);
		return err == ERR_NOT_FOUND ? r->ops->account(r->ctx, addr->user, a, &user) : err;
	case CLASS_VIRTUAL_ALIAS:
		*where_r = "virtual alias table";
		return ERR_NOT_FOUND; /* the caller has looked there */
	case CLASS_VIRTUAL_MAILBOX:
		*where_r = "virtual mailbox table";
		err = r->ops->account(r->ctx, addr->full, a, &user);
		if (err == ERR_NOT_FOUND && addr->extension.p)
			err = r->ops->account(r->ctx,
			    slice_str(arena_printf(
				a, "%.*s@%.*s", SLICE_ARG(addr->user), SLICE_ARG(addr->domain))),
			    a, &user);
		if (err != ERR_NOT_FOUND)
			return err;
		return resolve_lookup(r, TABLE_VIRTUAL_MAILBOX, addr, a, &value, &form);
	case CLASS_RELAY:
		*where_r = "relay recipient table";
		if (!r->ops->defined(r->ctx, TABLE_RELAY_RECIPIENT))
			return 0;
		return resolve_lookup(r, TABLE_RELAY_RECIPIENT, addr, a, &value, &form);
	default:
		return 0;
	}
}

/* Whether the address itself or what the tables make of it is taken. */
static int
check(struct expansion *e, const struct resolve_address *addr, enum resolve_class class)
{
	const struct resolver *r = e->r;
	const char *where = "";
	enum resolve_form form;
	struct slice value;
	int err = resolve_lookup(r, TABLE_RELOCATED, addr, e->a, &value, &form);

	if (!err)
		return reply(e->out, 550, "5.1.6",
		    arena_printf(e->a, "<%.*s>: Recipient address rejected: User has moved to %.*s",
			SLICE_ARG(addr->full), SLICE_ARG(value)));
	if (err != ERR_NOT_FOUND)
		return trouble(e->out, err);
	err = resolve_lookup(r, TABLE_VIRTUAL_ALIAS, addr, e->a, &value, &form);
	if (err == ERR_NOT_FOUND)
		err = exists(r, class, addr, e->a, &where, &e->asked_nss);
	if (err == ERR_NOT_FOUND)
		return reply(e->out,
		    class == CLASS_LOCAL ? (unsigned)r->conf->unknown_local_recipient_reject_code
					 : 550,
		    class == CLASS_LOCAL && r->conf->unknown_local_recipient_reject_code < 500
			? "4.1.1"
			: "5.1.1",
		    arena_printf(e->a, "<%.*s>: Recipient address rejected: User unknown in %s",
			SLICE_ARG(addr->full), where));
	return err ? trouble(e->out, err) : 0;
}

/* --- expansion --- */

static void
push(struct expansion *e, struct slice address, const struct work *from, bool to_self)
{
	struct work *w;

	if (e->tail == e->size) {
		e->size = e->size ? e->size * 2 : 8;
		e->queue = xrealloc(e->queue, e->size * sizeof(*e->queue));
	}
	w = &e->queue[e->tail++];
	*w = (struct work){ address, from ? from->depth + 1 : 0, from, to_self };
}

static int
finish(struct expansion *e, struct slice address)
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
		push(e, to.full, w, items->items[i].kind == ALIAS_SELF);
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
	for (size_t i = 0; i < items.n; i++)
		if (items.items[i].kind != ALIAS_ADDRESS && items.items[i].kind != ALIAS_SELF)
			return 0;
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

	if (!e->r->conf->luser_relay[0] || is_always_valid(addr->user) || w->from)
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
	push(e, to.full, w, false);
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
	return finish(e, addr.full);
}

/* The worklist grows by moving, so what is worked on is copied into the arena first. */
static int
expand(struct expansion *e, struct slice address)
{
	int err = 0;

	push(e, address, NULL, false);
	while (!err && e->head < e->tail) {
		struct work *w = arena_alloc(e->a, sizeof(*w));

		*w = e->queue[e->head++];
		err = expand_one(e, w);
	}
	if (err == ERR_LIMIT)
		return reply(e->out, 452, "4.5.3",
		    "Recipient stands for too many addresses (virtual_alias_expansion_limit)");
	if (err == ERR_STATE)
		return reply(e->out, 554, "5.4.6",
		    "Recipient expands in a loop (virtual_alias_recursion_limit)");
	if (err == ERR_SYNTAX)
		return reply(
		    e->out, 451, "4.3.5", "An alias of the recipient has an invalid value");
	if (err)
		return trouble(e->out, err);
	e->out->code = 250;
	e->out->enhanced = "2.1.5";
	e->out->text = "Ok";
	return 0;
}

static int
add_bcc(struct expansion *e, const struct resolve_address *addr)
{
	struct resolve_address to;
	enum resolve_form form;
	struct slice value;
	int err = resolve_lookup(e->r, TABLE_RECIPIENT_BCC, addr, e->a, &value, &form);

	if (err)
		return err == ERR_NOT_FOUND ? 0 : trouble(e->out, err);
	if (!resolve_parse(e->r, value, e->a, &to))
		push(e, to.full, NULL, false);
	return 0;
}

static int
recipient(struct expansion *e, struct resolve_address *addr, uint32_t flags)
{
	enum resolve_class class;
	int err = resolve_rewrite(e->r, TABLE_RECIPIENT_CANONICAL, e->a, addr);

	if (!err)
		err = resolve_rewrite(e->r, TABLE_CANONICAL, e->a, addr);
	if (!err)
		err = resolve_class(e->r, addr->domain, e->a, &class);
	if (err)
		return trouble(e->out, err);
	if (class == CLASS_DEFAULT && !(flags & (RESOLVE_MAY_RELAY | RESOLVE_LOCAL)))
		return reply(e->out, 554, "5.7.1",
		    arena_printf(e->a, "<%.*s>: Relay access denied", SLICE_ARG(addr->full)));
	if (e->r->conf->smtpd_reject_unlisted_recipient) {
		err = check(e, addr, class);
		if (err || e->out->code)
			return err;
	}
	if (flags & RESOLVE_FINAL) {
		reply(e->out, 250, "2.1.5", "Ok");
		(void)finish(e, addr->full);
		return 0;
	}
	err = add_bcc(e, addr);
	return err || e->out->code ? err : expand(e, addr->full);
}

int
resolve_rcpt(const struct resolver *r, struct slice address, uint32_t flags, struct arena *a,
    struct resolve_verdict *out_r)
{
	struct expansion e = { .r = r, .a = a, .out = out_r };
	struct resolve_address addr;
	int err;

	*out_r = (struct resolve_verdict){ 0 };
	if (!address.n)
		address = slice_str(r->conf->empty_address_recipient);
	err = resolve_parse(r, address, a, &addr);
	if (err == -EAGAIN)
		return err;
	if (err == ERR_SYNTAX || err == ERR_LIMIT || err == ERR_DENIED)
		err = reply(out_r, flags & RESOLVE_SENDER ? 501 : 553,
		    flags & RESOLVE_SENDER ? "5.1.7" : "5.1.3", "Bad address syntax");
	else if (err)
		err = trouble(out_r, err);
	else if (flags & RESOLVE_SENDER)
		err = sender(r, &addr, a, out_r);
	else
		err = recipient(&e, &addr, flags);
	out_r->cacheable = !err && out_r->code / 100 == 2;
	free(e.queue);
	hash_free(&e.finals);
	return err;
}
