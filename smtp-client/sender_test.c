/*
 * Tests of the sender as a whole, in one process: qmgr, dns and auth are played on the other ends
 * of channels, servers by threads that follow a script and can misbehave. No jail here: the
 * whole-daemon tests have it. Steps of a script:
 *
 * - S:line, the server says it; C:prefix, a line that begins so must come
 *
 * - D, content up to the lone dot; E, everything up to the end of the connection
 *
 * - T, the TLS handshake; G, garbage in its place
 *
 * - X, close; A, take the next connection; W:ms, wait; P, wait until the test says so
 */
#include "sender.h"

#include "daemon/private.h"
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

static bool
wait_fd(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, DEADLINE_MS) == 1;
}

static bool
server_fail(struct server *v, const char *step, const char *got)
{
	snprintf(v->error, sizeof(v->error), "%s: got %s", step, got);
	return false;
}

static bool
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

static bool
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

static bool
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

static bool
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

static bool
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

static void
server_close(struct server *v)
{
	tls_conn_free(&v->tls);
	if (v->fd >= 0)
		close(v->fd);
	v->fd = -1;
	buf_clear(&v->in);
}

static bool
server_accept(struct server *v)
{
	server_close(v);
	if (!wait_fd(v->listener, POLLIN))
		return server_fail(v, "accept", "nobody");
	v->fd = accept4(v->listener, NULL, NULL, SOCK_NONBLOCK);
	v->connections++;
	return v->fd >= 0;
}

static bool
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

static void *
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

static void
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

static void
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

static void
server_join(struct server *v)
{
	pthread_join(v->thread, NULL);
	close(v->listener);
	tls_ctx_free(&v->ctx);
	buf_free(&v->in);
	if (v->error[0])
		fail_msg("server: %s", v->error);
}

/* --- the world around the sender --- */

struct world {
	struct daemon d;
	struct daemon_private private;
	struct conf_raw *raw;
	struct conf_problems problems;
	struct ipc_io *ios[5];
	struct ipc_chan *qmgr, *dns, *auth; /* the far ends */
	struct ipc_chan *next_qmgr, *next_dns;
	struct ipc_chan *own_qmgr;
	struct server server;
	struct buf identity, content;
	/* what dns and auth answer */
	uint8_t mx_status, auth_status;
	const char *addresses[4];
	unsigned mx_requests, auth_requests, auth_ends;
	bool dns_is_slow;
	uint32_t mx_id; /* of the last request */
	/* the last result */
	bool done;
	unsigned results_at[2]; /* how many came to qmgr, to next_qmgr */
	size_t results;
	struct {
		uint8_t status;
		char enhanced[20], text[1100], remote[300];
	} result[64];
	char remote[600], tls[200];
	uint32_t next_id;
};

static void
take_result(struct world *w, struct msg *m)
{
	struct cursor c = cursor(m->send_result.results.raw);
	struct item_rcpt_result r;

	w->results = 0;
	assert_true(slice_eq_str(m->send_result.queue_id, "Q1"));
	while (item_rcpt_result_next(&c, &r)) {
		char address[30];

		assert_true(r.slot < 64);
		snprintf(address, sizeof(address), "r%u@x.test", r.slot);
		assert_true(slice_eq_str(r.address, address));
		w->result[r.slot].status = r.status;
		snprintf(w->result[r.slot].enhanced, 20, "%.*s", SLICE_ARG(r.enhanced));
		snprintf(w->result[r.slot].text, 1100, "%.*s", SLICE_ARG(r.text));
		snprintf(w->result[r.slot].remote, 300, "%.*s", SLICE_ARG(r.remote));
		w->results++;
	}
	snprintf(w->remote, sizeof(w->remote), "%.*s", SLICE_ARG(m->send_result.remote));
	snprintf(w->tls, sizeof(w->tls), "%.*s", SLICE_ARG(m->send_result.tls));
	w->done = true;
	event_base_loopbreak(w->d.base);
}

static void
answer_mx(struct world *w, struct ipc_chan *ch, uint32_t id)
{
	struct msg m = MSG_INIT(MSG_MX_ANSWER, id);
	struct buf items = { 0 };
	uint32_t n = 0;

	w->mx_requests++;
	for (; n < 4 && w->addresses[n]; n++) {
		unsigned char a[16] = { [10] = 0xff, [11] = 0xff };
		char name[20];
		struct item_mx_host h = { .preference = (uint16_t)(n * 10),
			.addresses = slice(a, 16) };

		assert_int_equal(inet_pton(AF_INET, w->addresses[n], a + 12), 1);
		snprintf(name, sizeof(name), "mx%u.test", n);
		h.name = slice_str(name);
		item_mx_host_add(&items, &h);
	}
	m.mx_answer.status = w->mx_status;
	m.mx_answer.site = slice("0123456789abcdef", 16);
	m.mx_answer.text = SLICE_LIT("dns says so");
	m.mx_answer.hosts = msg_list(&items, n);
	assert_int_equal(ipc_send(ch, &m), 0);
	buf_free(&items);
}

