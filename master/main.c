/*
 * master: the supervisor. uid 0 for life (or an ordinary user's for a trial instance); input: its
 * own configuration, signals, the control socket. Starts the daemons in their jails, wires them,
 * keeps them alive, stops them in order.
 *
 *	master [-c DIR] [-F | -b] [-t]
 *
 * -F stays in the foreground (the default), -b goes to the background once all is ready, -t only
 * shows that the program can be loaded.
 */
#include "master/master.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define START_MS 30000 /* what `master -b` waits for all daemons */
#define KILL_AGAIN_MS 2000
#define STOP_MARGIN_MS 10000 /* after stop_timeout, to end what is left and the log */

int64_t
master_now_ms(void)
{
	return ev_now_us() / 1000;
}

static void
usage(void)
{
	fprintf(stderr, "usage: master [-c DIR] [-F | -b] [-t]\n");
	exit(64);
}

static void
finish(struct master *m)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/control", m->set->conf->run_directory);
	(void)unlink(path);
	snprintf(path, sizeof(path), "%s/master.pid", m->set->conf->run_directory);
	(void)unlink(path);
	control_stopped(m);
	event_base_loopbreak(m->base);
}

static void
on_stop_deadline(void *arg)
{
	struct master *m = arg;

	if (!m->stop_late)
		log_event(LOG_stop_timeout,
		    "processes=%zu remedy=\"they are killed; raise stop_timeout if they need "
		    "longer\"",
		    services_alive(m));
	log_flush();
	m->stop_late = true;
	services_stop(m, 1);
	ev_timer_set(m->base, &m->stop_timer, KILL_AGAIN_MS, on_stop_deadline, m);
}

void
master_stop(struct master *m)
{
	char state[80];

	if (m->stopping)
		return;
	m->stopping = true;
	snprintf(state, sizeof(state), "STOPPING=1\nEXTEND_TIMEOUT_USEC=%lld",
	    (long long)(m->set->conf->stop_timeout + STOP_MARGIN_MS) * 1000);
	notify(state); /* the manager's own limit may be less than stop_timeout */
	log_event(LOG_stopping, "processes=%zu", services_alive(m));
	log_flush();
	ev_timer_set(m->base, &m->stop_timer, m->set->conf->stop_timeout, on_stop_deadline, m);
	services_stop(m, 0);
	if (!services_alive(m))
		finish(m);
}

static void
on_signal(evutil_socket_t sig, short what, void *arg)
{
	struct master *m = arg;
	struct buf out = { 0 };
	int status;

	(void)what;
	switch (sig) {
	case SIGCHLD:
		services_reap(m);
		if (m->stopping) {
			services_stop(m, 0);
			if (!services_alive(m))
				finish(m);
		}
		break;
	case SIGHUP:
		master_reload(m, &out, &status);
		break;
	case SIGUSR2:
		if (!upgrade_check(m, &out))
			upgrade_exec(m);
		break;
	default:
		master_stop(m);
	}
	buf_free(&out);
}

static void
watch_signals(struct master *m)
{
	static const int signals[] = { SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR2 };

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		struct event *e = evsignal_new(m->base, signals[i], on_signal, m);
		if (!e || event_add(e, NULL))
			die("cannot watch signals");
	}
}

/* The parent waits for the word of the child: "ok", or the reason why not. */
static void
to_background(struct master *m)
{
	char word[512];
	ssize_t n;
	int fds[2], null;

	if (pipe2(fds, O_CLOEXEC))
		die("pipe: %s", err_str(err_errno()));
	switch (fork()) {
	case -1:
		die("fork: %s", err_str(err_errno()));
	case 0:
		close(fds[0]);
		m->ready_fd = fds[1];
		setsid();
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null >= 0) {
			dup2(null, 0);
			dup2(null, 1);
		}
		return;
	default:
		close(fds[1]);
		if (poll(&(struct pollfd){ .fd = fds[0], .events = POLLIN }, 1, START_MS) == 0) {
			fprintf(stderr,
			    "master: not all daemons are ready after %d s, and it keeps trying: "
			    "see `bulkhead status` and the log\n",
			    START_MS / 1000);
			exit(1);
		}
		n = read(fds[0], word, sizeof(word) - 1);
		if (n == 3 && !memcmp(word, "ok\n", 3))
			exit(0);
		fprintf(stderr, "master: it ended before all daemons were ready: see the lines "
				"above and the log\n");
		exit(1);
	}
}

