/* Programs that recipients or the configuration name, started by the zygote as the recipient. */
#ifndef LOCAL_PROGRAM_H
#define LOCAL_PROGRAM_H

#include "daemon/daemon.h"
#include "local/target.h"

/* kind of MSG_PROGRAM_EXIT */
enum program_end {
	PROGRAM_EXITED,   /* status: exit code */
	PROGRAM_SIGNALED, /* status: the signal */
	PROGRAM_TIMEOUT,  /* killed after its time limit */
	PROGRAM_REFUSED,  /* not started; output says why */
};

struct programs;

struct programs *programs_new(struct daemon *d);
/* Takes m->fd. owner: for whom the asking child delivers. */
void program_start(
    struct programs *p, struct ipc_chan *ch, const struct target *owner, struct msg *m);
/* True if pid was a program. */
bool program_ended(struct programs *p, pid_t pid, int wait_status);
/* The child that asked is gone: its programs are killed. */
void programs_forget(struct programs *p, const struct ipc_chan *ch);
size_t programs_count(const struct programs *p);

#endif