static void
answer_auth(struct world *w, struct ipc_chan *ch, struct msg *in)
{
	struct msg m = MSG_INIT(MSG_SASL_CLIENT_STEP, in->id);

	if (in->type == MSG_SASL_CLIENT_END) {
		w->auth_ends++;
		return;
	}
	w->auth_requests++;
	m.sasl_client_step.status = w->auth_status;
	if (w->auth_status == 0) {
		m.sasl_client_step.mechanism =
		    in->type == MSG_SASL_CLIENT_START ? SLICE_LIT("PLAIN") : SLICE_NULL;
		m.sasl_client_step.has_data = 1;
		m.sasl_client_step.data = SLICE_LIT("\0user\0pass");
	}
	assert_int_equal(ipc_send(ch, &m), 0);
}

/* One far end's or our own messages, by the role of the peer. */
static void
on_message(void *ctx, struct ipc_chan *ch, struct msg *m)
{
	struct world *w = ctx;

	if (ch == w->qmgr || ch == w->next_qmgr) {
		w->results_at[ch == w->next_qmgr]++;
		take_result(w, m);
	} else if (ch == w->dns) {
		w->mx_id = m->id;
		if (!w->dns_is_slow)
			answer_mx(w, ch, m->id);
		else
			event_base_loopbreak(w->d.base);
	} else if (ch == w->auth)
		answer_auth(w, ch, m);
	else
		sender_desc.message(&w->d, ch, m);
}

static void
on_closed(void *ctx, struct ipc_chan *ch, int err, const char *why)
{
	struct world *w = ctx;

	(void)err;
	(void)why;
	if (ch == w->own_qmgr) {
		if (w->d.peers[ROLE_QMGR] == ch)
			w->d.peers[ROLE_QMGR] = NULL;
		sender_desc.link_down(&w->d, ch);
		w->own_qmgr = NULL;
		event_base_loopbreak(w->d.base);
	}
}

static const struct ipc_ops ops = { on_message, on_closed };

static struct ipc_chan *
join(struct world *w, enum role peer, struct ipc_io **io)
{
	int fds[2];

	*io = ipc_io_new(w->d.base, peer);
	assert_int_equal(ipc_pair(fds), 0);
	w->d.peers[peer] = ipc_chan_new(w->d.io, fds[0], peer, &ops, w);
	return ipc_chan_new(*io, fds[1], ROLE_SMTP_CLIENT, &ops, w);
}

static struct world *
world_new(const char *main_cf)
{
	struct world *w = calloc(1, sizeof(*w));
	const char *names[] = { "mx0.test", "localhost" };

	w->raw = conf_raw_new("me.test");
	conf_raw_read_files(w->raw, false);
	conf_raw_parse(w->raw, "main.cf", slice_str("smtp_tls_CAfile =\nsmtp_tls_loglevel = 0\n"),
	    &w->problems);
	conf_raw_parse(w->raw, "main.cf", slice_str(main_cf), &w->problems);
	w->d =
	    (struct daemon){ .role = ROLE_SMTP_CLIENT, .service = "smtp", .private = &w->private };
	w->d.conf = conf_eval(w->raw, NULL, 0, &w->problems);
	assert_int_equal(w->problems.errors, 0);
	w->d.base = ev_base_new();
	w->d.io = ipc_io_new(w->d.base, ROLE_SMTP_CLIENT);
	w->qmgr = join(w, ROLE_QMGR, &w->ios[0]);
	w->dns = join(w, ROLE_DNS, &w->ios[1]);
	w->auth = join(w, ROLE_AUTH, &w->ios[2]);
	w->own_qmgr = w->d.peers[ROLE_QMGR];
	assert_int_equal(sender_desc.init(&w->d), 0);
	assert_int_equal(tls_selfsigned(names, 2, 2, &w->identity), 0);
	w->addresses[0] = "127.0.0.1";
	server_listen(&w->server, "127.0.0.1", 0);
	for (int i = 0; i < 3; i++)
		buf_add_str(&w->content, "Subject: x\r\n\r\n.dot\r\n");
	return w;
}

