/*
 * Forking from a warmed parent. Runs in the zygotes (smtpd, submission, login, local, imapd, pop3d)
 * and, after the fork, in their children. Hostile: a child that was taken over can send what its
 * role may and no more. Invariants: in the child every descriptor of the parent is closed but those
 * of the spec before the child's jail is entered; no byte of a client has been read by then; after
 * a death by a signal the zygote is renewed, so that no address layout outlives an attack.
 */
#include "daemon/zygote.h"

#include "daemon/jail.h"
#include "daemon/private.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINK_AGAIN_MS 100 /* from the end of a child's link to a new one */
#define LOSSES_MAX 5

struct pairs {
	int control[2], direct[2], peer[ZYGOTE_PEERS][2];
};

static void
close_side(struct pairs *p, size_t npeers, int side)
{
	int *fds[2 + ZYGOTE_PEERS] = { &p->control[side], &p->direct[side] };

	for (size_t i = 0; i < npeers; i++)
		fds[2 + i] = &p->peer[i][side];
	for (size_t i = 0; i < 2 + npeers; i++)
		if (*fds[i] >= 0) {
			close(*fds[i]);
			*fds[i] = -1;
		}
}

static int
make_pairs(const struct zygote_spec *spec, struct pairs *p)
{
	int err;

	memset(p, 0xff, sizeof(*p));
	err = ipc_pair(p->control);
	if (!err && spec->direct_fd_r)
		err = ipc_pair(p->direct);
	for (size_t i = 0; i < spec->npeers && !err; i++)
		err = ipc_pair(p->peer[i]);
	if (err) {
		close_side(p, spec->npeers, 0);
		close_side(p, spec->npeers, 1);
	}
	return err;
}

static int
by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Closes all but the descriptors of the list and 0 to 2. */
static void
close_others(int *keep, size_t n)
{
	unsigned from = 3;

	qsort(keep, n, sizeof(*keep), by_number);
	for (size_t i = 0; i < n; i++) {
		if (keep[i] < (int)from)
			continue;
		if (keep[i] > (int)from)
			(void)close_range(from, (unsigned)keep[i] - 1, 0);
		from = (unsigned)keep[i] + 1;
	}
	(void)close_range(from, ~0u, 0);
}

static void
child_close_others(const struct zygote_spec *spec, const struct pairs *p, int log_fd)
{
	int keep[16];
	size_t n = 0;

	keep[n++] = log_fd;
	keep[n++] = p->control[1];
	if (p->direct[1] >= 0)
		keep[n++] = p->direct[1];
	for (size_t i = 0; i < spec->npeers; i++)
		keep[n++] = p->peer[i][1];
	for (size_t i = 0; i < 4; i++)
		if (spec->keep_fd[i] > 0)
			keep[n++] = spec->keep_fd[i];
	close_others(keep, n);
}

struct before_root {
	struct daemon *d;
	const struct zygote_spec *spec;
};

static int
call_before_root(void *ctx)
{
	struct before_root *b = ctx;

	return b->spec->before_root(b->d, b->spec->arg);
}

static int
child_jail(struct daemon *d, const struct zygote_spec *spec, char *why, size_t size)
{
	struct before_root hook = { d, spec };
	struct jail_args a = { .role = d->role,
		.unprivileged = d->unprivileged,
		.keep_user = !spec->become,
		.uid = d->uid,
		.gid = d->gid,
		.groups = spec->groups,
		.ngroups = spec->ngroups,
		.root = spec->root,
		.root_fd = -1,
		.file_limit = d->file_limit,
		.first_valid_uid = (uid_t)d->conf->first_valid_uid,
		.before_root = spec->before_root ? call_before_root : NULL,
		.ctx = &hook };

	if (spec->become && !d->unprivileged && (int64_t)spec->uid < d->conf->first_valid_uid) {
		snprintf(why, size, "uid %u is below first_valid_uid (%lld)", spec->uid,
		    (long long)d->conf->first_valid_uid);
		return ERR_DENIED;
	}
	return jail_enter(&a, why, size);
}

static void
child_fail(struct daemon *d, const char *why)
{
	log_event(LOG_start_failed, "service=%s step=jail reason=%s", log_cstr(d->service),
	    log_cstr(why));
	log_flush();
	_exit(1);
}

/* In the child: a daemon of its own, on a fresh loop; the parent's loop is left where it is (it is
 * shared memory of the past). */
