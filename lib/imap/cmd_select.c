/*
 * SELECT, EXAMINE, UNSELECT.
 *
 *	select  = "SELECT" SP mailbox [select-params]
 *	examine = "EXAMINE" SP mailbox [select-params]
 */
#include "imap/command.h"

static void
put_state(struct imap_session *s, const char *oldname)
{
	uint32_t unseen = mailbox_first_unseen(s->mailbox);

	imap_put_mailbox_flags(s);
	imap_putf(s, "* %u EXISTS\r\n", mailbox_count(s->mailbox));
	if (!s->rev2) {
		imap_putf(s, "* %u RECENT\r\n", mailbox_recent_count(s->mailbox));
		if (unseen)
			imap_putf(s, "* OK [UNSEEN %u] First unseen\r\n", unseen);
	}
	imap_putf(s, "* OK [UIDVALIDITY %u] UIDs are valid\r\n", mailbox_uidvalidity(s->mailbox));
	imap_putf(s, "* OK [UIDNEXT %u] Next UID\r\n", mailbox_uidnext(s->mailbox));
	imap_put_name(s, "", mailbox_name(s->mailbox), oldname);
}

static void
select_mailbox(struct imap_session *s, struct imap_parse *p, bool read_only)
{
	char *name;
	const char *why;
	int err;

	if (!imap_sp(p) || !imap_mailbox(s, p, &name, &why))
		return;
	if (imap_peek(p) == ' ') {
		imap_fail(p, "Unknown parameter of SELECT");
		return;
	}
	if (!imap_end(p))
		return;
	/* A SELECT that fails leaves no mailbox selected (RFC 9051 section 6.3.2). */
	if (s->mailbox) {
		imap_deselect(s);
		imap_put(s, "* OK [CLOSED] The previous mailbox is closed\r\n");
	}
	if (!name) {
		imap_no(s, why);
		return;
	}
	err = mailbox_open(
	    s->config.store, slice_str(name), read_only ? MAILBOX_READ_ONLY : 0, &s->mailbox);
	if (err < 0) {
		s->mailbox = NULL;
		imap_store_failed(s, err);
		return;
	}
	put_state(s, s->oldname);
	s->errors = 0;
	imap_ok(s, true,
	    mailbox_read_only(s->mailbox) ? "[READ-ONLY] Selected" : "[READ-WRITE] Selected");
}

void
imap_cmd_select(struct imap_session *s, struct imap_parse *p)
{
	select_mailbox(s, p, false);
}

void
imap_cmd_examine(struct imap_session *s, struct imap_parse *p)
{
	select_mailbox(s, p, true);
}

void
imap_cmd_unselect(struct imap_session *s, struct imap_parse *p)
{
	if (!imap_end(p))
		return;
	imap_deselect(s);
	imap_ok(s, false, "Done");
}
