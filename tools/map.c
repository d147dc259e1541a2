/*
 * `bulkhead map` and newaliases(1): builds LMDB tables from text files, asks tables, and checks
 * them, with the code that maps runs. Runs as the caller; a table built by root belongs to the
 * owner of its source. A query of a system user asks NSS, as the nss helper would.
 */
#include "db/alias.h"
#include "db/db.h"
#include "tools/tool.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>

static void
say_lines(struct buf *why)
{
	struct slice text = buf_slice(why), line;

	while (text.n) {
		line = slice_split(&text, '\n');
		if (line.n)
			tool_say("%.*s", SLICE_ARG(line));
	}
	buf_clear(why);
}

/* "lmdb:/x" and "/x" name the source /x and the table /x.lmdb. */
static const char *
source_of(const char *name)
{
	return strncmp(name, "lmdb:", 5) ? name : name + 5;
}

static int
build(const char *name, unsigned flags)
{
	const char *src = source_of(name);
	char *dst = xasprintf("%s.lmdb", src);
	struct buf why = { 0 };
	size_t count;
	int err;

	if (src[0] != '/') {
		tool_say(
		    "%s: name the text file by its whole path, as in lmdb:/etc/bulkhead/virtual",
		    name);
		free(dst);
		return 64;
	}
	err = db_build(src, dst, flags, &count, &why);
	say_lines(&why);
	if (!err)
		printf("%s: %zu entries\n", dst, count);
	buf_free(&why);
	free(dst);
	return err ? 1 : 0;
}

/* A table of system users answers with the line of passwd(5), without the password. */
static int
query_user(const char *key)
{
	const struct passwd *pw;

	errno = 0;
	pw = getpwnam(key);
	if (pw)
		printf("%s:%u:%u:%s:%s\n", pw->pw_name, pw->pw_uid, pw->pw_gid, pw->pw_dir,
		    pw->pw_shell);
	else if (errno && errno != ENOENT && errno != ESRCH)
		tool_say("unix:passwd.byname: %s", err_str(err_errno()));
	return pw ? 0 : 1;
}

static int
query_as(const char *spec, const char *key, unsigned flags)
{
	struct db_list list = { 0 };
	struct buf why = { 0 }, value = { 0 };
	size_t nss = 0;
	int err = db_list_open(&list, slice_str(spec), flags, &why), status = 0;

	if (!flags)
		say_lines(&why);
	if (!err)
		err = db_list_get(&list, 0, slice_str(key), true, &value, &nss);
	while (err == -EAGAIN) {
		if (query_user(key) == 0)
			goto out;
		err = db_list_get(&list, nss + 1, slice_str(key), true, &value, &nss);
	}
	if (!err)
		printf("%.*s\n", SLICE_ARG(buf_slice(&value)));
	else if (err != ERR_NOT_FOUND && !flags)
		tool_say("%s: %s", spec, err_str(err));
	status = err == 0 ? 0 : err == ERR_NOT_FOUND ? 1 : 75;
out:
	db_list_free(&list);
	buf_free(&why);
	buf_free(&value);
	return status;
}

/* A text of aliases(5) names the key with a colon: it is not found as "key value" lines. */
static int
query(const char *spec, const char *key)
{
	int status = query_as(spec, key, 0);

	return status == 1 && query_as(spec, key, DB_ALIASES) == 0 ? 0 : status;
}

static int
check(const char *spec)
{
	struct db_list list = { 0 };
	struct buf why = { 0 };
	int err = db_list_open(&list, slice_str(spec), 0, &why);

	say_lines(&why);
	if (!err)
		printf("%s: good\n", spec);
	db_list_free(&list);
	buf_free(&why);
	return err ? 1 : 0;
}

/* The file behind a table of aliases is read as text and each right-hand side is parsed. */
struct alias_check {
	const char *path;
	struct slice text;
	int errors;
};

static void
check_aliases(struct alias_check *c)
{
	struct conf_lines lines = { .in = c->text };
	struct arena arena = { 0 };
	struct alias_items items;
	struct conf_line line;
	struct slice rest;
	const char *why;
	ptrdiff_t colon;
	bool orphan;

	while (conf_lines_next(&lines, &arena, &line, &orphan)) {
		rest = line.text;
		if (rest.n && rest.p[0] == '"') {
			colon = slice_find(slice_sub(rest, 1, rest.n), '"');
			rest = slice_sub(rest, colon < 0 ? rest.n : (size_t)colon + 2, rest.n);
		}
		colon = slice_find(rest, ':');
		if (orphan || colon < 0) {
			tool_say("%s:%u: a line has the form name: value", c->path, line.line);
			c->errors++;
		} else if (alias_parse(&arena, slice_sub(rest, (size_t)colon + 1, rest.n), false,
			       100000, &items, &why)) {
			tool_say("%s:%u: %s", c->path, line.line, why);
			c->errors++;
		}
		arena_reset(&arena);
	}
	arena_free(&arena);
}

static int
aliases_of(const struct conf_table *table)
{
	struct alias_check c = { .path = table->name };
	struct buf text = { .limit = 64u << 20 };
	FILE *f;
	size_t n;
	int err;

	if (strcmp(table->type, "hash") && strcmp(table->type, "texthash") &&
	    strcmp(table->type, "lmdb"))
		return 0;
	f = fopen(table->name, "re");
	if (!f) {
		tool_say("%s: %s: create it, or correct alias_database", table->name,
		    err_str(err_errno()));
		return 66;
	}
	do {
		unsigned char *p = buf_reserve(&text, 65536);

		n = p ? fread(p, 1, 65536, f) : 0;
		buf_commit(&text, n);
	} while (n);
	err = text.err ? text.err : ferror(f) ? err_errno() : 0;
	fclose(f);
	if (err) {
		tool_say("%s: %s: correct alias_database", table->name, err_str(err));
		buf_free(&text);
		return 66;
	}
	c.text = buf_slice(&text);
	check_aliases(&c);
	buf_free(&text);
	if (c.errors)
		return 65;
	if (!strcmp(table->type, "lmdb"))
		return build(table->name, DB_ALIASES);
	printf("%s: good; the suite reads the text itself\n", table->name);
	return 0;
}

int
cmd_newaliases(struct tool *t, int argc, char **argv)
{
	const struct conf *conf = tool_conf(t);
	int status = 0, one;
	size_t i;

	(void)argc;
	(void)argv;
	if (!conf->alias_database.n)
		tool_say("alias_database is empty");
	for (i = 0; i < conf->alias_database.n; i++) {
		one = aliases_of(&conf->alias_database.v[i]);
		status = status ? status : one;
	}
	return status;
}

int
cmd_map(struct tool *t, int argc, char **argv)
{
	int i, one, status = 0;

	(void)t;
	if (argc == 4 && !strcmp(argv[1], "query"))
		return query(argv[2], argv[3]);
	if (argc < 3 ||
	    (strcmp(argv[1], "build") && strcmp(argv[1], "aliases") && strcmp(argv[1], "check"))) {
		tool_say("usage: bulkhead map build FILE... | aliases FILE... | query TABLE KEY | "
			 "check TABLE...");
		return 64;
	}
	for (i = 2; i < argc; i++) {
		one = !strcmp(argv[1], "check")
			  ? check(argv[i])
			  : build(argv[i], argv[1][0] == 'a' ? DB_ALIASES : 0);
		status = status ? status : one;
	}
	return status;
}
