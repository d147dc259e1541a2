/*
 * broker (uid bh-broker, empty root, no capability): brings a confirmed login and the session
 * process of its user together. login shows a token, auth says whose it is, and the two get the
 * ends of a fresh socket pair: the broker keeps neither and sees no byte of mail. One imapd process
 * serves all IMAP connections of a user; each POP3 session has a process of its own.
 *
 * Hostile: login's children may be taken over (all they have is the token of a client that logged
 * in), and so may a user's session (it can only tell how many connections it has). Invariants:
 * whose session it is comes from auth alone; an opening is answered exactly once; a session process
 * is forgotten with its channel.
 */
#include "daemon/daemon.h"

#include "base/arena.h"
#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define OPENINGS_MAX 20000u

/* status of session_opened */
enum { OPENED, OPEN_REFUSED, OPEN_TEMPORARY, OPEN_LIMIT, OPEN_NO_MAILDIR };

struct session;

/* A session_open that is not answered yet. */
struct opening {
	TAILQ_ENTRY(opening) next; /* of all, or of the session that it waits for */
	struct hash_node by_check; /* while auth is asked: by the id of token_check */
	uint32_t check;
	struct session *session;
	struct ipc_chan *login; /* NULL: the client has gone */
	uint32_t id;
	bool pop3;
	char client[65], sid[33];
	struct buf preamble;
};
TAILQ_HEAD(openings, opening);

struct session {
	struct hash_node node; /* by service and user; IMAP only */
	TAILQ_ENTRY(session) next;
	struct broker *b;
	bool pop3, linked;
	char *key;             /* "imap USER" or "pop3 USER" */
	char *user;            /* points into key */
	uint32_t start;        /* id of session_start while it is not live */
	struct ipc_chan *chan; /* NULL: not live yet */
	uint32_t pid, connections;
	struct openings waiting;
	struct ev_timer idle; /* while it starts: how long that may take */
	int64_t last_attach;
};

struct broker {
	struct daemon *d;
	struct hash checks; /* openings by token_check id */
	struct openings asked;
	struct hash sessions; /* IMAP, by key */
	TAILQ_HEAD(, session) all;
	unsigned openings, nsessions;
};

static int64_t
now_ms(void)
{
	return ev_now_us() / 1000;
}

/* --- answers to login --- */

static void
opening_end(struct broker *b, struct opening *o, uint8_t status, const char *text, int fd)
{
	struct msg m = MSG_INIT(MSG_SESSION_OPENED, o->id);

	m.session_opened.status = status;
	m.session_opened.text = slice_str(text);
	m.fd = fd;
	if (o->login)
		(void)ipc_send(o->login, &m);
	if (o->check)
		hash_remove(&b->checks, &o->by_check);
	if (o->session)
		TAILQ_REMOVE(&o->session->waiting, o, next);
	else
		TAILQ_REMOVE(&b->asked, o, next);
	buf_free(&o->preamble);
	free(o);
	b->openings--;
}

static void
opening_fail(struct broker *b, struct opening *o, uint8_t status, const char *why)
{
	log_event(LOG_session_refused, "sid=%s client=%s service=%s reason=\"%s\"",
	    log_cstr(o->sid), log_cstr(o->client), o->pop3 ? "pop3" : "imap", why);
	opening_end(b, o, status, why, -1);
}

/* --- sessions --- */

static void
session_free(struct session *s, const char *why)
{
	struct broker *b = s->b;

	while (!TAILQ_EMPTY(&s->waiting))
		opening_fail(b, TAILQ_FIRST(&s->waiting), OPEN_TEMPORARY, why);
	if (s->linked)
		hash_remove(&b->sessions, &s->node);
	TAILQ_REMOVE(&b->all, s, next);
	ev_timer_free(&s->idle);
	free(s->key);
	free(s);
	b->nsessions--;
}

