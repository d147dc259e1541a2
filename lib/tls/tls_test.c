/* Unit tests of TLS contexts and connections over socket pairs. */
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

static void
make_pems(void)
{
	const char *a[] = { "mail.example.org", "*.wild.example.org", "127.0.0.1" };
	const char *b[] = { "other.example.net" };

	assert_int_equal(tls_selfsigned(a, 3, 3650, &pem_a), 0);
	assert_int_equal(tls_selfsigned(b, 1, 30, &pem_b), 0);
}

static struct tls_ctx *
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

static struct tls_ctx *
client_ctx(enum tls_level level, struct slice ca, enum tls_version max)
{
	struct tls_client_opts opts = { .level = level, .ca = ca, .max_version = max };
	struct tls_ctx *ctx;
	char error[200] = "";

	if (tls_client_new(&opts, &ctx, error, sizeof(error)) < 0)
		fail_msg("%s", error);
	return ctx;
}

static int
pair_open(struct pair *p, struct tls_ctx *s, struct tls_ctx *c, const struct tls_peer *peer)
{
	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p->fds), 0);
	p->server = tls_conn_new(s, p->fds[0], TLS_SERVER);
	return tls_conn_new_client(c, p->fds[1], peer, &p->client);
}

static void
pair_close(struct pair *p)
{
	tls_conn_free(&p->server);
	tls_conn_free(&p->client);
	close(p->fds[0]);
	close(p->fds[1]);
}

/* Drives both sides; returns the first error of either, 0 when both are done. */
static int
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

static void
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

static void
test_plain_way(void **state)
{
	struct tls_ctx *s = server_ctx("smtp", NULL, NULL, 0),
		       *c = client_ctx(TLS_OPPORTUNISTIC, SLICE_NULL, 0);
	struct tls_peer peer = { .sni = "mail.example.org" };
	struct tls_info info;
	struct pair p;
	char b[4];

	(void)state;
	tls_server_warm(s);
	assert_int_equal(pair_open(&p, s, c, &peer), 0);
	/* the contexts may go first */
	tls_ctx_free(&s);
	tls_ctx_free(&c);
	assert_int_equal(shake(&p), 0);
	exchange(&p);
	tls_info(p.server, &info);
	assert_string_equal(info.protocol, "TLSv1.3");
	assert_string_equal(info.sni, "mail.example.org");
	assert_int_equal(info.bits, 256);
	assert_false(info.resumed);
	assert_string_equal(info.peer_subject, "");
	tls_info(p.client, &info);
	assert_string_equal(info.peer_subject, "CN=mail.example.org");
	assert_false(info.peer_trusted);
	assert_false(info.peer_verified);
	assert_int_equal(strlen(info.peer_fingerprint), 64);
	assert_int_equal(tls_shutdown(p.client), 0);
	assert_int_equal(tls_read(p.server, b, 4), 0);
	assert_int_equal(tls_shutdown(p.server), 0);
	assert_int_equal(tls_read(p.client, b, 4), 0);
	pair_close(&p);
}

static void
test_truncation_is_not_a_close(void **state)
{
	struct tls_ctx *s = server_ctx("smtp", NULL, NULL, 0),
		       *c = client_ctx(TLS_OPPORTUNISTIC, SLICE_NULL, 0);
	struct tls_peer peer = { 0 };
	struct pair p;
	char b[4];

	(void)state;
	assert_int_equal(pair_open(&p, s, c, &peer), 0);
	assert_int_equal(shake(&p), 0);
	shutdown(p.fds[1], SHUT_RDWR);
	assert_int_equal(tls_read(p.server, b, 4), ERR_CLOSED);
	assert_int_equal(tls_read(p.server, b, 4), ERR_STATE);
	pair_close(&p);
	assert_int_equal(pair_open(&p, s, c, &peer), 0);
	assert_int_equal(write(p.fds[1], "EHLO there\r\n", 12), 12);
	assert_int_equal(tls_handshake(p.server), ERR_SYNTAX);
	assert_string_not_equal(tls_error(p.server), "no error");
	pair_close(&p);
	tls_ctx_free(&s);
	tls_ctx_free(&c);
}

