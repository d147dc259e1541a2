/*
 * main.cf as text: names with unexpanded values and the place of each, and the look-up of a name
 * in the order -o override, main.cf, default, system. Runs in master and in the tools; its input
 * is what an admin wrote, and a fuzzer. Invariant: a value is never expanded while it is being
 * expanded already.
 */
#include "conf/raw.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#define LOOKUP_LIMIT 20000

struct conf_raw *
conf_raw_new(const char *host)
{
	struct conf_raw *raw = xcalloc(1, sizeof(*raw));
	struct utsname name;

	raw->read_files = true;
	if (!host)
		host = uname(&name) == 0 && name.nodename[0] ? name.nodename : "localhost";
	raw->host = arena_strdup(&raw->arena, host);
	return raw;
}

void
conf_raw_free(struct conf_raw **raw)
{
	if (!*raw)
		return;
	hash_free(&(*raw)->hash);
	arena_free(&(*raw)->arena);
	free((*raw)->v);
	free(*raw);
	*raw = NULL;
}

void
conf_raw_read_files(struct conf_raw *raw, bool yes)
{
	raw->read_files = yes;
}

void
conf_raw_default(struct conf_raw *raw, const char *name, const char *value)
{
	struct raw_default *d = arena_alloc(&raw->arena, sizeof(*d));

	d->name = arena_strdup(&raw->arena, name);
	d->value = arena_strdup(&raw->arena, value);
	d->next = raw->defaults;
	raw->defaults = d;
}

static struct raw_entry *
find(const struct conf_raw *raw, struct slice name)
{
	struct hash_node *node = raw->n ? hash_find(&raw->hash, name) : NULL;

	return node ? HASH_ELEMENT(node, struct raw_entry, node) : NULL;
}

const struct conf_entry *
conf_raw_find(const struct conf_raw *raw, const char *name)
{
	struct raw_entry *e = find(raw, slice_str(name));

	return e ? &e->entry : NULL;
}

const struct conf_entry *
conf_raw_entry(const struct conf_raw *raw, size_t i)
{
	return i < raw->n ? &raw->v[i]->entry : NULL;
}

static void
entry_set(struct conf_raw *raw, const char *file, unsigned line, struct slice name,
    struct slice value, struct conf_problems *p)
{
	struct raw_entry *e = find(raw, name);

	if (e) {
		conf_warning(p, file, line, "keep one of the two lines",
		    "%s is set again and replaces line %u", e->entry.name, e->entry.line);
	} else {
		if (raw->n == raw->size) {
			raw->size = raw->size ? raw->size * 2 : 64;
			raw->v = xrealloc(raw->v, raw->size * sizeof(raw->v[0]));
		}
		e = arena_alloc(&raw->arena, sizeof(*e));
		e->index = raw->n;
		e->entry.name = (const char *)arena_dup(&raw->arena, name).p;
		raw->v[raw->n++] = e;
		hash_insert(&raw->hash, &e->node, slice_str(e->entry.name));
	}
	e->entry.value = (const char *)arena_dup(&raw->arena, value).p;
	e->entry.file = arena_strdup(&raw->arena, file);
	e->entry.line = line;
}

static bool
is_name(struct slice s)
{
	size_t i;

	for (i = 0; i < s.n; i++)
		if (!ascii_is_alnum(s.p[i]) && s.p[i] != '_' && s.p[i] != '-' && s.p[i] != '.')
			return false;
	return s.n > 0 && s.n <= 100;
}

static void
parse_line(
    struct conf_raw *raw, const char *file, const struct conf_line *line, struct conf_problems *p)
{
	struct slice value = line->text, name;
	ptrdiff_t equals = slice_find(value, '=');

