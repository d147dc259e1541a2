/*
 * seccomp: the promises of the role become a filter. What no promise allows traps; the handler
 * writes the syscall's number to the log and dies by SIGSYS (the handler itself cannot be replaced:
 * that is forbidden too). Probes that libraries make as a matter of course get EACCES instead. A
 * second, small filter bounds the low words of setresuid and setresgid, which libseccomp cannot
 * express: a 64-bit comparison could be passed by an argument with high bits that the kernel
 * ignores.
 */
#include "daemon/jail_private.h"
#include "daemon/promises.h"

#include "daemon/log.h"
#include "daemon/private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NAMESPACES                                                                                 \
	(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | \
	    CLONE_NEWCGROUP)

#define SOCKET_TYPE ((uint64_t)0xf) /* of the second argument of socket; the rest are flags */

static void
on_violation(int sig, siginfo_t *info, void *context)
{
	(void)context;
	log_event(LOG_jail_violation,
	    "syscall=%d arch=%#x reason=\"not in the promises of this role\" remedy=\"report it: a "
	    "bug or an attack\"",
	    info->si_syscall, info->si_arch);
	/* Forbidden, and SIGSYS is blocked in its handler: the kernel ends the process with that
	 * signal. */
	sigaction(sig, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
#ifdef SANITIZED /* whose list lets that through */
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	kill(getpid(), sig);
#endif
	_exit(99);
}

/*
 * Sockets of the internet are plain TCP, and UDP where that is promised: Landlock's named ports do
 * not hold for MPTCP or SCTP, nor for a connection that a send opens.
 */
static int
allow_inet(scmp_filter_ctx f, uint32_t promises)
{
	static const uint64_t domains[] = { AF_INET, AF_INET6 };
	static const struct {
		uint64_t type, protocol;
		enum promise promise;
	} kinds[] = {
		{ SOCK_STREAM, 0, P_INET },
		{ SOCK_STREAM, IPPROTO_TCP, P_INET },
		{ SOCK_DGRAM, 0, P_UDP },
		{ SOCK_DGRAM, IPPROTO_UDP, P_UDP },
	};
	int rc = 0;

	for (size_t d = 0; d < 2; d++)
		for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
			if (promises & 1u << kinds[k].promise)
				rc |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 3,
				    SCMP_A0(SCMP_CMP_EQ, domains[d]),
				    SCMP_A1(SCMP_CMP_MASKED_EQ, SOCKET_TYPE, kinds[k].type),
				    SCMP_A2(SCMP_CMP_EQ, kinds[k].protocol));
	rc |= seccomp_rule_add(
	    f, SCMP_ACT_ALLOW, SCMP_SYS(sendto), 1, SCMP_A3(SCMP_CMP_MASKED_EQ, MSG_FASTOPEN, 0));
	rc |= seccomp_rule_add(
	    f, SCMP_ACT_ALLOW, SCMP_SYS(sendmsg), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, MSG_FASTOPEN, 0));
	return rc;
}

/* What allow_inet allows, and on what condition. */
static bool
is_conditional(uint32_t promises, int call)
{
	return promises & 1u << P_INET && (call == SCMP_SYS(sendto) || call == SCMP_SYS(sendmsg));
}

static int
allow_conditional(scmp_filter_ctx f, uint32_t promises)
{
	bool rpath = promises & 1u << P_RPATH, wpath = promises & 1u << P_WPATH;
	int rc = 0;

#ifndef SANITIZED
	if (!(promises & 1u << P_MAPEXEC)) {
		rc |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
		    SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
		rc |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
		    SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	}
	rc |= seccomp_rule_add(
	    f, SCMP_ACT_ALLOW, SCMP_SYS(rt_sigaction), 1, SCMP_A0(SCMP_CMP_NE, SIGSYS));
	if (wpath)
		rc |= seccomp_rule_add(
		    f, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, O_PATH, 0));
	else if (rpath)
		rc |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
		    SCMP_A2(SCMP_CMP_MASKED_EQ, O_PATH | O_WRONLY | O_RDWR | O_CREAT | O_TRUNC, 0));
	if (promises & 1u << P_FORK) {
		rc |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
		    SCMP_A0(SCMP_CMP_MASKED_EQ, NAMESPACES, 0));
	} else if (promises & 1u << P_THREAD) {
		rc |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
		    SCMP_A0(SCMP_CMP_MASKED_EQ, NAMESPACES | CLONE_THREAD, CLONE_THREAD));
	}
	rc |= seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
#else
	(void)rpath;
	(void)wpath;
#endif
	if (promises & 1u << P_INET)
		rc |= allow_inet(f, promises);
	if (promises & 1u << P_UNIX)
		rc |= seccomp_rule_add(
		    f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	return rc;
}

static bool
promised(uint32_t promises, int call)
{
	for (int p = 0; p < P_COUNT; p++)
		for (size_t i = 0; (promises & 1u << p) && i < promise_table[p].n; i++)
			if (promise_table[p].calls[i] == call)
				return true;
	return false;
}

/* Soft denials: unconditional where nothing is promised; the complement of the condition where
 * openat and socket are. */
