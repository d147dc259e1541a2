/*
 * SMTP replies as data, their text form, and the reader of a peer's replies.
 */
#ifndef SMTP_REPLY_H
#define SMTP_REPLY_H

#include "base/buf.h"

struct reply {
	unsigned code;         /* 200 to 599 */
	struct slice enhanced; /* "5.1.1", or empty: none, or none known */
	struct slice text;     /* lines separated by LF, without code and enhanced code */
	const char *limit;     /* the parameter whose limit the client met, for the log; or NULL */
};

#define REPLY_LINE_MAX 512 /* octets of a reply line with CRLF (RFC 5321 4.5.3.1.5) */

#define REPLY_LIMIT(c, e, t, parameter)                                                            \
	((struct reply){ (c), { (const unsigned char *)("" e), sizeof(e) - 1 },                    \
	    { (const unsigned char *)("" t), sizeof(t) - 1 }, (parameter) })
#define REPLY(c, e, t) REPLY_LIMIT(c, e, t, NULL)

/* A reply whose text is a C string; borrowed. */
struct reply reply_make(unsigned code, const char *enhanced, const char *text);

static inline bool
reply_is_good(const struct reply *r)
{
	return r->code >= 200 && r->code < 400;
}

/*
 * Appends the reply with its line ends. An enhanced code is written on each line if enhanced is set
 * and the code is 2xx, 4xx or 5xx; one whose class is not that of the code becomes "class.0.0".
 * Octets that are not printable ASCII are written as "?", overlong lines are cut.
 */
void reply_format(struct buf *out, const struct reply *r, bool enhanced);

/* --- reading --- */

struct reply_reader {
	size_t text_limit;   /* octets of text kept; more is read and dropped. 0: 8192 */
	unsigned line_limit; /* lines of a reply; 0: 200 */
	/* private */
	unsigned code, lines;
	bool done;
	char enhanced[12];
	struct buf text;
};

/*
 * Takes one line without its CRLF. 1: *out_r is complete (borrowed until the next line); 0: more
 * lines belong to it; ERR_SYNTAX or ERR_LIMIT: this is no SMTP reply, the connection is useless.
 */
int reply_read(struct reply_reader *r, struct slice line, struct reply *out_r) CHECKED;
void reply_reader_free(struct reply_reader *r);

#endif
