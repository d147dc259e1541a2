/*
 * Acceptors. Runs in the zygotes of smtpd, submission and login, as the service's uid without
 * capabilities; holds the listening sockets and reads no byte of a client. Hostile: how fast and
 * how often clients connect. Counts per client live here, beside the children, and outlive them;
 * while a rate is limited, those of clients without a session stay for the time unit, bounded.
 * Invariants: a descriptor that accept4 gave is handed on or closed in the same turn; connections
 * per child never exceed the sessions per process.
 */
#include "daemon/acceptor.h"

#include "base/inet.h"
#include "daemon/private.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTENERS 32
#define ACCEPT_BURST 16
#define QUIET_MAX 65536 /* clients without a session whose connections are remembered */
#define SPREAD                                                                                     \
	8 /* sessions of the emptiest process before another one is started, up to the number of   \
	     cores */

struct listener {
	struct acceptor_state *a;
	struct event *event;
	int fd;
	bool local;
	uint8_t index;
};

struct client {
	struct hash_node node;    /* by masked address */
	TAILQ_ENTRY(client) next; /* among the quiet, while it has no session */
	struct inet_addr key;
	unsigned sessions;
	int64_t since;        /* ms: begin of its time unit, */
	uint64_t connections; /* and its connections in it */
};

struct session {
	struct hash_node node; /* by token */
	uint64_t token;
	struct client *client; /* NULL: not counted */
	struct worker *worker;
};

struct worker {
	TAILQ_ENTRY(worker) next;
	struct zygote_child *child;
	unsigned sessions;
	uint64_t served;
	bool retired; /* takes no new session */
	struct ev_timer idle;
	struct acceptor_state *a;
};

struct acceptor_state {
	const struct acceptor_desc *desc;
	struct daemon *d;
	struct listener listeners[LISTENERS];
	size_t nlisteners;
	struct hash clients, sessions;
	TAILQ_HEAD(, client) quiet; /* quiet longest first */
	size_t nquiet;
	TAILQ_HEAD(, worker) workers;
	size_t nworkers;
	uint64_t next_token;
	int cores;
	bool paused, used; /* used: accepted something since the last look */
	struct ev_timer idle, resume, last;
};

/* ---------------------------------------------------------------- counts per client */

static void
forget(struct acceptor_state *a, struct client *c)
{
	hash_remove(&a->clients, &c->node);
	free(c);
}

/* Of the quiet, those that are over: their time unit has passed, or there are too many. */
static void
forget_quiet(struct acceptor_state *a, int64_t now)
{
	struct client *c;

	while ((c = TAILQ_FIRST(&a->quiet)) &&
	       (a->nquiet > QUIET_MAX || now - c->since >= a->d->conf->anvil_rate_time_unit)) {
		TAILQ_REMOVE(&a->quiet, c, next);
		a->nquiet--;
		forget(a, c);
	}
}

/* Counts a connection of that address. */
static struct client *
client_enter(struct acceptor_state *a, const struct inet_addr *addr)
{
	unsigned bits =
	    inet_is_v4(addr) ? 128 : (unsigned)a->d->conf->smtpd_client_ipv6_prefix_length;
	struct inet_addr key = inet_mask(addr, bits ? bits : 128);
	int64_t now = ev_now_us() / 1000;
	struct hash_node *n;
	struct client *c;

	forget_quiet(a, now);
	n = hash_find(&a->clients, slice(&key, sizeof(key)));
	if (n) {
		c = HASH_ELEMENT(n, struct client, node);
		if (!c->sessions) {
			TAILQ_REMOVE(&a->quiet, c, next);
			a->nquiet--;
		}
	} else {
		c = xcalloc(1, sizeof(*c));
		c->key = key;
		c->since = now;
		hash_insert(&a->clients, &c->node, slice(&c->key, sizeof(c->key)));
	}
	if (now - c->since >= a->d->conf->anvil_rate_time_unit) {
		c->since = now;
		c->connections = 0;
	}
	c->sessions++;
	c->connections++;
	return c;
}

static void
client_release(struct acceptor_state *a, struct client *c)
{
	if (!c || --c->sessions)
		return;
	if (!a->d->conf->smtpd_client_connection_rate_limit) {
		forget(a, c);
		return;
	}
	TAILQ_INSERT_TAIL(&a->quiet, c, next);
	a->nquiet++;
}

static bool
spared(const struct acceptor_state *a, const struct inet_addr *addr)
{
	const struct conf_list *l = &a->d->conf->smtpd_client_event_limit_exceptions;

	return inet_in_list(addr, l->v, l->n);
}

