/*
 * One value: text to the member of struct conf that its row declares, and back. The only place
 * that knows how each type is written. Runs in master and the tools over what an admin wrote.
 * Invariant: a member is set only if the whole text is valid and within the bounds of its row.
 */
#include "conf/raw.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static const struct unit {
	const char *suffix;
	int64_t factor;
} time_units[] = {
	{ "ms", 1 },
	{ "s", 1000 },
	{ "m", 60 * 1000 },
	{ "h", 3600 * 1000 },
	{ "d", 86400 * 1000LL },
	{ "w", 7 * 86400 * 1000LL },
	{ NULL, 0 },
}, size_units[] = {
	{ "K", 1LL << 10 },
	{ "M", 1LL << 20 },
	{ "G", 1LL << 30 },
	{ "T", 1LL << 40 },
	{ NULL, 0 },
};

/* Types of tables, whether the suite has them, and whether their name is a path. */
static const struct {
	const char *name;
	bool known, path;
} table_types[] = {
	{ "hash", true, true },
	{ "lmdb", true, true },
	{ "texthash", true, true },
	{ "cidr", true, true },
	{ "regexp", true, true },
	{ "pcre", true, true },
	{ "inline", true, false },
	{ "static", true, false },
	{ "unix", true, false },
	{ "btree", false, false },
	{ "cdb", false, false },
	{ "dbm", false, false },
	{ "environ", false, false },
	{ "internal", false, false },
	{ "fail", false, false },
	{ "ldap", false, false },
	{ "memcache", false, false },
	{ "mongodb", false, false },
	{ "mysql", false, false },
	{ "netinfo", false, false },
	{ "nis", false, false },
	{ "nisplus", false, false },
	{ "pgsql", false, false },
	{ "pipemap", false, false },
	{ "randmap", false, false },
	{ "sdbm", false, false },
	{ "socketmap", false, false },
	{ "sqlite", false, false },
	{ "tcp", false, false },
	{ "unionmap", false, false },
};

static void *
member(struct conf *conf, const struct conf_param *param)
{
	return (char *)conf + param->offset;
}

static int
bad(char *why, const char *fmt, struct slice what)
{
	snprintf(why, CONF_WHY, fmt, (int)(what.n > 80 ? 80 : what.n),
	    what.p ? (const char *)what.p : "");
	return ERR_SYNTAX;
}

/* Digits, then a suffix of letters. */
static void
split_number(struct slice s, struct slice *digits_r, struct slice *suffix_r)
{
	size_t n = 0;

	while (n < s.n && ascii_is_digit(s.p[n]))
		n++;
	*digits_r = slice_sub(s, 0, n);
	*suffix_r = slice_sub(s, n, s.n);
}

/* The factor of a suffix: for an empty one of a time, that of the default of the row. */
static int64_t
factor_of(const struct conf_param *param, struct slice suffix)
{
	const struct unit *u = param->type == CONF_TIME ? time_units : size_units;
	struct slice digits;

	if (!suffix.n && param->type == CONF_TIME) {
		split_number(slice_str(param->def), &digits, &suffix);
		if (!suffix.n || !digits.n)
			return 1000;
	}
	if (!suffix.n)
		return 1;
	for (; u->suffix; u++)
		if (param->type == CONF_TIME ? slice_eq_str(suffix, u->suffix)
					     : slice_caseeq_str(suffix, u->suffix))
			return u->factor;
	return 0;
}

static void
number_text(const struct conf_param *param, int64_t value, char *out, size_t size)
{
	const struct unit *u = param->type == CONF_TIME ? time_units : size_units, *best = NULL;

	if (param->type != CONF_INT && value)
		for (; u->suffix; u++)
			if (value % u->factor == 0)
				best = u;
	if (best)
		snprintf(out, size, "%lld%s", (long long)(value / best->factor), best->suffix);
	else
		snprintf(out, size, "%lld", (long long)value);
}

