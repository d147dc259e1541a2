/*
 * Where the mail of a final address goes: transport tables, then the class of its domain; for local
 * recipients, who to become and what to do there. Runs in maps (uid bh-maps); the address has
 * passed rcpt_check, but may have been queued under other tables since. What an admin has to mend
 * is a deferral that names the thing and the line to add; only a name that is surely unknown is
 * permanent.
 */
#include "helpers/maps/resolve.h"

#include "db/alias.h"
#include "db/mailbox.h"

#include <errno.h>

/* The file that an admin edits to mend an alias. */
static const char *
aliases_file(const struct conf *conf)
{
	for (size_t i = 0; i < conf->alias_maps.n; i++)
		if (conf->alias_maps.v[i].name[0] == '/')
			return conf->alias_maps.v[i].name;
	return "/etc/aliases";
}

static int
trouble(struct resolve_route *out, int err, const char *what)
{
	if (err == -EAGAIN)
		return -EAGAIN;
	return resolve_defer(out, "4.3.0", what);
}

static int
refuse(struct resolve_route *out, const char *enhanced, const char *text)
{
	out->status = 1;
	out->enhanced = enhanced;
	out->text = text;
	return 0;
}

/* --- virtual users --- */

/* A number from a table, or the default. */
static int
id_lookup(const struct resolver *r, enum resolve_table table, const struct resolve_address *addr,
    struct arena *a, uint32_t def, uint32_t *id_r)
{
	enum resolve_form form;
	struct slice value;
	uint64_t id;
	int err = resolve_lookup(r, table, addr, a, &value, &form);

	*id_r = def;
	if (err)
		return err == ERR_NOT_FOUND ? 0 : err;
	if (slice_u64(value, UINT32_MAX - 1, &id))
		return ERR_SYNTAX;
	*id_r = (uint32_t)id;
	return 0;
}

static int
route_virtual_map(const struct resolver *r, const struct resolve_address *addr, struct arena *a,
    struct resolve_route *out)
{
	const struct conf *conf = r->conf;
	struct buf spec = { 0 };
	struct mailbox mailbox;
	enum resolve_form form;
	struct slice value;
	int err = resolve_lookup(r, TABLE_VIRTUAL_MAILBOX, addr, a, &value, &form);

	if (err == ERR_NOT_FOUND)
		return refuse(
		    out, "5.1.1", arena_printf(a, "unknown user: \"%.*s\"", SLICE_ARG(addr->full)));
	if (!err)
		err = id_lookup(r, TABLE_VIRTUAL_UID, addr, a,
		    mailbox_virtual_uid(slice_str(arena_printf(a, "%.*s@%.*s",
					    SLICE_ARG(addr->user), SLICE_ARG(addr->domain))),
			conf->virtual_uid_base, conf->virtual_uid_count),
		    &out->user.uid);
	if (!err)
		err = id_lookup(r, TABLE_VIRTUAL_GID, addr, a, out->user.uid, &out->user.gid);
	if (!err)
		err = mailbox_of_virtual(slice_str(conf->virtual_mailbox_base), value, &spec);
	out->mailbox = arena_dup(a, buf_slice(&spec));
	buf_free(&spec);
	if (err == ERR_SYNTAX)
		return resolve_defer(out, "4.3.5",
		    arena_printf(a,
			"virtual_mailbox_maps, virtual_uid_maps or virtual_gid_maps has "
			"an invalid value for %.*s",
			SLICE_ARG(addr->full)));
	if (err)
		return trouble(out, err, "look-up of a virtual user failed");
	if (mailbox_parse(out->mailbox, &mailbox))
		return resolve_defer(out, "4.3.5", "virtual_mailbox_base is no usable path");
	out->user.name = arena_printf(a, "%.*s", SLICE_ARG(addr->full));
	out->user.home = arena_printf(a, "%.*s", SLICE_ARG(mailbox.path));
	if (mailbox.kind == MAILBOX_MBOX)
		out->user.home = conf->virtual_mailbox_base;
	return 0;
}

