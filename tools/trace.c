/*
 * `bulkhead trace ID`: the story of one message in one screen, from the log: the lines that name
 * its queue id, and those of the session that brought it which stand between its own messages. Runs
 * as the caller, who must be able to read the log. Hostile: log lines quote what strangers sent;
 * control bytes were escaped when they were written and are replaced again here.
 */
#include "tools/tool.h"
#include "tools/trace_line.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LINES_MAX 5000
#define SESSIONS_MAX 64

struct event {
	const char *time, *role, *name, *text;
	int64_t at;    /* the time in microseconds; -1: it says no year */
	size_t number; /* in the order of the log */
};

struct trace {
	struct arena arena;
	const char *id;
	const char *sessions[SESSIONS_MAX];
	size_t sessions_n;
	struct event events[LINES_MAX];
	size_t n;
	/* of each session: where the lines since its last finished message begin */
	struct event pending[LINES_MAX];
	size_t pending_n;
};

static const char *
keep(struct trace *t, struct slice s)
{
	char *text = (char *)(uintptr_t)arena_dup(&t->arena, s).p, *c;
	struct tool_shown shown = { 0 };

	for (c = text; *c; c++)
		*c = *c == '\n' ? '?' : (char)tool_shown(&shown, (unsigned char)*c);
	return text;
}

static struct event
event_of(struct trace *t, const struct slice f[4])
{
	return (struct event){ .time = keep(t, f[0]),
		.role = keep(t, f[1]),
		.name = keep(t, f[2]),
		.text = keep(t, f[3]) };
}

static bool
is_session(const struct trace *t, struct slice sid)
{
	size_t i;

	for (i = 0; sid.n && i < t->sessions_n; i++)
		if (slice_eq_str(sid, t->sessions[i]))
			return true;
	return false;
}

/* First pass: which sessions name the message. */
static void
find_sessions(struct trace *t, const struct slice f[4])
{
	struct slice sid = trace_value(f[3], "sid");

	if (slice_eq_str(trace_value(f[3], "qid"), t->id) && sid.n && !is_session(t, sid) &&
	    t->sessions_n < SESSIONS_MAX)
		t->sessions[t->sessions_n++] = keep(t, sid);
}

/* Second pass: lines of the message, and of its session those since the message before. */
static void
gather(struct trace *t, const struct slice f[4])
{
	struct slice qid = trace_value(f[3], "qid"), sid = trace_value(f[3], "sid");
	bool ours = slice_eq_str(qid, t->id) || slice_eq_str(trace_value(f[3], "new_qid"), t->id);
	size_t i;

	if (!ours && is_session(t, sid)) {
		if (qid.n)
			t->pending_n = t->pending_n ? 1 : 0; /* keep the connection's own line */
		else if (t->pending_n < LINES_MAX)
			t->pending[t->pending_n++] = event_of(t, f);
		return;
	}
	if (!ours)
		return;
	for (i = 0; i < t->pending_n && t->n < LINES_MAX; i++)
		t->events[t->n++] = t->pending[i];
	t->pending_n = 0;
	if (t->n < LINES_MAX)
		t->events[t->n++] = event_of(t, f);
}

static int
read_log(struct trace *t, const char *path, void (*each)(struct trace *, const struct slice[4]))
{
	FILE *f = fopen(path, "re");
	struct arena scratch = { 0 };
	struct slice fields[4];
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	if (!f)
		return err_errno();
	while ((n = getline(&line, &size, f)) > 0) {
		if (trace_parse(slice_trim(slice(line, (size_t)n), true), &scratch, fields))
			each(t, fields);
		arena_reset(&scratch);
	}
	free(line);
	fclose(f);
	arena_free(&scratch);
	return 0;
}

/* Microseconds of an ISO time in UTC, or with an offset as a syslog daemon writes it; or -1. */
static int64_t
time_us(const char *time)
{
	struct tm tm = { 0 };
	unsigned us = 0, hours = 0, minutes = 0;
	const char *zone;
	int64_t offset;

	if (sscanf(time, "%4d-%2d-%2dT%2d:%2d:%2d.%6u", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
		&tm.tm_hour, &tm.tm_min, &tm.tm_sec, &us) < 6)
		return -1;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	zone = strpbrk(strchr(time, 'T'), "+-");
	if (zone)
		(void)sscanf(zone + 1, "%2u:%2u", &hours, &minutes);
	offset = ((int64_t)hours * 60 + minutes) * 60;
	if (zone && *zone == '-')
		offset = -offset;
	return ((int64_t)timegm(&tm) - offset) * 1000000 + us;
}

