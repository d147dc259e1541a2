/*
 * The control socket of bulkhead(8): root and the admin group, told apart by the mode of the socket
 * and SO_PEERCRED. A request is a list of words; master answers its own verbs and hands the others
 * to the daemon that owns them, under an id of its own. Hostile: a member of the admin group.
 */
#include "master/master.h"

#include "daemon/daemon.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define GATHER_MS 1000
#define UNREAD_MAX ((size_t)16 << 20) /* of an answer, by who asked; bulkhead(8) reads at once */

struct client {
	LIST_ENTRY(client) next;
	struct master *m;
	struct ipc_chan *chan;
	uid_t uid;
	bool wants_stop;
	uint32_t id;        /* of its request under way */
	uint32_t forwarded; /* id under which a daemon works on it; 0: none */
	const struct process *worker;
	unsigned waiting; /* `status`, `reload`: how many daemons have not answered */
	bool reloading;   /* it is `reload` that waits; text is its answer */
	struct buf text;
	struct ev_timer deadline;
};

static void
client_free(struct client *c)
{
	LIST_REMOVE(c, next);
	ev_timer_free(&c->deadline);
	buf_free(&c->text);
	ipc_chan_free(&c->chan);
	free(c);
}

static void
answer(struct client *c, int status, struct slice text)
{
	daemon_control_reply(c->chan, c->id, status, text);
}

/* ---------------------------------------------------------------- master's own verbs */

void
master_reload(struct master *m, struct buf *out, int *status_r)
{
	struct service *s;
	struct process *p;

	*status_r = 1;
	if (!config_load(m, out)) {
		log_event(LOG_reload_refused,
		    "config=%s remedy=\"run `bulkhead check`; the running configuration goes on\"",
		    log_cstr(m->config_dir));
		buf_add_str(out, "reload refused: the running configuration goes on\n");
		return;
	}
	if (directories_make(m) || tls_prepare(m))
		buf_add_str(out, "warning: see the log\n");
	control_group(m);
	services_build(m);
	TAILQ_FOREACH(s, &m->services, next)
		TAILQ_FOREACH(p, &s->processes, next) {
			struct msg config = MSG_INIT(MSG_CONFIG, 0);
			if (s->obsolete || !p->chan)
				continue;
			config.fd = snapshot_fd(s);
			config.config.generation = m->generation;
			if (config.fd < 0)
				continue;
			(void)ipc_send(p->chan, &config);
			close(config.fd);
			if (s->moved)
				process_send_listeners(p);
			tls_send_certificates(s, p); /* contexts are made with the new parameters */
			tls_send_keys(s, p);
		}
	tls_rearm(m);
	service_start_missing(m);
	TAILQ_FOREACH(s, &m->services, next)
		if (s->incomplete && !s->obsolete)
			buf_addf(out,
			    "warning: service %s: not all of its sockets are open: see "
			    "listen-failed in the log\n",
			    s->name);
	log_event(LOG_reloaded, "generation=%u", m->generation);
	*status_r = 0;
}

/* "3 d 4 h", "5 min", "7 s" */
static const char *
age(int64_t seconds, char out[32])
{
	if (seconds >= 86400)
		snprintf(out, 32, "%lld d %lld h", (long long)seconds / 86400,
		    (long long)seconds % 86400 / 3600);
	else if (seconds >= 3600)
		snprintf(out, 32, "%lld h %lld min", (long long)seconds / 3600,
		    (long long)seconds % 3600 / 60);
	else if (seconds >= 60)
		snprintf(out, 32, "%lld min", (long long)seconds / 60);
	else
		snprintf(out, 32, "%lld s", (long long)seconds);
	return out;
}

static void
add_row(struct buf *out, const struct service *s, const struct process *p)
{
	bool waits = s->on_demand && !s->failures;
	const char *state = waits ? "waiting" : s->failures ? "failing" : "down";
	const char *note = waits         ? "its first client starts it"
			   : s->failures ? "see the log; it is tried again"
					 : "";
	char pid[16] = "-", up[32] = "-";

	if (p) {
		snprintf(pid, sizeof(pid), "%d", (int)p->pid);
		age((master_now_ms() - p->started) / 1000, up);
		state = s->obsolete || p->stop_sent ? "ending" : p->ready ? "ready" : "starting";
		note = "";
	}
	if (s->incomplete)
		note = "not all of its sockets are open: see listen-failed in the log, then reload";
	buf_addf(out, "%-22s %-12s %8s %-9s %11s%s%s\n", s->name, s->program, pid, state, up,
	    *note ? "  " : "", note);
}

