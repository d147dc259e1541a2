/* The Received field that a receiver puts first into a message (RFC 5321 4.4, RFC 3848). */
#ifndef SMTP_TRACE_H
#define SMTP_TRACE_H

#include "base/buf.h"

struct smtp_trace {
	struct slice hello;   /* the argument of EHLO; empty: left out */
	const char *name;     /* the client's confirmed host name, NULL: "unknown" */
	const char *address;  /* its address as an RFC 5321 literal with brackets; NULL: left out */
	const char *local;    /* instead of hello, name and address: a local user, "userid 1000" */
	const char *tls;      /* "TLSv1.3 with cipher X (256/256 bits)"; NULL: none, or not told */
	const char *hostname; /* ours */
	const char *mail_name;
	const char *with; /* smtp_server_with() */
	const char *id;
	struct slice rcpt; /* the only recipient, else empty: others must not be told */
	int64_t time;
	int zone; /* minutes east */
};

/* Appends the field with its CRLF. */
void smtp_trace_format(struct buf *out, const struct smtp_trace *t);

/* "[192.0.2.1]" or "[IPv6:2001:db8::1]" of an address as text. */
void smtp_trace_literal(const char *address, char out_r[64]);

#endif