static struct session *
session_new(struct broker *b, bool pop3, const char *key)
{
	struct session *s = xcalloc(1, sizeof(*s));

	s->b = b;
	s->pop3 = pop3;
	s->key = xstrdup(key);
	s->user = s->key + strlen("imap ");
	TAILQ_INIT(&s->waiting);
	if (!pop3) {
		s->linked = true;
		hash_insert(&b->sessions, &s->node, slice_str(s->key));
	}
	TAILQ_INSERT_TAIL(&b->all, s, next);
	b->nsessions++;
	return s;
}

/* Connections of a user over all services, those on their way included. */
static int64_t
connections_of(const struct broker *b, const char *user)
{
	const struct session *s;
	const struct opening *o;
	int64_t n = 0;

	TAILQ_FOREACH(s, &b->all, next) {
		if (strcmp(s->user, user) != 0)
			continue;
		n += s->connections;
		TAILQ_FOREACH(o, &s->waiting, next)
			n++;
	}
	return n;
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
	m.session_attach.user = slice_str(s->user);
	m.session_attach.preamble = buf_slice(&o->preamble);
	m.fd = fds[1];
	if (ipc_send(s->chan, &m) < 0) {
		opening_fail(s->b, o, OPEN_TEMPORARY, "the session of the user cannot be reached");
	} else {
		s->connections++;
		s->last_attach = now_ms();
		ev_timer_clear(&s->idle);
		log_event(LOG_session_attached,
		    "sid=%s client=%s service=%s user=%s pid=%u connections=%u", log_cstr(o->sid),
		    log_cstr(o->client), s->pop3 ? "pop3" : "imap", log_cstr(s->user), s->pid,
		    s->connections);
		opening_end(s->b, o, OPENED, "", fds[0]);
	}
	close(fds[0]);
	close(fds[1]);
}

static void
start_timeout(void *ctx)
{
	struct session *s = ctx;

	log_event(LOG_session_start_failed,
	    "user=%s service=%s reason=\"no answer within policy_timeout\"", log_cstr(s->user),
	    s->pop3 ? "pop3" : "imap");
	session_free(s, "the mailbox service does not answer");
}

static void
start(struct broker *b, struct session *s, struct opening *o, const struct msg_token_user *who)
{
	struct msg m = MSG_INIT(MSG_SESSION_START, 0);
	enum role zygote = s->pop3 ? ROLE_POP3D : ROLE_IMAPD;
	struct ipc_chan *ch = b->d->peers[zygote];
	int err = ch ? 0 : ERR_CLOSED;

	if (ch)
		m.id = s->start = ipc_next_id(ch);
	m.session_start.user = who->user;
	m.session_start.uid = who->uid;
	m.session_start.gid = who->gid;
	m.session_start.groups = who->groups;
	m.session_start.home = who->home;
	m.session_start.mailbox = who->mailbox;
	TAILQ_REMOVE(&b->asked, o, next);
	TAILQ_INSERT_TAIL(&s->waiting, o, next);
	o->session = s;
	if (!err)
		err = ipc_send(ch, &m);
	if (err)
		session_free(s, "the mailbox service is not running");
	else
		ev_timer_set(b->d->base, &s->idle, b->d->conf->policy_timeout, start_timeout, s);
}