static int
by_time(const void *a, const void *b)
{
	const struct event *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* By time, and at the same moment as the log has them; by the log alone where times have no year,
 * as those of syslog: the end of one, or of a month, would turn them round. */
static void
sort(struct trace *t)
{
	bool dated = true;

	for (size_t i = 0; i < t->n; i++) {
		t->events[i].number = i;
		t->events[i].at = time_us(t->events[i].time);
		dated = dated && t->events[i].at >= 0;
	}
	if (dated)
		qsort(t->events, t->n, sizeof(t->events[0]), by_time);
}

/* One event: its own words; the ids that all lines share are left out. */
static void
print_text(const char *text)
{
	struct slice s = slice_str(text), word;
	bool first = true;
	size_t n;

	while (s.n) {
		bool quoted = false;

		for (n = 0; n < s.n && (quoted || s.p[n] != ' '); n++) {
			if (s.p[n] == '\\')
				n++;
			else if (s.p[n] == '"')
				quoted = !quoted;
		}
		word = slice_sub(s, 0, n);
		s = slice_sub(s, n + 1, s.n);
		if (!word.n || slice_has_prefix(word, "qid=") || slice_has_prefix(word, "sid="))
			continue;
		printf("%s%.*s", first ? "" : " ", SLICE_ARG(word));
		first = false;
	}
	putchar('\n');
}

static void
print_all(struct trace *t)
{
	const struct event *e;
	int64_t first;
	size_t i;

	sort(t);
	first = t->events[0].at;
	printf("message %s, first seen %s\n", t->id, t->events[0].time);
	for (i = 0; i < t->n; i++) {
		e = &t->events[i];
		if (first >= 0 && e->at >= 0)
			printf("%+9lld ms  ", (long long)(e->at / 1000 - first / 1000));
		else
			printf("%-12s  ", e->time);
		printf("%-16s %-18s ", e->role, e->name);
		print_text(e->text);
	}
}

/* What `queue show` says, without the content behind the empty line. */
static void
print_envelope(struct slice text)
{
	ptrdiff_t end = slice_search(text, SLICE_LIT("\n\n"));
	struct tool_shown shown = { 0 };

	puts("in the queue now:");
	for (size_t i = 0; i < (end < 0 ? text.n : (size_t)end + 1); i++)
		putchar(tool_shown(&shown, text.p[i]));
}

static int
search(struct trace *t, const char *path)
{
	char *older = xasprintf("%s.1", path);
	int err;

	(void)read_log(t, older, find_sessions);
	err = read_log(t, path, find_sessions);
	if (!err) {
		(void)read_log(t, older, gather);
		err = read_log(t, path, gather);
	}
	free(older);
	return err;
}

int
cmd_trace(struct tool *t, int argc, char **argv)
{
	const struct conf *conf = tool_conf(t);
	struct trace *trace;
	const char *path =
	    conf->log_target == CONF_LOG_TARGET_FILE ? conf->log_file : "/var/log/mail.log";
	const char *show[] = { "queue", "show", NULL };
	int c, err;

	while ((c = getopt(argc, argv, "+f:")) != -1) {
		if (c == '?')
			return 64;
		path = optarg;
	}
	if (optind + 1 != argc) {
		tool_say("usage: bulkhead trace [-f FILE] QUEUEID");
		return 64;
	}
	trace = xcalloc(1, sizeof(*trace));
	trace->id = argv[optind];
	err = search(trace, path);
	if (err)
		tool_say("%s: %s: name the log file with -f%s", path, err_str(err),
		    err == -EACCES   ? ", or become root"
		    : err == -ENOENT ? "; journalctl -u bulkhead >FILE makes one of the journal"
				     : "");
	else if (!trace->n)
		tool_say("%s: no line names %s: is the id complete, and the log not rotated away?",
		    path, trace->id);
	else
		print_all(trace);
	err = err ? 66 : trace->n ? 0 : 1;
	show[2] = trace->id;
	if (!err && control_alive(t)) {
		struct buf out = { 0 };

		if (control_call(t, show, 3, true, &out) == 0)
			print_envelope(buf_slice(&out));
		else
			puts("not in the queue any more");
		buf_free(&out);
	}
	arena_free(&trace->arena);
	free(trace);
	return err;
}
