/*
 * Domain names as mail uses them: RFC 5321 Domain, address literals, IDNA2008 (RFC 5890-5893)
 * through libidn2.
 */
#ifndef MAIL_DOMAIN_H
#define MAIL_DOMAIN_H

#include "base/slice.h"

/* Octets without a final dot. RFC 5321 says 255, but that counts the DNS encoding: a longer name
 * cannot be looked up. */
#define DOMAIN_MAX 253
#define DOMAIN_BUF_SIZE 256 /* for a domain as a C string */

/*
 * RFC 5321 Domain: sub-domains of letters, digits, hyphen inside, and underscore (not in the
 * grammar, but in use), each at most 63 octets, no final dot. With utf8 also U-labels, which must
 * convert to A-labels. ERR_SYNTAX or ERR_LIMIT.
 */
int domain_check(struct slice s, bool utf8) CHECKED;

/* "[1.2.3.4]" or "[IPv6:...]", brackets included. ERR_SYNTAX for anything else, unknown tags too.
 */
int domain_literal_check(struct slice s) CHECKED;
/* The address of a checked literal: family AF_INET or AF_INET6, and its 4 or 16 octets. */
int domain_literal_address(struct slice s, int *family_r, unsigned char out_r[16]) CHECKED;

/* The lower-case A-label form. Non-transitional UTS 46 mapping, NFC and joiner checks as libidn2
 * has them, and the bidi rule of RFC 5893. ERR_SYNTAX if the name is not valid IDNA2008, ERR_LIMIT
 * if it is too long. */
int domain_to_ascii(struct slice s, char out_r[DOMAIN_BUF_SIZE]) CHECKED;

/* Whether the bytes are well-formed UTF-8 without NUL. */
bool utf8_valid(struct slice s);
/* Whether valid UTF-8 holds a control character, of C0 or C1: terminals obey both. */
bool utf8_has_control(struct slice s);
bool slice_is_ascii(struct slice s);

#endif
