/*
 * The SMTP server engine: smtpd, submission and LMTP are this one state machine under three
 * policies. It does no I/O, no look-up and reads no clock.
 *
 * The owner feeds what came from the client, writes what stands in the output, and gets everything
 * that needs the world as a call of struct smtp_ops. An operation that is answered (each says by
 * which smtp_server_answer_*) may be answered inside the call or any time later; until then the
 * engine takes no further command, and pipelined input waits. No other smtp_server_* function may
 * be called inside an operation, but for smtp_server_pause in data_bytes.
 */
#ifndef SMTP_SERVER_H
#define SMTP_SERVER_H

#include "base/arena.h"
#include "base/buf.h"
#include "mail/address.h"
#include "mail/header.h"
#include "smtp/line.h"
#include "smtp/reply.h"

#include <sys/queue.h>

enum smtp_service { SMTP_SMTPD, SMTP_SUBMISSION, SMTP_LMTP };

/* Names that smtpd_discard_ehlo_keywords may leave out. */
enum smtp_extension {
	SMTP_EXT_PIPELINING = 1,
	SMTP_EXT_SIZE = 2,
	SMTP_EXT_8BITMIME = 4,
	SMTP_EXT_SMTPUTF8 = 8,
	SMTP_EXT_CHUNKING = 16,
	SMTP_EXT_BINARYMIME = 32,
	SMTP_EXT_DSN = 64,
	SMTP_EXT_ENHANCEDSTATUSCODES = 128,
	SMTP_EXT_STARTTLS = 256,
	SMTP_EXT_AUTH = 512,
};
#define SMTP_EXT_ALL 1023u
/* The bit of a keyword, 0 if it is none of these. */
unsigned smtp_extension_bit(struct slice keyword);

/* Borrowed; must outlive the engine. Every limit is inclusive: at the limit is good. */
struct smtp_policy {
	enum smtp_service service;
	const char *hostname; /* in EHLO */
	const char *banner;   /* behind 220; begins with the host name (RFC 5321 4.2) */
	const char *origin;  /* domain for addresses that have none; NULL: refused but postmaster */
	unsigned extensions; /* enum smtp_extension: those that are offered */
	bool tls_required;   /* MAIL only under TLS */
	bool auth_required;  /* MAIL only after AUTH */
	bool auth_needs_tls; /* AUTH is offered under TLS only */
	bool hello_required; /* MAIL only after HELO or EHLO */
	bool vrfy_disabled;
	bool mend_bare_lf;      /* a bare LF in content becomes CRLF, else the message is refused */
	bool strict_pipelining; /* end the session of a client that does not wait where it must */
	const char *auth_mechanisms;     /* as in EHLO, without TLS */
	const char *auth_mechanisms_tls; /* under TLS */
	const struct slice *forbidden;   /* verbs that end the session (other protocols) */
	size_t forbidden_n;
	uint64_t size_limit;          /* octets of content; 0: none */
	uint64_t discard_limit;       /* octets read only to be thrown away, in one session */
	unsigned recipient_limit;     /* accepted ones of a transaction */
	unsigned recipient_overshoot; /* RCPT refused for the limit before it counts as an error */
	unsigned soft_error_limit;    /* errors before each further one is delayed */
	unsigned hard_error_limit;    /* errors that end the session */
	unsigned
	    junk_command_limit; /* commands that bring no mail forward before they are errors */
	unsigned error_delay_ms;
	unsigned line_limit;      /* octets of a command line with CRLF */
	unsigned auth_line_limit; /* the same for AUTH and its responses */
	unsigned hop_limit;       /* Received fields */
	unsigned chunk_limit;     /* BDAT commands of a message */
	size_t header_size_limit; /* of one field */
	size_t header_section_limit;
	unsigned header_count_limit;
};