static int
parse_number(const struct conf_param *param, struct slice s, int64_t *value_r, char *why)
{
	struct slice digits, suffix;
	char low[32], high[32];
	uint64_t v = 0;
	int64_t factor;
	int err;

	split_number(s, &digits, &suffix);
	factor = param->type == CONF_INT ? !suffix.n : factor_of(param, suffix);
	err = slice_u64(digits, INT64_MAX, &v);
	if (err == ERR_SYNTAX || !factor)
		return bad(why,
		    param->type == CONF_TIME
			? "'%.*s' is not a time: write a number with ms, s, m, h, d or w"
		    : param->type == CONF_SIZE
			? "'%.*s' is not a size: write a number, or one with K, M, G or T"
			: "'%.*s' is not a number",
		    s);
	if (err || v > (uint64_t)(INT64_MAX / factor) || (int64_t)v * factor < param->min ||
	    (int64_t)v * factor > param->max) {
		number_text(param, param->min, low, sizeof(low));
		number_text(param, param->max, high, sizeof(high));
		snprintf(why, CONF_WHY, "%.*s is out of bounds: it must be %s %s%s",
		    (int)(s.n > 40 ? 40 : s.n), s.p, low,
		    param->max == INT64_MAX ? "or more" : "to ",
		    param->max == INT64_MAX ? "" : high);
		return ERR_SYNTAX;
	}
	*value_r = (int64_t)v * factor;
	return 0;
}

static bool
is_separator(unsigned char c)
{
	return c == ' ' || c == '\t' || c == ',' || c == '\r' || c == '\n';
}

/* Takes the next word off *s; braces group, wherever in the word they stand. False at the end. */
static bool
next_word(struct slice *s, struct slice *word_r)
{
	size_t n = 0, level = 0;

	while (s->n && is_separator(s->p[0]))
		*s = slice_sub(*s, 1, s->n);
	if (!s->n)
		return false;
	while (n < s->n && (level || !is_separator(s->p[n]))) {
		if (s->p[n] == '{')
			level++;
		else if (s->p[n] == '}' && level)
			level--;
		n++;
	}
	*word_r = slice_sub(*s, 0, n);
	*s = slice_sub(*s, n, s->n);
	return true;
}

static struct conf_list
conf_split_list(struct slice text, struct arena *arena)
{
	struct conf_list list = { 0 };
	struct slice s = text, word;

	while (next_word(&s, &word))
		list.n++;
	list.v = arena_alloc(arena, (list.n + 1) * sizeof(list.v[0]));
	list.n = 0;
	for (s = text; next_word(&s, &word); list.n++) {
		if (word.n > 1 && word.p[0] == '{' && word.p[word.n - 1] == '}')
			word = slice_trim(slice_sub(word, 1, word.n - 1), true);
		list.v[list.n] = (const char *)arena_dup(arena, word).p;
	}
	return list;
}

static int
parse_table(struct slice word, struct arena *arena, struct conf_table *table, char *why)
{
	struct slice type = word, name = SLICE_NULL;
	ptrdiff_t colon;
	size_t i;

	if (slice_has_prefix(word, "proxy:"))
		type = word = slice_sub(word, 6, word.n);
	colon = slice_find(word, ':');
	if (word.n && word.p[0] == '/') {
		type = SLICE_LIT("lmdb");
		name = word;
	} else if (colon > 0) {
		type = slice_sub(word, 0, (size_t)colon);
		name = slice_sub(word, (size_t)colon + 1, word.n);
	}
	for (i = 0; i < sizeof(table_types) / sizeof(table_types[0]); i++)
		if (slice_eq_str(type, table_types[i].name))
			break;
	if (i == sizeof(table_types) / sizeof(table_types[0]))
		return bad(why,
		    "'%.*s' is not a table: write type:name with one of the types "
		    "lmdb hash texthash cidr regexp pcre inline static unix",
		    word);
	if (!table_types[i].known)
		return bad(why,
		    "tables of type %.*s are not supported: use lmdb, made by bulkhead map", type);
	if (!name.n)
		return bad(why, "the table '%.*s' has no name behind the colon", word);
	if (table_types[i].path && name.p[0] != '/')
		return bad(
		    why, "the name of the table '%.*s' is not a path that begins with /", word);
	table->type = (const char *)arena_dup(arena, type).p;
	table->name = (const char *)arena_dup(arena, name).p;
	return 0;
}

bool
value_is_table(struct slice word)
{
	struct arena scratch = { 0 };
	struct conf_table table;
	char why[CONF_WHY];
	int err = parse_table(word, &scratch, &table, why);

	arena_free(&scratch);
	return !err;
}

