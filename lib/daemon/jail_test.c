/*
 * The jails from inside: a process of each role enters its jail and tries what it may not. Needs
 * root for uid and chroot; as an ordinary user the rest of the jail is tested.
 */
#include "daemon/jail.h"

#include "daemon/log.h"
#include "daemon/private.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define MAYBE_UNUSED __attribute__((unused)) /* a sanitizer build cannot forbid it */

static char top[64], root[80];
static uint16_t listening; /* a port that no transport names */

enum outcome { ALLOWED = 0, REFUSED = 1, KILLED = 2, NO_JAIL = 3, OTHER = 4 };

/* Runs try() in the jail of a role, in a process of its own. */
static enum outcome
inside(enum role role, int (*try)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		static const uint16_t named[] = { 25 };
		gid_t gid = 799999;
		struct jail_args a = { .role = role,
			.unprivileged = geteuid() != 0,
			.uid = 799999,
			.gid = gid,
			.groups = &gid,
			.ngroups = 1,
			.root = strcmp(role_table[role].root, "-") ? root : NULL,
			.ports = named,
			.nports = role == ROLE_SMTP_CLIENT,
			.root_fd = -1,
			.first_valid_uid = 1000 };
		char why[512];
		if (freopen("/dev/null", "w", stderr) == NULL)
			_exit(OTHER);
		if (jail_enter(&a, why, sizeof(why)))
			_exit(NO_JAIL);
		_exit(try() < 0 ? REFUSED : ALLOWED);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == SIGSYS ? KILLED : OTHER;
	return (enum outcome)WEXITSTATUS(status);
}

static int
try_nothing(void)
{
	return 0;
}
static int
try_open_passwd(void)
{
	return open("/etc/passwd", O_RDONLY);
}
static int
try_open_dotdot(void)
{
	return open("../../../../etc/passwd", O_RDONLY);
}
static int
try_open_root(void)
{
	return open(".", O_RDONLY | O_DIRECTORY);
}
static int
try_create(void)
{
	return open("x", O_WRONLY | O_CREAT, 0600);
}
static MAYBE_UNUSED int
try_o_path(void)
{
	return open(".", O_PATH);
}
static int
try_socket_inet(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}
static int
try_socket_udp(void)
{
	return socket(AF_INET, SOCK_DGRAM, 0);
}
static struct sockaddr_in
there(void)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
		.sin_port = htons(listening),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}
static int
try_other_port(void)
{
	struct sockaddr_in sa = there();
	return connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&sa, sizeof(sa));
}
static int
try_other_port_mptcp(void)
{
	struct sockaddr_in sa = there();
	int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
	return fd < 0 ? fd : connect(fd, (struct sockaddr *)&sa, sizeof(sa));
}
static int
try_other_port_by_send(void)
{
	struct sockaddr_in sa = there();
	return (int)sendto(socket(AF_INET, SOCK_STREAM, 0), "x", 1, MSG_FASTOPEN,
	    (struct sockaddr *)&sa, sizeof(sa));
}
static int
try_other_port_by_message(void)
{
	struct sockaddr_in sa = there();
	struct msghdr m = { .msg_name = &sa, .msg_namelen = sizeof(sa) };
	return (int)sendmsg(socket(AF_INET, SOCK_STREAM, 0), &m, MSG_FASTOPEN);
}
static int
try_log_shutdown(void)
{
	return shutdown(FD_LOG, SHUT_RDWR);
}
static int
try_log_high_bits(void)
{
	return (int)syscall(SYS_shutdown, 1UL << 32 | FD_LOG, SHUT_RDWR);
}
static int
try_log_buffer(void)
{
	return setsockopt(FD_LOG, SOL_SOCKET, SO_SNDBUF, &(int){ 1 }, sizeof(int));
}
static int
try_log_dup(void)
{
	return dup(FD_LOG);
}
static int
try_log_dup3(void)
{
	return dup3(FD_LOG, 20, 0);
}
static int
try_log_fcntl(void)
{
	return fcntl(FD_LOG, F_DUPFD, 20);
}
static int
try_socket_unix(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}
static int
try_socket_raw(void)
{
	return socket(AF_NETLINK, SOCK_RAW, 0);
}
static int
try_socketpair(void)
{
	int fds[2];
	return socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
}
static MAYBE_UNUSED int
try_fork(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return pid;
}
static int
try_exec(void)
{
	char *argv[] = { NULL };
	return execve("/bin/true", argv, argv);
}
static int
try_ptrace(void)
{
	return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}
