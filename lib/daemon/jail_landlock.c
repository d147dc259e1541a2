/*
 * Landlock: nothing can be opened, or only what lies below the root, with the rights of the
 * promises; TCP connects only to the named ports where the kernel knows how (ABI 4), no signals and
 * no abstract sockets to the outside (ABI 6). Applied before the first thread. ABI 2 is needed
 * (rename across directories); what a later ABI adds is forbidden by seccomp meanwhile.
 */
#include "daemon/jail_private.h"
#include "daemon/promises.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* From later kernels' headers. */
#define FS_TRUNCATE (1ULL << 14)
#define FS_IOCTL_DEV (1ULL << 15)
#define NET_BIND_TCP (1ULL << 0)
#define NET_CONNECT_TCP (1ULL << 1)
#define SCOPE_ABSTRACT_UNIX (1ULL << 0)
#define SCOPE_SIGNAL (1ULL << 1)
#define RULE_NET_PORT 2

struct ruleset_attr {
	uint64_t fs, net, scoped;
};
struct net_port_attr {
	uint64_t allowed, port;
};

#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_WRITE                                                                                   \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                           \
	    LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |                         \
	    LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REFER | FS_TRUNCATE)
#define FS_ALL(abi)                                                                                \
	((abi) >= 5 ? (1ULL << 16) - 1 : (abi) >= 3 ? (1ULL << 15) - 1 : (1ULL << 14) - 1)

static uint64_t
fs_rights(enum role role)
{
	uint32_t promises = promises_of(role);

	if (role == ROLE_AUTH) /* its store is open already; its root holds urandom alone */
		return FS_READ;
	return (promises & 1u << P_RPATH ? FS_READ : 0) |
	       (promises & 1u << P_WPATH ? FS_READ | FS_WRITE : 0);
}

/* A path that cannot be opened is one that cannot be read later either: not an error. */
static int
add_path(int ruleset, const char *path, uint64_t rights)
{
	struct landlock_path_beneath_attr rule = { .allowed_access = rights };
	struct stat st;
	int rc;

	rule.parent_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (rule.parent_fd < 0)
		return 0;
	if (!fstat(rule.parent_fd, &st) && !S_ISDIR(st.st_mode))
		rule.allowed_access &= ~LANDLOCK_ACCESS_FS_READ_DIR;
	rc = (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
	close(rule.parent_fd);
	return rc;
}

static int
build(const struct jail_args *a, int abi)
{
	struct ruleset_attr attr = { .fs = FS_ALL(abi) };
	uint64_t rights = fs_rights(a->role) & attr.fs;
	bool inet = promises_of(a->role) & 1u << P_INET, any_port = a->nports == 0;
	size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
	int fd, rc = 0;

	if (abi >= 4)
		attr.net = NET_BIND_TCP | (inet && any_port ? 0 : NET_CONNECT_TCP);
	if (abi >= 6)
		attr.scoped = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL;
	fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	if (fd < 0)
		return -1;
	if (rights && !a->nread_paths)
		rc = add_path(fd, ".", rights);
	for (size_t i = 0; !rc && i < a->nread_paths; i++)
		rc = add_path(fd, a->read_paths[i], FS_READ);
	for (size_t i = 0; !rc && inet && abi >= 4 && i < a->nports; i++) {
		struct net_port_attr rule = { NET_CONNECT_TCP, a->ports[i] };
		rc = (int)syscall(SYS_landlock_add_rule, fd, RULE_NET_PORT, &rule, 0);
	}
	if (!rc && abi >= 4 && promises_of(a->role) & 1u << P_BIND) {
		struct net_port_attr rule = { NET_BIND_TCP,
			0 }; /* a source address, any free port */
		rc = (int)syscall(SYS_landlock_add_rule, fd, RULE_NET_PORT, &rule, 0);
	}
	if (!rc)
		rc = (int)syscall(SYS_landlock_restrict_self, fd, 0);
	close(fd);
	return rc;
}

int
jail_landlock_abi(void)
{
	return (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

int
jail_landlock(const struct jail_args *a, char *why, size_t size)
{
	int abi, err;

	/* These let others in below them: a foreign program, or the home of a user not known yet.
	 */
	if (promises_of(a->role) & (1u << P_ANYTHING | 1u << P_BECOME))
		return 0;
	abi = jail_landlock_abi();
	if (abi < 2) {
		snprintf(why, size,
		    "Landlock: the kernel has ABI %d, 2 is needed; boot Linux 5.19 or later with "
		    "landlock in the lsm= list",
		    abi);
		return ERR_DENIED;
	}
	if (!build(a, abi))
		return 0;
	err = err_errno();
	snprintf(why, size, "Landlock: %s; report this as a bug", err_str(err));
	return err;
}
