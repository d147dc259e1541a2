/*
 * Received fields. Runs in receivers; the client's name and EHLO argument are hostile but come here
 * printable and without comment characters (server_hello.c, lib/dns). Invariant: the field ends in
 * one CRLF and holds no line end that is not a fold.
 */
#include "smtp/trace.h"

#include "mail/date.h"

#include <stdio.h>

void
smtp_trace_literal(const char *address, char out_r[64])
{
	snprintf(out_r, 64, strchr(address, ':') ? "[IPv6:%s]" : "[%s]", address);
}

static void
add_safe(struct buf *out, struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		buf_add_byte(out, s.p[i] > 32 && s.p[i] != 127 ? s.p[i] : '?');
}

static void
add_client(struct buf *out, const struct smtp_trace *t)
{
	if (t->local) {
		buf_addf(out, "by %s (%s, from %s)", t->hostname, t->mail_name, t->local);
		return;
	}
	if (t->hello.n) {
		buf_add_str(out, "from ");
		add_safe(out, t->hello);
		if (t->address) {
			buf_add_str(out, " (");
			add_safe(out, slice_str(t->name ? t->name : "unknown"));
			buf_addf(out, " %s)", t->address);
		}
		buf_add_str(out, "\r\n\t");
	}
	if (t->tls)
		buf_addf(out, "(using %s)\r\n\t", t->tls);
	buf_addf(out, "by %s (%s) with %s", t->hostname, t->mail_name, t->with);
}

void
smtp_trace_format(struct buf *out, const struct smtp_trace *t)
{
	char date[DATE_BUF_SIZE];

	date_format(t->time, t->zone, date);
	buf_add_str(out, "Received: ");
	add_client(out, t);
	buf_addf(out, " id %s", t->id);
	if (t->rcpt.n) {
		buf_add_str(out, "\r\n\tfor <");
		add_safe(out, t->rcpt);
		buf_add_byte(out, '>');
	}
	buf_addf(out, ";\r\n\t%s\r\n", date);
}
