/*
 * Terminals and small productions of the IMAP grammar (RFC 9051 section 9, RFC 3501 section 9) over
 * one whole command as the reader assembled it. The first failure sticks: every later call fails
 * too, so callers parse straight on and look at p->why once.
 */
#ifndef IMAP_PARSE_H
#define IMAP_PARSE_H

#include "base/arena.h"

struct imap_parse {
	struct slice in;
	size_t at;
	const char *why;     /* NULL, or what was expected: text for the BAD reply */
	struct arena *arena; /* owns unescaped strings and lists */
};

/* A message set: ranges as written, 0 stands for "*". */
struct imap_range {
	uint32_t from, to;
};
struct imap_set {
	struct imap_range *ranges;
	size_t n;
	bool saved; /* "$", the result of the last SEARCH RETURN (SAVE) */
};

struct imap_parse imap_parse(struct slice in, struct arena *arena);
/* Fails with a reason, keeping an earlier one; always returns false. */
bool imap_fail(struct imap_parse *p, const char *why);
bool imap_at_end(const struct imap_parse *p);
/* Fails unless everything was consumed. */
bool imap_end(struct imap_parse *p);
/* The next byte, or -1 at the end. */
int imap_peek(const struct imap_parse *p);
/* Consumes c if it comes next; a failed parse has nothing next. */
bool imap_try(struct imap_parse *p, unsigned char c);
/* Consumes a keyword, case-insensitively, if it comes next and an atom ends there. */
bool imap_try_word(struct imap_parse *p, const char *word);
/* Consumes this text, case-insensitively, whatever follows. */
bool imap_try_text(struct imap_parse *p, const char *text);
bool imap_need(struct imap_parse *p, unsigned char c);
bool imap_sp(struct imap_parse *p);

bool imap_tag(struct imap_parse *p, struct slice *out_r);
bool imap_atom(struct imap_parse *p, struct slice *out_r);
/* Quoted or literal; literal8 only where binary_r is given. NUL is refused but in a literal8. */
bool imap_astring(struct imap_parse *p, struct slice *out_r);
/* list-mailbox: like astring, with the wildcards % and *. */
bool imap_list_mailbox(struct imap_parse *p, struct slice *out_r);
bool imap_nz_number(struct imap_parse *p, uint32_t *out_r);
bool imap_number64(struct imap_parse *p, uint64_t *out_r);
bool imap_set(struct imap_parse *p, struct imap_set *out_r);
/* date: 1-Feb-1994, quoted or not, as days since 1970-01-01. */
bool imap_date(struct imap_parse *p, int64_t *days_r);
/* date-time: seconds since the epoch, and the zone in minutes. */
bool imap_date_time(struct imap_parse *p, int64_t *time_r, int *zone_r);
/* A flag or keyword as an atom with an optional "\". */
bool imap_flag(struct imap_parse *p, struct slice *out_r);
/* id-params-list: NIL, or up to 30 pairs of string and nstring (RFC 2971); the values are dropped.
 */
bool imap_id_params(struct imap_parse *p);

#endif
