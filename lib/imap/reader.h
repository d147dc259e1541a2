/*
 * Cuts the client's bytes into IMAP commands: lines, and the literals that continue them
 * (RFC 9051 section 4.3, RFC 7888). One reader serves the dialogue before login and the session.
 */
#ifndef IMAP_READER_H
#define IMAP_READER_H

#include "base/buf.h"

enum imap_read {
	IMAP_READ_MORE,     /* all bytes taken, the command is not complete */
	IMAP_READ_COMMAND,  /* reader->cmd holds a whole command without its last line end */
	IMAP_READ_LITERAL,  /* reader->cmd ends with a literal's announcement and its line end: call
			       accept, stream or reject before the next feed */
	IMAP_READ_TOO_LONG, /* over max_command: call reject (drops the rest of the command) */
	IMAP_READ_FLOOD,    /* more than max_skip bytes of a rejected command: hang up */
};

struct imap_reader {
	struct buf cmd;
	size_t max_command;    /* bytes of text and accepted literals of one command */
	uint64_t max_skip;     /* bytes dropped after a reject */
	uint64_t literal_size; /* of the literal announced last */
	bool literal_sync;     /* the client waits for "+" */
	bool literal_binary;   /* literal8: ~{n} */
	int state;             /* enum reader_state, private */
	uint64_t left, skipped;
	size_t line; /* offset in cmd of the present text line */
	bool quoted, escaped;
};

void imap_reader_init(struct imap_reader *r, size_t max_command, uint64_t max_skip);
void imap_reader_free(struct imap_reader *r);

/* Takes bytes up to the next event and returns how many. A line ends with CRLF; a bare LF is taken
 * as a line end too, since no boundary between messages depends on it. */
size_t imap_reader_feed(struct imap_reader *r, struct slice in, enum imap_read *event_r);

/* After IMAP_READ_LITERAL: take it into cmd. ERR_LIMIT if it does not fit max_command: then
 * reject. */
int imap_reader_accept(struct imap_reader *r) CHECKED;
/* After IMAP_READ_LITERAL: the caller takes literal_size bytes off the input itself, then feeds the
 * reader again; cmd keeps the text without the literal's bytes. */
void imap_reader_stream(struct imap_reader *r);
/* Drops the command. A synchronising literal will not come (the tagged answer ends the command),
 * the rest of a line and a non-synchronising one are skipped. */
void imap_reader_reject(struct imap_reader *r);
/* After IMAP_READ_COMMAND: ready for the next one. */
void imap_reader_next(struct imap_reader *r);

#endif