static void
world_free(struct world *w)
{
	struct sender *s = w->d.ctx;
	struct conn *c;

	dest_forget_all(s);
	while ((c = TAILQ_FIRST(&s->conns)))
		conn_free(&c);
	assert_int_equal(s->njobs, 0);
	assert_int_equal(s->asks.count, 0);
	assert_int_equal(s->dests.count, 0);
	hash_free(&s->asks);
	hash_free(&s->dests);
	for (int k = 0; k < KIND_COUNT; k++)
		tls_ctx_free(&s->tls[k]);
	buf_free(&s->piece);
	free(s);
	for (int r = 0; r < ROLE_COUNT; r++)
		ipc_chan_free(&w->d.peers[r]);
	ipc_chan_free(&w->qmgr);
	ipc_chan_free(&w->next_qmgr);
	ipc_chan_free(&w->dns);
	ipc_chan_free(&w->next_dns);
	ipc_chan_free(&w->auth);
	ipc_io_free(&w->d.io);
	for (int i = 0; i < 5; i++)
		ipc_io_free(&w->ios[i]);
	event_base_free(w->d.base);
	conf_free(&w->d.conf);
	conf_raw_free(&w->raw);
	conf_problems_free(&w->problems);
	buf_free(&w->identity);
	buf_free(&w->content);
	buf_free(&w->server.content);
	free(w);
}

struct job_opts {
	const char *nexthop;
	uint8_t lmtp;
	unsigned rcpts; /* 0: one */
	uint32_t flags;
	int fd; /* 0: inline */
	uint64_t length;
	uint64_t missing; /* what the content lacks of the size that is said */
};

static void
submit(struct world *w, struct job_opts o)
{
	struct msg m = MSG_INIT(MSG_SEND_JOB, ++w->next_id);
	struct buf rcpts = { 0 }, extents = { 0 };
	unsigned n = o.rcpts ? o.rcpts : 1;

	for (unsigned i = 0; i < n; i++) {
		char address[30];
		struct item_job_rcpt r = { .slot = i };

		snprintf(address, sizeof(address), "r%u@x.test", i);
		r.address = slice_str(address);
		item_job_rcpt_add(&rcpts, &r);
	}
	m.send_job.queue_id = SLICE_LIT("Q1");
	m.send_job.sender = SLICE_LIT("s@y.test");
	m.send_job.flags = o.flags;
	m.send_job.nexthop = slice_str(o.nexthop ? o.nexthop : "x.test");
	m.send_job.port = w->server.port;
	m.send_job.lmtp = o.lmtp;
	m.send_job.rcpts = msg_list(&rcpts, n);
	m.send_job.size = (o.fd ? o.length : buf_len(&w->content)) + o.missing;
	if (o.fd) {
		struct item_extent e = { 5, o.length - 5 }, first = { 0, 5 };

		item_extent_add(&extents, &first);
		item_extent_add(&extents, &e);
		m.send_job.extents = msg_list(&extents, 2);
		m.fd = o.fd;
	} else {
		m.send_job.content = buf_slice(&w->content);
	}
	w->done = false;
	assert_int_equal(ipc_send(w->qmgr ? w->qmgr : w->next_qmgr, &m), 0);
	buf_free(&rcpts);
	buf_free(&extents);
}

static void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	fail_msg("no result in time; server: %s", ((struct world *)arg)->server.error);
}

static void
await(struct world *w)
{
	struct event *deadline = evtimer_new(w->d.base, on_deadline, w);
	struct timeval tv = ev_ms(DEADLINE_MS);

	evtimer_add(deadline, &tv);
	while (!w->done)
		event_base_loop(w->d.base, EVLOOP_ONCE);
	event_free(deadline);
}

static void
send_one(struct world *w, struct job_opts o)
{
	submit(w, o);
	await(w);
}

/* Lets the loop run for a while without a result. */
static void
idle(struct world *w, int ms)
{
	struct timeval tv = ev_ms(ms);

	event_base_loopexit(w->d.base, &tv);
	event_base_loop(w->d.base, 0);
}

static void
check(struct world *w, size_t slot, int status, const char *enhanced, const char *part)
{
	assert_true(slot < w->results);
	if (w->result[slot].status != status || strcmp(w->result[slot].enhanced, enhanced) != 0 ||
	    !strstr(w->result[slot].text, part))
		fail_msg("slot %zu: %d %s %s; want %d %s %s", slot, w->result[slot].status,
		    w->result[slot].enhanced, w->result[slot].text, status, enhanced, part);
}

