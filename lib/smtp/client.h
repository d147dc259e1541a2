/*
 * The outbound SMTP and LMTP engine: one connection, any number of messages, no I/O. The driver
 * feeds what the server sent, asks for events until there are none, and writes the output buffer
 * to the socket (through TLS once it is up). Time limits are the driver's, by client_waiting().
 */
#ifndef SMTP_CLIENT_H
#define SMTP_CLIENT_H

#include "smtp/client_reply.h"

struct client;

struct client_opts {
	const char *helo; /* our name, for EHLO */
	bool lmtp;
	bool tls;          /* STARTTLS where it is offered */
	bool tls_required; /* no envelope and no password without TLS */
	bool tls_active;   /* the connection began inside TLS */
	bool auth; /* ask the driver for a login (CLIENT_MECHANISMS) before the first message */
	bool no_pipelining; /* one command at a time, whatever is offered */
};

/* What the server offered in its last EHLO. */
enum client_feature {
	CLIENT_ESMTP = 1 << 0,
	CLIENT_PIPELINING = 1 << 1,
	CLIENT_SIZE = 1 << 2,
	CLIENT_8BITMIME = 1 << 3,
	CLIENT_SMTPUTF8 = 1 << 4,
	CLIENT_CHUNKING = 1 << 5,
	CLIENT_BINARYMIME = 1 << 6,
	CLIENT_DSN = 1 << 7,
	CLIENT_STARTTLS = 1 << 8,
	CLIENT_AUTH = 1 << 9,
	CLIENT_ENHANCED = 1 << 10,
};

/* The command that a reply answers, or that the engine waits for. */
enum client_command {
	CLIENT_CMD_NONE, /* between messages */
	CLIENT_CMD_GREETING,
	CLIENT_CMD_EHLO,
	CLIENT_CMD_HELO,
	CLIENT_CMD_STARTTLS,
	CLIENT_CMD_AUTH,
	CLIENT_CMD_MAIL,
	CLIENT_CMD_RCPT,
	CLIENT_CMD_DATA,
	CLIENT_CMD_CONTENT, /* the driver is to give content */
	CLIENT_CMD_FINAL,   /* the end of data was sent */
	CLIENT_CMD_RSET,
	CLIENT_CMD_QUIT,
};

enum client_body { CLIENT_BODY_7BIT, CLIENT_BODY_8BIT, CLIENT_BODY_BINARY };
enum client_ret { CLIENT_RET_NONE, CLIENT_RET_FULL, CLIENT_RET_HDRS };
enum client_notify {
	CLIENT_NOTIFY_NEVER = 1 << 0,
	CLIENT_NOTIFY_SUCCESS = 1 << 1,
	CLIENT_NOTIFY_FAILURE = 1 << 2,
	CLIENT_NOTIFY_DELAY = 1 << 3,
};

struct client_rcpt {
	struct slice address; /* an RFC 5321 Mailbox, quoted as needed, no brackets */
	struct slice orcpt;   /* as in ORCPT=, type and xtext; empty: none */
	unsigned notify;      /* CLIENT_NOTIFY_*; 0: none given */
};

/* Borrowed by the engine until CLIENT_DONE or CLIENT_FAILED. */
struct client_message {
	struct slice sender; /* empty: the null reverse-path */
	const struct client_rcpt *rcpts;
	size_t n;      /* at least 1 */
	uint64_t size; /* of the content, exact for CLIENT_BODY_BINARY */
	enum client_body body;
	bool utf8; /* needs SMTPUTF8 */
	enum client_ret ret;
	struct slice envid; /* xtext; empty: none */
};

enum client_event_type {
	CLIENT_NOTHING,    /* until more is fed */
	CLIENT_TLS,        /* do the handshake, then client_tls_up(); feed nothing before */
	CLIENT_MECHANISMS, /* data: what AUTH offers, maybe nothing; answer with client_auth() or
			      client_auth_skip() */
	CLIENT_CHALLENGE,  /* data: decoded; answer with client_auth() or client_auth_cancel() */
	CLIENT_READY,      /* client_send() may be called */
	CLIENT_RESULT,     /* rcpt: the fate of that recipient, by reply and command */
	CLIENT_CONTENT,    /* give the content by client_content() and client_content_end() */
	CLIENT_DONE,       /* every recipient has had its result; the session is ready again */
	CLIENT_FAILED,     /* the session is over; recipients without a result have none */
	CLIENT_CLOSED,     /* the session is over after client_quit() */
};

enum client_failure {
	CLIENT_FAIL_NONE,
	CLIENT_FAIL_REPLY,    /* the server said so: reply, command */
	CLIENT_FAIL_LOST,     /* the connection ended */
	CLIENT_FAIL_PROTOCOL, /* what came is no SMTP, or not what may come here */
	CLIENT_FAIL_NO_TLS,   /* TLS is required and not offered, or refused (reply) */
	CLIENT_FAIL_AUTH,     /* the server refused it (reply) */
};

struct client_event {
	size_t rcpt;
	struct slice address; /* of CLIENT_RESULT: of that recipient, as the message has it */
	enum client_command command; /* that was answered, or under way */
	bool local;  /* the reply is ours: the message cannot be sent to this server */
	bool at_end; /* CLIENT_FAILED after the end of data: the server may have the message */
	enum client_failure failure;
	struct client_reply reply; /* code 0: none; valid until the next call on the client */
	struct slice data;
};

/* The session begins with the wait for the greeting. opts is copied. */
struct client *client_new(const struct client_opts *opts);
void client_free(struct client **client);

/* Bytes from the server, any number. */
void client_feed(struct client *c, struct slice bytes);
/* The connection has ended (or the driver's time limit did it). */
void client_eof(struct client *c);
enum client_event_type client_next(struct client *c, struct client_event *event_r);
/* What is to be written; the driver consumes it. */
struct buf *client_output(struct client *c);

/* TLS is up: the session starts over with EHLO. */
void client_tls_up(struct client *c);
/* The first answer names the mechanism and may carry an initial response; later ones pass NULL. */
void client_auth(struct client *c, const char *mechanism, bool has_data, struct slice data);
/* No login: the session is ready as it is. */
void client_auth_skip(struct client *c);
/* The exchange cannot go on: the server's refusal ends the session with CLIENT_FAIL_AUTH. */
void client_auth_cancel(struct client *c);

/* Starts a message; ERR_STATE unless the session is ready for one. */
int client_send(struct client *c, const struct client_message *message) CHECKED;
/* Content with CRLF lines and no dots stuffed, in pieces; a bare LF becomes CRLF, a bare CR a space
 * (binary content goes as it is). The output buffer grows with it: the driver writes in between. */
void client_content(struct client *c, struct slice piece);
void client_content_end(struct client *c);
/* Says QUIT (RFC 5321 3.8); CLIENT_CLOSED follows. Also after a failure that was the server's reply
 * to a command before the first message. False: nothing may be said, the driver just closes. */
bool client_quit(struct client *c) CHECKED;

/* True when client_send() may be called. */
bool client_ready(const struct client *c);
enum client_command client_waiting(const struct client *c);
/* How many whole replies have come. */
unsigned client_replies(const struct client *c);
unsigned client_features(const struct client *c);
/* "RCPT TO" and the like, as a text for "in reply to"; constant. */
const char *client_command_str(enum client_command command);

#endif
