/*
 * Fuzz target: small parsers of single daemons. The first byte chooses: an entry of
 * smtp_tls_policy_maps, a next hop, a status code that a program printed, the mechanisms of a
 * server and whom a login asks to act as, what a master leaves to the next one. Checked: what is
 * taken is what may be, and comes out the same when it is written and read again.
 */
#include "fuzz/must.h"
#include "helpers/auth/mechanisms.h"
#include "local/exits.h"
#include "master/master.h"
#include "smtp-client/sender.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A level that is taken is one of the table, and never one that nothing here can keep to. */
static void
try_policy(struct slice in)
{
	struct arena a = { 0 };
	struct policy p = { .level = -1 }, again = { 0 };
	const char *wrong = policy_entry(&p, in, &a), *text;

	if (!wrong) {
		must(p.level >= CONF_TLS_LEVEL_NONE && p.level <= CONF_TLS_LEVEL_SECURE &&
		     p.level != CONF_TLS_LEVEL_DANE && p.level != CONF_TLS_LEVEL_DANE_ONLY);
		must(p.separator == ':' || (p.separator == '|' && p.match.n));
		must(slice_find(p.match, ' ') < 0);
		if (p.level == CONF_TLS_LEVEL_SECURE && p.match.n) {
			text = arena_printf(&a, "secure match=%.*s", SLICE_ARG(p.match));
			must(!policy_entry(&again, slice_str(text), &a) &&
			     slice_eq(again.match, slice_sub(slice_str(text), 13, SIZE_MAX)));
		}
	}
	arena_free(&a);
}

static void
try_nexthop(struct slice in)
{
	struct slice host;
	unsigned port = conf_nexthop_port(in, &host);

	must(port <= 65535 && host.n <= in.n && (port || host.n == in.n));
	if (port)
		must(in.p[host.n] == ':');
	(void)conf_nexthop_is_path(in);
	if (conf_nexthop_ok(in))
		must(host.n && slice_find(host, ' ') < 0 && slice_find(host, '\n') < 0 &&
		     slice_find(host, 0) < 0);
}

static void
try_printed(struct slice in)
{
	struct arena a = { 0 };
	char *text = slice_dup(in);
	const char *rest = text, *code;
	enum result_status status = RESULT_EXPANDED;

	code = exit_printed(&rest, &status, &a);
	if (code)
		must((code[0] == '4') == (status == RESULT_DEFERRED) &&
		     (code[0] == '5') == (status == RESULT_FAILED) && strlen(code) <= 11 &&
		     rest == text + strlen(code) && !strncmp(text, code, strlen(code)) &&
		     (!*rest || *rest == ' '));
	else
		must(rest == text && status == RESULT_EXPANDED);
	free(text);
	arena_free(&a);
}

static void
try_mechanisms(struct slice in)
{
	const char *names[] = { "PLAIN", "scram-sha-256" };
	const struct conf_list all = { 0 }, wanted = { .n = 2, .v = names };
	struct slice rest = in, first = slice_split(&rest, '\n'), name;
	char *usable = mechanisms_usable(&all, first), *some = mechanisms_usable(&wanted, first);
	char *who = slice_dup(rest);

	must(strlen(some) <= strlen(usable) && strlen(usable) <= first.n);
	for (rest = slice_str(some); rest.n;) {
		name = slice_split(&rest, ' ');
		must(slice_caseeq_str(name, names[0]) || slice_caseeq_str(name, names[1]));
	}
	rest = first;
	name = slice_split(&rest, 0);
	must(mechanisms_plain_acts_as_other(first, who) == (name.n && !slice_eq_str(name, who)));
	free(usable);
	free(some);
	free(who);
}

/* --- the hand-over --- */

static void
forget(struct master *m)
{
	while (!LIST_EMPTY(&m->listeners)) {
		struct listener *l = LIST_FIRST(&m->listeners);
		LIST_REMOVE(l, next);
		free(l);
	}
}

static struct buf
written(const struct master *m)
{
	struct buf text = { 0 };
	int fd = handover_write(m);

	must(fd >= 0 && lseek(fd, 0, SEEK_SET) == 0);
	while (buf_read(&text, fd, 4096) > 0)
		;
	handover_close(fd);
	return text;
}

/* The numbers may be those of descriptors of this process: no more is done to them than to close
 * them at an exec. */
static void
try_handover(struct slice in)
{
	char smtp[] = "smtp", smtpd[] = "smtpd", imaps[] = "127.0.0.1:993", imapd[] = "imapd";
	struct service services[] = { { .name = smtp, .program = smtpd },
		{ .name = imaps, .program = imapd } };
	struct master m = { .listeners = LIST_HEAD_INITIALIZER(m.listeners) };
	struct buf first, second;

	TAILQ_INIT(&m.services);
	for (size_t i = 0; i < 2; i++)
		TAILQ_INSERT_TAIL(&m.services, &services[i], next);
	handover_take_sockets(&m, in);
	handover_take_keys(&m, in);
	for (size_t i = 0; i < 2; i++)
		must(services[i].nkeys <= TICKET_KEYS);
	first = written(&m);
	forget(&m);
	handover_take_sockets(&m, buf_slice(&first));
	handover_take_keys(&m, buf_slice(&first));
	second = written(&m); /* the order of listeners turns around */
	must(buf_len(&first) == buf_len(&second));
	forget(&m);
	buf_free(&first);
	buf_free(&second);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	void (*const tries[])(
	    struct slice) = { try_policy, try_nexthop, try_printed, try_mechanisms, try_handover };

	if (size)
		tries[data[0] % 5](slice(data + 1, size - 1));
	return 0;
}
