/* What the tests of TLS share: certificates, contexts and a pair of connections. */
#ifndef TLS_TEST_UTIL_H
#define TLS_TEST_UTIL_H

#include "tls/serving.h"
#include "tls/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

struct pair {
	int fds[2];
	struct tls_conn *server, *client;
};

static struct buf pem_a, pem_b;

static inline void
make_pems(void)
{
	const char *a[] = { "mail.example.org", "*.wild.example.org", "127.0.0.1" };
	const char *b[] = { "other.example.net" };

	assert_int_equal(tls_selfsigned(a, 3, 3650, &pem_a), 0);
	assert_int_equal(tls_selfsigned(b, 1, 30, &pem_b), 0);
}

static inline struct tls_ctx *
server_ctx(const char *service, const char *alpn, struct tls_tickets *tickets, enum tls_version max)
{
	struct tls_identity ids[2] = { { .chain = buf_slice(&pem_a) },
		{ .chain = buf_slice(&pem_b), .key = buf_slice(&pem_b) } };
	struct tls_server_opts opts = { .service = service,
		.alpn = alpn,
		.identities = ids,
		.identity_count = 2,
		.tickets = tickets,
		.max_version = max };
	struct tls_ctx *ctx;
	char error[200] = "";

	if (tls_server_new(&opts, &ctx, error, sizeof(error)) < 0)
		fail_msg("%s", error);
	return ctx;
}

static inline struct tls_ctx *
client_ctx(enum tls_level level, struct slice ca, enum tls_version max)
{
	struct tls_client_opts opts = { .level = level, .ca = ca, .max_version = max };
	struct tls_ctx *ctx;
	char error[200] = "";

	if (tls_client_new(&opts, &ctx, error, sizeof(error)) < 0)
		fail_msg("%s", error);
	return ctx;
}

static inline int
pair_open(struct pair *p, struct tls_ctx *s, struct tls_ctx *c, const struct tls_peer *peer)
{
	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p->fds), 0);
	p->server = tls_conn_new(s, p->fds[0], TLS_SERVER);
	return tls_conn_new_client(c, p->fds[1], peer, &p->client);
}

static inline void
pair_close(struct pair *p)
{
	tls_conn_free(&p->server);
	tls_conn_free(&p->client);
	close(p->fds[0]);
	close(p->fds[1]);
}

/* Drives both sides; returns the first error of either, 0 when both are done. */
static inline int
shake(struct pair *p)
{
	int s = TLS_WANT_READ, c = TLS_WANT_READ;

	for (int i = 0; i < 20; i++) {
		if (c == TLS_WANT_READ)
			c = tls_handshake(p->client);
		if (s == TLS_WANT_READ)
			s = tls_handshake(p->server);
		if (c == 0 && s == 0)
			return 0;
		if (c < 0 && c != TLS_WANT_READ)
			return c;
		if (s < 0 && s != TLS_WANT_READ) {
			c = tls_handshake(p->client);
			return s;
		}
	}
	return ERR_STATE;
}

static inline void
exchange(struct pair *p)
{
	char b[16];

	assert_int_equal(tls_write(p->client, "ping", 4), 4);
	assert_int_equal(tls_read(p->server, b, sizeof(b)), 4);
	assert_int_equal(tls_write(p->server, "pong!", 5), 5);
	assert_int_equal(tls_read(p->client, b, sizeof(b)), 5);
	assert_memory_equal(b, "pong!", 5);
	assert_int_equal(tls_read(p->client, b, sizeof(b)), TLS_WANT_READ);
	assert_false(tls_pending(p->client));
}

static inline int
setup(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	make_pems();
	return 0;
}

static inline int
teardown(void **state)
{
	(void)state;
	buf_wipe(&pem_a);
	buf_wipe(&pem_b);
	return 0;
}

#endif
