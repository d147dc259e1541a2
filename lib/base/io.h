/* Whole writes to files, pipes and blocking sockets. */
#ifndef BASE_IO_H
#define BASE_IO_H

#include "base/slice.h"

/* All of bytes: a write that takes fewer than it was given is continued. On an error an unknown
 * part is written; what it belongs to is the caller's to take back. */
int io_write_all(int fd, struct slice bytes) CHECKED;

#endif
