/* Replies of an SMTP or LMTP server, read byte by byte within bounds. */
#ifndef SMTP_CLIENT_REPLY_H
#define SMTP_CLIENT_REPLY_H

#include "base/buf.h"

enum {
	CLIENT_REPLY_LINE_MAX = 4096,   /* bytes of one line; RFC 5321 4.5.3.1.5 says 512 */
	CLIENT_REPLY_LINES_MAX = 128,   /* lines of one reply */
	CLIENT_REPLY_TEXT_MAX = 32768,  /* bytes of text of one reply */
	CLIENT_REPLY_ENHANCED_SIZE = 10 /* "5.123.123" and a NUL */
};

struct client_reply {
	unsigned code;                             /* 200 to 559 */
	char enhanced[CLIENT_REPLY_ENHANCED_SIZE]; /* "" where the server gave none that fits the
						      code */
	struct slice
	    text; /* UTF-8 without control characters, lines joined by LF; without the codes */
};

/* A zeroed struct waits for a reply. */
struct client_reply_reader {
	struct buf line, text;
	unsigned code, lines;
	char enhanced[CLIENT_REPLY_ENHANCED_SIZE];
	bool done; /* text belongs to the reply that was given out last */
};

/* Takes bytes from *in until a reply is complete: 1 with *reply_r (its text is valid until the next
 * call), 0 when all bytes are used up and more are needed, ERR_SYNTAX or ERR_LIMIT for what is no
 * reply: then the session is over. Lines may end with a bare LF. */
int client_reply_read(
    struct client_reply_reader *r, struct slice *in, struct client_reply *reply_r) CHECKED;
void client_reply_free(struct client_reply_reader *r);

#endif