static int
check_uid(const struct resolver *r, struct resolve_route *out, struct arena *a)
{
	const struct resolve_user *u = &out->user;

	if (u->uid >= (uint32_t)r->conf->first_valid_uid &&
	    u->uid <= (uint32_t)r->conf->last_valid_uid)
		return 0;
	return resolve_defer(out, "4.3.5",
	    arena_printf(a, "uid %u of %s is outside of first_valid_uid .. last_valid_uid", u->uid,
		u->name));
}

/* An account of `bulkhead user`, by its login name or address. */
static int
route_account(const struct resolver *r, const struct resolve_address *addr, struct slice name,
    struct arena *a, struct resolve_route *out)
{
	int err = r->ops->account(r->ctx, name, a, &out->user);

	if (err == ERR_NOT_FOUND)
		return refuse(
		    out, "5.1.1", arena_printf(a, "unknown user: \"%.*s\"", SLICE_ARG(addr->full)));
	if (err)
		return trouble(out, err, "look-up of a user in auth failed");
	out->run = RUN_MAILBOX;
	out->flags = ROUTE_VIRTUAL;
	out->mailbox = slice_str(out->user.mailbox);
	return check_uid(r, out, a);
}

static int
route_virtual(const struct resolver *r, const struct resolve_address *addr, struct arena *a,
    struct resolve_route *out)
{
	struct slice user =
	    slice_str(arena_printf(a, "%.*s@%.*s", SLICE_ARG(addr->user), SLICE_ARG(addr->domain)));
	struct slice name = addr->full;
	struct resolve_user found;
	int err = r->ops->account(r->ctx, name, a, &found);

	out->transport = SLICE_LIT("virtual");
	out->extension = addr->extension;
	if (err == ERR_NOT_FOUND && addr->extension.p) {
		name = user;
		err = r->ops->account(r->ctx, name, a, &found);
	}
	if (err != ERR_NOT_FOUND)
		return route_account(r, addr, name, a, out);
	out->run = RUN_MAILBOX;
	out->flags = ROUTE_VIRTUAL;
	err = route_virtual_map(r, addr, a, out);
	return err || out->status ? err : check_uid(r, out, a);
}

/* --- local recipients --- */

/* The sender of what a list expands to, if it has an owner. */
static int
owner_of(const struct resolver *r, const struct resolve_address *addr, struct arena *a,
    struct slice *owner_r)
{
	struct resolve_address owner;
	struct alias_items items;
	struct slice value;
	const char *why;
	int err = resolve_parse(r,
	    slice_str(arena_printf(a, "owner-%.*s%s%.*s", SLICE_ARG(addr->plain),
		addr->domain.n ? "@" : "", SLICE_ARG(addr->domain))),
	    a, &owner);

	if (err)
		return 0; /* no such name can be */
	err = resolve_alias(r, &owner, a, &value);
	if (err)
		return err == ERR_NOT_FOUND ? 0 : err;
	*owner_r = owner.full;
	if (r->conf->expand_owner_alias && !alias_parse(a, value, false, 2, &items, &why) &&
	    items.n == 1 && items.items[0].kind == ALIAS_ADDRESS &&
	    !resolve_parse(r, items.items[0].text, a, &owner))
		*owner_r = owner.full;
	return 0;
}

/* Runs an alias that holds more than addresses as default_privs. */
static int
route_alias(const struct resolver *r, const struct resolve_address *addr, struct slice value,
    struct arena *a, struct resolve_route *out)
{
	const char *privs = r->conf->default_privs;
	struct alias_items items;
	const char *why;
	int err = alias_parse(a, value, false, 1000, &items, &why);

