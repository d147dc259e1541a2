/*
 * Checks of values that are text to their row but have a syntax of their own: networks, addresses,
 * absolute paths, host names; and of pairs that exclude each other. What needs a look at the system
 * (files, owners, ports) is `bulkhead check`'s. Runs in master and in the tools.
 */
#include "conf/raw.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

typedef bool value_check(const char *value);

/* Address, [v6], or address/bits; a leading ! negates. */
static bool
network_ok(const char *value)
{
	struct slice s = slice_str(value), address;
	unsigned char bytes[16];
	char text[64];
	uint64_t bits = 0;
	ptrdiff_t close;
	bool v6;

	if (s.n && s.p[0] == '!')
		s = slice_sub(s, 1, s.n);
	if (s.n && s.p[0] == '[') {
		if ((close = slice_find(s, ']')) < 0)
			return false;
		address = slice_sub(s, 1, (size_t)close);
		s = slice_sub(s, (size_t)close + 1, s.n);
		if (s.n && s.p[0] != '/')
			return false;
		s = slice_sub(s, 1, s.n);
	} else {
		address = slice_split(&s, '/');
	}
	if (slice_copy(address, text, sizeof(text)))
		return false;
	v6 = slice_find(address, ':') >= 0;
	if (inet_pton(v6 ? AF_INET6 : AF_INET, text, bytes) != 1)
		return false;
	return !s.n || slice_u64(s, v6 ? 128 : 32, &bits) == 0;
}

