/*
 * POP3 after login (RFC 1939 section 5 and 6, RFC 2449), as a pure state machine over a maildrop
 * that the driver gives. The driver:
 *
 *	e = pop3_engine_new(&ops, drop, &limits); pop3_engine_start(e);
 *	loop: write pop3_engine_out(e); n = pop3_engine_feed(e, bytes); drop n bytes;
 *	      when the output has drained, feed again (with nothing) while pop3_engine_busy(e);
 *	      when pop3_engine_closed(e) and the output is written: close.
 *
 * The engine takes no command while its output is above the watermark, and long answers (RETR, TOP,
 * LIST, UIDL) stop there: memory is bounded whatever the client does.
 */
#ifndef POP3_ENGINE_H
#define POP3_ENGINE_H

#include "base/buf.h"

enum {
	POP3_WATERMARK = 65536,
	POP3_COMMAND_MAX = 255, /* with CRLF: RFC 2449 section 4 */
};

/* The maildrop of one session: messages 0 to count-1, fixed for the session. All may block on disk.
 */
struct pop3_drop_ops {
	uint32_t (*count)(void *drop);
	/* Octets with CRLF line ends. Any error: the message is not there any more. */
	int (*size)(void *drop, uint32_t i, uint64_t *out_r);
	/* The same for the whole session, whether the message is there still or not. */
	void (*uidl)(void *drop, uint32_t i, struct buf *out);
	int (*open)(void *drop, uint32_t i, void **content_r);
	ptrdiff_t (*read)(void *content, uint64_t offset, void *out, size_t n);
	void (*close)(void *content);
	/* QUIT: removes the marked messages and notes the retrieved ones as seen. An error: not all
	 * were removed. */
	int (*update)(void *drop, const unsigned char *marks);
};
#define POP3_MARK_DELETED 1
#define POP3_MARK_RETRIEVED 2

struct pop3_engine_limits {
	unsigned max_errors; /* bad commands before the end; default 20 */
};

struct pop3_engine;

struct pop3_engine *pop3_engine_new(
    const struct pop3_drop_ops *ops, void *drop, const struct pop3_engine_limits *limits);
/* Closes an open content; the maildrop is the caller's. Nothing is removed but by QUIT. */
void pop3_engine_free(struct pop3_engine **e);
/* Answers the login. mechanisms: as CAPA told them before it. */
void pop3_engine_start(struct pop3_engine *e, struct slice mechanisms);
struct buf *pop3_engine_out(struct pop3_engine *e);
/* Takes bytes of the client, at most all; goes on with a long answer first. */
size_t pop3_engine_feed(struct pop3_engine *e, struct slice in);
/* A long answer is under way. */
bool pop3_engine_busy(const struct pop3_engine *e);
bool pop3_engine_closed(const struct pop3_engine *e);
/* Why it was ended from here, and the parameter whose limit the client met; each may be NULL. */
const char *pop3_engine_why(const struct pop3_engine *e, const char **limit_r);
/* Queues -ERR text (a constant), then it is closed: time-out, shutdown. Not within a long answer:
 * then it is only closed. */
void pop3_engine_bye(struct pop3_engine *e, const char *text);

#endif
