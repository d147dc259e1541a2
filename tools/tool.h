/* What the commands of bulkhead(8) share. A command returns the exit status. */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H

#include "conf/conf.h"

struct tool {
	const char *dir;      /* of main.cf */
	struct conf_set *set; /* NULL until tool_conf */
	struct conf_problems problems;
};

/* Loads the configuration once; it is complete even when it has problems. */
const struct conf *tool_conf(struct tool *t);
/* "bulkhead: TEXT" on stderr. */
void tool_say(const char *fmt, ...) PRINTF(1, 2);
/* What may reach a terminal: control characters, C1 in UTF-8 (U+009B begins what ESC [ does) and as
 * single bytes among them, become '?' or its UTF-8 likeness U+00BF; line ends and tabs stay. The
 * bytes may come in any pieces; begins zeroed. */
struct tool_shown {
	unsigned char lead; /* of a character under way */
	unsigned left;      /* its bytes that are to come */
};
unsigned char tool_shown(struct tool_shown *s, unsigned char c);
/* The path of a daemon's program, in arena. */
const char *tool_program(struct tool *t, const char *name, struct arena *arena);

/* Sends the words over the control socket and prints the answer; its exit status, or -1 with a text
 * on stderr if the suite does not answer (silent: no text). out NULL: stdout. */
int control_call(struct tool *t, const char *const *words, size_t n, bool silent, struct buf *out);
/* Whether master answers on the control socket. */
bool control_alive(struct tool *t);

int cmd_conf(struct tool *t, int argc, char **argv);
int cmd_check(struct tool *t, int argc, char **argv);
int cmd_reload(struct tool *t, int argc, char **argv);
int cmd_start(struct tool *t, int argc, char **argv);
int cmd_stop(struct tool *t, int argc, char **argv);
int cmd_control(struct tool *t, int argc, char **argv);
int cmd_queue(struct tool *t, int argc, char **argv);
int cmd_user(struct tool *t, int argc, char **argv);
int cmd_map(struct tool *t, int argc, char **argv);
int cmd_newaliases(struct tool *t, int argc, char **argv);
int cmd_log(struct tool *t, int argc, char **argv);
int cmd_trace(struct tool *t, int argc, char **argv);

#endif