static void
test_sni_picks_the_certificate(void **state)
{
	static const struct {
		const char *sni, *subject;
	} rows[] = {
		{ "mail.example.org", "CN=mail.example.org" },
		{ "OTHER.example.net", "CN=other.example.net" },
		{ "x.wild.example.org", "CN=mail.example.org" },
		{ "unknown.example.com", "CN=mail.example.org" },
		{ "127.0.0.1", "CN=mail.example.org" },
		{ NULL, "CN=mail.example.org" },
	};
	struct tls_ctx *s = server_ctx("smtp", NULL, NULL, 0),
		       *c = client_ctx(TLS_ENCRYPT, SLICE_NULL, 0);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct tls_peer peer = { .sni = rows[i].sni };
		struct tls_info info;
		struct pair p;
		assert_int_equal(pair_open(&p, s, c, &peer), 0);
		assert_int_equal(shake(&p), 0);
		exchange(&p);
		tls_info(p.client, &info);
		assert_string_equal(info.peer_subject, rows[i].subject);
		pair_close(&p);
	}
	assert_true(tls_server_expiry(s) > time(NULL) + 29 * 86400);
	assert_true(tls_server_expiry(s) < time(NULL) + 31 * 86400);
	tls_ctx_free(&s);
	tls_ctx_free(&c);
}

/* tls_server_sni_maps: a name of its own picks an identity, the longest one above it does, and what
 * is in its certificate does not; one that cannot be used is left out. */
static void
test_sni_picks_by_name(void **state)
{
	static const struct {
		const char *sni, *subject;
	} rows[] = {
		{ "MAIL.example.com", "CN=other.example.net" },
		{ "x.y.example.com", "CN=other.example.net" },
		{ "in.deep.example.com", "CN=mail.example.org" },
		{ "other.example.net", "CN=mail.example.org" },
		{ "example.com", "CN=mail.example.org" },
		{ NULL, "CN=mail.example.org" },
	};
	struct tls_identity ids[] = { { .chain = buf_slice(&pem_a) },
		{ .chain = buf_slice(&pem_b), .name = SLICE_LIT("mail.example.com") },
		{ .chain = SLICE_LIT("no PEM"), .name = SLICE_LIT("broken.example.com") },
		{ .chain = buf_slice(&pem_b), .name = SLICE_LIT(".Example.com") },
		{ .chain = buf_slice(&pem_a), .name = SLICE_LIT(".deep.example.com") } };
	struct tls_server_opts opts = { .service = "smtp", .identities = ids, .identity_count = 5 };
	struct tls_ctx *s, *c = client_ctx(TLS_ENCRYPT, SLICE_NULL, 0);
	char error[200];

	(void)state;
	assert_int_equal(tls_server_new(&opts, &s, error, sizeof(error)), 0);
	assert_true(strlen(error) > 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct tls_peer peer = { .sni = rows[i].sni };
		struct tls_info info;
		struct pair p;
		assert_int_equal(pair_open(&p, s, c, &peer), 0);
		assert_int_equal(shake(&p), 0);
		exchange(&p);
		tls_info(p.client, &info);
		assert_string_equal(info.peer_subject, rows[i].subject);
		pair_close(&p);
	}
	tls_ctx_free(&s);
	opts.identities = ids + 2; /* the first one has to be good */
	assert_int_not_equal(tls_server_new(&opts, &s, error, sizeof(error)), 0);
	tls_ctx_free(&c);
}

static int
verify(struct tls_ctx *c, const struct tls_peer *peer, struct tls_info *info_r)
{
	struct tls_ctx *s = server_ctx("smtp", NULL, NULL, 0);
	struct pair p;
	int err;

	assert_int_equal(pair_open(&p, s, c, peer), 0);
	err = shake(&p);
	tls_info(p.client, info_r);
	pair_close(&p);
	tls_ctx_free(&s);
	return err;
}