static void
send_status(struct client *c)
{
	struct master *m = c->m;
	struct buf out = { 0 }, stats = { 0 };
	struct service *s;
	struct process *p;
	int status = 0;

	buf_addf(
	    &out, "%-22s %-12s %8s %-9s %11s\n", "SERVICE", "PROGRAM", "PID", "STATE", "UPTIME");
	TAILQ_FOREACH(s, &m->services, next) {
		if (!s->nprocesses)
			add_row(&out, s, NULL);
		if (!s->nprocesses && (!s->on_demand || s->failures))
			status = 1;
		TAILQ_FOREACH(p, &s->processes, next) {
			add_row(&out, s, p);
			if (p->ready && (!p->stats || *p->stats))
				buf_addf(&stats, "%s[%s]:%s\n", s->program, s->name,
				    p->stats ? p->stats : " no answer within a second");
		}
	}
	buf_add(&out, buf_slice(&stats));
	answer(c, status, buf_slice(&out));
	buf_free(&out);
	buf_free(&stats);
	ev_timer_clear(&c->deadline);
	c->forwarded = 0;
}

/* All have answered, or their time is up. */
static void
gathered(void *arg)
{
	struct client *c = arg;

	if (!c->reloading) {
		send_status(c);
		return;
	}
	ev_timer_clear(&c->deadline);
	c->forwarded = 0;
	c->reloading = false;
	answer(c, 0, buf_slice(&c->text));
	buf_clear(&c->text);
}

/* Asks every daemon. Messages keep their order, so an answer also says that what was sent before
 * has been taken in. */
static void
gather(struct client *c)
{
	struct master *m = c->m;
	struct service *s;
	struct process *p;

	c->forwarded = ++m->next_request;
	c->worker = NULL;
	c->waiting = 0;
	TAILQ_FOREACH(s, &m->services, next)
		TAILQ_FOREACH(p, &s->processes, next) {
			free(p->stats);
			p->stats = NULL;
			if (p->ready && !process_ask_stats(p, c->forwarded))
				c->waiting++;
		}
	if (!c->waiting)
		gathered(c);
	else
		ev_timer_set(m->base, &c->deadline, GATHER_MS, gathered, c);
}

static void
keep_stats(struct master *m, const struct ipc_chan *from, const struct msg_stats *st)
{
	static const char *const names[] = {
#define COUNTER(name, doc) #name,
#include "daemon/counters.def"
#undef COUNTER
	};
	struct cursor values = cursor(st->values);
	struct buf text = { 0 };
	struct service *s;
	struct process *p;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		uint64_t v = cursor_u64(&values);
		if (v)
			buf_addf(&text, " %s=%llu", names[i], (unsigned long long)v);
	}
	if (st->extra.n)
		buf_addf(&text, " %.*s", SLICE_ARG(st->extra));
	TAILQ_FOREACH(s, &m->services, next)
		TAILQ_FOREACH(p, &s->processes, next)
			if (p->chan == from) {
				free(p->stats);
				p->stats = slice_dup(buf_slice(&text));
			}
	buf_free(&text);
}

static void
verb_simple(struct client *c, struct slice verb)
{
	struct master *m = c->m;
	struct buf out = { 0 };
	int status = 0;

	if (slice_eq_str(verb, "reload")) {
		master_reload(m, &out, &status);
		if (!status) { /* answered when the daemons have it */
			buf_add(&c->text, buf_slice(&out));
			buf_free(&out);
			c->reloading = true;
			gather(c);
			return;
		}
	} else if (slice_eq_str(verb, "stop")) {
		c->wants_stop = true; /* answered when all is down */
		master_stop(m);
		return;
	} else if (slice_eq_str(verb, "security")) {
		security_report(m, &out);
	} else if (slice_eq_str(verb, "upgrade")) {
		status = upgrade_check(m, &out);
		if (!status) {
			answer(c, 0, SLICE_LIT("the new program takes over\n"));
			upgrade_exec(m);
			return;
		}
	} else {
		buf_addf(&out, "pid=%d generation=%u\n", (int)getpid(), m->generation);
	}
	answer(c, status, buf_slice(&out));
	buf_free(&out);
}

/* ---------------------------------------------------------------- verbs of the daemons */

static const struct {
	const char *verb;
	enum role owner;
} verbs[] = {
	{ "queue", ROLE_QMGR },
	{ "user", ROLE_AUTH },
	{ "map", ROLE_MAPS },
	{ "dns", ROLE_DNS },
	{ "session", ROLE_BROKER },
	{ "log", ROLE_LOG },
};

static void
forward(struct client *c, enum role owner, struct msg *req)
{
	struct master *m = c->m;
	struct service *s = service_by_role(m, owner);
	struct process *p = s ? TAILQ_FIRST(&s->processes) : NULL;
	char text[128];

	c->forwarded = req->id = ++m->next_request;
	req->control_request.uid = c->uid;
	c->worker = p;
	c->waiting = 0;
	if (p && p->chan && !ipc_send(p->chan, req))
		return;
	c->forwarded = 0;
	snprintf(text, sizeof(text), "%s is not running: see `bulkhead status`\n",
	    role_table[owner].name);
	answer(c, 75, slice_str(text));
}

static void
verb_make_home(struct client *c, struct cursor words)
{
	struct slice list[3] = { SLICE_NULL, SLICE_NULL, SLICE_NULL };
	struct buf out = { 0 };
	struct item_word word;
	int status;

	for (size_t i = 0; i < 3 && item_word_next(&words, &word); i++)
		list[i] = word.word;
	status = home_make(c->m, list, &out);
	answer(c, status, buf_slice(&out));
	buf_free(&out);
}

