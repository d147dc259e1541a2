/* What the tests of look-ups share: a resolver that answers from a table, and one that asks dns. */
#ifndef DNS_LOOKUP_TEST_UTIL_H
#define DNS_LOOKUP_TEST_UTIL_H

#include "lookup.h"

#include "daemon/private.h"
#include "dns/site.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

/* --- the resolver --- */

struct row {
	const char *name;
	enum dns_type type;
	const char *data; /* an address, a host, "10 host", a text */
};

static const struct row rows[] = {
	{ "two.test", DNS_MX, "20 b.two.test" },
	{ "two.test", DNS_MX, "10 a.two.test" },
	{ "a.two.test", DNS_A, "192.0.2.1" },
	{ "a.two.test", DNS_AAAA, "2001:db8::1" },
	{ "b.two.test", DNS_A, "192.0.2.2" },
	{ "same.test", DNS_MX, "5 B.two.test" },
	{ "same.test", DNS_MX, "5 a.two.test" },
	{ "null.test", DNS_MX, "0 ." },
	{ "odd.test", DNS_MX, "10 mail/host.test" },
	{ "odd.test", DNS_A, "192.0.2.9" },
	{ "plain.test", DNS_A, "192.0.2.3" },
	{ "nothing.test", DNS_TXT, "no host here" },
	{ "dead.test", DNS_MX, "10 gone.test" },
	{ "half.test", DNS_MX, "10 servfail.test" },
	{ "half.test", DNS_MX, "20 a.two.test" },
	{ "loop.test", DNS_MX, "10 me.test" },
	{ "loop.test", DNS_MX, "20 a.two.test" },
	{ "backup.test", DNS_MX, "10 a.two.test" },
	{ "backup.test", DNS_MX, "20 me.test" },
	{ "backup.test", DNS_MX, "20 b.two.test" },
	{ "1.2.0.192.in-addr.arpa", DNS_PTR, "a.two.test" },
	{ "2.2.0.192.in-addr.arpa", DNS_PTR, "liar.test" },
	{ "3.2.0.192.in-addr.arpa", DNS_PTR, "liar.test" },
	{ "3.2.0.192.in-addr.arpa", DNS_PTR, "plain.test" },
	{ "4.2.0.192.in-addr.arpa", DNS_PTR, "servfail.test" },
	{ "liar.test", DNS_A, "192.0.2.99" },
	{ "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", DNS_PTR,
	    "a.two.test" },
	{ "xn--bcher-kva.test", DNS_MX, "10 a.two.test" },
	{ "long.test", DNS_TXT, "over TCP" },
};

struct resolver_thread {
	pthread_t thread;
	int udp, tcp, stop[2];
	uint16_t port;
	atomic_uint questions, tcp_questions;
};

static inline void
put16(struct buf *b, unsigned v)
{
	buf_add_byte(b, (unsigned char)(v >> 8));
	buf_add_byte(b, (unsigned char)v);
}

static inline void
put_name(struct buf *b, const char *text)
{
	struct dns_name name;

	if (!dns_name_from_text(slice_str(text), &name))
		buf_add(b, dns_name_slice(&name));
}

static inline void
put_data(struct buf *b, const struct row *r)
{
	struct buf data = { 0 };
	unsigned char address[16];
	const char *space = strchr(r->data, ' ');

	switch (r->type) {
	case DNS_A:
		inet_pton(AF_INET, r->data, address);
		buf_add(&data, slice(address, 4));
		break;
	case DNS_AAAA:
		inet_pton(AF_INET6, r->data, address);
		buf_add(&data, slice(address, 16));
		break;
	case DNS_MX:
		put16(&data, (unsigned)atoi(r->data));
		put_name(&data, space + 1);
		break;
	case DNS_TXT:
		buf_add_byte(&data, (unsigned char)strlen(r->data));
		buf_add_str(&data, r->data);
		break;
	default:
		put_name(&data, r->data);
		break;
	}
	put16(b, (unsigned)buf_len(&data));
	buf_add(b, buf_slice(&data));
	buf_free(&data);
}

