/* What the IMAP ENVELOPE tells of a message (RFC 9051 section 7.5.2), read from its header block.
 */
#ifndef MAIL_ENVELOPE_H
#define MAIL_ENVELOPE_H

#include "mail/address_list.h"

struct envelope_text {
	struct slice text; /* unfolded, not decoded */
	bool present;
};

struct envelope {
	struct envelope_text date, subject, in_reply_to, message_id;
	struct address_list from, sender, reply_to, to, cc,
	    bcc; /* sender and reply_to default to from */
};

/* header may go on into the body: it is read up to the empty line. The first field of each name
 * counts. Strings live in the arena. At most max addresses of a field are kept. */
void envelope_read(struct slice header, struct arena *arena, size_t max, struct envelope *out_r);

#endif
