/*
 * A process of a service: its user, its start, and what it says on its control channel. Runs as
 * root. Hostile: a daemon that was taken over; its messages are checked by lib/ipc, and the worst
 * it gets by a bad one is its own end. Every process is the leader of a group of its own, so that
 * its children can be cleaned up with it. Invariant: it inherits the three descriptors of
 * daemon/private.h and no other.
 */
#include "master/master.h"

#include "daemon/private.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int
role_ids(const struct master *m, enum role role, uid_t *uid_r, gid_t *gid_r)
{
	const struct role_row *row = &role_table[role];
	const struct passwd *pw;

	if (m->unprivileged) {
		*uid_r = getuid();
		*gid_r = getgid();
		return 0;
	}
	if (!strcmp(row->user, "root")) {
		*uid_r = *gid_r = 0;
		return 0;
	}
	if (m->set->conf->uid_base > 0) {
		*uid_r = *gid_r = (uid_t)(m->set->conf->uid_base + row->number);
		return 0;
	}
	pw = getpwnam(row->user);
	if (!pw)
		return ERR_NOT_FOUND;
	*uid_r = pw->pw_uid;
	*gid_r = pw->pw_gid;
	return 0;
}

void
process_forget(struct process *p)
{
	links_forget_process(p->service->m, p);
	metrics_gone(p->service->m, p);
	ipc_chan_free(&p->chan);
	TAILQ_REMOVE(&p->service->processes, p, next);
	p->service->nprocesses--;
	control_daemon_gone(p->service->m, p); /* who is answered now sees that it is gone */
	free(p->report);
	free(p->stats);
	free(p);
}

/* ---------------------------------------------------------------- counters */

int
process_ask_stats(struct process *p, uint32_t id)
{
	struct msg req = MSG_INIT(MSG_STATS_REQUEST, id);
	int err = p->chan ? ipc_send(p->chan, &req) : ERR_CLOSED;

	if (!err)
		p->owes[p->asked++ % STATS_ASKED] = id;
	return err;
}

bool
process_owed(struct process *p, uint32_t id)
{
	for (size_t i = 0; id && i < STATS_ASKED; i++)
		if (p->owes[i] == id) {
			p->owes[i] = 0;
			return true;
		}
	return false;
}

/* ---------------------------------------------------------------- messages of daemons */

static struct process *
process_of(struct master *m, const struct ipc_chan *ch)
{
	struct service *s;
	struct process *p;

	TAILQ_FOREACH(s, &m->services, next)
		TAILQ_FOREACH(p, &s->processes, next)
			if (p->chan == ch)
				return p;
	return NULL;
}

static void
tell_starter(struct master *m)
{
	if (m->told_ready || !services_all_ready(m))
		return;
	m->told_ready = true;
	notify("READY=1");
	log_event(LOG_started, "config=%s", log_cstr(m->config_dir));
	if (m->ready_fd >= 0) {
		if (write(m->ready_fd, "ok\n", 3) < 0)
			log_event(LOG_starter_gone, "reason=\"%s\"", err_str(err_errno()));
		close(m->ready_fd);
		m->ready_fd = -1;
	}
}

static void
on_ready(struct master *m, struct process *p, const struct msg *msg)
{
	if (!slice_eq_str(msg->ready.build, MSG_LAYOUT)) {
		log_event(LOG_wrong_build, "service=%s remedy=\"install programs of one build\"",
		    p->service->name);
		kill(p->pid, SIGTERM);
		return;
	}
	p->ready = true;
	if (p->service->down)
		log_event(LOG_service_back, "service=%s pid=%d after_ms=%lld", p->service->name,
		    (int)p->pid, (long long)(master_now_ms() - p->service->down));
	p->service->down = 0;
	free(p->report);
	p->report = slice_dup(msg->ready.report);
	tell_starter(m);
}

static void
on_daemon_message(void *ctx, struct ipc_chan *ch, struct msg *msg)
{
	struct master *m = ctx;
	struct process *p = process_of(m, ch);

	switch (msg->type) {
	case MSG_READY:
		if (p)
			on_ready(m, p, msg);
		return;
	case MSG_LINK_LOST:
		if (p && !m->stopping)
			links_lost(m, p, msg->link_lost.pair);
		return;
	case MSG_METRICS_GET:
		metrics_get(m, ch, msg->id);
		return;
	case MSG_STATS:
		if (!p || !process_owed(p, msg->id) || metrics_stats(m, p, msg))
			return;
		FALLTHROUGH;
	case MSG_CONTROL_REPLY:
		control_answer(m, ch, msg);
		return;
	default:
		log_event(LOG_unexpected, "message=%s service=%s", msg_name(msg->type),
		    p ? p->service->name : "?");
	}
}

