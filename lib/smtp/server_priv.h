/* The inside of the server engine, shared by server*.c only. */
#ifndef SMTP_SERVER_PRIV_H
#define SMTP_SERVER_PRIV_H

#include "smtp/server.h"

/* What the engine waits for. */
enum smtp_wait {
	WAIT_NONE,
	WAIT_MAIL,
	WAIT_RCPT,
	WAIT_DATA,
	WAIT_COMMIT,
	WAIT_TLS,
	WAIT_AUTH,
	WAIT_DELAY,
};

#define SMTP_HELLO_MAX 255
#define SMTP_OUTPUT_HIGH 32768u /* above this much unwritten output no command is taken */

struct smtp_server {
	const struct smtp_policy *policy;
	const struct smtp_ops *ops;
	void *ctx;
	enum smtp_state state;
	enum smtp_wait wait;
	bool running, paused;
	bool esmtp, tls, authenticated;
	bool no_tls;      /* STARTTLS cannot be: 454 */
	bool early;       /* the client spoke before the greeting */
	bool auth_active; /* between auth_start and a verdict */
	unsigned errors, junk;
	uint64_t discarded;
	unsigned commit_answers; /* LMTP: recipients answered */
	struct slice in;         /* the unread input: of feed's argument or of pending */
	struct buf pending;      /* input that waits */
	struct buf out;
	struct line_reader line;
	char hello[SMTP_HELLO_MAX + 1];
	uint64_t chunk_left; /* of the BDAT under way */
	bool chunk_last;
	bool chunk_orphan;          /* it belongs to no transaction */
	struct reply chunk_refusal; /* for an orphan */
	struct smtp_rcpt *candidate;
	struct smtp_tx tx;
};

/* --- server.c --- */
/* The only place where the state changes. */
void smtp_set_state(struct smtp_server *s, enum smtp_state state);
void smtp_send(struct smtp_server *s, const struct reply *r);
#define SMTP_SAY(s, code, enhanced, text) smtp_send((s), &REPLY(code, enhanced, text))
#define SMTP_SAY_LIMIT(s, code, enhanced, text, parameter)                                         \
	smtp_send((s), &REPLY_LIMIT(code, enhanced, text, parameter))
/* The only place where a transaction ends. */
void smtp_tx_end(struct smtp_server *s);
void smtp_close(struct smtp_server *s);
/* Counts input that is thrown away; over the limit it ends the session and returns false. */
bool smtp_count_discarded(struct smtp_server *s, size_t n);
void smtp_run(struct smtp_server *s);
bool smtp_offers(const struct smtp_server *s, enum smtp_extension e);
static inline bool
smtp_is_lmtp(const struct smtp_server *s)
{
	return s->policy->service == SMTP_LMTP;
}

/* --- the commands: arguments without the verb and the blank behind it --- */
typedef void smtp_handler(struct smtp_server *s, struct slice args);
smtp_handler smtp_do_helo, smtp_do_ehlo;     /* server_hello.c */
smtp_handler smtp_do_starttls, smtp_do_auth; /* server_auth.c */
smtp_handler smtp_do_mail, smtp_do_rcpt;     /* server_mail.c */
smtp_handler smtp_do_data, smtp_do_bdat;     /* server_data.c */
smtp_handler smtp_do_rset, smtp_do_noop, smtp_do_quit, smtp_do_vrfy, smtp_do_help, smtp_do_no;

/* server_command.c: one line that is no SASL response. */
void smtp_command(struct smtp_server *s, struct slice line);
/* server_auth.c: one line inside a SASL exchange. */
void smtp_auth_response(struct smtp_server *s, struct slice line);
void smtp_auth_end(struct smtp_server *s);
/* server_data.c: takes content from s->in. */
void smtp_take_data(struct smtp_server *s);
void smtp_take_chunk(struct smtp_server *s);

#endif
