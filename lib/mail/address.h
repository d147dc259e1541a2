/*
 * Envelope addresses: RFC 5321 4.1.2 Mailbox and Path with RFC 6531's additions.
 */
#ifndef MAIL_ADDRESS_H
#define MAIL_ADDRESS_H

#include "base/buf.h"
#include "mail/domain.h"

/* RFC 5321 4.5.3.1 guarantees 64 and 256; longer local-parts (VERP, SRS) are in use, so these are
 * what the suite takes. */
#define ADDRESS_LOCAL_MAX 256
#define ADDRESS_MAX (ADDRESS_LOCAL_MAX + 1 + DOMAIN_MAX)
#define ADDRESS_BUF_SIZE (ADDRESS_MAX + 1)

enum address_flag {
	ADDRESS_UTF8 = 1,        /* RFC 6531: UTF-8 in both parts */
	ADDRESS_NO_DOMAIN = 2,   /* a local-part alone is enough (<Postmaster>, sendmail(1)) */
	ADDRESS_RFC_LENGTHS = 4, /* 64 octets of local-part, 254 in all */
};

/* Borrowed from the parsed text. An empty struct is the null reverse-path. */
struct address {
	struct slice local;  /* as written, quotes included */
	struct slice domain; /* as written; a literal with its brackets; empty if there is none */
	bool quoted, literal;
	bool utf8; /* holds a non-ASCII octet */
};

/* The whole of s must be a Mailbox. ERR_SYNTAX, ERR_LIMIT, or ERR_DENIED for non-ASCII text where
 * ADDRESS_UTF8 is not given. */
int address_parse(struct slice s, unsigned flags, struct address *out_r) CHECKED;

/*
 * A Path at the head of *s: "<" [source route ":"] Mailbox ">" or "<>"; *s is moved behind it. The
 * source route is checked and dropped. An address without brackets ends at SP (not in the grammar,
 * but common). Errors as above.
 */
int address_parse_path(struct slice *s, unsigned flags, struct address *out_r) CHECKED;

static inline bool
address_is_null(const struct address *a)
{
	return !a->local.n && !a->domain.n;
}

/* The local-part without its quoting (RFC 5321 4.1.2: all quoted forms are equivalent). */
void address_local(const struct address *a, struct buf *out);

/* Appends the local-part text with the least quoting that it needs. */
void address_quote_local(struct slice local, struct buf *out);

/*
 * The form in which an address travels inside the suite: local-part with least quoting (NFC),
 * lower-case A-label domain. The null path gives nothing. Errors as domain_to_ascii, and ERR_LIMIT
 * for a local-part that NFC makes too long; then nothing is appended.
 */
int address_canonical(const struct address *a, struct buf *out) CHECKED;

/* Parses and canonicalises into a C string. */
int address_normalise(struct slice s, unsigned flags, char out_r[ADDRESS_BUF_SIZE]) CHECKED;

/* RFC 5322 atext, and with utf8 every octet above 127. */
bool address_is_atext(unsigned char c, bool utf8);

#endif
