/*
 * imapd: the zygote of the IMAP sessions. Runs as bh-imapd with CAP_SETUID, SETGID, KILL and
 * SYS_CHROOT. Takes fixed-size requests of the broker to start the process of a user; reads no byte
 * of a client and no file of a user. It opens the charsets before its jail, since iconv loads
 * modules. Invariant: no process is started for a uid outside of first_valid_uid .. last_valid_uid.
 */
#include "imapd/imapd.h"

#include <stdlib.h>
#include <unistd.h>

struct zygote {
	struct charsets *charsets;
};

static void
answer(struct ipc_chan *ch, uint32_t id, pid_t pid, int fd, const char *why)
{
	struct msg m = MSG_INIT(MSG_SESSION_STARTED, id);

	m.session_started.status = why ? 1 : 0;
	m.session_started.pid = (uint32_t)pid;
	m.session_started.text = slice_sub(slice_str(why), 0, 512);
	m.fd = fd;
	(void)ipc_send(ch, &m);
	if (fd >= 0)
		close(fd);
}

static void
start_free(struct imapd_start *s)
{
	if (!s)
		return;
	free(s->user);
	free(s->home);
	free(s->root);
	free(s);
}

/* Why no process may be started for it, or NULL. An instance of an ordinary user has one uid for
 * all. */
static const char *
refused(const struct daemon *d, const struct msg_session_start *m)
{
	if (d->stopping)
		return "the suite is being stopped";
	/* An ordinary user's instance has one uid for all: what that user cannot reach fails by
	 * itself. */
	if (!d->unprivileged && ((int64_t)m->uid < d->conf->first_valid_uid ||
				    (int64_t)m->uid > d->conf->last_valid_uid))
		return "the uid is outside of first_valid_uid .. last_valid_uid";
	return NULL;
}

static struct imapd_start *
start_new(const struct zygote *z, const struct msg_session_start *m, const char **why_r)
{
	struct imapd_start *s = xcalloc(1, sizeof(*s));
	char root[4097];
	struct cursor groups = cursor(m->groups.raw);
	struct item_gid g;

	s->charsets = z->charsets;
	s->user = slice_dup(m->user);
	s->home = slice_dup(m->home);
	while (s->ngroups < sizeof(s->groups) / sizeof(*s->groups) && item_gid_next(&groups, &g))
		s->groups[s->ngroups++] = g.gid;
	if (!s->ngroups)
		s->groups[s->ngroups++] = m->gid;
	if (store_root(m->mailbox, root, sizeof(root)) == 0)
		s->root = xstrdup(root);
	else
		*why_r = "the mailbox of the user is no Maildir, and IMAP needs one: set "
			 "home_mailbox = Maildir/";
	return s;
}

static void
start_session(struct daemon *d, struct ipc_chan *ch, const struct msg *m)
{
	struct zygote_spec spec = {
		.desc = &imapd_user_desc, .direct = ROLE_BROKER, .before_root = imapd_make_root
	};
	const char *why = refused(d, &m->session_start);
	struct imapd_start *s = NULL;
	struct zygote_child *child;
	int fd = -1, err;

	if (!why)
		s = start_new(d->ctx, &m->session_start, &why);
	if (why) {
		start_free(s);
		answer(ch, m->id, 0, -1, why);
		return;
	}
	spec.direct_fd_r = &fd;
	spec.become = !d->unprivileged;
	spec.uid = m->session_start.uid;
	spec.gid = m->session_start.gid;
	spec.groups = s->groups;
	spec.ngroups = s->ngroups;
	spec.root = s->root;
	spec.arg = s;
	child = zygote_fork(d, &spec, &err);
	if (!child) {
		start_free(s);
		answer(ch, m->id, 0, -1,
		    "cannot start a process: the system is out of processes or memory");
		return;
	}
	child->data = s;
	answer(ch, m->id, child->pid, fd, NULL);
}

static void
zygote_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	if (m->type == MSG_SESSION_START)
		start_session(d, ch, m);
}

static void
zygote_child_exit(struct daemon *d, pid_t pid, int status)
{
	struct zygote_child *child = zygote_find(d, pid);

	(void)status;
	if (!child)
		return;
	start_free(child->data);
	child->data = NULL;
}

static int
zygote_init(struct daemon *d)
{
	static struct zygote z;

	z.charsets = charsets_open();
	d->ctx = &z;
	return 0;
}

static void
zygote_stop(struct daemon *d)
{
	/* An upgrade cuts no session: its process goes on without a zygote until the user leaves.
	 */
	if (!zygote_count(d) || d->stop_how == 2)
		daemon_exit(d);
	else
		zygote_stop_children(d, 0);
}

static void
zygote_status(struct daemon *d, struct buf *out)
{
	const struct zygote *z = d->ctx;

	buf_addf(out, "users=%zu charsets=%u", zygote_count(d), charsets_count(z->charsets));
}

int
main(int argc, char **argv)
{
	static const struct daemon_desc desc = {
		.role = ROLE_IMAPD,
		.init = zygote_init,
		.message = zygote_message,
		.stop = zygote_stop,
		.child_exit = zygote_child_exit,
		.status = zygote_status,
	};

	return daemon_run(argc, argv, &desc);
}
