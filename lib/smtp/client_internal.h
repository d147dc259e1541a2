/* What the files of the outbound engine share. */
#ifndef SMTP_CLIENT_INTERNAL_H
#define SMTP_CLIENT_INTERNAL_H

#include "smtp/client.h"

enum client_state {
	STATE_SETUP, /* greeting, EHLO, STARTTLS, AUTH: one command at a time, expected[0] */
	STATE_TLS,   /* the driver does the handshake */
	STATE_AUTH,  /* the driver is to give an answer */
	STATE_READY,
	STATE_TX,
	STATE_QUIT,
	STATE_OVER,
};

enum rcpt_state { RCPT_OPEN, RCPT_ACCEPTED, RCPT_REPORTED };

struct expected {
	enum client_command command;
	size_t rcpt;
};

/* A message under way; reset as a whole by tx_reset. */
struct client_tx {
	const struct client_message *m;
	unsigned char *rcpts;  /* enum rcpt_state */
	size_t accepted, open; /* recipients in those states */
	size_t next_rcpt;      /* the next RCPT to issue */
	bool rset, mail, data; /* issued */
	bool mail_ok, dead;    /* dead: no recipient can be accepted any more */
	bool content;          /* the server waits for content */
	bool at_bol, cr;       /* of the dot stuffing */
	bool raw;              /* BDAT */
	uint64_t left;         /* bytes of a BDAT chunk to come */
	bool ended;            /* the end of data was sent */
};

struct client {
	struct client_opts opts;
	char *helo;
	enum client_state state;
	struct buf in, out;
	struct client_reply_reader reader;
	struct client_reply reply; /* the one being handled */
	unsigned replies;          /* that have come */
	enum client_command command;
	bool local;
	char local_text[160];

	unsigned features;
	uint64_t size_limit; /* 0: none */
	char mechanisms[512];
	bool tls_active, authenticated, auth_started;
	struct buf auth_pending, challenge;

	struct expected *queue; /* replies to come, in order */
	size_t queue_at, queue_n, queue_size;
	struct client_tx tx;
	bool needs_rset, eof;
	bool parted;  /* over by a reply to which the server waits for QUIT */
	bool closing; /* 421 after the end of data: over once the results are given out */

	/* events to give out: results first, then one more */
	bool report_all;
	size_t report_next, report_one; /* report_one: SIZE_MAX for none */
	enum client_event_type event;
	enum client_failure failure;
};

void client_expect(struct client *c, enum client_command command, size_t rcpt);
void client_fail(struct client *c, enum client_failure failure);
/* Gives c->reply to every recipient that has no result yet, or to one. */
void client_report(struct client *c, size_t rcpt);
#define REPORT_ALL SIZE_MAX
/* Makes c->reply a reply of our own. */
void client_local_reply(struct client *c, unsigned code, const char *enhanced, const char *text);

/* client_session.c: greeting to ready */
void session_reply(struct client *c);
/* client_tx.c */
void tx_reply(struct client *c, struct expected e);
void tx_advance(struct client *c);
void tx_reset(struct client *c);

#endif
