/* The head of a message that is submitted here (RFC 6409 section 8): what is added and taken out.
 */
#ifndef RECEIVE_HEAD_H
#define RECEIVE_HEAD_H

#include "mail/header.h"
#include "receive/mail.h"

struct head {
	const struct header_scan *scan; /* of the section, which is over */
	size_t at;                      /* of its first field: what stands before is ours */
	int64_t began;                  /* microseconds since the epoch */
	const char *id;                 /* for a Message-ID, unique with the time */
};

/* Completes it while it is in memory (hold_in_memory), and lets the content go to a file then.
 * Content without a header gets the empty line that makes it a body. submitted: it also loses
 * message_drop_headers and gets Date and Message-ID (submission_add_headers). */
void mail_complete_head(struct mail *m, const struct head *head, bool submitted);

#endif
