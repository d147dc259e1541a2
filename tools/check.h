/* `bulkhead check`: the parts that look at the system. Each adds what it finds to the problems of
 * t. */
#ifndef TOOLS_CHECK_H
#define TOOLS_CHECK_H

#include "ipc/msgs.h"
#include "tools/tool.h"

#include <sys/types.h>

/* Adds a problem at the line of main.cf that sets the parameter (the file alone for a default). */
void check_at(struct tool *t, bool warning, const char *param, const char *remedy, const char *fmt,
    ...) PRINTF(5, 6);
/* The uid of a daemon in this configuration; false if it has none. */
bool check_uid_of(const struct tool *t, enum role role, uid_t *uid_r);

void check_files(struct tool *t); /* folders, programs, owners and modes */
void check_certificates(struct tool *t);
void check_tables(struct tool *t);     /* every table opens, aliases are complete */
void check_transports(struct tool *t); /* what transport_maps lead to */
void check_accounts(struct tool *t);   /* users and groups that are named */
void check_owners(struct tool *t);     /* what daemons keep is theirs */
void check_ports(struct tool *t);      /* listening addresses are free, or our own */

#endif
