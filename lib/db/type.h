/* What a kind of table provides to db.c. Private to lib/db. */
#ifndef DB_TYPE_H
#define DB_TYPE_H

#include "base/arena.h"
#include "base/hash.h"
#include "db/db.h"

#include <sys/stat.h>

struct db_source {
	const char *spec;  /* for messages */
	struct slice name; /* behind the colon */
	const char *path;  /* the file, or NULL */
	struct slice text; /* content of the file, if the type has wants_text */
	unsigned flags;    /* enum db_flag */
};

struct db_type {
	const char *name;
	unsigned traits;
	const char *suffix; /* of the file; NULL: no file */
	bool wants_text;
	/* Reads the source: 0 and the content in *state_r, or an error and a line in why. */
	int (*load)(const struct db_source *src, void **state_r, struct buf *why);
	int (*get)(const void *state, struct slice key, struct buf *value);
	void (*unload)(void *state);
	/* NULL: the entries cannot be told. */
	int (*each)(const void *state, int (*each)(void *ctx, struct slice key, struct slice value),
	    void *ctx);
};

extern const struct db_type db_hash, db_texthash, db_inline, db_static, db_unix, db_cidr, db_regexp,
    db_pcre, db_lmdb;

enum {
	DB_TEXT_LIMIT = 256 << 20, /* bytes of a text table */
	DB_KEY_LIMIT = 511,        /* LMDB's own */
	DB_RULES_LIMIT = 100000,   /* rules of one pattern table */
};

/* How a rule of a pattern table stands in its file: if and endif bracket others. */
struct db_flow {
	enum db_flow_kind { FLOW_VALUE, FLOW_IF, FLOW_ENDIF } kind;
	bool negated;
	size_t end; /* FLOW_IF: index of its FLOW_ENDIF */
};
/* Rules of one table: flow and the type's own struct side by side. */
struct db_rules {
	struct db_flow *flow;
	size_t n;
};
/* Reads the logical lines of a table, one rule each, and pairs if with endif. rule parses line i
 * into the type's own array and returns what is wrong, or NULL. */
typedef const char *db_rule_fn(void *ctx, size_t i, struct db_flow *flow, struct slice line);
int db_rules_read(struct db_rules *rules, const struct db_source *src, db_rule_fn *rule, void *ctx,
    struct buf *why) CHECKED;

/* Reads a whole file of at most DB_TEXT_LIMIT bytes; st_r is of the file that was read, whatever
 * has the name by now. */
int db_read_file(const char *path, struct buf *text, struct stat *st_r) CHECKED;

/* A table in memory. */
struct db_text {
	struct arena arena;
	struct hash entries;
};
/* Inserts a copy, key in lower case; false if the key is there already (the first one stays). */
bool db_text_add(struct db_text *t, struct slice key, struct slice value);
int db_text_get(const void *state, struct slice key, struct buf *value);
void db_text_unload(void *state);
int db_text_each(
    const void *state, int (*each)(void *ctx, struct slice key, struct slice value), void *ctx);
/* Reads "key value" or aliases(5) lines; each_r is told each entry; warnings go to why. */
typedef int db_entry_fn(void *ctx, struct slice key, struct slice value, unsigned line);
int db_text_parse(struct slice text, const char *name, unsigned flags, db_entry_fn *each, void *ctx,
    struct buf *why) CHECKED;

/* db_build into a table of at most so many bytes; 0: as many as the text may need. */
int db_build_within(size_t limit, const char *src, const char *dst, unsigned flags, size_t *count_r,
    struct buf *why) CHECKED;

#endif
