/* The one list of capabilities (RFC 9051 section 7.2.2). */
#ifndef IMAP_CAPABILITY_H
#define IMAP_CAPABILITY_H

#include "base/buf.h"

/* Appends "IMAP4rev1 ..." without CRLF, as it stands before login: mechanisms separated by spaces.
 */
void imap_capability_login(struct buf *out, const char *mechanisms, bool can_starttls);
/* As it stands after login. */
void imap_capability_session(struct buf *out);

#endif
