/* Where a user's mail lies, from the mailbox spec of session_start. Apart from the rest, since the
 * store and lib/db both have a struct mailbox. */
#ifndef IMAPD_PLACE_H
#define IMAPD_PLACE_H

#include "base/slice.h"

/* The directory of the user's Maildir (the caller frees), or NULL with why: a constant for the log.
 */
char *imapd_place(struct slice spec, const char **why_r);

#endif
