/*
 * Promises as syscalls, and the row of promises of each role: the one place that says what a jail
 * lets through. Read by jail.c at the start of every process; takes no input. A sanitizer build
 * widens it here and nowhere else.
 */
#include "daemon/promises.h"

#include <seccomp.h>

#define CALL(x) SCMP_SYS(x)
#define ROW(p, name) [p] = { name, calls_##p, sizeof(calls_##p) / sizeof(int) }

static const int calls_P_STDIO[] = {
	CALL(read),
	CALL(write),
	CALL(readv),
	CALL(writev),
	CALL(pread64),
	CALL(pwrite64),
	CALL(preadv),
	CALL(pwritev),
	CALL(close),
	CALL(close_range),
	CALL(lseek),
	CALL(dup),
	CALL(dup3),
	CALL(fcntl),
	CALL(munmap),
	CALL(mremap),
	CALL(madvise),
	CALL(brk),
	CALL(futex),
	CALL(rt_sigreturn),
	CALL(rt_sigprocmask),
	CALL(sigaltstack),
	CALL(clock_gettime),
	CALL(clock_getres),
	CALL(clock_nanosleep),
	CALL(nanosleep),
	CALL(gettimeofday),
	CALL(time),
	CALL(getpid),
	CALL(gettid),
	CALL(getppid),
	CALL(getuid),
	CALL(geteuid),
	CALL(getgid),
	CALL(getegid),
	CALL(getresuid),
	CALL(getresgid),
	CALL(getrandom),
	CALL(epoll_create1),
	CALL(epoll_ctl),
	CALL(epoll_wait),
	CALL(epoll_pwait),
	CALL(epoll_pwait2),
	CALL(poll),
	CALL(ppoll),
	CALL(eventfd2),
	CALL(pipe2),
	CALL(exit),
	CALL(exit_group),
	CALL(restart_syscall),
	CALL(sched_yield),
	CALL(sched_getaffinity),
	CALL(getrusage),
	CALL(uname),
	CALL(sysinfo),
	CALL(membarrier),
	CALL(rseq),
	CALL(set_robust_list),
	CALL(set_tid_address),
	CALL(getcpu),
	CALL(recvmsg),
	CALL(recvmmsg),
	CALL(recvfrom),
	CALL(sendmsg),
	CALL(sendto),
	CALL(shutdown),
	CALL(getsockopt),
	CALL(setsockopt),
	CALL(getsockname),
	CALL(getpeername),
	CALL(fstat),
	CALL(newfstatat),
	CALL(memfd_create),
	CALL(ftruncate),
	CALL(getgroups),
	CALL(capget),
	CALL(times),
	CALL(getrlimit),
#ifdef SANITIZED
	CALL(mmap),
	CALL(mprotect),
	CALL(prlimit64),
	CALL(clone),
	CALL(clone3),
	CALL(wait4),
	CALL(readlink),
	CALL(openat),
	CALL(personality),
	CALL(kill),
	CALL(rt_sigaction),
	CALL(sched_setaffinity),
	CALL(setrlimit),
	CALL(msync),
	CALL(mincore),
#endif
#ifdef __SANITIZE_THREAD__ /* its runtime, where a process with threads forks or ends */
	CALL(tgkill),
#endif
};
static const int calls_P_ACCEPT[] = { CALL(accept4), CALL(listen) };
static const int calls_P_PAIR[] = { CALL(socketpair) };
static const int calls_P_FORK[] = { CALL(wait4), CALL(waitid), CALL(kill), CALL(prctl),
	CALL(pidfd_open), CALL(seccomp), CALL(landlock_create_ruleset), CALL(landlock_add_rule),
	CALL(landlock_restrict_self), CALL(prlimit64), CALL(setrlimit), CALL(capset) };
static const int calls_P_BECOME[] = { CALL(setgroups), CALL(setresuid), CALL(setresgid),
	CALL(chroot), CALL(fchdir), CALL(chdir), CALL(capset), CALL(prctl), CALL(umask), CALL(kill),
	CALL(setsid) };
