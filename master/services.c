/*
 * Services: which there are, the back-off of one that keeps failing, and the end. Runs as root; no
 * input but the configuration and the exit statuses of processes. Invariants: a service that fails
 * is logged with the reason each time; its wait doubles up to service_throttle_time and never
 * becomes a silent hang; at a stop, receivers go first and the log last.
 */
#include "master/master.h"

#include "daemon/private.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#define FIRST_BACKOFF_MS 100

struct service *
service_by_role(struct master *m, enum role role)
{
	struct service *s;

	TAILQ_FOREACH(s, &m->services, next)
		if (s->role == role && !s->obsolete)
			return s;
	return NULL;
}

/* ---------------------------------------------------------------- starting */

static void
start_again(void *arg)
{
	struct service *s = arg;

	service_start_missing(s->m);
}

int64_t
backoff_ms(const struct master *m, unsigned failures)
{
	int64_t wait = FIRST_BACKOFF_MS, most = m->set->conf->service_throttle_time;

	for (unsigned i = 0; i < failures && wait < most; i++)
		wait *= 2;
	return wait < most ? wait : most;
}

static void
retry_later(struct service *s)
{
	int64_t wait = backoff_ms(s->m, s->failures++);

	if (s->failures > 1)
		log_event(LOG_service_throttled,
		    "service=%s failures=%u wait_ms=%lld remedy=\"see the lines of this service "
		    "before\"",
		    s->name, s->failures, (long long)wait);
	ev_timer_set(s->m->base, &s->restart, wait, start_again, s);
}

static void
start(struct master *m, struct service *s)
{
	if (process_start(m, s))
		retry_later(s);
}

/* --- on demand: a client that waits in a listening socket starts the service --- */

static void
demand_forget(struct service *s)
{
	for (size_t i = 0; i < sizeof(s->demand) / sizeof(s->demand[0]); i++) {
		if (s->demand[i])
			event_free(s->demand[i]);
		s->demand[i] = NULL;
	}
}

static void
on_demand(evutil_socket_t fd, short what, void *arg)
{
	struct service *s = arg;

	(void)fd;
	(void)what;
	demand_forget(s);
	if (!s->m->stopping && !s->obsolete && !s->nprocesses)
		start(s->m, s);
}

static void
demand_watch(struct service *s)
{
	demand_forget(s);
	for (size_t i = 0; i < s->nlisteners; i++) {
		s->demand[i] = event_new(s->m->base, s->listeners[i]->fd, EV_READ, on_demand, s);
		event_add(s->demand[i], NULL);
	}
}

void
service_start_missing(struct master *m)
{
	struct service *s;

	if (m->stopping)
		return;
	TAILQ_FOREACH(s, &m->services, next) {
		if (s->on_demand) {
			if (!s->obsolete && !s->nprocesses &&
			    !(s->restart.event && evtimer_pending(s->restart.event, NULL)))
				demand_watch(s);
			continue;
		}
		while (!s->obsolete && s->nprocesses < s->wanted &&
		       !(s->restart.event && evtimer_pending(s->restart.event, NULL))) {
			size_t before = s->nprocesses;
			start(m, s);
			if (s->nprocesses == before)
				break;
		}
	}
}

/* ---------------------------------------------------------------- the configuration's services */

static bool
has_several(enum role role)
{
	return role == ROLE_SMTP_CLIENT;
}

static bool
is_front_end(enum role role)
{
	return role == ROLE_SMTPD || role == ROLE_SUBMISSION || role == ROLE_LOGIN;
}

static bool
is_row_of(const struct conf_service *row, const struct service *s)
{
	return !strcmp(row->name, s->name) && !strcmp(row->command, s->program);
}

static const char *
port_of(const char *name)
{
	const char *colon = strrchr(name, ':');

	return colon ? colon + 1 : name;
}

/* A row of another name is the service of a former row if only the address in the name changed: its
 * processes and their sessions stay, and get other sockets. */
static bool
is_moved_row(const struct master *m, const struct conf_service *row, const struct service *s)
{
	if (!s->obsolete || !is_front_end(s->role) || row->type != CONF_SERVICE_INET ||
	    strcmp(row->command, s->program) || strcmp(port_of(row->name), port_of(s->name)))
		return false;
	for (size_t i = 0; i < m->set->services->n; i++)
		if (is_row_of(&m->set->services->v[i], s))
			return false;
	return true;
}

