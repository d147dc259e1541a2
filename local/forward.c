/*
 * .forward and the items of aliases. Runs on a thread of the delivery child, as the recipient (or
 * as default_privs for aliases); the text is the user's own: hostile. Local items are delivered
 * here, new addresses go back to qmgr, which makes their envelope durable before this recipient
 * counts as done. If any local item has to be tried again, nothing is handed back: all of it is
 * tried again.
 */
#include "local/job.h"

#include "mail/address.h"

#include <errno.h>
#include <stdlib.h>

/* Whether an item of .forward means the user's own mailbox: his name, or an address of this
 * recipient. */
static bool
is_name_here(const struct job *j, struct slice text, struct slice name)
{
	const struct conf *conf = j->child->conf;
	ptrdiff_t at = slice_rfind(text, '@');
	struct slice domain = slice_sub(text, at < 0 ? text.n : (size_t)at + 1, text.n);

	if (at < 0)
		return slice_caseeq(text, name);
	return slice_caseeq(slice_sub(text, 0, (size_t)at), name) &&
	       (conf_list_has_domain(&conf->mydestination, domain) ||
		   slice_caseeq_str(domain, conf->myorigin));
}

static bool
is_self(const struct job *j, const struct item_job_rcpt *rcpt, struct slice text)
{
	return slice_caseeq(text, rcpt->address) ||
	       (rcpt->original.n && slice_caseeq(text, rcpt->original)) ||
	       is_name_here(j, text, slice_str(j->child->target->user));
}

/* Of an alias that names itself its own address is what comes of it: qmgr takes that for the
 * mailbox. */
static struct slice
from_alias_to(const struct job *j, const struct item_job_rcpt *rcpt, struct slice text)
{
	ptrdiff_t at = slice_rfind(rcpt->address, '@');
	struct slice name = slice_sub(rcpt->address, 0, at < 0 ? rcpt->address.n : (size_t)at);

	if (rcpt->extension.n && name.n > rcpt->extension.n + 1)
		name.n -= rcpt->extension.n + 1;
	return is_name_here(j, text, name) ? rcpt->address : text;
}

/* \name of somebody else: qmgr asks for the mailbox. */
static struct slice
mailbox_of(struct job *j, struct slice text)
{
	return slice_str(arena_printf(&j->arena, "\\%.*s", SLICE_ARG(text)));
}

/* The address that an item stands for, or nothing where it means the mailbox of this recipient. */
static struct slice
address_of(
    struct job *j, const struct item_job_rcpt *rcpt, const struct alias_item *item, bool from_alias)
{
	struct slice to;

	if (item->kind != ALIAS_ADDRESS && item->kind != ALIAS_SELF)
		return SLICE_NULL;
	if (!from_alias && is_self(j, rcpt, item->text))
		return SLICE_NULL;
	to = from_alias ? from_alias_to(j, rcpt, item->text) : item->text;
	return item->kind == ALIAS_SELF && to.p != rcpt->address.p ? mailbox_of(j, to) : to;
}

static void
add_address(struct job *j, struct outcome *o, size_t *size, struct slice text)
{
	if (o->naddresses == *size) {
		size_t n = *size ? *size * 2 : 8;
		struct slice *v = arena_alloc(&j->arena, n * sizeof(*v));

		if (o->naddresses)
			memcpy(v, o->addresses, o->naddresses * sizeof(*v));
		o->addresses = v;
		*size = n;
	}
	o->addresses[o->naddresses++] = text;
}

static void deliver_item(struct job *j, const struct item_job_rcpt *rcpt,
    const struct alias_item *item, bool from_alias, struct outcome *all, size_t *size);

/* The worse of two: what has to be tried again comes before what has failed for good. */
static void
merge(struct outcome *all, const struct outcome *one)
{
	static const int rank[] = {
		[RESULT_DONE] = 0, [RESULT_EXPANDED] = 0, [RESULT_FAILED] = 1, [RESULT_DEFERRED] = 2
	};

	if (all->text && rank[one->status] <= rank[all->status])
		return;
	all->status = one->status;
	all->enhanced = one->enhanced;
	all->text = one->text;
}

/* The items of a file of the user's; *why_r lives in the arena. */
static int
parse_items(struct job *j, const struct buf *text, struct alias_items *items_r, const char **why_r)
{
	size_t limit = (size_t)j->child->conf->forward_expansion_limit;
	int err = alias_parse(&j->arena, buf_slice(text), true, limit, items_r, why_r);

	if (err == ERR_LIMIT)
		*why_r = arena_printf(&j->arena, "%s (forward_expansion_limit)", *why_r);
	return err;
}

