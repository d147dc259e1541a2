/*
 * Addresses as resolution sees them: completed, taken apart, looked up in their forms, put into a
 * class. Runs in maps (uid bh-maps); addresses come from strangers. Every error of a table is
 * handed up as it is: nobody is told "unknown" because a table is dead.
 */
#include "helpers/maps/resolve.h"

#include "mail/address.h"

static struct slice
lower(struct arena *a, struct slice s)
{
	unsigned char *out = arena_alloc(a, s.n + 1);

	for (size_t i = 0; i < s.n; i++)
		out[i] = ascii_lower(s.p[i]);
	return slice(out, s.n);
}

/* Names whose - or + is a part of the name. */
static bool
is_unsplit(const struct resolver *r, struct slice plain)
{
	return slice_caseeq_str(plain, "mailer-daemon") || slice_has_caseprefix(plain, "owner-") ||
	       slice_has_casesuffix(plain, "-request") ||
	       slice_caseeq_str(plain, r->conf->double_bounce_sender);
}

static void
split_extension(const struct resolver *r, struct slice plain, struct resolve_address *out)
{
	struct slice delimiters = slice_str(r->conf->recipient_delimiter);

	out->user = plain;
	out->extension = SLICE_NULL;
	if (!delimiters.n || is_unsplit(r, plain))
		return;
	for (size_t i = 1; i < plain.n; i++)
		if (slice_find(delimiters, plain.p[i]) >= 0) {
			out->user = slice_sub(plain, 0, i);
			out->extension = slice_sub(plain, i + 1, plain.n);
			return;
		}
}

static int
take_apart(
    const struct resolver *r, const char *full, struct arena *a, struct resolve_address *out_r)
{
	struct buf plain = { 0 };
	struct address addr;
	ptrdiff_t at;
	int err;

	*out_r = (struct resolve_address){ 0 };
	out_r->full = slice(arena_strdup(a, full), strlen(full));
	err = address_parse(out_r->full, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, &addr);
	if (err)
		return err;
	at = addr.domain.n ? slice_rfind(out_r->full, '@') : (ptrdiff_t)out_r->full.n;
	out_r->local = slice_sub(out_r->full, 0, (size_t)at);
	out_r->domain = slice_sub(out_r->full, (size_t)at + 1, out_r->full.n);
	address_local(&addr, &plain);
	split_extension(r, arena_dup(a, buf_slice(&plain)), out_r);
	out_r->user = lower(a, out_r->user);
	out_r->plain = lower(a, buf_slice(&plain));
	buf_free(&plain);
	return 0;
}

static int
is_local(const struct resolver *r, const struct resolve_address *to, struct arena *a)
{
	enum resolve_class class;
	int err = resolve_class(r, to->domain, a, &class);

	return err ? err : class == CLASS_LOCAL;
}

int
resolve_is_itself(const struct resolver *r, const struct resolve_address *addr,
    const struct alias_item *item, struct arena *a)
{
	struct resolve_address to;

	if (resolve_parse(r, item->text, a, &to) || !slice_eq(to.user, addr->user))
		return 0;
	return is_local(r, &to, a);
}

int
resolve_is_mailbox(const struct resolver *r, const struct resolve_address *addr,
    const struct alias_item *item, struct arena *a)
{
	struct resolve_address to;

	if (item->kind != ALIAS_SELF || resolve_parse(r, item->text, a, &to) ||
	    slice_eq(to.user, addr->user))
		return 0;
	return is_local(r, &to, a);
}

/* The %-hack, off by default: user%domain at one of our own domains. */
static int
unhack(const struct resolver *r, struct arena *a, struct resolve_address *addr)
{
	ptrdiff_t at = slice_rfind(addr->local, '%');
	enum resolve_class class;
	int err;

	if (!r->conf->allow_percent_hack || at <= 0 || addr->local.p[0] == '"')
		return 0;
	err = resolve_class(r, addr->domain, a, &class);
	if (err || class != CLASS_LOCAL)
		return err;
	return take_apart(r,
	    arena_printf(a, "%.*s@%.*s", (int)at, (const char *)addr->local.p,
		(int)(addr->local.n - (size_t)at - 1), (const char *)addr->local.p + at + 1),
	    a, addr);
}