static inline void
put_answer(
    struct buf *b, struct slice q, size_t end, const char *host, unsigned type, unsigned flags)
{
	unsigned n = 0, known = 0;

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		if (!strcmp(rows[i].name, host)) {
			known++;
			n += rows[i].type == type;
		}
	buf_add(b, slice(q.p, 2));
	put16(b, flags | (known ? 0 : 3));
	put16(b, 1);
	put16(b, n);
	put16(b, 0);
	put16(b, 0);
	buf_add(b, slice(q.p + 12, end - 12));
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		if (!strcmp(rows[i].name, host) && rows[i].type == type) {
			put16(b, 0xc00c);
			put16(b, type);
			put16(b, 1);
			put16(b, 0);
			put16(b, 300);
			put_data(b, &rows[i]);
		}
}

/* The answer to q, or nothing. */
static inline void
resolve(struct resolver_thread *t, struct slice q, bool tcp, struct buf *out)
{
	struct dns_name name;
	char host[DNS_HOST_SIZE];
	size_t at = 12;
	unsigned type;

	buf_clear(out);
	if (dns_name_read(q, &at, &name) || q.n < at + 4 || dns_name_host(&name, host))
		return;
	type = (unsigned)(q.p[at] << 8 | q.p[at + 1]);
	t->questions++;
	t->tcp_questions += tcp;
	if (!strcmp(host, "silent.test") || strstr(host, ".10.in-addr.arpa"))
		return;
	if (!strcmp(host, "servfail.test")) {
		put_answer(out, q, at + 4, "", type, 0x8180);
		out->data[out->head + 3] = 0x82;
		return;
	}
	put_answer(out, q, at + 4, host, type, strcmp(host, "long.test") || tcp ? 0x81a0 : 0x83a0);
}

static inline void
serve_tcp(struct resolver_thread *t, struct buf *out)
{
	unsigned char q[600];
	int fd = accept(t->tcp, NULL, NULL);
	ssize_t n = recv(fd, q, 2, MSG_WAITALL);
	struct buf framed = { 0 };

	if (n == 2 && (n = recv(fd, q, (size_t)q[0] << 8 | q[1], MSG_WAITALL)) > 0) {
		resolve(t, slice(q, (size_t)n), true, out);
		put16(&framed, (unsigned)buf_len(out));
		buf_add(&framed, buf_slice(out));
		while (buf_len(&framed) && buf_write(&framed, fd) > 0)
			;
	}
	buf_free(&framed);
	usleep(20000);
	close(fd);
}

static inline void *
resolver_main(void *arg)
{
	struct resolver_thread *t = arg;
	struct pollfd p[3] = { { t->udp, POLLIN, 0 }, { t->tcp, POLLIN, 0 },
		{ t->stop[0], POLLIN, 0 } };
	struct buf out = { 0 };
	unsigned char q[600];

	while (poll(p, 3, -1) > 0 && !p[2].revents) {
		struct sockaddr_in from;
		socklen_t from_n = sizeof(from);

		if (p[1].revents)
			serve_tcp(t, &out);
		if (!p[0].revents)
			continue;
		ssize_t n = recvfrom(t->udp, q, sizeof(q), 0, (struct sockaddr *)&from, &from_n);

		if (n < 12)
			continue;
		resolve(t, slice(q, (size_t)n), false, &out);
		if (buf_len(&out))
			sendto(t->udp, buf_slice(&out).p, buf_len(&out), 0,
			    (struct sockaddr *)&from, from_n);
	}
	buf_free(&out);
	return NULL;
}

