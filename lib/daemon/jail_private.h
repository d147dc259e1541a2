/* The two filters of jail.c, a file each. */
#ifndef DAEMON_JAIL_PRIVATE_H
#define DAEMON_JAIL_PRIVATE_H

#include "daemon/jail.h"

int jail_landlock(const struct jail_args *a, char *why, size_t size) CHECKED;
int jail_seccomp(const struct jail_args *a, char *why, size_t size) CHECKED;

#endif
