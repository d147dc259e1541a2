/*
 * Users and their session processes, in the broker (bh-broker). Hostile: a session process that is
 * taken over can lie in session_count, and harms nobody but its own user with it. Invariants: one
 * IMAP session per user; a session is linked in starting or has a channel, never both; nothing here
 * walks over all sessions, of which there may be tens of thousands.
 */
#include "helpers/broker/broker.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int64_t
now_ms(void)
{
	return ev_now_us() / 1000;
}

static const char *
service_of(const struct session *s)
{
	return s->pop3 ? "pop3" : "imap";
}

/* --- users --- */

static struct user *
user_find(struct broker *b, struct slice name)
{
	struct hash_node *node = hash_find(&b->users, name);

	return node ? HASH_ELEMENT(node, struct user, node) : NULL;
}

static struct user *
user_new(struct broker *b, struct slice name)
{
	struct user *u = xcalloc(1, sizeof(*u));

	u->name = slice_dup(name);
	hash_insert(&b->users, &u->node, slice_str(u->name));
	return u;
}

static void
user_put(struct broker *b, struct user *u)
{
	if (--u->sessions)
		return;
	hash_remove(&b->users, &u->node);
	free(u->name);
	free(u);
}

/* --- sessions --- */

static struct session *
session_new(struct broker *b, struct user *u, bool pop3)
{
	struct session *s = xcalloc(1, sizeof(*s));

	s->b = b;
	s->user = u;
	s->pop3 = pop3;
	u->sessions++;
	if (!pop3)
		u->imap = s;
	TAILQ_INIT(&s->waiting);
	TAILQ_INSERT_TAIL(&b->starting, s, starting);
	b->nsessions++;
	return s;
}

void
session_free(struct session *s, const char *why)
{
	struct broker *b = s->b;

	while (!TAILQ_EMPTY(&s->waiting))
		opening_fail(b, TAILQ_FIRST(&s->waiting), OPEN_TEMPORARY, why);
	if (!s->chan)
		TAILQ_REMOVE(&b->starting, s, starting);
	if (s->user->imap == s)
		s->user->imap = NULL;
	s->user->connections -= s->connections;
	user_put(b, s->user);
	ev_timer_free(&s->idle);
	free(s);
	b->nsessions--;
}

static void
set_connections(struct session *s, uint32_t n)
{
	s->user->connections += (int64_t)n - s->connections;
	s->connections = n;
}

/* Nobody is connected: closing the channel tells the process to end. */
static void
idle_over(void *ctx)
{
	struct session *s = ctx;
	struct ipc_chan *ch = s->chan;
	struct broker *b = s->b;

	ipc_chan_set_data(ch, NULL);
	session_free(s, "the session ended");
	daemon_drop(b->d, ch);
}

static void
idle_begins(struct session *s)
{
	int64_t wait = s->b->d->conf->imap_session_idle_time, since = now_ms() - s->last_attach;

	/* The count may have crossed an attach on its way: not before that one has been answered.
	 */
	if (since < 1000 && wait < 1000)
		wait = 1000;
	ev_timer_set(s->b->d->base, &s->idle, wait, idle_over, s);
}

static void
attach(struct session *s, struct opening *o)
{
	struct msg m = MSG_INIT(MSG_SESSION_ATTACH, ipc_next_id(s->chan));
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0) {
		log_event(LOG_socketpair, "reason=\"%s\" remedy=\"raise the limit of open files\"",
		    err_str(err_errno()));
		opening_fail(s->b, o, OPEN_TEMPORARY, "no descriptor left");
		return;
	}
	m.session_attach.client = slice_str(o->client);
	m.session_attach.session = slice_str(o->sid);
	m.session_attach.user = slice_str(s->user->name);
	m.session_attach.preamble = buf_slice(&o->preamble);
	m.fd = fds[1];
	if (ipc_send(s->chan, &m) < 0) {
		opening_fail(s->b, o, OPEN_TEMPORARY, "the session of the user cannot be reached");
	} else {
		set_connections(s, s->connections + 1);
		s->last_attach = now_ms();
		ev_timer_clear(&s->idle);
		log_event(LOG_session_attached,
		    "sid=%s client=%s service=%s user=%s pid=%u connections=%u", log_cstr(o->sid),
		    log_cstr(o->client), service_of(s), log_cstr(s->user->name), s->pid,
		    s->connections);
		opening_end(s->b, o, OPENED, "", fds[0]);
	}
	close(fds[0]);
	close(fds[1]);
}

