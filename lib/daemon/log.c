/*
 * The sending side of the log. Runs in every process and thread; texts come from outside, so they
 * are escaped here (log_value) and once more by the log daemon. Records are gathered per thread and
 * sent in one message: by the skeleton at most 20 ms after the first, at once for warnings. A full
 * log never blocks, and records try it once a millisecond at most: ordinary ones are dropped first,
 * so that a flood of them does not cost the failed logins and the decisions of the queue. The state
 * is file scope on purpose: every layer logs, and there is one log per process.
 */
#include "daemon/log.h"

#include "daemon/daemon.h"
#include "daemon/private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Sent when that much has gathered. Where the log is full, ordinary records stop there, and those
 * that events.def keeps at the second bound; with one more of TEXT_MAX a message is full. */
#define BATCH_BYTES ((size_t)32768)
#define KEEP_BYTES ((size_t)57344)
#define TEXT_MAX ((size_t)4096)
#define VALUE_MAX ((size_t)512)
#define FULL_US 1000 /* before a log that was full is tried again: a try copies the batch */

static int log_sock = -1;
static enum role log_role = ROLE_TOOL;
static enum log_level log_threshold = LOG_INFO_;

static __thread struct buf gathered; /* items */
static __thread size_t whole;        /* bytes of those that are complete */
static __thread uint32_t gathered_n, dropped;
static __thread char dropped_event[64];
static __thread int64_t full_since_us; /* 0: the last message went */
static __thread char values[8][VALUE_MAX + 8];
static __thread unsigned value_at;

/* Memory may have been refused to a record that was half there. */
static void
tell_end(const char *text)
{
	buf_truncate(&gathered, whole);
	log_event(LOG_process_failed, "reason=%s remedy=\"do what the reason says, or report it\"",
	    log_cstr(text));
	log_flush();
}

void
log_init(int fd, enum role role, enum log_level threshold)
{
	if (fd >= 0)
		die_tell(tell_end);
	log_sock = fd;
	log_role = role;
	log_threshold = threshold;
}

void
log_reset(enum role role)
{
	log_role = role;
	buf_clear(&gathered);
	whole = 0;
	gathered_n = dropped = 0;
	full_since_us = 0;
}

bool
log_pending(void)
{
	return gathered_n > 0;
}

static bool
plain(struct slice s)
{
	if (!s.n)
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= ' ' || s.p[i] >= 127 || s.p[i] == '"' || s.p[i] == '\\' ||
		    s.p[i] == '=')
			return false;
	return true;
}

const char *
log_value(struct slice s)
{
	char *out = values[value_at++ % 8];
	size_t at = 0;

	if (s.n < VALUE_MAX && plain(s)) {
		memcpy(out, s.p, s.n);
		out[s.n] = '\0';
		return out;
	}
	out[at++] = '"';
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = s.p[i];
		if (at > VALUE_MAX - 8) {
			at += (size_t)snprintf(out + at, 4, "...");
			break;
		}
		if (c == '"' || c == '\\')
			out[at++] = '\\', out[at++] = (char)c;
		else if (c < ' ' || c == 127 || c >= 0x80)
			at += (size_t)snprintf(out + at, 5, "\\x%02x", c);
		else
			out[at++] = (char)c;
	}
	out[at++] = '"';
	out[at] = '\0';
	return out;
}

const char *
log_cstr(const char *s)
{
	return log_value(slice_str(s));
}

const struct log_event_row *
log_event_find(struct slice name)
{
	for (size_t i = 0; i < LOG_EVENT_COUNT; i++)
		if (slice_eq_str(name, log_events[i].name))
			return &log_events[i];
	return NULL;
}

int
log_severity(unsigned level)
{
	static const int severity[] = { 7, 6, 4, 3 };

	return severity[level > LOG_ERROR_ ? LOG_ERROR_ : level];
}

bool
log_stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	char own[64];
	struct stat st;

	if (!stream || fstat(STDERR_FILENO, &st))
		return false;
	snprintf(own, sizeof(own), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	return !strcmp(stream, own);
}

static void
to_stderr(const struct log_event_row *row, const char *text)
{
	static const char *const names[] = { "debug", "info", "warning", "error" };

	if (log_stderr_is_journal())
		fprintf(stderr, "<%d>", log_severity(row->level));
	fprintf(stderr, "bulkhead/%s[%d]: %s: %s %s\n", role_table[log_role].name, (int)getpid(),
	    names[row->level], row->name, text);
}

/* What cannot be sent now because the log is full stays for the next time, within log_event()'s
 * bounds. */
void
log_flush(void)
{
	struct buf out = { 0 };
	struct msg m = MSG_INIT(MSG_LOG_RECORDS, 0);
	bool full;

	if (!gathered_n || log_sock < 0)
		return;
	m.log_records.role = (uint8_t)log_role;
	m.log_records.pid = (uint32_t)getpid();
	m.log_records.dropped = dropped;
	m.log_records.dropped_event = slice_str(dropped_event);
	m.log_records.records = msg_list(&gathered, gathered_n);
	msg_encode(&out, &m);
	if (send(log_sock, buf_slice(&out).p, buf_len(&out), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
		dropped = 0;
		dropped_event[0] = '\0';
		full = false;
	} else {
		full = errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM;
		if (!full) {
			dropped += gathered_n;
			snprintf(dropped_event, sizeof(dropped_event), "any");
			count(COUNT_log_dropped, gathered_n);
		}
	}
	buf_free(&out);
	full_since_us = full ? ev_now_us() : 0;
	if (full)
		return;
	buf_clear(&gathered);
	whole = 0;
	gathered_n = 0;
}

static void
flush_unless_full(void)
{
	if (!full_since_us || ev_now_us() - full_since_us >= FULL_US)
		log_flush();
}

/* Room for one more record: what is kept may go on where the rest has to stop. */
static bool
room_for(const struct log_event_row *row)
{
	if (buf_len(&gathered) >= BATCH_BYTES)
		flush_unless_full();
	if (buf_len(&gathered) < (row->keep ? KEEP_BYTES : BATCH_BYTES))
		return true;
	dropped++;
	count(COUNT_log_dropped, 1);
	snprintf(dropped_event, sizeof(dropped_event), "%s", row->name);
	return false;
}

static void
gather(const struct log_event_row *row, const char *text)
{
	struct item_log_record r = {
		.level = row->level, .event = slice_str(row->name), .text = slice_str(text)
	};
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	r.time = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
	item_log_record_add(&gathered, &r);
	whole = buf_len(&gathered);
	gathered_n++;
}

void
log_event(enum log_event event, const char *fmt, ...)
{
	const struct log_event_row *row = &log_events[event];
	FILLED_LATER char text[TEXT_MAX];
	va_list ap;
	int n;

	if (row->level < log_threshold)
		return;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	if (row->level >= LOG_WARN_ && !strstr(fmt, "remedy=") && (size_t)n < sizeof(text))
		snprintf(text + n, sizeof(text) - (size_t)n, "%sremedy=\"%s\"", n ? " " : "",
		    row->remedy);
	for (char *c = text; *c; c++)
		if (*c == '\n' || *c == '\r')
			*c = ' ';
	if (log_sock < 0) {
		to_stderr(row, text);
		return;
	}
	if (!room_for(row))
		return;
	gather(row, text);
	if (row->level >= LOG_WARN_)
		flush_unless_full();
}
