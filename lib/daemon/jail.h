/*
 * Jails by promises. A role's row names its promises and its root; jail_enter applies all of it:
 * chroot, uid, capabilities, no_new_privs, rlimits, not dumpable, Landlock, seccomp. There is no
 * switch to turn it off.
 */
#ifndef DAEMON_JAIL_H
#define DAEMON_JAIL_H

#include "ipc/msgs.h"

#include <sys/types.h>

struct jail_args {
	enum role role;
	bool unprivileged; /* an ordinary user's instance: no chroot, no setuid, the rest as ever */
	bool keep_user;    /* a front end's child: the zygote's uid and root are right already */
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t ngroups;
	const char *root;      /* directory that becomes "/"; NULL: keep */
	int root_fd;           /* or its descriptor; -1: none */
	int64_t file_limit;    /* largest file that may be written, bytes; 0: no limit */
	uid_t first_valid_uid; /* zygotes: setresuid below it is denied */
	const uint16_t *ports; /* TCP ports that may be connected to (Landlock ABI >= 4) */
	size_t nports;
	const char *const *read_paths; /* what Landlock leaves readable besides the root */
	size_t nread_paths;
	/* Hook between becoming the user and the chroot. */
	int (*before_root)(void *ctx);
	void *ctx;
};

/* 0, or a negative error with *why_r naming the step and the remedy. */
int jail_enter(const struct jail_args *args, char *why_r, size_t why_size) CHECKED;
/* What the kernel's Landlock can: 2 is needed, 4 brings ports, 6 signals; negative: there is none.
 */
int jail_landlock_abi(void);
/* Prepares the filter of a role, so that jail_enter in a fork of this process costs less. */
int jail_compile(enum role role) CHECKED;
/* What the process finds by trying: open of /etc/passwd, of "..", socket, its descriptors;
 * key=value. */
void jail_probe(enum role role, struct buf *report);
/* The promises of a role, space separated. */
const char *jail_promises(enum role role);

#endif
