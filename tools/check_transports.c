/*
 * Part of `bulkhead check`: what transport_maps lead to. Each right-hand side must name a transport
 * that there is, a next hop that smtp-client can reach, and a port that its jail lets through. Text
 * is told by its line.
 */
#include "db/db.h"
#include "db/lines.h"
#include "tools/check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PORTS_MAX 256
#define TEXT_MAX (256u << 20) /* as maps reads it */

struct transports {
	struct tool *t;
	const char *spec; /* of the table */
	const char *file; /* of its text, or NULL */
	unsigned line;
	uint16_t ports[PORTS_MAX];
	size_t nports;
};

static void
say(const struct transports *x, bool warning, const char *remedy, const char *text)
{
	if (x->file)
		(warning ? conf_warning : conf_problem)(
		    &x->t->problems, x->file, x->line, remedy, "%s", text);
	else
		check_at(x->t, warning, "transport_maps", remedy, "%s: %s", x->spec, text);
}

static void
check_port(const struct transports *x, struct slice nexthop)
{
	struct slice host;
	unsigned port = conf_nexthop_port(nexthop, &host);
	char text[200], remedy[200];

	for (size_t i = 0; i < x->nports; i++)
		if (x->ports[i] == port)
			return;
	if (!port)
		return;
	snprintf(text, sizeof(text),
	    "the jail of smtp-client lets no connection to port %u through", port);
	snprintf(remedy, sizeof(remedy), "add %u to smtp_client_ports and restart", port);
	say(x, true, remedy, text); /* only a kernel of 6.7 or later restricts ports */
}

static int
check_value(struct transports *x, struct slice value)
{
	struct slice rest = slice_trim(value, true), name = slice_split(&rest, ':');
	char text[300];

	if (name.n && !conf_transport_known(name)) {
		snprintf(text, sizeof(text), "there is no transport '%.*s'", SLICE_ARG(name));
		say(x, false,
		    "use local, virtual, smtp, relay, lmtp, error, retry, discard, hold, or a name "
		    "that begins with smtp- or lmtp-",
		    text);
		return 0;
	}
	if (slice_eq_str(name, "error") || slice_eq_str(name, "retry") ||
	    slice_eq_str(name, "discard") || slice_eq_str(name, "hold"))
		return 0;
	if (conf_nexthop_is_path(rest)) {
		snprintf(text, sizeof(text), "'%.*s' is out of reach: smtp-client opens no path",
		    SLICE_ARG(rest));
		say(x, false, "let that server listen on a port of 127.0.0.1", text);
		return 0;
	}
	if (slice_has_prefix(rest, "inet:"))
		rest = slice_sub(rest, 5, rest.n);
	check_port(x, rest);
	return 0;
}

static int
check_entry(void *ctx, struct slice key, struct slice value)
{
	(void)key;
	return check_value(ctx, value);
}

/* Past "/pattern/flags" of a regexp or pcre table; false: a line without a value. */
static bool
skip_pattern(struct slice *line)
{
	struct slice s = *line;
	size_t i = 1;

	if (s.n && s.p[0] == '!')
		s = slice_trim(slice_sub(s, 1, s.n), true);
	if (slice_has_prefix(s, "if ") || slice_has_prefix(s, "if/") ||
	    slice_has_prefix(s, "endif"))
		return false;
	while (i < s.n && s.p[i] != s.p[0])
		i += s.p[i] == '\\' ? 2 : 1;
	while (i < s.n && s.p[i] != ' ' && s.p[i] != '\t')
		i++;
	*line = i < s.n ? slice_sub(s, i, s.n) : SLICE_NULL;
	return line->n > 0;
}

static void
check_text(struct transports *x, bool pattern)
{
	int fd = open(x->file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct buf text = { 0 };
	struct slice line, key;
	struct lines lines;

	while (fd >= 0 && buf_len(&text) < TEXT_MAX && buf_read(&text, fd, 1 << 16) > 0)
		continue;
	if (fd >= 0)
		close(fd);
	lines_init(&lines, buf_slice(&text));
	while (lines_next(&lines, &line)) {
		x->line = lines.line;
		if (pattern ? skip_pattern(&line) : !lines_key(&line, false, &key))
			check_value(x, line);
	}
	lines_free(&lines);
	buf_free(&text);
}

static void
check_one(struct transports *x, const struct conf_table *table)
{
	struct buf why = { 0 };
	struct db *db = NULL;

	if (!strcmp(table->type, "lmdb") || table->name[0] != '/') {
		/* what cannot be opened is told with all tables */
		if (!db_open(slice_str(x->spec), 0, &db, &why))
			(void)!db_each(db, check_entry, x);
		db_free(&db);
	} else {
		x->file = table->name;
		check_text(x, !strcmp(table->type, "regexp") || !strcmp(table->type, "pcre"));
	}
	buf_free(&why);
}

void
check_transports(struct tool *t)
{
	const struct conf *conf = t->set->conf;
	struct transports x = { .t = t };

	x.nports = conf_client_ports(conf, x.ports, PORTS_MAX);
	for (size_t i = 0; i < conf->transport_maps.n; i++) {
		char *spec = xasprintf(
		    "%s:%s", conf->transport_maps.v[i].type, conf->transport_maps.v[i].name);

		x.spec = spec;
		x.file = NULL;
		check_one(&x, &conf->transport_maps.v[i]);
		free(spec);
	}
}
