/*
 * Replays seeds through a fuzz target in builds without libFuzzer: `make replay` and `make check`.
 * Arguments: files, or directories of files.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t replayed;

static void
replay_file(const char *path)
{
	struct stat st;
	uint8_t *data;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0 || fstat(fd, &st)) {
		perror(path);
		exit(1);
	}
	data = malloc(st.st_size ? (size_t)st.st_size
				 : 1); /* exact size, so that ASan sees one byte past it */
	n = data ? read(fd, data, (size_t)st.st_size) : -1;
	close(fd);
	if (n != st.st_size) {
		perror(path);
		exit(1);
	}
	LLVMFuzzerTestOneInput(data, (size_t)n);
	free(data);
	replayed++;
}

static void
replay(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	char file[4096];

	if (!dir) {
		replay_file(path);
		return;
	}
	while ((e = readdir(dir))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
		replay(file);
	}
	closedir(dir);
}

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	if (!replayed) {
		fprintf(stderr, "no seeds replayed: a target without seeds checks nothing\n");
		return 1;
	}
	printf("%zu seeds\n", replayed);
	return 0;
}