	if (slice_find(value, '\0') >= 0) {
		conf_problem(p, file, line->line, "remove it", "a NUL byte in the line");
		return;
	}
	if (equals < 0) {
		conf_problem(p, file, line->line, "write name = value, or begin the line with #",
		    "'%.*s' has no =", (int)(value.n > 60 ? 60 : value.n), value.p);
		return;
	}
	name = slice_trim(slice_split(&value, '='), true);
	value = slice_trim(value, true);
	if (!is_name(name)) {
		conf_problem(p, file, line->line, "a name has letters, digits and _ only",
		    "'%.*s' is not a name", (int)(name.n > 60 ? 60 : name.n),
		    name.p ? (const char *)name.p : "");
		return;
	}
	if (value.n > CONF_VALUE_LIMIT) {
		conf_problem(p, file, line->line, "put it into a table",
		    "the value of %.*s has more than %u bytes", SLICE_ARG(name), CONF_VALUE_LIMIT);
		return;
	}
	entry_set(raw, file, line->line, name, value, p);
}

void
conf_raw_parse(struct conf_raw *raw, const char *file, struct slice text, struct conf_problems *p)
{
	struct conf_lines lines = { .in = text };
	struct conf_line line;
	struct arena scratch = { 0 };
	size_t i, before = raw->n;
	bool orphan;

	if (text.n > CONF_FILE_LIMIT) {
		conf_problem(p, file, 0, "put long lists into tables",
		    "the file has more than %u bytes", CONF_FILE_LIMIT);
		return;
	}
	while (conf_lines_next(&lines, &scratch, &line, &orphan)) {
		if (orphan)
			conf_problem(p, file, line.line, "remove the white space in front",
			    "the line continues nothing");
		else
			parse_line(raw, file, &line, p);
		arena_reset(&scratch);
	}
	arena_free(&scratch);
	for (i = before; i < raw->n; i++)
		conf_raw_refer(raw, raw->v[i]->entry.value);
	/* an old entry with a new value refers too */
	for (i = 0; i < before; i++)
		conf_raw_refer(raw, raw->v[i]->entry.value);
}

/* Every name behind a $, wherever it stands: a branch that is not taken today refers as well. */
void
conf_raw_refer(struct conf_raw *raw, const char *text)
{
	struct slice s = slice_str(text), name;
	struct raw_entry *e;
	size_t i, n;

	for (i = 0; i + 1 < s.n; i++) {
		if (s.p[i] != '$')
			continue;
		i++;
		while (i < s.n && (s.p[i] == '{' || s.p[i] == '(' || s.p[i] == ' '))
			i++;
		for (n = 0; i + n < s.n && (ascii_is_alnum(s.p[i + n]) || s.p[i + n] == '_'); n++)
			;
		name = slice_sub(s, i, i + n);
		e = find(raw, name);
		if (e && e->entry.value != text)
			e->entry.used = true;
		i--; /* the loop steps over what ended the name: it may be another $ */
	}
}

const char *
raw_text(const struct raw_lookup *l, struct slice name, const char **file_r, unsigned *line_r)
{
	const struct raw_default *d;
	const struct conf_param *param;
	struct raw_entry *e;
	char key[128];
	size_t i;

	*file_r = NULL;
	*line_r = 0;
	for (i = l->overrides_n; i > 0; i--) {
		if (!slice_eq_str(name, l->overrides[i - 1].name))
			continue;
		*file_r = l->overrides[i - 1].file;
		*line_r = l->overrides[i - 1].line;
		return l->overrides[i - 1].value;
	}
	if ((e = find(l->raw, name))) {
		*file_r = e->entry.file;
		*line_r = e->entry.line;
		return e->entry.value;
	}
	for (d = l->raw->defaults; d; d = d->next)
		if (slice_eq_str(name, d->name))
			return d->value;
	if (slice_copy(name, key, sizeof(key)))
		return NULL;
	param = conf_param_find(key);
	return param ? param->def : NULL;
}

static int
enter(struct raw_lookup *l, struct slice name, struct raw_chain *link)
{
	const struct raw_chain *c;

	for (c = l->chain; c; c = c->up) {
		if (!slice_eq(c->name, name))
			continue;
		snprintf(
		    l->why, CONF_WHY, "$%.*s refers to itself: name another one", SLICE_ARG(name));
		return ERR_LIMIT;
	}
	if (++l->steps > LOOKUP_LIMIT) {
		snprintf(l->why, CONF_WHY, "too many references: write the value out");
		return ERR_LIMIT;
	}
	link->up = l->chain;
	link->name = name;
	l->chain = link;
	return 0;
}