static inline void
resolver_listen(struct resolver_thread *t)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(in);

	t->tcp = socket(AF_INET, SOCK_STREAM, 0);
	for (int i = 0;; i++) { /* a port that is free for both */
		in.sin_port = 0;
		t->udp = socket(AF_INET, SOCK_DGRAM, 0);
		assert_int_equal(bind(t->udp, (struct sockaddr *)&in, n), 0);
		assert_int_equal(getsockname(t->udp, (struct sockaddr *)&in, &n), 0);
		if (!bind(t->tcp, (struct sockaddr *)&in, n))
			break;
		assert_true(i < 100);
		close(t->udp);
	}
	assert_int_equal(listen(t->tcp, 16), 0);
	assert_int_equal(pipe(t->stop), 0);
	t->port = ntohs(in.sin_port);
	assert_int_equal(pthread_create(&t->thread, NULL, resolver_main, t), 0);
}

/* --- the world around dns --- */

struct world {
	struct daemon d;
	struct daemon_private private;
	struct conf_raw *raw;
	struct conf_problems problems;
	struct ipc_io *io;
	struct ipc_chan *own, *peer;
	struct resolver_thread resolver;
	unsigned answers, wanted;
	/* the last answer */
	uint8_t status, secure;
	char name[300], hosts[600], data[300];
	unsigned char site[16];
	uint32_t ttl;
};

static inline void
take_hosts(struct world *w, const struct msg_list *list)
{
	struct cursor c = cursor(list->raw);
	struct item_mx_host h;
	size_t at = 0;

	w->hosts[0] = '\0';
	while (item_mx_host_next(&c, &h))
		at += (size_t)snprintf(w->hosts + at, sizeof(w->hosts) - at, "%u %.*s/%zu;",
		    h.preference, SLICE_ARG(h.name), h.addresses.n / 16);
}

static inline void
take_records(struct world *w, const struct msg_list *list)
{
	struct cursor c = cursor(list->raw);
	struct item_dns_record r;

	w->data[0] = '\0';
	while (item_dns_record_next(&c, &r))
		snprintf(w->data, sizeof(w->data), "%.*s", SLICE_ARG(r.data));
}

static inline void
on_message(void *ctx, struct ipc_chan *ch, struct msg *m)
{
	struct world *w = ctx;

	if (ch == w->own) {
		dnsd_desc.message(&w->d, ch, m);
		return;
	}
	w->answers++;
	switch (m->type) {
	case MSG_CLIENT_NAME_ANSWER:
		w->status = m->client_name_answer.status;
		w->ttl = m->client_name_answer.ttl;
		snprintf(w->name, sizeof(w->name), "%.*s", SLICE_ARG(m->client_name_answer.name));
		break;
	case MSG_SITE_ANSWER:
		w->status = m->site_answer.status;
		assert_int_equal(m->site_answer.site.n, 16);
		memcpy(w->site, m->site_answer.site.p, 16);
		break;
	case MSG_MX_ANSWER:
		w->status = m->mx_answer.status;
		w->secure = m->mx_answer.secure;
		memcpy(w->site, m->mx_answer.site.p, 16);
		take_hosts(w, &m->mx_answer.hosts);
		break;
	default:
		w->status = m->dns_records.status;
		take_records(w, &m->dns_records.records);
		break;
	}
	if (w->answers >= w->wanted)
		event_base_loopbreak(w->d.base);
}

static inline void
on_closed(void *ctx, struct ipc_chan *ch, int err, const char *why)
{
	(void)ctx;
	(void)ch;
	fail_msg("channel closed: %d %s", err, why);
}

static const struct ipc_ops ops = { on_message, on_closed };

static inline struct world *
world_new(const char *more)
{
	struct world *w = calloc(1, sizeof(*w));
	char text[300];
	int fds[2];

	resolver_listen(&w->resolver);
	w->raw = conf_raw_new("me.test");
	conf_raw_read_files(w->raw, false);
	snprintf(text, sizeof(text),
	    "dns_resolvers = 127.0.0.1:%u\ndns_timeout = 300ms\ndns_attempts = 2\n%s",
	    w->resolver.port, more);
	conf_raw_parse(w->raw, "main.cf", slice_str(text), &w->problems);
	w->d = (struct daemon){ .role = ROLE_DNS, .private = &w->private };
	w->d.conf = conf_eval(w->raw, NULL, 0, &w->problems);
	assert_int_equal(w->problems.errors, 0);
	w->d.base = ev_base_new();
	w->d.io = ipc_io_new(w->d.base, ROLE_DNS);
	/* a role that may ask everything but client_name and site: the far end changes it as needed
	 */
	w->io = ipc_io_new(w->d.base, ROLE_SMTP_CLIENT);
	assert_int_equal(ipc_pair(fds), 0);
	w->own = ipc_chan_new(w->d.io, fds[0], ROLE_SMTP_CLIENT, &ops, w);
	w->peer = ipc_chan_new(w->io, fds[1], ROLE_DNS, &ops, w);
	assert_int_equal(dnsd_desc.init(&w->d), 0);
	assert_int_equal(dnsd_desc.start(&w->d), 0);
	return w;
}