static struct service *
find_or_add(struct master *m, const struct conf_service *row, int role)
{
	struct service *s;

	TAILQ_FOREACH(s, &m->services, next)
		if (!s->ending && is_row_of(row, s))
			return s;
	TAILQ_FOREACH(s, &m->services, next)
		if (!s->ending && is_moved_row(m, row, s)) {
			free(s->name);
			s->name = xstrdup(row->name);
			return s;
		}
	s = xcalloc(1, sizeof(*s));
	s->m = m;
	s->name = xstrdup(row->name);
	s->program = xstrdup(row->command);
	s->role = (enum role)role;
	TAILQ_INIT(&s->processes);
	TAILQ_INSERT_TAIL(&m->services, s, next);
	return s;
}

/* The sockets of its row. A change of them is told to its processes. */
static void
listen_anew(struct service *s, const struct conf_service *row)
{
	struct listener *former[DAEMON_LISTENERS];
	size_t n = s->nlisteners;

	memcpy(former, s->listeners, sizeof(former));
	s->nlisteners = 0;
	s->incomplete = listeners_for(s->m, s, row) != 0;
	s->moved = n != s->nlisteners || memcmp(former, s->listeners, n * sizeof(former[0])) != 0;
	if (s->incomplete)
		log_event(LOG_service_incomplete,
		    "service=%s reason=\"not all of its sockets are open\"", s->name);
}

/* What is not in the configuration any more finishes. */
static void
end_obsolete(struct master *m)
{
	struct msg stop = MSG_INIT(MSG_STOP, 0);
	struct service *s;
	struct process *p;

	TAILQ_FOREACH(s, &m->services, next) {
		if (!s->obsolete || s->ending)
			continue;
		s->ending = true;
		TAILQ_FOREACH(p, &s->processes, next)
			if (p->chan)
				(void)ipc_send(p->chan, &stop);
	}
}

void
services_build(struct master *m)
{
	struct service *s;
	struct listener *l;

	TAILQ_FOREACH(s, &m->services, next) {
		s->obsolete = true;
		s->conf = m->set->conf; /* that of its row has gone with the former set */
		demand_forget(s);
	}
	LIST_FOREACH(l, &m->listeners, next)
		l->used = false;
	for (size_t i = 0; i < m->set->services->n; i++) {
		const struct conf_service *row = &m->set->services->v[i];
		int role = role_by_name(slice_str(row->command));
		if (role < 0 || role_table[role].parent != ROLE_MASTER)
			continue; /* the check of the configuration has named it */
		if (role == ROLE_METRICS && !*m->set->conf->metrics_listen)
			continue; /* switched off */
		s = find_or_add(m, row, role);
		s->obsolete = false;
		s->conf = row->conf ? row->conf : m->set->conf;
		s->process_limit = row->maxproc == CONF_MAXPROC_DEFAULT
				       ? s->conf->default_process_limit
				       : row->maxproc;
		s->wanted = has_several(s->role) && row->maxproc > 0 ? (size_t)row->maxproc : 1;
		s->on_demand = s->conf->service_on_demand && is_front_end(s->role);
		listen_anew(s, row);
	}
	end_obsolete(m);
	listeners_drop_unused(m);
}

/* ---------------------------------------------------------------- ends */

static void
log_end(const struct service *s, pid_t pid, int status, bool early)
{
	const char *remedy = early ? "see the line before: the service could not start"
				   : "report the crash; it is started anew";

	if (WIFSIGNALED(status))
		log_event(LOG_service_died, "service=%s pid=%d signal=%s remedy=\"%s\"", s->name,
		    (int)pid, sigabbrev_np(WTERMSIG(status)), remedy);
	else if (WEXITSTATUS(status) == 127)
		log_event(LOG_service_died,
		    "service=%s pid=%d reason=\"cannot run %s/%s\" remedy=\"correct "
		    "daemon_directory in main.cf\"",
		    s->name, (int)pid, s->m->set->conf->daemon_directory, s->program);
	else
		log_event(LOG_service_died, "service=%s pid=%d status=%d remedy=\"%s\"", s->name,
		    (int)pid, WEXITSTATUS(status), remedy);
}

