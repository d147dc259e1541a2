/*
 * Address lists of RFC 5322 header fields (From, To, Cc ...), obsolete syntax included: for
 * sendmail -t, the IMAP ENVELOPE and sender checks.
 */
#ifndef MAIL_ADDRESS_LIST_H
#define MAIL_ADDRESS_LIST_H

#include "base/arena.h"
#include "base/buf.h"

#include <sys/queue.h>

enum address_kind {
	ADDRESS_MAILBOX,
	ADDRESS_GROUP_START, /* name is the group's name */
	ADDRESS_GROUP_END,
};

struct address_entry {
	STAILQ_ENTRY(address_entry) next;
	enum address_kind kind;
	struct slice name; /* display name unquoted (encoded words as they are), else the comment */
	struct slice route;  /* obsolete source route "@a,@b", without the colon */
	struct slice local;  /* unquoted */
	struct slice domain; /* as written, a literal with its brackets; may be empty */
};

STAILQ_HEAD(address_entries, address_entry);

struct address_list {
	struct address_entries entries;
	size_t count;
	unsigned errors; /* places where the text breaks even the obsolete grammar */
};

/*
 * Parses a field body; CRLF and LF folds are read as white space. Never fails on syntax: what
 * cannot be read is skipped and counted. Entries and their text live in the arena. ERR_LIMIT when
 * there are more than max entries; the list then holds the first max.
 */
int address_list_parse(
    struct slice body, struct arena *arena, size_t max, struct address_list *out_r) CHECKED;

/* Appends the entry's address as an RFC 5321 Mailbox (local-part quoted where needed). */
void address_entry_mailbox(const struct address_entry *e, struct buf *out);

/*
 * Copies a field body to out and completes its bare addresses: "@origin" behind a local part that
 * has no domain, ".domain" behind a domain without a dot; NULL: not. Names, comments, folds and
 * what is no address stay as they are. How many were completed.
 */
unsigned address_complete(
    struct slice body, const char *origin, const char *domain, struct buf *out);

#endif