/* auth has said whose the token is. */
static void
owner_known(struct broker *b, struct opening *o, const struct msg_token_user *who)
{
	struct hash_node *node;
	struct session *s;
	char key[300];

	hash_remove(&b->checks, &o->by_check);
	o->check = 0;
	if (who->status || who->user.n == 0 || who->user.n > 255) {
		opening_fail(b, o, OPEN_REFUSED, "the login is not valid any more");
		return;
	}
	if ((int64_t)who->uid < b->d->conf->first_valid_uid ||
	    (int64_t)who->uid > b->d->conf->last_valid_uid) {
		opening_fail(b, o, OPEN_REFUSED,
		    "uid of the user not between first_valid_uid and last_valid_uid");
		return;
	}
	if (!slice_has_prefix(who->mailbox, "maildir:")) {
		opening_fail(b, o, OPEN_NO_MAILDIR,
		    "the mail of this user lies in a file, and IMAP and POP3 serve a Maildir: set "
		    "home_mailbox = Maildir/, or the mailbox of the account");
		return;
	}
	snprintf(key, sizeof(key), "%s %.*s", o->pop3 ? "pop3" : "imap", SLICE_ARG(who->user));
	if (connections_of(b, key + strlen("imap ")) >= b->d->conf->imap_session_connection_limit) {
		opening_fail(b, o, OPEN_LIMIT,
		    "too many connections of this user: imap_session_connection_limit");
		return;
	}
	node = o->pop3 ? NULL : hash_find(&b->sessions, slice_str(key));
	s = node ? HASH_ELEMENT(node, struct session, node) : NULL;
	if (s && s->chan) {
		attach(s, o);
	} else if (s) {
		TAILQ_REMOVE(&b->asked, o, next);
		TAILQ_INSERT_TAIL(&s->waiting, o, next);
		o->session = s;
	} else {
		start(b, session_new(b, o->pop3, key), o, who);
	}
}

static void
on_token_user(struct broker *b, const struct msg *m)
{
	struct hash_node *node = hash_find(&b->checks, slice(&m->id, sizeof(m->id)));

	if (node)
		owner_known(b, HASH_ELEMENT(node, struct opening, by_check), &m->token_user);
}

static void
on_session_open(struct broker *b, struct ipc_chan *ch, const struct msg *m)
{
	const struct msg_session_open *s = &m->session_open;
	struct ipc_chan *auth = b->d->peers[ROLE_AUTH];
	struct msg check = MSG_INIT(MSG_TOKEN_CHECK, 0);
	struct opening *o = xcalloc(1, sizeof(*o));

	o->login = ch;
	o->id = m->id;
	o->pop3 = slice_eq_str(s->service, "pop3");
	(void)!slice_copy(s->client, o->client, sizeof(o->client));
	(void)!slice_copy(s->session, o->sid, sizeof(o->sid));
	buf_add(&o->preamble, s->preamble);
	TAILQ_INSERT_TAIL(&b->asked, o, next);
	b->openings++;
	if (b->openings > OPENINGS_MAX) {
		opening_fail(b, o, OPEN_TEMPORARY, "too many logins under way");
	} else if (!o->pop3 && !slice_eq_str(s->service, "imap")) {
		opening_fail(b, o, OPEN_REFUSED, "no such service");
	} else if (!auth) {
		opening_fail(b, o, OPEN_TEMPORARY, "auth is not running");
	} else {
		check.id = o->check = ipc_next_id(auth);
		check.token_check.token = s->token;
		check.token_check.service = s->service;
		hash_insert(&b->checks, &o->by_check, slice(&o->check, sizeof(o->check)));
		if (ipc_send(auth, &check) < 0)
			opening_fail(b, o, OPEN_TEMPORARY, "auth cannot be reached");
	}
}

