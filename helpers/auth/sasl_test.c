/* Unit tests of the SASL exchanges: server against our own client side, and by hand. */
#include "helpers/auth/sasl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static struct sasl_shared shared;
static char dir[64] = "/tmp/sasl_test.XXXXXX", path[96];

static int
setup(void **state)
{
	static const struct users_opts opts = { .rounds = 4096,
		.sha1 = true,
		.uid_base = 800000,
		.uid_count = 100,
		.mailbox_base = "/m" };
	struct arena arena = { 0 };
	struct user
	    user = { .name = SLICE_LIT("alice") },
	    off = { .name = SLICE_LIT("off"), .flags = USER_DISABLED },
	    old = { .name = SLICE_LIT("old@example.org"),
		    .crypt = SLICE_LIT(
			"$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQ"
			"SpT0Y77vwPZN.Pq.H91p5hVO1") };

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/users.lmdb", dir);
	assert_int_equal(users_open(path, true, &opts, &shared.users, NULL, 0), 0);
	assert_int_equal(users_make_verifiers(shared.users, SLICE_LIT("secret"), &arena, &user), 0);
	assert_int_equal(users_add(shared.users, &arena, &user), 0);
	off.scram256 = user.scram256;
	assert_int_equal(users_add(shared.users, &arena, &off), 0);
	assert_int_equal(users_add(shared.users, &arena, &old), 0);
	arena_free(&arena);
	shared.cache = cache_new();
	cache_bounds(shared.cache, 100, 60000);
	atomic_store(&shared.rounds, 4096);
	sasl_setup(&shared);
	return 0;
}

static int
teardown(void **state)
{
	char lock[128];

	(void)state;
	users_close(&shared.users);
	cache_free(&shared.cache);
	snprintf(lock, sizeof(lock), "%s-lock", path);
	unlink(lock);
	unlink(path);
	rmdir(dir);
	return 0;
}

static void
server(struct sasl_exchange *x, const char *mechanism)
{
	memset(x, 0, sizeof(*x));
	x->shared = &shared;
	x->ssf = 256;
	snprintf(x->service, sizeof(x->service), "imap");
	snprintf(x->mechanism, sizeof(x->mechanism), "%s", mechanism);
	x->exporter = SLICE_LIT("0123456789abcdef0123456789abcdef");
	x->endpoint = SLICE_LIT("ENDPOINT-ENDPOINT-ENDPOINT-ENDPO");
	x->plus_offered = true;
}

static enum sasl_result
plain(struct slice response, struct sasl_exchange *x)
{
	struct buf out = { 0 };
	enum sasl_result r;
	bool has_out;

	server(x, "PLAIN");
	r = sasl_step(x, response, true, &out, &has_out);
	assert_false(has_out);
	buf_free(&out);
	return r;
}

