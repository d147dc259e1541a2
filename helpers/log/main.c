/*
 * The log daemon (bh-log): reads records of all daemons from the one inherited socket and writes
 * them to stderr, a file or syslog, many at a time, at most every 20 ms. Its root is the directory
 * of the log file. Hostile: any other daemon. A record that does not decode is counted and skipped,
 * never answered. While the file cannot be written (a full disk) lines wait in memory; past a bound
 * they are dropped and counted, and past a second bound those too that events.def keeps.
 */
#include "daemon/daemon.h"
#include "format.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define REST_MS 20
#define PENDING_MAX ((size_t)4 << 20)
#define PENDING_KEEP ((size_t)5 << 20) /* of events that events.def keeps */
#define WRITE_AGAIN_MS 1000
#define BURST 64
/* /dev/log is opened before the jail: when syslogd has gone, a successor looks for the new one. */
#define SYSLOG_AGAIN_MS 1000
#define SYSLOG_ABSENT_MS 60000

struct log_state {
	struct daemon *d;
	int in, out; /* out: file, stderr or the socket of syslog */
	struct event *readable;
	struct ev_timer rest;
	bool armed;
	bool failing; /* the last write failed: the timer tries again */
	bool journal; /* it has standard error, and takes a severity before each line */
	bool absent;  /* no syslogd: lines go to stderr until a successor finds one */
	struct ev_timer again;
	struct buf pending;
	unsigned char *record;
	char host[256];
	uint64_t malformed, lost;
	uint64_t dropped; /* of those lost: not told yet */
	char dropped_event[64];
};

static void one_record(struct log_state *s, const struct log_line *l);

static int
facility_of(const char *name)
{
	static const struct {
		const char *name;
		int code;
	} table[] = { { "user", 1 }, { "mail", 2 }, { "daemon", 3 }, { "local0", 16 },
		{ "local1", 17 }, { "local2", 18 }, { "local3", 19 }, { "local4", 20 },
		{ "local5", 21 }, { "local6", 22 }, { "local7", 23 } };

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (!strcmp(name, table[i].name))
			return table[i].code;
	return 2;
}

static void
renew(void *arg)
{
	struct log_state *s = arg;

	daemon_renew(s->d);
}

static void
no_syslog(struct log_state *s, int64_t ms)
{
	s->absent = true;
	s->out = STDERR_FILENO;
	ev_timer_set(s->d->base, &s->again, ms, renew, s);
}

static void
lose(struct log_state *s, const struct item_log_record *r)
{
	s->lost++;
	s->dropped++;
	snprintf(s->dropped_event, sizeof(s->dropped_event), "%.*s", SLICE_ARG(r->event));
}

static void
say_dropped(struct log_state *s, struct log_line l, uint64_t n, const char *event, const char *why)
{
	const struct log_event_row *row = &log_events[LOG_log_dropped];
	char text[512];
	struct item_log_record r = {
		.level = row->level, .event = slice_str(row->name), .time = (uint64_t)ev_wall_us()
	};

	snprintf(text, sizeof(text), "records=%llu event=%s reason=\"%s\" remedy=\"%s\"",
	    (unsigned long long)n, event, why, row->remedy);
	r.text = slice_str(text);
	l.record = &r;
	one_record(s, &l);
}

/* What this daemon itself had to drop, as soon as a line gets through again. */
static void
tell_dropped(struct log_state *s)
{
	struct log_line l = { .host = s->host,
		.name = s->d->conf->syslog_name,
		.role = ROLE_LOG,
		.pid = (uint32_t)getpid() };
	uint64_t n = s->dropped;

	if (!n)
		return;
	s->dropped = 0;
	say_dropped(s, l, n, s->dropped_event, "the log could not be written");
}

