/*
 * STORE, EXPUNGE, UID EXPUNGE, CLOSE. Runs in imapd-child. Changes are made in portions, so that
 *other connections of the user get their turn; each portion is durable before its responses go out.
 *
 *	store           = "STORE" SP sequence-set SP store-att-flags
 *	store-att-flags = (["+" / "-"] "FLAGS" [".SILENT"]) SP (flag-list / (flag *(SP flag)))
 *	uid-expunge     = "UID" SP "EXPUNGE" SP sequence-set
 */
#include "imap/command.h"

#include <stdlib.h>

struct store_task {
	struct flag_change change;
	struct uid_list uids;
	size_t at, told;
	bool silent;
	bool close; /* EXPUNGE for CLOSE: tells nothing, and ends with the mailbox deselected */
};

static void
store_task_free(struct imap_session *s)
{
	struct store_task *t = s->task;

	uid_list_free(&t->uids);
	free(t);
}

/* Keywords that a command names; only one that is good makes new ones. */
struct keywords {
	struct slice *names;
	size_t n, size;
};

static void
add_keyword(struct imap_session *s, struct keywords *k, struct slice name)
{
	struct slice *bigger;

	if (k->n == k->size) {
		k->size = k->size ? 2 * k->size : 8;
		bigger = arena_alloc(&s->arena, k->size * sizeof(*bigger));
		if (k->n)
			memcpy(bigger, k->names, k->n * sizeof(*bigger));
		k->names = bigger;
	}
	k->names[k->n++] = name;
}

static void
one_flag(struct imap_session *s, struct imap_parse *p, struct flag_change *c, struct keywords *k)
{
	struct slice name;

	if (!imap_flag(p, &name))
		return;
	if (name.p[0] == '\\')
		c->flags |= imap_system_flag(name);
	else
		add_keyword(s, k, name);
}

static void
flags(struct imap_session *s, struct imap_parse *p, struct flag_change *c, struct keywords *k)
{
	bool list = imap_try(p, '(');

	if (list && imap_try(p, ')'))
		return;
	do
		one_flag(s, p, c, k);
	while (imap_try(p, ' '));
	if (list)
		(void)imap_need(p, ')');
}

/* 0, or ERR_LIMIT, ERR_SYNTAX for a keyword that cannot be. */
static int
resolve_keywords(struct imap_session *s, const struct keywords *k, struct flag_change *c)
{
	for (size_t i = 0; i < k->n; i++) {
		int index = mailbox_keyword_index(s->mailbox, k->names[i], c->op != FLAG_OP_REMOVE);

		if (index < 0 && c->op != FLAG_OP_REMOVE)
			return index;
		if (index >= 0)
			c->keywords |= 1ull << index;
	}
	return 0;
}

static void
tell_flags(struct imap_session *s, struct store_task *t)
{
	for (; t->told < t->at; t->told++) {
		uint32_t uid = t->uids.uids[t->told], seq = mailbox_seq(s->mailbox, uid);

		if (t->silent || !seq || !mailbox_message(s->mailbox, seq))
			continue;
		imap_putf(s, "* %u FETCH (", seq);
		if (s->uid || s->rev2)
			imap_putf(s, "UID %u ", uid);
		imap_put_flags(s, seq);
		imap_put(s, ")\r\n");
	}
}

static enum imap_step
store_step(struct imap_session *s)
{
	struct store_task *t = s->task;
	size_t n = t->uids.count - t->at;
	int err;

	if (n > IMAP_UIDS_A_STEP)
		n = IMAP_UIDS_A_STEP;
	if (n) {
		err = mailbox_store_flags(
		    s->mailbox, t->uids.uids + t->at, n, &t->change, NULL, NULL);
		if (err < 0) {
			imap_store_failed(s, err);
			return STEP_DONE;
		}
		t->at += n;
		tell_flags(s, t);
	}
	if (t->at < t->uids.count)
		return STEP_AGAIN;
	imap_ok(s, s->uid, "Done");
	return STEP_DONE;
}

