/* Unit tests of password verifiers and the user store. */
#include "db/users_private.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static void
test_rfc7677_vector(void **state)
{
	static const unsigned char salt[16] = { 0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e,
		0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81 };
	char v[SCRAM_VERIFIER_MAX];

	(void)state;
	assert_int_equal(scram_make(SCRAM_SHA_256, SLICE_LIT("pencil"), 4096, salt, v), 0);
	assert_string_equal(v, "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
			       "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
			       "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=");
	assert_int_equal(scram_check(v, SLICE_LIT("pencil")), 0);
	assert_int_equal(scram_check(v, SLICE_LIT("pencil ")), ERR_DENIED);
	assert_int_equal(scram_check(v, SLICE_LIT("")), ERR_DENIED);
	assert_int_equal(scram_check(v, SLICE_LIT("pen\0cil")), ERR_DENIED);
	assert_int_equal(scram_rounds(v), 4096);
	assert_int_equal(scram_make(SCRAM_SHA_1, SLICE_LIT("pencil"), 4096, NULL, v), 0);
	assert_int_equal(scram_check(v, SLICE_LIT("pencil")), 0);
	assert_int_equal(scram_make(SCRAM_SHA_256, SLICE_LIT("pencil"), 4095, NULL, v), ERR_LIMIT);
}

