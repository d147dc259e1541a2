/*
 * The tables of the configuration. Runs in maps: opened before the jail as root (so that what
 * bh-maps may not read is found at the start, see reopen in main.c), refreshed inside it. A file
 * named by alias_maps is read as aliases(5) wherever else it is named.
 */
#include "helpers/maps/tables.h"

#include "daemon/log.h"

#include <libgen.h>
#include <stdlib.h>

struct table {
	struct slice spec; /* in the arena */
	struct db *db;
	bool dead;
};

struct named {
	struct slice name;
	struct db_list list; /* borrows the tables */
};

struct tables {
	struct arena arena;
	struct table *all;
	size_t n;
	struct named *named; /* parameters of type tables, then single specs */
	size_t nnamed;
	const struct db_list *of[TABLE_COUNT];
	const char **directories;
	size_t ndirectories;
};

static const char *const parameters[TABLE_COUNT] = {
	[TABLE_CANONICAL] = "canonical_maps",
	[TABLE_SENDER_CANONICAL] = "sender_canonical_maps",
	[TABLE_RECIPIENT_CANONICAL] = "recipient_canonical_maps",
	[TABLE_VIRTUAL_ALIAS] = "virtual_alias_maps",
	[TABLE_ALIAS] = "alias_maps",
	[TABLE_LOCAL_RECIPIENT] = "local_recipient_maps",
	[TABLE_VIRTUAL_MAILBOX] = "virtual_mailbox_maps",
	[TABLE_VIRTUAL_UID] = "virtual_uid_maps",
	[TABLE_VIRTUAL_GID] = "virtual_gid_maps",
	[TABLE_RELAY_RECIPIENT] = "relay_recipient_maps",
	[TABLE_TRANSPORT] = "transport_maps",
	[TABLE_RELOCATED] = "relocated_maps",
	[TABLE_RECIPIENT_BCC] = "recipient_bcc_maps",
};

/* One line of the log for each line of why. */
static void
log_lines(enum log_event event, struct buf *why)
{
	struct slice all = buf_slice(why);

	while (all.n)
		log_event(event, "reason=%s", log_value(slice_split(&all, '\n')));
	buf_clear(why);
}

static struct table *
table_find(struct tables *t, struct slice spec)
{
	for (size_t i = 0; i < t->n; i++)
		if (slice_eq(t->all[i].spec, spec))
			return &t->all[i];
	return NULL;
}

static bool
is_alias_table(const struct conf *conf, const struct conf_table *table)
{
	for (size_t i = 0; i < conf->alias_maps.n; i++)
		if (!strcmp(conf->alias_maps.v[i].type, table->type) &&
		    !strcmp(conf->alias_maps.v[i].name, table->name))
			return true;
	return false;
}

/* Opens a table, or finds it open; NULL if its name is wrong. */
static struct db *
open_one(struct tables *t, struct slice spec, unsigned flags)
{
	struct table *table = table_find(t, spec);
	struct buf why = { 0 };
	struct db *db;
	int err;

	if (table)
		return table->db;
	err = db_open(spec, flags, &db, &why);
	log_lines(LOG_table_open, &why);
	buf_free(&why);
	t->all = xrealloc(t->all, (t->n + 1) * sizeof(*t->all));
	t->all[t->n++] = (struct table){ arena_dup(&t->arena, spec), db, err != 0 };
	return db;
}

static struct named *
add_named(struct tables *t, struct slice name)
{
	t->named = xrealloc(t->named, (t->nnamed + 1) * sizeof(*t->named));
	t->named[t->nnamed] = (struct named){ .name = name };
	return &t->named[t->nnamed++];
}

static void
list_add(struct db_list *list, struct db *db)
{
	if (!db)
		return;
	list->tables = xrealloc(list->tables, (list->n + 1) * sizeof(struct db *));
	list->tables[list->n++] = db;
}

static void
open_tables(
    struct tables *t, const struct conf *conf, const char *name, const struct conf_tables *value)
{
	struct named *named = add_named(t, slice_str(name));

	for (size_t i = 0; i < value->n; i++) {
		char *spec = arena_printf(&t->arena, "%s:%s", value->v[i].type, value->v[i].name);
		unsigned flags = is_alias_table(conf, &value->v[i]) ? DB_ALIASES | DB_NO_EXPAND : 0;

		list_add(&named->list, open_one(t, slice_str(spec), flags));
	}
}

/* Whether a word of a list of domains or networks names a table; the word without its "!". */
static bool
names_table(const char *text, struct slice *word_r)
{
	struct slice word = slice_str(text), rest;

	if (word.n && word.p[0] == '!')
		word = slice_sub(word, 1, word.n);
	*word_r = rest = word;
	if (slice_find(word, ':') <= 0 || word.p[0] == '[')
		return false;
	slice_split(&rest, ':');
	return rest.n &&
	       (rest.p[0] == '/' || rest.p[0] == '{' || slice_has_prefix(word, "static:"));
}