/* :include: in a .forward: a file below the home, of one level. */
static void
deliver_include(struct job *j, const struct item_job_rcpt *rcpt, struct slice path,
    struct outcome *all, size_t *size)
{
	const struct target *t = j->child->target;
	const struct conf *conf = j->child->conf;
	struct outcome one = { .status = RESULT_DEFERRED, .enhanced = "4.3.5", .text = "" };
	struct alias_items items = { 0 };
	struct buf text = { 0 };
	struct slice rest;
	const char *why = "it does not lie below the home";
	int err = ERR_DENIED;

	if (t->home_is_root && !mailbox_below(path, slice_str(t->home), &rest) && rest.n)
		err = target_read_forward(
		    t, arena_printf(&j->arena, "%.*s", SLICE_ARG(rest)), conf, &text, &why);
	if (err && !why)
		why = err_str(err);
	if (!err)
		err = parse_items(j, &text, &items, &why);
	buf_free(&text);
	for (size_t i = 0; i < items.n && !err; i++) {
		enum alias_kind kind = items.items[i].kind;

		why = "a list includes another one, or holds what allow_mail_to_commands and "
		      "allow_mail_to_files do not allow in lists";
		if (kind == ALIAS_INCLUDE ||
		    (kind == ALIAS_COMMAND &&
			!conf_list_has(&conf->allow_mail_to_commands, SLICE_LIT("include"))) ||
		    (kind == ALIAS_FILE &&
			!conf_list_has(&conf->allow_mail_to_files, SLICE_LIT("include"))))
			err = ERR_DENIED;
		else
			deliver_item(j, rcpt, &items.items[i], false, all, size);
	}
	if (!err)
		return;
	one.text = arena_printf(&j->arena, "the list %.*s: %s", SLICE_ARG(path), why);
	merge(all, &one);
}

static void
deliver_item(struct job *j, const struct item_job_rcpt *rcpt, const struct alias_item *item,
    bool from_alias, struct outcome *all, size_t *size)
{
	const struct conf *conf = j->child->conf;
	struct outcome one = { .status = RESULT_DEFERRED, .enhanced = "4.3.0", .text = "" };
	struct slice address = address_of(j, rcpt, item, from_alias);

	job_sign(j);
	if (address.n) {
		if (item->text.n <= ADDRESS_MAX) {
			add_address(j, all, size, address);
			return;
		}
		outcome_set(&one, RESULT_DEFERRED, "4.3.5", "an address is too long");
	} else if (item->kind == ALIAS_INCLUDE) {
		deliver_include(j, rcpt, item->text, all, size);
		return;
	} else if (item->kind == ALIAS_ADDRESS || item->kind == ALIAS_SELF) {
		deliver_mailbox(j, rcpt, &one);
	} else if (item->kind == ALIAS_COMMAND) {
		if (from_alias ||
		    conf_list_has(&conf->allow_mail_to_commands, SLICE_LIT("forward")))
			deliver_command(j, rcpt, item->text, false, &one);
		else
			outcome_set(&one, RESULT_FAILED, "5.7.1",
			    "commands in .forward are not allowed (allow_mail_to_commands)");
	} else if (item->kind == ALIAS_FILE) {
		if (from_alias || conf_list_has(&conf->allow_mail_to_files, SLICE_LIT("forward")))
			deliver_file(j, rcpt, item->text, &one);
		else
			outcome_set(&one, RESULT_FAILED, "5.7.1",
			    "files in .forward are not allowed (allow_mail_to_files)");
	}
	merge(all, &one);
}

void
deliver_items(struct job *j, const struct item_job_rcpt *rcpt, const struct alias_items *items,
    bool from_alias, struct outcome *o)
{
	struct outcome all = { .status = RESULT_DONE, .text = NULL, .sender = o->sender };
	size_t size = 0;

	for (size_t i = 0; i < items->n; i++)
		deliver_item(j, rcpt, &items->items[i], from_alias, &all, &size);
	if (all.naddresses && (all.status == RESULT_DONE || all.status == RESULT_EXPANDED)) {
		all.status = RESULT_EXPANDED;
		all.enhanced = "2.1.5";
		all.text = arena_printf(&j->arena, "forwarded to %zu address%s", all.naddresses,
		    all.naddresses == 1 ? "" : "es");
		if (from_alias && rcpt->argument.n && all.sender.n)
			all.sender = rcpt->argument; /* owner-NAME; a notice stays without sender */
	}
	if (!all.text)
		outcome_set(&all, RESULT_DEFERRED, "4.3.5", "the alias or list is empty");
	*o = all;
}