static const int calls_P_THREAD[] = { CALL(sched_setscheduler), CALL(sched_getparam),
	CALL(sched_getscheduler), CALL(sched_get_priority_max), CALL(sched_get_priority_min) };
static const int calls_P_INET[] = { CALL(connect) };
static const int calls_P_UDP[] = { CALL(connect) };
static const int calls_P_BIND[] = { CALL(bind) };
static const int calls_P_RPATH[] = { CALL(access), CALL(faccessat), CALL(faccessat2), CALL(stat),
	CALL(lstat), CALL(statx), CALL(getdents64), CALL(statfs), CALL(fstatfs), CALL(readlink),
	CALL(readlinkat), CALL(fadvise64), CALL(flock), CALL(getcwd) };
static const int calls_P_WPATH[] = { CALL(access), CALL(faccessat), CALL(faccessat2), CALL(stat),
	CALL(lstat), CALL(statx), CALL(getdents64), CALL(statfs), CALL(fstatfs), CALL(fadvise64),
	CALL(flock), CALL(rename), CALL(renameat), CALL(renameat2), CALL(unlink), CALL(unlinkat),
	CALL(mkdir), CALL(mkdirat), CALL(rmdir), CALL(link), CALL(linkat), CALL(fsync),
	CALL(fdatasync), CALL(msync), CALL(sync_file_range), CALL(syncfs), CALL(fallocate),
	CALL(utimensat), CALL(futimesat), CALL(utimes), CALL(fchmod), CALL(fchmodat), CALL(umask),
	CALL(copy_file_range), CALL(sendfile), CALL(getcwd) };
static const int calls_P_INOTIFY[] = { CALL(inotify_init1), CALL(inotify_add_watch),
	CALL(inotify_rm_watch) };
static const int calls_P_MAPEXEC[] = { CALL(mmap), CALL(mprotect), CALL(fstatfs) };
static const int calls_P_UNIX[] = { CALL(connect) };
static const int calls_P_ANYTHING[] = { CALL(read) };

const struct promise_row promise_table[P_COUNT] = {
	ROW(P_STDIO, "stdio"),
	ROW(P_ACCEPT, "accept"),
	ROW(P_PAIR, "pair"),
	ROW(P_FORK, "fork"),
	ROW(P_BECOME, "become"),
	ROW(P_THREAD, "thread"),
	ROW(P_INET, "inet"),
	ROW(P_UDP, "udp"),
	ROW(P_BIND, "bind"),
	ROW(P_RPATH, "rpath"),
	ROW(P_WPATH, "wpath"),
	ROW(P_INOTIFY, "inotify"),
	ROW(P_MAPEXEC, "mapexec"),
	ROW(P_UNIX, "unix"),
	ROW(P_ANYTHING, "anything"),
};

const int jail_denied_calls[] = { CALL(io_uring_setup), CALL(io_uring_enter),
	CALL(io_uring_register), CALL(ptrace), CALL(process_vm_readv), CALL(process_vm_writev),
	CALL(mount), CALL(umount2), CALL(pivot_root), CALL(move_mount), CALL(open_tree),
	CALL(fsopen), CALL(fsmount), CALL(fsconfig), CALL(bpf), CALL(keyctl), CALL(add_key),
	CALL(request_key), CALL(init_module), CALL(finit_module), CALL(delete_module),
	CALL(kexec_load), CALL(kexec_file_load), CALL(perf_event_open), CALL(userfaultfd),
	CALL(unshare), CALL(setns), CALL(swapon), CALL(swapoff), CALL(reboot), CALL(acct),
	CALL(settimeofday), CALL(clock_settime), CALL(open_by_handle_at), CALL(quotactl),
	CALL(sethostname), CALL(setdomainname), CALL(mknod), CALL(mknodat), CALL(iopl),
	CALL(ioperm), CALL(kcmp), CALL(pidfd_getfd), CALL(setfsuid), CALL(setfsgid), CALL(setuid),
	CALL(setgid), CALL(setreuid), CALL(setregid) };