/* Words of lists of domains and networks that name a table. */
static void
open_words(struct tables *t, const struct conf_list *value)
{
	struct slice word;

	for (size_t i = 0; i < value->n; i++)
		if (names_table(value->v[i], &word) && !tables_named(t, word))
			list_add(
			    &add_named(t, arena_dup(&t->arena, word))->list, open_one(t, word, 0));
}

static bool
is_below(struct slice path, const char *const *directories, size_t n)
{
	ptrdiff_t slash = slice_rfind(path, '/');

	if (!path.n || path.p[0] != '/')
		return true; /* no file */
	path = slice_sub(path, 0, slash ? (size_t)slash : 1);
	for (size_t i = 0; i < n; i++)
		if (slice_eq_str(path, directories[i]))
			return true;
	return false;
}

bool
tables_below(const struct conf *conf, const char *const *directories, size_t n)
{
	for (size_t i = 0; i < CONF_PARAM_COUNT; i++) {
		const void *member = (const char *)conf + conf_params[i].offset;
		const struct conf_tables *tables = member;
		const struct conf_list *list = member;
		struct slice word;

		for (size_t k = 0; conf_params[i].type == CONF_TABLES && k < tables->n; k++)
			if (!is_below(slice_str(tables->v[k].name), directories, n))
				return false;
		for (size_t k = 0; conf_params[i].type == CONF_LIST && k < list->n; k++) {
			if (!names_table(list->v[k], &word))
				continue;
			slice_split(&word, ':');
			if (!is_below(word, directories, n))
				return false;
		}
	}
	return true;
}

static void
add_directory(struct tables *t, const char *path)
{
	char *copy = arena_strdup(&t->arena, path);
	const char *dir = dirname(copy);

	for (size_t i = 0; i < t->ndirectories; i++)
		if (!strcmp(t->directories[i], dir))
			return;
	t->directories = xrealloc(t->directories, (t->ndirectories + 1) * sizeof(char *));
	t->directories[t->ndirectories++] = dir;
}

struct tables *
tables_open(const struct conf *conf)
{
	struct tables *t = xcalloc(1, sizeof(*t));

	for (size_t i = 0; i < CONF_PARAM_COUNT; i++) {
		const void *member = (const char *)conf + conf_params[i].offset;

		if (conf_params[i].type == CONF_TABLES)
			open_tables(t, conf, conf_params[i].name, member);
	}
	for (size_t i = 0; i < CONF_PARAM_COUNT; i++) {
		const void *member = (const char *)conf + conf_params[i].offset;

		if (conf_params[i].type == CONF_LIST)
			open_words(t, member);
	}
	for (size_t i = 0; i < t->n; i++) {
		/* A single table can be asked by its spec too. */
		if (!tables_named(t, t->all[i].spec))
			list_add(&add_named(t, t->all[i].spec)->list, t->all[i].db);
		if (t->all[i].db && db_path(t->all[i].db))
			add_directory(t, db_path(t->all[i].db));
	}
	for (int i = 0; i < TABLE_COUNT; i++)
		t->of[i] = tables_named(t, slice_str(parameters[i]));
	return t;
}

void
tables_free(struct tables **tp)
{
	struct tables *t = *tp;

	if (!t)
		return;
	for (size_t i = 0; i < t->n; i++)
		db_free(&t->all[i].db);
	for (size_t i = 0; i < t->nnamed; i++)
		free(t->named[i].list.tables);
	free(t->all);
	free(t->named);
	free(t->directories);
	arena_free(&t->arena);
	free(t);
	*tp = NULL;
}

const struct db_list *
tables_of(const struct tables *t, enum resolve_table table)
{
	return t->of[table];
}

const struct db_list *
tables_named(const struct tables *t, struct slice name)
{
	for (size_t i = 0; i < t->nnamed; i++)
		if (slice_eq(t->named[i].name, name))
			return &t->named[i].list;
	return NULL;
}

const char *const *
tables_directories(const struct tables *t, size_t *n_r)
{
	*n_r = t->ndirectories;
	return t->directories;
}

bool
tables_refresh(struct tables *t)
{
	struct buf why = { 0 };
	bool changed = false;

	for (size_t i = 0; i < t->n; i++) {
		int rc = t->all[i].db ? db_refresh(t->all[i].db, &why) : 0;

		if (rc > 0) {
			t->all[i].dead = false;
			changed = true;
			log_event(LOG_table_changed, "table=%s", log_value(t->all[i].spec));
		}
		if (rc >= 0)
			buf_clear(&why);
		log_lines(LOG_table_refresh, &why);
	}
	buf_free(&why);
	return changed;
}

void
tables_dead(const struct tables *t, struct buf *out)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->all[i].dead)
			buf_addf(out, "cannot_open=%s ", log_value(t->all[i].spec));
}

void
tables_count(const struct tables *t, size_t *n_r, size_t *dead_r)
{
	*n_r = t->n;
	*dead_r = 0;
	for (size_t i = 0; i < t->n; i++)
		*dead_r += t->all[i].dead;
}