int
resolve_parse(
    const struct resolver *r, struct slice text, struct arena *a, struct resolve_address *out_r)
{
	const struct conf *conf = r->conf;
	char full[ADDRESS_BUF_SIZE];
	int err = address_normalise(text, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN, full);

	if (!err)
		err = take_apart(r, full, a, out_r);
	if (err || (!out_r->local.n && !out_r->domain.n))
		return err ? err : ERR_SYNTAX;
	if (!out_r->domain.n && conf->append_at_myorigin)
		err = take_apart(r, arena_printf(a, "%s@%s", full, conf->myorigin), a, out_r);
	else if (out_r->domain.n && conf->append_dot_mydomain &&
		 slice_find(out_r->domain, '.') < 0 && out_r->domain.p[0] != '[' &&
		 !slice_eq_str(out_r->domain, "localhost"))
		err = take_apart(r, arena_printf(a, "%s.%s", full, conf->mydomain), a, out_r);
	if (!err)
		err = unhack(r, a, out_r);
	return err;
}

/* One word of a list of domains: a name, .name for its subdomains, or type:table. */
static int
word_matches(const struct resolver *r, struct slice word, struct slice domain, struct arena *a)
{
	struct buf value = { 0 };
	int err;

	(void)a;
	if (slice_find(word, ':') > 0 && word.p[0] != '[') {
		err = r->ops->named(r->ctx, word, domain, &value);
		buf_free(&value);
		return err;
	}
	if (slice_caseeq(word, domain))
		return 0;
	if (word.n && word.p[0] == '.' && domain.n > word.n &&
	    slice_caseeq(word, slice_sub(domain, domain.n - word.n, domain.n)))
		return 0;
	return ERR_NOT_FOUND;
}

/* parents: the word stands for its subdomains too. */
static int
word_or_parent_matches(
    const struct resolver *r, struct slice word, struct slice domain, bool parents, struct arena *a)
{
	int err;

	do {
		err = word_matches(r, word, domain, a);
		if (err != ERR_NOT_FOUND)
			return err;
		slice_split(&domain, '.');
	} while (parents && domain.n);
	return ERR_NOT_FOUND;
}

/* The first word that matches decides. */
static int
resolve_in_list(const struct resolver *r, const struct conf_list *list, struct slice domain,
    bool parents, struct arena *a)
{
	for (size_t i = 0; i < list->n; i++) {
		struct slice word = slice_str(list->v[i]);
		bool negated = word.n && word.p[0] == '!';
		int err = word_or_parent_matches(
		    r, negated ? slice_sub(word, 1, word.n) : word, domain, parents, a);

		if (!err)
			return negated ? ERR_NOT_FOUND : 0;
		if (err != ERR_NOT_FOUND)
			return err;
	}
	return ERR_NOT_FOUND;
}

/* "[127.0.0.1]" and the like: this machine, as far as inet_interfaces has its addresses. */
static bool
is_own_literal(const struct resolver *r, struct slice domain)
{
	const struct conf_list *own = &r->conf->inet_interfaces;

	if (domain.n < 3 || domain.p[0] != '[' || domain.p[domain.n - 1] != ']')
		return false;
	domain = slice_sub(domain, 1, domain.n - 1);
	if (domain.n > 5 && slice_caseeq_str(slice_sub(domain, 0, 5), "ipv6:"))
		domain = slice_sub(domain, 5, domain.n);
	if (slice_has_prefix(domain, "127.") || slice_eq_str(domain, "::1"))
		return true;
	for (size_t i = 0; i < own->n; i++) {
		struct slice word = slice_str(own->v[i]);

		if (slice_eq_str(word, "all") && r->ops->own(r->ctx, domain))
			return true;
		if (word.n > 2 && word.p[0] == '[')
			word = slice_sub(word, 1, word.n - 1);
		if (slice_caseeq(word, domain))
			return true;
	}
	return false;
}