static void
test_levels(void **state)
{
	const char *good[] = { "nomatch.example.org", "mail.example.org" },
		   *bad[] = { "evil.example.org" }, *ip[] = { "127.0.0.1" };
	struct tls_ctx *trusting = client_ctx(TLS_VERIFY, buf_slice(&pem_a), 0),
		       *strange = client_ctx(TLS_VERIFY, buf_slice(&pem_b), 0),
		       *pinned = client_ctx(TLS_FINGERPRINT, SLICE_NULL, 0);
	struct tls_peer peer = { .names = good, .name_count = 2 };
	struct tls_info info;
	struct pair p;
	const char *prints[1];
	char print[65];

	(void)state;
	assert_int_equal(verify(trusting, &peer, &info), 0);
	assert_true(info.peer_trusted && info.peer_verified);
	memcpy(print, info.peer_fingerprint, sizeof(print));
	assert_int_equal(verify(strange, &peer, &info), ERR_DENIED);
	peer = (struct tls_peer){ .names = ip, .name_count = 1 };
	assert_int_equal(verify(trusting, &peer, &info), 0);
	peer = (struct tls_peer){ .names = bad, .name_count = 1 };
	assert_int_equal(verify(trusting, &peer, &info), ERR_DENIED);
	prints[0] = print;
	peer = (struct tls_peer){ .fingerprints = prints, .fingerprint_count = 1 };
	assert_int_equal(verify(pinned, &peer, &info), 0);
	assert_true(info.peer_verified);
	print[0] = print[0] == '0' ? '1' : '0';
	assert_int_equal(verify(pinned, &peer, &info), ERR_DENIED);
	prints[0] = "abc";
	{
		struct tls_ctx *s = server_ctx("smtp", NULL, NULL, 0);
		assert_int_equal(pair_open(&p, s, pinned, &peer), ERR_SYNTAX);
		assert_null(p.client);
		pair_close(&p);
		tls_ctx_free(&s);
	}
	tls_ctx_free(&trusting);
	tls_ctx_free(&strange);
	tls_ctx_free(&pinned);
}

static int
hex_byte(const char *s)
{
	char two[3] = { s[0], s[1], 0 };

	return (int)strtol(two, NULL, 16);
}

static void
test_dane(void **state)
{
	const char *names[] = { "mail.example.org" };
	struct tls_ctx *c = client_ctx(TLS_DANE, SLICE_NULL, 0),
		       *e = client_ctx(TLS_ENCRYPT, SLICE_NULL, 0);
	struct tls_peer peer = { 0 };
	unsigned char digest[32];
	struct tls_tlsa rr = { 3, 0, 1, { digest, 32 } };
	struct tls_info info;
	struct pair p;

	(void)state;
	assert_int_equal(verify(e, &peer, &info), 0);
	for (size_t i = 0; i < 32; i++)
		digest[i] = (unsigned char)hex_byte(info.peer_fingerprint + 2 * i);
	peer = (struct tls_peer){ .names = names, .name_count = 1, .tlsa = &rr, .tlsa_count = 1 };
	assert_int_equal(verify(c, &peer, &info), 0);
	assert_true(info.peer_verified);
	digest[5] ^= 1;
	assert_int_equal(verify(c, &peer, &info), ERR_DENIED);
	rr.usage = 1; /* not for SMTP: nothing usable is left */
	{
		struct tls_ctx *s = server_ctx("smtp", NULL, NULL, 0);
		assert_int_equal(pair_open(&p, s, c, &peer), ERR_SYNTAX);
		pair_close(&p);
		tls_ctx_free(&s);
	}
	tls_ctx_free(&c);
	tls_ctx_free(&e);
}

/* One connection; returns whether it was resumed and replaces *session by the new one. */
static bool
connect_once(struct tls_ctx *s, struct tls_ctx *c, const char *sni, struct tls_session **session)
{
	struct tls_peer peer = { .sni = sni, .session = *session };
	struct tls_info info;
	struct pair p;
	int err;

	assert_int_equal(pair_open(&p, s, c, &peer), 0);
	if ((err = shake(&p)) != 0)
		fail_msg("%s: %s / %s", err_str(err), tls_error(p.server), tls_error(p.client));
	exchange(&p);
	tls_info(p.server, &info);
	tls_session_free(session);
	*session = tls_session_take(p.client);
	pair_close(&p);
	return info.resumed;
}