static int
try_io_uring(void)
{
	return (int)syscall(SYS_io_uring_setup, 1, NULL);
}
static int
try_mount(void)
{
	return (int)syscall(SYS_mount, "x", "/", "tmpfs", 0, NULL);
}
static int
try_bpf(void)
{
	return (int)syscall(SYS_bpf, 0, NULL, 0);
}
static int
try_setuid0(void)
{
	return setresuid(0, 0, 0);
}
static int
try_setuid_high_bits(void)
{
	return (int)syscall(SYS_setresuid, 1UL << 32, 1UL << 32, 1UL << 32);
}
static int
try_setuid_low(void)
{
	return setresuid(999, 999, 999);
}
static int
try_setuid_ok(void)
{
	return setresuid(1000, 1000, 1000);
}
static MAYBE_UNUSED int
try_kill(void)
{
	return kill(getppid(), SIGCONT);
}
static int
try_bind(void)
{
	return (int)syscall(SYS_bind, 0, NULL, 0);
}
static int
try_listen(void)
{
	return (int)syscall(SYS_listen, 0, 1);
}
static int
try_connect(void)
{
	return (int)syscall(SYS_connect, 0, NULL, 0);
}
static int
try_inotify(void)
{
	return inotify_init1(IN_CLOEXEC);
}
static int
try_chroot(void)
{
	return chroot(".");
}
static int
try_mkdir(void)
{
	return mkdir("d", 0700);
}
static int
try_unlink(void)
{
	return unlink("nothing") && errno == EACCES ? -1 : 0;
}
static int
try_thread_less_clone(void)
{
	return (int)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
}
static MAYBE_UNUSED int
try_exec_map(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
		       MAP_FAILED
		   ? -1
		   : 0;
}
static MAYBE_UNUSED int
try_sigsys_handler(void)
{
	return signal(SIGSYS, SIG_IGN) == SIG_ERR ? -1 : 0;
}
static int
try_dumpable(void)
{
	return prctl(PR_SET_DUMPABLE, 1);
}
static int
try_keyctl(void)
{
	return (int)syscall(SYS_keyctl, 0);
}
static int
try_unix_abstract(void)
{
	return (int)syscall(SYS_openat2, -1, "x", NULL, 0);
}

struct attempt {
	const char *name;
	int (*try)(void);
};

/* What no allow-listed role may do, whatever its promises. */
static const struct attempt never[] = {
	{ "open /etc/passwd", try_open_passwd },
	{ "walk ..", try_open_dotdot },
	{ "exec", try_exec },
	{ "ptrace", try_ptrace },
	{ "io_uring", try_io_uring },
	{ "mount", try_mount },
	{ "bpf", try_bpf },
	{ "setuid 0", try_setuid0 },
	{ "netlink", try_socket_raw },
	{ "keyctl", try_keyctl },
	{ "become dumpable", try_dumpable },
	{ "namespace", try_thread_less_clone },
	{ "openat2", try_unix_abstract },
#ifndef SANITIZED
	{ "executable memory", try_exec_map },
	{ "SIGSYS handler", try_sigsys_handler },
	{ "O_PATH", try_o_path },
#endif
};

static const enum role listed[] = { ROLE_SMTPD, ROLE_SMTPD_CHILD, ROLE_SUBMISSION,
	ROLE_SUBMISSION_CHILD, ROLE_LOGIN, ROLE_LOGIN_CHILD, ROLE_AUTH, ROLE_DNS, ROLE_QMGR,
	ROLE_PICKUP, ROLE_SMTP_CLIENT, ROLE_BOUNCE, ROLE_DELIVERY, ROLE_BROKER, ROLE_IMAPD_CHILD,
	ROLE_POP3D_CHILD, ROLE_LOG, ROLE_METRICS };

static bool
may(enum role role, const char *promise)
{
	return strstr(jail_promises(role), promise) != NULL;
}

static void
expect(enum role role, const struct attempt *a, bool allowed)
{
	enum outcome got = inside(role, a->try);
	bool ok = allowed ? got == ALLOWED : got == REFUSED || got == KILLED;

	if (!ok)
		fail_msg("%s: '%s' was %s (outcome %d)", role_table[role].name, a->name,
		    allowed ? "expected to work" : "not stopped", (int)got);
}

static void
test_never(void **state)
{
	(void)state;
	for (size_t r = 0; r < sizeof(listed) / sizeof(listed[0]); r++) {
		if (inside(listed[r], try_nothing) != ALLOWED)
			fail_msg("%s: cannot enter its jail", role_table[listed[r]].name);
		for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
			if (!(may(listed[r], "fork") &&
				never[i].try ==
				    try_dumpable)) /* prctl is for jailing the children */
				expect(listed[r], &never[i], false);
	}
}

/* Each promise with a call just inside of it, and every role without the promise refused. */
static void
test_promises(void **state)
{
	static const struct {
		const char *promise;
		struct attempt attempt;
	} rows[] = {
		{ "pair", { "socketpair", try_socketpair } },
		{ "inet", { "TCP socket", try_socket_inet } },
		{ "unix", { "unix socket", try_socket_unix } },
		{ "inotify", { "inotify", try_inotify } },
		{ "path", { "open the root", try_open_root } },
#ifndef SANITIZED
		{ "fork", { "fork", try_fork } },
#endif
	};

	(void)state;
	for (size_t r = 0; r < sizeof(listed) / sizeof(listed[0]); r++)
		for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
			expect(listed[r], &rows[i].attempt, may(listed[r], rows[i].promise));
}

