/*
 * Mail access before login, as a pure state machine: what IMAP and POP3 share of it. The protocols
 * are imap_login (imap/login.h) and pop3_login (pop3/login.h). login-child drives it:
 *
 *	login_greet(l);
 *	loop: write login_out(l) to the client; read bytes into a buffer of your own;
 *	      n = login_feed(l, bytes, &a); drop n bytes; act on a.want; call feed again (with the
 *	      rest, or with nothing) until it says LOGIN_MORE.
 *
 * The engine takes no byte while an answer is owed to it (STARTTLS, AUTH_*, DONE), so at most one
 * input buffer stays unread; read no more than the protocol's input bytes ahead.
 *
 * How a login is handed on. After LOGIN_DONE login-child asks the broker for the user's session and
 * gets a stream. It writes login_handover() to the stream first, then every byte of the client that
 * feed did not take (pipelined commands), and from then on copies bytes both ways. It confirms
 * nothing: the session itself answers the command that logged in, as its first bytes. If there is
 * no session: login_unavailable(), and the dialogue goes on before login.
 *
 * Nothing here blocks or does I/O; of failures there is none but what the client is told.
 */
#ifndef ACCESS_LOGIN_H
#define ACCESS_LOGIN_H

#include "base/buf.h"

struct login_limits {
	size_t max_command;         /* bytes of an IMAP command with its literals; default 16384 */
	size_t max_auth;            /* bytes of one base64 line; default 12288 */
	unsigned max_errors;        /* bad commands before the end; default 3 */
	unsigned max_commands;      /* commands of any kind before login; default 100 */
	unsigned max_auth_failures; /* failed logins before the end; default 3 */
	const char *greeting; /* its text, borrowed for the life; NULL or "": the protocol's */
};

enum login_want {
	LOGIN_MORE,       /* nothing: read on */
	LOGIN_STARTTLS,   /* flush out, DROP all unread plaintext, start TLS, then login_tls_done */
	LOGIN_AUTH_START, /* mechanism, and the initial response if has_data; answer with
			     challenge, auth_failed or auth_ok */
	LOGIN_AUTH_STEP,  /* the client's response; answer in the same way */
	LOGIN_AUTH_ABORT, /* the client cancelled (already answered): drop the exchange */
	LOGIN_DONE,       /* logged in: hand over as told above */
	LOGIN_CLOSE,      /* flush out, then close */
};

struct login_action {
	enum login_want want;
	/* AUTH_START: upper case, one of those offered; a name and a password come as PLAIN */
	const char *mechanism;
	/* AUTH_START with has_data, AUTH_STEP: decoded; valid until the next call */
	struct slice data;
	bool has_data;
};

enum login_failure {
	LOGIN_FAIL_CREDENTIALS,
	LOGIN_FAIL_TEMPORARY,
	LOGIN_FAIL_MECHANISM, /* not available, or its own syntax was broken */
	LOGIN_FAIL_LIMIT,     /* too many connections of this user or address */
	LOGIN_FAIL_MAILBOX,   /* the mail does not lie in a Maildir */
};

struct login;
struct login_protocol; /* access/protocol.h */

/* mechanisms: names as auth offers them in the present TLS state, separated by spaces, copied;
 * empty: none. can_starttls: the certificate is there and TLS is not yet on. The caller owns the
 * result. */
struct login *login_new(const struct login_protocol *protocol, const struct login_limits *limits,
    const char *mechanisms, bool can_starttls, bool tls);
void login_free(struct login **l);

/* What is to be sent to the client; the caller consumes it, the engine owns it. */
struct buf *login_out(struct login *l);
void login_greet(struct login *l);
/* Bytes taken of in, which is borrowed for the call. */
size_t login_feed(struct login *l, struct slice in, struct login_action *a_r);

/* TLS is up: everything learnt before is forgotten, mechanisms are those under TLS. Only after
 * LOGIN_STARTTLS. */
void login_tls_done(struct login *l, const char *mechanisms);
void login_challenge(struct login *l, struct slice data);
void login_auth_failed(struct login *l, enum login_failure why);
/* Confirmed. Final data of the mechanism, if any (has_final), is sent as one more challenge whose
 * empty answer is awaited; then, or at once, feed says LOGIN_DONE. */
void login_auth_ok(struct login *l, struct slice final, bool has_final);
/* No session could be opened: the command that logged in fails, back to before login. */
void login_unavailable(struct login *l, enum login_failure why);
/* Queues a last line with text and ends; for time-outs and shutdown. text: without CR and LF. */
void login_bye(struct login *l, const char *text);
/* Why the dialogue was ended from here, and the parameter whose limit the client met; each may be
 * NULL. */
const char *login_ended(const struct login *l, const char **limit_r);

/* --- the preamble on the stream to the session --- */
enum { HANDOVER_MAX = 1024 };
struct handover {
	struct slice tag;  /* IMAP: of the command that logged in. POP3: the mechanisms, for CAPA */
	bool tls;          /* the client's connection is encrypted */
	struct slice peer; /* the client's address as text, for the log */
	struct slice id;   /* session id that login logs with */
};

/* Appends the preamble: u16 length (little-endian) of what follows, then the fields. */
void login_handover(
    const struct login *l, struct slice peer, struct slice session_id, struct buf *out);
void handover_encode(const struct handover *h, struct buf *out);
/* Bytes taken (>0), 0: more bytes are needed, ERR_SYNTAX, ERR_LIMIT. Slices borrow from in. */
int handover_decode(struct slice in, struct handover *h_r) CHECKED;

#endif