static void
resume_with(enum tls_version max)
{
	unsigned char keys[4 * TLS_TICKET_KEY_SIZE], more[4 * TLS_TICKET_KEY_SIZE];
	struct tls_tickets *t1 = tls_tickets_new(), *t2 = tls_tickets_new();
	struct tls_ctx *s1 = server_ctx("imap", NULL, t1, 0), *s2 = server_ctx("imap", NULL, t2, 0),
		       *pop = server_ctx("pop3", NULL, t2, 0),
		       *none = server_ctx("imap", NULL, NULL, 0);
	struct tls_ctx *c = client_ctx(TLS_ENCRYPT, SLICE_NULL, max);
	struct tls_session *session = NULL;

	for (int i = 0; i < 4; i++)
		tls_ticket_key_draw(keys + i * TLS_TICKET_KEY_SIZE);
	assert_int_equal(tls_tickets_set(t1, slice(keys, TLS_TICKET_KEY_SIZE - 1)), ERR_SYNTAX);
	assert_false(connect_once(s1, c, NULL, &session)); /* no key yet: no ticket */
	assert_null(session);
	assert_int_equal(tls_tickets_set(t1, slice(keys, TLS_TICKET_KEY_SIZE)), 0);
	assert_int_equal(tls_tickets_set(t2, slice(keys, TLS_TICKET_KEY_SIZE)), 0);
	assert_false(connect_once(s1, c, "mail.example.org", &session));
	assert_non_null(session);
	assert_true(
	    connect_once(s2, c, "mail.example.org", &session)); /* another process's context */
	assert_true(connect_once(s1, c, "mail.example.org", &session));
	/* rotated: the new key seals, the old ones still open, up to three */
	for (int round = 1; round <= 3; round++) {
		struct tls_session *old = session;
		memcpy(more, keys + round * TLS_TICKET_KEY_SIZE, TLS_TICKET_KEY_SIZE);
		memcpy(more + TLS_TICKET_KEY_SIZE, keys, TLS_TICKET_KEY_SIZE);
		assert_int_equal(tls_tickets_set(t1, slice(more, 2 * TLS_TICKET_KEY_SIZE)), 0);
		assert_true(connect_once(s1, c, "mail.example.org", &old));
		assert_int_equal(tls_tickets_set(t2, slice(more, TLS_TICKET_KEY_SIZE)), 0);
		session = old;
		assert_true(connect_once(s2, c, "mail.example.org", &session));
		memcpy(keys, more, TLS_TICKET_KEY_SIZE);
	}
	/* another service with the same keys, another server name, no tickets, other keys */
	assert_false(connect_once(pop, c, "mail.example.org", &session));
	assert_false(connect_once(s2, c, "mail.example.org", &session));
	assert_false(connect_once(s2, c, "other.example.net", &session));
	assert_false(connect_once(s2, c, "x.wild.example.org", &session));
	assert_true(connect_once(s2, c, "x.wild.example.org", &session));
	tls_ticket_key_draw(keys);
	assert_int_equal(tls_tickets_set(t2, slice(keys, TLS_TICKET_KEY_SIZE)), 0);
	assert_false(connect_once(s2, c, "x.wild.example.org", &session));
	assert_false(connect_once(none, c, "x.wild.example.org", &session));
	assert_null(session);
	tls_ctx_free(&s1);
	tls_ctx_free(&s2);
	tls_ctx_free(&pop);
	tls_ctx_free(&none);
	tls_ctx_free(&c);
	tls_tickets_free(&t1);
	tls_tickets_free(&t2);
}

static void
test_resumption_13(void **state)
{
	(void)state;
	resume_with(TLS_VERSION_1_3);
}

static void
test_resumption_12(void **state)
{
	(void)state;
	resume_with(TLS_VERSION_1_2);
}

