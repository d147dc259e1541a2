/* The process of one POP3 session (role pop3d-child). */
#ifndef POP3D_CHILD_H
#define POP3D_CHILD_H

#include "daemon/daemon.h"

extern const struct daemon_desc pop3_child_desc;
/* The hook of zygote_spec: makes the mail directory where it is missing. arg: its path. */
int pop3_child_before_root(struct daemon *d, void *arg);

#endif
