/*
 * Part of `bulkhead check`: every table of every parameter is opened with the code of maps; the
 * aliases that a working system needs are looked up; passwords must not be readable by everybody.
 */
#include "db/db.h"
#include "tools/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static void
say_why(struct tool *t, const char *param, struct buf *why, bool warning)
{
	struct slice text = buf_slice(why), line;

	while (text.n) {
		line = slice_split(&text, '\n');
		if (line.n)
			check_at(t, warning, param, NULL, "%s: %.*s", param, SLICE_ARG(line));
	}
	buf_clear(why);
}

static void
check_secret(struct tool *t, const char *param, const char *path)
{
	struct stat st;

	if (path && !stat(path, &st) && (st.st_mode & (S_IROTH | S_IWOTH)))
		check_at(t, false, param, "chmod 600 it",
		    "%s: %s holds passwords and has mode %04o", param, path,
		    (unsigned)st.st_mode & 07777);
}

/* lmdb:FILE is made of the text FILE: a newer text is not in force yet. */
static void
check_stale(struct tool *t, const char *param, const char *name, const char *type)
{
	struct stat text, table;
	char *path = xasprintf("%s.lmdb", name);

	if (!strcmp(type, "lmdb") && !stat(name, &text) && !stat(path, &table) &&
	    text.st_mtime > table.st_mtime)
		check_at(t, true, param, "run bulkhead map build, or newaliases",
		    "%s: %s is newer than its table", param, name);
	free(path);
}

static void
check_table(struct tool *t, const struct conf_param *param, const struct conf_table *table)
{
	bool aliases =
	    !strncmp(param->name, "alias_", 6) ||
	    (!strcmp(param->name, "local_recipient_maps") && strstr(table->name, "aliases"));
	char *spec = xasprintf("%s:%s", table->type, table->name);
	struct buf why = { 0 };
	struct db *db;
	int err = db_open(slice_str(spec), aliases ? DB_ALIASES : 0, &db, &why);

	say_why(t, param->name, &why, err == 0);
	if (strstr(param->name, "password")) {
		check_secret(t, param->name, db ? db_path(db) : NULL);
		if (!strcmp(table->type, "lmdb")) /* the text that it is made of */
			check_secret(t, param->name, table->name);
	}
	check_stale(t, param->name, table->name, table->type);
	db_free(&db);
	buf_free(&why);
	free(spec);
}

/* Words of lists of domains that name a table. */
static void
check_listed(struct tool *t, const char *name)
{
	const struct conf_param *param = conf_param_find(name);
	const struct conf_list *list = (const void *)((const char *)t->set->conf + param->offset);

	for (size_t i = 0; i < list->n; i++) {
		const char *word = list->v[i] + (list->v[i][0] == '!');
		const char *colon = word[0] == '[' ? NULL : strchr(word, ':');
		char *type;

		if (!colon)
			continue;
		type = slice_dup(slice(word, (size_t)(colon - word)));
		check_table(t, param, &(struct conf_table){ type, colon + 1 });
		free(type);
	}
}

static bool
alias_exists(const struct db_list *list, const char *name)
{
	struct buf value = { 0 };
	size_t nss;
	int err = db_list_get(list, 0, slice_str(name), true, &value, &nss);

	buf_free(&value);
	return err == 0;
}

/* Mail for root goes nowhere without an alias, since no process becomes uid 0 to deliver it. */
static void
check_root_alias(struct tool *t)
{
	const struct conf *c = t->set->conf;
	struct db_list list = { 0 };
	struct buf spec = { 0 }, why = { 0 };
	size_t i;

	if (!c->mydestination.n)
		return;
	for (i = 0; i < c->alias_maps.n; i++)
		(void)buf_addf(&spec, "%s:%s ", c->alias_maps.v[i].type, c->alias_maps.v[i].name);
	if (!buf_len(&spec) || !db_list_open(&list, buf_slice(&spec), DB_ALIASES, &why)) {
		if (!alias_exists(&list, "root"))
			check_at(t, true, "alias_maps",
			    "add a line to the aliases, as in root: yourname",
			    "mail for root is deferred: no alias says who reads it");
	}
	db_list_free(&list);
	buf_free(&spec);
	buf_free(&why);
}

void
check_tables(struct tool *t)
{
	const struct conf_tables *tables;
	size_t i, j;

	for (i = 0; i < CONF_PARAM_COUNT; i++) {
		/* those that are made of others would be told twice */
		if (conf_params[i].type != CONF_TABLES ||
		    !strcmp(conf_params[i].name, "alias_database"))
			continue;
		tables = (const struct conf_tables *)(const void *)((const char *)t->set->conf +
								    conf_params[i].offset);
		for (j = 0; j < tables->n; j++) {
			if (!strcmp(conf_params[i].name, "local_recipient_maps") &&
			    !conf_raw_find(t->set->raw, "local_recipient_maps") &&
			    strcmp(tables->v[j].type, "unix"))
				continue;
			check_table(t, &conf_params[i], &tables->v[j]);
		}
	}
	check_listed(t, "mydestination");
	check_listed(t, "virtual_alias_domains");
	check_listed(t, "virtual_mailbox_domains");
	check_listed(t, "relay_domains");
	check_root_alias(t);
}
