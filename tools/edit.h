/* Edits of main.cf's text that leave every other byte, comments included, as it is. Pure. */
#ifndef TOOLS_EDIT_H
#define TOOLS_EDIT_H

#include "conf/conf.h"

enum edit_kind {
	EDIT_SET,     /* replaces the last line of the name, or appends one */
	EDIT_REMOVE,  /* drops all lines of the name */
	EDIT_COMMENT, /* puts a # in front of them */
};

/* Appends the edited text to out; the number of lines of the name that were there before. */
size_t edit_text(
    struct slice text, enum edit_kind kind, const char *name, const char *value, struct buf *out);
/* Replaces the file by the text, by rename, with its owner and mode. A line for the admin in why.
 */
int edit_replace(const char *path, struct slice text, struct buf *why) CHECKED;

#endif
