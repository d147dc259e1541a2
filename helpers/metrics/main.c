/*
 * metrics (bh-metrics, empty root): serves the counters of all daemons as OpenMetrics over HTTP at
 * the address of metrics_listen, read only. Started only where that parameter is set. Hostile:
 * whoever reaches the address, and the daemons whose counters these are. It asks master, which asks
 * every daemon; requests that come meanwhile get the same answer. Invariants: at most CLIENTS_MAX
 * connections, one request each, gone after CLIENT_MS; no answer is older than the request.
 */
#include "daemon/daemon.h"
#include "helpers/metrics/metrics.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS_MAX 32
#define CLIENT_MS 10000
#define GATHER_MS 3000 /* master answers within one second */

struct client {
	TAILQ_ENTRY(client) next;
	struct metrics *m;
	int fd;
	struct event *readable, *writable;
	struct ev_timer deadline;
	struct buf in, out;
	enum request_kind kind;
	uint32_t asked; /* waits for this gathering; 0: not yet, or answered */
};

struct metrics {
	struct daemon *d;
	struct event *listeners[DAEMON_LISTENERS];
	size_t nlisteners, nclients;
	TAILQ_HEAD(, client) clients;
	struct families families;
	uint32_t asked, last_id; /* asked: the gathering under way, or 0 */
	struct ev_timer late;
};

static void
client_free(struct client *c)
{
	TAILQ_REMOVE(&c->m->clients, c, next);
	c->m->nclients--;
	event_free(c->readable);
	event_free(c->writable);
	ev_timer_free(&c->deadline);
	buf_free(&c->in);
	buf_free(&c->out);
	close(c->fd);
	free(c);
}

static void
client_write(struct client *c)
{
	ptrdiff_t n = 0;

	while (buf_len(&c->out) && (n = buf_write(&c->out, c->fd)) > 0)
		;
	if (buf_len(&c->out) && n == -EAGAIN) {
		event_add(c->writable, NULL);
		return;
	}
	(void)shutdown(c->fd, SHUT_WR);
	client_free(c);
}

static void
client_answer(struct client *c, struct slice body)
{
	c->asked = 0;
	event_del(c->readable);
	request_reply(c->kind, body, &c->out);
	client_write(c);
}

/* --- gathering --- */

static void gather(struct metrics *m);

static void
answer_all(struct metrics *m)
{
	struct buf body = { 0 };
	struct client *c, *next;
	uint32_t id = m->asked;
	bool more = false;

	families_format(&m->families, &body);
	families_free(&m->families);
	ev_timer_clear(&m->late);
	m->asked = 0;
	for (c = TAILQ_FIRST(&m->clients); c; c = next) {
		next = TAILQ_NEXT(c, next);
		if (c->asked == id)
			client_answer(c, buf_slice(&body));
		else if (c->asked)
			more = true;
	}
	buf_free(&body);
	if (more)
		gather(m);
}

static void
on_late(void *arg)
{
	answer_all(arg);
}

static void
gather(struct metrics *m)
{
	struct msg ask = MSG_INIT(MSG_METRICS_GET, ++m->last_id);
	struct client *c;

	m->asked = m->last_id;
	families_free(&m->families);
	TAILQ_FOREACH(c, &m->clients, next)
		if (c->asked)
			c->asked = m->asked;
	ev_timer_set(m->d->base, &m->late, GATHER_MS, on_late, m);
	if (m->d->master)
		(void)ipc_send(m->d->master, &ask);
}

/* --- clients --- */

static void
on_request(struct client *c)
{
	struct metrics *m = c->m;

	if (c->kind != REQUEST_METRICS && c->kind != REQUEST_HEAD) {
		client_answer(c, SLICE_NULL);
		return;
	}
	event_del(c->readable);
	c->asked = m->last_id + 1; /* the next gathering: the present one may be older */
	if (!m->asked)
		gather(m);
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct client *c = arg;
	ptrdiff_t n = buf_read(&c->in, fd, REQUEST_MAX);

	(void)what;
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		client_free(c);
		return;
	}
	c->kind = request_read(buf_slice(&c->in));
	if (c->kind != REQUEST_MORE)
		on_request(c);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	client_write(arg);
}

static void
on_deadline(void *arg)
{
	client_free(arg);
}

static void
on_connection(evutil_socket_t sock, short what, void *arg)
{
	struct metrics *m = arg;
	int fd = accept4(sock, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *c;

	(void)what;
	if (fd < 0)
		return;
	count(COUNT_connections, 1);
	if (m->nclients == CLIENTS_MAX) {
		count(COUNT_connections_refused, 1);
		close(fd);
		return;
	}
	c = xcalloc(1, sizeof(*c));
	c->m = m;
	c->fd = fd;
	c->readable = event_new(m->d->base, fd, EV_READ | EV_PERSIST, on_readable, c);
	c->writable = event_new(m->d->base, fd, EV_WRITE, on_writable, c);
	event_add(c->readable, NULL);
	ev_timer_set(m->d->base, &c->deadline, CLIENT_MS, on_deadline, c);
	TAILQ_INSERT_TAIL(&m->clients, c, next);
	m->nclients++;
}

/* --- the daemon --- */

static void
drop_listeners(struct metrics *m)
{
	while (m->nlisteners)
		ev_close_shared(m->listeners[--m->nlisteners]);
}

static void
add_listener(struct metrics *m, struct msg *msg)
{
	if (msg->listener.index == 0)
		drop_listeners(m);
	if (m->nlisteners == DAEMON_LISTENERS || ev_nonblock(msg->fd))
		return;
	m->listeners[m->nlisteners] =
	    event_new(m->d->base, msg->fd, EV_READ | EV_PERSIST, on_connection, m);
	event_add(m->listeners[m->nlisteners++], NULL);
	msg->fd = -1;
}

static void
message(struct daemon *d, struct ipc_chan *ch, struct msg *msg)
{
	struct metrics *m = d->ctx;

	(void)ch;
	if (msg->type == MSG_LISTENER) {
		add_listener(m, msg);
		return;
	}
	if (!m->asked || msg->id != m->asked)
		return;
	switch (msg->type) {
	case MSG_METRICS_SERVICE:
		families_service(&m->families, &msg->metrics_service);
		break;
	case MSG_METRICS_STATS:
		families_stats(&m->families, &msg->metrics_stats);
		break;
	case MSG_METRICS_END:
		answer_all(m);
		break;
	default:
		break;
	}
}

static int
init(struct daemon *d)
{
	struct metrics *m = xcalloc(1, sizeof(*m));

	m->d = d;
	d->ctx = m;
	TAILQ_INIT(&m->clients);
	families_init(&m->families);
	return 0;
}

int
main(int argc, char **argv)
{
	static const struct daemon_desc desc = {
		.role = ROLE_METRICS,
		.init = init,
		.message = message,
	};

	return daemon_run(argc, argv, &desc);
}