/* ---------------------------------------------------------------- workers */

static void
session_free(struct acceptor_state *a, struct session *s)
{
	hash_remove(&a->sessions, &s->node);
	client_release(a, s->client);
	free(s);
}

static void
retire(struct worker *w)
{
	struct msg m = MSG_INIT(MSG_STOP, 0);

	if (w->retired)
		return;
	w->retired = true;
	m.stop.how = 0;
	if (w->child->chan)
		(void)ipc_send(w->child->chan, &m);
}

static void
on_idle(void *arg)
{
	struct worker *w = arg;

	if (!w->sessions)
		retire(w);
}

static struct worker *
worker_start(struct acceptor_state *a, int *err_r)
{
	struct zygote_spec spec = {
		.desc = a->desc->child, .npeers = a->desc->npeers, .arg = a->d->ctx
	};
	struct worker *w;
	struct zygote_child *child;

	memcpy(spec.peers, a->desc->peers, sizeof(spec.peers));
	child = zygote_fork(a->d, &spec, err_r);
	if (!child)
		return NULL;
	w = xcalloc(1, sizeof(*w));
	w->a = a;
	w->child = child;
	child->data = w;
	TAILQ_INSERT_TAIL(&a->workers, w, next);
	a->nworkers++;
	return w;
}

/* The emptiest worker with room, or a new one while that spreads the load or none has room. */
static struct worker *
worker_for_session(struct acceptor_state *a, int *err_r)
{
	const struct conf *conf = a->d->conf;
	int64_t per_process = a->desc->sessions_per_process(conf),
		limit = a->desc->process_limit(conf);
	struct worker *w, *best = NULL;

	*err_r = ERR_LIMIT;
	TAILQ_FOREACH(w, &a->workers, next)
		if (!w->retired && w->child->chan && w->sessions < per_process &&
		    (!best || w->sessions < best->sessions))
			best = w;
	if (best && (best->sessions < SPREAD || a->nworkers >= (size_t)a->cores ||
			(int64_t)a->nworkers >= limit))
		return best;
	if (limit && (int64_t)a->nworkers >= limit)
		return best;
	w = worker_start(a, err_r);
	return w ? w : best;
}

static bool
hand_over(struct worker *w, struct session *s, const struct msg *m)
{
	struct acceptor_state *a = w->a;
	int64_t recycle = a->desc->sessions_before_recycle(a->d->conf);

	if (ipc_send(w->child->chan, m))
		return false;
	s->worker = w;
	w->sessions++;
	ev_timer_clear(&w->idle);
	if (recycle && ++w->served >= (uint64_t)recycle)
		w->retired =
		    true; /* told to stop when its last session ends: the child counts them */
	return true;
}

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

/* NULL, or the limit that this connection is beyond. */
static const char *
over_limit(struct acceptor_state *a, struct session *s, const struct inet_addr *addr)
{
	int64_t most = a->desc->connections_per_client ? a->desc->connections_per_client(a->d->conf)
						       : 0,
		rate = a->d->conf->smtpd_client_connection_rate_limit;

	if (spared(a, addr))
		return NULL;
	s->client = client_enter(a, addr);
	if (most && s->client->sessions > (unsigned)most)
		return "too many connections of this client at once: "
		       "smtpd_client_connection_count_limit";
	if (rate && s->client->connections > (uint64_t)rate)
		return "too many connections of this client within anvil_rate_time_unit: "
		       "smtpd_client_connection_rate_limit";
	return NULL;
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
	int err;

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
	why = l->local ? NULL : over_limit(a, s, &addr);
	if (why) {
		refuse(a, l, fd, why, who);
		session_free(a, s);
		return;
	}
	w = worker_for_session(a, &err);
	if (!w || !hand_over(w, s, &m)) {
		refuse(a, l, fd,
		    "no process with room: raise maxproc in master.cf or the sessions per process",
		    who);
		session_free(a, s);
	}
}

static void
resume(void *arg)
{
	struct acceptor_state *a = arg;

	a->paused = false;
	for (size_t i = 0; i < a->nlisteners; i++)
		event_add(a->listeners[i].event, NULL);
}