static void
test_old_versions_are_refused(void **state)
{
	struct tls_ctx *s = server_ctx("smtp", NULL, NULL, 0),
		       *c = client_ctx(TLS_OPPORTUNISTIC, SLICE_NULL, TLS_VERSION_1_1);
	struct tls_peer peer = { 0 };
	struct pair p;

	(void)state;
	assert_int_equal(pair_open(&p, s, c, &peer), 0);
	assert_int_equal(shake(&p), ERR_SYNTAX);
	pair_close(&p);
	tls_ctx_free(&s);
	tls_ctx_free(&c);
}

static void
test_channel_binding(void **state)
{
	static const enum tls_version versions[] = { TLS_VERSION_1_2, TLS_VERSION_1_3 };
	struct tls_ctx *s = server_ctx("imap", NULL, NULL, 0);

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct tls_ctx *c = client_ctx(TLS_ENCRYPT, SLICE_NULL, versions[i]);
		struct tls_peer peer = { .sni = "other.example.net" };
		unsigned char a[TLS_BINDING_MAX], b[TLS_BINDING_MAX], x[TLS_BINDING_MAX];
		size_t n, m;
		struct pair p;
		assert_int_equal(pair_open(&p, s, c, &peer), 0);
		assert_int_equal(
		    tls_channel_binding(p.server, TLS_BINDING_EXPORTER, a, &n), ERR_STATE);
		assert_int_equal(shake(&p), 0);
		assert_int_equal(tls_channel_binding(p.server, TLS_BINDING_EXPORTER, a, &n), 0);
		assert_int_equal(tls_channel_binding(p.client, TLS_BINDING_EXPORTER, b, &m), 0);
		assert_int_equal(n, 32);
		assert_int_equal(m, 32);
		assert_memory_equal(a, b, n);
		assert_int_equal(tls_channel_binding(p.server, TLS_BINDING_END_POINT, x, &n), 0);
		assert_int_equal(tls_channel_binding(p.client, TLS_BINDING_END_POINT, b, &m), 0);
		assert_int_equal(n, m);
		assert_memory_equal(x, b, n);
		assert_memory_not_equal(a, x, n);
		pair_close(&p);
		tls_ctx_free(&c);
	}
	tls_ctx_free(&s);
}

static void
test_large_write_and_backpressure(void **state)
{
	enum { SIZE = 3 << 20 };
	struct tls_ctx *s = server_ctx("imap", NULL, NULL, 0),
		       *c = client_ctx(TLS_ENCRYPT, SLICE_NULL, 0);
	struct tls_peer peer = { 0 };
	struct buf out = { 0 }, in;
	struct pair p;
	int err, waits = 0;

	(void)state;
	buf_init(&in, 100000);
	for (int i = 0; i < SIZE / 4; i++)
		buf_add_u32(&out, (uint32_t)i);
	assert_int_equal(pair_open(&p, s, c, &peer), 0);
	assert_int_equal(shake(&p), 0);
	for (uint32_t next = 0; next < SIZE / 4;) {
		ptrdiff_t got;
		struct cursor cur;
		if ((err = tls_write_buf(p.server, &out)) != 0) {
			assert_int_equal(err, TLS_WANT_WRITE);
			waits++;
		}
		got = tls_read_buf(p.client, &in, 65536);
		assert_true(got > 0 || got == TLS_WANT_READ);
		cur = cursor(buf_slice(&in));
		while (cur.in.n - cur.at >= 4)
			assert_int_equal(cursor_u32(&cur), next++);
		buf_consume(&in, cur.at);
	}
	assert_true(waits > 0);
	assert_int_equal(buf_len(&out), 0);
	buf_free(&out);
	buf_free(&in);
	buf_init(&in, 4);
	buf_add_str(&in, "full");
	assert_int_equal(tls_read_buf(p.client, &in, 10), -ENOBUFS);
	buf_free(&in);
	pair_close(&p);
	tls_ctx_free(&s);
	tls_ctx_free(&c);
}

