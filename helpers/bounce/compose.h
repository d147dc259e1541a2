/*
 * Delivery status notifications: RFC 3464 in the multipart/report of RFC 6522, with the extensions
 * of RFC 6533 for SMTPUTF8. Pure: envelope and content in, one message out.
 */
#ifndef BOUNCE_COMPOSE_H
#define BOUNCE_COMPOSE_H

#include "base/buf.h"
#include "queue/mail.h"

struct notice_rcpt {
	struct slice address, original, orcpt, enhanced, text, remote;
	int64_t last_attempt; /* seconds since the epoch */
};

struct notice {
	enum notice_kind kind;
	bool to_postmaster; /* a copy, or a notice that could not be delivered itself */
	bool undeliverable; /* its sender cannot be told: there is none, or it was refused */
	bool full;          /* return all of content, not just its header */
	bool utf8;          /* the message was SMTPUTF8, so its sender understands RFC 6533 */
	struct slice queue_id, sender, envid; /* envid and orcpt as given: xtext */
	int64_t arrival, expires, now;        /* seconds since the epoch */
	struct slice content;                 /* of the message, as much as there is at hand */
	const struct notice_rcpt *rcpts;
	size_t n_rcpts;
	/* ours */
	const char *hostname, *mail_name;
	struct slice from, to; /* full addresses */
	const char *boundary;
};

/* Appends the notice, lines ending with CRLF. Returns MAIL_8BIT and MAIL_UTF8 as it needs them. */
unsigned int notice_compose(const struct notice *n, struct buf *out);

/* Decodes xtext (RFC 3461 4). ERR_SYNTAX, also for what is not printable ASCII. */
int xtext_decode(struct slice s, struct buf *out) CHECKED;
/* An address in utf-8-addr-xtext (RFC 6533 3), for a reader that takes only ASCII. */
void utf8_addr_xtext(struct slice s, struct buf *out);

#endif
