/*
 * Upgrade in place: the new binary is tried with -t, on the configuration as it is now, the old
 * daemons are told to finish, and master re-execs itself with the same pid. Listening sockets and
 * the log's socket pass over the exec by descriptor; what they are stands in a memfd (handover.c)
 * that UPGRADE_ENV points to. The connections that wait in a listening socket wait for the new
 * acceptor. Old children go on as orphans until their sessions end.
 */
#include "master/master.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define UPGRADE_ENV "BULKHEAD_UPGRADE_FD"
#define TRY_MS 10000 /* master does nothing else meanwhile */
#define READ_SIZE ((size_t)4096)

/* Until the process has ended, or its time is up. */
static int
wait_for_end(pid_t pid)
{
	struct pollfd ended = { .fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN };
	int64_t left, end = master_now_ms() + TRY_MS;
	int n, err = 0;

	if (ended.fd < 0)
		return err_errno();
	do {
		left = end - master_now_ms();
		n = left > 0 ? poll(&ended, 1, (int)left) : 0;
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		err = n ? err_errno() : -ETIMEDOUT;
	close(ended.fd);
	return err;
}

/* ERR_SYNTAX: it does not take the configuration. */
static int
try_new(const char *path, const char *config_dir)
{
	int status, err;
	pid_t pid = fork();

	if (!pid) {
		setpgid(0, 0);
		execl(path, path, "-c", config_dir, "-t", (char *)NULL);
		_exit(127);
	}
	if (pid < 0)
		return err_errno();
	err = wait_for_end(pid);
	if (err && kill(-pid, SIGKILL))
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return err_errno();
	if (err)
		return err;
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_CONFIG)
		return ERR_SYNTAX;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : ERR_STATE;
}

static void
stay_open(int fd, bool stay)
{
	(void)fcntl(fd, F_SETFD, stay ? 0 : FD_CLOEXEC);
}

static void
sockets_stay(struct master *m, bool stay)
{
	struct listener *l;

	stay_open(m->log_pair[0], stay);
	stay_open(m->log_pair[1], stay);
	LIST_FOREACH(l, &m->listeners, next)
		if (!l->until)
			stay_open(l->fd, stay);
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
	int err = try_new(program(m, path), m->config_dir);
	const char *remedy = "install what it needs", *why = "does not start";

	if (!err)
		return 0;
	if (err == -ETIMEDOUT) {
		buf_addf(out, "%s did not end within %d s (-t).", path, TRY_MS / 1000);
		why = "did not end in time";
	} else if (err == ERR_SYNTAX) {
		buf_addf(out, "%s finds errors in the configuration: run bulkhead check.", path);
		why = "finds errors in the configuration";
		remedy = "run `bulkhead check`";
	} else {
		buf_addf(out, "%s does not start (-t): a missing library?", path);
	}
	buf_add_str(out, " The running suite goes on.\n");
	log_event(LOG_upgrade_refused, "program=%s reason=\"it %s (-t)\" remedy=\"%s\"",
	    log_cstr(path), why, remedy);
	return 1;
}

void
upgrade_exec(struct master *m)
{
	char path[4200], number[16];
	int fd = handover_write(m), err = fd;

	if (fd >= 0) {
		log_event(LOG_upgrade, "program=%s", log_cstr(program(m, path)));
		log_flush();
		services_stop_for_upgrade(m);
		snprintf(number, sizeof(number), "%d", fd);
		setenv(UPGRADE_ENV, number, 1);
		sockets_stay(m, true);
		execv(path, m->argv);
		err = err_errno();
		sockets_stay(m, false);
		unsetenv(UPGRADE_ENV);
		handover_close(fd);
	}
	log_event(LOG_upgrade_failed, "reason=\"%s\" remedy=\"restart the suite\"", err_str(err));
}

/* Into a buffer of the file's size, so that no growth leaves copies of keys behind. */
static void
read_state(int fd, struct buf *state)
{
	struct stat st;

	if (fstat(fd, &st) || lseek(fd, 0, SEEK_SET))
		return;
	(void)buf_reserve(state, (size_t)st.st_size + READ_SIZE);
	while (buf_read(state, fd, READ_SIZE) > 0)
		;
}

/* At start: the sockets that the former master left, if this is its successor. */
void
upgrade_resume(struct master *m)
{
	const char *number = getenv(UPGRADE_ENV);
	struct buf state = { 0 };
	uint64_t fd;

	if (!number || slice_u64(slice_str(number), 1 << 20, &fd))
		return;
	unsetenv(UPGRADE_ENV);
	if (fcntl((int)fd, F_GET_SEALS) < 0 || fcntl((int)fd, F_SETFD, FD_CLOEXEC))
		return; /* no memfd */
	m->upgrade_fd = (int)fd;
	m->upgrading = true;
	read_state(m->upgrade_fd, &state);
	handover_take_sockets(m, buf_slice(&state));
	buf_wipe(&state);
}

/* When there are services: the keys that the former master drew for them. */
void
upgrade_take_keys(struct master *m)
{
	struct buf state = { 0 };

	if (!m->upgrading)
		return;
	read_state(m->upgrade_fd, &state);
	handover_take_keys(m, buf_slice(&state));
	buf_wipe(&state);
	handover_close(m->upgrade_fd);
	m->upgrade_fd = -1;
}
