/*
 * The end of a client, in login-child (bh-login). Hostile: a client that speaks on while it is shut
 * out. The kernel answers bytes that nobody read with a reset, which may overtake our last line: so
 * they are dropped unread, for LINGER_MS and LINGER_BYTES at most, and the client sees that line
 * and the end of the stream. Who has said nothing more is closed at once.
 */
#include "login/login.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_MS 2000
#define LINGER_BYTES ((size_t)8 << 20)

static void
over(void *ctx)
{
	struct client *c = ctx;

	client_free(c, c->why);
}

void
client_end(struct client *c, const char *why)
{
	char byte;

	if (c->tls)
		(void)!tls_shutdown(c->tls);
	if (recv(c->net.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0) {
		client_free(c, why);
		return;
	}
	c->why = why;
	c->state = CLIENT_LINGER;
	(void)shutdown(c->net.fd, SHUT_WR);
	buf_wipe(&c->in);
	buf_wipe(&c->out);
	watch_want(&c->net, true, false);
	watch_want(&c->session, false, false);
	ev_timer_set(c->s->d->base, &c->timer, LINGER_MS, over, c);
}

void
client_drop(struct client *c)
{
	char unread[16384];
	ssize_t n = read(c->net.fd, unread, sizeof(unread));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		c->dropped += (size_t)n;
	if (n <= 0 || c->dropped > LINGER_BYTES)
		over(c);
}
