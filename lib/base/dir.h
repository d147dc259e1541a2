/* Directories to be read, opened by descriptor. */
#ifndef BASE_DIR_H
#define BASE_DIR_H

#include "base/err.h"

#include <dirent.h>

/* Opens the directory path below at; flags (O_NOFOLLOW) are added to what is due. The caller closes
 * *out_r with closedir. */
int dir_open(int at, const char *path, int flags, DIR **out_r) CHECKED;

#endif
