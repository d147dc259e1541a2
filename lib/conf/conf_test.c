/* Unit tests of main.cf: lines, expansion, every type at its limits and one past, names. */
#include "conf/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

struct fixture {
	struct conf_raw *raw;
	struct conf *conf;
	struct conf_problems p;
	struct buf text; /* of all problems, a line each */
};

static void
load(struct fixture *f, const char *text)
{
	*f = (struct fixture){ 0 };
	f->raw = conf_raw_new("mx.example.org");
	conf_raw_read_files(f->raw, false);
	conf_raw_parse(f->raw, "main.cf", slice_str(text), &f->p);
	conf_raw_check_names(f->raw, &f->p);
	f->conf = conf_eval(f->raw, NULL, 0, &f->p);
	for (size_t i = 0; i < f->p.n; i++) {
		conf_problem_format(&f->p.v[i], &f->text);
		(void)buf_add_byte(&f->text, '\n');
	}
	(void)buf_add_byte(&f->text, '\0');
}

static const char *
problems(struct fixture *f)
{
	return (const char *)buf_slice(&f->text).p;
}

static void
unload(struct fixture *f)
{
	conf_free(&f->conf);
	conf_raw_free(&f->raw);
	conf_problems_free(&f->p);
	buf_free(&f->text);
}

static void
test_defaults_are_valid(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, "");
	assert_string_equal(problems(&f), "");
	assert_string_equal(f.conf->myhostname, "mx.example.org");
	assert_string_equal(f.conf->mydomain, "example.org");
	assert_string_equal(f.conf->myorigin, "mx.example.org");
	assert_int_equal(f.conf->mydestination.n, 3);
	assert_string_equal(f.conf->mydestination.v[1], "localhost.example.org");
	assert_int_equal(f.conf->message_size_limit, 50 << 20);
	assert_int_equal(f.conf->direct_delivery_deadline, 200);
	assert_int_equal(f.conf->maximal_queue_lifetime, 5 * 86400 * 1000);
	assert_int_equal(f.conf->small_message_limit, 16384);
	assert_true(f.conf->append_at_myorigin);
	assert_int_equal(f.conf->smtp_tls_security_level, CONF_TLS_LEVEL_MAY);
	assert_string_equal(f.conf->local_recipient_maps.v[0].type, "unix");
	assert_string_equal(f.conf->local_recipient_maps.v[0].name, "passwd.byname");
	assert_string_equal(f.conf->local_recipient_maps.v[1].name, "/etc/aliases");
	unload(&f);
}

static void
test_every_default_by_itself(void **state)
{
	struct fixture f;
	struct buf value = { 0 };

	(void)state;
	load(&f, "");
	for (size_t i = 0; i < CONF_PARAM_COUNT; i++) {
		assert_ptr_equal(conf_param_find(conf_params[i].name), &conf_params[i]);
		if (conf_params[i].type == CONF_RAW)
			continue;
		buf_clear(&value);
		assert_int_equal(conf_raw_value(f.raw, conf_params[i].name, &value), 0);
	}
	buf_free(&value);
	unload(&f);
}

/* --- expansion: "name = value" lines, then the value of x that results --- */

