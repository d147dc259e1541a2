/* Logical lines of configuration-like text: comments dropped, continuation lines joined. */
#ifndef DB_LINES_H
#define DB_LINES_H

#include "base/buf.h"

struct lines {
	struct slice text; /* what is left */
	struct buf joined; /* the present logical line */
	unsigned next;     /* number of the next physical line, from 1 */
	unsigned line;     /* number of the first physical line of the present one */
};

void lines_init(struct lines *l, struct slice text);
/*
 * The next logical line, trimmed; valid until the next call. A line that begins with blank
 * continues the one before; empty lines and lines whose first non-blank is '#' are skipped wherever
 * they stand. False at the end.
 */
bool lines_next(struct lines *l, struct slice *line_r);
void lines_free(struct lines *l);

/*
 * Cuts a key off *line: up to blank, or up to the colon if colon; double quotes protect both and
 * stay in the key. ERR_SYNTAX if a quote is not closed, the key is empty, or the colon is missing.
 */
int lines_key(struct slice *line, bool colon, struct slice *key_r) CHECKED;

#endif