static void
to_syslog(struct log_state *s, const struct log_line *l)
{
	struct buf line = { 0 };

	buf_addf(&line, "<%d>",
	    facility_of(s->d->conf->syslog_facility) * 8 + log_severity(l->record->level));
	format_syslog(&line, l);
	if (send(s->out, buf_slice(&line).p, buf_len(&line), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		if (errno == ECONNREFUSED || errno == ENOTCONN || errno == ECONNRESET) {
			no_syslog(s, SYSLOG_AGAIN_MS);
			format_text(&s->pending, l);
		} else {
			lose(s, l->record);
		}
	} else {
		tell_dropped(s);
	}
	buf_free(&line);
}

/* The log of a full disk cannot say so: standard error, which systemd or a terminal keeps, can. */
static void
write_failed(struct log_state *s, int err)
{
	if (!s->failing && s->d->conf->log_target == CONF_LOG_TARGET_FILE)
		fprintf(stderr,
		    "log: cannot write %s: %s: lines wait in memory; free space there, or correct "
		    "log_file\n",
		    s->d->conf->log_file, err_str(err));
	s->failing = true;
}

static void
flush_pending(void *arg)
{
	struct log_state *s = arg;

	s->armed = false;
	while (buf_len(&s->pending)) {
		ptrdiff_t n = buf_write(&s->pending, s->out);
		if (n > 0)
			continue;
		write_failed(s, (int)n);
		s->armed = true;
		ev_timer_set(s->d->base, &s->rest, n == -EAGAIN ? REST_MS : WRITE_AGAIN_MS,
		    flush_pending, s);
		return;
	}
	s->failing = false;
	if (s->dropped) {
		tell_dropped(s);
		flush_pending(s);
	}
}

static bool
room_for(const struct log_state *s, const struct item_log_record *r)
{
	const struct log_event_row *row;

	if (buf_len(&s->pending) < PENDING_MAX)
		return true;
	row = log_event_find(r->event);
	return row && row->keep && buf_len(&s->pending) < PENDING_KEEP;
}

static void
one_record(struct log_state *s, const struct log_line *l)
{
	const struct conf *c = s->d->conf;

	if (c->log_target == CONF_LOG_TARGET_SYSLOG && !s->absent) {
		to_syslog(s, l);
		return;
	}
	if (!room_for(s, l->record)) {
		lose(s, l->record);
		return;
	}
	if (s->journal && s->out == STDERR_FILENO)
		buf_addf(&s->pending, "<%d>", log_severity(l->record->level));
	if (c->log_format == CONF_LOG_FORMAT_JSON)
		format_json(&s->pending, l);
	else
		format_text(&s->pending, l);
	if (buf_len(&s->pending) > PENDING_MAX / 4 && !s->failing)
		flush_pending(s);
}

static void
note_dropped(struct log_state *s, const struct msg_log_records *m, struct log_line l)
{
	char event[65];

	if (!m->dropped)
		return;
	snprintf(event, sizeof(event), "%.*s", SLICE_ARG(m->dropped_event));
	say_dropped(s, l, m->dropped, event, "the log was full");
}

static void
on_records(struct log_state *s, struct slice in)
{
	struct msg m;
	struct item_log_record r;
	struct cursor c;
	struct log_line l = { .record = &r, .host = s->host, .name = s->d->conf->syslog_name };

	if (msg_decode(in, &m) || m.type != MSG_LOG_RECORDS) {
		s->malformed++;
		count(COUNT_ipc_violations, 1);
		return;
	}
	l.role = m.log_records.role;
	l.pid = m.log_records.pid;
	note_dropped(s, &m.log_records, l);
	for (c = cursor(m.log_records.records.raw); item_log_record_next(&c, &r);)
		one_record(s, &l);
}

/* Takes what is there, without a descriptor that somebody may have attached: no control buffer is
 * given. */
static bool
take_some(struct log_state *s)
{
	for (int i = 0; i < BURST; i++) {
		ssize_t n = recv(s->in, s->record, MSG_MAX, MSG_DONTWAIT);
		if (n <= 0)
			return i > 0;
		on_records(s, slice(s->record, (size_t)n));
	}
	return true;
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct log_state *s = arg;

	(void)fd;
	(void)what;
	ev_turn();
	if (take_some(s) && !s->armed) {
		s->armed = true;
		ev_timer_set(s->d->base, &s->rest, REST_MS, flush_pending, s);
	}
}

static int
connect_syslog(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		close(fd);
		return -1;
	}
	return fd;
}