/* --- starting one --- */

static void
start_timeout(void *ctx)
{
	struct session *s = ctx;

	log_event(LOG_session_start_failed,
	    "user=%s service=%s reason=\"no answer within policy_timeout\"",
	    log_cstr(s->user->name), service_of(s));
	session_free(s, "the mailbox service does not answer");
}

static void
wait_for(struct session *s, struct opening *o)
{
	TAILQ_REMOVE(&s->b->asked, o, next);
	TAILQ_INSERT_TAIL(&s->waiting, o, next);
	o->session = s;
	s->user->connections++;
}

static void
start(struct session *s, const struct msg_token_user *who)
{
	struct broker *b = s->b;
	struct msg m = MSG_INIT(MSG_SESSION_START, 0);
	struct ipc_chan *ch = b->d->peers[s->pop3 ? ROLE_POP3D : ROLE_IMAPD];
	int err = ch ? 0 : ERR_CLOSED;

	if (ch)
		m.id = s->start = ipc_next_id(ch);
	m.session_start.user = who->user;
	m.session_start.uid = who->uid;
	m.session_start.gid = who->gid;
	m.session_start.groups = who->groups;
	m.session_start.home = who->home;
	m.session_start.mailbox = who->mailbox;
	if (!err)
		err = ipc_send(ch, &m);
	if (err)
		session_free(s, "the mailbox service is not running");
	else
		ev_timer_set(b->d->base, &s->idle, b->d->conf->policy_timeout, start_timeout, s);
}

void
session_for(struct broker *b, struct opening *o, const struct msg_token_user *who)
{
	struct user *u = user_find(b, who->user);
	struct session *s = u && !o->pop3 ? u->imap : NULL;

	if ((u ? u->connections : 0) >= b->d->conf->imap_session_connection_limit) {
		opening_fail(b, o, OPEN_LIMIT,
		    "too many connections of this user: imap_session_connection_limit");
	} else if (s && s->chan) {
		attach(s, o);
	} else if (s) {
		wait_for(s, o);
	} else {
		s = session_new(b, u ? u : user_new(b, who->user), o->pop3);
		wait_for(s, o);
		start(s, who);
	}
}

void
session_started(struct broker *b, struct ipc_chan *ch, struct msg *m)
{
	bool pop3 = ipc_chan_peer(ch) == ROLE_POP3D;
	struct session *s;
	char why[513];

	TAILQ_FOREACH(s, &b->starting, starting)
		if (s->pop3 == pop3 && s->start == m->id)
			break;
	if (!s)
		return;
	if (m->session_started.status || m->fd < 0) {
		(void)!slice_copy(m->session_started.text, why, sizeof(why));
		log_event(LOG_session_start_failed, "user=%s service=%s reason=%s",
		    log_cstr(s->user->name), service_of(s), log_cstr(why));
		session_free(s, "the mailbox cannot be opened now");
		return;
	}
	ev_timer_clear(&s->idle);
	TAILQ_REMOVE(&b->starting, s, starting);
	s->pid = m->session_started.pid;
	s->chan = daemon_adopt(b->d, m->fd, pop3 ? ROLE_POP3D_CHILD : ROLE_IMAPD_CHILD);
	ipc_chan_set_data(s->chan, s);
	m->fd = -1;
	while (!TAILQ_EMPTY(&s->waiting))
		attach(s, TAILQ_FIRST(&s->waiting));
	/* A process that nobody could be attached to says nothing by itself. */
	if (!s->connections)
		idle_begins(s);
}

void
session_count(struct broker *b, struct ipc_chan *ch, const struct msg *m)
{
	struct session *s = ipc_chan_data(ch);

	(void)b;
	if (!s)
		return;
	set_connections(s, m->session_count.connections);
	if (s->connections > 0)
		ev_timer_clear(&s->idle);
	else
		idle_begins(s);
}
