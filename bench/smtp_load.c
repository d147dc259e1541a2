/*
 * smtp_load: many SMTP sessions at once against one port of this machine, for smtp-probe. It is in
 * C because a slow generator is a load of its own: what it takes of the processor, both servers
 * lack, the faster one more.
 *
 *   smtp_load PORT SESSIONS BYTES RATE <jobs >times
 *
 * jobs: a message a line, its recipients divided by spaces. RATE: messages a second over all
 * sessions, 0: as many as go. times: a line "JOB US" a message, in microseconds from the final dot
 * written to the arrival of its reply, which is when the kernel has it, not when this program comes
 * to read it; then "total US".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SILENCE_MS 60000

struct session {
	int fd;
	struct session *next; /* of those whose message is not due */
	char *line;           /* recipients of its message, changed as they are named */
	size_t job;
	enum { GREETING, HELLO, SENDER, RECIPIENT, DATA, CONTENT } step;
	int64_t dot, came; /* ns, wall clock */
	size_t n;
	char in[4096];
};

static char **jobs;
static size_t n_jobs, taken, open_sessions;
static char *content;
static size_t content_n;
static double rate;
static int64_t began;
static struct session *due_first, **due_last = &due_first;

static void __attribute__((format(printf, 1, 2), noreturn)) give_up(const char *format, ...)
{
	va_list ap;

	fputs("smtp_load: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static int64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t
due(size_t job)
{
	return rate > 0 ? began + (int64_t)((double)job / rate * 1e9) : 0;
}

static void
say(struct session *s, const char *text, size_t n)
{
	while (n) {
		ssize_t k = write(s->fd, text, n);

		if (k < 0)
			give_up("write: %s", strerror(errno));
		text += k;
		n -= (size_t)k;
	}
}

static void
say_line(struct session *s, const char *before, const char *middle, const char *after)
{
	char text[1200];
	int n = snprintf(text, sizeof(text), "%s%s%s\r\n", before, middle, after);

	if (n < 0 || (size_t)n >= sizeof(text))
		give_up("a recipient is too long: %.40s", middle);
	say(s, text, (size_t)n);
}

static void
begin_message(struct session *s)
{
	s->step = SENDER;
	say_line(s, "MAIL FROM:<probe@src.test>", "", "");
}

/* The next message, or the end of the session. */
static void
take_job(struct session *s)
{
	if (taken == n_jobs) {
		close(s->fd);
		s->fd = -1;
		open_sessions--;
		return;
	}
	s->job = taken++;
	s->line = jobs[s->job];
	if (due(s->job) <= now_ns()) {
		begin_message(s);
		return;
	}
	s->next = NULL;
	*due_last = s;
	due_last = &s->next;
}

static void
name_recipient(struct session *s)
{
	char *recipient = strsep(&s->line, " ");

	s->step = s->line ? RECIPIENT : DATA;
	say_line(s, "RCPT TO:<", recipient, ">");
}

/* A reply has come whole and is a good one. */
static void
go_on(struct session *s)
{
	switch (s->step) {
	case GREETING:
		s->step = HELLO;
		say_line(s, "EHLO probe", "", "");
		break;
	case HELLO:
		take_job(s);
		break;
	case SENDER:
	case RECIPIENT:
		name_recipient(s);
		break;
	case DATA:
		s->step = CONTENT;
		say_line(s, "DATA", "", "");
		break;
	case CONTENT:
		if (!s->dot) {
			say(s, content, content_n);
			s->dot = now_ns();
			break;
		}
		printf("%zu %lld\n", s->job, (long long)(s->came - s->dot) / 1000);
		s->dot = 0;
		take_job(s);
		break;
	}
}

static void
read_some(struct session *s)
{
	union {
		char bytes[128];
		struct cmsghdr head;
	} extra;
	struct iovec to = { s->in + s->n, sizeof(s->in) - s->n };
	struct msghdr m = { .msg_iov = &to,
		.msg_iovlen = 1,
		.msg_control = extra.bytes,
		.msg_controllen = sizeof(extra.bytes) };
	ssize_t k = recvmsg(s->fd, &m, 0);
	struct timespec t;

	if (k <= 0)
		give_up("the server closed a session: %s", k ? strerror(errno) : "end of input");
	s->n += (size_t)k;
	s->came = now_ns();
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
			memcpy(&t, CMSG_DATA(c), sizeof(t));
			s->came = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
		}
}

static void
on_readable(struct session *s)
{
	char *end;

	read_some(s);
	while (s->fd >= 0 && (end = memchr(s->in, '\n', s->n))) {
		size_t n = (size_t)(end + 1 - s->in);
		bool last = n > 3 && s->in[3] != '-';

		if (s->in[0] != '2' && s->in[0] != '3')
			give_up("the server said %.*s", (int)n - 1, s->in);
		s->n -= n;
		memmove(s->in, end + 1, s->n);
		if (last)
			go_on(s);
	}
}

static void
read_jobs(void)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t n;

	while ((n = getline(&line, &room, stdin)) > 0) {
		line[strcspn(line, "\n")] = 0;
		jobs = realloc(jobs, (n_jobs + 1) * sizeof(*jobs));
		if (!jobs || !(jobs[n_jobs++] = strdup(line)))
			give_up("out of memory");
	}
	free(line);
}

