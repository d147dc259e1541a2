/*
 * sendmail(1): the interface through which programs of this machine send mail. Runs as whoever
 * calls it, neither setuid nor setgid; what it sends is not believed by anybody. Hostile for the
 * caller: the message, where another user wrote it. Exit codes are those of sysexits.h.
 */
#include "submission/sendmail/sendmail.h"

#include "smtp/params.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int
complain(int status, const char *fmt, ...)
{
	va_list ap;

	fputs("sendmail: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return status;
}

/* A tool that lies beside this program, else one of the path. */
static int
run_tool(const struct options *o, const char *name, const char *a, const char *b)
{
	char self[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 64);
	const char *argv[] = { name, "-c", o->dir, a, b, NULL };

	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		if (slash) {
			snprintf(slash + 1, 64, "%s", name);
			execv(self, (char **)(uintptr_t)argv);
		}
	}
	execvp(name, (char **)(uintptr_t)argv);
	return complain(EX_UNAVAILABLE, "%s: %s", name, strerrordesc_np(errno));
}

static int
take_mode(struct options *o, const char *value)
{
	switch (value[0]) {
	case 'm':
		return EX_OK;
	case 'v':
		o->verify = true;
		return EX_OK;
	case 's':
		o->mode = MODE_SMTP;
		return EX_OK;
	case 'p':
		o->mode = MODE_MAILQ;
		return EX_OK;
	case 'i':
		o->mode = MODE_ALIASES;
		return EX_OK;
	default:
		return complain(
		    EX_USAGE, "-b%s is not supported: start the server with bulkhead start", value);
	}
}

static int
take_dsn(struct options *o, char c, const char *value)
{
	if (c == 'N' && dsn_notify_parse(slice_str(value), &o->notify))
		return complain(EX_USAGE, "-N wants never, or a list of success, failure, delay");
	if (c == 'R') {
		bool full = slice_caseeq_str(slice_str(value), "full");
		if (!full && !slice_caseeq_str(slice_str(value), "hdrs"))
			return complain(EX_USAGE, "-R wants full or hdrs");
		o->ret = full ? 1 : 2;
	}
	if (c == 'V')
		o->envid = value;
	return EX_OK;
}

static int
take_option(struct options *o, int c, const char *value)
{
	switch (c) {
	case 'b':
		return take_mode(o, value);
	case 'C':
	case 'c':
		o->dir = value;
		return EX_OK;
	case 'f':
	case 'r':
		o->sender = value;
		return EX_OK;
	case 'F':
		o->full_name = value;
		return EX_OK;
	case 'i':
		o->dot_ends = false;
		return EX_OK;
	case 'o': /* -oi and -oem, -odb and the like, which change nothing here */
		if (value[0] == 'i' && !value[1])
			o->dot_ends = false;
		return EX_OK;
	case 't':
		o->headers = true;
		return EX_OK;
	case 'q':
		o->mode = MODE_FLUSH;
		return EX_OK;
	case 'I':
		o->mode = MODE_ALIASES;
		return EX_OK;
	case 'v':
		o->verbose = true;
		return EX_OK;
	case 'B':
		o->body = slice_has_prefix(slice_str(value), "8") ? 8 : 7;
		return EX_OK;
	case 'N':
	case 'R':
	case 'V':
		return take_dsn(o, (char)c, value);
	case '?':
		return EX_USAGE;
	default: /* -A -G -h -L -m -n -O -p -s -U -x -X: taken, without meaning */
		return EX_OK;
	}
}

static int
parse_options(struct options *o, int argc, char **argv)
{
	int c, status = EX_OK;

	/* "q" and "x" have optional values that are part of the word; "b" and "o" always have one
	 */
	while (!status &&
	       (c = getopt(argc, argv, "+A:b:B:c:C:F:f:GIiL:h:mN:nO:o:p:q::R:r:stUV:vX:x::")) != -1)
		status = take_option(o, c, optarg ? optarg : "");
	return status;
}

static int
find_sender(struct job *job)
{
	const struct passwd *pw = getpwuid(getuid());

	if (!job->options.full_name)
		job->options.full_name = getenv("NAME");
	if (pw && !job->options.full_name) {
		struct slice gecos = slice_str(pw->pw_gecos);
		gecos = slice_split(&gecos, ',');
		if (gecos.n)
			job->options.full_name =
			    arena_printf(&job->arena, "%.*s", SLICE_ARG(gecos));
	}
	if (!job->options.sender)
		job->options.sender = pw ? arena_strdup(&job->arena, pw->pw_name)
					 : arena_printf(&job->arena, "uid-%u", (unsigned)getuid());
	if (!strcmp(job->options.sender, "<>"))
		job->options.sender = "";
	return EX_OK;
}

/* A transaction takes smtpd_recipient_limit of them, and so does a file of maildrop. Those that do
 * not exist stand in nobody's way. */
static int
send_in_parts(struct job *job)
{
	struct maildrop *m = &job->envelope;
	struct slice *all = m->rcpts;
	size_t count = m->count, limit = (size_t)job->conf->smtpd_recipient_limit;
	int refused = EX_OK;

	for (size_t at = 0; at < count; at += m->count) {
		m->rcpts = all + at;
		m->count = count - at < limit ? count - at : limit;
		int status = client_send(job);
		if (status == EX_TEMPFAIL)
			status = drop_write(job);
		if (status && status != EX_NOUSER) {
			if (at)
				complain(status, "the first %zu of %zu recipients have the message",
				    at, count);
			return status;
		}
		refused = status ? status : refused;
	}
	return refused;
}

static int
send_message(struct job *job)
{
	int status = message_read(job);

	if (status)
		return status;
	if (!job->envelope.count)
		return complain(EX_USAGE,
		    "no recipients: name them as arguments, or give -t and a message with To:");
	return send_in_parts(job);
}

static int
run(struct job *job, int argc, char **argv)
{
	for (int i = optind; i < argc; i++) {
		int status = message_add_recipients(job, slice_str(argv[i]), true);
		if (status)
			return status;
	}
	switch (job->options.mode) {
	case MODE_SMTP:
		return client_pass_through(job);
	case MODE_MAILQ:
		return run_tool(&job->options, "mailq", NULL, NULL);
	case MODE_ALIASES:
		return run_tool(&job->options, "newaliases", NULL, NULL);
	case MODE_FLUSH:
		return run_tool(&job->options, "bulkhead", "queue", "flush");
	case MODE_MAIL:
		break;
	}
	find_sender(job);
	return job->options.verify ? client_verify(job) : send_message(job);
}

int
main(int argc, char **argv)
{
	struct conf_problems problems = { 0 };
	struct job job = { .options = { .dir = "/etc/bulkhead", .dot_ends = true } };
	struct conf_set *set;
	int status = parse_options(&job.options, argc, argv);

	if (status)
		return status;
	set = conf_set_load(job.options.dir, &problems);
	if (problems.errors && !conf_raw_find(set->raw, "queue_directory") &&
	    access(set->main_cf, R_OK))
		return complain(EX_CONFIG, "%s: cannot be read", set->main_cf);
	job.conf = set->conf;
	status = run(&job, argc, argv);
	arena_free(&job.arena);
	buf_free(&job.content);
	conf_problems_free(&problems);
	conf_set_free(&set);
	return status;
}
