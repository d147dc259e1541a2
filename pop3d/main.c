/*
 * pop3d: the zygote of the POP3 sessions. Runs as bh-pop3d with CAP_SETUID, SETGID, KILL and
 * SYS_CHROOT. Takes requests of the broker to start a session as a user whom auth has confirmed;
 * reads no byte of a client and no mail. A child gets the user's uid, the Maildir as its root, and
 * a pair to the broker.
 */
#include "pop3d/child.h"
#include "daemon/zygote.h"
#include "store/store.h"

#include <stdlib.h>
#include <unistd.h>

enum { GROUPS_MAX = 64 };

static void
answer(struct ipc_chan *ch, uint32_t id, pid_t pid, int fd, const char *why)
{
	struct msg m = MSG_INIT(MSG_SESSION_STARTED, id);

	m.session_started.status = why ? 1 : 0;
	m.session_started.pid = (uint32_t)pid;
	m.session_started.text = slice_str(why);
	m.fd = fd;
	(void)ipc_send(ch, &m);
	if (fd >= 0)
		close(fd);
}

static size_t
groups_of(const struct msg_session_start *s, gid_t *groups)
{
	struct cursor c = cursor(s->groups.raw);
	struct item_gid item;
	size_t n = 0;

	while (n < GROUPS_MAX && item_gid_next(&c, &item))
		groups[n++] = item.gid;
	return n;
}

static void
start_session(struct daemon *d, struct ipc_chan *ch, const struct msg *m)
{
	const struct msg_session_start *s = &m->session_start;
	struct zygote_spec spec = {
		.desc = &pop3_child_desc,
		.direct = ROLE_BROKER,
		.become = !d->unprivileged,
		.uid = s->uid,
		.gid = s->gid,
		.before_root = pop3_child_before_root,
	};
	gid_t groups[GROUPS_MAX];
	char path[4097];
	int fd = -1, err;

	if (store_root(s->mailbox, path, sizeof(path)) < 0) {
		log_event(LOG_pop3_no_maildir,
		    "user=%s mailbox=%s reason=\"only a Maildir can be read by POP3\" "
		    "remedy=\"home_mailbox = Maildir/\"",
		    log_value(s->user), log_value(s->mailbox));
		answer(
		    ch, m->id, 0, -1, "the mailbox is not a Maildir: set home_mailbox = Maildir/");
		return;
	}
	spec.groups = groups;
	spec.ngroups = groups_of(s, groups);
	spec.root = path;
	spec.arg = path;
	spec.direct_fd_r = &fd;
	const struct zygote_child *child = zygote_fork(d, &spec, &err);
	if (child)
		answer(ch, m->id, child->pid, fd, NULL);
	else
		answer(ch, m->id, 0, -1,
		    "no process for the session: the system is out of processes or memory");
}

static void
message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	if (m->type == MSG_SESSION_START && !d->stopping)
		start_session(d, ch, m);
}

static void
stop(struct daemon *d)
{
	/* An upgrade cuts no session: its process goes on without a zygote until the user leaves.
	 */
	if (zygote_count(d) == 0 || d->stop_how == 2)
		daemon_exit(d);
	else
		zygote_stop_children(d, 0);
}

static void
status(struct daemon *d, struct buf *out)
{
	buf_addf(out, "sessions=%zu", zygote_count(d));
}

static const struct daemon_desc desc = {
	.role = ROLE_POP3D,
	.message = message,
	.stop = stop,
	.status = status,
};

int
main(int argc, char **argv)
{
	return daemon_run(argc, argv, &desc);
}
