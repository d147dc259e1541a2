/* Unit tests of TLS over socket pairs: bytes, names and levels. */
#include "tls/tls_test_util.h"

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
		cmocka_unit_test(test_old_versions_are_refused),
		cmocka_unit_test(test_channel_binding),
		cmocka_unit_test(test_large_write_and_backpressure),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