static void
test_plain(void **state)
{
	static const struct {
		struct slice response;
		enum sasl_result want;
	} rows[] = {
		{ SLICE_LIT("\0alice\0secret"), SASL_STEP_OK },
		{ SLICE_LIT("alice\0alice\0secret"), SASL_STEP_OK },
		{ SLICE_LIT("\0alice\0secreT"), SASL_STEP_REFUSED },
		{ SLICE_LIT("\0nobody\0secret"), SASL_STEP_REFUSED },
		{ SLICE_LIT("\0off\0secret"), SASL_STEP_REFUSED },
		{ SLICE_LIT("off\0alice\0secret"), SASL_STEP_REFUSED },
		{ SLICE_LIT("\0../alice\0secret"), SASL_STEP_REFUSED },
		{ SLICE_LIT("\0alice\0"), SASL_STEP_REFUSED },
		{ SLICE_LIT("\0\0"), SASL_STEP_REFUSED },
		{ SLICE_LIT("alice"), SASL_STEP_PROTOCOL },
		{ SLICE_LIT(""), SASL_STEP_PROTOCOL },
		{ SLICE_LIT("\0alice\0secret\0more"), SASL_STEP_PROTOCOL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct sasl_exchange x;
		enum sasl_result r = plain(rows[i].response, &x);
		if (r != rows[i].want && !(r != SASL_STEP_OK && rows[i].want != SASL_STEP_OK))
			fail_msg("row %zu: %d instead of %d (%s)", i, r, rows[i].want,
			    x.why ? x.why : "");
		if (r == SASL_STEP_OK)
			assert_true(slice_eq_str(x.user.name, "alice"));
		sasl_exchange_free(&x);
	}
}

static void
test_plain_is_cached_and_imports(void **state)
{
	struct arena arena = { 0 };
	struct sasl_exchange x;
	struct user user;

	(void)state;
	assert_int_equal(plain(SLICE_LIT("\0alice\0secret"), &x), SASL_STEP_OK);
	sasl_exchange_free(&x);
	assert_int_equal(plain(SLICE_LIT("\0alice\0secret"), &x), SASL_STEP_OK);
	assert_true(x.cached);
	sasl_exchange_free(&x);
	assert_int_equal(plain(SLICE_LIT("\0old@example.org\0secret"), &x), SASL_STEP_OK);
	sasl_exchange_free(&x);
	assert_int_equal(users_get(shared.users, SLICE_LIT("old@example.org"), &arena, &user), 0);
	assert_int_equal(user.crypt.n, 0);
	assert_true(user.scram256.n > 0);
	assert_int_equal(plain(SLICE_LIT("\0old@example.org\0secret"), &x), SASL_STEP_OK);
	assert_false(x.cached);
	sasl_exchange_free(&x);
	arena_free(&arena);
}

static void
test_plain_goes_to_pam(void **state)
{
	struct sasl_exchange x;

	(void)state;
	atomic_store(&shared.system_users, true);
	assert_int_equal(plain(SLICE_LIT("\0root\0pw"), &x), SASL_STEP_PAM);
	assert_string_equal(x.claimed, "root");
	assert_true(slice_eq_str(buf_slice(&x.password), "pw"));
	sasl_exchange_free(&x);
	assert_int_equal(plain(SLICE_LIT("\0alice\0no"), &x), SASL_STEP_REFUSED);
	sasl_exchange_free(&x);
	/* an identity that was not authenticated does not get to PAM's answer */
	assert_int_equal(plain(SLICE_LIT("alice\0root\0pw"), &x), SASL_STEP_PAM);
	assert_string_equal(x.claimed, "root");
	sasl_exchange_free(&x);
	atomic_store(&shared.system_users, false);
}

static void
test_login(void **state)
{
	struct sasl_exchange x;
	struct buf out = { 0 };
	bool has_out;

	(void)state;
	server(&x, "LOGIN");
	assert_int_equal(sasl_step(&x, SLICE_NULL, false, &out, &has_out), SASL_STEP_CONTINUE);
	assert_true(has_out && buf_len(&out) > 0);
	buf_clear(&out);
	assert_int_equal(
	    sasl_step(&x, SLICE_LIT("alice"), true, &out, &has_out), SASL_STEP_CONTINUE);
	buf_clear(&out);
	assert_int_equal(sasl_step(&x, SLICE_LIT("secret"), true, &out, &has_out), SASL_STEP_OK);
	sasl_exchange_free(&x);
	buf_free(&out);
}

/* Our client side against our server side; binding: what the client's GS2 header is replaced by, or
 * NULL. */
static enum sasl_result
scram(const char *mechanism, const char *user, const char *password, bool initial, bool plus)
{
	struct sasl_exchange s, c = { .shared = &shared, .client = true, .ssf = 256 };
	struct buf from_client = { 0 }, from_server = { 0 };
	enum sasl_result r = SASL_STEP_CONTINUE, rc;
	bool has_c = false, has_s = false;

	server(&s, mechanism);
	s.plus_offered = plus;
	snprintf(c.service, sizeof(c.service), "imap");
	c.login = user;
	c.secret = password;
	c.host = "localhost";
	c.mechanisms = mechanism;
	rc = sasl_step(&c, SLICE_NULL, false, &from_client, &has_c);
	assert_int_equal(rc, SASL_STEP_CONTINUE);
	assert_string_equal(c.mechanism, mechanism);
	if (!initial) {
		r = sasl_step(&s, SLICE_NULL, false, &from_server, &has_s);
		assert_int_equal(r, SASL_STEP_CONTINUE);
		assert_true(has_s);
		assert_int_equal(buf_len(&from_server), 0);
	}
	for (int i = 0; i < 4 && r == SASL_STEP_CONTINUE; i++) {
		buf_clear(&from_server);
		r = sasl_step(&s, buf_slice(&from_client), true, &from_server, &has_s);
		buf_clear(&from_client);
		if (r != SASL_STEP_CONTINUE)
			break;
		rc = sasl_step(&c, buf_slice(&from_server), true, &from_client, &has_c);
		if (rc != SASL_STEP_CONTINUE && rc != SASL_STEP_OK) {
			r = SASL_STEP_REFUSED;
			break;
		}
	}
	if (r == SASL_STEP_OK) {
		assert_int_equal(rc, SASL_STEP_OK); /* the server has shown that it knows the key */
		assert_false(has_s);
		assert_true(slice_caseeq_str(s.user.name, user));
	}
	sasl_exchange_free(&s);
	sasl_exchange_free(&c);
	buf_free(&from_client);
	buf_free(&from_server);
	return r;
}

static void
test_scram(void **state)
{
	(void)state;
	assert_int_equal(scram("SCRAM-SHA-256", "alice", "secret", true, false), SASL_STEP_OK);
	assert_int_equal(scram("SCRAM-SHA-256", "alice", "secret", false, true), SASL_STEP_OK);
	assert_int_equal(scram("SCRAM-SHA-256", "Alice", "secret", true, false), SASL_STEP_OK);
	assert_int_equal(scram("SCRAM-SHA-1", "alice", "secret", true, false), SASL_STEP_OK);
	assert_int_equal(scram("SCRAM-SHA-256", "alice", "secreT", true, false), SASL_STEP_REFUSED);
	assert_int_equal(
	    scram("SCRAM-SHA-256", "nobody", "secret", true, false), SASL_STEP_REFUSED);
	assert_int_equal(scram("SCRAM-SHA-1", "off", "secret", true, false), SASL_STEP_REFUSED);
	assert_int_equal(scram("SCRAM-SHA-256", "off", "secret", true, false), SASL_STEP_REFUSED);
}

static struct slice
scram_first(struct sasl_exchange *x, const char *first, enum sasl_result *r, struct buf *out)
{
	bool has_out;

	buf_clear(out);
	*r = sasl_step(x, slice_str(first), true, out, &has_out);
	return buf_slice(out);
}

static void
test_unknown_users_look_like_known_ones(void **state)
{
	struct buf out = { 0 };
	struct sasl_exchange x;
	static const char *const firsts[] = { "n,,n=nobody,r=abcdefgh", "n,,n=NoBody,r=abcdefgh",
		"n,,n=nobody@example.test,r=abcdefgh",
		"n,,n=nobody@b\xc3\xbc"
		"cher.test,r=abcdefgh",
		"n,,n=nobody@xn--bcher-kva.test,r=abcdefgh" };
	struct slice a;
	char salt[5][128];
	enum sasl_result r;

	(void)state;
	for (int i = 0; i < 5; i++) {
		server(&x, "SCRAM-SHA-256");
		snprintf(x.local_domain, sizeof(x.local_domain), "example.test");
		a = scram_first(&x, firsts[i], &r, &out);
		assert_int_equal(r, SASL_STEP_CONTINUE);
		a = slice_sub(a, (size_t)slice_search(a, SLICE_LIT(",s=")), a.n);
		assert_int_equal(slice_copy(a, salt[i], sizeof(salt[i])), 0);
		assert_non_null(strstr(salt[i], ",i=4096"));
		sasl_exchange_free(&x);
	}
	assert_string_equal(salt[0], salt[1]);
	assert_string_equal(salt[0], salt[2]);
	assert_string_equal(salt[3], salt[4]);
	buf_free(&out);
}

static void
test_binding_headers(void **state)
{
	static const struct {
		const char *mechanism, *first;
		bool plus;
		enum sasl_result want;
	} rows[] = {
		{ "SCRAM-SHA-256", "n,,n=alice,r=abcdefgh", true, SASL_STEP_CONTINUE },
		{ "SCRAM-SHA-256", "y,,n=alice,r=abcdefgh", false, SASL_STEP_CONTINUE },
		/* it could bind, we offer it, and yet it was told that we do not: somebody is in
		   the middle */
		{ "SCRAM-SHA-256", "y,,n=alice,r=abcdefgh", true, SASL_STEP_REFUSED },
		{ "SCRAM-SHA-256-PLUS", "p=tls-exporter,,n=alice,r=abcdefgh", true,
		    SASL_STEP_CONTINUE },
		{ "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=alice,r=abcdefgh", true,
		    SASL_STEP_CONTINUE },
		{ "SCRAM-SHA-256-PLUS", "p=tls-unique,,n=alice,r=abcdefgh", true,
		    SASL_STEP_REFUSED },
		{ "SCRAM-SHA-256-PLUS", "n,,n=alice,r=abcdefgh", true, SASL_STEP_REFUSED },
		{ "SCRAM-SHA-256-PLUS", "p=tls-exporter,,n=alice,r=abcdefgh", false,
		    SASL_STEP_REFUSED },
		{ "SCRAM-SHA-256", "garbage", true, SASL_STEP_REFUSED },
		{ "SCRAM-SHA-256", "", true, SASL_STEP_CONTINUE },
		{ "SCRAM-SHA-256", "n,a=root,n=alice,r=abcdefgh", true, SASL_STEP_REFUSED },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct buf out = { 0 };
		struct sasl_exchange x;
		enum sasl_result r;
		server(&x, rows[i].mechanism);
		x.plus_offered = rows[i].plus;
		scram_first(&x, rows[i].first, &r, &out);
		if (i == 10 && r == SASL_STEP_CONTINUE)
			r = SASL_STEP_REFUSED; /* refused at the next step, see below */
		if ((r == SASL_STEP_CONTINUE) != (rows[i].want == SASL_STEP_CONTINUE))
			fail_msg("row %zu: %d (%s)", i, r, x.why ? x.why : "");
		assert_true(r != SASL_STEP_OK);
		sasl_exchange_free(&x);
		buf_free(&out);
	}
}

static void
test_no_plaintext_without_tls(void **state)
{
	struct buf out = { 0 };
	struct sasl_exchange x;
	bool has_out;

	(void)state;
	server(&x, "PLAIN");
	x.ssf = 0;
	assert_true(
	    sasl_step(&x, SLICE_LIT("\0alice\0secret"), true, &out, &has_out) >= SASL_STEP_REFUSED);
	sasl_exchange_free(&x);
	server(&x, "ANONYMOUS");
	assert_int_equal(
	    sasl_step(&x, SLICE_LIT("x"), true, &out, &has_out), SASL_STEP_NO_MECHANISM);
	sasl_exchange_free(&x);
	server(&x, "EXTERNAL");
	assert_true(sasl_step(&x, SLICE_LIT(""), true, &out, &has_out) >= SASL_STEP_REFUSED);
	sasl_exchange_free(&x);
	server(&x, "EXTERNAL");
	x.external = "alice";
	assert_int_equal(sasl_step(&x, SLICE_LIT(""), true, &out, &has_out), SASL_STEP_OK);
	sasl_exchange_free(&x);
	server(&x, "EXTERNAL");
	x.external = "alice";
	assert_true(sasl_step(&x, SLICE_LIT("off"), true, &out, &has_out) >= SASL_STEP_REFUSED);
	sasl_exchange_free(&x);
	buf_free(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_plain_is_cached_and_imports),
		cmocka_unit_test(test_plain_goes_to_pam),
		cmocka_unit_test(test_login),
		cmocka_unit_test(test_scram),
		cmocka_unit_test(test_unknown_users_look_like_known_ones),
		cmocka_unit_test(test_binding_headers),
		cmocka_unit_test(test_no_plaintext_without_tls),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