#define SCRIPT(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define HELLO "S:220 mx0.test", "C:EHLO me.test", "S:250-mx0.test", "S:250-8BITMIME"
#define GROUP HELLO, "S:250 PIPELINING"
#define TAKE                                                                                       \
	"C:MAIL FROM:<s@y.test>", "C:RCPT TO:<r0@x.test>", "C:DATA", "S:250 2.1.0 ok",             \
	    "S:250 2.1.5 ok", "S:354 go", "D", "S:250 2.0.0 taken"
#define START(w, ...) server_start(&(w)->server, SCRIPT(__VA_ARGS__), SLICE_NULL)
#define START_TLS(w, ...) server_start(&(w)->server, SCRIPT(__VA_ARGS__), buf_slice(&(w)->identity))

/* --- tests --- */

static void
test_send_and_reuse(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, GROUP, TAKE, TAKE, "C:QUIT", "S:221 bye");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "250 2.0.0 taken");
	assert_non_null(strstr(w->remote, "mx0.test[127.0.0.1]:"));
	assert_string_equal(w->result[0].remote, w->remote);
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	assert_int_equal(w->mx_requests, 1);
	idle(w, 2200); /* smtp_connection_cache_time_limit */
	server_join(&w->server);
	assert_int_equal(w->server.connections, 1);
	assert_true(slice_eq_str(buf_slice(&w->server.content),
	    "Subject: x\r\n\r\n..dot\r\nSubject: x\r\n\r\n..dot\r\nSubject: x\r\n\r\n..dot\r\n"));
	world_free(w);
}

static void
test_results_per_recipient(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:RCPT", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok",
	    "S:550-5.1.1 no such", "S:550 5.1.1 user", "S:451 later", "S:354 go", "D", "S:250 ok");
	send_one(w, (struct job_opts){ .rcpts = 3 });
	check(w, 0, RESULT_DONE, "2.0.0", "250 ok");
	check(w, 1, RESULT_FAILED, "5.1.1", "550 5.1.1 no such user (in reply to RCPT TO)");
	check(w, 2, RESULT_DEFERRED, "4.0.0", "451 later (in reply to RCPT TO)");
	server_join(&w->server);
	world_free(w);
}

/* A server with DSN takes the notices over with the message. */
static void
test_dsn(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, HELLO, "S:250-DSN", "S:250 PIPELINING", TAKE);
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_PASSED, "2.0.0", "taken");
	server_join(&w->server);
	world_free(w);
}

static void
test_next_host(void **state)
{
	struct world *w = world_new("smtp_mx_session_limit = 3\n");
	struct server busy;

	(void)state;
	/* nobody listens at the first, the second is busy, the third takes it */
	w->addresses[0] = "127.0.0.9";
	w->addresses[1] = "127.0.0.2";
	w->addresses[2] = "127.0.0.1";
	server_listen(&busy, "127.0.0.2", w->server.port);
	server_start(&busy, SCRIPT("S:421 4.3.2 busy", "X"), SLICE_NULL);
	START(w, GROUP, TAKE);
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	assert_non_null(strstr(w->remote, "mx2.test[127.0.0.1]"));
	server_join(&busy);
	server_join(&w->server);
	world_free(w);
}

static void
test_no_host(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, "S:554 5.7.1 not you", "C:QUIT", "S:221 bye");
	w->addresses[1] = "127.0.0.9";
	send_one(w, (struct job_opts){ .rcpts = 2 });
	check(w, 0, RESULT_UNREACHED, "4.4.1", "connect to mx1.test[127.0.0.9]:");
	check(w, 1, RESULT_UNREACHED, "4.4.1", "Connection refused");
	server_join(&w->server);
	world_free(w);
}

static void
test_hello_refused(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, "S:220 x", "C:EHLO", "S:550 5.7.1 go away", "C:HELO", "S:550 5.7.1 go away",
	    "C:QUIT", "S:221 bye");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_FAILED, "5.7.1", "550 5.7.1 go away (in reply to HELO)");
	assert_non_null(strstr(w->result[0].remote, "mx0.test"));
	server_join(&w->server);
	world_free(w);
}

static void
test_dns_says(void **state)
{
	static const struct {
		uint8_t status;
		int result;
		const char *enhanced;
	} cases[] = { { 1, RESULT_FAILED, "5.1.2" }, { 2, RESULT_UNREACHED, "4.4.3" },
		{ 3, RESULT_FAILED, "5.1.10" }, { 4, RESULT_FAILED, "5.4.4" },
		{ 5, RESULT_FAILED, "5.4.6" } };
	struct world *w = world_new("");

	(void)state;
	for (size_t i = 0; i < 5; i++) {
		w->mx_status = cases[i].status;
		send_one(w, (struct job_opts){ 0 });
		check(w, 0, cases[i].result, cases[i].enhanced, "dns says so");
	}
	send_one(w, (struct job_opts){ .nexthop = "unix:/lmtp", .lmtp = 1 });
	check(w, 0, RESULT_DEFERRED, "4.3.5", "unix sockets");
	close(w->server.listener);
	world_free(w);
}