static int
on_init(struct daemon *d)
{
	static struct log_state s;
	size_t seed = 0;

	s.d = d;
	s.in = -1;
	s.out = STDERR_FILENO;
	s.journal = log_stderr_is_journal();
	s.record = xmalloc(MSG_MAX);
	d->ctx = &s;
	gethostname(s.host, sizeof(s.host) - 1);
	if (getrandom(&seed, sizeof(seed), 0) == (ssize_t)sizeof(seed))
		json_object_seed(seed | 1);
	switch (d->conf->log_target) {
	case CONF_LOG_TARGET_FILE:
		s.out = open(d->conf->log_file,
		    O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
		if (s.out >= 0 && !d->unprivileged && fchown(s.out, d->uid, d->gid))
			fprintf(stderr, "log: %s: %s\n", d->conf->log_file, err_str(err_errno()));
		break;
	case CONF_LOG_TARGET_SYSLOG:
		s.out = connect_syslog();
		break;
	}
	if (s.out < 0) {
		fprintf(stderr, "log: cannot open %s: %s; lines go to stderr\n",
		    d->conf->log_target == CONF_LOG_TARGET_FILE ? d->conf->log_file : "/dev/log",
		    err_str(err_errno()));
		s.absent = d->conf->log_target == CONF_LOG_TARGET_SYSLOG;
		if (!s.absent)
			d->conf->log_target = CONF_LOG_TARGET_STDERR;
		s.out = STDERR_FILENO;
	}
	return 0;
}

/* After a rotation: the same name again, below the root that the directory of the file is. */
static void
open_anew(struct daemon *d)
{
	struct log_state *s = d->ctx;
	const char *base = strrchr(d->conf->log_file, '/');
	int fd;

	if (d->conf->log_target != CONF_LOG_TARGET_FILE || !base)
		return;
	flush_pending(s);
	fd = open(base + 1, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (fd < 0) { /* a directory of somebody else: a successor opens it before its jail */
		daemon_renew(d);
		return;
	}
	close(s->out);
	s->out = fd;
}

static void
on_reload(struct daemon *d, const struct conf *old)
{
	if (old->log_target != d->conf->log_target || strcmp(old->log_file, d->conf->log_file))
		log_event(
		    LOG_log_target, "reason=\"a changed log_target or log_file needs a restart\"");
	d->conf->log_target = old->log_target;
	open_anew(d);
}

static void
on_control(struct daemon *d, struct ipc_chan *ch, uint32_t id, uint32_t uid,
    const struct slice *words, size_t n)
{
	(void)uid;
	if (n != 2 || !slice_eq_str(words[1], "reopen")) {
		daemon_control_reply(ch, id, 2, SLICE_LIT("log knows the verb log reopen\n"));
		return;
	}
	open_anew(d);
	daemon_control_reply(ch, id, 0, SLICE_NULL);
}

static void
on_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct log_state *s = d->ctx;

	(void)ch;
	if (m->type != MSG_LISTENER || s->in >= 0)
		return;
	s->in = m->fd;
	m->fd = -1;
	s->readable = event_new(d->base, s->in, EV_READ | EV_PERSIST, on_readable, s);
	event_add(s->readable, NULL);
	if (s->absent)
		no_syslog(s, SYSLOG_ABSENT_MS);
}

static void
on_stop(struct daemon *d)
{
	struct log_state *s = d->ctx;

	log_flush();
	while (s->in >= 0 && take_some(s))
		;
	flush_pending(s);
	daemon_exit(d);
}

static void
on_status(struct daemon *d, struct buf *out)
{
	const struct log_state *s = d->ctx;

	buf_addf(out, "malformed=%llu lost=%llu waiting_bytes=%zu%s",
	    (unsigned long long)s->malformed, (unsigned long long)s->lost, buf_len(&s->pending),
	    s->failing ? " trouble=\"the log cannot be written\"" : "");
}

int
main(int argc, char **argv)
{
	static const struct daemon_desc desc = { .role = ROLE_LOG,
		.init = on_init,
		.message = on_message,
		.reload = on_reload,
		.control = on_control,
		.stop = on_stop,
		.status = on_status };

	return daemon_run(argc, argv, &desc);
}