static void
test_damaged_verifiers(void **state)
{
	static const char *const bad[] = { "", "SCRAM-SHA-256", "SCRAM-SHA-256$",
		"SCRAM-SHA-512$4096:AAAA$AAAA:AAAA", "SCRAM-SHA-256$0:AAAA$AAAA:AAAA",
		"SCRAM-SHA-256$99999999999:AAAA$AAAA:AAAA", "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA",
		"SCRAM-SHA-256$4096:$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
		"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(scram_check(bad[i], SLICE_LIT("x")), ERR_CORRUPT);
}

static void
test_saslprep(void **state)
{
	/* RFC 4013, section 3 */
	static const struct {
		const char *in, *out;
	} rows[] = {
		{ "I\xc2\xadX", "IX" },
		{ "user", "user" },
		{ "USER", "USER" },
		{ "\xc2\xaa", "a" },
		{ "\xe2\x85\xa8", "IX" },
		{ "\x07", NULL },
		{ "a\xc2\xa0"
		  "b",
		    "a b" },
		{ "\xff", NULL },
		{ "\xd8\xa7"
		  "1",
		    NULL },
		{ "\xd8\xa7"
		  "1\xd8\xa8",
		    "\xd8\xa7"
		    "1\xd8\xa8" },
		{ "\xd7\xa9x\xd7\xa9", NULL },
		{ "\xe2\xbf\xb0", NULL },
		{ "\xf0\x9d\x85\xb3", NULL },
		{ "\xc2\xad", NULL },
		{ "", NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct buf b = { 0 };
		int err = scram_prepare(slice_str(rows[i].in), &b);
		if (rows[i].out) {
			assert_int_equal(err, 0);
			assert_true(slice_eq_str(buf_slice(&b), rows[i].out));
		} else {
			assert_int_equal(err, ERR_SYNTAX);
		}
		buf_free(&b);
	}
}

static void
test_fake_verifiers(void **state)
{
	unsigned char secret[32] = "0123456789abcdef0123456789abcde";
	char a[SCRAM_VERIFIER_MAX], b[SCRAM_VERIFIER_MAX];

	(void)state;
	scram_fake(SCRAM_SHA_256, SLICE_LIT("nobody"), 15000, secret, a);
	scram_fake(SCRAM_SHA_256, SLICE_LIT("nobody"), 15000, secret, b);
	assert_string_equal(a, b);
	scram_fake(SCRAM_SHA_256, SLICE_LIT("nobodz"), 15000, secret, b);
	assert_string_not_equal(a, b);
	assert_int_equal(scram_rounds(a), 15000);
	assert_int_equal(scram_check(a, SLICE_LIT("x")), ERR_DENIED);
	scram_fake(SCRAM_SHA_1, SLICE_LIT("nobody"), 4096, secret, a);
	assert_int_equal(scram_check(a, SLICE_LIT("x")), ERR_DENIED);
}

static void
test_crypt(void **state)
{
	/* openssl passwd -6 -salt saltsalt secret */
	static const char hash[] =
	    "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN."
	    "Pq.H91p5hVO1";

	(void)state;
	assert_int_equal(scram_crypt_check(hash, SLICE_LIT("secret")), 0);
	assert_int_equal(scram_crypt_check(hash, SLICE_LIT("wrong")), ERR_DENIED);
	assert_int_equal(scram_crypt_check("{CRYPT}$6$", SLICE_LIT("a\0b")), ERR_DENIED);
	assert_int_equal(scram_crypt_check("*", SLICE_LIT("x")), ERR_CORRUPT);
	assert_int_equal(scram_crypt_check("", SLICE_LIT("x")), ERR_CORRUPT);
}

/* --- the store --- */

struct store {
	char dir[64], path[96];
	struct users *users;
	struct arena arena;
	struct buf out;
};

static const struct users_opts opts = {
	.rounds = 4096, .uid_base = 800000, .uid_count = 3, .mailbox_base = "/var/mail/virtual"
};

static void
store_open(struct store *s)
{
	memset(s, 0, sizeof(*s));
	snprintf(s->dir, sizeof(s->dir), "/tmp/users_test.XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	snprintf(s->path, sizeof(s->path), "%s/users.lmdb", s->dir);
	assert_int_equal(users_open(s->path, true, &opts, &s->users, NULL, 0), 0);
}

static void
store_close(struct store *s)
{
	char lock[128];

	users_close(&s->users);
	arena_free(&s->arena);
	buf_free(&s->out);
	snprintf(lock, sizeof(lock), "%s-lock", s->path);
	unlink(lock);
	unlink(s->path);
	rmdir(s->dir);
}

static int
run(struct store *s, const char *line, struct user *make_r)
{
	struct slice words[64], rest = slice_str(line);
	size_t n = 0;

	buf_clear(&s->out);
	while (rest.n > 0) {
		words[n] = slice_split(&rest, ' ');
		if (slice_eq_str(words[n], "-")) /* stands for an empty word */
			words[n].n = 0;
		n++;
	}
	return users_command(s->users, words, n, &s->arena, &s->out, make_r);
}

static bool
said(struct store *s, const char *text)
{
	return slice_search(buf_slice(&s->out), slice_str(text)) >= 0;
}

static void
test_add_and_check(void **state)
{
	struct user made, user;
	struct store s;
	uint64_t generation;

	(void)state;
	store_open(&s);
	generation = users_generation(s.users);
	assert_int_equal(
	    run(&s,
		"add Alice@Example.org secret sender=sales@example.org sender=@lists.example.org",
		&made),
	    0);
	assert_true(slice_eq_str(made.name, "alice@example.org"));
	assert_int_equal(made.uid, 800000);
	assert_int_equal(made.gid, 800000);
	assert_true(slice_eq_str(made.home, "/var/mail/virtual/example.org/alice"));
	assert_true(
	    slice_eq_str(made.mailbox, "maildir:/var/mail/virtual/example.org/alice/Maildir"));
	assert_true(users_generation(s.users) > generation);
	assert_int_equal(users_get(s.users, SLICE_LIT("ALICE@example.ORG"), &s.arena, &user), 0);
	assert_int_equal(users_check(&user, SLICE_LIT("secret")), 0);
	assert_int_equal(users_check(&user, SLICE_LIT("Secret")), ERR_DENIED);
	assert_int_equal(user.scram1.n, 0);
	assert_int_equal(
	    users_find_address(s.users, SLICE_LIT("Sales@example.org"), &s.arena, &user), 0);
	assert_true(slice_eq_str(user.name, "alice@example.org"));
	assert_int_equal(
	    users_find_address(s.users, SLICE_LIT("x@lists.example.org"), &s.arena, &user),
	    ERR_NOT_FOUND);
	/* the domain is what stands behind the last @ */
	assert_int_equal(run(&s,
			     "add bob@example.org x sender=\"b@c\"@b\xc3\xbc"
			     "cher.test",
			     NULL),
	    0);
	assert_int_equal(
	    users_find_address(s.users, SLICE_LIT("\"B@C\"@xn--bcher-kva.test"), &s.arena, &user),
	    0);
	assert_true(slice_eq_str(user.name, "bob@example.org"));
	assert_int_equal(run(&s, "check alice@example.org secret", NULL), 0);
	assert_int_equal(run(&s, "check alice@example.org wrong", NULL), 1);
	assert_int_equal(run(&s, "passwd alice@example.org other", NULL), 0);
	assert_int_equal(run(&s, "check alice@example.org other", NULL), 0);
	assert_int_equal(run(&s, "show alice@example.org", NULL), 0);
	assert_true(said(&s, "sender: sales@example.org\n"));
	assert_false(said(&s, "SCRAM-SHA"));
	store_close(&s);
}

static void
test_refusals(void **state)
{
	static const char *const bad[] = { "add a/b x", "add a@. x", "add a@.org x", "add a@-x x",
		"add a\xff x", "add a\xc2\x85 x", "add a@b\xff.org x", "add ok x sender=@",
		"add ok x sender=a@", "add ok x sender=a@b..c", "add ok x sender=@a@b", "add .. x",
		"add a@b@c x", "add -x x", "add a*b x", "add ok x uid=0", "add ok x uid=-1",
		"add ok x home=relative", "add ok x home=/a/../b", "add ok x colour=red",
		"add ok -", "add ok x sender=nodomain", "add ok x mailbox=what:ever", "add ok",
		"frobnicate", "check nobody x" };
	struct store s;

	(void)state;
	store_open(&s);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (run(&s, bad[i], NULL) == 0)
			fail_msg("accepted: %s", bad[i]);
		assert_true(buf_len(&s.out) > 10);
	}
	assert_int_equal(run(&s, "list", NULL), 0);
	assert_int_equal(buf_len(&s.out), 0);
	store_close(&s);
}

static void
test_uids_are_never_given_twice(void **state)
{
	struct user made;
	struct store s;

	(void)state;
	store_open(&s);
	assert_int_equal(run(&s, "add a x uid=800001", NULL), 0);
	assert_int_equal(run(&s, "add b x", &made), 0);
	assert_int_equal(made.uid, 800000);
	assert_int_equal(run(&s, "del b", NULL), 0);
	assert_int_equal(run(&s, "add b x", &made), 0);
	assert_int_equal(made.uid, 800002);
	assert_int_equal(run(&s, "add b x", NULL), 1);
	assert_true(said(&s, "exists already"));
	assert_int_equal(run(&s, "add c x", NULL), 1);
	assert_true(said(&s, "virtual_uid_count"));
	assert_int_equal(run(&s, "list", NULL), 0);
	assert_true(said(&s, "a uid=800001") && said(&s, "b uid=800002") && !said(&s, "c uid"));
	store_close(&s);
}

static void
test_change(void **state)
{
	struct user user;
	struct store s;

	(void)state;
	store_open(&s);
	assert_int_equal(run(&s, "add a x sender=one@e.org", NULL), 0);
	assert_int_equal(
	    run(&s, "add b x sender=one@e.org", NULL), 0); /* may send as it; the mail is a's */
	assert_int_equal(users_find_address(s.users, SLICE_LIT("one@e.org"), &s.arena, &user), 0);
	assert_true(slice_eq_str(user.name, "a"));
	assert_int_equal(run(&s, "change a sender=two@e.org disabled=yes", NULL), 0);
	assert_int_equal(users_find_address(s.users, SLICE_LIT("one@e.org"), &s.arena, &user), 0);
	assert_true(slice_eq_str(user.name, "b")); /* who has it too */
	assert_int_equal(users_find_address(s.users, SLICE_LIT("two@e.org"), &s.arena, &user), 0);
	assert_int_equal(user.flags, USER_DISABLED);
	assert_int_equal(users_check(&user, SLICE_LIT("x")), 0);
	assert_int_equal(run(&s, "change a sender=", NULL), 0);
	assert_int_equal(
	    users_find_address(s.users, SLICE_LIT("two@e.org"), &s.arena, &user), ERR_NOT_FOUND);
	assert_int_equal(run(&s, "change nobody disabled=no", NULL), 1);
	store_close(&s);
}

static void
expect_holder(struct store *s, const char *address, const char *name)
{
	struct user user;
	int err = users_find_address(s->users, slice_str(address), &s->arena, &user);

	assert_int_equal(err, name ? 0 : ERR_NOT_FOUND);
	assert_true(!name || slice_eq_str(user.name, name));
}

/* The first to claim an address gets its mail, until it gives it up or is removed: then the next
 * one by name. */
static void
test_holders(void **state)
{
	struct store s;

	(void)state;
	store_open(&s);
	assert_int_equal(run(&s, "add c x sender=one@e.org sender=@e.org", NULL), 0);
	assert_int_equal(
	    run(&s, "add b x sender=@e.org sender=one@e.org sender=two@e.org", NULL), 0);
	assert_int_equal(run(&s, "add a x sender=two@e.org", NULL), 0);
	expect_holder(&s, "one@e.org", "c");
	expect_holder(&s, "two@e.org", "b");
	/* A new password gives nothing up. */
	assert_int_equal(run(&s, "passwd b y", NULL), 0);
	expect_holder(&s, "two@e.org", "b");
	assert_int_equal(run(&s, "del c", NULL), 0);
	expect_holder(&s, "one@e.org", "b");
	assert_int_equal(run(&s, "change b sender=one@e.org", NULL), 0);
	expect_holder(&s, "one@e.org", "b");
	expect_holder(&s, "two@e.org", "a");
	expect_holder(&s, "@e.org", NULL);
	assert_int_equal(run(&s, "del b", NULL), 0);
	expect_holder(&s, "one@e.org", NULL);
	assert_int_equal(run(&s, "del a", NULL), 0);
	expect_holder(&s, "two@e.org", NULL);
	store_close(&s);
}

/* With its domain in ASCII a name is longer: one that nothing could read again is refused. */
static void
test_name_too_long_in_ascii(void **state)
{
	struct store s;
	char line[512] = "add a@";

	(void)state;
	store_open(&s);
	for (int i = 0; i < 30; i++)
		strcat(line, "\xc3\xbc.");
	strcat(line, "test x");
	assert_int_equal(run(&s, line, NULL), 0);
	assert_int_equal(run(&s, "list", NULL), 0);
	assert_true(said(&s, "a@xn--tda."));
	memcpy(line, "add aaaaaaaaaaaa@", 17);
	for (int i = 0; i < 30; i++)
		memcpy(line + 17 + 3 * i, "\xc3\xbc.", 3);
	strcpy(line + 17 + 90, "test x");
	assert_int_equal(run(&s, line, NULL), 1);
	assert_true(said(&s, "a name, password, address or directory that cannot be used"));
	store_close(&s);
}

/* Between reading a user and writing it, somebody else may have changed it: that change stays. */
static void
test_change_meanwhile(void **state)
{
	struct user seen, user;
	struct store s;

	(void)state;
	store_open(&s);
	assert_int_equal(run(&s, "add a old", NULL), 0);
	assert_int_equal(users_get(s.users, SLICE_LIT("a"), &s.arena, &seen), 0);
	user = seen;
	user.flags |= USER_DISABLED;
	assert_int_equal(run(&s, "passwd a new", NULL), 0);
	assert_int_equal(users_replace(s.users, &s.arena, &seen, &user), ERR_STATE);
	assert_int_equal(run(&s, "check a new", NULL), 0);
	/* a login with an imported hash, while the admin sets a password */
	assert_int_equal(run(&s, "add b - crypt=$1$saltsalt$vgH4geits1dO97n9gC6X10", NULL), 0);
	assert_int_equal(users_get(s.users, SLICE_LIT("b"), &s.arena, &seen), 0);
	assert_int_equal(run(&s, "passwd b new", NULL), 0);
	assert_int_equal(users_upgrade(s.users, &seen, SLICE_LIT("old")), ERR_STATE);
	assert_int_equal(run(&s, "check b new", NULL), 0);
	assert_int_equal(run(&s, "change b crypt=$1$saltsalt$d7LNQ2MbR/sz/hgJ/B94y/", NULL), 0);
	assert_int_equal(users_upgrade(s.users, &seen, SLICE_LIT("old")), ERR_STATE);
	assert_int_equal(users_get(s.users, SLICE_LIT("b"), &s.arena, &seen), 0);
	assert_int_equal(users_upgrade(s.users, &seen, SLICE_LIT("other")), 0);
	assert_int_equal(run(&s, "check b other", NULL), 0);
	store_close(&s);
}

static void
test_imported_hashes(void **state)
{
	static const char *const bad[] = { "secret", "*", "!", "{CRYPT}", "$9$x$y", "{SSHA}abcd",
		"$1$saltsalt$cut" };
	struct store s;
	char text[700];

	(void)state;
	store_open(&s);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "add a - crypt=%s", bad[i]);
		assert_int_equal(run(&s, text, NULL), 1);
		assert_true(said(&s, "no hash that crypt(3) knows"));
	}
	assert_int_equal(
	    run(&s, "add md5 - crypt={CRYPT}$1$saltsalt$vgH4geits1dO97n9gC6X10", NULL), 0);
	assert_true(said(&s, "weak method"));
	assert_int_equal(run(&s, "add des - crypt=abNANd1rDfiNc", NULL), 0);
	assert_true(said(&s, "weak method"));
	assert_int_equal(
	    run(&s,
		"add sha512 - crypt=$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0"
		"S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
		NULL),
	    0);
	assert_false(said(&s, "weak"));
	assert_int_equal(run(&s, "change sha512 crypt=plain", NULL), 1);
	store_close(&s);
}

