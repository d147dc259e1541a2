/*
 * Header sections: fields of a message in memory, a streaming scan for what receivers need to know,
 * and writing folded fields.
 */
#ifndef MAIL_HEADER_H
#define MAIL_HEADER_H

#include "base/buf.h"

struct header_field {
	struct slice name; /* without blanks before the colon */
	struct slice body; /* after the colon, folds as they are, without the final line end */
	struct slice raw;  /* the whole field with its line ends */
};

enum header_step {
	HEADER_FIELD,     /* *out_r is a field */
	HEADER_END,       /* the empty line was consumed: *s is the body; or the text is over */
	HEADER_MALFORMED, /* *out_r.raw is a line that is no field (continuations included), skipped
			   */
};

/* Reads what stands at the head of *s and moves *s behind it. Lines end in CRLF or LF. */
enum header_step header_next(struct slice *s, struct header_field *out_r);

/* The first field of that name in the header section of message, any case. ERR_NOT_FOUND. */
int header_find(struct slice message, const char *name, struct header_field *out_r) CHECKED;

/* Appends the body on one line: folds taken out, blanks at both ends cut. */
void header_unfold(struct slice body, struct buf *out);

/*
 * Appends "name: value" CRLF, folded before blanks so that lines stay within 78 octets where the
 * value has blanks. CR, LF and NUL in the value are written as blanks.
 */
void header_add(struct buf *out, const char *name, struct slice value);

/* Appends a phrase for a display name: as it is if it is atoms, quoted if it is ASCII, else as RFC
 * 2047 encoded words (UTF-8, base64). */
void header_add_phrase(struct buf *out, struct slice text);

/* --- the streaming scan --- */

enum header_seen {
	HEADER_DATE = 1,
	HEADER_MESSAGE_ID = 2,
	HEADER_FROM = 4,
	HEADER_SENDER = 8,
	HEADER_RESENT_FROM = 16,
	HEADER_RETURN_PATH = 32,
};

#define HEADER_NAME_KEPT 32

/* Set the limits (0: none), the rest zero; feed the content from its first byte. */
struct header_scan {
	size_t field_limit;   /* octets of one field */
	size_t section_limit; /* octets of the section */
	unsigned count_limit; /* fields */

	unsigned seen;     /* enum header_seen */
	unsigned received; /* Received fields: the hop count */
	unsigned fields;
	size_t bytes;   /* of the section so far, empty line included */
	bool done;      /* the section is over */
	bool no_header; /* the content does not begin with a field: the first line is body */
	bool non_ascii; /* an octet above 127 in the section */
	int err;        /* ERR_LIMIT once a limit is exceeded; the scan stops */

	enum { SCAN_START, SCAN_NAME, SCAN_VALUE, SCAN_EMPTY_CR } state;
	size_t field_bytes, name_n;
	unsigned char name[HEADER_NAME_KEPT];
};

/* Looks at the next bytes of the content (CRLF lines); cheap once done. */
void header_scan_feed(struct header_scan *h, struct slice bytes);
/* The content is over: a section without an empty line ends here. */
void header_scan_end(struct header_scan *h);

#endif