static void
test_lost_after_the_end(void **state)
{
	struct world *w = world_new("");

	(void)state;
	w->addresses[1] = "127.0.0.1";
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "D", "X");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.4.2", "the message may be sent more than once");
	server_join(&w->server);
	assert_int_equal(w->server.connections, 1);
	world_free(w);
}

static void
test_stale_connection(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, GROUP, TAKE, "C:MAIL", "X", "A", GROUP, TAKE, "S:421 idle too long", "X", "A",
	    GROUP, TAKE);
	for (int i = 0; i < 3; i++) {
		send_one(w, (struct job_opts){ 0 });
		check(w, 0, RESULT_DONE, "2.0.0", "taken");
	}
	server_join(&w->server);
	assert_int_equal(w->server.connections, 3);
	world_free(w);
}

static void
test_tls(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START_TLS(w, HELLO, "S:250 STARTTLS", "C:STARTTLS", "S:220 go", "T", "C:EHLO", "S:250-x",
	    "S:250 PIPELINING", TAKE, TAKE);
	for (int i = 0; i < 2; i++) {
		send_one(w, (struct job_opts){ 0 });
		check(w, 0, RESULT_DONE, "2.0.0", "taken");
		assert_non_null(strstr(w->tls, "TLSv1.3 with "));
	}
	server_join(&w->server);
	world_free(w);
}

/* TLS from the first byte; the greeting may come in one packet with the end of the handshake. */
static void
test_wrapper(void **state)
{
	struct world *w = world_new("smtp_tls_wrappermode = yes\nsmtp_tls_security_level = "
				    "encrypt\nsmtp_connection_cache_time_limit = 0s\n");

	(void)state;
	START_TLS(w, "T", GROUP, TAKE, "X", "A", "T", GROUP, TAKE, "X", "A", "T", GROUP, TAKE, "X",
	    "A", "T", GROUP, TAKE);
	for (int i = 0; i < 4; i++) {
		send_one(w, (struct job_opts){ 0 });
		check(w, 0, RESULT_DONE, "2.0.0", "taken");
	}
	server_join(&w->server);
	world_free(w);
}

static void
test_tls_fails(void **state)
{
	struct world *w = world_new("");

	(void)state;
	/* may: the same host again, in the clear */
	START(w, HELLO, "S:250 STARTTLS", "C:STARTTLS", "S:220 go", "W:50", "G", "X", "A", HELLO,
	    "S:250-STARTTLS", "S:250 PIPELINING", TAKE);
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	assert_string_equal(w->tls, "");
	server_join(&w->server);
	world_free(w);

	w = world_new("smtp_tls_security_level = encrypt\n");
	START(w, HELLO, "S:250 STARTTLS", "C:STARTTLS", "S:220 go", "W:50", "G", "X");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.7.5", "TLS with mx0.test");
	server_join(&w->server);
	world_free(w);

	w = world_new("smtp_tls_security_level = encrypt\n");
	START(w, GROUP, "X");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.7.4", "does not offer it");
	server_join(&w->server);
	world_free(w);
}

static void
test_verify(void **state)
{
	struct world *w = world_new("smtp_tls_security_level = verify\n");

	(void)state;
	/* a certificate that no authority has signed */
	START_TLS(w, HELLO, "S:250 STARTTLS", "C:STARTTLS", "S:220 go", "T");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.7.5", "TLS with mx0.test");
	pthread_join(w->server.thread, NULL);
	close(w->server.listener);
	tls_ctx_free(&w->server.ctx);
	buf_free(&w->server.in);
	world_free(w);
}

static void
test_auth(void **state)
{
	struct world *w = world_new("smtp_sasl_auth_enable = yes\n");

	(void)state;
	START_TLS(w, HELLO, "S:250 STARTTLS", "C:STARTTLS", "S:220 go", "T", "C:EHLO", "S:250-x",
	    "S:250-PIPELINING", "S:250 AUTH PLAIN",
	    "C:AUTH PLAIN AHVzZXIAcGFzcw==", "S:235 2.7.0 hello", TAKE, TAKE);
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	send_one(w, (struct job_opts){ 0 });
	server_join(&w->server);
	idle(w, 20);
	assert_int_equal(w->auth_requests, 1);
	assert_int_equal(w->auth_ends, 1);
	world_free(w);
}

