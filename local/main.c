/*
 * local: the zygote of the delivery children. Runs as bh-local with CAP_SETUID, SETGID, KILL and
 * SYS_CHROOT. Takes fixed-size requests of qmgr to start a child for a user, and of its own
 * children to run a program as the same user; reads no message and no file of a user. A child may
 * ask for programs of its own uid only: whose child it is stands in the zygote's memory.
 */
#include "daemon/zygote.h"
#include "local/child.h"
#include "local/program.h"
#include "local/target.h"

#include <stdlib.h>
#include <unistd.h>

static void
answer_start(struct ipc_chan *ch, uint32_t id, pid_t pid, int fd, const char *why)
{
	struct msg m = MSG_INIT(MSG_DELIVER_STARTED, id);

	m.deliver_started.status = why ? 1 : 0;
	m.deliver_started.pid = (uint32_t)pid;
	m.deliver_started.text = slice_sub(slice_str(why), 0, 512);
	m.fd = fd;
	(void)ipc_send(ch, &m);
	if (fd >= 0)
		close(fd);
}

static void
start_child(struct daemon *d, struct ipc_chan *ch, const struct msg *m)
{
	struct zygote_spec spec = {
		.desc = &child_desc, .direct = ROLE_QMGR, .before_root = target_open
	};
	struct zygote_child *child;
	struct target *t;
	const char *why;
	int fd = -1, err;

	if (target_new(d, &m->deliver_start, &t, &why)) {
		answer_start(ch, m->id, 0, -1, why);
		return;
	}
	spec.direct_fd_r = &fd;
	spec.become = !d->unprivileged;
	spec.uid = t->uid;
	spec.gid = t->gid;
	spec.groups = t->groups;
	spec.ngroups = t->ngroups;
	spec.arg = t;
	child = zygote_fork(d, &spec, &err);
	if (!child) {
		target_free(&t);
		answer_start(ch, m->id, 0, -1,
		    "cannot start a delivery process: the system is out of processes or memory");
		return;
	}
	child->data = t;
	ipc_chan_set_data(child->chan, t);
	answer_start(ch, m->id, child->pid, fd, NULL);
}

static void
local_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	switch (m->type) {
	case MSG_DELIVER_START:
		if (!d->stopping)
			start_child(d, ch, m);
		else
			answer_start(ch, m->id, 0, -1, "the suite is being stopped");
		break;
	case MSG_PROGRAM_START:
		program_start(d->ctx, ch, ipc_chan_data(ch), m);
		break;
	default:
		break;
	}
}

static void
local_link_down(struct daemon *d, struct ipc_chan *ch)
{
	programs_forget(d->ctx, ch);
}

static void
local_child_exit(struct daemon *d, pid_t pid, int status)
{
	struct zygote_child *child = zygote_find(d, pid);
	struct target *t = child ? child->data : NULL;

	if (program_ended(d->ctx, pid, status))
		return;
	target_free(&t);
	if (child)
		child->data = NULL;
}

static void
local_stop(struct daemon *d)
{
	if (!zygote_count(d))
		daemon_exit(d);
	else
		zygote_stop_children(d, 0);
}

static int
local_start(struct daemon *d)
{
	d->ctx = programs_new(d);
	return 0;
}

static void
local_status(struct daemon *d, struct buf *out)
{
	buf_addf(out, "children=%zu programs=%zu", zygote_count(d), programs_count(d->ctx));
}

int
main(int argc, char **argv)
{
	static const struct daemon_desc desc = {
		.role = ROLE_LOCAL,
		.start = local_start,
		.message = local_message,
		.link_down = local_link_down,
		.stop = local_stop,
		.child_exit = local_child_exit,
		.status = local_status,
	};

	return daemon_run(argc, argv, &desc);
}