/* What a record cannot hold is refused, and not written for nobody to read. */
static void
test_sizes(void **state)
{
	static unsigned char hash[USERS_CRYPT_MAX + 1];
	struct user user = { .name = SLICE_LIT("a"), .crypt = slice(hash, sizeof(hash)) };
	struct store s;

	(void)state;
	store_open(&s);
	assert_int_equal(users_add(s.users, &s.arena, &user), ERR_SYNTAX);
	user.crypt.n--;
	assert_int_equal(users_add(s.users, &s.arena, &user), 0);
	assert_int_equal(users_get(s.users, SLICE_LIT("a"), &s.arena, &user), 0);
	store_close(&s);
}

/* One record that cannot be read hides no other. */
static void
test_damaged_record(void **state)
{
	MDB_val key = { 1, (void *)(uintptr_t) "b" }, data = { 3, (void *)(uintptr_t) "\1xx" };
	struct store s;
	MDB_txn *txn;

	(void)state;
	store_open(&s);
	assert_int_equal(run(&s, "add a x", NULL), 0);
	assert_int_equal(run(&s, "add c x", NULL), 0);
	assert_int_equal(users_begin(s.users, true, &txn), 0);
	assert_int_equal(mdb_put(txn, s.users->names, &key, &data, 0), 0);
	assert_int_equal(users_finish(txn, 0), 0);
	assert_int_equal(run(&s, "list", NULL), 1);
	assert_true(said(&s, "a uid=") && said(&s, "c uid=") && said(&s, "cannot list"));
	store_close(&s);
}