static void
test_auth_refusals(void **state)
{
	struct world *w = world_new("smtp_sasl_auth_enable = yes\n");

	(void)state;
	/* there is a password, and no TLS for it: not one byte of it goes out */
	START(w, HELLO, "S:250 AUTH PLAIN", "C:QUIT", "S:221 bye");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.7.8", "the password needs TLS");
	server_join(&w->server);
	idle(w, 20);
	assert_int_equal(w->auth_ends, 1);
	world_free(w);

	/* no password for this destination: as without */
	w = world_new("smtp_sasl_auth_enable = yes\n");
	w->auth_status = 1;
	START(w, HELLO, "S:250-AUTH PLAIN", "S:250 PIPELINING", TAKE);
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	server_join(&w->server);
	world_free(w);

	w = world_new("smtp_sasl_auth_enable = yes\nsmtp_sasl_tls_security_level = may\n");
	START(w, HELLO, "S:250 AUTH PLAIN", "C:AUTH PLAIN", "S:535 5.7.8 wrong", "C:QUIT",
	    "S:221 bye");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.7.8", "the server says: wrong");
	server_join(&w->server);
	idle(w, 20);
	assert_int_equal(w->auth_ends, 1);
	world_free(w);
}

/* A server that says why and goes, in the middle of the content: what it said counts, whether the
 * end is met by a read or by a write. */
static void
test_refused_in_content(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++) {
		struct world *w = world_new("");
		int fd = memfd_create("content", MFD_CLOEXEC);

		assert_int_equal(ftruncate(fd, 20 << 20), 0);
		START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go",
		    "W:20", "S:552 5.3.4 too large", "X");
		send_one(w, (struct job_opts){ .fd = fd, .length = 20 << 20 });
		check(w, 0, RESULT_FAILED, "5.3.4", "552 5.3.4 too large");
		server_join(&w->server);
		world_free(w);
	}
}

static void
test_large_from_descriptor(void **state)
{
	struct world *w = world_new("");
	struct buf want = { 0 };
	int fd = memfd_create("content", MFD_CLOEXEC);

	(void)state;
	for (int i = 0; i < 40000; i++)
		buf_addf(&want,
		    "%08d this line is of 64 bytes, together with its end ......... \r\n", i);
	assert_int_equal(write(fd, buf_slice(&want).p, buf_len(&want)), (ssize_t)buf_len(&want));
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "W:100",
	    "D", "S:250 ok");
	send_one(w, (struct job_opts){ .fd = fd, .length = buf_len(&want) });
	check(w, 0, RESULT_DONE, "2.0.0", "250 ok");
	server_join(&w->server);
	assert_true(slice_eq(buf_slice(&w->server.content), buf_slice(&want)));
	/* the file is shorter than its extents say: no end of data, another try later */
	buf_free(&w->server.content);
	server_listen(&w->server, "127.0.0.1", 0);
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "E");
	send_one(w, (struct job_opts){ .fd = fd, .length = buf_len(&want) + 10 });
	check(w, 0, RESULT_DEFERRED, "4.3.0", "cannot be read");
	server_join(&w->server);
	close(fd);
	buf_free(&want);
	world_free(w);
}

static void
test_lmtp(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, "S:220 x", "C:LHLO me.test", "S:250-x", "S:250 PIPELINING", "C:MAIL", "C:RCPT",
	    "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:250 ok", "S:354 go", "D",
	    "S:250 2.0.0 in", "S:452 4.2.2 full");
	send_one(w, (struct job_opts){ .nexthop = "[127.0.0.1]", .lmtp = 1, .rcpts = 2 });
	check(w, 0, RESULT_DONE, "2.0.0", "in");
	check(w, 1, RESULT_DEFERRED, "4.2.2", "452 4.2.2 full (in reply to end of DATA)");
	assert_int_equal(w->mx_requests, 0);
	server_join(&w->server);
	world_free(w);
}

