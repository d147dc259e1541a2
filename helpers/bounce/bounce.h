/*
 * bounce: one process, one loop. job.c makes notices, compose.c writes them.
 */
#ifndef BOUNCE_BOUNCE_H
#define BOUNCE_BOUNCE_H

#include "daemon/daemon.h"
#include "helpers/bounce/compose.h"

extern const struct daemon_desc bounce_desc;

#endif