static void
on_daemon_closed(void *ctx, struct ipc_chan *ch, int err, const char *why)
{
	struct master *m = ctx;
	struct process *p = process_of(m, ch);

	if (!p)
		return;
	metrics_gone(m, p);
	p->chan = NULL;
	if (err == ERR_CLOSED)
		return; /* its end is reaped */
	log_event(LOG_ipc_violation,
	    "service=%s pid=%d reason=\"%s\" remedy=\"the process is killed and started anew\"",
	    p->service->name, (int)p->pid, why);
	kill(-p->pid, SIGKILL);
}

static const struct ipc_ops daemon_ops = { on_daemon_message, on_daemon_closed };

/* ---------------------------------------------------------------- spawning */

struct spawn {
	char path[4096], uid[16], gid[16], root[4096];
	int control, config, log;
};

static void
exec_child(const struct service *s, const struct spawn *sp, bool unprivileged)
{
	const char *argv[12];
	int fds[3] = { sp->control, sp->config, sp->log };
	size_t n = 0;

	setpgid(0, 0);
	for (int i = 0; i < 3; i++)
		fds[i] = fcntl(fds[i], F_DUPFD, 16);
	for (int i = 0; i < 3; i++)
		dup2(fds[i], FD_CONTROL + i);
	close_range(FD_LOG + 1, ~0u, 0);
	argv[n++] = s->program;
	argv[n++] = "--service";
	argv[n++] = s->name;
	argv[n++] = "--uid";
	argv[n++] = sp->uid;
	argv[n++] = "--gid";
	argv[n++] = sp->gid;
	argv[n++] = "--root";
	argv[n++] = sp->root;
	if (unprivileged)
		argv[n++] = "--unprivileged";
	argv[n] = NULL;
	signal(SIGCHLD, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	execv(sp->path, (char *const *)(uintptr_t)argv);
	_exit(127);
}

static int
prepare(struct master *m, struct service *s, struct spawn *sp, int control[2])
{
	uid_t uid;
	gid_t gid;
	int err = role_ids(m, s->role, &uid, &gid);

	if (err) {
		log_event(LOG_spawn_failed,
		    "service=%s reason=\"no user %s\" remedy=\"create it, or set uid_base in "
		    "main.cf\"",
		    s->name, role_table[s->role].user);
		return err;
	}
	snprintf(sp->uid, sizeof(sp->uid), "%u", (unsigned)uid);
	snprintf(sp->gid, sizeof(sp->gid), "%u", (unsigned)gid);
	snprintf(sp->path, sizeof(sp->path), "%s/%s", m->set->conf->daemon_directory, s->program);
	role_root(m, s->role, sp->root, sizeof(sp->root));
	sp->log = m->log_pair[1];
	sp->config = snapshot_fd(s);
	if (sp->config < 0)
		return sp->config;
	err = ipc_pair(control);
	if (err)
		close(sp->config);
	sp->control = control[1];
	return err;
}

void
process_send_listeners(struct process *p)
{
	const struct service *s = p->service;
	struct msg msg = MSG_INIT(MSG_LISTENER, 0);

	for (size_t i = 0; i < s->nlisteners; i++) {
		msg.listener.index = (uint8_t)i;
		msg.listener.local = s->listeners[i]->local;
		msg.listener.name = slice_str(s->listeners[i]->name);
		msg.fd = s->listeners[i]->fd;
		(void)ipc_send(p->chan, &msg);
	}
}

static void
hand_resources(struct master *m, struct process *p)
{
	struct service *s = p->service;
	struct msg msg = MSG_INIT(MSG_LISTENER, 0);

	tls_send_certificates(s, p);
	tls_send_keys(s, p);
	if (s->role == ROLE_LOG) {
		msg.listener.name = SLICE_LIT("log");
		msg.fd = m->log_pair[0];
		(void)ipc_send(p->chan, &msg);
	}
	process_send_listeners(p);
	links_connect(m, p);
}

int
process_start(struct master *m, struct service *s)
{
	struct spawn sp;
	struct process *p;
	int control[2], err = prepare(m, s, &sp, control);
	pid_t pid;

	if (err)
		return err;
	log_flush();
	pid = fork();
	err = pid < 0 ? err_errno() : 0;
	if (!pid)
		exec_child(s, &sp, m->unprivileged);
	close(control[1]);
	close(sp.config);
	if (pid < 0) {
		close(control[0]);
		log_event(
		    LOG_spawn_failed, "service=%s reason=\"fork: %s\"", s->name, err_str(err));
		return err;
	}
	p = xcalloc(1, sizeof(*p));
	p->service = s;
	p->pid = pid;
	p->started = master_now_ms();
	p->chan = ipc_chan_new(m->io, control[0], s->role, &daemon_ops, m);
	if (s->role == ROLE_METRICS)
		ipc_chan_asked(p->chan);
	TAILQ_INSERT_TAIL(&s->processes, p, next);
	s->nprocesses++;
	hand_resources(m, p);
	return 0;
}