static void
parse_args(struct master *m, int argc, char **argv, bool *background, bool *only_try)
{
	int c;

	while ((c = getopt(argc, argv, "c:Fbt")) >= 0)
		switch (c) {
		case 'c':
			m->config_dir = optarg;
			break;
		case 'F':
			break; /* the default */
		case 'b':
			*background = true;
			break;
		case 't':
			*only_try = true;
			break;
		default:
			usage();
		}
	if (optind != argc)
		usage();
}

static void
write_pid(struct master *m)
{
	char path[4200], text[32];
	int fd, err, n = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	snprintf(path, sizeof(path), "%s/master.pid", m->set->conf->run_directory);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	err = fd < 0 ? err_errno() : io_write_all(fd, slice(text, (size_t)n));
	if (err)
		log_event(LOG_pid_file, "path=%s reason=\"%s\"", log_cstr(path), err_str(err));
	if (fd >= 0)
		close(fd);
}

static void
already_running(struct master *m)
{
	char path[4200], text[32] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/master.pid", m->set->conf->run_directory);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (read(fd, text, sizeof(text) - 1) > 0) {
		pid_t pid = (pid_t)strtol(text, NULL, 10);
		if (pid > 1 && pid != getpid() && !kill(pid, 0)) {
			char exe[64], target[4096] = "";
			snprintf(exe, sizeof(exe), "/proc/%d/exe", (int)pid);
			if (readlink(exe, target, sizeof(target) - 1) > 0 &&
			    strstr(target, "/master"))
				die("this instance runs already (pid %d): use `bulkhead reload` or "
				    "`bulkhead stop`",
				    (int)pid);
		}
	}
	close(fd);
}

static void
load_or_die(struct master *m)
{
	struct buf problems = { 0 };

	if (!config_load(m, &problems)) {
		fprintf(stderr,
		    "%.*smaster: the configuration in %s has errors: correct the lines above\n",
		    SLICE_ARG((struct slice)buf_slice(&problems)), m->config_dir);
		exit(EXIT_CONFIG);
	}
	if (buf_len(&problems))
		fprintf(stderr, "%.*s", SLICE_ARG((struct slice)buf_slice(&problems)));
	buf_free(&problems);
}

static void
loop(struct master *m)
{
	while (!event_base_got_break(m->base)) {
		if (event_base_loop(m->base, EVLOOP_ONCE) < 0)
			die("event loop: %s", err_str(err_errno()));
		log_flush();
	}
}

int
main(int argc, char **argv)
{
	static struct master m = { .ready_fd = -1, .upgrade_fd = -1, .log_pair = { -1, -1 } };
	bool background = false, only_try = false;

	m.argv = argv;
	parse_args(&m, argc, argv, &background, &only_try);
	if (only_try) {
		if (m.config_dir)
			load_or_die(&m);
		return 0;
	}
	if (!m.config_dir)
		m.config_dir = (char *)(uintptr_t) "/etc/bulkhead";
	umask(022);
	m.unprivileged = geteuid() != 0;
	TAILQ_INIT(&m.services);
	LIST_INIT(&m.listeners);
	LIST_INIT(&m.clients);
	LIST_INIT(&m.pairs);
	upgrade_resume(&m);
	load_or_die(&m);
	if (!m.upgrading)
		already_running(&m);
	if (background && !m.upgrading)
		to_background(&m);
	if (m.unprivileged)
		fprintf(stderr, "master: run by an ordinary user: one uid for all daemons and no "
				"chroot; the rest of the jails as ever\n");
	if (m.log_pair[0] < 0 && ipc_pair(m.log_pair))
		die("socketpair: %s", err_str(err_errno()));
	log_init(-1, ROLE_MASTER, LOG_INFO_); /* to stderr until somebody reads the log's socket */
	m.base = ev_base_new();
	m.io = ipc_io_new(m.base, ROLE_MASTER);
	watch_signals(&m);
	if (directories_make(&m) || tls_prepare(&m) || control_open(&m))
		die("start failed: see the lines before");
	write_pid(&m);
	services_build(&m);
	upgrade_take_keys(&m);
	if (service_by_role(&m, ROLE_LOG))
		log_init(m.log_pair[1], ROLE_MASTER, LOG_INFO_);
	security_tell_missing();
	services_reap(&m); /* of the former master's, of which no signal tells; and starts all */
	tls_rotate(&m);
	loop(&m);
	return 0;
}
