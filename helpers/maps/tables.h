/*
 * All tables that the configuration names, each opened once however many parameters name it.
 */
#ifndef MAPS_TABLES_H
#define MAPS_TABLES_H

#include "conf/conf.h"
#include "db/db.h"
#include "helpers/maps/resolve.h"

struct tables;

/* Opens what conf names; tables that cannot be opened are logged and answer "temporary". */
struct tables *tables_open(const struct conf *conf);
void tables_free(struct tables **t);

/* The list of a parameter that resolution uses; empty where the parameter is. */
const struct db_list *tables_of(const struct tables *t, enum resolve_table table);
/* The list of a parameter of type tables by its name, or of one table by its spec; NULL if the
 * configuration does not name it. */
const struct db_list *tables_named(const struct tables *t, struct slice name);

/* Directories of all files of tables, each once; owned by t. */
const char *const *tables_directories(const struct tables *t, size_t *n_r);
/* Whether every file of a table that conf names lies directly in one of these directories. Opens
 * nothing. */
bool tables_below(const struct conf *conf, const char *const *directories, size_t n);
/* Reads again what has changed: true if an answer may be different now. */
bool tables_refresh(struct tables *t);
/* For `bulkhead status`: number of tables, and of those that could not be opened. */
/* The names of those that cannot be opened. */
void tables_dead(const struct tables *t, struct buf *out);
void tables_count(const struct tables *t, size_t *n_r, size_t *dead_r);

#endif