enum smtp_state {
	SMTP_CONNECTED, /* the greeting is not sent yet */
	SMTP_HELLO,     /* greeted, no EHLO yet (also after STARTTLS) */
	SMTP_READY,     /* no transaction */
	SMTP_MAIL,      /* MAIL accepted, no recipient */
	SMTP_RCPT,      /* at least one recipient accepted */
	SMTP_DATA,      /* inside the content after DATA */
	SMTP_CHUNK,     /* inside the octets of a BDAT */
	SMTP_CHUNKS,    /* between two BDATs of a transaction */
	SMTP_COMMIT,    /* end of data: waiting for the verdict */
	SMTP_AUTH,      /* inside a SASL exchange */
	SMTP_TLS,       /* handshake under way */
	SMTP_REFUSED,   /* greeted with 554: only QUIT is good */
	SMTP_CLOSED,    /* the last reply is in the output */
};
const char *smtp_state_name(enum smtp_state state);

enum smtp_body { SMTP_BODY_7BIT, SMTP_BODY_8BITMIME, SMTP_BODY_BINARYMIME };
enum smtp_ret { SMTP_RET_NONE, SMTP_RET_FULL, SMTP_RET_HDRS };

struct smtp_rcpt {
	STAILQ_ENTRY(smtp_rcpt) next;
	struct slice address; /* canonical, see address_canonical */
	struct slice orcpt;   /* "type;xtext" as sent, or empty */
	unsigned notify;      /* enum dsn_notify; 0: not given */
	void *user;           /* the owner's, best allocated in the transaction's arena */
};
STAILQ_HEAD(smtp_rcpts, smtp_rcpt);

/* All that one transaction has; ended by one function inside the engine. */
struct smtp_tx {
	struct arena arena; /* freed with the transaction; the owner may allocate in it */
	bool active;
	struct slice sender; /* canonical; empty: the null path */
	struct slice envid;  /* xtext as sent */
	struct slice auth;   /* the mailbox of AUTH=, xtext as sent */
	uint64_t declared_size;
	enum smtp_body body;
	enum smtp_ret ret;
	bool smtputf8;
	struct smtp_rcpts rcpts; /* accepted ones, in order */
	unsigned rcpt_count;
	unsigned rcpt_overshoot;
	uint64_t size; /* octets of content so far */
	struct header_scan header;
	struct content_reader reader;
	struct reply failure; /* code not 0: the content is being thrown away */
	unsigned chunks;      /* BDAT commands so far */
	bool began;           /* data_begin was called */
	bool ended;           /* the content is complete */
	void *user;
};

struct smtp_server;

struct smtp_ops {
	/* MAIL is well-formed: smtp_server_tx has it. answer_mail. May be NULL: accepted. */
	void (*check_mail)(void *ctx, struct smtp_server *s);
	/* answer_rcpt. The candidate is not among tx->rcpts yet. */
	void (*check_rcpt)(void *ctx, struct smtp_server *s, struct smtp_rcpt *rcpt);
	/* DATA or the first BDAT. answer_data. May be NULL: accepted. */
	void (*data_begin)(void *ctx, struct smtp_server *s);
	/* The next octets of the content: CRLF lines, unstuffed; opaque if the body is BINARYMIME.
	 * Not answered; after smtp_server_pause no more comes but what the present feed holds. */
	void (*data_bytes)(void *ctx, struct smtp_server *s, struct slice bytes);
	/* The content is complete and good. answer_commit, or answer_commit_rcpt for LMTP. */
	void (*commit)(void *ctx, struct smtp_server *s);
	/* The transaction is over, committed or not; tx and all that hangs on it goes when this
	 * returns. Called once for each that check_mail saw. May be NULL. */
	void (*tx_end)(void *ctx, struct smtp_server *s);
	/* The 220 is in the output: write it, then start the handshake. answer_tls. */
	void (*start_tls)(void *ctx, struct smtp_server *s);
	/* AUTH with a mechanism (as sent) and, if has_initial, decoded octets (maybe none).
	 * answer_auth_challenge, answer_auth_ok or answer_auth_failed. */
	void (*auth_start)(void *ctx, struct smtp_server *s, struct slice mechanism,
	    bool has_initial, struct slice initial);
	void (*auth_step)(void *ctx, struct smtp_server *s, struct slice response);
	/* The exchange is over without a verdict (the client gave up, or is gone). */
	void (*auth_cancel)(void *ctx, struct smtp_server *s);
	/* A client that makes errors waits: do not write the output before ms have passed.
	 * answer_delay. May be NULL: no delay. */
	void (*delay)(void *ctx, struct smtp_server *s, unsigned ms);
	/* A reply of 400 or more went to the output, for the log. May be NULL. */
	void (*refused)(void *ctx, struct smtp_server *s, const struct reply *r);
	/* The session is over: write the output and close. */
	void (*close)(void *ctx, struct smtp_server *s);
};