static void
on_request(struct client *c, struct msg *m)
{
	static const char *const simple[] = { "reload", "stop", "security", "upgrade", "ping" };
	struct cursor words = cursor(m->control_request.words.raw);
	struct item_word first;

	c->id = m->id;
	if (!item_word_next(&words, &first)) {
		answer(c, 64, SLICE_LIT("empty request\n"));
		return;
	}
	for (size_t i = 0; i < sizeof(simple) / sizeof(simple[0]); i++)
		if (slice_eq_str(first.word, simple[i])) {
			verb_simple(c, first.word);
			return;
		}
	if (slice_eq_str(first.word, "status")) {
		gather(c);
		return;
	}
	if (slice_eq_str(first.word, "make-home")) {
		verb_make_home(c, words);
		return;
	}
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (slice_eq_str(first.word, verbs[i].verb)) {
			forward(c, verbs[i].owner, m);
			return;
		}
	answer(c, 64, SLICE_LIT("unknown verb: see bulkhead(8)\n"));
}

void
control_answer(struct master *m, const struct ipc_chan *from, struct msg *reply)
{
	struct client *c;

	LIST_FOREACH(c, &m->clients, next)
		if (c->forwarded && c->forwarded == reply->id)
			break;
	if (!c)
		return;
	if (reply->type == MSG_STATS) {
		keep_stats(m, from, &reply->stats);
		if (c->waiting && !--c->waiting)
			gathered(c);
		return;
	}
	if (!c->worker || c->worker->chan != from)
		return; /* nobody else's word */
	if (ipc_chan_queued(c->chan) > UNREAD_MAX) {
		client_free(c);
		return;
	}
	if (!reply->control_reply.more)
		c->forwarded = 0;
	reply->id = c->id;
	(void)ipc_send(c->chan, reply);
}

void
control_daemon_gone(struct master *m, struct process *p)
{
	struct client *c;

	LIST_FOREACH(c, &m->clients, next) {
		if (c->forwarded && c->worker == p) {
			c->forwarded = 0;
			c->worker = NULL;
			answer(c, 75,
			    SLICE_LIT("the daemon died while it worked on this: see the log\n"));
		} else if (c->waiting && process_owed(p, c->forwarded) && !--c->waiting) {
			gathered(c);
		}
	}
}

void
control_stopped(struct master *m)
{
	struct client *c;

	LIST_FOREACH(c, &m->clients, next)
		if (c->wants_stop)
			answer(c, 0, SLICE_LIT("stopped\n"));
}

/* ---------------------------------------------------------------- the socket */

static void
on_message(void *ctx, struct ipc_chan *ch, struct msg *m)
{
	(void)ch;
	if (m->type == MSG_CONTROL_REQUEST)
		on_request(ctx, m);
}

static void
on_closed(void *ctx, struct ipc_chan *ch, int err, const char *why)
{
	struct client *c = ctx;

	(void)ch;
	if (err != ERR_CLOSED)
		log_event(LOG_control_violation, "uid=%u reason=\"%s\"", (unsigned)c->uid, why);
	client_free(c);
}

static const struct ipc_ops client_ops = { on_message, on_closed };

static void
on_connect(evutil_socket_t sock, short what, void *arg)
{
	struct master *m = arg;
	struct ucred cred;
	socklen_t n = sizeof(cred);
	struct client *c;
	int fd = accept4(sock, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)what;
	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n)) {
		close(fd);
		return;
	}
	c = xcalloc(1, sizeof(*c));
	c->m = m;
	c->uid = cred.uid;
	LIST_INSERT_HEAD(&m->clients, c, next);
	c->chan = ipc_chan_new(m->io, fd, ROLE_TOOL, &client_ops, c);
	ipc_chan_asked(c->chan);
}

void
control_group(struct master *m)
{
	const char *name = m->set->conf->admin_group;
	const struct group *gr = *name ? getgrnam(name) : NULL;
	char path[4200];

	snprintf(path, sizeof(path), "%s/control", m->set->conf->run_directory);
	if (chown(path, (uid_t)-1, gr ? gr->gr_gid : getegid()) || (*name && !gr))
		log_event(LOG_admin_group,
		    "group=%s reason=\"%s\" remedy=\"create it, or correct admin_group\"",
		    log_cstr(name), *name && !gr ? "no such group" : err_str(err_errno()));
}

int
control_open(struct master *m)
{
	const struct conf *c = m->set->conf;
	char path[4200];
	int err;

	snprintf(path, sizeof(path), "%s/control", c->run_directory);
	err = listen_unix(path, SOCK_SEQPACKET, 0660, &m->control.fd);
	if (err) {
		log_event(LOG_listen_failed,
		    "path=%s reason=\"%s\" remedy=\"correct run_directory in main.cf\"",
		    log_cstr(path), err_str(err));
		return err;
	}
	control_group(m);
	m->on_control = event_new(m->base, m->control.fd, EV_READ | EV_PERSIST, on_connect, m);
	event_add(m->on_control, NULL);
	return 0;
}
