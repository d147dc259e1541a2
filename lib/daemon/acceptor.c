/*
 * Acceptors. Runs in the zygotes of smtpd, submission and login, as the service's uid without
 * capabilities; holds the listening sockets and reads no byte of a client. Hostile: how fast and
 * how often clients connect. Counts per client are in acceptor_clients.c, the processes that hold
 * the sessions in acceptor_workers.c. Invariant: a descriptor that accept4 gave is handed on or
 * closed in the same turn.
 */
#include "daemon/acceptor_private.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

#define LINK_WAIT_MS 5000 /* after a start, for the links to those whom the sessions ask */
#define WAITING_MAX 1024  /* clients in a listening socket, as master opens it */

/* ---------------------------------------------------------------- accepting */

static void
refuse(struct acceptor_state *a, struct listener *l, int fd, const char *why, const char *who)
{
	const char *text = a->desc->refusal ? a->desc->refusal(a->d, l->index) : NULL;

	count(COUNT_connections_refused, 1);
	log_event(LOG_connection_refused, "client=%s reason=\"%s\"", who, why);
	if (text && send(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_event(LOG_refusal_unsent, "client=%s", who);
}

static int
describe(struct listener *l, int fd, const struct sockaddr_storage *peer, struct msg *m,
    struct inet_addr *addr, struct inet_addr *local)
{
	struct sockaddr_storage ss;
	socklen_t n = sizeof(ss);

	m->connection.listener = l->index;
	m->connection.local = l->local;
	m->connection.uid = UINT32_MAX;
	if (l->local) {
		struct ucred cred;
		n = sizeof(cred);
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n))
			return err_errno();
		m->connection.uid = cred.uid;
		return 0;
	}
	if (inet_from_sockaddr(peer, addr, &m->connection.port))
		return ERR_SYNTAX;
	if (getsockname(fd, (struct sockaddr *)&ss, &n) ||
	    inet_from_sockaddr(&ss, local, &m->connection.local_port))
		return ERR_SYNTAX;
	m->connection.address = slice(addr, sizeof(*addr));
	m->connection.local_address = slice(local, sizeof(*local));
	return 0;
}

static void
accepted(struct listener *l, int fd, const struct sockaddr_storage *peer)
{
	struct acceptor_state *a = l->a;
	struct msg m = MSG_INIT(MSG_CONNECTION, 0);
	struct inet_addr addr, local;
	char who[INET_TEXT] = "local";
	const char *why;
	struct session *s;
	struct worker *w;

	m.fd = fd;
	if (describe(l, fd, peer, &m, &addr, &local))
		return;
	if (!l->local)
		inet_format(&addr, who);
	s = xcalloc(1, sizeof(*s));
	s->token = m.connection.token = ++a->next_token;
	hash_insert(&a->sessions, &s->node, slice(&s->token, sizeof(s->token)));
	a->used = true;
	count(COUNT_connections, 1);
	why = l->local ? NULL : acceptor_over_limit(a, s, &addr);
	if (why) {
		refuse(a, l, fd, why, who);
		acceptor_session_free(a, s);
		return;
	}
	w = acceptor_worker(a);
	if (!w || !acceptor_hand_over(w, s, &m)) {
		refuse(a, l, fd,
		    "no process with room: raise maxproc in master.cf or the sessions per process",
		    who);
		acceptor_session_free(a, s);
	}
}

static void
pause_one(struct listener *l)
{
	if (l->a->paused)
		event_del(l->event);
	else
		event_add(l->event, NULL);
}

static void
set_paused(struct acceptor_state *a, bool paused)
{
	a->paused = paused;
	for (size_t i = 0; i < a->nlisteners; i++)
		pause_one(&a->listeners[i]);
	for (size_t i = 0; i < a->nformer; i++)
		pause_one(&a->former[i]);
}

static void
resume(void *arg)
{
	set_paused(arg, false);
}

static void
rest(struct acceptor_state *a, int64_t ms)
{
	set_paused(a, true);
	ev_timer_set(a->d->base, &a->resume, ms, resume, a);
}

/* At a start or an upgrade the first clients wait in the listening socket until there is somebody
 * whom their sessions can ask. Later a link may be missing: then they are told. */
static bool
may_begin(struct acceptor_state *a)
{
	bool linked = true;

	for (size_t i = 0; i < a->desc->npeers; i++)
		linked &= a->d->peers[a->desc->peers[i]] != NULL;
	a->linked |= linked || ev_now_us() / 1000 - a->started > LINK_WAIT_MS;
	return a->linked;
}

