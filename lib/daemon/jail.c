/*
 * Puts a process into its jail: uid, root, capabilities, limits, then Landlock (jail_landlock.c)
 * and seccomp (jail_seccomp.c). Runs at the start of every daemon and in every child of a zygote,
 * before a byte of a stranger is read and before the first thread. Order matters: the root
 * directory is opened and entered as the user who will live there, so that no right of root chooses
 * it; the capability that chroot needs goes right after it; filters come last because they forbid
 * the steps before them.
 */
#include "daemon/jail.h"

#include "daemon/jail_private.h"
#include "daemon/promises.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAPS_ZYGOTE (1u << CAP_SETUID | 1u << CAP_SETGID | 1u << CAP_KILL | 1u << CAP_SYS_CHROOT)

static int
fail(char *why, size_t size, const char *step, const char *remedy)
{
	int err = err_errno();

	snprintf(why, size, "%s: %s; %s", step, err_str(err), remedy);
	return err;
}

static int
set_caps(uint32_t permitted)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { .permitted = permitted,
	    .effective = permitted } };

	return (int)syscall(SYS_capset, &head, data);
}

/* Capabilities that the role keeps for life. */
static uint32_t
kept_caps(enum role role)
{
	switch (role) {
	case ROLE_LOCAL:
	case ROLE_IMAPD:
	case ROLE_POP3D:
		return CAPS_ZYGOTE;
	default:
		return 0;
	}
}

static int
become(const struct jail_args *a, char *why, size_t size)
{
	uint32_t caps = kept_caps(a->role) | 1u << CAP_SYS_CHROOT;

	if (getuid() == 0) {
		for (unsigned cap = 0; cap <= 63; cap++)
			if (cap > 31 || !(caps & 1u << cap))
				(void)prctl(PR_CAPBSET_DROP, cap, 0, 0,
				    0); /* beyond the kernel's last: EINVAL */
		if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
			return fail(
			    why, size, "keep capabilities", "needs a kernel with capabilities");
	}
	if (setgroups(a->ngroups, a->groups) || setresgid(a->gid, a->gid, a->gid) ||
	    setresuid(a->uid, a->uid, a->uid))
		return fail(why, size, "become the user",
		    "start the suite as root, or as one ordinary user");
	if (set_caps(caps))
		return fail(why, size, "drop capabilities",
		    "the process lacks CAP_SYS_CHROOT: is it in a container without it?");
	return 0;
}

static int
enter_root(const struct jail_args *a, char *why, size_t size)
{
	char step[512];
	int fd = a->root_fd, own = -1;

	if (fd < 0 && !a->root)
		return 0;
	snprintf(step, sizeof(step), "enter root directory %s", a->root ? a->root : "(descriptor)");
	if (fd < 0)
		fd = own = open(a->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fchdir(fd) || (!a->unprivileged && chroot(".")))
		return fail(
		    why, size, step, "create it and let its user enter it (mode 0700 or 0755)");
	if (own >= 0)
		close(own);
	return 0;
}

static int
set_limits(const struct jail_args *a, char *why, size_t size)
{
	struct rlimit none = { 0, 0 }, file = { (rlim_t)a->file_limit, (rlim_t)a->file_limit };
	uint32_t promises = promises_of(a->role);

	if (setrlimit(RLIMIT_CORE, &none))
		return fail(
		    why, size, "forbid core files", "raise nothing: this only lowers a limit");
	if (a->file_limit > 0 && setrlimit(RLIMIT_FSIZE, &file))
		return fail(why, size, "limit file sizes", "lower message_size_limit");
	if (!(promises & (1u << P_FORK | 1u << P_THREAD | 1u << P_ANYTHING)) && !a->unprivileged)
		(void)setrlimit(RLIMIT_NPROC, &none);
	return 0;
}

int
jail_enter(const struct jail_args *a, char *why, size_t size)
{
	bool same_user = a->unprivileged || a->keep_user;
	int err = 0;

	if (!same_user)
		err = become(a, why, size);
	if (!err && a->before_root) {
		err = a->before_root(a->ctx);
		if (err)
			snprintf(why, size, "open what lies outside of the root: %s", err_str(err));
	}
	if (!err)
		err = enter_root(a, why, size);
	if (!err && !same_user && a->uid && set_caps(kept_caps(a->role)))
		err = fail(why, size, "drop the last capability", "report this as a bug");
	if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		err = fail(why, size, "no_new_privs", "needs Linux 3.5 or later");
	if (!err && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		err = fail(why, size, "not dumpable", "report this as a bug");
	if (!err)
		err = set_limits(a, why, size);
	if (!err)
		err = jail_landlock(a, why, size);
	if (!err)
		err = jail_seccomp(a, why, size);
	return err;
}

const char *
jail_promises(enum role role)
{
	static char text[ROLE_COUNT][128];
	char *out = text[role];
	size_t at = 0;

	out[0] = '\0';
	for (int p = 0; p < P_COUNT; p++)
		if (promises_of(role) & 1u << p)
			at += (size_t)snprintf(out + at, sizeof(text[role]) - at, "%s%s",
			    at ? " " : "", promise_table[p].name);
	return out;
}

static const char *
outcome(int fd)
{
	if (fd < 0)
		return strerrorname_np(errno);
	close(fd);
	return "OPEN";
}

void
jail_probe(enum role role, struct buf *report)
{
	unsigned fds = 0, dirs = 0;
	struct stat st;

	buf_addf(report, "promises=\"%s\"", jail_promises(role));
	buf_addf(
	    report, " open:/etc/shadow=%s", outcome(open("/etc/shadow", O_RDONLY | O_CLOEXEC)));
	buf_addf(report, " open:..=%s", outcome(open("..", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
	buf_addf(report, " create:/tmp=%s",
	    outcome(open("/tmp", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600)));
	buf_addf(
	    report, " socket:unix=%s", outcome(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
	buf_addf(
	    report, " socket:inet=%s", outcome(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
	for (int fd = 0; fd < 1024; fd++)
		if (!fstat(fd, &st)) {
			fds++;
			dirs += S_ISDIR(st.st_mode);
		}
	buf_addf(report, " descriptors=%u directories=%u", fds, dirs);
}
