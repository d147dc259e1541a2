/*
 * `bulkhead start`: checks the configuration, then starts master, which answers on a pipe when
 * every daemon is ready or why not. Runs as the caller: root, or an ordinary user for an instance
 * of its own.
 */
#include "tools/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Only what keeps master from running; bulkhead check tells the rest. */
static bool
configuration_good(struct tool *t)
{
	size_t i;

	(void)tool_conf(t);
	for (i = 0; i < t->problems.n; i++) {
		struct buf line = { 0 };

		conf_problem_format(&t->problems.v[i], &line);
		fprintf(stderr, "%.*s\n", SLICE_ARG(buf_slice(&line)));
		buf_free(&line);
	}
	if (t->problems.errors)
		tool_say(
		    "not started: correct the configuration; bulkhead check looks at the rest too");
	return t->problems.errors == 0;
}

static int
wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 71;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 70;
}

/*
 * What daemons say on stderr (a crash in a library, a sanitizer, the log's last resort) goes to a
 * file when they run in the background: the caller's own stderr would stay open for as long as they
 * live.
 */
static int
open_stderr(struct tool *t, char **path_r)
{
	const char *folder = tool_conf(t)->run_directory;

	*path_r = xasprintf("%s/stderr", folder);
	(void)mkdir(folder, 0755);
	return open(*path_r, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
}

static void
show_file(int fd)
{
	char part[4096];
	ssize_t n;

	if (lseek(fd, 0, SEEK_SET))
		return;
	while ((n = read(fd, part, sizeof(part))) > 0)
		fwrite(part, 1, (size_t)n, stderr);
}

static int
in_background(struct tool *t, const char *path, const char **args)
{
	char *name;
	int fd = open_stderr(t, &name), status;
	pid_t pid = fork();

	if (!pid) {
		if (fd >= 0)
			dup2(fd, STDERR_FILENO);
		execv(path, (char *const *)(uintptr_t)args);
		tool_say("%s: %s: correct daemon_directory in main.cf", path, err_str(err_errno()));
		_exit(127);
	}
	status = pid < 0 ? 71 : wait_for(pid);
	if (fd >= 0) {
		show_file(fd);
		close(fd);
	}
	free(name);
	return status;
}

int
cmd_start(struct tool *t, int argc, char **argv)
{
	struct arena arena = { 0 };
	const char *path, *args[5] = { "master", "-c", t->dir, NULL, NULL };
	bool foreground = false;
	int c, status;

	while ((c = getopt(argc, argv, "+f")) != -1) {
		if (c == '?')
			return 64;
		foreground = true;
	}
	if (!configuration_good(t))
		return 78;
	if (control_alive(t)) {
		tool_say("the suite runs already: bulkhead reload takes a new configuration");
		return 0;
	}
	path = tool_program(t, "master", &arena);
	if (!foreground)
		args[3] = "-b";
	fflush(stdout);
	if (foreground) {
		execv(path, (char *const *)(uintptr_t)args);
		tool_say("%s: %s: correct daemon_directory in main.cf", path, err_str(err_errno()));
		arena_free(&arena);
		return 127;
	}
	status = in_background(t, path, args);
	if (status)
		tool_say("not started (status %d): see the lines above and the log", status);
	arena_free(&arena);
	return status;
}
