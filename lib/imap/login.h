/*
 * IMAP before login, as a pure state machine: greeting, CAPABILITY, ID, NOOP, LOGOUT, STARTTLS,
 *LOGIN, AUTHENTICATE (RFC 9051 section 6.2, RFC 4959, RFC 2971). login-child drives it:
 *
 *	imap_login_greet(l);
 *	loop: write imap_login_out(l) to the client; read bytes into a buffer of your own;
 *	      n = imap_login_feed(l, bytes, &a); drop n bytes; act on a.want; call feed again
 *	      (with the rest, or with nothing) until it says IMAP_LOGIN_MORE.
 *
 * The engine takes no byte while an answer is owed to it (STARTTLS, AUTH_*, DONE), so at most one
 *input buffer stays unread; read no more than IMAP_LOGIN_INPUT bytes ahead.
 *
 * How a login is handed on. After IMAP_LOGIN_DONE login-child asks the broker for the user's
 *session and gets a stream. It writes imap_login_handover() to the stream first, then every byte of
 *the client that feed did not take (pipelined commands), and from then on copies bytes both ways.
 *It sends no tagged OK: the session itself answers "TAG OK [CAPABILITY ...] Logged in" as its first
 *bytes. If there is no session: imap_login_unavailable(), and the dialogue goes on before login.
 */
#ifndef IMAP_LOGIN_H
#define IMAP_LOGIN_H

#include "base/buf.h"

enum { IMAP_LOGIN_INPUT = 8192 };

struct imap_login_limits {
	size_t max_command;         /* bytes of a command with its literals; default 16384 */
	size_t max_auth;            /* bytes of one base64 line of AUTHENTICATE; default 12288 */
	unsigned max_errors;        /* BAD replies before BYE; default 3 */
	unsigned max_commands;      /* commands of any kind before login; default 100 */
	unsigned max_auth_failures; /* NO to LOGIN or AUTHENTICATE before BYE; default 3 */
	const char *greeting;       /* text of the greeting, borrowed for the life; NULL: "Ready" */
};

enum imap_login_want {
	IMAP_LOGIN_MORE,     /* nothing: read on */
	IMAP_LOGIN_STARTTLS, /* flush out, DROP all unread plaintext, start TLS, then call tls_done
			      */
	IMAP_LOGIN_AUTH_START, /* mechanism, and the initial response if has_data; answer with
				  challenge, auth_failed or auth_ok */
	IMAP_LOGIN_AUTH_STEP,  /* the client's response; answer in the same way */
	IMAP_LOGIN_AUTH_ABORT, /* the client cancelled (already answered): drop the exchange */
	IMAP_LOGIN_DONE,       /* logged in: hand over as told above */
	IMAP_LOGIN_CLOSE,      /* flush out, then close */
};

struct imap_login_action {
	enum imap_login_want want;
	const char
	    *mechanism; /* AUTH_START: upper case, one of those offered; LOGIN comes as PLAIN */
	struct slice
	    data; /* AUTH_START with has_data, AUTH_STEP: decoded; valid until the next call */
	bool has_data;
};

enum imap_login_failure {
	IMAP_LOGIN_FAIL_CREDENTIALS, /* NO [AUTHENTICATIONFAILED] */
	IMAP_LOGIN_FAIL_TEMPORARY,   /* NO [UNAVAILABLE] */
	IMAP_LOGIN_FAIL_EXPIRED,     /* NO [EXPIRED] */
	IMAP_LOGIN_FAIL_DENIED,      /* NO [AUTHORIZATIONFAILED] */
	IMAP_LOGIN_FAIL_PROTOCOL,    /* BAD: the mechanism's own syntax was broken */
	IMAP_LOGIN_FAIL_LIMIT,       /* NO [LIMIT]: too many connections of this user or address */
	IMAP_LOGIN_FAIL_MAILBOX,     /* NO [CONTACTADMIN]: the mail does not lie in a Maildir */
};

struct imap_login;

/* mechanisms: names as auth offers them in the present TLS state, separated by spaces; empty: none
 * (then LOGINDISABLED is told). can_starttls: the certificate is there and TLS is not yet on. */
struct imap_login *imap_login_new(
    const struct imap_login_limits *limits, const char *mechanisms, bool can_starttls, bool tls);
void imap_login_free(struct imap_login **l);

/* What is to be sent to the client; the caller consumes it. */
struct buf *imap_login_out(struct imap_login *l);
void imap_login_greet(struct imap_login *l);
size_t imap_login_feed(struct imap_login *l, struct slice in, struct imap_login_action *a);

/* TLS is up: everything learnt before is forgotten, mechanisms are those under TLS. */
void imap_login_tls_done(struct imap_login *l, const char *mechanisms);
void imap_login_challenge(struct imap_login *l, struct slice data);
void imap_login_auth_failed(struct imap_login *l, enum imap_login_failure why);
/* Confirmed. Final data of the mechanism, if any (has_final), is sent as one more challenge whose
 * empty answer is awaited; then, or at once, feed says IMAP_LOGIN_DONE. */
void imap_login_auth_ok(struct imap_login *l, struct slice final, bool has_final);
/* No session could be opened: tagged NO, back to before login. */
void imap_login_unavailable(struct imap_login *l, enum imap_login_failure why);
/* Queues "* BYE text"; for time-outs and shutdown. text is a constant of the caller without CR, LF.
 */
void imap_login_bye(struct imap_login *l, const char *text);

/* Why the dialogue was ended from here, and the parameter whose limit the client met; each may be
 * NULL. */
const char *imap_login_ended(const struct imap_login *l, const char **limit_r);

/* --- the preamble on the stream to the session --- */
enum { IMAP_HANDOVER_MAX = 1024 };
struct imap_handover {
	struct slice tag;  /* of the command that logged in, 1 to 255 bytes; empty for POP3 */
	bool tls;          /* the client's connection is encrypted */
	struct slice peer; /* the client's address as text, for the log */
	struct slice id;   /* session id that login logs with */
};

/* Appends the preamble: u16 length (little-endian) of what follows, then the fields. */
void imap_login_handover(
    const struct imap_login *l, struct slice peer, struct slice session_id, struct buf *out);
void imap_handover_encode(const struct imap_handover *h, struct buf *out);
/* Bytes taken (>0), 0: more bytes are needed, ERR_SYNTAX, ERR_LIMIT. Slices borrow from in. */
int imap_handover_decode(struct slice in, struct imap_handover *h_r) CHECKED;

#endif
