/*
 * broker (uid bh-broker, empty root, no capability): brings a confirmed login and the session
 * process of its user together. login shows a token, auth says whose it is, and the two get the
 * ends of a fresh socket pair: the broker keeps neither and sees no byte of mail. One imapd process
 * serves all IMAP connections of a user; each POP3 session has a process of its own. Users and
 * sessions are in session.c; here are the openings.
 *
 * Hostile: login's children may be taken over (all they have is the token of a client that logged
 * in), and so may a user's session (it can only tell how many connections it has). Invariants:
 * whose session it is comes from auth alone; an opening is answered exactly once; a session process
 * is forgotten with its channel.
 */
#include "helpers/broker/broker.h"

#include <stdlib.h>

#define OPENINGS_MAX 20000u

/* --- answers to login --- */

void
opening_end(struct broker *b, struct opening *o, enum open_status status, const char *text, int fd)
{
	struct msg m = MSG_INIT(MSG_SESSION_OPENED, o->id);

	m.session_opened.status = (uint8_t)status;
	m.session_opened.text = slice_str(text);
	m.fd = fd;
	if (o->login)
		(void)ipc_send(o->login, &m);
	if (o->check)
		hash_remove(&b->checks, &o->by_check);
	if (o->session) {
		TAILQ_REMOVE(&o->session->waiting, o, next);
		o->session->user->connections--;
	} else {
		TAILQ_REMOVE(&b->asked, o, next);
	}
	buf_free(&o->preamble);
	free(o);
	b->openings--;
}

void
opening_fail(struct broker *b, struct opening *o, enum open_status status, const char *why)
{
	log_event(LOG_session_refused, "sid=%s client=%s service=%s reason=\"%s\"",
	    log_cstr(o->sid), log_cstr(o->client), o->pop3 ? "pop3" : "imap", why);
	opening_end(b, o, status, why, -1);
}

/* --- openings --- */

/* auth has said whose the token is. */
static void
owner_known(struct broker *b, struct opening *o, const struct msg_token_user *who)
{
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
	session_for(b, o, who);
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
		session_started(d->ctx, ch, m);
		break;
	case MSG_SESSION_COUNT:
		session_count(d->ctx, ch, m);
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
	TAILQ_FOREACH(s, &b->starting, starting)
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

	for (s = TAILQ_FIRST(&b->starting); s; s = after) {
		after = TAILQ_NEXT(s, starting);
		if (s->pop3 == pop3)
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
	TAILQ_INIT(&b->starting);
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