static bool
mechanism_ok(const char *value)
{
	static const char *const names[] = { "PLAIN", "LOGIN", "SCRAM-SHA-256",
		"SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (slice_caseeq_str(slice_str(value), names[i]))
			return true;
	return false;
}

/* A word of a list that takes no others; words are separated by a blank. */
static bool
one_of(const char *words, const char *value)
{
	struct slice rest = slice_str(words);

	while (rest.n)
		if (slice_eq_str(slice_split(&rest, ' '), value))
			return true;
	return false;
}

static bool
lock_ok(const char *value)
{
	return one_of("fcntl dotlock", value);
}

static bool
way_ok(const char *value)
{
	return one_of("alias forward include", value);
}

static bool
rewriting_ok(const char *value)
{
	return one_of("canonical virtual", value);
}

static bool
notice_ok(const char *value)
{
	return one_of("bounce 2bounce delay policy protocol resource software", value);
}

static bool
address_ok(const char *value)
{
	return !strchr(value, '/') && value[0] != '!' && network_ok(value);
}

/* 127.0.0.1, [::1], 127.0.0.1:53, [::1]:53 */
static bool
endpoint_ok(const char *value)
{
	struct slice s = slice_str(value), host, port = SLICE_NULL;
	ptrdiff_t colon = slice_rfind(s, ':'), close = slice_rfind(s, ']');
	char text[64];
	uint64_t n;

	host = s;
	if (colon > 0 && (close >= 0 ? colon == close + 1 : slice_find(s, ':') == colon)) {
		host = slice_sub(s, 0, (size_t)colon);
		port = slice_sub(s, (size_t)colon + 1, s.n);
		if (slice_u64(port, 65535, &n) || !n)
			return false;
	}
	return !slice_copy(host, text, sizeof(text)) && address_ok(text);
}

static bool
interface_ok(const char *value)
{
	return !strcmp(value, "all") || !strcmp(value, "loopback-only") || address_ok(value);
}

static bool
path_ok(const char *value)
{
	return value[0] == '/';
}

static bool
host_ok(const char *value)
{
	size_t label = 0;
	const char *s;

	for (s = value; *s; s++) {
		if (*s == '.') {
			if (!label)
				return false;
			label = 0;
		} else if (!ascii_is_alnum((unsigned char)*s) && *s != '-' && *s != '_' &&
			   (unsigned char)*s < 128) {
			return false;
		} else if (++label > 63) {
			return false;
		}
	}
	return s != value && label && s - value <= 253;
}

/* Domains are compared as A-labels. */
static bool
ascii_ok(const char *value)
{
	for (; *value; value++)
		if ((unsigned char)*value > 127)
			return false;
	return true;
}

/* A domain, or a table that names domains: one of which maps opens the file. */
static bool
member_ok(const char *value)
{
	struct slice word = slice_str(value);

	if (word.n && word.p[0] == '!')
		word = slice_sub(word, 1, word.n);
	if (!word.n || word.p[0] == '/')
		return false;
	return slice_find(word, ':') < 0 || word.p[0] == '[' ||
	       (value_is_table(word) && !slice_has_prefix(word, "unix:") &&
		   !slice_has_prefix(word, "proxy:"));
}

static bool
nexthop_ok(const char *value)
{
	return conf_nexthop_ok(slice_str(value));
}

static bool
port_ok(const char *value)
{
	uint64_t port;

	return !slice_u64(slice_str(value), 65535, &port) && port;
}

static bool
dns_host_ok(const char *value)
{
	struct slice address = slice_str(value), name = slice_split(&address, '=');
	char text[256];

	if (slice_copy(name, text, sizeof(text)) || !host_ok(text))
		return false;
	return !slice_copy(address, text, sizeof(text)) && address_ok(text);
}

/* smtp-client opens no path: a next hop is never a unix socket. */
static bool
transport_ok(const char *value)
{
	struct slice rest = slice_str(value), name = slice_split(&rest, ':');

	if (conf_nexthop_is_path(rest) || !conf_transport_known(name))
		return false;
	if (slice_has_prefix(rest, "inet:"))
		rest = slice_sub(rest, 5, rest.n);
	return !rest.n || conf_nexthop_ok(rest) || slice_eq_str(name, "error") ||
	       slice_eq_str(name, "retry") || slice_eq_str(name, "discard") ||
	       slice_eq_str(name, "hold");
}

#define TRANSPORT                                                                                  \
	"local, smtp:NEXTHOP, lmtp:inet:HOST:PORT (a unix socket is out of reach), relay, error, " \
	"retry, discard or hold"

#define NEXTHOP "a domain, [host] or [address], each with :port where it is not the usual one"
#define MEMBER                                                                                     \
	"a domain, or a table of domains as texthash:/FILE (a list is a table with a value "       \
	"behind each domain)"
#define A_LABELS "written in ASCII, as xn--bcher-kva.example (idn2 prints it)"

static const struct {
	const char *name;
	value_check *ok;
	bool empty_ok;
	const char *wanted;
} checks[] = {
	{ "myhostname", host_ok, false, "a host name: letters, digits, - and dots" },
	{ "mydomain", host_ok, false, "a domain: letters, digits, - and dots" },
	{ "myorigin", host_ok, false, "a domain, or the path of a file with one" },
	{ "smtp_helo_name", host_ok, false, "a host name" },
	{ "mynetworks", network_ok, true, "a network as 192.0.2.0/24 or [2001:db8::]/32" },
	{ "smtpd_client_event_limit_exceptions", network_ok, true,
	    "a network as 192.0.2.0/24 or [2001:db8::]/32" },
	{ "inet_interfaces", interface_ok, false, "all, loopback-only or an address" },
	{ "smtp_bind_address", address_ok, true, "an address" },
	{ "smtp_bind_address6", address_ok, true, "an address" },
	{ "dns_resolvers", endpoint_ok, true, "an address, or an address and a port" },
	{ "metrics_listen", endpoint_ok, true, "an address and a port, as 127.0.0.1:9100" },
	{ "config_directory", path_ok, false, "a path that begins with /" },
	{ "daemon_directory", path_ok, false, "a path that begins with /" },
	{ "queue_directory", path_ok, false, "a path that begins with /" },
	{ "data_directory", path_ok, false, "a path that begins with /" },
	{ "run_directory", path_ok, false, "a path that begins with /" },
	{ "log_file", path_ok, false, "a path that begins with /" },
	{ "mail_spool_directory", path_ok, true, "a path that begins with /" },
	{ "virtual_mailbox_base", path_ok, true, "a path that begins with /" },
	{ "smtpd_tls_cert_file", path_ok, true, "a path that begins with /" },
	{ "smtpd_tls_key_file", path_ok, true, "a path that begins with /" },
	{ "smtpd_tls_chain_files", path_ok, true, "a path that begins with /" },
	{ "smtp_tls_CAfile", path_ok, true, "a path that begins with /" },
	{ "auth_user_store", path_ok, true, "a path that begins with /" },
	{ "smtpd_tls_CAfile", path_ok, true, "a path that begins with /" },
	{ "default_transport", transport_ok, false, TRANSPORT },
	{ "relay_transport", transport_ok, false, TRANSPORT },
	{ "local_transport", transport_ok, false, TRANSPORT },
	{ "virtual_transport", transport_ok, false, TRANSPORT },
	{ "mailbox_transport", transport_ok, true, TRANSPORT },
	{ "mydestination", ascii_ok, true, A_LABELS },
	{ "virtual_mailbox_domains", ascii_ok, true, A_LABELS },
	{ "virtual_alias_domains", ascii_ok, true, A_LABELS },
	{ "relay_domains", ascii_ok, true, A_LABELS },
	{ "mydestination", member_ok, true, MEMBER },
	{ "virtual_mailbox_domains", member_ok, true, MEMBER },
	{ "virtual_alias_domains", member_ok, true, MEMBER },
	{ "relay_domains", member_ok, true, MEMBER },
	{ "relayhost", nexthop_ok, true, NEXTHOP },
	{ "fallback_relay", nexthop_ok, true, NEXTHOP },
	{ "smtp_client_ports", port_ok, true, "the number of a port" },
	{ "dns_hosts", dns_host_ok, true, "name=address" },
	{ "masquerade_domains", ascii_ok, true, A_LABELS },
	{ "mailbox_delivery_lock", lock_ok, false, "fcntl or dotlock" },
	{ "allow_mail_to_commands", way_ok, true, "alias, forward or include" },
	{ "allow_mail_to_files", way_ok, true, "alias, forward or include" },
	{ "propagate_unmatched_extensions", rewriting_ok, true, "canonical or virtual" },
	{ "notify_classes", notice_ok, true,
	    "bounce, 2bounce or delay (or policy, protocol, resource, software: see the log)" },
	{ "auth_mechanisms", mechanism_ok, false,
	    "PLAIN, LOGIN, SCRAM-SHA-256, SCRAM-SHA-1, or one of these two with -PLUS" },
};

/* Where a parameter was set; the default's place is main.cf itself. */
static void
place(const struct raw_lookup *l, const char *name, const char **file_r, unsigned *line_r)
{
	(void)raw_text(l, slice_str(name), file_r, line_r);
}

static void
check_one(const struct raw_lookup *l, size_t check, const char *value, struct conf_problems *p)
{
	const char *file;
	unsigned line;

	if ((!value[0] && checks[check].empty_ok) || checks[check].ok(value))
		return;
	place(l, checks[check].name, &file, &line);
	if (!file && strcmp(checks[check].name, "myhostname"))
		return; /* the default follows another parameter, which is reported */
	conf_problem(p, file, line, NULL, "%s = %.80s: '%.80s' is not %s", checks[check].name,
	    value, value, checks[check].wanted);
}

static void
check_listed(const struct conf *conf, const struct raw_lookup *l, struct conf_problems *p)
{
	const struct conf_param *param;
	const struct conf_list *list;
	const void *m;
	size_t i, j;

	for (i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		param = conf_param_find(checks[i].name);
		if (!param)
			continue; /* a test holds that there is none */
		m = (const char *)conf + param->offset;
		list = m;
		if (param->type == CONF_STRING)
			check_one(l, i, *(const char *const *)m, p);
		for (j = 0; param->type == CONF_LIST && j < list->n; j++)
			check_one(l, i, list->v[j], p);
	}
}

/* A number that must not be above another one. */
static const struct {
	const char *low, *high;
} ordered[] = {
	{ "minimal_backoff_time", "maximal_backoff_time" },
	{ "smtpd_soft_error_limit", "smtpd_hard_error_limit" },
	{ "first_valid_uid", "last_valid_uid" },
	{ "initial_destination_concurrency", "default_destination_concurrency_limit" },
};

static void
check_ordered(const struct conf *conf, const struct raw_lookup *l, struct conf_problems *p)
{
	const struct conf_param *low, *high;
	const char *file;
	unsigned line;
	size_t i;

	for (i = 0; i < sizeof(ordered) / sizeof(ordered[0]); i++) {
		struct buf a = { 0 }, b = { 0 };

		low = conf_param_find(ordered[i].low);
		high = conf_param_find(ordered[i].high);
		if (!low || !high ||
		    *(const int64_t *)((const char *)conf + low->offset) <=
			*(const int64_t *)((const char *)conf + high->offset))
			continue;
		place(l, low->name, &file, &line);
		if (!file)
			place(l, high->name, &file, &line);
		conf_value_text(conf, low, &a);
		conf_value_text(conf, high, &b);
		conf_problem(p, file, line, "change one of the two", "%s = %.*s is above %s = %.*s",
		    low->name, SLICE_ARG(buf_slice(&a)), high->name, SLICE_ARG(buf_slice(&b)));
		buf_free(&a);
		buf_free(&b);
	}
}

/* A domain has one owner. */
static void
check_domains(const struct conf *conf, const struct raw_lookup *l, struct conf_problems *p)
{
	const struct {
		const char *name;
		const struct conf_list *list;
	} classes[] = {
		{ "mydestination", &conf->mydestination },
		{ "virtual_mailbox_domains", &conf->virtual_mailbox_domains },
		{ "virtual_alias_domains", &conf->virtual_alias_domains },
		{ "relay_domains", &conf->relay_domains },
	};
	const char *file;
	unsigned line;
	size_t i, j, k;

	for (i = 0; i < 4; i++)
		for (j = i + 1; j < 4; j++)
			for (k = 0; k < classes[j].list->n; k++) {
				if (!conf_list_has_domain(
					classes[i].list, slice_str(classes[j].list->v[k])))
					continue;
				place(l, classes[j].name, &file, &line);
				conf_problem(p, file, line, "remove it from one of the two",
				    "%s is listed in both %s and %s", classes[j].list->v[k],
				    classes[i].name, classes[j].name);
			}
}

void
conf_check_values(const struct conf *conf, const struct raw_lookup *l, struct conf_problems *p)
{
	const char *file;
	unsigned line;

	check_listed(conf, l, p);
	check_ordered(conf, l, p);
	check_domains(conf, l, p);
	place(l, "dns_resolvers", &file, &line);
	if (conf->dns_resolvers.n > CONF_RESOLVERS_MAX)
		conf_problem(p, file, line, "remove some", "dns_resolvers: %zu are more than %u",
		    conf->dns_resolvers.n, CONF_RESOLVERS_MAX);
	place(l, "auth_external", &file, &line);
	if (conf->auth_external && !conf->smtpd_tls_CAfile[0])
		conf_problem(p, file, line, "set smtpd_tls_CAfile",
		    "auth_external = yes: no authority is named that client certificates could "
		    "be checked against");
	place(l, "smtp_tls_security_level", &file, &line);
	if (conf->smtp_tls_security_level == CONF_TLS_LEVEL_DANE ||
	    conf->smtp_tls_security_level == CONF_TLS_LEVEL_DANE_ONLY ||
	    conf->smtp_tls_security_level == CONF_TLS_LEVEL_FINGERPRINT)
		conf_problem(p, file, line, "use may, encrypt, verify or secure",
		    "smtp_tls_security_level: DANE and fingerprints are not supported yet");
}
