/* Unit tests of TLS contexts: resumption, bad input, and sets that take the place of others. */
#include "tls/tls_test_util.h"

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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resumption_13),
		cmocka_unit_test(test_resumption_12),
		cmocka_unit_test(test_bad_input_to_contexts),
		cmocka_unit_test(test_serving_replaces_whole_sets),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
