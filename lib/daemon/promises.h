/* The table of promises: what each lets a process do, as syscalls and Landlock rights. Private to
 * jail*.c. */
#ifndef DAEMON_PROMISES_H
#define DAEMON_PROMISES_H

#include "ipc/msgs.h"

enum promise {
	P_STDIO,    /* memory, time, descriptors that are held, sockets that are held, own threads'
		       signals */
	P_ACCEPT,   /* accept4 on a held listening socket */
	P_PAIR,     /* socketpair */
	P_FORK,     /* fork, wait, kill children */
	P_BECOME,   /* setresuid and setresgid (from first_valid_uid up), setgroups, chroot, and
		       jailing itself further */
	P_THREAD,   /* threads of its own */
	P_INET,     /* TCP sockets, connect */
	P_UDP,      /* UDP sockets */
	P_BIND,     /* bind a socket */
	P_RPATH,    /* read files below the root */
	P_WPATH,    /* write, create, rename, remove files below the root; sync; lock */
	P_INOTIFY,  /* watch directories below the root */
	P_MAPEXEC,  /* map code: dlopen */
	P_UNIX,     /* connect to local sockets below the root */
	P_ANYTHING, /* a deny-list instead of an allow-list: parents of foreign programs */
	P_COUNT
};

struct promise_row {
	const char *name;
	const int *calls;
	size_t n;
};
extern const struct promise_row promise_table[P_COUNT];
/* What P_ANYTHING denies with EPERM. */
extern const int jail_denied_calls[];
extern const size_t jail_denied_n;
/* What is answered with an error where no promise allows it: a probe, not an attack. */
extern const int jail_soft_calls[];
extern const size_t jail_soft_n;

/* Bits of the promises of a role. */
uint32_t promises_of(enum role role);

#endif