static void
test_8bit(void **state)
{
	struct world *w = world_new("smtp_connection_cache_time_limit = 0s\n");

	(void)state;
	/* BODY=8BITMIME was declared without need; with need; BINARYMIME to servers with and
	 * without */
	START(w, "S:220 x", "C:EHLO", "S:250 x", "C:MAIL FROM:<s@y.test>\r", "S:250 ok", "C:RCPT",
	    "S:250 ok", "C:DATA", "S:354 go", "D", "S:250 ok", "X", "A", "S:220 x", "C:EHLO",
	    "S:250-x", "S:250 PIPELINING", "C:MAIL FROM:<s@y.test>\r", "C:RCPT", "C:DATA",
	    "S:250 ok", "S:250 ok", "S:354 go", "D", "S:250 ok");
	send_one(w, (struct job_opts){ .flags = MAIL_8BIT });
	check(w, 0, RESULT_DONE, "2.0.0", "ok");
	buf_clear(&w->content);
	buf_add_str(&w->content, "Subject: x\r\n\r\n\xfc\xfc\xfc\r\n");
	send_one(w, (struct job_opts){ .flags = MAIL_8BIT });
	check(w, 0, RESULT_DONE, "2.0.0", "ok");
	server_join(&w->server);
	assert_true(slice_has_suffix(buf_slice(&w->server.content), "base64\r\n\r\n/Pz8DQo=\r\n"));
	world_free(w);

	w = world_new("");
	buf_clear(&w->content);
	buf_add_str(&w->content, "Subject: x\r\n\r\n\xfc\n\r.\r\n");
	START(w, HELLO, "S:250-BINARYMIME", "S:250 CHUNKING",
	    "C:MAIL FROM:<s@y.test> BODY=BINARYMIME", "S:250 ok", "C:RCPT", "S:250 ok",
	    "C:BDAT 20 LAST", "C:Subject", "C:\r\n", "C:\xfc\n", "C:\r.\r\n", "S:250 in", "X", "A",
	    HELLO, "S:250 OK", "C:MAIL FROM:<s@y.test>\r", "S:250 ok", "C:RCPT", "S:250 ok",
	    "C:DATA", "S:354 go", "D", "S:250 ok");
	send_one(w, (struct job_opts){ .flags = MAIL_BINARY });
	check(w, 0, RESULT_DONE, "2.0.0", "in");
	send_one(w, (struct job_opts){ .flags = MAIL_BINARY });
	check(w, 0, RESULT_DONE, "2.0.0", "ok");
	server_join(&w->server);
	assert_true(slice_has_suffix(buf_slice(&w->server.content), "base64\r\n\r\n/AoNLg0K\r\n"));
	world_free(w);
}

static void
test_many_recipients(void **state)
{
	struct world *w = world_new("");
	static const char *script[200];
	static char long_reply[2000];
	size_t n = 0;

	(void)state;
	memcpy(long_reply, "S:550 5.1.1 ", 12);
	memset(long_reply + 12, 'x', 1900);
	for (const char *const *p = SCRIPT(GROUP, "C:MAIL"); *p; p++)
		script[n++] = *p;
	for (int i = 0; i < 64; i++)
		script[n++] = "C:RCPT";
	script[n++] = "C:DATA";
	script[n++] = "S:250 ok";
	for (int i = 0; i < 64; i++)
		script[n++] = long_reply;
	script[n++] = "S:503 nobody";
	server_start(&w->server, script, SLICE_NULL);
	send_one(w, (struct job_opts){ .rcpts = 64 });
	assert_int_equal(w->results, 64);
	for (size_t i = 0; i < 64; i++)
		check(w, i, RESULT_FAILED, "5.1.1", "xxxxxxxx");
	server_join(&w->server);
	world_free(w);
}

static void
test_time_limits(void **state)
{
	struct world *w = world_new(
	    "smtp_helo_timeout = 1s\nsmtp_mail_timeout = 1s\nsmtp_data_done_timeout = 1s\n");

	(void)state;
	START(w, "W:1500", "A", GROUP, "C:MAIL", "W:1500", "A", GROUP, "C:MAIL", "C:RCPT", "C:DATA",
	    "S:250 ok", "S:250 ok", "S:354 go", "D", "W:1500");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.4.2", "timed out while waiting for connection");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.4.2", "timed out while waiting for MAIL FROM");
	send_one(w, (struct job_opts){ 0 });
	check(w, 0, RESULT_UNREACHED, "4.4.2",
	    "timed out while waiting for end of DATA -- the message may be");
	server_join(&w->server);
	world_free(w);
}

static void
test_qmgr_dies(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok");
	submit(w, (struct job_opts){ 0 });
	idle(w, 300);
	ipc_chan_free(&w->qmgr);
	while (w->own_qmgr)
		event_base_loop(w->d.base, EVLOOP_ONCE);
	assert_int_equal(((struct sender *)w->d.ctx)->njobs, 0);
	assert_int_equal(((struct sender *)w->d.ctx)->nconns, 0);
	server_join(&w->server);
	world_free(w);
}