const size_t jail_denied_n = sizeof(jail_denied_calls) / sizeof(int);

const int jail_soft_calls[] = { CALL(open), CALL(openat), CALL(openat2), CALL(stat), CALL(lstat),
	CALL(statx), CALL(access), CALL(faccessat), CALL(faccessat2), CALL(readlink),
	CALL(readlinkat), CALL(socket), CALL(ioctl), CALL(prlimit64), CALL(getcwd),
	CALL(sched_setscheduler), CALL(sched_getparam), CALL(prctl), CALL(getdents64), CALL(statfs),
	CALL(fstatfs) };
const size_t jail_soft_n = sizeof(jail_soft_calls) / sizeof(int);

#define B(p) (1u << (p))
static const uint32_t rows[ROLE_COUNT] = {
	[ROLE_MASTER] = 0,
	[ROLE_SMTPD] = B(P_STDIO) | B(P_ACCEPT) | B(P_PAIR) | B(P_FORK),
	[ROLE_SMTPD_CHILD] = B(P_STDIO),
	[ROLE_SUBMISSION] = B(P_STDIO) | B(P_ACCEPT) | B(P_PAIR) | B(P_FORK),
	[ROLE_SUBMISSION_CHILD] = B(P_STDIO),
	[ROLE_LOGIN] = B(P_STDIO) | B(P_ACCEPT) | B(P_PAIR) | B(P_FORK),
	[ROLE_LOGIN_CHILD] = B(P_STDIO),
	[ROLE_AUTH] = B(P_STDIO) | B(P_THREAD) | B(P_RPATH) | B(P_WPATH),
	[ROLE_PAM] = B(P_ANYTHING),
	[ROLE_DNS] = B(P_STDIO) | B(P_INET) | B(P_UDP),
	[ROLE_MAPS] = B(P_STDIO) | B(P_RPATH) | B(P_INOTIFY),
	[ROLE_NSS] =
	    B(P_STDIO) | B(P_RPATH) | B(P_INET) | B(P_UDP) | B(P_UNIX) | B(P_MAPEXEC) | B(P_THREAD),
	[ROLE_QMGR] = B(P_STDIO) | B(P_THREAD) | B(P_RPATH) | B(P_WPATH),
	[ROLE_PICKUP] = B(P_STDIO) | B(P_RPATH) | B(P_WPATH) | B(P_INOTIFY),
	[ROLE_SMTP_CLIENT] = B(P_STDIO) | B(P_INET) | B(P_BIND),
	[ROLE_BOUNCE] = B(P_STDIO),
	[ROLE_LOCAL] = B(P_ANYTHING),
	[ROLE_DELIVERY] = B(P_STDIO) | B(P_THREAD) | B(P_RPATH) | B(P_WPATH),
	[ROLE_PROGRAM] = B(P_ANYTHING),
	[ROLE_BROKER] = B(P_STDIO) | B(P_PAIR),
	[ROLE_IMAPD] = B(P_STDIO) | B(P_PAIR) | B(P_FORK) | B(P_BECOME) | B(P_THREAD) | B(P_RPATH) |
		       B(P_WPATH) | B(P_INOTIFY),
	[ROLE_IMAPD_CHILD] = B(P_STDIO) | B(P_THREAD) | B(P_RPATH) | B(P_WPATH) | B(P_INOTIFY),
	[ROLE_POP3D] = B(P_STDIO) | B(P_PAIR) | B(P_FORK) | B(P_BECOME) | B(P_THREAD) | B(P_RPATH) |
		       B(P_WPATH) | B(P_INOTIFY),
	[ROLE_POP3D_CHILD] = B(P_STDIO) | B(P_THREAD) | B(P_RPATH) | B(P_WPATH) | B(P_INOTIFY),
	[ROLE_LOG] = B(P_STDIO) | B(P_RPATH) | B(P_WPATH),
	[ROLE_METRICS] = B(P_STDIO) | B(P_ACCEPT),
	[ROLE_TOOL] = 0,
};

uint32_t
promises_of(enum role role)
{
	return rows[role];
}
