/* Private to lib/conf: the inside of struct conf_raw, and the look-up of names while one value is
 * expanded. */
#ifndef CONF_RAW_H
#define CONF_RAW_H

#include "base/hash.h"
#include "conf/conf.h"

struct conf_mem {
	struct arena arena;
};

struct raw_entry {
	struct hash_node node;
	struct conf_entry entry;
	size_t index;
};

struct raw_default {
	struct raw_default *next;
	const char *name, *value;
};

struct conf_raw {
	struct arena arena;
	struct hash hash;
	struct raw_entry **v;
	size_t n, size;
	struct raw_default *defaults;
	const char *host;
	bool read_files;
};

/* The chain of names under expansion, innermost first: what makes a recursion visible. */
struct raw_chain {
	const struct raw_chain *up;
	struct slice name;
};

struct raw_lookup {
	const struct conf_raw *raw;
	const struct conf_override *overrides;
	size_t overrides_n;
	const struct raw_chain *chain;
	unsigned steps;
	char *why; /* CONF_WHY bytes */
};

/* A conf_lookup over struct raw_lookup: overrides, main.cf, defaults, the system. */
conf_lookup raw_lookup;
/* The unexpanded text of a name and where it stands; NULL if it is not defined. file_r is NULL for
 * a default. */
const char *raw_text(
    const struct raw_lookup *l, struct slice name, const char **file_r, unsigned *line_r);
/* Parses text into the member of param in conf; 0, or ERR_SYNTAX with the reason. What it
 * allocates lies in conf->mem. */
int value_parse(struct conf *conf, const struct conf_param *param, struct slice text,
    char why_r[CONF_WHY]) CHECKED;
/* Whether a word is type:name as parameters of type tables have it. */
bool value_is_table(struct slice word);
/* Checks that go beyond a single type (networks, addresses, paths); reports to p. */
void conf_check_values(
    const struct conf *conf, const struct raw_lookup *l, struct conf_problems *p);

#endif
