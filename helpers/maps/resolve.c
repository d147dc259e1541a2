/*
 * What a recipient becomes: canonical tables, relay rules and the check that it exists; then
 * expand.c. Runs in maps (uid bh-maps); the address comes from strangers. A dead table is 451,
 * never 550.
 */
#include "helpers/maps/expand.h"

#include <errno.h>
#include <stdlib.h>

int
resolve_reply(struct resolve_verdict *out, unsigned code, const char *enhanced, const char *text)
{
	out->code = code;
	out->enhanced = enhanced;
	out->text = text;
	out->finals = NULL;
	out->nfinals = 0;
	return 0;
}

/* Maps an error of a look-up to the verdict; -EAGAIN is handed up. */
int
resolve_trouble(struct resolve_verdict *out, int err)
{
	if (err == -EAGAIN)
		return -EAGAIN;
	return resolve_reply(out, 451, "4.3.0", "Temporary lookup failure");
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
		return resolve_trouble(out, err);
	resolve_reply(out, 250, "2.1.0", "Ok");
	out->finals = arena_alloc(a, sizeof(struct slice));
	out->finals[0] = addr->full;
	out->nfinals = 1;
	return 0;
}

/* --- is it taken? --- */

bool
resolve_always_valid(struct slice user)
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
		    resolve_always_valid(addr->user))
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
		return resolve_reply(e->out, 550, "5.1.6",
		    arena_printf(e->a, "<%.*s>: Recipient address rejected: User has moved to %.*s",
			SLICE_ARG(addr->full), SLICE_ARG(value)));
	if (err != ERR_NOT_FOUND)
		return resolve_trouble(e->out, err);
	err = resolve_lookup(r, TABLE_VIRTUAL_ALIAS, addr, e->a, &value, &form);
	if (err == ERR_NOT_FOUND)
		err = exists(r, class, addr, e->a, &where, &e->asked_nss);
	if (err == ERR_NOT_FOUND)
		return resolve_reply(e->out,
		    class == CLASS_LOCAL ? (unsigned)r->conf->unknown_local_recipient_reject_code
					 : 550,
		    class == CLASS_LOCAL && r->conf->unknown_local_recipient_reject_code < 500
			? "4.1.1"
			: "5.1.1",
		    arena_printf(e->a, "<%.*s>: Recipient address rejected: User unknown in %s",
			SLICE_ARG(addr->full), where));
	return err ? resolve_trouble(e->out, err) : 0;
}

/* --- the whole --- */

static int
add_bcc(struct expansion *e, const struct resolve_address *addr)
{
	struct resolve_address to;
	enum resolve_form form;
	struct slice value;
	int err = resolve_lookup(e->r, TABLE_RECIPIENT_BCC, addr, e->a, &value, &form);

	if (err)
		return err == ERR_NOT_FOUND ? 0 : resolve_trouble(e->out, err);
	if (!resolve_parse(e->r, value, e->a, &to))
		expand_push(e, to.full, NULL, false);
	return 0;
}

/* user%domain at a domain whose tables may lead home, where the hack would send it on: for who may
 * relay only. */
static bool
is_routed(const struct resolver *r, const struct resolve_address *addr)
{
	return r->conf->allow_percent_hack && slice_find(addr->plain, '%') >= 0;
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
		return resolve_trouble(e->out, err);
	if ((class == CLASS_DEFAULT || is_routed(e->r, addr)) &&
	    !(flags & (RESOLVE_MAY_RELAY | RESOLVE_LOCAL)))
		return resolve_reply(e->out, 554, "5.7.1",
		    arena_printf(e->a, "<%.*s>: Relay access denied", SLICE_ARG(addr->full)));
	if (e->r->conf->smtpd_reject_unlisted_recipient) {
		err = check(e, addr, class);
		if (err || e->out->code)
			return err;
	}
	if (flags & RESOLVE_FINAL) {
		resolve_reply(e->out, 250, "2.1.5", "Ok");
		(void)expand_finish(e, addr->full);
		return 0;
	}
	err = add_bcc(e, addr);
	return err || e->out->code ? err : expand_run(e, addr->full, flags & RESOLVE_MAILBOX);
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
		err = resolve_reply(out_r, flags & RESOLVE_SENDER ? 501 : 553,
		    flags & RESOLVE_SENDER ? "5.1.7" : "5.1.3", "Bad address syntax");
	else if (err)
		err = resolve_trouble(out_r, err);
	else if (flags & RESOLVE_SENDER)
		err = sender(r, &addr, a, out_r);
	else
		err = recipient(&e, &addr, flags);
	out_r->cacheable = !err && out_r->code / 100 == 2;
	free(e.queue);
	hash_free(&e.finals);
	return err;
}
