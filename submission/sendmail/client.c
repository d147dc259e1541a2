/*
 * sendmail(1) as an SMTP client of submission's local socket. Runs as the caller; blocking, with
 * time limits. The server knows the caller's uid from the kernel, so nothing is asserted here.
 * Invariant: a message is either taken (250 to its end) or EX_TEMPFAIL is returned and it goes to
 * maildrop/, unless the server said that it never will be taken.
 */
#include "submission/sendmail/sendmail.h"

#include "smtp/line.h"
#include "smtp/params.h"
#include "smtp/reply.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define REPLY_MS 300000
#define END_MS 600000
#define BATCH 50u /* recipients that are sent before their replies are read */

struct client {
	int fd;
	struct buf in, out;
	struct line_reader lines;
	struct reply_reader replies;
	struct reply reply;
	char text[1024]; /* of the last reply */
};

static int
connect_submit(const struct job *job)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd, n = snprintf(
		    addr.sun_path, sizeof(addr.sun_path), "%s/submit", job->conf->run_directory);

	if (n < 0 || (size_t)n >= sizeof(addr.sun_path))
		return ERR_LIMIT;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno();
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		int err = err_errno();
		close(fd);
		return err;
	}
	return fd;
}

static int
client_open(const struct job *job, struct client *c)
{
	*c = (struct client){ .fd = connect_submit(job), .lines = { .limit = 4096 } };
	return c->fd < 0 ? c->fd : 0;
}

static void
client_close(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	buf_free(&c->in);
	buf_free(&c->out);
	reply_reader_free(&c->replies);
}

static int
flush_out(struct client *c)
{
	while (buf_len(&c->out)) {
		struct slice s = buf_slice(&c->out);
		ssize_t n = send(c->fd, s.p, s.n, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? err_errno() : ERR_CLOSED;
		buf_consume(&c->out, (size_t)n);
	}
	return 0;
}

static int
fill_in(struct client *c, int ms)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	ptrdiff_t n;
	int rc;

	do
		rc = poll(&p, 1, ms);
	while (rc < 0 && errno == EINTR);
	if (rc <= 0)
		return rc ? err_errno() : -ETIMEDOUT;
	n = buf_read(&c->in, c->fd, 4096);
	return n > 0 ? 0 : n ? (int)n : ERR_CLOSED;
}

/* The code of the next reply, or a negative error. */
static int
read_reply(struct client *c, int ms)
{
	for (;;) {
		struct slice line;
		size_t used;
		enum line_status status = line_read(&c->lines, buf_slice(&c->in), &line, &used);
		int err = status == LINE_OK ? reply_read(&c->replies, line, &c->reply) : 0;
		if (err == 1)
			snprintf(c->text, sizeof(c->text), "%u %.*s%s%.*s", c->reply.code,
			    SLICE_ARG(c->reply.enhanced), c->reply.enhanced.n ? " " : "",
			    SLICE_ARG(c->reply.text));
		buf_consume(&c->in, used);
		if (err == 1)
			return (int)c->reply.code;
		if (err < 0 || (status != LINE_OK && status != LINE_MORE))
			return err < 0 ? err : ERR_SYNTAX;
		if (status == LINE_MORE) {
			err = fill_in(c, ms);
			if (err)
				return err;
		}
	}
}

static int command(struct client *c, const char *fmt, ...) PRINTF(2, 3);

static int
command(struct client *c, const char *fmt, ...)
{
	va_list ap;
	int err;

	va_start(ap, fmt);
	buf_addv(&c->out, fmt, ap);
	va_end(ap);
	buf_add_str(&c->out, "\r\n");
	err = flush_out(c);
	return err ? err : read_reply(c, REPLY_MS);
}

static int
status_of(int code)
{
	return code < 0 || code / 100 == 4      ? EX_TEMPFAIL
	       : code / 100 == 2 || code == 354 ? EX_OK
						: EX_UNAVAILABLE;
}

static int
greet(struct client *c)
{
	int code = read_reply(c, REPLY_MS);

	if (status_of(code))
		return code == 554 ? complain(EX_NOPERM, "%s", c->text) : EX_TEMPFAIL;
	return status_of(command(c, "EHLO localhost")) ? EX_TEMPFAIL : EX_OK;
}

static int
mail(struct client *c, const struct job *job)
{
	const struct maildrop *m = &job->envelope;
	struct buf params = { 0 };
	int code;

	buf_addf(&params, " SIZE=%zu", buf_len(&job->content));
	if (m->body_8bit)
		buf_add_str(&params, " BODY=8BITMIME");
	if (m->smtputf8)
		buf_add_str(&params, " SMTPUTF8");
	if (m->ret)
		buf_add_str(&params, m->ret == 1 ? " RET=FULL" : " RET=HDRS");
	if (m->envid.n)
		buf_addf(&params, " ENVID=%.*s", SLICE_ARG(m->envid));
	code = command(c, "MAIL FROM:<%.*s>%.*s", SLICE_ARG(m->sender), (int)buf_len(&params),
	    (const char *)buf_slice(&params).p);
	buf_free(&params);
	if (status_of(code) == EX_UNAVAILABLE)
		return complain(EX_UNAVAILABLE, "%s", c->text);
	return status_of(code);
}

