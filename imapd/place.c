/*
 * The mail directory of a user. Runs in the imapd zygote on a field of the broker's request, which
 * auth made.
 */
#include "imapd/place.h"

#include "db/mailbox.h"

char *
imapd_place(struct slice spec, const char **why_r)
{
	struct mailbox m;

	*why_r = NULL;
	if (mailbox_parse(spec, &m) < 0)
		*why_r = "the mailbox spec of the user is invalid";
	else if (m.kind != MAILBOX_MAILDIR)
		*why_r = "the mailbox of the user is one file, and IMAP needs a Maildir: set "
			 "home_mailbox = Maildir/";
	return *why_r ? NULL : slice_dup(m.path);
}