/* No descriptor left: do not spin on the listening sockets. */
static void
pause_all(struct acceptor_state *a, int err)
{
	if (a->paused)
		return;
	a->paused = true;
	for (size_t i = 0; i < a->nlisteners; i++)
		event_del(a->listeners[i].event);
	log_event(LOG_accept_failed,
	    "reason=\"%s\" remedy=\"raise the limit of open files; trying again in 100 ms\"",
	    err_str(err));
	ev_timer_set(a->d->base, &a->resume, 100, resume, a);
}

static void
on_listener_ready(evutil_socket_t fd, short what, void *arg)
{
	struct listener *l = arg;

	(void)what;
	for (int i = 0; i < ACCEPT_BURST; i++) {
		struct sockaddr_storage peer;
		socklen_t n = sizeof(peer);
		int client =
		    accept4(fd, (struct sockaddr *)&peer, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (client < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
			    errno == ENOBUFS)
				pause_all(l->a, err_errno());
			return;
		}
		accepted(l, client, &peer);
		close(client);
	}
}

static void
add_listener(struct acceptor_state *a, struct msg *m)
{
	struct listener *l = &a->listeners[a->nlisteners];

	if (a->nlisteners == LISTENERS || ev_nonblock(m->fd)) {
		log_event(LOG_listener_refused,
		    "name=%s reason=\"too many listeners of one service\"",
		    log_value(m->listener.name));
		return;
	}
	*l = (struct listener){
		.a = a, .fd = m->fd, .local = m->listener.local, .index = m->listener.index
	};
	m->fd = -1;
	l->event = event_new(a->d->base, l->fd, EV_READ | EV_PERSIST, on_listener_ready, l);
	event_add(l->event, NULL);
	a->nlisteners++;
}

/* ---------------------------------------------------------------- the daemon */

static struct acceptor_state *
state_of(struct daemon *d)
{
	return (struct acceptor_state *)(uintptr_t)d->private->acceptor;
}

static void
session_ended(struct acceptor_state *a, uint64_t token)
{
	struct hash_node *n = hash_find(&a->sessions, slice(&token, sizeof(token)));
	struct session *s = n ? HASH_ELEMENT(n, struct session, node) : NULL;
	struct worker *w;

	if (!s)
		return;
	w = s->worker;
	session_free(a, s);
	if (--w->sessions)
		return;
	if (w->retired) {
		w->retired = false;
		retire(w);
	} else if (a->desc->sessions_per_process(a->d->conf) == 1) {
		retire(w);
	} else {
		ev_timer_set(a->d->base, &w->idle, a->d->conf->process_idle_limit, on_idle, w);
	}
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
		session_ended(a, m->connection_end.token);
		return;
	default:
		if (a->desc->daemon.message)
			a->desc->daemon.message(d, ch, m);
	}
}

static void
on_child_exit(struct daemon *d, pid_t pid, int status)
{
	struct acceptor_state *a = state_of(d);
	struct zygote_child *child = zygote_find(d, pid);
	struct worker *w = child ? child->data : NULL;
	struct hash_node *n, *next;

	(void)status;
	if (!w)
		return;
	for (n = hash_next(&a->sessions, NULL); n && w->sessions; n = next) {
		struct session *s = HASH_ELEMENT(n, struct session, node);
		next = hash_next(&a->sessions, n);
		if (s->worker == w) {
			w->sessions--;
			session_free(a, s);
		}
	}
	ev_timer_free(&w->idle);
	TAILQ_REMOVE(&a->workers, w, next);
	a->nworkers--;
	free(w);
}

static void
close_listeners(struct acceptor_state *a)
{
	for (size_t i = 0; i < a->nlisteners; i++) {
		event_free(a->listeners[i].event);
		close(a->listeners[i].fd);
	}
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

	watch_idle(d);
	return a->desc->daemon.start ? a->desc->daemon.start(d) : 0;
}

static void
on_status(struct daemon *d, struct buf *out)
{
	struct acceptor_state *a = state_of(d);

	buf_addf(out, "processes=%zu sessions=%zu", a->nworkers, a->sessions.count);
}

/* Sessions keep the configuration that they began with: workers of the old one get no new session
 * and end with their last. */
static void
on_reload(struct daemon *d, const struct conf *old)
{
	struct acceptor_state *a = state_of(d);
	struct worker *w;

	TAILQ_FOREACH(w, &a->workers, next)
		if (w->sessions)
			w->retired = true;
		else
			retire(w);
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

	m.connection_end.token = token;
	if (child->master)
		(void)ipc_send(child->master, &m);
	if (p->sessions)
		p->sessions--;
	if (!p->sessions && (child->stopping || !child->master))
		daemon_exit(child);
}
