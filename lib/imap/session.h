/*
 * The IMAP session after login (RFC 9051, RFC 3501): bytes in, bytes out, against a store.
 * imapd-child drives it, one object per connection, all connections of one user in one process:
 *
 *	s = imap_session_new(&config, tag);
 *	n = imap_session_feed(s, bytes);  drop n bytes, keep the rest
 *	while (imap_session_busy(s) and out is below the watermark)
 *		imap_session_run(s), other work between
 *	write imap_session_out(s), consuming it; then feed the rest of the bytes
 *
 * Feed takes no byte while a command is running or the output is above the watermark, so a slow
 * client stops itself and nobody else. No call does network I/O; calls into the store may wait for
 * the disk.
 */
#ifndef IMAP_SESSION_H
#define IMAP_SESSION_H

#include "mail/charset.h"
#include "store/store.h"

struct imap_session_config {
	struct store *store;
	struct charsets *charsets; /* NULL: UTF-8 and US-ASCII only */
	size_t max_command; /* bytes of a command with its literals, but APPEND's; default 65536 */
	size_t max_literal; /* bytes of one literal, but APPEND's; 0: max_command */
	unsigned max_depth; /* nested parentheses of a SEARCH; 0: 50 */
	unsigned max_nesting; /* of MIME parts; deeper ones are leaves; 0: 100 */
	size_t watermark;     /* bytes of output at which FETCH and SEARCH stop; default 65536 */
	uint64_t max_append;  /* bytes of one appended message; 0: no limit */
	unsigned max_errors;  /* BAD replies in a row before BYE; default 20 */
};

struct imap_session;

/* tag: of the command that logged in; its tagged OK is the first output. */
struct imap_session *imap_session_new(const struct imap_session_config *config, struct slice tag);
/* Closes the mailbox; an APPEND under way leaves nothing behind. */
void imap_session_free(struct imap_session **s);

struct buf *imap_session_out(struct imap_session *s);
/* Bytes taken; there may be more that can be taken at once: call again if it took any. */
size_t imap_session_feed(struct imap_session *s, struct slice in);
/* A command is under way: call run. */
bool imap_session_busy(const struct imap_session *s);
/* One bounded step (about 5 ms at most) of the running command. */
void imap_session_run(struct imap_session *s);
/* Nothing more will be said: flush and close. */
bool imap_session_ended(const struct imap_session *s);
/* IDLE is under way. */
bool imap_session_idling(const struct imap_session *s);
/* The store saw a change: an idling session tells its client. */
void imap_session_changed(struct imap_session *s);
/* Keep-alive for an idling client ("* OK Still here"). */
void imap_session_keepalive(struct imap_session *s);
/* Why the session was ended from here, and the parameter whose limit the client met; each may be
 * NULL. */
const char *imap_session_why(const struct imap_session *s, const char **limit_r);
/* Why the store could not do a command since this was last asked, where that is for the admin to
 * hear: the disk, memory, damage; else 0. */
int imap_session_trouble(struct imap_session *s);
/* "* BYE text", and the end. text is a constant. */
void imap_session_bye(struct imap_session *s, const char *text);
/* For the log: the last command's name, and counts. */
struct imap_session_counts {
	uint64_t commands, errors, fetched, appended, expunged;
};
const struct imap_session_counts *imap_session_counts(const struct imap_session *s);

#endif