static int
deny_softly(scmp_filter_ctx f, uint32_t promises)
{
	int rc = 0;

	for (size_t i = 0; i < jail_soft_n; i++) {
		int call = jail_soft_calls[i];
		if (promised(promises, call))
			continue;
		if (call == SCMP_SYS(openat) && (promises & (1u << P_RPATH | 1u << P_WPATH))) {
			const uint64_t bits[] = { O_PATH, O_WRONLY, O_RDWR, O_CREAT, O_TRUNC };
			for (size_t b = 0; b < (promises & 1u << P_WPATH ? 1 : 5); b++)
				rc |= seccomp_rule_add(f, SCMP_ACT_ERRNO(EACCES), call, 1,
				    SCMP_A2(SCMP_CMP_MASKED_EQ, bits[b], bits[b]));
			continue;
		}
		if (call == SCMP_SYS(socket) && (promises & (1u << P_INET | 1u << P_UNIX))) {
			const uint64_t domains[] = { AF_UNIX, AF_INET, AF_INET6, AF_NETLINK,
				AF_PACKET };
			for (size_t d = 0; d < 5; d++) {
				bool inet = domains[d] == AF_INET || domains[d] == AF_INET6;
				if ((inet && (promises & 1u << P_INET)) ||
				    (d == 0 && (promises & 1u << P_UNIX)))
					continue;
				rc |= seccomp_rule_add(f, SCMP_ACT_ERRNO(EACCES), call, 1,
				    SCMP_A0(SCMP_CMP_EQ, domains[d]));
			}
			continue;
		}
		rc |= seccomp_rule_add(f, SCMP_ACT_ERRNO(EACCES), call, 0);
	}
	return rc;
}

static scmp_filter_ctx
allow_list(uint32_t promises)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_TRAP);
	int rc = 0;

	if (!f)
		return NULL;
	for (int p = 0; p < P_COUNT; p++)
		for (size_t i = 0; (promises & 1u << p) && i < promise_table[p].n; i++) {
			int call = promise_table[p].calls[i], one;
			if (is_conditional(promises, call))
				continue;
			one = seccomp_rule_add(f, SCMP_ACT_ALLOW, call, 0);
			rc |= one == -EEXIST ? 0 : one;
		}
	rc |= allow_conditional(f, promises);
	rc |= deny_softly(f, promises);
	if (rc) {
		seccomp_release(f);
		return NULL;
	}
	return f;
}

/* clone makes namespaces as unshare does; what clone3 would make no filter can see, and libraries
 * go on with clone where there is none. */
static scmp_filter_ctx
deny_list(void)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);

	if (!f)
		return NULL;
	for (uint64_t bit = 1; bit <= NAMESPACES; bit <<= 1)
		if (bit & NAMESPACES)
			(void)seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
			    SCMP_A0(SCMP_CMP_MASKED_EQ, bit, bit));
	(void)seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	for (size_t i = 0; i < jail_denied_n; i++)
		(void)seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), jail_denied_calls[i], 0);
	return f;
}

#define ARG(n) (offsetof(struct seccomp_data, args) + 8 * (n))

static int
add_filter(struct sock_filter *code, size_t n)
{
	struct sock_fprog program = { (unsigned short)n, code };

	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) ? err_errno() : 0;
}

/* The log's socket is shared: shut down, or with a buffer of no size, it would be so for all and
 * for good. A copy of it would have another number. */
static int
keep_log(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_shutdown, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setsockopt, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_dup, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_dup3, 0, 2),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG(0)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FD_LOG, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
	};

	return add_filter(code, sizeof(code) / sizeof(code[0]));
}

/* Low words of every argument of setresuid and setresgid must be >= first. */
static int
bound_ids(uid_t first)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setresuid, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setresgid, 0, 6),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG(0)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, first, 0, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG(1)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, first, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG(2)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, first, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
	};

	return add_filter(code, sizeof(code) / sizeof(code[0]));
}

/* The filter as bytes, kept per role: a zygote compiles its child's once, not at each fork. */
static int
compile(enum role role, struct sock_fprog *out)
{
	static struct sock_fprog cache[ROLE_COUNT];
	uint32_t promises = promises_of(role);
	scmp_filter_ctx f;
	off_t size;
	int fd, rc;

	*out = cache[role];
	if (out->filter)
		return 0;
	f = promises & 1u << P_ANYTHING ? deny_list() : allow_list(promises);
	fd = memfd_create("filter", MFD_CLOEXEC);
	rc = f && fd >= 0 ? seccomp_export_bpf(f, fd) : -ENOMEM;
	if (f)
		seccomp_release(f);
	size = rc ? -1 : lseek(fd, 0, SEEK_END);
	if (size > 0 && size % (off_t)sizeof(struct sock_filter) == 0) {
		cache[role].filter = xmalloc((size_t)size);
		cache[role].len = (unsigned short)((size_t)size / sizeof(struct sock_filter));
		if (pread(fd, cache[role].filter, (size_t)size, 0) != size)
			rc = -EIO;
	}
	if (fd >= 0)
		close(fd);
	*out = cache[role];
	return rc ? rc : out->filter ? 0 : -EIO;
}

int
jail_compile(enum role role)
{
	struct sock_fprog program;

	return compile(role, &program);
}

int
jail_seccomp(const struct jail_args *a, char *why, size_t size)
{
	struct sigaction act = { .sa_sigaction = on_violation, .sa_flags = SA_SIGINFO };
	struct sock_fprog program;
	uint32_t promises = promises_of(a->role);
	int err = 0;
	static bool
	    handled; /* a zygote's child has its handler, and may not set it; and keep_log */

	if (promises & (1u << P_BECOME) || a->role == ROLE_LOCAL)
		err = bound_ids(a->first_valid_uid);
	if (!err)
		err = compile(a->role, &program);
	if (!err && !handled && !(promises & 1u << P_ANYTHING)) {
		handled = true;
		err = sigaction(SIGSYS, &act, NULL) ? err_errno() : keep_log();
	}
	if (!err && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0))
		err = err_errno();
	if (err)
		snprintf(
		    why, size, "seccomp: %s; needs a kernel with seccomp filters", err_str(err));
	return err;
}
