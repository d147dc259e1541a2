/* Types of the parameter table, which the generated params.h needs. Include conf/conf.h instead. */
#ifndef CONF_TYPES_H
#define CONF_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conf_list {
	size_t n;
	const char **v; /* never NULL words */
};

/* One element of a table list, as in "lmdb:/etc/bulkhead/virtual" or "inline:{a=b}". */
struct conf_table {
	const char *type; /* "lmdb", never NULL */
	const char *name; /* what follows the first colon, outer braces kept; never NULL */
};

struct conf_tables {
	size_t n;
	const struct conf_table *v;
};

enum conf_type {
	CONF_BOOL,   /* bool */
	CONF_INT,    /* int64_t */
	CONF_SIZE,   /* int64_t, bytes */
	CONF_TIME,   /* int64_t, milliseconds */
	CONF_STRING, /* const char *, never NULL in what the snapshot holds */
	CONF_RAW,    /* the same, with $names that are not expanded */
	CONF_LIST,   /* struct conf_list */
	CONF_ENUM,   /* int, an enum conf_... constant */
	CONF_TABLES, /* struct conf_tables */
};

struct conf_mem;

/* One row of params.def. */
struct conf_param {
	const char *name;
	enum conf_type type;
	size_t offset;            /* of the member in struct conf */
	const char *def;          /* default as text, unexpanded */
	int64_t min, max;         /* of numbers, in milliseconds or bytes where they have a unit */
	uint64_t roles;           /* bit i: the role of conf_roles[i] gets it in its snapshot */
	const char *const *words; /* of an enumeration, NULL at the end */
	const char *doc;
};

extern const struct conf_param conf_params[]; /* CONF_PARAM_COUNT rows in the order of the file */
extern const uint16_t conf_params_by_name[];  /* indexes of conf_params, sorted by name */
extern const char *const conf_roles[];        /* names of roles.def, NULL at the end */

extern const char *const conf_programs[]; /* roles that master starts: the commands of master.cf */

/* A name of Postfix or Dovecot that the suite lacks. */
struct conf_foreign {
	const char *name;
	const char *origin;  /* "Postfix", "Dovecot" */
	const char *would;   /* what it would have done */
	const char *instead; /* what to use */
};
extern const size_t conf_foreign_count;
extern const struct conf_foreign conf_foreign[]; /* sorted by name, ended by a NULL name */

#endif
