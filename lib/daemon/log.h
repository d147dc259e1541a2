/*
 * Structured logging: one event a line, key=value. Records of one loop turn travel in one message
 * to the log daemon over the inherited socket; before that socket is there (tools, tests) they go
 * to stderr. Never blocks: a full log drops and counts.
 */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

#include "daemon/events.h"
#include "ipc/msgs.h"

enum log_level { LOG_DEBUG_, LOG_INFO_, LOG_WARN_, LOG_ERROR_ };

/* events.def as a table; what stands in the second is for the tools. */
struct log_event_row {
	const char *name;
	uint8_t level;      /* enum log_level */
	bool keep;          /* a full log has a reserve for it */
	const char *remedy; /* "" if there is nothing to do */
};
struct log_event_text {
	const char *daemons, *means;
};
extern const struct log_event_row log_events[LOG_EVENT_COUNT];
extern const struct log_event_text log_event_texts[LOG_EVENT_COUNT];
/* The event of that name, or NULL; a walk through the table. */
const struct log_event_row *log_event_find(struct slice name);

/*
 * Logs one event of events.def, then key=value pairs. Session id and queue id come first (sid=,
 * qid=). Values that came from outside are printed with log_value(), which quotes and escapes.
 * Warnings and errors name the thing and the reason; they end with the remedy of events.def unless
 * fmt has a remedy= of its own, for what the table cannot know.
 */
void log_event(enum log_event event, const char *fmt, ...) PRINTF(2, 3);
/* The text that stands for hostile bytes in a log line: escaped, cut at 512 bytes, quoted where
   needed. Valid until the 8th next call in this thread. */
const char *log_value(struct slice s);
const char *log_cstr(const char *s);

/* The level as syslog(3) counts. */
int log_severity(unsigned level);
/* Standard error is the journal's, which takes "<3>" before a line as its severity (sd-daemon(3)).
 */
bool log_stderr_is_journal(void);

/* Called by the skeleton: the socket (-1: stderr), who logs, the lowest level that is sent. */
void log_init(int fd, enum role role, enum log_level threshold);
/* Sends what was gathered; the skeleton calls it at the end of each loop turn, threads after their
 * work. */
void log_flush(void);
/* True when records wait for log_flush. */
bool log_pending(void);

#endif
