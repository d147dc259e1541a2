/*
 * POP3 before login, as a pure state machine: greeting, CAPA, STLS, USER, PASS, AUTH, NOOP, QUIT
 * (RFC 1939 section 4, RFC 2449, 2595, 3206, 5034). login-child drives it exactly as it drives
 * imap/login.h:
 *
 *	pop3_login_greet(l);
 *	loop: write pop3_login_out(l) to the client; read bytes into a buffer of your own;
 *	      n = pop3_login_feed(l, bytes, &a); drop n bytes; act on a.want; call feed again
 *	      (with the rest, or with nothing) until it says POP3_LOGIN_MORE.
 *
 * The engine takes no byte while an answer is owed to it (STLS, AUTH_*, DONE).
 *
 * How a login is handed on: after POP3_LOGIN_DONE ask the broker for the session's stream, write
 * pop3_login_handover() to it, then the client's bytes that feed did not take, and copy both ways
 * from then on. The session answers the login itself ("+OK Logged in." or "-ERR [SYS/TEMP] ..." and
 * the end of the stream) as its first bytes. If there is no session: pop3_login_unavailable().
 */
#ifndef POP3_LOGIN_H
#define POP3_LOGIN_H

#include "base/buf.h"

enum {
	POP3_LOGIN_INPUT = 4096,
	POP3_LINE_MAX = 255, /* of a command with its CRLF: RFC 2449 section 4 */
};

struct pop3_login_limits {
	size_t max_auth;            /* bytes of one base64 line of AUTH; default 12288 */
	unsigned max_errors;        /* bad commands before the end; default 3 */
	unsigned max_commands;      /* commands of any kind before login; default 100 */
	unsigned max_auth_failures; /* failed logins before the end; default 3 */
	const char *greeting; /* text of the greeting, borrowed for the life; NULL: "POP3 ready" */
};

enum pop3_login_want {
	POP3_LOGIN_MORE,       /* nothing: read on */
	POP3_LOGIN_STARTTLS,   /* flush out, DROP all unread plaintext, start TLS, then tls_done */
	POP3_LOGIN_AUTH_START, /* mechanism, and the initial response if has_data; answer with
				  challenge, auth_failed or auth_ok. USER and PASS come as PLAIN */
	POP3_LOGIN_AUTH_STEP,  /* the client's response; answer in the same way */
	POP3_LOGIN_AUTH_ABORT, /* the client cancelled (already answered): drop the exchange */
	POP3_LOGIN_DONE,       /* logged in: hand over as told above */
	POP3_LOGIN_CLOSE,      /* flush out, then close */
};

struct pop3_login_action {
	enum pop3_login_want want;
	const char *mechanism; /* AUTH_START: upper case, one of those offered, or PLAIN */
	struct slice data; /* AUTH_START with has_data, AUTH_STEP: decoded; until the next call */
	bool has_data;
};

enum pop3_login_failure {
	POP3_LOGIN_FAIL_CREDENTIALS, /* -ERR [AUTH] */
	POP3_LOGIN_FAIL_TEMPORARY,   /* -ERR [SYS/TEMP] */
	POP3_LOGIN_FAIL_EXPIRED,     /* -ERR [AUTH] */
	POP3_LOGIN_FAIL_DENIED,      /* -ERR [AUTH] */
	POP3_LOGIN_FAIL_PROTOCOL,    /* -ERR: the mechanism's own syntax was broken */
	POP3_LOGIN_FAIL_LIMIT,   /* -ERR [IN-USE]: too many connections of this user or address */
	POP3_LOGIN_FAIL_MAILBOX, /* -ERR [SYS/PERM]: the mail does not lie in a Maildir */
};

struct pop3_login;

/* mechanisms: names as auth offers them in the present TLS state, separated by spaces; without
 * PLAIN among them USER is refused. can_stls: the certificate is there and TLS is not yet on. */
struct pop3_login *pop3_login_new(
    const struct pop3_login_limits *limits, const char *mechanisms, bool can_stls, bool tls);
void pop3_login_free(struct pop3_login **l);

/* What is to be sent to the client; the caller consumes it. */
struct buf *pop3_login_out(struct pop3_login *l);
void pop3_login_greet(struct pop3_login *l);
size_t pop3_login_feed(struct pop3_login *l, struct slice in, struct pop3_login_action *a);

/* TLS is up: everything learnt before is forgotten, mechanisms are those under TLS. */
void pop3_login_tls_done(struct pop3_login *l, const char *mechanisms);
void pop3_login_challenge(struct pop3_login *l, struct slice data);
void pop3_login_auth_failed(struct pop3_login *l, enum pop3_login_failure why);
/* Confirmed. Final data of the mechanism (has_final) is sent as one more challenge whose empty
 * answer is awaited; then, or at once, feed says POP3_LOGIN_DONE. */
void pop3_login_auth_ok(struct pop3_login *l, struct slice final, bool has_final);
/* No session could be opened: -ERR, back to before login. */
void pop3_login_unavailable(struct pop3_login *l, enum pop3_login_failure why);
/* Queues "-ERR text"; for time-outs and shutdown. text is a constant without CR, LF. */
void pop3_login_bye(struct pop3_login *l, const char *text);

/* Why the dialogue was ended from here, and the parameter whose limit the client met; each may be
 * NULL. */
const char *pop3_login_ended(const struct pop3_login *l, const char **limit_r);

/* Appends the preamble of imap/login.h; its tag holds the mechanisms, for CAPA after login. */
void pop3_login_handover(
    const struct pop3_login *l, struct slice peer, struct slice session_id, struct buf *out);

#endif