void
imap_cmd_store(struct imap_session *s, struct imap_parse *p)
{
	struct store_task *t;
	struct imap_set set;
	struct flag_change change = { .op = FLAG_OP_SET };
	struct keywords keywords = { 0 };
	unsigned known = mailbox_keyword_count(s->mailbox);
	bool silent;
	int err;

	if (!imap_sp(p) || !imap_set(p, &set) || !imap_sp(p))
		return;
	if (imap_try(p, '+'))
		change.op = FLAG_OP_ADD;
	else if (imap_try(p, '-'))
		change.op = FLAG_OP_REMOVE;
	if (!imap_try_text(p, "FLAGS")) {
		imap_fail(p, "FLAGS expected");
		return;
	}
	silent = imap_try_text(p, ".SILENT");
	if (!imap_sp(p))
		return;
	flags(s, p, &change, &keywords);
	if (!imap_end(p))
		return;
	if (mailbox_read_only(s->mailbox)) {
		imap_no(s, "[READ-ONLY] The mailbox is opened read-only");
		return;
	}
	t = xcalloc(1, sizeof(*t));
	if (!imap_resolve(s, &set, &t->uids)) {
		free(t);
		return;
	}
	err = resolve_keywords(s, &keywords, &change);
	if (err < 0) {
		imap_no(s, err == ERR_LIMIT ? "[LIMIT] Too many keywords in this mailbox"
					    : "[CANNOT] Not a possible keyword");
		uid_list_free(&t->uids);
		free(t);
		return;
	}
	t->change = change;
	t->silent = silent;
	if (mailbox_keyword_count(s->mailbox) != known)
		imap_put_mailbox_flags(s);
	imap_start(s, t, store_step, store_task_free);
}

/* --- EXPUNGE, CLOSE --- */

static enum imap_step
expunge_end(struct imap_session *s, bool close, int err)
{
	if (close)
		imap_deselect(s);
	if (err < 0)
		imap_store_failed(s, err);
	else
		imap_ok(s, true, "Done");
	return STEP_DONE;
}

static enum imap_step
expunge_step(struct imap_session *s)
{
	struct store_task *t = s->task;
	size_t n = t->uids.count - t->at;
	int err;

	if (n > IMAP_UIDS_A_STEP)
		n = IMAP_UIDS_A_STEP;
	if (n) {
		err = mailbox_expunge(s->mailbox, t->uids.uids + t->at, n, FLAG_DELETED);
		if (err < 0)
			return expunge_end(s, t->close, err);
		t->at += n;
		s->counts.expunged += n;
		if (!t->close)
			imap_sync(s, true);
	}
	return t->at < t->uids.count ? STEP_AGAIN : expunge_end(s, t->close, 0);
}

/* Starts the removal of all that is marked \Deleted, or of those of only. */
static void
start_expunge(struct imap_session *s, const struct uid_list *only, bool close)
{
	struct store_task *t = xcalloc(1, sizeof(*t));

	t->close = close;
	for (uint32_t seq = 1; seq <= mailbox_count(s->mailbox); seq++) {
		const struct message *m = mailbox_message(s->mailbox, seq);

		if (m && m->flags & FLAG_DELETED && (!only || imap_uid_listed(only, m->uid)))
			uid_list_add(&t->uids, m->uid);
	}
	imap_start(s, t, expunge_step, store_task_free);
}

void
imap_cmd_expunge(struct imap_session *s, struct imap_parse *p)
{
	struct imap_set set;
	struct uid_list only = { 0 };

	if (s->uid && (!imap_sp(p) || !imap_set(p, &set)))
		return;
	if (!imap_end(p))
		return;
	if (mailbox_read_only(s->mailbox)) {
		imap_no(s, "[READ-ONLY] The mailbox is opened read-only");
		return;
	}
	if (s->uid && !imap_resolve(s, &set, &only))
		return;
	start_expunge(s, s->uid ? &only : NULL, false);
	uid_list_free(&only);
}

void
imap_cmd_close(struct imap_session *s, struct imap_parse *p)
{
	if (!imap_end(p))
		return;
	if (mailbox_read_only(s->mailbox))
		(void)expunge_end(s, true, 0);
	else
		start_expunge(s, NULL, true);
}