	if (err)
		return resolve_defer(out, "4.3.5",
		    arena_printf(a,
			"alias %.*s: %s; correct it in %s (alias_maps) and run newaliases",
			SLICE_ARG(addr->user), why, aliases_file(r->conf)));
	if (value.n > 4000)
		return resolve_defer(out, "4.3.5",
		    arena_printf(a,
			"alias %.*s: its value is longer than 4000 bytes and is no plain list of "
			"addresses; put the addresses into a file and :include: it",
			SLICE_ARG(addr->user)));
	err = r->ops->passwd(r->ctx, slice_str(privs), a, &out->user);
	if (err == ERR_NOT_FOUND)
		return resolve_defer(out, "4.3.5",
		    arena_printf(a, "default_privs names the unknown user %s", privs));
	if (err)
		return trouble(out, err, "user look-up failed (default_privs)");
	if (out->user.uid < (uint32_t)r->conf->first_valid_uid)
		return resolve_defer(out, "4.3.5",
		    arena_printf(a, "default_privs: the uid %u of %s is below first_valid_uid",
			out->user.uid, privs));
	out->run = RUN_ALIAS;
	err = owner_of(r, addr, a, &out->argument);
	if (err)
		return trouble(out, err, "alias look-up failed");
	out->mailbox = slice_str(arena_printf(a, "alias:%.*s", SLICE_ARG(value)));
	out->user.home = "/";
	return 0;
}

static int
route_user(const struct resolver *r, const struct resolve_address *addr, struct arena *a,
    struct resolve_route *out)
{
	const struct conf *conf = r->conf;
	struct resolve_user *u = &out->user;
	struct buf spec = { 0 };
	int err = r->ops->passwd(r->ctx, addr->user, a, u);

	if (err == ERR_NOT_FOUND && addr->extension.p) { /* a name that holds the delimiter */
		err = r->ops->passwd(r->ctx, addr->plain, a, u);
		if (!err)
			out->extension = SLICE_NULL;
	}
	if (err == ERR_NOT_FOUND && slice_eq_str(addr->user, "root"))
		return resolve_defer(out, "4.2.0",
		    arena_printf(a, "mail for root has no owner: add the line \"root: NAME\" to %s",
			aliases_file(conf)));
	if (err == ERR_NOT_FOUND)
		return route_account(r, addr, addr->user, a, out);
	if (err)
		return trouble(out, err, "user look-up failed");
	if (u->uid < (uint32_t)conf->first_valid_uid || u->uid > (uint32_t)conf->last_valid_uid)
		return resolve_defer(out, "4.2.0",
		    arena_printf(a,
			"uid %u of %s is outside of first_valid_uid .. last_valid_uid: add the "
			"line \"%s: NAME\" to %s",
			u->uid, u->name, u->name, aliases_file(conf)));
	err = mailbox_of_user(slice_str(conf->home_mailbox), slice_str(conf->mail_spool_directory),
	    slice_str(u->name), slice_str(u->home), &spec);
	out->mailbox = arena_dup(a, buf_slice(&spec));
	buf_free(&spec);
	if (err)
		return resolve_defer(out, "4.2.0",
		    arena_printf(a,
			"the mailbox of %s has no usable path: look at home_mailbox, "
			"mail_spool_directory and the home of the user",
			u->name));
	out->run = RUN_MAILBOX;
	out->flags = ROUTE_FORWARD;
	return 0;
}

/* Whether a user was found, be its uid fit for a delivery here or not. */
static bool
is_known(const struct resolve_route *out)
{
	return !out->status || (out->status == 2 && out->user.name);
}

/* Whether the alias was worked off before the mail was taken, and this recipient is what it names
 * itself: 1, 0 or the error of a table. expand.c leaves the others to the delivery. */
static int
was_expanded(const struct resolver *r, const struct resolve_address *addr, struct slice value,
    struct arena *a)
{
	struct slice owner = SLICE_NULL;
	struct alias_items items;
	const char *why;
	bool found = false;
	int is, other;

