/*
 * master.cf: one service a row, in Postfix's syntax: service type private unprivileged chroot
 * wakeup maxproc command with its words, of which -o name=value and -o { name = value } are
 * overrides. Runs in master and in the tools over what an admin wrote. Invariant: a row with any
 * mistake is reported and left out; the others are still read.
 */
#include "conf/raw.h"

#include <stdio.h>
#include <stdlib.h>

#define WORD_LIMIT 500

struct row {
	struct conf_services *services;
	struct conf_raw *raw;
	struct conf_problems *p;
	const char *file;
	unsigned line;
	struct slice words[WORD_LIMIT];
	size_t n;
	size_t errors;
};

enum { F_NAME, F_TYPE, F_PRIVATE, F_UNPRIV, F_CHROOT, F_WAKEUP, F_MAXPROC, F_COMMAND };

/* Splits on white space; a word that begins with { ends with the matching }, and keeps both. */
static bool
split(struct row *row, struct slice s)
{
	size_t n, level;

	for (row->n = 0;;) {
		while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
			s = slice_sub(s, 1, s.n);
		if (!s.n)
			return true;
		if (row->n == WORD_LIMIT)
			return false;
		for (n = level = 0; n < s.n; n++) {
			if (s.p[n] == '{')
				level++;
			else if (s.p[n] == '}' && level)
				level--;
			else if (!level && (s.p[n] == ' ' || s.p[n] == '\t'))
				break;
		}
		row->words[row->n++] = slice_sub(s, 0, n);
		s = slice_sub(s, n, s.n);
	}
}

static void
row_problem(struct row *row, const char *remedy, const char *fmt, struct slice what)
{
	char text[300];

	snprintf(text, sizeof(text), fmt, (int)(what.n > 80 ? 80 : what.n),
	    what.p ? (const char *)what.p : "");
	conf_problem(row->p, row->file, row->line, remedy, "%s", text);
	row->errors++;
}

/* y, n or -, which means fallback. */
static bool
flag(struct row *row, size_t field, const char *name, bool fallback)
{
	struct slice s = row->words[field];
	char fmt[80];

	if (slice_eq_str(s, "-"))
		return fallback;
	if (!slice_eq_str(s, "y") && !slice_eq_str(s, "n")) {
		snprintf(fmt, sizeof(fmt), "%s: '%%.*s' is none of y, n and -", name);
		row_problem(row, NULL, fmt, s);
	}
	return slice_eq_str(s, "y");
}

static const char *
keep(struct row *row, struct slice s)
{
	return (const char *)arena_dup(&row->services->arena, s).p;
}

/* What messages about a service have room for. */
static void
read_name(struct row *row, struct conf_service *service)
{
	struct slice s = row->words[F_NAME];

	service->name = keep(row, s);
	if (s.n > CONF_SERVICE_NAME_LIMIT)
		row_problem(row, "shorten it, or write an address in place of the host",
		    "the service name '%.*s...' has more than 128 bytes", s);
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= ' ' || s.p[i] >= 127) {
			row_problem(row, "write it in printable ASCII",
			    "the service name '%.*s' has a byte that is none", s);
			break;
		}
}

static void
read_type(struct row *row, struct conf_service *service)
{
	struct slice s = row->words[F_TYPE];

	if (slice_eq_str(s, "inet"))
		service->type = CONF_SERVICE_INET;
	else if (slice_eq_str(s, "unix"))
		service->type = CONF_SERVICE_UNIX;
	else if (slice_eq_str(s, "pass"))
		service->type = CONF_SERVICE_PASS;
	else
		row_problem(row, NULL, "type: '%.*s' is none of inet, unix and pass", s);
}

static void
read_numbers(struct row *row, struct conf_service *service)
{
	struct slice s = row->words[F_WAKEUP];
	uint64_t v = 0;

	if (s.n && s.p[s.n - 1] == '?')
		s.n--;
	if (!slice_eq_str(s, "-") && slice_u64(s, 1000000, &v))
		row_problem(row, NULL, "wakeup: '%.*s' is not a number of seconds or -", s);
	service->wakeup = (int64_t)v * 1000;
	s = row->words[F_MAXPROC];
	service->maxproc = CONF_MAXPROC_DEFAULT;
	if (slice_eq_str(s, "-"))
		return;
	if (slice_u64(s, 100000, &v))
		row_problem(row, NULL, "maxproc: '%.*s' is not a number up to 100000 or -", s);
	else
		service->maxproc = (int)v;
}

/* name=value, or { name = value }. */
static void
read_override(struct row *row, struct conf_service *service, struct slice s)
{
	struct conf_override *o = &service->overrides[service->overrides_n];
	struct slice name;

	if (s.n > 1 && s.p[0] == '{' && s.p[s.n - 1] == '}')
		s = slice_trim(slice_sub(s, 1, s.n - 1), true);
	if (slice_find(s, '=') < 1) {
		row_problem(
		    row, "write -o name=value, or -o { name = value }", "-o '%.*s' has no =", s);
		return;
	}
	name = slice_trim(slice_split(&s, '='), true);
	o->name = keep(row, name);
	o->value = keep(row, slice_trim(s, true));
	o->file = keep(row, slice_str(row->file));
	o->line = row->line;
	service->overrides_n++;
	if (row->raw)
		conf_raw_refer(row->raw, o->value);
}