/* myhostname and mydomain follow from the name of the machine, and from each other, when empty. */
static int
system_name(struct raw_lookup *l, struct slice name, struct buf *out)
{
	struct slice domain = slice_str(l->raw->host);
	struct buf full = { .limit = 1024 };
	int err = 0;

	if (slice_eq_str(name, "myhostname")) {
		(void)buf_add(out, domain);
		if (slice_find(domain, '.') >= 0)
			return 0;
		(void)buf_add_byte(out, '.');
		if (l->chain->up && slice_eq_str(l->chain->up->name, "mydomain"))
			return buf_add_str(out, "localdomain");
		return raw_lookup(l, SLICE_LIT("mydomain"), out);
	}
	if (!l->chain->up || !slice_eq_str(l->chain->up->name, "myhostname")) {
		err = raw_lookup(l, SLICE_LIT("myhostname"), &full);
		domain = buf_slice(&full);
	}
	(void)slice_split(&domain, '.');
	if (!err)
		err = domain.n ? buf_add(out, domain) : buf_add_str(out, "localdomain");
	buf_free(&full);
	return err;
}

/* myorigin = /etc/mailname: the first line of the file. */
static int
file_value(struct raw_lookup *l, struct slice path, struct buf *out)
{
	struct buf text = { .limit = 4096 };
	struct slice line;
	char name[512];
	ptrdiff_t n;
	int fd, err = slice_copy(path, name, sizeof(name));

	fd = err ? -1 : open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0) {
		snprintf(l->why, CONF_WHY, "%.*s: %s: create it, or write the domain",
		    SLICE_ARG(path), err_str(err ? err : err_errno()));
		return ERR_SYNTAX;
	}
	n = buf_read(&text, fd, 1024);
	close(fd);
	line = buf_slice(&text);
	line = slice_trim(slice_split(&line, '\n'), true);
	if (n <= 0 || !line.n) {
		snprintf(l->why, CONF_WHY, "%.*s has no name in its first line", SLICE_ARG(path));
		err = ERR_SYNTAX;
	} else {
		err = buf_add(out, line);
	}
	buf_free(&text);
	return err;
}

int
raw_lookup(void *ctx, struct slice name, struct buf *out)
{
	struct raw_lookup *l = ctx;
	struct buf value = { .limit = CONF_VALUE_LIMIT };
	const char *text, *file;
	struct raw_chain link;
	unsigned line;
	int err;

	text = raw_text(l, name, &file, &line);
	if (!text)
		return ERR_NOT_FOUND;
	if ((err = enter(l, name, &link)))
		return err;
	err = conf_expand(slice_str(text), true, raw_lookup, l, &value, l->why);
	if (!err) {
		struct slice v = buf_slice(&value);

		if (!v.n && (slice_eq_str(name, "myhostname") || slice_eq_str(name, "mydomain")))
			err = system_name(l, name, out);
		else if (v.n && v.p[0] == '/' && l->raw->read_files &&
			 slice_eq_str(name, "myorigin"))
			err = file_value(l, v, out);
		else
			err = buf_add(out, v);
	} else if (err == ERR_NOT_FOUND) {
		err = ERR_SYNTAX; /* a name within is not defined: the text is in why */
	}
	l->chain = link.up;
	buf_free(&value);
	return err;
}

int
conf_raw_value(const struct conf_raw *raw, const char *name, struct buf *out)
{
	char why[CONF_WHY];
	struct raw_lookup l = { .raw = raw, .why = why };

	return raw_lookup(&l, slice_str(name), out);
}

int
conf_raw_expand(
    const struct conf_raw *raw, struct slice text, struct buf *out, char why_r[CONF_WHY])
{
	struct raw_lookup l = { .raw = raw, .why = why_r };

	return conf_expand(text, true, raw_lookup, &l, out, why_r);
}
