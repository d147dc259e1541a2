/*
 * The sending side of the log. Runs in every process and thread; texts come from outside, so they
 * are escaped here (log_value) and once more by the log daemon. Records are gathered per thread and
 * sent in one message: by the skeleton at most 20 ms after the first, at once for warnings. The
 * state is file scope on purpose: every layer logs, and there is one log per process.
 */
#include "daemon/log.h"

#include "daemon/daemon.h"
#include "daemon/private.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH_BYTES ((size_t)32768) /* sent at once when that much has gathered */
#define VALUE_MAX ((size_t)512)

static int log_sock = -1;
static enum role log_role = ROLE_TOOL;
static enum log_level log_threshold = LOG_INFO_;

static __thread struct buf gathered; /* items */
static __thread uint32_t gathered_n, dropped;
static __thread char dropped_event[64];
static __thread char values[8][VALUE_MAX + 8];
static __thread unsigned value_at;

void
log_init(int fd, enum role role, enum log_level threshold)
{
	log_sock = fd;
	log_role = role;
	log_threshold = threshold;
}

void
log_reset(enum role role)
{
	log_role = role;
	buf_clear(&gathered);
	gathered_n = dropped = 0;
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

static void
to_stderr(enum log_level level, const char *event, const char *text)
{
	static const char *const names[] = { "debug", "info", "warning", "error" };

	fprintf(stderr, "bulkhead/%s[%d]: %s: %s %s\n", role_table[log_role].name, (int)getpid(),
	    names[level], event, text);
}

void
log_flush(void)
{
	struct buf out = { 0 };
	struct msg m = MSG_INIT(MSG_LOG_RECORDS, 0);

	if (!gathered_n || log_sock < 0)
		return;
	m.log_records.role = (uint8_t)log_role;
	m.log_records.pid = (uint32_t)getpid();
	m.log_records.dropped = dropped;
	m.log_records.dropped_event = slice_str(dropped_event);
	m.log_records.records = msg_list(&gathered, gathered_n);
	msg_encode(&out, &m);
	if (send(log_sock, buf_slice(&out).p, buf_len(&out), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		dropped += gathered_n; /* event of the last one is kept: the commonest in a flood */
	else
		dropped = 0, dropped_event[0] = '\0';
	count(COUNT_log_dropped, dropped);
	buf_free(&out);
	buf_clear(&gathered);
	gathered_n = 0;
}

void
log_event(enum log_level level, const char *event, const char *fmt, ...)
{
	char text[4096];
	struct item_log_record r = { .level = (uint8_t)level, .event = slice_str(event) };
	struct timespec now;
	va_list ap;
	int n;

	if (level < log_threshold)
		return;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	for (char *c = text; *c; c++)
		if (*c == '\n' || *c == '\r')
			*c = ' ';
	if (log_sock < 0) {
		to_stderr(level, event, text);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	r.time = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
	r.text = slice_str(text);
	item_log_record_add(&gathered, &r);
	gathered_n++;
	snprintf(dropped_event, sizeof(dropped_event), "%s", event);
	if (level >= LOG_WARN_ || buf_len(&gathered) > BATCH_BYTES)
		log_flush();
}