static void
test_reopened(void **state)
{
	unsigned char a[32], b[32];
	struct stat st;
	struct user user;
	struct store s;
	char why[200];
	struct users *none;

	(void)state;
	store_open(&s);
	users_secret(s.users, a);
	assert_int_equal(
	    run(&s, "add imported - crypt=$1$saltsalt$vgH4geits1dO97n9gC6X10", NULL), 0);
	users_close(&s.users);
	assert_int_equal(chmod(s.path, 0644), 0);
	assert_int_equal(users_open(s.path, false, &opts, &s.users, NULL, 0), 0);
	assert_int_equal(stat(s.path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	users_secret(s.users, b);
	assert_memory_equal(a, b, 32);
	assert_int_equal(users_get(s.users, SLICE_LIT("imported"), &s.arena, &user), 0);
	assert_int_equal(user.scram256.n, 0);
	assert_true(slice_eq_str(user.crypt, "$1$saltsalt$vgH4geits1dO97n9gC6X10"));
	assert_int_equal(
	    users_open("/nonexistent/users.lmdb", false, &opts, &none, why, sizeof(why)), -ENOENT);
	assert_non_null(strstr(why, "bulkhead user add"));
	store_close(&s);
}

static void
test_make_home(void **state)
{
	char dir[64] = "/tmp/users_test.XXXXXX", home[128], cmd[160];
	struct user user = { .uid = getuid() ? getuid() : 12345,
		.gid = getgid() ? getgid() : 12345 };
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(home, sizeof(home), "%s/e.org/alice", dir);
	user.home = slice_str(home);
	assert_int_equal(users_make_home(&user), 0);
	assert_int_equal(users_make_home(&user), 0);
	assert_int_equal(stat(home, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(st.st_uid, user.uid);
	snprintf(home, sizeof(home), "%s/e.org/link", dir);
	assert_int_equal(symlink("/etc", home), 0);
	user.home = slice_str(home);
	assert_true(users_make_home(&user) < 0);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	assert_int_equal(system(cmd), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rfc7677_vector),
		cmocka_unit_test(test_damaged_verifiers),
		cmocka_unit_test(test_saslprep),
		cmocka_unit_test(test_fake_verifiers),
		cmocka_unit_test(test_crypt),
		cmocka_unit_test(test_add_and_check),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_uids_are_never_given_twice),
		cmocka_unit_test(test_change),
		cmocka_unit_test(test_holders),
		cmocka_unit_test(test_name_too_long_in_ascii),
		cmocka_unit_test(test_change_meanwhile),
		cmocka_unit_test(test_imported_hashes),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_damaged_record),
		cmocka_unit_test(test_reopened),
		cmocka_unit_test(test_make_home),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