static void
test_bad_input_to_contexts(void **state)
{
	struct tls_identity id = { .chain = SLICE_LIT("garbage") }, mixed;
	struct tls_server_opts opts = { .service = "smtp", .identities = &id, .identity_count = 1 };
	const char *evil[] = { "a,DNS:b" }, *empty[] = { "" };
	struct tls_ctx *ctx;
	struct buf b = { 0 };
	char error[200];
	size_t at;

	(void)state;
	assert_int_equal(tls_server_new(&opts, &ctx, error, sizeof(error)), ERR_SYNTAX);
	assert_null(ctx);
	assert_non_null(strstr(error, "no certificate found"));
	at = (size_t)slice_search(buf_slice(&pem_a), SLICE_LIT("-----BEGIN CERT"));
	id.chain = slice_sub(buf_slice(&pem_a), at, buf_len(&pem_a));
	assert_int_equal(tls_server_new(&opts, &ctx, error, sizeof(error)), ERR_SYNTAX);
	assert_non_null(strstr(error, "private key"));
	mixed = (struct tls_identity){ .chain = buf_slice(&pem_a), .key = buf_slice(&pem_b) };
	opts.identities = &mixed;
	assert_int_equal(tls_server_new(&opts, &ctx, error, sizeof(error)), ERR_SYNTAX);
	assert_non_null(strstr(error, "does not fit"));
	mixed = (struct tls_identity){ .chain = buf_slice(&pem_a) };
	opts.ciphers = "NOSUCH";
	assert_int_equal(tls_server_new(&opts, &ctx, error, sizeof(error)), ERR_SYNTAX);
	assert_int_equal(tls_selfsigned(evil, 1, 1, &b), ERR_SYNTAX);
	assert_int_equal(tls_selfsigned(empty, 1, 1, &b), ERR_SYNTAX);
	assert_int_equal(tls_read_file("/nonexistent", &b), -ENOENT);
	assert_int_equal(tls_read_file("/tmp", &b), ERR_SYNTAX);
	buf_free(&b);
}

static void
test_serving_replaces_whole_sets(void **state)
{
	struct tls_server_opts opts = { .service = "imap" };
	struct tls_serving *s = tls_serving_new(&opts);
	struct tls_ctx *first;
	char error[200];

	(void)state;
	assert_null(tls_serving_ctx(s));
	assert_int_equal(tls_serving_certificate(s, 0, 2, SLICE_NULL, buf_slice(&pem_a), SLICE_NULL,
			     error, sizeof(error)),
	    0);
	assert_null(tls_serving_ctx(s));
	assert_int_equal(tls_serving_certificate(s, 1, 2, SLICE_NULL, buf_slice(&pem_b), SLICE_NULL,
			     error, sizeof(error)),
	    1);
	first = tls_serving_ctx(s);
	assert_non_null(first);
	assert_int_equal(tls_serving_certificate(
			     s, 0, 1, SLICE_NULL, SLICE_LIT("x"), SLICE_NULL, error, sizeof(error)),
	    ERR_SYNTAX);
	assert_ptr_equal(tls_serving_ctx(s), first);
	assert_int_equal(tls_serving_certificate(s, 0, 0, SLICE_NULL, buf_slice(&pem_a), SLICE_NULL,
			     error, sizeof(error)),
	    ERR_LIMIT);
	assert_int_equal(tls_serving_certificate(s, 0, 1, SLICE_NULL, buf_slice(&pem_b),
			     buf_slice(&pem_b), error, sizeof(error)),
	    1);
	assert_ptr_not_equal(tls_serving_ctx(s), first);
	tls_serving_free(&s);
	assert_null(s);
}

static int
setup(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	make_pems();
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	buf_wipe(&pem_a);
	buf_wipe(&pem_b);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain_way),
		cmocka_unit_test(test_truncation_is_not_a_close),
		cmocka_unit_test(test_sni_picks_the_certificate),
		cmocka_unit_test(test_sni_picks_by_name),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_dane),
		cmocka_unit_test(test_resumption_13),
		cmocka_unit_test(test_resumption_12),
		cmocka_unit_test(test_old_versions_are_refused),
		cmocka_unit_test(test_channel_binding),
		cmocka_unit_test(test_large_write_and_backpressure),
		cmocka_unit_test(test_bad_input_to_contexts),
		cmocka_unit_test(test_serving_replaces_whole_sets),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
