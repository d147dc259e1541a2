/* One client of smtpd or submission; shared by session*.c only. */
#ifndef RECEIVE_SESSION_H
#define RECEIVE_SESSION_H

#include "base/inet.h"
#include "receive/mail.h"
#include "receive/service.h"

/* What the engine's present operation waits for. */
enum session_wait {
	WAIT_FOR_NOTHING,
	WAIT_FOR_NAME,   /* MAIL: the client's name */
	WAIT_FOR_RATE,   /* MAIL: qmgr's count of this client */
	WAIT_FOR_SENDER, /* MAIL: the sender rewritten */
	WAIT_FOR_RCPT,
	WAIT_FOR_RCPT_RATE,
	WAIT_FOR_BCC,  /* DATA: where always_bcc goes */
	WAIT_FOR_TURN, /* DATA: the end of commits that are under way */
	WAIT_FOR_AUTH,
	WAIT_FOR_ROOM, /* content: the spool file that was asked for */
	WAIT_FOR_FILE, /* the end of data: the same */
	WAIT_FOR_COMMIT,
};

enum session_io {
	IO_PLAIN,
	IO_HANDSHAKE,
	IO_TLS,
	IO_LINGER, /* closed on our side: what still comes is dropped, so that the last reply
		      arrives */
};

/* What hangs on an accepted recipient. */
struct rcpt_finals {
	struct slice list; /* of final_addr */
	uint32_t count;
	uint32_t first; /* slot of its first address in the envelope */
};

struct session {
	TAILQ_ENTRY(session) next;
	struct service *service;
	struct service_policy *policy;
	struct smtp_server *engine;
	uint64_t token;
	int fd;
	struct event *readable, *writable;
	bool reading, writing;
	struct ev_timer timer, delay;
	int64_t armed;  /* when timer fires */
	unsigned depth; /* inside an entry point: settled when the outermost one is left */
	bool closing, dead, eof, held, start_tls, stopping;
	bool inside; /* TLS has input that raises no event */
	/* the client */
	bool local, trusted;
	uint32_t uid;
	struct inet_addr address;
	uint16_t port;
	char client[INET_TEXT];
	char id[16];
	char name[256]; /* confirmed host name, or "unknown" */
	bool name_known;
	enum session_io io;
	struct tls_conn *tls;
	char tls_text[160]; /* for Received; empty: no TLS */
	/* what is asked */
	enum session_wait wait;
	struct request name_request, request; /* request: rate and auth */
	struct rcpt_question question;
	struct smtp_rcpt *candidate;
	struct mail mail;
	/* the transaction */
	unsigned tx_count;
	size_t trace_length;
	bool head_done;
	int64_t tx_began; /* wall clock, microseconds */
	struct rcpt_finals *bcc;
	TAILQ_ENTRY(session) turn; /* of service->turns, while it waits for that */
	bool committing;           /* counted in service->committing */
	/* the login */
	char user[257];
	unsigned char login_token[32];
	size_t login_token_n;
	unsigned auth_failures;
	/* times, monotonic microseconds */
	int64_t opened, last_input, asked;
	int64_t window_start, window_used; /* of smtpd_min_data_rate; used: before a pause */
	uint64_t window_bytes;
	bool in_content, waited; /* at the last look */
	/* for the log */
	unsigned messages, recipients, rejects;
};

static inline const struct conf *
session_conf(const struct session *s)
{
	return s->policy->conf;
}

/* session.c */
/* Every entry from outside is between these; session_leave writes, closes and may free s. */
void session_enter(struct session *s);
void session_leave(struct session *s);
/* The present operation waits for w from now on (timed). */
void session_waits(struct session *s, enum session_wait w);
void session_open(struct service *service, struct msg *m);
void session_free(struct session *s);
void session_stop(struct session *s);

/* session_io.c */
void session_io_start(struct session *s);
void session_io_stop(struct session *s);
void session_flush(struct session *s);
/* Adjusts which events are waited for. */
void session_events(struct session *s);
void session_handshake(struct session *s);

/* session_mail.c, session_auth.c: the engine's operations */
extern const struct smtp_ops session_ops;
extern const struct mail_ops session_mail_ops;
/* Recipients of the envelope: of an answer of maps, and how many there are so far. */
struct rcpt_finals *session_keep_finals(struct smtp_tx *tx, const struct rcpt_answer *a);
uint32_t session_final_count(struct smtp_tx *tx);
void session_check_mail(void *ctx, struct smtp_server *e);
void session_check_rcpt(void *ctx, struct smtp_server *e, struct smtp_rcpt *rcpt);
void session_data_begin(void *ctx, struct smtp_server *e);
void session_data_bytes(void *ctx, struct smtp_server *e, struct slice bytes);
/* The answer to DATA is yes. */
void session_content_begin(struct session *s);
void session_commit(void *ctx, struct smtp_server *e);
void session_tx_end(void *ctx, struct smtp_server *e);
void session_auth_start(void *ctx, struct smtp_server *e, struct slice mechanism, bool has_initial,
    struct slice initial);
void session_auth_step(void *ctx, struct smtp_server *e, struct slice response);
void session_auth_cancel(void *ctx, struct smtp_server *e);
/* turn.c */
void turn_init(struct service *service);
/* True: too many commits are under way, session_content_begin comes later. */
bool turn_waits(struct session *s);
/* From now on s is one that commits. */
void turn_commits(struct session *s);
/* s waits no more, and commits no more; any state is fine. */
void turn_leave(struct session *s);
/* These operations go on without the answer that they wait for. */
void session_name_done(struct session *s);
void session_check_sender(struct session *s);
void session_ask_name(struct session *s);
/* The present operation has waited too long. */
void session_wait_expired(struct session *s);

#endif