static const struct {
	const char *text, *result; /* result NULL: an error */
	const char *why;
} expansions[] = {
	{ "x = plain text", "plain text", NULL },
	{ "x =", "", NULL },
	{ "x=a=b", "a=b", NULL },
	{ "x   =   a   ", "a", NULL },
	{ "a = 1\nx = $a$a", "11", NULL },
	{ "a = 1\nx = ${a}b", "1b", NULL },
	{ "a = 1\nx = $(a)b", "1b", NULL },
	{ "a = 1\nx = $a.b", "1.b", NULL },
	{ "a = 1\nx = $$a", "$a", NULL },
	{ "a = 1\nx = ${a?yes}", "yes", NULL },
	{ "a =\nx = ${a?yes}", "", NULL },
	{ "x = ${a?yes}", "", NULL },
	{ "a = 1\nx = ${a:no}", "", NULL },
	{ "x = ${a:no}", "no", NULL },
	{ "a = 1\nx = ${a?yes:no}", "yes", NULL },
	{ "a =\nx = ${a?yes:no}", "no", NULL },
	{ "a = 1\nx = ${a?{yes}:{no}}", "yes", NULL },
	{ "x = ${a?{yes}:{no}}", "no", NULL },
	{ "x = ${a ? {yes} : {no}}", "no", NULL },
	{ "x = ${a:{n o}}", "n o", NULL },
	{ "a = 1\nb = 2\nx = ${a?{$b}:{$c}}", "2", NULL },
	{ "b = 2\nx = ${a?{$c}:{${b}${b}}}", "22", NULL },
	{ "b = 2\nx = ${a?yes:${b}}", "2", NULL },
	{ "x = ${{1} == {1}?{y}:{n}}", "y", NULL },
	{ "x = ${{1} != {1}?{y}:{n}}", "n", NULL },
	{ "x = ${{9} < {10}?{y}:{n}}", "y", NULL },
	{ "x = ${{9} <= {9}?{y}:{n}}", "y", NULL },
	{ "x = ${{b} > {a}?{y}:{n}}", "y", NULL },
	{ "x = ${{9} >= {10}?{y}:{n}}", "n", NULL },
	{ "a = 1\nx = ${{$a} == {1} ? {y}}", "y", NULL },
	{ "x = one\n  two\n\tthree", "one two three", NULL },
	{ "x = one\n# comment\n\n   # another\n  two", "one two", NULL },
	{ "x = one # not a comment", "one # not a comment", NULL },
	{ "x = one\r\n  two\r\n", "one two", NULL },
	{ "x = 1\nx = 2", "2", NULL },
	{ "a = $b\nb = $c\nc = 3\nx = $a", "3", NULL },
	{ "x = $myhostname", "mx.example.org", NULL },
	{ "x = $mydomain", "example.org", NULL },
	{ "myhostname = a.b.c\nx = $mydomain", "b.c", NULL },
	{ "myhostname = a\nx = $mydomain", "localdomain", NULL },
	{ "mydomain = d.e\nx = $myhostname", "mx.example.org", NULL },
	{ "myhostname = host.$mydomain\nx = $myhostname", "host.example.org", NULL },
	{ "x = $x", NULL, "$x refers to itself: name another one" },
	{ "a = $b\nb = $a\nx = $a", NULL, "$a refers to itself: name another one" },
	{ "x = $", NULL, "expected a name behind $, before ''" },
	{ "x = a $- b", NULL, "expected a name behind $, before '- b'" },
	{ "x = ${a", NULL, "missing } behind '${a'" },
	{ "x = ${}", NULL, "expected a name before ''" },
	{ "x = ${a!b}", NULL, "expected ? or : before '!b'" },
	{ "x = ${a?{b}c}", NULL, "expected : before 'c'" },
	{ "x = ${a?{b}:{c}d}", NULL, "unexpected 'd'" },
	{ "x = ${{a} = {b}?{c}}", NULL, "expected == != < <= >= or > before '= {b}?{c}'" },
	{ "x = ${{a} == b?{c}}", NULL, "expected { before 'b?{c}'" },
	{ "x = ${{a} == {b}}", NULL, "expected ? behind the comparison" },
	{ "x = $nothing", NULL, "$nothing is not defined: set it, or write $$ for a dollar sign" },
	{ "a = $nothing\nx = $a", NULL,
	    "$nothing is not defined: set it, or write $$ for a dollar sign" },
};

static void
test_expansion(void **state)
{
	char why[CONF_WHY];

	(void)state;
	for (size_t i = 0; i < sizeof(expansions) / sizeof(expansions[0]); i++) {
		struct buf out = { 0 };
		struct fixture f;
		int err;

		load(&f, expansions[i].text);
		err = conf_raw_expand(f.raw, SLICE_LIT("$x"), &out, why);
		(void)buf_add_byte(&out, '\0');
		if (expansions[i].result) {
			assert_int_equal(err, 0);
			assert_string_equal(buf_slice(&out).p, expansions[i].result);
		} else {
			assert_int_not_equal(err, 0);
			assert_string_equal(why, expansions[i].why);
		}
		buf_free(&out);
		unload(&f);
	}
}

/* A small file that would expand to 2^40 bytes, and one to as many empty steps. */
static void
test_expansion_is_bounded(void **state)
{
	const char *leaf[] = { "0123456789abcdef", "" };

	(void)state;
	for (size_t k = 0; k < 2; k++) {
		struct buf text = { 0 };
		struct fixture f;

		for (int i = 0; i < 40; i++)
			(void)buf_addf(&text, "a%d = $a%d$a%d\n", i, i + 1, i + 1);
		(void)buf_addf(&text, "a40 = %s\nsmtpd_banner = $a0\n", leaf[k]);
		(void)buf_add_byte(&text, '\0');
		load(&f, (const char *)buf_slice(&text).p);
		assert_string_equal(problems(&f),
		    "main.cf:42: smtpd_banner = $a0: too many references: write the value out\n");
		assert_string_equal(f.conf->smtpd_banner, "mx.example.org ESMTP");
		unload(&f);
		buf_free(&text);
	}
}