struct smtp_server *smtp_server_new(
    const struct smtp_policy *policy, const struct smtp_ops *ops, void *ctx);
/* Ends a transaction under way (tx_end), then frees and nulls. */
void smtp_server_free(struct smtp_server **s);

/* Before the greeting: there is no certificate now, so STARTTLS is neither offered nor tried. */
void smtp_server_without_tls(struct smtp_server *s);
/* The session begins: puts the greeting into the output. under_tls for implicit TLS. */
void smtp_server_greet(struct smtp_server *s, bool under_tls);
/* Instead: refuses the client (554 or 421). After 554 it may send QUIT, as RFC 5321 3.1 says. */
void smtp_server_refuse(struct smtp_server *s, const struct reply *r);

/* Input from the client. Input before the greeting ends the session when strict_pipelining is set
 * (the greeting is still written), and is kept otherwise. */
void smtp_server_feed(struct smtp_server *s, struct slice bytes);
/* Whether to read from the client at all: false while an answer is awaited, while paused, and while
 * the output is long. */
bool smtp_server_wants_input(const struct smtp_server *s);
/* Octets that are kept because something is awaited: the owner bounds them by not reading on. */
size_t smtp_server_pending(const struct smtp_server *s);
/* What is to be written; the owner consumes it. Call smtp_server_resume afterwards. */
struct buf *smtp_server_output(struct smtp_server *s);
/* Goes on with input that is kept. */
void smtp_server_resume(struct smtp_server *s);
/* From data_bytes: no further content until smtp_server_resume. */
void smtp_server_pause(struct smtp_server *s);

/* Ends the session with a reply (421 as a rule): time-outs, shutdown, loss of a peer. */
void smtp_server_shutdown(struct smtp_server *s, const struct reply *r);
/* Makes the transaction under way fail with this reply at the end of its data. */
void smtp_server_fail_data(struct smtp_server *s, const struct reply *r);

/* Answers. A NULL reply is the engine's own good one; a reply of 2xx accepts, one of 421 or 521
 * ends the session. */
void smtp_server_answer_mail(struct smtp_server *s, const struct reply *r);
void smtp_server_answer_rcpt(struct smtp_server *s, const struct reply *r);
void smtp_server_answer_data(struct smtp_server *s, const struct reply *r);
/* For LMTP the reply is repeated for each recipient that is not answered yet. */
void smtp_server_answer_commit(struct smtp_server *s, const struct reply *r);
/* LMTP: the reply for the next recipient, in the order of tx->rcpts. */
void smtp_server_answer_commit_rcpt(struct smtp_server *s, const struct reply *r);
/* After a failed handshake the session is closed without a word. */
void smtp_server_answer_tls(struct smtp_server *s, bool ok);
void smtp_server_answer_auth_challenge(struct smtp_server *s, struct slice challenge);
void smtp_server_answer_auth_ok(struct smtp_server *s);
void smtp_server_answer_auth_failed(struct smtp_server *s, const struct reply *r);
void smtp_server_answer_delay(struct smtp_server *s);

enum smtp_state smtp_server_state(const struct smtp_server *s);
struct smtp_tx *smtp_server_tx(struct smtp_server *s);
struct slice smtp_server_hello(const struct smtp_server *s); /* the argument of EHLO or HELO */
bool smtp_server_under_tls(const struct smtp_server *s);
bool smtp_server_authenticated(const struct smtp_server *s);
unsigned smtp_server_errors(const struct smtp_server *s);

/* The "with" word of Received (RFC 3848, 6531): "ESMTPSA", "UTF8LMTP" ... */
const char *smtp_server_with(const struct smtp_server *s);

#endif