static void
test_without_promise(void **state)
{
	static const struct {
		const char *promise;
		struct attempt attempt;
	} rows[] = {
		{ "bind", { "bind", try_bind } },
		{ "accept", { "listen", try_listen } },
		{ "become", { "chroot", try_chroot } },
		{ "wpath", { "mkdir", try_mkdir } },
		{ "wpath", { "create", try_create } },
		{ "wpath", { "unlink", try_unlink } },
#ifndef SANITIZED
		{ "fork", { "kill", try_kill } },
#endif
	};

	(void)state;
	for (size_t r = 0; r < sizeof(listed) / sizeof(listed[0]); r++)
		for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
			if (!may(listed[r], rows[i].promise))
				expect(listed[r], &rows[i].attempt, false);
	expect(ROLE_SMTPD_CHILD, &(struct attempt){ "connect", try_connect }, false);
	expect(ROLE_LOGIN_CHILD, &(struct attempt){ "connect", try_connect }, false);
}

/* The log's socket is one for all: nobody may spoil it for the others, nor a copy of it. */
static void
test_log_is_kept(void **state)
{
	static const struct attempt rows[] = {
		{ "shut down the log", try_log_shutdown },
		{ "the same with high bits", try_log_high_bits },
		{ "take its buffer", try_log_buffer },
		{ "dup it", try_log_dup },
		{ "dup3 it", try_log_dup3 },
		{ "fcntl it", try_log_fcntl },
	};
	int fds[2], former = dup(FD_LOG);
	char c;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	assert_int_equal(dup2(fds[0], FD_LOG), FD_LOG);
	for (size_t r = 0; r < sizeof(listed) / sizeof(listed[0]); r++)
		for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
			expect(listed[r], &rows[i], false);
	assert_int_equal(send(FD_LOG, "x", 1, MSG_NOSIGNAL), 1);
	assert_int_equal(recv(fds[1], &c, 1, 0), 1);
	if (former >= 0) {
		assert_int_equal(dup2(former, FD_LOG), FD_LOG);
		close(former);
	} else {
		close(FD_LOG);
	}
	if (fds[0] != FD_LOG)
		close(fds[0]);
	if (fds[1] != FD_LOG)
		close(fds[1]);
}

/* No way around the ports that the transports name. */
static void
test_other_ports(void **state)
{
	static const struct attempt rows[] = {
		{ "a port that no transport names", try_other_port },
		{ "the same by MPTCP", try_other_port_mptcp },
		{ "the same by a send", try_other_port_by_send },
		{ "the same by a message", try_other_port_by_message },
		{ "UDP", try_socket_udp },
	};
	struct sockaddr_in sa = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* its version */) < 4)
		skip();
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, n), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
	listening = ntohs(sa.sin_port);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		expect(ROLE_SMTP_CLIENT, &rows[i], false);
	expect(ROLE_DNS, &rows[4], true);
	close(fd);
}

/* Programs of users, and those who start them, make no namespace, in which they would be root. */
static void
test_no_namespaces(void **state)
{
	static const enum role roles[] = { ROLE_PROGRAM, ROLE_LOCAL, ROLE_PAM };

	(void)state;
	for (size_t i = 0; i < 3; i++)
		expect(roles[i], &(struct attempt){ "namespace", try_thread_less_clone }, false);
}

/* auth reads in its root (urandom) and writes nothing there. */
static void
test_auth_writes_nothing(void **state)
{
	(void)state;
	expect(ROLE_AUTH, &(struct attempt){ "create", try_create }, false);
	expect(ROLE_AUTH, &(struct attempt){ "mkdir", try_mkdir }, false);
}

static void
test_zygotes_become_no_low_uid(void **state)
{
	static const enum role zygotes[] = { ROLE_LOCAL, ROLE_IMAPD, ROLE_POP3D };

	(void)state;
	if (geteuid() != 0)
		skip();
	for (size_t i = 0; i < 3; i++) {
		expect(zygotes[i], &(struct attempt){ "setresuid(0)", try_setuid0 }, false);
		expect(zygotes[i], &(struct attempt){ "setresuid(2^32)", try_setuid_high_bits },
		    false);
		expect(zygotes[i], &(struct attempt){ "setresuid(999)", try_setuid_low }, false);
		expect(zygotes[i], &(struct attempt){ "setresuid(1000)", try_setuid_ok }, true);
	}
	expect(ROLE_BROKER, &(struct attempt){ "setresuid(1000)", try_setuid_ok }, false);
}

static int
setup(void **state)
{
	(void)state;
	snprintf(top, sizeof(top), "/tmp/bulkhead-jail-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	snprintf(root, sizeof(root), "%s/root", top);
	return mkdir(root, 0777) || chmod(top, 0755) || chmod(root, 0777);
}

static int
teardown(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		char path[128];
		snprintf(path, sizeof(path), "%s/%s", root, i ? "d" : "x");
		(void)remove(path);
	}
	return rmdir(root) || rmdir(top);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_never),
		cmocka_unit_test(test_promises),
		cmocka_unit_test(test_without_promise),
		cmocka_unit_test(test_log_is_kept),
		cmocka_unit_test(test_other_ports),
		cmocka_unit_test(test_no_namespaces),
		cmocka_unit_test(test_auth_writes_nothing),
		cmocka_unit_test(test_zygotes_become_no_low_uid),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
