/*
 * Upgrade in place: the new binary is tried with -t, the old daemons are told to finish, and master
 * re-execs itself with the same pid. Listening sockets and the log's socket pass over the exec by
 * descriptor; their names stand in a memfd that UPGRADE_ENV points to. The connections that wait in
 * a listening socket wait for the new acceptor. Old children go on as orphans until their sessions
 * end.
 */
#include "master/master.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define UPGRADE_ENV "BULKHEAD_UPGRADE_FD"

static int
try_new(const char *path)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		execl(path, path, "-t", (char *)NULL);
		_exit(127);
	}
	if (pid < 0)
		return err_errno();
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return err_errno();
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : ERR_STATE;
}

static void
stay_open(int fd)
{
	(void)fcntl(fd, F_SETFD, 0);
}

static int
write_state(struct master *m)
{
	struct buf state = { 0 };
	struct listener *l;
	int fd = memfd_create("upgrade", 0), err;

	if (fd < 0)
		return err_errno();
	buf_addf(&state, "log %d %d\n", m->log_pair[0], m->log_pair[1]);
	stay_open(m->log_pair[0]);
	stay_open(m->log_pair[1]);
	LIST_FOREACH(l, &m->listeners, next) {
		if (l->until)
			continue;
		buf_addf(&state, "listener %d %d %s\n", l->fd, l->local, l->name);
		stay_open(l->fd);
	}
	err = io_write_all(fd, buf_slice(&state));
	buf_free(&state);
	if (!err)
		return fd;
	close(fd); /* half of it would lose listeners */
	return err;
}

static const char *
program(struct master *m, char path[4200])
{
	snprintf(path, 4200, "%s/master", m->set->conf->daemon_directory);
	return path;
}

int
upgrade_check(struct master *m, struct buf *out)
{
	char path[4200];

	if (!try_new(program(m, path)))
		return 0;
	buf_addf(
	    out, "%s does not start (-t): a missing library? The running suite goes on.\n", path);
	log_event(LOG_upgrade_refused,
	    "program=%s reason=\"it does not start (-t)\" remedy=\"install what it needs\"",
	    log_cstr(path));
	return 1;
}

void
upgrade_exec(struct master *m)
{
	char path[4200], number[16];
	int fd = write_state(m);

	if (fd >= 0) {
		log_event(LOG_upgrade, "program=%s", log_cstr(program(m, path)));
		log_flush();
		services_stop_for_upgrade(m);
		snprintf(number, sizeof(number), "%d", fd);
		setenv(UPGRADE_ENV, number, 1);
		execv(path, m->argv);
	}
	log_event(LOG_upgrade_failed, "reason=\"%s\" remedy=\"restart the suite\"",
	    err_str(fd < 0 ? fd : err_errno()));
	unsetenv(UPGRADE_ENV);
}

static void
take_line(struct master *m, const char *line)
{
	int a, b, at = 0;

	if (sscanf(line, "log %d %d", &a, &b) == 2) {
		m->log_pair[0] = a;
		m->log_pair[1] = b;
	} else if (sscanf(line, "listener %d %d %n", &a, &b, &at) == 2 && at) {
		struct listener *l = xcalloc(1, sizeof(*l));
		l->fd = a;
		l->local = b;
		snprintf(l->name, sizeof(l->name), "%s", line + at);
		LIST_INSERT_HEAD(&m->listeners, l, next);
	} else {
		return;
	}
	(void)fcntl(a, F_SETFD, FD_CLOEXEC);
	if (!at)
		(void)fcntl(b, F_SETFD, FD_CLOEXEC);
}

/* At start: the state that the former master left, if this is its successor. */
void
upgrade_resume(struct master *m)
{
	const char *number = getenv(UPGRADE_ENV);
	struct buf state = { 0 };
	struct slice rest;
	uint64_t fd;

	if (!number || slice_u64(slice_str(number), 1 << 20, &fd))
		return;
	unsetenv(UPGRADE_ENV);
	if (lseek((int)fd, 0, SEEK_SET))
		return;
	while (buf_read(&state, (int)fd, 4096) > 0)
		;
	close((int)fd);
	m->upgrading = true;
	for (rest = buf_slice(&state); rest.n;) {
		char *line = slice_dup(slice_split(&rest, '\n'));
		take_line(m, line);
		free(line);
	}
	buf_free(&state);
}