static int
parse_tables(struct slice text, struct arena *arena, struct conf_tables *tables_r, char *why)
{
	struct slice s = text, word;
	struct conf_table *v;
	size_t n = 0;
	int err;

	while (next_word(&s, &word))
		n++;
	if (n > CONF_LIST_LIMIT)
		return bad(why, "the list has too many words%.*s", SLICE_NULL);
	v = arena_alloc(arena, (n + 1) * sizeof(v[0]));
	for (n = 0, s = text; next_word(&s, &word); n++)
		if ((err = parse_table(word, arena, &v[n], why)))
			return err;
	*tables_r = (struct conf_tables){ n, v };
	return 0;
}

static int
parse_enum(const struct conf_param *param, struct slice s, int *value_r, char *why)
{
	size_t used;
	int i;

	for (i = 0; param->words[i]; i++)
		if (slice_caseeq_str(s, param->words[i])) {
			*value_r = i;
			return 0;
		}
	(void)bad(why, "'%.*s' is none of", s);
	for (i = 0; param->words[i]; i++) {
		used = strlen(why);
		snprintf(why + used, CONF_WHY - used, "%s %s", i ? "," : "", param->words[i]);
	}
	return ERR_SYNTAX;
}

int
value_parse(
    struct conf *conf, const struct conf_param *param, struct slice text, char why_r[CONF_WHY])
{
	void *m = member(conf, param);
	struct arena *arena = &conf->mem->arena;
	struct conf_list list;

	switch (param->type) {
	case CONF_BOOL:
		if (!slice_caseeq_str(text, "yes") && !slice_caseeq_str(text, "no"))
			return bad(why_r, "'%.*s' is neither yes nor no", text);
		*(bool *)m = slice_caseeq_str(text, "yes");
		return 0;
	case CONF_INT:
	case CONF_SIZE:
	case CONF_TIME:
		return parse_number(param, text, m, why_r);
	case CONF_STRING:
	case CONF_RAW:
		if (slice_find(text, '\0') >= 0)
			return bad(why_r, "a NUL byte in the value%.*s", SLICE_NULL);
		*(const char **)m = (const char *)arena_dup(arena, text).p;
		return 0;
	case CONF_LIST:
		list = conf_split_list(text, arena);
		if (list.n > CONF_LIST_LIMIT)
			return bad(why_r, "the list has too many words%.*s", SLICE_NULL);
		*(struct conf_list *)m = list;
		return 0;
	case CONF_ENUM:
		return parse_enum(param, text, m, why_r);
	case CONF_TABLES:
		return parse_tables(text, arena, m, why_r);
	default:
		return ERR_STATE;
	}
}

static void
list_text(const struct conf_list *list, struct buf *out)
{
	size_t i;

	for (i = 0; i < list->n; i++) {
		bool group = !list->v[i][0] || strpbrk(list->v[i], " \t,{}");

		(void)buf_addf(
		    out, "%s%s%s%s", i ? ", " : "", group ? "{" : "", list->v[i], group ? "}" : "");
	}
}

void
conf_value_text(const struct conf *conf, const struct conf_param *param, struct buf *out)
{
	const void *m = (const char *)conf + param->offset;
	const struct conf_tables *tables = m;
	char number[32];
	size_t i;

	switch (param->type) {
	case CONF_BOOL:
		(void)buf_add_str(out, *(const bool *)m ? "yes" : "no");
		break;
	case CONF_INT:
	case CONF_SIZE:
	case CONF_TIME:
		number_text(param, *(const int64_t *)m, number, sizeof(number));
		(void)buf_add_str(out, number);
		break;
	case CONF_STRING:
	case CONF_RAW:
		(void)buf_add_str(out, *(const char *const *)m ? *(const char *const *)m : "");
		break;
	case CONF_LIST:
		list_text(m, out);
		break;
	case CONF_ENUM:
		(void)buf_add_str(out, param->words[*(const int *)m]);
		break;
	case CONF_TABLES:
		for (i = 0; i < tables->n; i++)
			(void)buf_addf(
			    out, "%s%s:%s", i ? ", " : "", tables->v[i].type, tables->v[i].name);
		break;
	default:
		break;
	}
}

bool
conf_differs(const struct conf *a, const struct conf *b, const char *name)
{
	const struct conf_param *param = conf_param_find(name);
	struct buf was = { 0 }, is = { 0 };
	bool differs;

	assert(param);
	conf_value_text(a, param, &was);
	conf_value_text(b, param, &is);
	differs = !slice_eq(buf_slice(&was), buf_slice(&is));
	buf_free(&was);
	buf_free(&is);
	return differs;
}
