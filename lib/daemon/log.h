/*
 * Structured logging: one event a line, key=value. Records of one loop turn travel in one message
 * to the log daemon over the inherited socket; before that socket is there (tools, tests) they go
 * to stderr. Never blocks: a full log drops and counts.
 */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

#include "ipc/msgs.h"

enum log_level { LOG_DEBUG_, LOG_INFO_, LOG_WARN_, LOG_ERROR_ };
#define LOG_D LOG_DEBUG_
#define LOG_I LOG_INFO_
#define LOG_W LOG_WARN_
#define LOG_E LOG_ERROR_

/*
 * Logs one event: a short dotted or dashed name ("smtpd-connect"), then key=value pairs. Session id
 * and queue id come first (sid=, qid=). Values that came from outside are printed with log_value(),
 * which quotes and escapes. LOG_W and LOG_E lines name the thing, the reason and the remedy.
 */
void log_event(enum log_level level, const char *event, const char *fmt, ...) PRINTF(3, 4);
/* The text that stands for hostile bytes in a log line: escaped, cut at 512 bytes, quoted where
   needed. Valid until the 8th next call in this thread. */
const char *log_value(struct slice s);
const char *log_cstr(const char *s);

/* Called by the skeleton: the socket (-1: stderr), who logs, the lowest level that is sent. */
void log_init(int fd, enum role role, enum log_level threshold);
/* Sends what was gathered; the skeleton calls it at the end of each loop turn, threads after their
 * work. */
void log_flush(void);
/* True when records wait for log_flush. */
bool log_pending(void);

#endif
