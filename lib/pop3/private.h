/* What the files of the engine share; private to lib/pop3. */
#ifndef POP3_PRIVATE_H
#define POP3_PRIVATE_H

#include "pop3/engine.h"

enum task {
	TASK_NONE,
	TASK_LIST,
	TASK_UIDL,
	TASK_MESSAGE, /* RETR, TOP */
};

struct pop3_engine {
	const struct pop3_drop_ops *ops;
	void *drop;
	struct pop3_engine_limits limits;
	uint32_t count;
	unsigned char *marks;
	struct buf line, out, mechanisms;
	bool closed;
	unsigned errors;
	const char *why, *limit; /* of the end, for the log */

	enum task task;
	uint32_t at; /* LIST, UIDL: next message */
	void *content;
	uint64_t offset;
	bool top;       /* only the header and .. */
	uint64_t lines; /* .. so many lines of the body */
	bool in_body;
	unsigned char last; /* byte of the message that was written */
	unsigned column;    /* bytes on this line so far, at most 2 */
};

/* Appends a line. */
void pop3_put(struct pop3_engine *e, const char *text);
/* Ends the answer under way, whole or not. */
void pop3_end_task(struct pop3_engine *e);
/* answer.c: writes on up to the watermark. */
void pop3_step(struct pop3_engine *e);

#endif