static void
make_content(size_t length)
{
	static const char head[] =
	    "From: <probe@src.test>\r\nTo: <u@bench.test>\r\nSubject: probe\r\n\r\n";
	size_t lines = length / 80 ? length / 80 : 1;
	char *at = content = malloc(sizeof(head) + lines * 80 + 3);

	if (!at)
		give_up("out of memory");
	at = stpcpy(at, head);
	for (size_t i = 0; i < lines; i++) {
		memset(at, 'X', 78);
		at = stpcpy(at + 78, "\r\n");
	}
	at = stpcpy(at, ".\r\n");
	content_n = (size_t)(at - content);
}

static void
connect_to(struct session *s, int loop, uint16_t port)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = s };
	int one = 1;

	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->fd < 0 || setsockopt(s->fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof(one)) ||
	    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
	    connect(s->fd, (struct sockaddr *)&to, sizeof(to)) ||
	    epoll_ctl(loop, EPOLL_CTL_ADD, s->fd, &e))
		give_up("connect to port %u: %s", port, strerror(errno));
	open_sessions++;
}

/* Begins what is due; milliseconds until the next one is. */
static int
begin_due(void)
{
	while (due_first) {
		struct session *s = due_first;
		int64_t left = due(s->job) - now_ns();

		if (left > 0)
			return (int)(left / 1000000) + 1;
		due_first = s->next;
		if (!due_first)
			due_last = &due_first;
		begin_message(s);
	}
	return SILENCE_MS;
}

int
main(int argc, char **argv)
{
	size_t n_sessions = argc == 5 ? strtoul(argv[2], NULL, 10) : 0;
	struct session *sessions = calloc(n_sessions, sizeof(*sessions));
	struct epoll_event events[64];
	int loop = epoll_create1(EPOLL_CLOEXEC);

	if (!n_sessions || !sessions || loop < 0)
		give_up("usage: smtp_load PORT SESSIONS BYTES RATE <jobs >times");
	rate = strtod(argv[4], NULL);
	make_content(strtoul(argv[3], NULL, 10));
	read_jobs();
	began = now_ns();
	for (size_t i = 0; i < n_sessions; i++)
		connect_to(&sessions[i], loop, (uint16_t)strtoul(argv[1], NULL, 10));
	while (open_sessions) {
		int wait = begin_due(), n = epoll_wait(loop, events, 64, wait);

		if (!n && wait == SILENCE_MS)
			give_up("nothing happened for a minute");
		for (int i = 0; i < n; i++)
			on_readable(events[i].data.ptr);
	}
	printf("total %lld\n", (long long)(now_ns() - began) / 1000);
	return 0;
}
