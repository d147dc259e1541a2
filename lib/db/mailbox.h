/*
 * Where the mail of a user lies: home_mailbox and mail_spool_directory as Postfix has them, said in
 * one text, the mailbox spec, that travels in messages: "maildir:PATH" or "mbox:PATH", PATH
 * absolute.
 */
#ifndef DB_MAILBOX_H
#define DB_MAILBOX_H

#include "base/buf.h"

enum mailbox_kind { MAILBOX_MAILDIR, MAILBOX_MBOX };

struct mailbox {
	enum mailbox_kind kind;
	struct slice path; /* absolute, without a final slash, no NUL, no ".." */
};

/*
 * The spec of a user: home_mailbox (below home; a final slash means Maildir), or if it is empty
 * mail_spool_directory/USER (a final slash of the directory means Maildir). Appends to out.
 * ERR_SYNTAX for a user name or home that cannot be part of a path.
 */
int mailbox_of_user(struct slice home_mailbox, struct slice mail_spool_directory, struct slice user,
    struct slice home, struct buf *out) CHECKED;
/* The spec of a virtual user: base/value, a final slash means Maildir. */
int mailbox_of_virtual(struct slice base, struct slice value, struct buf *out) CHECKED;
/* The uid of a virtual user that no table gives one: base + a digest of its address (letter case
 * does not matter) modulo count. */
uint32_t mailbox_virtual_uid(struct slice address, int64_t base, int64_t count);
/* Reads a spec; ERR_SYNTAX. */
int mailbox_parse(struct slice spec, struct mailbox *out_r) CHECKED;
/* If path lies below (or is) directory: what follows, without slashes in front; else ERR_NOT_FOUND.
 */
int mailbox_below(struct slice path, struct slice directory, struct slice *rest_r) CHECKED;

#endif