/* Runs the loop until the server's script stands at its step P. */
static void
await_server(struct world *w)
{
	int turns = DEADLINE_MS;

	while (sem_trywait(&w->server.reached)) {
		assert_true(turns-- > 0);
		idle(w, 1);
	}
}

/* qmgr dies while the end of data waits for its reply; its successor, whose jobs have the same
 * numbers, hears nothing of it. */
static void
test_qmgr_has_a_successor(void **state)
{
	struct world *w = world_new("");
	struct ipc_chan *old;
	int turns = DEADLINE_MS;

	(void)state;
	START(w, GROUP, "C:MAIL", "C:RCPT", "C:DATA", "S:250 ok", "S:250 ok", "S:354 go", "D", "P",
	    "S:250 2.0.0 for the dead", "C:MAIL", "C:RCPT TO:<r0@", "C:RCPT TO:<r1@", "C:DATA",
	    "S:250 ok", "S:250 ok", "S:250 ok", "S:354 go", "D", "S:250 2.0.0 for the living");
	submit(w, (struct job_opts){ 0 });
	await_server(w);
	old = w->qmgr;
	w->next_qmgr = join(w, ROLE_QMGR, &w->ios[3]);
	w->qmgr = NULL;
	ipc_chan_free(&old);
	while (w->own_qmgr)
		event_base_loop(w->d.base, EVLOOP_ONCE);
	assert_int_equal(((struct sender *)w->d.ctx)->njobs, 1);
	sem_post(&w->server.go);
	while (((struct sender *)w->d.ctx)->njobs) {
		assert_true(turns-- > 0);
		idle(w, 1);
	}
	idle(w, 50);
	assert_int_equal(w->results_at[1], 0);
	w->next_id = 0;
	send_one(w, (struct job_opts){ .rcpts = 2 });
	assert_int_equal(w->results, 2);
	check(w, 1, RESULT_DONE, "2.0.0", "for the living");
	idle(w, 50);
	assert_int_equal(w->results_at[0], 0);
	assert_int_equal(w->results_at[1], 1);
	server_join(&w->server);
	world_free(w);
}

/* An answer counts on the channel of its question only, whatever its number. */
static void
test_dns_has_a_successor(void **state)
{
	struct world *w = world_new("");

	(void)state;
	START(w, GROUP, TAKE);
	w->dns_is_slow = true;
	submit(w, (struct job_opts){ 0 });
	while (!w->mx_id)
		event_base_loop(w->d.base, EVLOOP_ONCE);
	struct ipc_chan *own = w->d.peers[ROLE_DNS];
	w->next_dns = join(w, ROLE_DNS, &w->ios[4]);
	w->mx_status = 1;
	answer_mx(w, w->next_dns, w->mx_id);
	idle(w, 50);
	assert_false(w->done);
	w->mx_status = 0;
	answer_mx(w, w->dns, w->mx_id);
	await(w);
	check(w, 0, RESULT_DONE, "2.0.0", "taken");
	server_join(&w->server);
	ipc_chan_free(&own);
	world_free(w);
}

static void
test_incomplete_content(void **state)
{
	struct world *w = world_new("");

	(void)state;
	send_one(w, (struct job_opts){ .missing = 1 });
	check(w, 0, RESULT_DEFERRED, "4.3.0", "content is not complete");
	assert_int_equal(w->mx_requests, 0);
	close(w->server.listener);
	world_free(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_send_and_reuse),
		cmocka_unit_test(test_results_per_recipient),
		cmocka_unit_test(test_dsn),
		cmocka_unit_test(test_next_host),
		cmocka_unit_test(test_no_host),
		cmocka_unit_test(test_hello_refused),
		cmocka_unit_test(test_dns_says),
		cmocka_unit_test(test_lost_after_the_end),
		cmocka_unit_test(test_stale_connection),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_wrapper),
		cmocka_unit_test(test_tls_fails),
		cmocka_unit_test(test_verify),
		cmocka_unit_test(test_auth),
		cmocka_unit_test(test_auth_refusals),
		cmocka_unit_test(test_large_from_descriptor),
		cmocka_unit_test(test_refused_in_content),
		cmocka_unit_test(test_lmtp),
		cmocka_unit_test(test_8bit),
		cmocka_unit_test(test_many_recipients),
		cmocka_unit_test(test_time_limits),
		cmocka_unit_test(test_qmgr_dies),
		cmocka_unit_test(test_qmgr_has_a_successor),
		cmocka_unit_test(test_dns_has_a_successor),
		cmocka_unit_test(test_incomplete_content),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