/* Sends the recipients in batches. *good_r: how many were taken. A temporary refusal stops all. */
static int
recipients(struct client *c, const struct job *job, size_t *good_r)
{
	const struct maildrop *m = &job->envelope;
	struct buf notify = { 0 };
	int status = EX_OK;

	*good_r = 0;
	dsn_notify_format(&notify, m->notify);
	for (size_t at = 0; at < m->count && status != EX_TEMPFAIL; at += BATCH) {
		size_t end = at + BATCH < m->count ? at + BATCH : m->count;
		for (size_t i = at; i < end; i++)
			buf_addf(&c->out, "RCPT TO:<%.*s>%s%.*s\r\n", SLICE_ARG(m->rcpts[i]),
			    m->notify ? " NOTIFY=" : "", (int)buf_len(&notify),
			    (const char *)buf_slice(&notify).p);
		if (flush_out(c)) {
			status = EX_TEMPFAIL;
			break;
		}
		for (size_t i = at; i < end; i++) {
			int code = read_reply(c, REPLY_MS);
			if (code < 0 || code / 100 == 4)
				status = EX_TEMPFAIL;
			if (code < 0)
				break;
			if (code / 100 == 2)
				++*good_r;
			if (code / 100 == 5) {
				complain(0, "%.*s: %s", SLICE_ARG(m->rcpts[i]), c->text);
				status = status == EX_TEMPFAIL ? status : EX_NOUSER;
			}
		}
	}
	buf_free(&notify);
	return status;
}

static int
data(struct client *c, const struct job *job)
{
	struct slice rest = buf_slice(&job->content);
	int code = command(c, "DATA");

	if (code != 354)
		return code / 100 == 5 ? complain(EX_UNAVAILABLE, "%s", c->text) : EX_TEMPFAIL;
	while (rest.n) {
		struct slice line = slice_split(&rest, '\n');
		if (line.n && line.p[0] == '.')
			buf_add_byte(&c->out, '.');
		buf_add(&c->out, line);
		buf_add_byte(&c->out, '\n');
		if (buf_len(&c->out) > 65536 && flush_out(c))
			return EX_TEMPFAIL;
	}
	buf_add_str(&c->out, ".\r\n");
	if (flush_out(c))
		return EX_TEMPFAIL;
	code = read_reply(c, END_MS);
	if (job->options.verbose && code > 0)
		printf("%s\n", c->text);
	return status_of(code) == EX_UNAVAILABLE ? complain(EX_UNAVAILABLE, "%s", c->text)
						 : status_of(code);
}

int
client_send(struct job *job)
{
	struct client c;
	size_t good = 0;
	int status, refused = EX_OK;

	if (client_open(job, &c)) {
		client_close(&c);
		return EX_TEMPFAIL;
	}
	status = greet(&c);
	if (!status)
		status = mail(&c, job);
	if (!status) {
		refused = recipients(&c, job, &good);
		status = refused == EX_TEMPFAIL || !good ? refused : EX_OK;
	}
	if (!status)
		status = data(&c, job);
	if (!status) {
		buf_add_str(&c.out, "QUIT\r\n");
		(void)!flush_out(&c);
	}
	client_close(&c);
	return status ? status : refused;
}

int
client_verify(struct job *job)
{
	struct client c;
	int status = client_open(job, &c) ? EX_TEMPFAIL : greet(&c), worst = EX_OK;

	if (!status)
		status = status_of(command(&c, "MAIL FROM:<>"));
	for (size_t i = 0; !status && i < job->envelope.count; i++) {
		int code = command(&c, "RCPT TO:<%.*s>", SLICE_ARG(job->envelope.rcpts[i]));
		if (code < 0) {
			status = EX_TEMPFAIL;
			break;
		}
		printf("%.*s: %s\n", SLICE_ARG(job->envelope.rcpts[i]), c.text);
		if (code / 100 == 5)
			worst = EX_NOUSER;
		else if (code / 100 == 4 && !worst)
			worst = EX_TEMPFAIL;
	}
	client_close(&c);
	if (status)
		return complain(EX_TEMPFAIL, "the mail system does not answer: bulkhead start");
	return worst;
}

/* --- -bs --- */

static int
copy(int from, int to)
{
	char bytes[8192];
	ssize_t n = read(from, bytes, sizeof(bytes)), done = 0;

	while (done < n) {
		ssize_t w = write(to, bytes + done, (size_t)(n - done));
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return ERR_CLOSED;
		done += w;
	}
	return n > 0 ? 0 : ERR_CLOSED;
}

int
client_pass_through(struct job *job)
{
	int fd = connect_submit(job);
	struct pollfd p[2] = { { .fd = STDIN_FILENO, .events = POLLIN },
		{ .fd = fd, .events = POLLIN } };

	if (fd < 0) {
		printf("421 4.3.2 %s Service not available\r\n", job->conf->myhostname);
		return EX_TEMPFAIL;
	}
	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents && copy(fd, STDOUT_FILENO))
			break;
		if (p[0].revents && copy(STDIN_FILENO, fd)) {
			shutdown(fd, SHUT_WR);
			p[0].fd = -1;
		}
	}
	close(fd);
	return EX_OK;
}