/* No descriptor left: do not spin on the listening sockets. */
static void
pause_all(struct acceptor_state *a, int err)
{
	if (a->paused)
		return;
	rest(a, 100);
	log_event(LOG_accept_failed,
	    "reason=\"%s\" remedy=\"raise the limit of open files; trying again in 100 ms\"",
	    err_str(err));
}

/* False: nobody waits, or the kernel has no room for one more. */
static bool
accept_one(struct listener *l)
{
	struct sockaddr_storage peer;
	socklen_t n = sizeof(peer);
	int client = accept4(l->fd, (struct sockaddr *)&peer, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (client < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			pause_all(l->a, err_errno());
		return false;
	}
	accepted(l, client, &peer);
	close(client);
	return true;
}

static void
on_listener_ready(evutil_socket_t fd, short what, void *arg)
{
	struct listener *l = arg;

	(void)fd;
	(void)what;
	ev_turn();
	if (!l->a->linked && !may_begin(l->a)) {
		rest(l->a, 10);
		return;
	}
	/* One a turn: to try for a second costs as much as it saves, unless many wait. */
	(void)accept_one(l);
}

static void
watch(struct listener *l)
{
	l->event = event_new(l->a->d->base, l->fd, EV_READ | EV_PERSIST, on_listener_ready, l);
	pause_one(l);
}

/* What waits in a socket is reset when its last descriptor goes. */
static void
close_former(void *arg)
{
	struct acceptor_state *a = arg;

	for (size_t i = 0; i < a->nformer; i++) {
		struct listener *l = &a->former[i];
		for (int n = 0; n < WAITING_MAX && accept_one(l); n++)
			;
		ev_close_shared(l->event);
	}
	a->nformer = 0;
	ev_timer_clear(&a->former_end);
}

static void
retire_listeners(struct acceptor_state *a)
{
	close_former(a);
	for (size_t i = 0; i < a->nlisteners; i++) {
		event_free(a->listeners[i].event);
		a->former[i] = a->listeners[i];
		watch(&a->former[i]);
	}
	a->nformer = a->nlisteners;
	a->nlisteners = 0;
	if (a->nformer)
		ev_timer_set(a->d->base, &a->former_end, LISTENER_FORMER_MS, close_former, a);
}

static void
add_listener(struct acceptor_state *a, struct msg *m)
{
	struct listener *l;

	if (m->listener.index == 0)
		retire_listeners(a);
	l = &a->listeners[a->nlisteners];
	if (a->nlisteners == DAEMON_LISTENERS || ev_nonblock(m->fd)) {
		log_event(LOG_listener_refused,
		    "name=%s reason=\"too many listeners of one service\"",
		    log_value(m->listener.name));
		return;
	}
	*l = (struct listener){
		.a = a, .fd = m->fd, .local = m->listener.local, .index = m->listener.index
	};
	m->fd = -1;
	watch(l);
	a->nlisteners++;
}

/* ---------------------------------------------------------------- the daemon */

static struct acceptor_state *
state_of(struct daemon *d)
{
	return (struct acceptor_state *)(uintptr_t)d->private->acceptor;
}

static void
forward_tls(struct daemon *d, struct msg *m)
{
	struct acceptor_state *a = state_of(d);
	struct worker *w;

	TAILQ_FOREACH(w, &a->workers, next)
		if (w->child->chan)
			(void)ipc_send(w->child->chan, m);
	if (a->desc->tls)
		a->desc->tls(d, m);
}

static void
on_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct acceptor_state *a = state_of(d);

	switch (m->type) {
	case MSG_LISTENER:
		add_listener(a, m);
		return;
	case MSG_TLS_CERTIFICATE:
	case MSG_TLS_TICKET_KEYS:
		forward_tls(d, m);
		return;
	case MSG_CONNECTION_END:
		acceptor_count_end(a, ch, m->connection_end.token);
		return;
	default:
		if (a->desc->daemon.message)
			a->desc->daemon.message(d, ch, m);
	}
}

static void
on_child_exit(struct daemon *d, pid_t pid, int status)
{
	struct zygote_child *child = zygote_find(d, pid);

	(void)status;
	if (child && child->data)
		acceptor_worker_ended(state_of(d), child->data);
}