static int
answer(void *ctx, struct slice name, struct buf *out)
{
	(void)ctx;
	return slice_eq_str(name, "home") ? buf_add_str(out, "/home/$u") : ERR_NOT_FOUND;
}

static void
test_expand_with_own_names(void **state)
{
	struct buf out = { 0 };
	char why[CONF_WHY];

	(void)state;
	/* what a name gives is not expanded again */
	assert_int_equal(conf_expand(SLICE_LIT("$home/.forward${extension?+${extension}}"), true,
			     answer, NULL, &out, why),
	    0);
	assert_true(slice_eq_str(buf_slice(&out), "/home/$u/.forward"));
	assert_int_equal(
	    conf_expand(SLICE_LIT("$user"), true, answer, NULL, &out, why), ERR_NOT_FOUND);
	assert_int_equal(conf_expand(SLICE_LIT("$user"), false, answer, NULL, &out, why), 0);
	buf_free(&out);
}

/* --- each type --- */

static void
test_numbers(void **state)
{
	static const struct {
		const char *text;
		int64_t value; /* of smtpd_recipient_limit, 1..65536; -1: error */
	} cases[] = {
		{ "1", 1 },
		{ "65536", 65536 },
		{ "0", -1 },
		{ "65537", -1 },
		{ "-1", -1 },
		{ "", -1 },
		{ "1k", -1 },
		{ "ten", -1 },
		{ "99999999999999999999", -1 },
		{ "007", 7 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fixture f;
		char text[100];

		snprintf(text, sizeof(text), "smtpd_recipient_limit = %s", cases[i].text);
		load(&f, text);
		assert_int_equal(f.p.errors, cases[i].value < 0);
		assert_int_equal(
		    f.conf->smtpd_recipient_limit, cases[i].value < 0 ? 1000 : cases[i].value);
		unload(&f);
	}
}

static void
test_sizes_and_times(void **state)
{
	static const struct {
		const char *name, *text;
		int64_t value;
	} cases[] = {
		{ "message_size_limit", "0", 0 },
		{ "message_size_limit", "1024", 1024 },
		{ "message_size_limit", "10K", 10240 },
		{ "message_size_limit", "10k", 10240 },
		{ "message_size_limit", "3M", 3 << 20 },
		{ "message_size_limit", "2G", 2LL << 30 },
		{ "message_size_limit", "1T", 1LL << 40 },
		{ "message_size_limit", "9999999T", -1 },
		{ "message_size_limit", "1X", -1 },
		{ "message_size_limit", "M", -1 },
		{ "small_message_limit", "48000", 48000 },
		{ "small_message_limit", "48001", -1 },
		/* the unit of the default when there is none */
		{ "maximal_queue_lifetime", "3", 3 * 86400 * 1000LL },
		{ "maximal_queue_lifetime", "3h", 3 * 3600 * 1000LL },
		{ "maximal_queue_lifetime", "100d", 100 * 86400 * 1000LL },
		{ "maximal_queue_lifetime", "101d", -1 },
		{ "delay_warning_time", "4", 4 * 3600 * 1000LL },
		{ "minimal_backoff_time", "5", 5000 },
		{ "minimal_backoff_time", "5m", 300 * 1000 },
		{ "minimal_backoff_time", "2w", -1 },
		{ "minimal_backoff_time", "500ms", -1 },
		{ "direct_delivery_deadline", "150", 150 },
		{ "direct_delivery_deadline", "0", 0 },
		{ "direct_delivery_deadline", "10s", 10000 },
		{ "direct_delivery_deadline", "11s", -1 },
		{ "direct_delivery_deadline", "1 s", -1 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct conf_param *param = conf_param_find(cases[i].name);
		struct fixture f;
		char text[100];

		snprintf(text, sizeof(text), "%s = %s", cases[i].name, cases[i].text);
		load(&f, text);
		assert_int_equal(f.p.errors, cases[i].value < 0);
		if (cases[i].value >= 0)
			assert_int_equal(
			    *(int64_t *)((char *)f.conf + param->offset), cases[i].value);
		unload(&f);
	}
}

static void
test_lists_and_tables(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, "mydestination = a,b c,, {d e} ,f\nrelay_domains =\n"
		 "alias_maps = inline:{ a=b, {c = d, e} }, proxy:hash:/x /plain\n"
		 "virtual_alias_maps = static:{x y}\n");
	assert_string_equal(problems(&f), "");
	assert_int_equal(f.conf->mydestination.n, 5);
	assert_string_equal(f.conf->mydestination.v[3], "d e");
	assert_int_equal(f.conf->relay_domains.n, 0);
	assert_int_equal(f.conf->alias_maps.n, 3);
	assert_string_equal(f.conf->alias_maps.v[0].name, "{ a=b, {c = d, e} }");
	assert_string_equal(f.conf->alias_maps.v[1].type, "hash");
	assert_string_equal(f.conf->alias_maps.v[2].type, "lmdb");
	assert_string_equal(f.conf->alias_maps.v[2].name, "/plain");
	assert_string_equal(f.conf->virtual_alias_maps.v[0].name, "{x y}");
	assert_true(conf_list_has(&f.conf->mydestination, SLICE_LIT("b")));
	assert_false(conf_list_has(&f.conf->mydestination, SLICE_LIT("B")));
	assert_true(conf_list_has_domain(&f.conf->mydestination, SLICE_LIT("B")));
	assert_false(conf_list_has_domain(&f.conf->mydestination, SLICE_LIT("bb")));
	unload(&f);
}

static void
test_bool_and_enum(void **state)
{
	struct fixture f;

	(void)state;
	load(&f, "append_at_myorigin = No\nsmtp_tls_security_level = SECURE\nmine = yes\n"
		 "luser_relay = $user@x\nsmtpd_helo_required = $mine\n");
	assert_string_equal(problems(&f), "");
	assert_false(f.conf->append_at_myorigin);
	assert_true(f.conf->smtpd_helo_required);
	assert_int_equal(f.conf->smtp_tls_security_level, CONF_TLS_LEVEL_SECURE);
	assert_string_equal(f.conf->luser_relay, "$user@x"); /* raw: left to the daemon */
	unload(&f);
}

static void
test_names(void **state)
{
	struct fixture f;

	(void)state;
	assert_string_equal(conf_nearest("mydestinaton"), "mydestination");
	assert_string_equal(conf_nearest("myhotsname"), "myhostname");
	assert_string_equal(conf_nearest("MYHOSTNAME"), "myhostname");
	assert_null(conf_nearest("zzzzzzzzzz"));
	assert_null(conf_nearest(""));
	assert_non_null(conf_foreign_find("header_checks"));
	assert_non_null(conf_foreign_find("mail_location"));
	assert_null(conf_foreign_find("myhostname"));
	/* a name of one's own counts only when another value refers to it */
	load(&f, "mine = 1\nsmtpd_banner = x ${maxproc?{$mine}}\n");
	assert_string_equal(problems(&f), "");
	unload(&f);
	load(&f, "mine = $mine\n");
	assert_string_equal(problems(&f),
	    "main.cf:1: unknown parameter mine: remove it, or refer to it by $ if it is a name of "
	    "your own\n");
	unload(&f);
}

static void
test_overrides(void **state)
{
	struct conf_override o[] = { { "smtpd_timeout", "10s", "master.cf", 3 },
		{ "smtpd_banner", "$mine", "master.cf", 3 },
		{ "smtpd_timeout", "20s", "master.cf", 4 } };
	struct fixture f;
	struct conf *conf;

	(void)state;
	load(&f, "mine = hello\nsmtpd_timeout = 1s\nx = $mine $x2\nx2 = $x\nmail_name = ${x2?1}\n");
	conf = conf_eval(f.raw, o, 3, &f.p);
	assert_int_equal(conf->smtpd_timeout, 20000);
	assert_string_equal(conf->smtpd_banner, "hello");
	assert_int_equal(f.conf->smtpd_timeout, 1000);
	conf_free(&conf);
	unload(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults_are_valid),
		cmocka_unit_test(test_every_default_by_itself),
		cmocka_unit_test(test_expansion),
		cmocka_unit_test(test_expansion_is_bounded),
		cmocka_unit_test(test_expand_with_own_names),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_sizes_and_times),
		cmocka_unit_test(test_lists_and_tables),
		cmocka_unit_test(test_bool_and_enum),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_overrides),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
