/* Watching directories for changes of the files in them, by inotify. */
#ifndef MAPS_WATCH_H
#define MAPS_WATCH_H

#include "base/err.h"

#include <event2/event.h>
#include <stddef.h>

struct watch;

/* changed is called soon after something changed, once for many changes. */
struct watch *watch_new(struct event_base *base, void (*changed)(void *ctx), void *ctx);
/* Watching one directory twice is watching it once. What cannot be watched is left out (ENOENT) or
 * an error. */
int watch_add(struct watch *w, const char *directory) CHECKED;
void watch_free(struct watch **w);

#endif