static void
child_run(struct daemon *parent, const struct zygote_spec *spec, struct pairs *p)
{
	static struct daemon_private private;
	static struct daemon d;
	char why[512] = "start failed";

	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGCHLD, SIG_DFL);
	child_close_others(spec, p, parent->private->log_fd);
	private = (struct daemon_private){ .log_fd = parent->private->log_fd,
		.acceptor = parent->private->acceptor };
	d = (struct daemon){ .role = spec->desc->role,
		.service = parent->service,
		.conf = parent->conf,
		.conf_generation = parent->conf_generation,
		.ctx = spec->arg,
		.unprivileged = parent->unprivileged,
		.uid = spec->become ? spec->uid : parent->uid,
		.gid = spec->become ? spec->gid : parent->gid,
		.desc = spec->desc,
		.private = &private,
		.file_limit = parent->file_limit };
	snprintf(d.root, sizeof(d.root), "%s", spec->root ? spec->root : parent->root);
	log_reset(d.role);
	if (child_jail(&d, spec, why, sizeof(why)))
		child_fail(&d, why);
	daemon_setup(&d, p->control[1], parent->role);
	if (spec->desc->start && spec->desc->start(&d))
		child_fail(&d, why);
	for (size_t i = 0; i < spec->npeers; i++)
		daemon_link(&d, p->peer[i][1], spec->peers[i]);
	if (p->direct[1] >= 0)
		daemon_link(&d, p->direct[1], spec->direct);
	_exit(daemon_loop(&d));
}

static void
send_far_end(struct daemon *d, enum role peer, int fd)
{
	struct msg m = MSG_INIT(MSG_CHILD, 0);

	m.fd = fd;
	(void)daemon_send(
	    d, peer, &m); /* no link: the child sees EOF at once and gets a new pair later */
}

static struct zygote_child *
add_child(struct daemon *d, const struct zygote_spec *spec, pid_t pid, int control)
{
	struct child *c = xcalloc(1, sizeof(*c));

	c->d = d;
	c->pub.pid = pid;
	memcpy(c->peers, spec->peers, sizeof(c->peers));
	c->npeers = spec->npeers;
	hash_insert(&d->private->children, &c->node, slice(&c->pub.pid, sizeof(c->pub.pid)));
	c->pub.chan = daemon_adopt(d, control, spec->desc->role);
	return &c->pub;
}

struct zygote_child *
zygote_fork(struct daemon *d, const struct zygote_spec *spec, int *err_r)
{
	struct pairs p;
	struct zygote_child *child;
	pid_t pid;

	if (spec->direct_fd_r)
		*spec->direct_fd_r = -1;
	*err_r = make_pairs(spec, &p);
	if (*err_r)
		return NULL;
	zygote_watch_children(d);
	if (jail_compile(spec->desc->role)) /* once: the children inherit it */
		log_event(LOG_filter_late, "role=%s", role_table[spec->desc->role].name);
	log_flush();
	pid = fork();
	if (pid < 0) {
		*err_r = err_errno();
		close_side(&p, spec->npeers, 0);
		close_side(&p, spec->npeers, 1);
		return NULL;
	}
	if (!pid)
		child_run(d, spec, &p);
	close_side(&p, spec->npeers, 1);
	child = add_child(d, spec, pid, p.control[0]);
	p.control[0] = -1;
	for (size_t i = 0; i < spec->npeers; i++)
		send_far_end(d, spec->peers[i], p.peer[i][0]);
	if (spec->direct_fd_r) {
		*spec->direct_fd_r = p.direct[0];
		p.direct[0] = -1;
	}
	close_side(&p, spec->npeers, 0);
	return child;
}

static void
link_child(struct daemon *d, struct child *c, enum role peer)
{
	struct msg m = MSG_INIT(MSG_LINK, 0);
	int fds[2];

	if (!c->pub.chan || ipc_pair(fds))
		return;
	m.link.role = (uint8_t)peer;
	m.fd = fds[1];
	(void)ipc_send(c->pub.chan, &m);
	send_far_end(d, peer, fds[0]);
	close(fds[0]);
	close(fds[1]);
}

/* A peer came back: every child that talks to it gets a new pair. */
void
zygote_repair(struct daemon *d, enum role peer)
{
	struct hash_node *n;

	for (n = hash_next(&d->private->children, NULL); n;
	     n = hash_next(&d->private->children, n)) {
		struct child *c = HASH_ELEMENT(n, struct child, node);
		for (size_t i = 0; i < c->npeers; i++)
			if (c->peers[i] == peer) {
				c->lost &= ~(1u << i);
				c->losses = 0;
				link_child(d, c, peer);
			}
	}
}

static struct child *
child_of(struct daemon *d, const struct ipc_chan *ch)
{
	struct hash_node *n;

	for (n = hash_next(&d->private->children, NULL); n; n = hash_next(&d->private->children, n))
		if (HASH_ELEMENT(n, struct child, node)->pub.chan == ch)
			return HASH_ELEMENT(n, struct child, node);
	return NULL;
}

