/* Unit tests of master.cf and of snapshots. */
#include "conf/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static void
test_rows(void **state)
{
	static const char text[] = "# services\n"
				   "smtp  inet n - y - - smtpd\n"
				   "127.0.0.1:587 inet n y n 60 5 submission\n"
				   "   -o smtpd_banner=a=b -o { smtpd_timeout = 5 s }\n"
				   " # between\n"
				   "   -osmtpd_helo_required=no  {two words} -v $mine\n"
				   "public/x unix - - - 10? 0 qmgr\n";
	struct conf_raw *raw = conf_raw_new("mx.example.org");
	struct conf_problems p = { 0 };
	struct conf_services *s;

	(void)state;
	conf_raw_parse(raw, "main.cf", SLICE_LIT("mine = m\n"), &p);
	s = conf_services_parse(raw, "master.cf", slice_str(text), &p);
	conf_raw_check_names(raw, &p);
	assert_int_equal(p.n, 0);
	assert_int_equal(s->n, 3);
	assert_string_equal(s->v[0].name, "smtp");
	assert_int_equal(s->v[0].type, CONF_SERVICE_INET);
	assert_false(s->v[0].is_private);
	assert_true(s->v[0].unprivileged);
	assert_true(s->v[0].chrooted);
	assert_int_equal(s->v[0].maxproc, CONF_MAXPROC_DEFAULT);
	assert_int_equal(s->v[0].wakeup, 0);
	assert_string_equal(s->v[0].command, "smtpd");
	assert_int_equal(s->v[0].line, 2);
	assert_int_equal(s->v[1].line, 3);
	assert_int_equal(s->v[1].wakeup, 60000);
	assert_int_equal(s->v[1].maxproc, 5);
	assert_int_equal(s->v[1].overrides_n, 3);
	assert_string_equal(s->v[1].overrides[0].name, "smtpd_banner");
	assert_string_equal(s->v[1].overrides[0].value, "a=b");
	assert_string_equal(s->v[1].overrides[1].name, "smtpd_timeout");
	assert_string_equal(s->v[1].overrides[1].value, "5 s");
	assert_string_equal(s->v[1].overrides[2].value, "no");
	assert_int_equal(s->v[1].argc, 3);
	assert_string_equal(s->v[1].argv[0], "two words");
	assert_string_equal(s->v[1].argv[2], "m");
	assert_int_equal(s->v[2].type, CONF_SERVICE_UNIX);
	assert_int_equal(s->v[2].wakeup, 10000);
	assert_int_equal(s->v[2].maxproc, 0);
	conf_services_free(&s);
	conf_raw_free(&raw);
	conf_problems_free(&p);
}

static struct conf *
sample(void)
{
	struct conf_raw *raw = conf_raw_new("mx.example.org");
	struct conf_problems p = { 0 };
	struct conf *conf;

	conf_raw_parse(raw, "main.cf",
	    SLICE_LIT("queue_minfree = 7M\nrelayhost = [r]:587\nsmtp_sasl_password_maps = "
		      "hash:/etc/pw\nrelay_domains = a {b c}\n"),
	    &p);
	conf = conf_eval(raw, NULL, 0, &p);
	assert_int_equal(p.n, 0);
	conf_raw_free(&raw);
	return conf;
}

static void
test_snapshot_holds_what_the_role_gets(void **state)
{
	struct conf *conf = sample(), *copy;
	struct buf out = { 0 };
	const char *role;

	(void)state;
	assert_int_equal(conf_snapshot_encode(conf, "qmgr", &out), 0);
	assert_int_equal(conf_snapshot_decode(buf_slice(&out), &role, &copy), 0);
	assert_string_equal(role, "qmgr");
	assert_int_equal(copy->queue_minfree, 7 << 20);
	assert_string_equal(copy->relayhost, "[r]:587");
	assert_int_equal(copy->relay_domains.n, 2);
	assert_string_equal(copy->relay_domains.v[1], "b c");
	assert_int_equal(copy->smtp_sasl_password_maps.n, 0); /* auth's and maps' alone */
	assert_int_equal(copy->smtpd_timeout, 0);
	conf_free(&copy);
	buf_clear(&out);
	assert_int_equal(conf_snapshot_encode(conf, "auth", &out), 0);
	assert_int_equal(conf_snapshot_decode(buf_slice(&out), NULL, &copy), 0);
	assert_string_equal(copy->smtp_sasl_password_maps.v[0].name, "/etc/pw");
	assert_null(copy->smtpd_banner);
	conf_free(&copy);
	assert_int_equal(conf_snapshot_encode(conf, "nobody", &out), ERR_NOT_FOUND);
	buf_free(&out);
	conf_free(&conf);
}

