/*
 * A server of the tests of smtp-client: a thread that follows a script and can misbehave. Steps:
 *
 * - S:line, the server says it; C:prefix, a line that begins so must come
 *
 * - D, content up to the lone dot; E, everything up to the end of the connection; N, the same, and
 * there must be no lone dot
 *
 * - T, the TLS handshake; G, garbage in its place
 *
 * - X, close; A, take the next connection; W:ms, wait; P, wait until the test says so
 */
#ifndef SMTP_CLIENT_SERVER_TEST_UTIL_H
#define SMTP_CLIENT_SERVER_TEST_UTIL_H

#include "sender.h"

#include "tls/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define DEADLINE_MS 20000

/* --- a server --- */

struct server {
	pthread_t thread;
	int listener, fd;
	uint16_t port;
	const char *const *script;
	struct tls_ctx *ctx;
	struct tls_conn *tls;
	struct buf in, content;
	char error[300];
	unsigned connections;
	sem_t reached, go; /* of step P */
};

static inline bool
wait_fd(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, DEADLINE_MS) == 1;
}

static inline bool
server_fail(struct server *v, const char *step, const char *got)
{
	snprintf(v->error, sizeof(v->error), "%s: got %s", step, got);
	return false;
}

static inline bool
server_read(struct server *v)
{
	unsigned char bytes[4096];

	for (;;) {
		ptrdiff_t n = v->tls ? tls_read(v->tls, bytes, sizeof(bytes))
				     : recv(v->fd, bytes, sizeof(bytes), 0);

		if (n > 0) {
			buf_add(&v->in, slice(bytes, (size_t)n));
			return true;
		}
		if (n == TLS_WANT_READ || (!v->tls && n < 0)) {
			if (!wait_fd(v->fd, POLLIN))
				return false;
			continue;
		}
		return false;
	}
}

static inline bool
server_line(struct server *v, const char *want)
{
	ptrdiff_t lf;
	bool ok;
	char got[200];

	while ((lf = slice_find(buf_slice(&v->in), '\n')) < 0)
		if (!server_read(v))
			return server_fail(v, want, "the end");
	snprintf(got, sizeof(got), "%.*s", (int)lf, (const char *)buf_slice(&v->in).p);
	ok = slice_has_prefix(buf_slice(&v->in), want);
	buf_consume(&v->in, (size_t)lf + 1);
	return ok ? true : server_fail(v, want, got);
}

static inline bool
server_content(struct server *v)
{
	ptrdiff_t at;

	while ((at = slice_search(buf_slice(&v->in), SLICE_LIT("\r\n.\r\n"))) < 0)
		if (!server_read(v))
			return server_fail(v, "content", "the end");
	buf_clear(&v->content);
	buf_add(&v->content, slice_sub(buf_slice(&v->in), 0, (size_t)at + 2));
	buf_consume(&v->in, (size_t)at + 5);
	return true;
}

static inline bool
server_say(struct server *v, const char *line)
{
	struct buf out = { 0 };
	bool ok = true;

	buf_addf(&out, "%s\r\n", line);
	while (ok && buf_len(&out)) {
		ptrdiff_t n = v->tls ? tls_write_buf(v->tls, &out) : buf_write(&out, v->fd);

		if (n < 0)
			ok = (n == TLS_WANT_WRITE || n == -EAGAIN) && wait_fd(v->fd, POLLOUT);
	}
	buf_free(&out);
	return ok ? true : server_fail(v, line, "no way to say it");
}

static inline bool
server_tls(struct server *v)
{
	int rc;

	v->tls = tls_conn_new(v->ctx, v->fd, TLS_SERVER);
	while ((rc = tls_handshake(v->tls)) != 0)
		if ((rc != TLS_WANT_READ && rc != TLS_WANT_WRITE) ||
		    !wait_fd(v->fd, rc == TLS_WANT_READ ? POLLIN : POLLOUT))
			return server_fail(v, "TLS", tls_error(v->tls));
	return true;
}

static inline void
server_close(struct server *v)
{
	tls_conn_free(&v->tls);
	if (v->fd >= 0)
		close(v->fd);
	v->fd = -1;
	buf_clear(&v->in);
}

static inline bool
server_accept(struct server *v)
{
	server_close(v);
	if (!wait_fd(v->listener, POLLIN))
		return server_fail(v, "accept", "nobody");
	v->fd = accept4(v->listener, NULL, NULL, SOCK_NONBLOCK);
	v->connections++;
	return v->fd >= 0;
}

static inline bool
server_step(struct server *v, const char *step)
{
	switch (step[0]) {
	case 'S':
		return server_say(v, step + 2);
	case 'C':
		return server_line(v, step + 2);
	case 'D':
		return server_content(v);
	case 'E':
		while (server_read(v))
			;
		return true;
	case 'N':
		while (server_read(v))
			;
		return slice_search(buf_slice(&v->in), SLICE_LIT("\r\n.\r\n")) < 0
			   ? true
			   : server_fail(v, step, "the end of data");
	case 'T':
		return server_tls(v);
	case 'G':
		return server_say(v, "garbage in place of a handshake");
	case 'X':
		server_close(v);
		return true;
	case 'P':
		sem_post(&v->reached);
		return !sem_wait(&v->go);
	case 'W':
		usleep((useconds_t)atoi(step + 2) * 1000);
		return true;
	default:
		return server_accept(v);
	}
}

static inline void *
server_main(void *arg)
{
	struct server *v = arg;

	if (server_accept(v))
		for (size_t i = 0; v->script[i]; i++)
			if (!server_step(v, v->script[i]))
				break;
	server_close(v);
	return NULL;
}

static inline void
server_listen(struct server *v, const char *address, uint16_t port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	socklen_t n = sizeof(in);
	int on = 1;

	*v = (struct server){ .fd = -1 };
	assert_int_equal(sem_init(&v->reached, 0, 0), 0);
	assert_int_equal(sem_init(&v->go, 0, 0), 0);
	assert_int_equal(inet_pton(AF_INET, address, &in.sin_addr), 1);
	v->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(v->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(v->listener, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(listen(v->listener, 16), 0);
	assert_int_equal(getsockname(v->listener, (struct sockaddr *)&in, &n), 0);
	v->port = ntohs(in.sin_port);
}

static inline void
server_start(struct server *v, const char *const *script, struct slice identity)
{
	static const char *const none[] = { NULL };

	v->script = script ? script : none;
	if (identity.n) {
		struct tls_identity id = { .chain = identity };
		struct tls_server_opts o = {
			.service = "smtp", .identities = &id, .identity_count = 1
		};
		char why[200];

		assert_int_equal(tls_server_new(&o, &v->ctx, why, sizeof(why)), 0);
	}
	assert_int_equal(pthread_create(&v->thread, NULL, server_main, v), 0);
}

static inline void
server_join(struct server *v)
{
	pthread_join(v->thread, NULL);
	close(v->listener);
	tls_ctx_free(&v->ctx);
	buf_free(&v->in);
	if (v->error[0])
		fail_msg("server: %s", v->error);
}

#endif