static void
close_listeners(struct acceptor_state *a)
{
	close_former(a);
	for (size_t i = 0; i < a->nlisteners; i++)
		ev_close_shared(a->listeners[i].event);
	a->nlisteners = 0;
	ev_timer_clear(&a->resume);
}

/* upgrade_timeout is over: what still waits for its client is cut. */
static void
on_last(void *arg)
{
	struct daemon *d = arg;

	log_event(LOG_upgrade_cut, "service=%s processes=%zu reason=\"upgrade_timeout\"",
	    log_cstr(d->service), zygote_count(d));
	zygote_stop_children(d, 1);
	daemon_exit(d);
}

static void
on_stop(struct daemon *d)
{
	struct acceptor_state *a = state_of(d);
	/* An upgrade cuts no session of a mailbox; a receiver's ends with its transaction, and the
	 * client tries again. */
	bool leave_them = d->stop_how == 2 && d->role == ROLE_LOGIN;

	if (a->nlisteners && !leave_them)
		zygote_stop_children(d, 0);
	if (a->nlisteners && !leave_them && d->stop_how == 2)
		ev_timer_set(d->base, &a->last, d->conf->upgrade_timeout, on_last, d);
	close_listeners(a);
	if (!zygote_count(d) || leave_them)
		daemon_exit(d);
}

/* On demand: nobody came and nobody is here, so master may wait for the next client. Who connects
 * meanwhile waits in the listening socket. */
static void
look_idle(void *arg)
{
	struct daemon *d = arg;
	struct acceptor_state *a = state_of(d);

	if (!a->used && !a->nworkers && !d->stopping) {
		daemon_exit(d);
		return;
	}
	a->used = false;
	ev_timer_set(d->base, &a->idle, d->conf->process_idle_limit, look_idle, d);
}

static void
watch_idle(struct daemon *d)
{
	struct acceptor_state *a = state_of(d);

	a->used = true;
	if (d->conf->service_on_demand)
		look_idle(d);
	else
		ev_timer_clear(&a->idle);
}

static int
on_start(struct daemon *d)
{
	struct acceptor_state *a = state_of(d);

	a->started = ev_now_us() / 1000;
	watch_idle(d);
	return a->desc->daemon.start ? a->desc->daemon.start(d) : 0;
}

static void
on_status(struct daemon *d, struct buf *out)
{
	struct acceptor_state *a = state_of(d);

	acceptor_take_ends(a);
	buf_addf(out, "processes=%zu sessions=%zu", a->nworkers, a->sessions.count);
}

static void
on_reload(struct daemon *d, const struct conf *old)
{
	struct acceptor_state *a = state_of(d);

	acceptor_retire_workers(a);
	watch_idle(d);
	if (a->desc->daemon.reload)
		a->desc->daemon.reload(d, old);
}

static int
on_init(struct daemon *d)
{
	struct acceptor_state *a = state_of(d);

	a->d = d;
	return a->desc->daemon.init ? a->desc->daemon.init(d) : 0;
}

int
acceptor_run(int argc, char **argv, const struct acceptor_desc *desc)
{
	static struct acceptor_state state;
	struct daemon_desc daemon = desc->daemon;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	state.desc = desc;
	state.cores = cores > 0 ? (int)cores : 1;
	TAILQ_INIT(&state.workers);
	TAILQ_INIT(&state.sharing);
	TAILQ_INIT(&state.quiet);
	daemon.init = on_init;
	daemon.start = on_start;
	daemon.message = on_message;
	daemon.child_exit = on_child_exit;
	daemon.reload = on_reload;
	daemon.stop = on_stop;
	daemon.status = on_status;
	return daemon_run_with(argc, argv, &daemon, &state);
}

void
acceptor_session_end(struct daemon *child, uint64_t token)
{
	struct msg m = MSG_INIT(MSG_CONNECTION_END, 0);
	struct daemon_private *p = child->private;
	struct ends *ends = state_of(child)->born_with;

	if (p->sessions)
		p->sessions--;
	/* The acceptor looks there before it counts. The last one is told as well: it may end the
	 * process. */
	if (!ends || !ends_put(ends, token) || !p->sessions) {
		m.connection_end.token = token;
		if (child->master)
			(void)ipc_send(child->master, &m);
	}
	if (!p->sessions && (child->stopping || !child->master))
		daemon_exit(child);
}
