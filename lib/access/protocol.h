/*
 * The inside of the dialogue before login, for the protocols (lib/imap/login.c, lib/pop3/login.c):
 * what they bring, and what they find.
 */
#ifndef ACCESS_PROTOCOL_H
#define ACCESS_PROTOCOL_H

#include "access/login.h"

enum login_state {
	LOGIN_COMMAND,  /* reads a command */
	LOGIN_RESPONSE, /* reads one base64 line */
	LOGIN_FINAL,    /* reads the empty answer to the mechanism's final data */
	LOGIN_AUTH,     /* auth owes an answer */
	LOGIN_TLS,      /* the driver owes tls_done */
	LOGIN_ACCEPTED, /* logged in; DONE is said at the next feed */
	LOGIN_HANDED,   /* DONE was said */
	LOGIN_CLOSED,
};

enum { LOGIN_MECHANISM_MAX = 31 };

/* First member of a protocol's own struct. */
struct login {
	const struct login_protocol *protocol;
	struct login_limits limits;
	enum login_state state;
	struct buf out;
	struct buf line;    /* one under way; wiped with the command */
	struct buf decoded; /* what an action's data points to */
	char *mechanisms;
	char mechanism[LOGIN_MECHANISM_MAX + 1];
	bool can_starttls, tls;
	unsigned errors, commands, failures;
	const char *ended, *limit; /* for the log */
};

/* A protocol: constants for the driver, and how it says things. The functions append whole lines
 * to l->out and change no state but their own; text is without CR and LF. */
struct login_protocol {
	const char *name;     /* service for auth and broker, and the ALPN id */
	const char *too_many; /* the line for a client beyond a limit, before any engine */
	const char *gone;     /* the line for a client whose session died, or NULL */
	size_t input;         /* bytes of input that the driver reads ahead */
	size_t size;          /* of the protocol's struct, which begins with struct login */
	void (*init)(struct login *l);
	void (*clear)(struct login *l);  /* frees and wipes what the protocol added */
	void (*forget)(struct login *l); /* TLS is up: what was learnt before it */
	void (*greet)(struct login *l);
	void (*bye)(struct login *l, const char *text);
	void (*bad)(struct login *l, const char *text);
	void (*failed)(struct login *l, enum login_failure why);
	/* In LOGIN_COMMAND: takes at most one command from in, gives the bytes taken. */
	size_t (*feed)(struct login *l, struct slice in, struct login_action *a);
	struct slice (*tag)(const struct login *l); /* struct handover */
};

/* The line "bad", and the end after max_errors of them. */
void login_bad(struct login *l, const char *text);
/* Counts a command; false: that was one too many, the end has been said. */
bool login_count_command(struct login *l);
/* The client met a limit: parameter is the one that sets it, or NULL. */
void login_end_at_limit(struct login *l, const char *text, const char *parameter);
bool login_offered(const struct login *l, struct slice mechanism);
/* Collects a line of at most max bytes (what parameter sets, or NULL), its end included, in
 * l->line: gives the bytes taken, and *line_r without its end, or SLICE_NULL where more is to come
 * or it is too long (the end has been said then). The caller wipes l->line when it is through with
 * the line. */
size_t login_line(
    struct login *l, struct slice in, size_t max, const char *parameter, struct slice *line_r);
/* An exchange with an offered mechanism; initial as the client sent it (base64, or "="). */
void login_start(struct login *l, struct slice mechanism, bool has_initial, struct slice initial,
    struct login_action *a);
/* A name and a password, checked as PLAIN (RFC 4616) with an empty authzid. */
void login_start_plain(
    struct login *l, struct slice user, struct slice password, struct login_action *a);

#endif