int
resolve_class(
    const struct resolver *r, struct slice domain, struct arena *a, enum resolve_class *out_r)
{
	const struct {
		const struct conf_list *list;
		enum resolve_class class;
	} lists[] = {
		{ &r->conf->mydestination, CLASS_LOCAL },
		{ &r->conf->virtual_alias_domains, CLASS_VIRTUAL_ALIAS },
		{ &r->conf->virtual_mailbox_domains, CLASS_VIRTUAL_MAILBOX },
	};
	int err;

	if (is_own_literal(r, domain)) {
		*out_r = CLASS_LOCAL;
		return 0;
	}
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		err = domain.n ? resolve_in_list(r, lists[i].list, domain, false, a) : 0;
		if (!err)
			*out_r = lists[i].class;
		if (err != ERR_NOT_FOUND)
			return err;
	}
	/* relay_domains take their subdomains in, as Postfix has them */
	err = resolve_in_list(r, &r->conf->relay_domains, domain, true, a);
	*out_r = err ? CLASS_DEFAULT : CLASS_RELAY;
	return err == ERR_NOT_FOUND ? 0 : err;
}

/* One key; the value becomes a text in the arena. An empty one (""@example.org has it) is in no
 * table. */
static int
ask(const struct resolver *r, enum resolve_table table, struct slice key, bool whole,
    struct arena *a, struct slice *value_r)
{
	struct buf value = { 0 };
	int err = key.n ? r->ops->lookup(r->ctx, table, key, whole, &value) : ERR_NOT_FOUND;

	if (!err)
		*value_r = arena_dup(a, slice_trim(buf_slice(&value), true));
	buf_free(&value);
	return err;
}

int
resolve_lookup(const struct resolver *r, enum resolve_table table,
    const struct resolve_address *addr, struct arena *a, struct slice *value_r,
    enum resolve_form *form_r)
{
	enum resolve_class class;
	struct slice forms[5];
	bool is_local;
	int err;

	if (!r->ops->defined(r->ctx, table))
		return ERR_NOT_FOUND;
	err = resolve_class(r, addr->domain, a, &class);
	if (err)
		return err;
	is_local = class == CLASS_LOCAL || slice_caseeq_str(addr->domain, r->conf->myorigin);
	forms[FORM_ADDRESS] = addr->full;
	forms[FORM_USER_DOMAIN] =
	    slice_str(arena_printf(a, "%.*s@%.*s", SLICE_ARG(addr->user), SLICE_ARG(addr->domain)));
	forms[FORM_LOCAL] = is_local ? addr->plain : SLICE_NULL;
	forms[FORM_USER] = is_local ? addr->user : SLICE_NULL;
	forms[FORM_DOMAIN] = slice_str(arena_printf(a, "@%.*s", SLICE_ARG(addr->domain)));
	if (!addr->extension.p)
		forms[FORM_USER_DOMAIN] = forms[FORM_USER] = SLICE_NULL;
	if (!addr->domain.n)
		forms[FORM_USER_DOMAIN] = forms[FORM_DOMAIN] = SLICE_NULL;
	for (int form = FORM_ADDRESS; form <= FORM_DOMAIN; form++) {
		if (!forms[form].n)
			continue;
		err = ask(r, table, forms[form], form == FORM_ADDRESS, a, value_r);
		if (err != ERR_NOT_FOUND) {
			*form_r = (enum resolve_form)form;
			return err;
		}
	}
	return ERR_NOT_FOUND;
}

/* RFC 5321 and RFC 2142 want these to exist. */
static const char *
implicit_alias(struct slice user)
{
	if (slice_eq_str(user, "mailer-daemon") || slice_eq_str(user, "abuse"))
		return "postmaster";
	return slice_eq_str(user, "postmaster") ? "root" : NULL;
}

int
resolve_alias(const struct resolver *r, const struct resolve_address *addr, struct arena *a,
    struct slice *value_r)
{
	struct resolve_user user;
	const char *implicit;
	int err = ERR_NOT_FOUND;

	if (r->ops->defined(r->ctx, TABLE_ALIAS)) {
		err = ask(r, TABLE_ALIAS, addr->plain, true, a, value_r);
		if (err == ERR_NOT_FOUND && addr->extension.p)
			err = ask(r, TABLE_ALIAS, addr->user, true, a, value_r);
	}
	implicit = implicit_alias(addr->user);
	if (err != ERR_NOT_FOUND || !implicit)
		return err;
	err = r->ops->passwd(r->ctx, addr->user, a, &user);
	if (err != ERR_NOT_FOUND)
		return err ? err : ERR_NOT_FOUND;
	*value_r = slice_str(implicit);
	return 0;
}