static void
test_snapshot_truncated_or_changed(void **state)
{
	struct conf *conf = sample(), *copy;
	struct buf out = { 0 };
	struct slice s;
	unsigned char *bytes;

	(void)state;
	for (int r = 0; conf_roles[r]; r++) {
		buf_clear(&out);
		assert_int_equal(conf_snapshot_encode(conf, conf_roles[r], &out), 0);
		s = buf_slice(&out);
		for (size_t n = 0; n < s.n; n++) {
			assert_int_not_equal(
			    conf_snapshot_decode(slice_sub(s, 0, n), NULL, &copy), 0);
			assert_null(copy);
		}
		/* any byte changed: refused, or a value that is within its bounds; never a crash */
		bytes = (unsigned char *)slice_dup(s);
		for (size_t n = 0; n < s.n; n++) {
			for (unsigned v = 1; v < 256; v *= 3) {
				bytes[n] ^= (unsigned char)v;
				if (!conf_snapshot_decode(slice(bytes, s.n), NULL, &copy))
					conf_free(&copy);
				bytes[n] ^= (unsigned char)v;
			}
		}
		assert_int_equal(conf_snapshot_decode(slice(bytes, s.n), NULL, &copy), 0);
		conf_free(&copy);
		free(bytes);
		(void)buf_add_byte(&out, 0);
		assert_int_not_equal(conf_snapshot_decode(buf_slice(&out), NULL, &copy), 0);
	}
	buf_free(&out);
	conf_free(&conf);
}

/* Problems of a main.cf that is "mydestination = " and n times word. */
static size_t
errors_of_list(size_t n, const char *word)
{
	struct conf_raw *raw = conf_raw_new("mx.example.org");
	struct conf_problems p = { 0 };
	struct buf text = { 0 };
	struct conf *conf;
	size_t errors;

	(void)buf_add_str(&text, "mydestination = ");
	for (size_t i = 0; i < n; i++)
		(void)buf_add_str(&text, word);
	conf_raw_parse(raw, "main.cf", buf_slice(&text), &p);
	conf = conf_eval(raw, NULL, 0, &p);
	errors = p.errors;
	conf_free(&conf);
	conf_raw_free(&raw);
	conf_problems_free(&p);
	buf_free(&text);
	return errors;
}

static void
test_limits_of_values(void **state)
{
	(void)state;
	assert_int_equal(errors_of_list(CONF_LIST_LIMIT, "a "), 0);
	assert_int_equal(errors_of_list(CONF_LIST_LIMIT + 1, "a "), 1);
	assert_int_equal(errors_of_list(CONF_VALUE_LIMIT, "a"), 0);
	assert_int_equal(errors_of_list(CONF_VALUE_LIMIT + 1, "a"), 1);
	assert_int_equal(errors_of_list(CONF_FILE_LIMIT + 1, "a"), 1);
}

static void
test_limit_of_services(void **state)
{
	(void)state;
	for (size_t n = CONF_SERVICE_LIMIT; n <= CONF_SERVICE_LIMIT + 1; n++) {
		struct conf_problems p = { 0 };
		struct conf_services *s;
		struct buf text = { 0 };

		for (size_t i = 0; i < n; i++)
			(void)buf_addf(&text, "%zu inet n - y - - smtpd\n", i + 1);
		s = conf_services_parse(NULL, "master.cf", buf_slice(&text), &p);
		assert_int_equal(s->n, CONF_SERVICE_LIMIT);
		assert_int_equal(p.errors, n > CONF_SERVICE_LIMIT);
		conf_services_free(&s);
		conf_problems_free(&p);
		buf_free(&text);
	}
}

static void
test_limits_of_names_and_nesting(void **state)
{
	struct conf_raw *raw = conf_raw_new("mx.example.org");
	struct conf_problems p = { 0 };
	struct buf text = { 0 }, out = { 0 };
	char why[CONF_WHY];

	(void)state;
	(void)buf_addf(&text, "%0100d = 1\n%0101d = 1\n", 0, 0);
	conf_raw_parse(raw, "main.cf", buf_slice(&text), &p);
	assert_int_equal(p.errors, 1); /* the second name is too long */
	for (int depth = 49; depth <= 50; depth++) {
		buf_clear(&text);
		for (int i = 0; i < depth; i++)
			(void)buf_add_str(&text, "${x:{");
		for (int i = 0; i < depth; i++)
			(void)buf_add_str(&text, "}}");
		assert_int_equal(
		    conf_raw_expand(raw, buf_slice(&text), &out, why), depth == 50 ? ERR_LIMIT : 0);
	}
	buf_free(&text);
	buf_free(&out);
	conf_raw_free(&raw);
	conf_problems_free(&p);
}

/* A machine without services(5) knows the ports of mail all the same. */
static void
test_ports_by_name(void **state)
{
	char text[CONF_PORT_TEXT];

	(void)state;
	assert_int_equal(conf_service_port(SLICE_LIT("submissions")), 465);
	assert_int_equal(conf_service_port(SLICE_LIT("65535")), 65535);
	assert_int_equal(conf_service_port(SLICE_LIT("65536")), 0);
	assert_int_equal(conf_service_port(SLICE_LIT("gopher")), 0);
	assert_string_equal(conf_port_text("imaps", text), "993");
	assert_string_equal(conf_port_text("gopher", text), "gopher");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits_of_values),
		cmocka_unit_test(test_limit_of_services),
		cmocka_unit_test(test_limits_of_names_and_nesting),
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_snapshot_holds_what_the_role_gets),
		cmocka_unit_test(test_snapshot_truncated_or_changed),
		cmocka_unit_test(test_ports_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
