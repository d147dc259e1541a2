/*
 * Which names exist: rows of params.def, names of Postfix and Dovecot that have a text of their
 * own, and names of the admin's own that some value refers to. Runs in master and in the tools.
 * Invariant: a name that is none of these never passes.
 */
#include "conf/raw.h"

#include <stdlib.h>

#define NAME_LIMIT 100

static int
param_compare(const void *key, const void *element)
{
	return strcmp(key, conf_params[*(const uint16_t *)element].name);
}

const struct conf_param *
conf_param_find(const char *name)
{
	const uint16_t *i = bsearch(name, conf_params_by_name, CONF_PARAM_COUNT,
	    sizeof(conf_params_by_name[0]), param_compare);

	return i ? &conf_params[*i] : NULL;
}

static int
foreign_compare(const void *key, const void *element)
{
	return strcmp(key, ((const struct conf_foreign *)element)->name);
}

const struct conf_foreign *
conf_foreign_find(const char *name)
{
	return bsearch(
	    name, conf_foreign, conf_foreign_count, sizeof(conf_foreign[0]), foreign_compare);
}

static unsigned
min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

/* Edits (a letter more, less, other, or two swapped) from a to b. */
static unsigned
distance(const char *a, const char *b)
{
	unsigned rows[3][NAME_LIMIT + 1], *older = rows[0], *old = rows[1], *now = rows[2], *t;
	size_t i, j, n = strlen(a), m = strlen(b);

	if (n > NAME_LIMIT || m > NAME_LIMIT)
		return NAME_LIMIT;
	for (j = 0; j <= m; j++)
		old[j] = (unsigned)j;
	memset(older, 0, sizeof(rows[0]));
	for (i = 1; i <= n; i++) {
		now[0] = (unsigned)i;
		for (j = 1; j <= m; j++) {
			now[j] = min3(old[j] + 1, now[j - 1] + 1,
			    old[j - 1] + (ascii_lower((unsigned char)a[i - 1]) !=
					     ascii_lower((unsigned char)b[j - 1])));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    older[j - 2] + 1 < now[j])
				now[j] = older[j - 2] + 1;
		}
		t = older;
		older = old;
		old = now;
		now = t;
	}
	return old[m];
}

const char *
conf_nearest(const char *name)
{
	size_t i, m, n = strlen(name);
	unsigned best = (unsigned)n / 4 + 1, d;
	const char *nearest = NULL;

	for (i = 0; i < CONF_PARAM_COUNT; i++) {
		m = strlen(conf_params[i].name);
		if ((m > n ? m - n : n - m) > best)
			continue; /* at least that many edits */
		d = distance(name, conf_params[i].name);
		if (d > best || (d == best && nearest))
			continue;
		best = d;
		nearest = conf_params[i].name;
	}
	return nearest;
}

bool
conf_check_name(const struct conf_raw *raw, const char *name, const char *file, unsigned line,
    struct conf_problems *p)
{
	const struct conf_foreign *foreign;
	const struct conf_entry *entry = raw ? conf_raw_find(raw, name) : NULL;
	const char *nearest;
	char *remedy;

	if (conf_param_find(name) || (entry && entry->used))
		return true;
	if ((foreign = conf_foreign_find(name))) {
		remedy = xasprintf("%s", foreign->instead);
		conf_problem(p, file, line, remedy, "%s of %s is not supported: it would %s", name,
		    foreign->origin, foreign->would);
	} else {
		nearest = conf_nearest(name);
		remedy = nearest ? xasprintf("did you mean %s?", nearest)
				 : xstrdup("remove it, or refer to it by $ if it is a name of your "
					   "own");
		conf_problem(p, file, line, remedy, "unknown parameter %s", name);
	}
	free(remedy);
	return false;
}

void
conf_raw_check_names(const struct conf_raw *raw, struct conf_problems *p)
{
	const struct conf_entry *e;
	size_t i;

	for (i = 0; (e = conf_raw_entry(raw, i)); i++)
		(void)conf_check_name(raw, e->name, e->file, e->line, p);
}