	if (alias_parse(a, value, false, 1000, &items, &why))
		return 0;
	for (size_t i = 0; i < items.n; i++) {
		const struct alias_item *item = &items.items[i];

		if (item->kind != ALIAS_ADDRESS && item->kind != ALIAS_SELF)
			return 0;
		other = resolve_is_mailbox(r, addr, item, a);
		if (other)
			return other < 0 ? other : 0;
		is = resolve_is_itself(r, addr, item, a);
		if (is < 0)
			return is;
		found = found || is;
	}
	is = found ? owner_of(r, addr, a, &owner) : 0;
	return is ? is : found && !owner.n;
}

static int
route_local(const struct resolver *r, const struct resolve_address *addr, bool mailbox,
    struct arena *a, struct resolve_route *out)
{
	struct slice value;
	int err = mailbox ? ERR_NOT_FOUND : resolve_alias(r, addr, a, &value), expanded;

	out->transport = SLICE_LIT("local");
	out->extension = addr->extension;
	if (err && err != ERR_NOT_FOUND)
		return trouble(out, err, "alias look-up failed");
	if (!err) {
		expanded = was_expanded(r, addr, value, a);
		if (expanded < 0)
			return trouble(out, expanded, "alias look-up failed");
		if (!expanded)
			return route_alias(r, addr, value, a, out);
	}
	err = route_user(r, addr, a, out);
	if (mailbox)
		out->flags &= ~(uint32_t)ROUTE_FORWARD;
	if (!err && r->conf->mailbox_transport[0] && is_known(out) &&
	    !(out->flags & ROUTE_VIRTUAL)) {
		*out = (struct resolve_route){ .enhanced = "2.0.0", .text = "" };
		resolve_transport(out, slice_str(r->conf->mailbox_transport), addr->domain, a);
	}
	return err;
}

/* --- all --- */

int
resolve_route(
    const struct resolver *r, struct slice address, struct arena *a, struct resolve_route *out)
{
	const struct conf *conf = r->conf;
	struct resolve_address addr;
	enum resolve_class class = CLASS_DEFAULT;
	struct slice value, nexthop;
	bool mailbox = address.n && address.p[0] == '\\';
	int err;

	*out = (struct resolve_route){ .enhanced = "2.0.0", .text = "" };
	err = resolve_parse(r, slice_sub(address, mailbox, address.n), a, &addr);
	if (err == ERR_SYNTAX || err == ERR_LIMIT || err == ERR_DENIED)
		return refuse(out, "5.1.3", "bad address syntax");
	if (!err)
		err = resolve_class(r, addr.domain, a, &class);
	if (err)
		return trouble(out, err, "table look-up failed");
	nexthop = addr.domain;
	switch (class) {
	case CLASS_LOCAL:
		value = slice_str(conf->local_transport);
		break;
	case CLASS_VIRTUAL_MAILBOX:
		value = slice_str(conf->virtual_transport);
		break;
	case CLASS_RELAY:
		value = slice_str(conf->relay_transport);
		break;
	case CLASS_VIRTUAL_ALIAS:
		return refuse(out, "5.1.1",
		    arena_printf(
			a, "unknown user in virtual alias table: \"%.*s\"", SLICE_ARG(addr.full)));
	default:
		value = slice_str(conf->default_transport);
	}
	/* for all that is not ours, relay_domains among it */
	if (conf->relayhost[0] && (class == CLASS_RELAY || class == CLASS_DEFAULT))
		nexthop = slice_str(conf->relayhost);
	resolve_transport(out, value, nexthop, a);
	err = resolve_transport_lookup(r, &addr, a, &value);
	if (!err && slice_eq_str(value, ":")) {
		/* as if it stood in no table */
	} else if (!err) {
		out->status = 0;
		out->port = 0;
		resolve_transport(out, value, addr.domain, a);
	} else if (err != ERR_NOT_FOUND) {
		return trouble(out, err, "transport look-up failed");
	}
	if (out->kind != ROUTE_LOCAL || out->status)
		return 0;
	if (class == CLASS_VIRTUAL_MAILBOX)
		return route_virtual(r, &addr, a, out);
	return route_local(r, &addr, mailbox, a, out);
}
