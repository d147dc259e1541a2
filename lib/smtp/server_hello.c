/*
 * EHLO, HELO and LHLO. Grammar of RFC 5321 4.1.1.1:
 *   ehlo = "EHLO" SP ( Domain / address-literal ) CRLF
 *   helo = "HELO" SP Domain CRLF
 * The argument is not believed and not looked up; what is kept of it is printable and safe in a
 * Received field. Runs in smtpd and submission on hostile input.
 */
#include "smtp/server_priv.h"

/* Clients send underscores, bare addresses and worse; only what would break a header field or a log
 * line is replaced. */
static bool
keep_argument(struct smtp_server *s, struct slice args)
{
	struct slice name = slice_split(&args, ' ');
	bool literal = !domain_literal_check(name);

	if (!name.n || args.n || name.n > SMTP_HELLO_MAX)
		return false;
	for (size_t i = 0; i < name.n; i++) {
		unsigned char c = name.p[i];
		s->hello[i] = literal || !strchr("()<>@,;\\\"[]", c) ? (char)c : '?';
	}
	s->hello[name.n] = '\0';
	return true;
}

/* Both clear the transaction, as RSET does. */
static bool
begin(struct smtp_server *s, struct slice args, bool esmtp)
{
	if (!keep_argument(s, args)) {
		SMTP_SAY(s, 501, "5.5.4", "Syntax: EHLO hostname");
		return false;
	}
	smtp_tx_end(s);
	s->esmtp = esmtp;
	return true;
}

static void
add_line(struct buf *text, const char *keyword)
{
	buf_add_byte(text, '\n');
	buf_add_str(text, keyword);
}

static void
add_extensions(const struct smtp_server *s, struct buf *text)
{
	const struct smtp_policy *p = s->policy;

	if (smtp_offers(s, SMTP_EXT_PIPELINING))
		add_line(text, "PIPELINING");
	if (smtp_offers(s, SMTP_EXT_SIZE))
		buf_addf(text, p->size_limit ? "\nSIZE %llu" : "\nSIZE",
		    (unsigned long long)p->size_limit);
	if (smtp_offers(s, SMTP_EXT_STARTTLS))
		add_line(text, "STARTTLS");
	if (smtp_offers(s, SMTP_EXT_AUTH))
		buf_addf(text, "\nAUTH %s", s->tls ? p->auth_mechanisms_tls : p->auth_mechanisms);
	if (smtp_offers(s, SMTP_EXT_ENHANCEDSTATUSCODES))
		add_line(text, "ENHANCEDSTATUSCODES");
	if (smtp_offers(s, SMTP_EXT_8BITMIME))
		add_line(text, "8BITMIME");
	if (smtp_offers(s, SMTP_EXT_DSN))
		add_line(text, "DSN");
	if (smtp_offers(s, SMTP_EXT_SMTPUTF8))
		add_line(text, "SMTPUTF8");
	if (smtp_offers(s, SMTP_EXT_CHUNKING))
		add_line(text, "CHUNKING");
	if (smtp_offers(s, SMTP_EXT_BINARYMIME))
		add_line(text, "BINARYMIME");
	add_line(text, "HELP");
}

void
smtp_do_ehlo(struct smtp_server *s, struct slice args)
{
	struct reply r = { .code = 250 };
	struct buf text;

	if (!begin(s, args, true))
		return;
	smtp_set_state(s, SMTP_READY);
	buf_init(&text, 0);
	buf_add_str(&text, s->policy->hostname);
	add_extensions(s, &text);
	r.text = buf_slice(&text);
	smtp_send(s, &r);
	buf_free(&text);
}

void
smtp_do_helo(struct smtp_server *s, struct slice args)
{
	struct reply r = { .code = 250, .text = slice_str(s->policy->hostname) };

	if (!begin(s, args, false))
		return;
	smtp_set_state(s, SMTP_READY);
	smtp_send(s, &r);
}