static void
read_argument(struct row *row, struct conf_service *service, struct slice s)
{
	struct buf out = { .limit = CONF_VALUE_LIMIT };
	char why[CONF_WHY];

	if (s.n > 1 && s.p[0] == '{' && s.p[s.n - 1] == '}')
		s = slice_trim(slice_sub(s, 1, s.n - 1), true);
	if (row->raw) {
		conf_raw_refer(row->raw, keep(row, s));
		if (conf_raw_expand(row->raw, s, &out, why)) {
			conf_problem(row->p, row->file, row->line, NULL, "'%.*s': %s",
			    (int)(s.n > 80 ? 80 : s.n), (const char *)s.p, why);
			row->errors++;
		} else {
			s = buf_slice(&out);
		}
	}
	service->argv[service->argc++] = keep(row, s);
	buf_free(&out);
}

static void
read_words(struct row *row, struct conf_service *service)
{
	struct arena *arena = &row->services->arena;
	bool options = true;
	size_t i;

	service->argv = arena_alloc(arena, row->n * sizeof(service->argv[0]));
	service->overrides = arena_alloc(arena, row->n * sizeof(service->overrides[0]));
	for (i = F_COMMAND + 1; i < row->n; i++) {
		struct slice s = row->words[i];

		if (options && slice_eq_str(s, "-o")) {
			if (++i == row->n)
				row_problem(
				    row, "write -o name=value", "-o has no value%.*s", SLICE_NULL);
			else
				read_override(row, service, row->words[i]);
		} else if (options && slice_has_prefix(s, "-o") && s.n > 2) {
			read_override(row, service, slice_sub(s, 2, s.n));
		} else {
			read_argument(row, service, s);
		}
	}
}

static bool
read_row(struct row *row, const struct conf_line *line, struct conf_service *service)
{
	row->line = line->line;
	row->errors = 0;
	if (slice_find(line->text, '\0') >= 0)
		row_problem(row, "remove it", "a NUL byte in the line%.*s", SLICE_NULL);
	else if (!split(row, line->text))
		row_problem(row, NULL, "the row has too many words%.*s", SLICE_NULL);
	else if (row->n <= F_COMMAND)
		row_problem(row, "write: service type private unpriv chroot wakeup maxproc command",
		    "the row '%.*s' has fewer than 8 fields", line->text);
	if (row->errors)
		return false;
	read_name(row, service);
	service->command = keep(row, row->words[F_COMMAND]);
	service->file = keep(row, slice_str(row->file));
	service->line = row->line;
	read_type(row, service);
	service->is_private = flag(row, F_PRIVATE, "private", true);
	service->unprivileged = flag(row, F_UNPRIV, "unpriv", true);
	service->chrooted = flag(row, F_CHROOT, "chroot", true);
	read_numbers(row, service);
	read_words(row, service);
	return row->errors == 0;
}

static void
check_twice(
    struct conf_services *services, const struct conf_service *service, struct conf_problems *p)
{
	const struct conf_service *other;

	for (other = services->v; other < services->v + services->n; other++)
		if (other != service && other->type == service->type &&
		    !strcmp(other->name, service->name))
			conf_problem(p, service->file, service->line, "remove one of the two",
			    "service %s stands in line %u already", service->name, other->line);
}

struct conf_services *
conf_services_parse(
    struct conf_raw *raw, const char *file, struct slice text, struct conf_problems *p)
{
	struct conf_services *services = xcalloc(1, sizeof(*services));
	struct row *row = xcalloc(1, sizeof(*row));
	struct conf_lines lines = { .in = text };
	struct conf_line line;
	bool orphan;

	row->services = services;
	row->raw = raw;
	row->p = p;
	row->file = file;
	services->v = xcalloc(CONF_SERVICE_LIMIT, sizeof(services->v[0]));
	if (text.n > CONF_FILE_LIMIT) {
		conf_problem(
		    p, file, 0, "remove rows", "the file has more than %u bytes", CONF_FILE_LIMIT);
		lines.in = SLICE_NULL;
	}
	while (conf_lines_next(&lines, &services->arena, &line, &orphan)) {
		struct conf_service *service = &services->v[services->n];

		if (services->n == CONF_SERVICE_LIMIT) {
			conf_problem(p, file, line.line, "remove rows", "more than %u services",
			    CONF_SERVICE_LIMIT);
			break;
		}
		*service = (struct conf_service){ 0 };
		if (orphan) {
			conf_problem(p, file, line.line, "remove the white space in front",
			    "the line continues nothing");
		} else if (read_row(row, &line, service)) {
			check_twice(services, service, p);
			services->n++;
		}
	}
	free(row);
	return services;
}

void
conf_services_free(struct conf_services **services)
{
	size_t i;

	if (!*services)
		return;
	for (i = 0; i < (*services)->n; i++)
		conf_free(&(*services)->v[i].conf);
	free((*services)->v);
	arena_free(&(*services)->arena);
	free(*services);
	*services = NULL;
}
