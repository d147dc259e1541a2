/* Lines of the log, read back. */
#ifndef TOOLS_TRACE_LINE_H
#define TOOLS_TRACE_LINE_H

#include "base/arena.h"

/* Time, role, event, and the text of KEY=VALUE pairs; slices of the line or in the arena. False: it
 * is no line of a daemon. */
bool trace_parse(struct slice line, struct arena *arena, struct slice out_r[4]);
/* The value of key=VALUE in a text of such pairs; the null slice if it is not there. */
struct slice trace_value(struct slice text, const char *key);

#endif