/* The same world seen by another kind of peer. */
static inline void
be(struct world *w, enum role role)
{
	int fds[2];

	ipc_chan_free(&w->own);
	ipc_chan_free(&w->peer);
	ipc_io_free(&w->io);
	w->io = ipc_io_new(w->d.base, role);
	assert_int_equal(ipc_pair(fds), 0);
	w->own = ipc_chan_new(w->d.io, fds[0], role, &ops, w);
	w->peer = ipc_chan_new(w->io, fds[1], ROLE_DNS, &ops, w);
}

static inline void
world_free(struct world *w)
{
	struct dnsd *dnsd = w->d.ctx;

	assert_int_equal(dnsd->under_way, 0);
	(void)!write(w->resolver.stop[1], "", 1);
	pthread_join(w->resolver.thread, NULL);
	close(w->resolver.udp);
	close(w->resolver.tcp);
	close(w->resolver.stop[0]);
	close(w->resolver.stop[1]);
	resolver_free(&dnsd->resolver);
	free(dnsd);
	ipc_chan_free(&w->own);
	ipc_chan_free(&w->peer);
	ipc_io_free(&w->io);
	ipc_io_free(&w->d.io);
	event_base_free(w->d.base);
	conf_free(&w->d.conf);
	conf_raw_free(&w->raw);
	conf_problems_free(&w->problems);
	free(w);
}

static inline void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	fail_msg("no answer in time");
}

static inline void
await(struct world *w, unsigned n)
{
	struct event *deadline = evtimer_new(w->d.base, on_deadline, w);
	struct timeval tv = ev_ms(10000);

	w->wanted = n;
	evtimer_add(deadline, &tv);
	while (w->answers < n)
		event_base_loop(w->d.base, EVLOOP_ONCE);
	event_free(deadline);
}

static inline void
settle(struct world *w)
{
	struct timeval tv = ev_ms(1000);

	event_base_loopexit(w->d.base, &tv);
	event_base_loop(w->d.base, 0);
}

static inline void
want_mx(struct world *w, const char *domain, unsigned flags, int status, const char *hosts)
{
	struct msg m = MSG_INIT(MSG_MX, 7);

	m.mx.domain = slice_str(domain);
	m.mx.flags = (uint8_t)flags;
	w->answers = 0;
	assert_int_equal(ipc_send(w->peer, &m), 0);
	await(w, 1);
	if (w->status != status || strcmp(w->hosts, hosts) != 0)
		fail_msg("%s: %d %s; want %d %s", domain, w->status, w->hosts, status, hosts);
}

static inline void
want_name(struct world *w, const char *address, int status, const char *name)
{
	struct msg m = MSG_INIT(MSG_CLIENT_NAME, 8);
	unsigned char raw[16] = { [10] = 0xff, [11] = 0xff };

	if (inet_pton(AF_INET, address, raw + 12) != 1)
		assert_int_equal(inet_pton(AF_INET6, address, raw), 1);
	m.client_name.address = slice(raw, 16);
	w->answers = 0;
	assert_int_equal(ipc_send(w->peer, &m), 0);
	await(w, 1);
	if (w->status != status || strcmp(w->name, name) != 0)
		fail_msg("%s: %d %s; want %d %s", address, w->status, w->name, status, name);
}

#endif