static void
on_session_started(struct broker *b, struct ipc_chan *ch, struct msg *m)
{
	bool pop3 = ipc_chan_peer(ch) == ROLE_POP3D;
	struct session *s;
	char why[513];

	TAILQ_FOREACH(s, &b->all, next)
		if (!s->chan && s->pop3 == pop3 && s->start == m->id)
			break;
	if (!s)
		return;
	if (m->session_started.status || m->fd < 0) {
		(void)!slice_copy(m->session_started.text, why, sizeof(why));
		log_event(LOG_session_start_failed, "user=%s service=%s reason=%s",
		    log_cstr(s->user), pop3 ? "pop3" : "imap", log_cstr(why));
		session_free(s, "the mailbox cannot be opened now");
		return;
	}
	ev_timer_clear(&s->idle);
	s->pid = m->session_started.pid;
	s->chan = daemon_adopt(b->d, m->fd, pop3 ? ROLE_POP3D_CHILD : ROLE_IMAPD_CHILD);
	ipc_chan_set_data(s->chan, s);
	m->fd = -1;
	while (!TAILQ_EMPTY(&s->waiting))
		attach(s, TAILQ_FIRST(&s->waiting));
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
on_session_count(struct broker *b, struct ipc_chan *ch, const struct msg *m)
{
	struct session *s = ipc_chan_data(ch);
	int64_t wait = b->d->conf->imap_session_idle_time, since;

	if (!s)
		return;
	s->connections = m->session_count.connections;
	if (s->connections > 0) {
		ev_timer_clear(&s->idle);
		return;
	}
	/* The count may have crossed an attach on its way: not before that one has been answered.
	 */
	since = now_ms() - s->last_attach;
	if (since < 1000 && wait < 1000)
		wait = 1000;
	ev_timer_set(b->d->base, &s->idle, wait, idle_over, s);
}

/* --- the daemon --- */

static void
message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	switch (m->type) {
	case MSG_SESSION_OPEN:
		on_session_open(d->ctx, ch, m);
		break;
	case MSG_TOKEN_USER:
		on_token_user(d->ctx, m);
		break;
	case MSG_SESSION_STARTED:
		on_session_started(d->ctx, ch, m);
		break;
	case MSG_SESSION_COUNT:
		on_session_count(d->ctx, ch, m);
		break;
	default:
		break;
	}
}

static void
login_gone(struct broker *b, const struct ipc_chan *ch)
{
	struct opening *o;
	struct session *s;

	TAILQ_FOREACH(o, &b->asked, next)
		if (o->login == ch)
			o->login = NULL;
	TAILQ_FOREACH(s, &b->all, next)
		TAILQ_FOREACH(o, &s->waiting, next)
			if (o->login == ch)
				o->login = NULL;
}

static void
auth_gone(struct broker *b)
{
	while (!TAILQ_EMPTY(&b->asked))
		opening_fail(
		    b, TAILQ_FIRST(&b->asked), OPEN_TEMPORARY, "auth is being started again");
}

static void
zygote_gone(struct broker *b, bool pop3)
{
	struct session *s, *after;

	for (s = TAILQ_FIRST(&b->all); s; s = after) {
		after = TAILQ_NEXT(s, next);
		if (!s->chan && s->pop3 == pop3)
			session_free(s, "the mailbox service is being started again");
	}
}

static void
link_down(struct daemon *d, struct ipc_chan *ch)
{
	struct broker *b = d->ctx;

	switch (ipc_chan_peer(ch)) {
	case ROLE_LOGIN_CHILD:
		login_gone(b, ch);
		break;
	case ROLE_AUTH:
		auth_gone(b);
		break;
	case ROLE_IMAPD:
	case ROLE_POP3D:
		zygote_gone(b, ipc_chan_peer(ch) == ROLE_POP3D);
		break;
	case ROLE_IMAPD_CHILD:
	case ROLE_POP3D_CHILD:
		if (ipc_chan_data(ch))
			session_free(ipc_chan_data(ch), "the session ended");
		break;
	default:
		break;
	}
}

static int
on_start(struct daemon *d)
{
	struct broker *b = xcalloc(1, sizeof(*b));

	b->d = d;
	d->ctx = b;
	TAILQ_INIT(&b->asked);
	TAILQ_INIT(&b->all);
	return 0;
}

static void
status(struct daemon *d, struct buf *out)
{
	const struct broker *b = d->ctx;

	buf_addf(out, "sessions=%u openings=%u", b->nsessions, b->openings);
}

int
main(int argc, char **argv)
{
	static const struct daemon_desc desc = { .role = ROLE_BROKER,
		.start = on_start,
		.message = message,
		.link_down = link_down,
		.status = status };

	return daemon_run(argc, argv, &desc);
}
