/* What the end of a program means for the recipient (sysexits.h). */
#ifndef LOCAL_EXITS_H
#define LOCAL_EXITS_H

#include "base/arena.h"
#include "queue/mail.h"

struct exit_meaning {
	unsigned code;
	enum result_status status;
	const char *enhanced, *text;
};

/* NULL: none that is known. */
const struct exit_meaning *exit_meaning(unsigned code);
/*
 * A status code (RFC 3463) of class 4 or 5 that the program printed first: the code, in a, *output
 * behind it and *status by its class; NULL if there is none, with both as they were.
 */
const char *exit_printed(const char **output, enum result_status *status, struct arena *a);

#endif
