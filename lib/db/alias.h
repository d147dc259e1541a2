/*
 * The right-hand sides of aliases(5), and .forward and :include: files: lists of addresses,
 * commands, files and lists to include. Pure; input of .forward and :include: is the user's, hence
 * hostile.
 */
#ifndef DB_ALIAS_H
#define DB_ALIAS_H

#include "base/arena.h"

enum alias_kind {
	ALIAS_ADDRESS, /* text: the address, without display name and comments */
	ALIAS_SELF,    /* \name: name's own mailbox, whatever its .forward says; text: name */
	ALIAS_COMMAND, /* text: the command line behind | */
	ALIAS_FILE,    /* text: the path, / first */
	ALIAS_INCLUDE, /* text: the path behind :include: */
};

struct alias_item {
	enum alias_kind kind;
	struct slice text; /* in the arena; no NUL, CR or LF */
};

struct alias_items {
	struct alias_item *items; /* in the arena */
	size_t n;
};

#define ALIAS_ITEM_MAX 4096 /* bytes of one item */

/*
 * Parses one right-hand side (lines false), or a file of lines with '#' comments where each line is
 * one (lines true). ERR_SYNTAX or, beyond max items, ERR_LIMIT; *why_r (in the arena) then says
 * what is wrong and where. An empty list is success.
 */
int alias_parse(struct arena *arena, struct slice text, bool lines, size_t max,
    struct alias_items *items_r, const char **why_r) CHECKED;
/* True if every item is an address: such an alias is expanded before the commit. */
bool alias_is_plain(const struct alias_items *items);

/*
 * Cuts a command line into words: blanks separate, double and single quotes group, a backslash
 * takes the next byte as it is (but inside single quotes). Nothing is expanded: there is no shell.
 * argv is NULL-terminated in the arena. ERR_SYNTAX for an open quote, a NUL or no word; ERR_LIMIT
 * beyond max words.
 */
int alias_words(
    struct arena *arena, struct slice line, size_t max, char ***argv_r, size_t *argc_r) CHECKED;

#endif
