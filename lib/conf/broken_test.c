/* Unit tests of whole broken configurations, with their exact texts. */
#include "conf/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#define N20 "nnnnnnnnnnnnnnnnnnnn"
#define N80 N20 N20 N20 N20
#define N100 N80 N20

static void
all_problems(const struct conf_problems *p, struct buf *text)
{
	for (size_t i = 0; i < p->n; i++) {
		conf_problem_format(&p->v[i], text);
		(void)buf_add_byte(text, '\n');
	}
	(void)buf_add_byte(text, '\0');
}

static void
write_file(const char *dir, const char *name, const char *text)
{
	char path[200];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

#define GOOD_MASTER "smtp inet n - y - - smtpd\n"
/* Added to each master.cf: the daemons that every instance needs. */
#define REST                                                                                       \
	"auth unix n - y - 1 auth\ndns unix n - y - 1 dns\nmaps unix n - y - 1 maps\n"             \
	"nss unix n - y - 1 nss\nqmgr unix n - y - 1 qmgr\nout unix n - y - 1 smtp-client\n"       \
	"bounce unix n - y - 1 bounce\nlocal unix n - y - 1 local\nlog unix n - y - 1 log\n"

/* MAIN and MASTER stand for the two paths in the expected texts. */
static const struct {
	const char *main_cf, *master_cf, *problems;
} broken[] = {
	{ "", GOOD_MASTER, "" },
	{ "mydestinaton = a\n", GOOD_MASTER,
	    "MAIN:1: unknown parameter mydestinaton: did you mean mydestination?\n" },
	{ "\n\nfrobnicate = 1\n", GOOD_MASTER,
	    "MAIN:3: unknown parameter frobnicate: remove it, or refer to it by $ if it is a name "
	    "of your own\n" },
	{ "smtpd_recipient_restrictions = reject\n", GOOD_MASTER,
	    "MAIN:1: smtpd_recipient_restrictions of Postfix is not supported: it would refuse "
	    "recipients: remove it: access tables and restriction lists are not supported yet; "
	    "strangers may only reach known recipients, users and mynetworks may relay\n" },
	{ "mail_location = maildir:~/Maildir\n", GOOD_MASTER,
	    "MAIN:1: mail_location of Dovecot is not supported: it would say where mailboxes lie: "
	    "use home_mailbox or mail_spool_directory, and virtual_mailbox_base for virtual "
	    "users\n" },
	{ "smtpd_use_tls = yes\n", GOOD_MASTER,
	    "MAIN:1: smtpd_use_tls of Postfix is not supported: it would offer TLS: use "
	    "smtpd_tls_security_level = may, which is the default\n" },
	{ "smtpd_timeout = soon\n", GOOD_MASTER,
	    "MAIN:1: smtpd_timeout = soon: 'soon' is not a time: write a number with ms, s, m, h, "
	    "d "
	    "or w\n" },
	{ "smtpd_timeout = 0\n", GOOD_MASTER,
	    "MAIN:1: smtpd_timeout = 0: 0 is out of bounds: it must be 1s to 1d\n" },
	{ "message_size_limit = big\n", GOOD_MASTER,
	    "MAIN:1: message_size_limit = big: 'big' is not a size: write a number, or one with K, "
	    "M, G or T\n" },
	{ "smtpd_recipient_limit = many\n", GOOD_MASTER,
	    "MAIN:1: smtpd_recipient_limit = many: 'many' is not a number\n" },
	{ "smtpd_recipient_limit = 65537\n", GOOD_MASTER,
	    "MAIN:1: smtpd_recipient_limit = 65537: 65537 is out of bounds: it must be 1 to "
	    "65536\n" },
	{ "queue_minfree = -1\n", GOOD_MASTER,
	    "MAIN:1: queue_minfree = -1: '-1' is not a size: write a number, or one with K, M, G "
	    "or "
	    "T\n" },
	{ "append_at_myorigin = maybe\n", GOOD_MASTER,
	    "MAIN:1: append_at_myorigin = maybe: 'maybe' is neither yes nor no\n" },
	{ "inet_protocols = ipx\n", GOOD_MASTER,
	    "MAIN:1: inet_protocols = ipx: 'ipx' is none of all, ipv4, ipv6\n" },
	{ "smtp_tls_security_level = dane\n", GOOD_MASTER,
	    "MAIN:1: smtp_tls_security_level: DANE and fingerprints are not supported yet: use "
	    "may, "
	    "encrypt, verify or secure\n" },
	{ "mynetworks = 127.0.0.0/8 10.0.0.0/33\n", GOOD_MASTER,
	    "MAIN:1: mynetworks = 10.0.0.0/33: '10.0.0.0/33' is not a network as 192.0.2.0/24 or "
	    "[2001:db8::]/32\n" },
	{ "mynetworks = localhost\n", GOOD_MASTER,
	    "MAIN:1: mynetworks = localhost: 'localhost' is not a network as 192.0.2.0/24 or "
	    "[2001:db8::]/32\n" },
	{ "mynetworks = hash:/etc/networks\n", GOOD_MASTER,
	    "MAIN:1: mynetworks = hash:/etc/networks: 'hash:/etc/networks' is not a network as "
	    "192.0.2.0/24 or [2001:db8::]/32\n" },
	{ "inet_interfaces = eth0\n", GOOD_MASTER,
	    "MAIN:1: inet_interfaces = eth0: 'eth0' is not all, loopback-only or an address\n" },
	{ "default_transport = smpt\n", GOOD_MASTER,
	    "MAIN:1: default_transport = smpt: 'smpt' is not local, smtp:NEXTHOP, "
	    "lmtp:inet:HOST:PORT (a unix socket is out of reach), relay, error, retry, discard or "
	    "hold\n" },
	{ "virtual_transport = lmtp:unix:private/lmtp\n", GOOD_MASTER,
	    "MAIN:1: virtual_transport = lmtp:unix:private/lmtp: 'lmtp:unix:private/lmtp' is not "
	    "local, smtp:NEXTHOP, lmtp:inet:HOST:PORT (a unix socket is out of reach), relay, "
	    "error, "
	    "retry, discard or hold\n" },
	{ "mailbox_transport = lmtp:inet:127.0.0.1:24\n"
	  "default_transport = smtp-slow:[a.example]\nvirtual_transport = virtual\n",
	    GOOD_MASTER, "" },
	{ "dns_resolvers = 127.0.0.1:99999\n", GOOD_MASTER,
	    "MAIN:1: dns_resolvers = 127.0.0.1:99999: '127.0.0.1:99999' is not an address, or an "
	    "address and a port\n" },
	{ "myhostname = mx_host..example\n", GOOD_MASTER,
	    "MAIN:1: myhostname = mx_host..example: 'mx_host..example' is not a host name: "
	    "letters, "
	    "digits, - and dots\n" },
	{ "queue_directory = spool\n", GOOD_MASTER,
	    "MAIN:1: queue_directory = spool: 'spool' is not a path that begins with /\n" },
	{ "alias_maps = ldap:/etc/ldap.cf\n", GOOD_MASTER,
	    "MAIN:1: alias_maps = ldap:/etc/ldap.cf: tables of type ldap are not supported: use "
	    "lmdb, made by bulkhead map\n" },
	{ "alias_maps = has:/etc/aliases\n", GOOD_MASTER,
	    "MAIN:1: alias_maps = has:/etc/aliases: 'has:/etc/aliases' is not a table: write "
	    "type:name with one of the types lmdb hash texthash cidr regexp pcre inline static "
	    "unix\n" },
	{ "alias_maps = hash:aliases\n", GOOD_MASTER,
	    "MAIN:1: alias_maps = hash:aliases: the name of the table 'hash:aliases' is not a path "
	    "that begins with /\n" },
	{ "alias_maps = hash:\n", GOOD_MASTER,
	    "MAIN:1: alias_maps = hash:: the table 'hash:' has no name behind the colon\n" },
	{ "smtpd_banner = $nothing\n", GOOD_MASTER,
	    "MAIN:1: smtpd_banner = $nothing: $nothing is not defined: set it, or write $$ for a "
	    "dollar sign\n" },
	{ "smtpd_banner = $smtpd_banner\n", GOOD_MASTER,
	    "MAIN:1: smtpd_banner = $smtpd_banner: $smtpd_banner refers to itself: name another "
	    "one\n" },
	{ "smtpd_banner = ${a\n", GOOD_MASTER,
	    "MAIN:1: smtpd_banner = ${a: missing } behind '${a'\n" },
	{ "smtpd_banner\n", GOOD_MASTER,
	    "MAIN:1: 'smtpd_banner' has no =: write name = value, or begin the line with #\n" },
	{ "smtpd banner = a\n", GOOD_MASTER,
	    "MAIN:1: 'smtpd banner' is not a name: a name has letters, digits and _ only\n" },
	{ "  smtpd_banner = a\n", GOOD_MASTER,
	    "MAIN:1: the line continues nothing: remove the white space in front\n" },
	{ "mail_name = a\nmail_name = b\n", GOOD_MASTER,
	    "MAIN:2: warning: mail_name is set again and replaces line 1: keep one of the two "
	    "lines\n" },
	{ "minimal_backoff_time = 2h\n", GOOD_MASTER,
	    "MAIN:1: minimal_backoff_time = 2h is above maximal_backoff_time = 4000s: change one "
	    "of "
	    "the two\n" },
	{ "smtpd_hard_error_limit = 5\n", GOOD_MASTER,
	    "MAIN:1: smtpd_soft_error_limit = 10 is above smtpd_hard_error_limit = 5: change one "
	    "of "
	    "the two\n" },
	{ "mydestination = a.b\nrelay_domains = x, A.b\n", GOOD_MASTER,
	    "MAIN:2: A.b is listed in both mydestination and relay_domains: remove it from one of "
	    "the two\n" },
	{ "virtual_mailbox_domains = $mydomain\nmydestination = $mydomain\nmydomain = a.b\n",
	    GOOD_MASTER,
	    "MAIN:1: a.b is listed in both mydestination and virtual_mailbox_domains: remove it "
	    "from one of the two\n" },
	{ "relay_domains = !a.b, /etc/relays\n", GOOD_MASTER,
	    "MAIN:1: relay_domains = /etc/relays: '/etc/relays' is not "
	    "a domain, or a table of domains as texthash:/FILE (a list is a table with a value "
	    "behind each domain)\n" },
	{ "mydestination = mysql:/etc/x\n", GOOD_MASTER,
	    "MAIN:1: mydestination = mysql:/etc/x: 'mysql:/etc/x' is not "
	    "a domain, or a table of domains as texthash:/FILE (a list is a table with a value "
	    "behind each domain)\n" },
	{ "mydestination = unix:passwd.byname\n", GOOD_MASTER,
	    "MAIN:1: mydestination = unix:passwd.byname: 'unix:passwd.byname' is not "
	    "a domain, or a table of domains as texthash:/FILE (a list is a table with a value "
	    "behind each domain)\n" },
	{ "relay_domains = hash:/x !inline:{{a.b=c}} static:all .sub.test\n", GOOD_MASTER, "" },
	{ "relayhost = smtp:[smart.test]\n", GOOD_MASTER,
	    "MAIN:1: relayhost = smtp:[smart.test]: 'smtp:[smart.test]' is not "
	    "a domain, [host] or [address], each with :port where it is not the usual one\n" },
	{ "relayhost = [smart.test]:smpt\nfallback_relay = [::1]:26 a.b:submission c:0\n",
	    GOOD_MASTER,
	    "MAIN:1: relayhost = [smart.test]:smpt: '[smart.test]:smpt' is not "
	    "a domain, [host] or [address], each with :port where it is not the usual one\n"
	    "MAIN:2: fallback_relay = c:0: 'c:0' is not "
	    "a domain, [host] or [address], each with :port where it is not the usual one\n" },
	{ "relay_transport = smtp:[a b]:25\ndefault_transport = error:5.1.1 [x]\n", GOOD_MASTER,
	    "MAIN:1: relay_transport = smtp:[a b]:25: 'smtp:[a b]:25' is not local, "
	    "smtp:NEXTHOP, lmtp:inet:HOST:PORT (a unix socket is out of reach), relay, error, "
	    "retry, discard or hold\n" },
	{ "dns_hosts = a.b=127.0.0.1 c=[::1] d\nsmtp_client_ports = 25 smtp\n", GOOD_MASTER,
	    "MAIN:1: dns_hosts = d: 'd' is not name=address\n"
	    "MAIN:2: smtp_client_ports = smtp: 'smtp' is not the number of a port\n" },
	{ "dns_resolvers = ::1 ::2 ::3 ::4 ::5 ::6 ::7 ::8 ::9 ::a ::b ::c ::d ::e ::f ::10 ::11\n",
	    GOOD_MASTER, "MAIN:1: dns_resolvers: 17 are more than 16: remove some\n" },
	{ "virtual_alias_expansion_limit = 1000\n", GOOD_MASTER, "" },
	{ "virtual_alias_expansion_limit = 1001\n", GOOD_MASTER,
	    "MAIN:1: virtual_alias_expansion_limit = 1001: 1001 is out of bounds: it must be 1 to "
	    "1000\n" },
	{ "user_lookup_timeout = 10m\nalias_include_depth_limit = 100\n", GOOD_MASTER, "" },
	{ "user_lookup_timeout = 600001ms\nalias_include_depth_limit = 101\n", GOOD_MASTER,
	    "MAIN:1: user_lookup_timeout = 600001ms: 600001ms is out of bounds: it must be 1s to "
	    "10m\nMAIN:2: alias_include_depth_limit = 101: 101 is out of bounds: it must be 1 to "
	    "100\n" },
	{ "myorigin = /nowhere/mailname\n", GOOD_MASTER,
	    "MAIN:1: myorigin = /nowhere/mailname: /nowhere/mailname: No such file or "
	    "directory: create it, or write the domain\n" },
	{ "", "smtp inet n - y\n",
	    "MASTER:1: the row 'smtp inet n - y' has fewer than 8 fields: write: service type "
	    "private unpriv chroot wakeup maxproc command\n" },
	{ "", N100 "123456789012345678901234567.x:25 inet n - y - - smtpd\n",
	    "MASTER:1: the service name '" N80 "...' has more than 128 bytes: shorten it, or "
	    "write an address in place of the host\n" },
	{ "", "sm\xc3\xbctp inet n - y - - smtpd\n",
	    "MASTER:1: the service name 'sm\xc3\xbctp' has a byte that is none: write it in "
	    "printable ASCII\n" },
	{ "", "smtp tcp n - y - - smtpd\n",
	    "MASTER:1: type: 'tcp' is none of inet, unix and pass\n" },
	{ "", "smtp inet no - y - - smtpd\n", "MASTER:1: private: 'no' is none of y, n and -\n" },
	{ "", "smtp inet n - y - lots smtpd\n",
	    "MASTER:1: maxproc: 'lots' is not a number up to 100000 or -\n" },
	{ "", "smtp inet n - y 1h - smtpd\n",
	    "MASTER:1: wakeup: '1h' is not a number of seconds or -\n" },
	{ "", "smtp inet n - y - - smtpd -o smtpd_bannr=x\n",
	    "MASTER:1: unknown parameter smtpd_bannr: did you mean smtpd_banner?\n" },
	{ "", "smtp inet n - y - - smtpd -o smtpd_timeout=x\n",
	    "MASTER:1: smtpd_timeout = x: 'x' is not a time: write a number with ms, s, m, h, d or "
	    "w\n" },
	{ "", "smtp inet n - y - - smtpd -o smtpd_timeout\n",
	    "MASTER:1: -o 'smtpd_timeout' has no =: write -o name=value, or -o { name = value "
	    "}\n" },
	{ "", "smtp inet n - y - - smtpd -o\n",
	    "MASTER:1: -o has no value: write -o name=value\n" },
	{ "", "\n" GOOD_MASTER GOOD_MASTER,
	    "MASTER:3: service smtp stands in line 2 already: remove one of the two\n" },
	{ "", "smtp inet n - y - - smtpd $nothing\n",
	    "MASTER:1: '$nothing': $nothing is not defined: set it, or write $$ for a dollar "
	    "sign\n" },
	{ "", "smtp inet n - y - - sntpd\n",
	    "MASTER:1: service smtp: sntpd is not a daemon of the suite: use one of smtpd, "
	    "submission, login, qmgr, maps and the other daemons\n" },
	{ "", "qmgr2 unix n - y - - qmgr\n",
	    "MASTER:6: qmgr is started by line 1 already: remove one of the two\n" },
	{ "", "25 inet n - y - - pickup\n",
	    "MASTER:1: service 25: pickup does not listen on a port: write unix\n" },
	{ "", "imap inet n - y - - login\n",
	    "MASTER: no row starts broker: add the row: broker unix n - y - 1 broker\n"
	    "MASTER: no row starts imapd: add the row: imapd unix n - y - 1 imapd\n"
	    "MASTER: no row starts pop3d: add the row: pop3d unix n - y - 1 pop3d\n" },
	{ "a b\nmydestinaton = x\nsmtpd_timeout = x\n", "smtp inet n - y - - smtpd -o x=y\nbad\n",
	    "MAIN:1: 'a b' has no =: write name = value, or begin the line with #\n"
	    "MAIN:2: unknown parameter mydestinaton: did you mean mydestination?\n"
	    "MAIN:3: smtpd_timeout = x: 'x' is not a time: write a number with ms, s, m, h, d or "
	    "w\n"
	    "MASTER:1: unknown parameter x: remove it, or refer to it by $ if it is a name of your "
	    "own\n"
	    "MASTER:2: the row 'bad' has fewer than 8 fields: write: service type private unpriv "
	    "chroot wakeup maxproc command\n" },
};

static void
expected(const char *dir, const char *text, struct buf *out)
{
	for (; *text; text++) {
		if (!strncmp(text, "MAIN:", 5)) {
			(void)buf_addf(out, "%s/main.cf:", dir);
			text += 4;
		} else if (!strncmp(text, "MASTER:", 7)) {
			(void)buf_addf(out, "%s/master.cf:", dir);
			text += 6;
		} else {
			(void)buf_add_byte(out, (unsigned char)*text);
		}
	}
	(void)buf_add_byte(out, '\0');
}

static void
test_broken_configurations(void **state)
{
	char dir[] = "/tmp/conf_test.XXXXXX", path[200], master_cf[2000];

	(void)state;
	assert_true(sizeof(broken) / sizeof(broken[0]) > 40);
	assert_non_null(mkdtemp(dir));
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		struct conf_problems p = { 0 };
		struct buf found = { 0 }, wanted = { 0 };
		struct conf_set *set;

		write_file(dir, "main.cf", broken[i].main_cf);
		if (broken[i].master_cf[0])
			snprintf(master_cf, sizeof(master_cf), "%s%s", broken[i].master_cf, REST);
		else
			master_cf[0] = '\0';
		write_file(dir, "master.cf", master_cf);
		set = conf_set_load(dir, &p);
		all_problems(&p, &found);
		expected(dir, broken[i].problems, &wanted);
		assert_string_equal(buf_slice(&found).p, buf_slice(&wanted).p);
		assert_non_null(set->conf);
		buf_free(&found);
		buf_free(&wanted);
		conf_set_free(&set);
		conf_problems_free(&p);
	}
	for (const char **name = (const char *[]){ "main.cf", "master.cf", NULL }; *name; name++) {
		snprintf(path, sizeof(path), "%s/%s", dir, *name);
		assert_int_equal(unlink(path), 0);
	}
	rmdir(dir);
}

static void
test_missing_files(void **state)
{
	struct conf_problems p = { 0 };
	struct conf_set *set = conf_set_load("/nowhere", &p);
	struct buf text = { 0 };

	(void)state;
	all_problems(&p, &text);
	assert_true(slice_has_prefix(buf_slice(&text),
	    "/nowhere/main.cf: cannot be opened: No such file or directory: create it, or name its "
	    "folder with -c\n"
	    "/nowhere/master.cf: cannot be opened: No such file or directory: create it, or name "
	    "its folder with -c\n"
	    "/nowhere/master.cf: no row starts auth: add the row: auth unix n - y - 1 auth\n"));
	buf_free(&text);
	conf_set_free(&set);
	conf_problems_free(&p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_broken_configurations),
		cmocka_unit_test(test_missing_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