static void
link_again(void *arg)
{
	struct child *c = arg;
	struct daemon *d = c->d;
	unsigned lost = c->lost;

	c->lost = 0;
	for (size_t i = 0; i < c->npeers && c->pub.chan; i++) {
		if (!(lost & 1u << i) || !d->peers[c->peers[i]])
			continue; /* the peer has gone: zygote_repair, when it is back */
		if (++c->losses > LOSSES_MAX) {
			log_event(LOG_ipc_violation,
			    "peer=%s pid=%d reason=\"its links end again and again\" remedy=\"it "
			    "gets no new client; look for a crash or an attack in it\"",
			    role_table[ipc_chan_peer(c->pub.chan)].name, (int)c->pub.pid);
			daemon_drop(d, c->pub.chan);
			c->pub.chan = NULL;
		} else {
			link_child(d, c, c->peers[i]);
		}
	}
}

/* A child's link has ended, for a fault or with the peer; which of both is seen a moment later. */
void
zygote_link_lost(struct daemon *d, const struct ipc_chan *ch, unsigned peer)
{
	struct child *c = child_of(d, ch);

	for (size_t i = 0; c && i < c->npeers; i++)
		if (c->peers[i] == peer) {
			if (!c->lost)
				ev_timer_set(d->base, &c->again, LINK_AGAIN_MS, link_again, c);
			c->lost |= 1u << i;
		}
}

static bool
died_of_fault(int status)
{
	if (!WIFSIGNALED(status))
		return false;
	switch (WTERMSIG(status)) {
	case SIGSEGV:
	case SIGBUS:
	case SIGILL:
	case SIGFPE:
	case SIGABRT:
	case SIGSYS:
	case SIGTRAP:
		return true;
	default:
		return false;
	}
}

static void
bury(struct daemon *d, pid_t pid, int status)
{
	struct hash_node *n = hash_find(&d->private->children, slice(&pid, sizeof(pid)));
	struct child *c = n ? HASH_ELEMENT(n, struct child, node) : NULL;
	bool fault = died_of_fault(status) && c;

	if (fault)
		log_event(LOG_child_died,
		    "pid=%d signal=%s remedy=\"this service's parent is started anew; report the "
		    "crash\"",
		    (int)pid, sigabbrev_np(WTERMSIG(status)));
	else if (c && WIFEXITED(status) && WEXITSTATUS(status))
		log_event(LOG_child_died, "pid=%d status=%d remedy=\"see the line before\"",
		    (int)pid, WEXITSTATUS(status));
	if (d->desc->child_exit)
		d->desc->child_exit(d, pid, status);
	if (c) {
		hash_remove(&d->private->children, &c->node);
		if (c->pub.chan)
			daemon_drop(d, c->pub.chan);
		ev_timer_free(&c->again);
		free(c);
	}
	if (fault)
		daemon_renew(d);
}

static void
on_child(evutil_socket_t sig, short what, void *arg)
{
	struct daemon *d = arg;
	int status;
	pid_t pid;

	(void)sig;
	(void)what;
	ev_turn();
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		bury(d, pid, status);
	if (d->stopping && !d->private->children.count && d->desc->stop)
		d->desc->stop(d);
}

void
zygote_watch_children(struct daemon *d)
{
	if (d->private->on_child)
		return;
	d->private->on_child = evsignal_new(d->base, SIGCHLD, on_child, d);
	evsignal_add(d->private->on_child, NULL);
}

/* Called when the channel of a child closes before its end is reaped. */
void
zygote_forget_chan(struct daemon *d, struct ipc_chan *ch)
{
	struct child *c = child_of(d, ch);

	if (c)
		c->pub.chan = NULL;
}

struct zygote_child *
zygote_find(struct daemon *d, pid_t pid)
{
	struct hash_node *n = hash_find(&d->private->children, slice(&pid, sizeof(pid)));

	return n ? &HASH_ELEMENT(n, struct child, node)->pub : NULL;
}

size_t
zygote_count(const struct daemon *d)
{
	return d->private->children.count;
}

void
zygote_stop_children(struct daemon *d, uint8_t how)
{
	struct msg m = MSG_INIT(MSG_STOP, 0);

	m.stop.how = how;
	for (struct hash_node *n = hash_next(&d->private->children, NULL); n;
	     n = hash_next(&d->private->children, n)) {
		struct child *c = HASH_ELEMENT(n, struct child, node);
		if (c->pub.chan)
			(void)ipc_send(c->pub.chan, &m);
	}
}
