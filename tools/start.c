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

int
cmd_start(struct tool *t, int argc, char **argv)
{
	struct arena arena = { 0 };
	const char *path, *args[5] = { "master", "-c", t->dir, NULL, NULL };
	bool foreground = false;
	int c, status;
	pid_t pid;

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
	pid = foreground ? 0 : fork();
	if (!pid) {
		execv(path, (char *const *)(uintptr_t)args);
		tool_say("%s: %s: correct daemon_directory in main.cf", path, err_str(err_errno()));
		_exit(127);
	}
	status = pid < 0 ? 71 : wait_for(pid);
	if (status)
		tool_say("not started (status %d): see the lines above and the log", status);
	arena_free(&arena);
	return status;
}