static void
reap(struct master *m, struct process *p, int status)
{
	struct service *s = p->service;
	bool early = master_now_ms() - p->started < STEADY_MS, ready = p->ready;
	bool renew = ready && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_RENEW;
	pid_t pid = p->pid;

	process_forget(p);
	if (m->stopping || s->obsolete)
		return;
	if (!s->down)
		s->down = master_now_ms();
	if (renew) {
		log_event(LOG_service_renewed,
		    "service=%s reason=\"a child of it crashed, or what is read before its jail "
		    "changed\"",
		    s->name);
		return;
	}
	if (s->on_demand && ready && WIFEXITED(status) && !WEXITSTATUS(status)) {
		log_event(LOG_service_idle, "service=%s", s->name);
		s->failures = 0;
		s->down = 0;
		return;
	}
	log_end(s, pid, status, early && !ready);
	if (!early)
		s->failures = 0;
	retry_later(s);
}

static void
remove_dead_obsolete(struct master *m)
{
	struct service *s, *next;

	for (s = TAILQ_FIRST(&m->services); s; s = next) {
		next = TAILQ_NEXT(s, next);
		if (!s->obsolete || s->nprocesses)
			continue;
		TAILQ_REMOVE(&m->services, s, next);
		demand_forget(s);
		ev_timer_free(&s->restart);
		free(s->name);
		free(s->program);
		free(s);
	}
}

void
services_reap(struct master *m)
{
	struct service *s;
	struct process *p, *next;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		TAILQ_FOREACH(s, &m->services, next)
			for (p = TAILQ_FIRST(&s->processes); p; p = next) {
				next = TAILQ_NEXT(p, next);
				if (p->pid == pid)
					reap(m, p, status);
			}
	remove_dead_obsolete(m);
	service_start_missing(m);
}

size_t
services_alive(const struct master *m)
{
	const struct service *s;
	size_t n = 0;

	TAILQ_FOREACH(s, &m->services, next)
		n += s->nprocesses;
	return n;
}

bool
services_all_ready(const struct master *m)
{
	const struct service *s;
	const struct process *p;

	TAILQ_FOREACH(s, &m->services, next) {
		if (s->nprocesses < s->wanted && !s->on_demand)
			return false;
		TAILQ_FOREACH(p, &s->processes, next)
			if (!p->ready)
				return false;
	}
	return true;
}

/* In which order a stop goes through the roles. */
static int
phase_of(enum role role)
{
	switch (role) {
	case ROLE_SMTPD:
	case ROLE_SUBMISSION:
	case ROLE_LOGIN:
	case ROLE_PICKUP:
		return 0;
	case ROLE_QMGR:
	case ROLE_BROKER:
		return 1;
	case ROLE_LOG:
		return 3;
	default:
		return 2;
	}
}

/* Stops the processes of the first phase that still has some; called again as they end. how 1: at
 * once, all; the log, which has to write that, when the others are gone. */
void
services_stop(struct master *m, uint8_t how)
{
	struct msg stop = MSG_INIT(MSG_STOP, 0);
	struct service *s;
	struct process *p;
	int phase = 4;

	TAILQ_FOREACH(s, &m->services, next)
		if (s->nprocesses && phase_of(s->role) < phase)
			phase = phase_of(s->role);
	stop.stop.how = how;
	TAILQ_FOREACH(s, &m->services, next)
		TAILQ_FOREACH(p, &s->processes, next) {
			if (how == 1 && (s->role != ROLE_LOG || phase == phase_of(ROLE_LOG)))
				kill(-p->pid, SIGKILL);
			else if (phase_of(s->role) == phase && p->chan && !p->stop_sent) {
				p->stop_sent = true;
				(void)ipc_send(p->chan, &stop);
			}
		}
}

/* Before the re-exec: acceptors and sessions finish, everybody else ends when his control channel
 * does. */
void
services_stop_for_upgrade(struct master *m)
{
	struct msg stop = MSG_INIT(MSG_STOP, 0);
	struct service *s;
	struct process *p;

	stop.stop.how = 2;
	TAILQ_FOREACH(s, &m->services, next)
		TAILQ_FOREACH(p, &s->processes, next)
			if (p->chan)
				(void)ipc_send(p->chan, &stop);
}