/* --- .forward --- */

struct names {
	const struct job *j;
	const struct item_job_rcpt *rcpt;
};

static int
name_value(void *ctx, struct slice name, struct buf *out)
{
	const struct names *n = ctx;
	const struct target *t = n->j->child->target;
	struct slice extension = n->rcpt->extension;

	if (slice_eq_str(name, "home"))
		return buf_add_str(out, t->home);
	if (slice_eq_str(name, "user"))
		return buf_add_str(out, t->user);
	if (slice_eq_str(name, "extension"))
		return buf_add(out, extension);
	if (slice_eq_str(name, "recipient_delimiter")) /* empty where there is no extension */
		return extension.n ? buf_add_str(out, n->j->child->conf->recipient_delimiter) : 0;
	return ERR_NOT_FOUND;
}

/* An extension becomes a part of a path: it must not climb. */
static bool
is_harmless(struct slice extension)
{
	return slice_find(extension, '/') < 0 && slice_find(extension, 0) < 0;
}

/* Reads the first file of forward_path that exists. */
static int
find_forward(struct job *j, const struct item_job_rcpt *rcpt, struct buf *text, const char **file_r,
    const char **why_r)
{
	const struct target *t = j->child->target;
	struct names names = { j, rcpt };
	struct buf expanded = { 0 };
	struct slice list, item, last = SLICE_NULL, rest;
	char why[CONF_WHY];
	int err = is_harmless(rcpt->extension)
		      ? conf_expand(slice_str(j->child->conf->forward_path), false, name_value,
			    &names, &expanded, why)
		      : ERR_SYNTAX;

	list = arena_dup(&j->arena, buf_slice(&expanded));
	buf_free(&expanded);
	if (err)
		list = slice_str(arena_printf(&j->arena, "%s/.forward", t->home));
	err = ERR_NOT_FOUND;
	while (err == ERR_NOT_FOUND && (list = slice_trim(list, true)).n) {
		const char *refused = NULL;

		item = slice_trim(slice_split(&list, ','), true);
		if (slice_eq(item, last) || mailbox_below(item, slice_str(t->home), &rest) ||
		    !rest.n)
			continue;
		last = item;
		*file_r = arena_printf(&j->arena, "%.*s", SLICE_ARG(rest));
		buf_clear(text);
		err = target_read_forward(t, *file_r, j->child->conf, text, &refused);
		if (err == ERR_DENIED) {
			log_event(LOG_forward_ignored, "qid=%s user=%s file=%s reason=\"%s\"",
			    log_value(j->m->queue_id), log_cstr(t->user), log_cstr(*file_r),
			    refused);
			err = ERR_NOT_FOUND;
		}
		*why_r = refused;
	}
	return err;
}

bool
deliver_forward(struct job *j, const struct item_job_rcpt *rcpt, struct outcome *o)
{
	const struct target *t = j->child->target;
	struct alias_items items;
	struct buf text = { 0 };
	const char *file = ".forward", *why = NULL;
	int err;

	if (!(t->flags & ROUTE_FORWARD))
		return false;
	if (t->home_is_root) {
		err = find_forward(j, rcpt, &text, &file, &why);
	} else {
		err = t->has_forward ? 0 : ERR_NOT_FOUND;
		buf_add(&text, buf_slice(&t->forward));
	}
	if (err == ERR_NOT_FOUND) {
		buf_free(&text);
		return false;
	}
	if (!err && parse_items(j, &text, &items, &why))
		outcome_set(o, RESULT_DEFERRED, "4.3.5",
		    arena_printf(&j->arena, "%s of %s, %s", file, t->user, why));
	else if (err)
		outcome_set(o, RESULT_DEFERRED, "4.3.0",
		    arena_printf(&j->arena, "cannot read %s of %s: %s", file, t->user,
			why ? why : err_str(err)));
	else if (items.n)
		deliver_items(j, rcpt, &items, false, o);
	buf_free(&text);
	return err || o->text[0] || items.n;
}
