/*
 * The one reader of lines: every protocol of the suite that has lines takes them from here. Only
 * CRLF ends a line; a bare CR or LF spoils the line that it stands in, up to the next CRLF.
 */
#ifndef SMTP_LINE_H
#define SMTP_LINE_H

#include "base/slice.h"

enum line_status {
	LINE_MORE,     /* no complete line yet */
	LINE_OK,       /* *line_r is the line without its CRLF */
	LINE_BARE_LF,  /* an LF without CR before it: the rest up to CRLF is skipped */
	LINE_BARE_CR,  /* a CR without LF behind it: likewise */
	LINE_TOO_LONG, /* longer than the limit, CRLF included: likewise */
};

struct line_reader {
	size_t limit; /* octets of a line, CRLF included; at least 2. May change between lines. */
	/* private */
	size_t seen;   /* octets at the head of the input that hold no line end */
	bool skipping; /* inside a line that was reported as spoilt */
};

/*
 * Looks at the unread input. The caller drops *used_r octets (also with LINE_MORE) and passes what
 * is left, longer, the next time. A spoilt line is reported once, as soon as it is known to be.
 * However the input is cut, the sequence of reports is the same.
 */
enum line_status line_read(
    struct line_reader *r, struct slice in, struct slice *line_r, size_t *used_r);

/* Forgets a partial line: for a new stream (after STARTTLS). */
void line_reset(struct line_reader *r);

/*
 * Message content as it is sent after DATA (dots) or in BDAT chunks of text (no dots). Zeroed but
 * for dots it stands at the start of the content.
 */
struct content_reader {
	bool dots;    /* unstuff, and end at CRLF.CRLF */
	bool mend_lf; /* a bare LF becomes CRLF; it still begins no line where a dot counts */
	bool bare_cr, bare_lf; /* seen: the content must be refused; bare_lf not with mend_lf */
	enum {
		CONTENT_START,
		CONTENT_TEXT,
		CONTENT_CR,
		CONTENT_DOT,
		CONTENT_DOT_CR,
		CONTENT_LF,     /* the next octet is a bare LF to mend */
		CONTENT_MENDED, /* as TEXT, behind a mended one */
	} state;
};

/*
 * Reads the next run: octets used of in, at least one if there is one. *run_r is content (it may
 * be empty) and lies inside in, but for a mended line end. *end_r is set when CRLF.CRLF was read;
 * nothing behind it is touched. Only CRLF "." CRLF ends: a dot after a bare LF or CR does not stand
 * at the start of a line.
 */
size_t content_read(struct content_reader *r, struct slice in, struct slice *run_r, bool *end_r);

#endif
