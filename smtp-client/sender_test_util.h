/*
 * The tests of the sender as a whole run it in one process: qmgr, dns and auth are played on the
 * other ends of channels, servers by threads (server_test_util.h). No jail here: the whole-daemon
 * tests have it.
 */
#ifndef SMTP_CLIENT_SENDER_TEST_UTIL_H
#define SMTP_CLIENT_SENDER_TEST_UTIL_H

#include "daemon/private.h"
#include "server_test_util.h"

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

static inline void
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

static inline void
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

static inline void
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
static inline void
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

static inline void
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

static inline struct ipc_chan *
join(struct world *w, enum role peer, struct ipc_io **io)
{
	int fds[2];

	*io = ipc_io_new(w->d.base, peer);
	assert_int_equal(ipc_pair(fds), 0);
	w->d.peers[peer] = ipc_chan_new(w->d.io, fds[0], peer, &ops, w);
	return ipc_chan_new(*io, fds[1], ROLE_SMTP_CLIENT, &ops, w);
}

static inline struct world *
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

static inline void
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

static inline void
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

static inline void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	fail_msg("no result in time; server: %s", ((struct world *)arg)->server.error);
}

static inline void
await(struct world *w)
{
	struct event *deadline = evtimer_new(w->d.base, on_deadline, w);
	struct timeval tv = ev_ms(DEADLINE_MS);

	evtimer_add(deadline, &tv);
	while (!w->done)
		event_base_loop(w->d.base, EVLOOP_ONCE);
	event_free(deadline);
}

static inline void
send_one(struct world *w, struct job_opts o)
{
	submit(w, o);
	await(w);
}

/* Lets the loop run for a while without a result. */
static inline void
idle(struct world *w, int ms)
{
	struct timeval tv = ev_ms(ms);

	event_base_loopexit(w->d.base, &tv);
	event_base_loop(w->d.base, 0);
}

static inline void
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

#endif
