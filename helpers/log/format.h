/* A log record as a line: text for people, JSON for machines. */
#ifndef LOG_FORMAT_H
#define LOG_FORMAT_H

#include "ipc/msgs.h"

struct log_line {
	const struct item_log_record *record;
	uint8_t role;
	uint32_t pid;
	const char *host, *name; /* of this machine; of the suite (syslog_name) */
};

/* "2026-11-25T20:15:01.123456Z host bulkhead/smtpd[77]: event key=value ..." and a newline. */
void format_text(struct buf *out, const struct log_line *l);
/* One JSON object with time, host, role, pid, level, event and each key of the text. */
void format_json(struct buf *out, const struct log_line *l);
/* The part behind the time and the host, for syslog(3), without a newline. */
void format_syslog(struct buf *out, const struct log_line *l);

#endif
