/*
 * The asking side of the control socket (run_directory/control, SOCK_SEQPACKET): one request of
 * words, an answer of text chunks and an exit status. The uid in the request is a claim; master
 * takes it from SO_PEERCRED. Blocking, with a time limit, so that a stuck daemon is a message and
 * not a hang.
 */
#include "ipc/chan.h"
#include "tools/tool.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_SECONDS 120

static int
open_socket(struct tool *t, char *path, size_t size)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = ANSWER_SECONDS };
	int fd, err;

	snprintf(path, size, "%s/control", tool_conf(t)->run_directory);
	if (slice_copy(slice_str(path), addr.sun_path, sizeof(addr.sun_path)))
		return ERR_LIMIT;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno();
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return fd;
	err = err_errno();
	close(fd);
	return err;
}

static void
say_unreachable(const char *path, int err)
{
	if (err == -ENOENT || err == -ECONNREFUSED)
		tool_say("the suite does not run (%s): bulkhead start starts it", path);
	else if (err == -EACCES || err == -EPERM)
		tool_say("%s: %s: become root, or a member of admin_group", path, err_str(err));
	else
		tool_say("%s: %s", path, err_str(err));
}

bool
control_alive(struct tool *t)
{
	char path[256];
	int fd = open_socket(t, path, sizeof(path));

	if (fd < 0) /* who may not ask sees a socket all the same */
		return fd == -EACCES || fd == -EPERM;
	close(fd);
	return true;
}

/* Control bytes in an answer come from mail or names: they do not reach the terminal. */
static void
take_text(struct slice text, struct tool_shown *shown, struct buf *screen)
{
	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] == '\r' && i + 1 < text.n && text.p[i + 1] == '\n')
			continue; /* content is shown by queue show */
		buf_add_byte(screen, tool_shown(shown, text.p[i]));
	}
}

static int
print_some(struct buf *screen, size_t max)
{
	ssize_t n = write(
	    STDOUT_FILENO, buf_slice(screen).p, buf_len(screen) < max ? buf_len(screen) : max);

	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? 0 : err_errno();
	buf_consume(screen, (size_t)n);
	return 0;
}

/* What is left when the answer is whole. */
static int
print_rest(struct buf *screen)
{
	struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };
	int err = 0;

	while (buf_len(screen) && !err) {
		(void)poll(&p, 1, -1);
		err = print_some(screen, SIZE_MAX);
	}
	return err;
}

/* Until the next part is there. A pager that stands still must not make master keep the answer, so
 * what it does not take waits here. */
static int
print_and_wait(int fd, struct buf *screen, int *output_r)
{
	struct pollfd p[2] = { { .fd = fd, .events = POLLIN }, { .events = POLLOUT } };

	for (;;) {
		int n;

		p[1].fd = buf_len(screen) ? STDOUT_FILENO : -1;
		n = poll(p, 2, ANSWER_SECONDS * 1000);
		if (n < 0 && errno != EINTR)
			return err_errno();
		if (n == 0)
			return -EAGAIN;
		if (n > 0 && p[0].revents)
			return 0;
		if (n > 0 && p[1].revents && (*output_r = print_some(screen, PIPE_BUF)))
			return *output_r;
	}
}

static int
receive(int fd, struct buf *out)
{
	struct buf bytes = { 0 }, screen = { 0 };
	struct tool_shown shown = { 0 };
	struct msg m;
	int err, status = -1, output = 0;

	fflush(stdout);
	do {
		err = print_and_wait(fd, &screen, &output);
		if (!err)
			err = ipc_recv_fd(fd, &bytes, &m);
		if (err)
			break;
		if (m.fd >= 0)
			close(m.fd);
		if (m.type != MSG_CONTROL_REPLY) {
			err = ERR_SYNTAX;
			break;
		}
		if (out)
			(void)buf_add(out, m.control_reply.text);
		else
			take_text(m.control_reply.text, &shown, &screen);
		status = m.control_reply.status;
	} while (m.control_reply.more);
	if (!output)
		output = print_rest(&screen);
	buf_free(&screen);
	if (output)
		tool_say("cannot write the output: %s", err_str(output));
	else if (err == -EAGAIN)
		tool_say("no answer within %d seconds: see the log", ANSWER_SECONDS);
	else if (err == ERR_CLOSED)
		tool_say("master closed the connection without a full answer: see the log");
	else if (err)
		tool_say(
		    "the answer of master cannot be read: %s: is this program of the same build?",
		    err_str(err));
	buf_free(&bytes);
	return output ? 74 : err ? 75 : status;
}

int
control_call(struct tool *t, const char *const *words, size_t n, bool silent, struct buf *out)
{
	struct msg m = MSG_INIT(MSG_CONTROL_REQUEST, 1);
	struct buf list = { 0 };
	char path[256];
	int fd = open_socket(t, path, sizeof(path)), err = 0;
	size_t i;

	if (fd < 0) {
		if (!silent)
			say_unreachable(path, fd);
		return -1;
	}
	for (i = 0; i < n; i++) {
		struct item_word w = { .word = slice_str(words[i]) };

		item_word_add(&list, &w);
	}
	m.control_request.uid = getuid();
	m.control_request.words = msg_list(&list, (uint32_t)n);
	err = ipc_send_fd(fd, &m);
	if (err)
		tool_say("%s: %s%s", path, err_str(err),
		    err == ERR_LIMIT ? ": too many or too long words" : "");
	err = err ? 75 : receive(fd, out);
	buf_wipe(&list);
	close(fd);
	return err;
}

/* status, upgrade, security: the words as they are. */
int
cmd_control(struct tool *t, int argc, char **argv)
{
	int status;

	if (argc > 1) {
		tool_say("usage: bulkhead %s: it takes no argument", argv[0]);
		return 64;
	}
	status = control_call(t, (const char *const *)argv, (size_t)argc, false, NULL);
	return status < 0 ? 69 : status;
}

/* A descriptor that becomes readable when master has gone, or -1. */
static int
master_pidfd(struct tool *t)
{
	char *path = xasprintf("%s/master.pid", tool_conf(t)->run_directory);
	FILE *f = fopen(path, "re");
	long pid = 0;
	int fd = -1;

	if (f) {
		if (fscanf(f, "%ld", &pid) == 1 && pid > 1)
			fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
		fclose(f);
	}
	free(path);
	return fd;
}

/* Asks master to stop and waits until it has. */
int
cmd_stop(struct tool *t, int argc, char **argv)
{
	struct pollfd gone = { .fd = master_pidfd(t), .events = POLLIN };
	int64_t limit = tool_conf(t)->stop_timeout + 10000;
	int status = control_call(t, (const char *const *)argv, (size_t)argc, false, NULL);

	if (status == 0 && gone.fd >= 0 &&
	    poll(&gone, 1, limit > INT_MAX ? INT_MAX : (int)limit) <= 0) {
		tool_say(
		    "it has not stopped after %lld seconds: see the log", (long long)limit / 1000);
		status = 75;
	}
	if (gone.fd >= 0)
		close(gone.fd);
	return status < 0 ? 69 : status;
}

int
cmd_queue(struct tool *t, int argc, char **argv)
{
	char *list[] = { argv[0], (char *)"list", NULL };
	int status;

	if (argc < 2) {
		argc = 2;
		argv = list;
	}
	status = control_call(t, (const char *const *)argv, (size_t)argc, false, NULL);
	return status < 0 ? 69 : status;
}
