/*
 * COPY and MOVE (RFC 9051 sections 6.4.7 and 6.4.8, RFC 4315, RFC 6851). Runs in imapd-child. A
 * copy is all or nothing, so it is one call of the store.
 *
 *	copy = "COPY" SP sequence-set SP mailbox
 *	move = "MOVE" SP sequence-set SP mailbox
 */
#include "imap/command.h"

static void
put_uids(struct imap_session *s, const struct copy_result *r)
{
	imap_putf(s, "[COPYUID %u ", r->uidvalidity);
	imap_put_set(&s->out, r->from.uids, r->from.count);
	imap_put(s, " ");
	imap_put_set(&s->out, r->to.uids, r->to.count);
	imap_put(s, "] ");
}

static void
copied(struct imap_session *s, const struct copy_result *r)
{
	imap_sync(s, s->uid);
	if (s->ended)
		return;
	s->errors = 0;
	buf_add(&s->out, slice(s->tag, s->tag_len));
	imap_put(s, " OK ");
	if (r->to.count)
		put_uids(s, r);
	imap_put(s, "Copied\r\n");
}

/* RFC 6851 section 4.3: COPYUID comes untagged, before the expunges. */
static void
moved(struct imap_session *s, const struct copy_result *r)
{
	if (r->to.count) {
		imap_put(s, "* OK ");
		put_uids(s, r);
		imap_put(s, "Moved\r\n");
	}
	imap_ok(s, true, "Done");
}

static void
copy(struct imap_session *s, struct imap_parse *p, bool move)
{
	struct copy_result result = { 0 };
	struct uid_list uids;
	struct imap_set set;
	char *name;
	const char *why;
	int err;

	if (!imap_sp(p) || !imap_set(p, &set) || !imap_sp(p) || !imap_mailbox(s, p, &name, &why) ||
	    !imap_end(p))
		return;
	if (!name) {
		imap_no(s, why);
		return;
	}
	if (move && mailbox_read_only(s->mailbox)) {
		imap_no(s, "[READ-ONLY] The mailbox is opened read-only");
		return;
	}
	if (!imap_resolve(s, &set, &uids))
		return;
	err = store_exists(s->config.store, slice_str(name));
	if (err == 0 && uids.count)
		err =
		    mailbox_copy(s->mailbox, uids.uids, uids.count, slice_str(name), move, &result);
	if (err == ERR_NOT_FOUND)
		imap_no(s, "[TRYCREATE] There is no such mailbox");
	else if (err < 0)
		imap_store_failed(s, err);
	else if (move)
		moved(s, &result);
	else
		copied(s, &result);
	uid_list_free(&uids);
	copy_result_free(&result);
}

void
imap_cmd_copy(struct imap_session *s, struct imap_parse *p)
{
	copy(s, p, false);
}

void
imap_cmd_move(struct imap_session *s, struct imap_parse *p)
{
	copy(s, p, true);
}
