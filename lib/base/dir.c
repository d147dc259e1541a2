/* Directories to be read. Runs in every daemon that may open one; takes no input. */
#include "base/dir.h"

#include <fcntl.h>
#include <unistd.h>

int
dir_open(int at, const char *path, int flags, DIR **out_r)
{
	int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags), err;

	*out_r = fd < 0 ? NULL : fdopendir(fd);
	if (*out_r)
		return 0;
	err = err_errno();
	if (fd >= 0)
		close(fd);
	return err;
}
