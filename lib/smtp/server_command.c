/*
 * The table of commands, and what a line must be before a handler sees it. Runs in smtpd and
 * submission on hostile input. Invariants: a handler is called only in a state that its row allows
 * and with printable arguments (UTF-8 aside); every line gets exactly one reply.
 */
#include "smtp/server_priv.h"

#define IN(state) (1u << (state))
#define ANY (IN(SMTP_HELLO) | IDLE | IN_TX)
#define IDLE IN(SMTP_READY)
#define IN_TX (IN(SMTP_MAIL) | IN(SMTP_RCPT) | IN(SMTP_CHUNKS))

enum command_flag {
	NO_ARGS = 1,
	LAST = 2,      /* must be the last of a pipelined group (RFC 2920 3.1) */
	JUNK = 4,      /* brings no mail forward */
	NEEDS_TLS = 8, /* where policy requires it */
	NEEDS_AUTH = 16,
	SMTP_ONLY = 32,
	LMTP_ONLY = 64,
	UTF8_ARGS = 128,
};

static const struct command {
	const char *verb;
	unsigned states; /* in the others: 503 */
	unsigned flags;
	smtp_handler *handler;
} commands[] = {
	{ "EHLO", ANY, LAST | JUNK | SMTP_ONLY, smtp_do_ehlo },
	{ "HELO", ANY, LAST | JUNK | SMTP_ONLY, smtp_do_helo },
	{ "LHLO", ANY, LAST | JUNK | LMTP_ONLY, smtp_do_ehlo },
	{ "STARTTLS", IN(SMTP_HELLO) | IDLE, NO_ARGS, smtp_do_starttls },
	{ "AUTH", IDLE, 0, smtp_do_auth },
	{ "MAIL", IN(SMTP_HELLO) | IDLE, NEEDS_TLS | NEEDS_AUTH | UTF8_ARGS, smtp_do_mail },
	{ "RCPT", IN(SMTP_MAIL) | IN(SMTP_RCPT), UTF8_ARGS, smtp_do_rcpt },
	{ "DATA", IN(SMTP_MAIL) | IN(SMTP_RCPT), NO_ARGS | LAST, smtp_do_data },
	{ "BDAT", ANY, 0, smtp_do_bdat },
	{ "RSET", ANY, NO_ARGS | JUNK, smtp_do_rset },
	{ "NOOP", ANY, JUNK | LAST, smtp_do_noop },
	{ "VRFY", ANY, NEEDS_TLS | JUNK | LAST | UTF8_ARGS, smtp_do_vrfy },
	{ "HELP", ANY, JUNK, smtp_do_help },
	{ "QUIT", ANY | IN(SMTP_REFUSED), NO_ARGS, smtp_do_quit },
	{ "EXPN", ANY, JUNK | UTF8_ARGS, smtp_do_no },
	{ "ETRN", ANY, JUNK, smtp_do_no },
	{ "TURN", ANY, JUNK, smtp_do_no },
	{ "SEND", ANY, JUNK, smtp_do_no },
	{ "SOML", ANY, JUNK, smtp_do_no },
	{ "SAML", ANY, JUNK, smtp_do_no },
};

static const struct command *
find_command(struct slice verb)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (slice_caseeq_str(verb, commands[i].verb))
			return &commands[i];
	return NULL;
}

/* RFC 2033 4.1: HELO and EHLO are unknown to LMTP, LHLO to SMTP. */
static bool
belongs(const struct smtp_server *s, const struct command *c)
{
	return !(c->flags & (smtp_is_lmtp(s) ? SMTP_ONLY : LMTP_ONLY));
}

static bool
is_forbidden(const struct smtp_server *s, struct slice verb)
{
	for (size_t i = 0; i < s->policy->forbidden_n; i++)
		if (slice_caseeq(verb, s->policy->forbidden[i]))
			return true;
	return false;
}

static bool
is_printable(struct slice line, bool utf8)
{
	for (size_t i = 0; i < line.n; i++)
		if (line.p[i] < 32 || line.p[i] == 127 || (line.p[i] > 127 && !utf8))
			return false;
	return true;
}

static void
out_of_order(struct smtp_server *s, const struct command *c)
{
	switch (s->state) {
	case SMTP_HELLO:
	case SMTP_READY:
		if (slice_eq_str(slice_str(c->verb), "RCPT"))
			SMTP_SAY(s, 503, "5.5.1", "Error: need MAIL command");
		else if (slice_eq_str(slice_str(c->verb), "DATA"))
			SMTP_SAY(s, 503, "5.5.1", "Error: need RCPT command");
		else
			SMTP_SAY(s, 503, "5.5.1", "Error: send EHLO first");
		return;
	case SMTP_MAIL:
	case SMTP_RCPT:
		if (slice_eq_str(slice_str(c->verb), "MAIL"))
			SMTP_SAY(s, 503, "5.5.1", "Error: nested MAIL command");
		else
			SMTP_SAY(s, 503, "5.5.1", "Error: a mail transaction is in progress");
		return;
	case SMTP_CHUNKS:
		SMTP_SAY(s, 503, "5.5.1", "Error: BDAT is in progress: end it with LAST or RSET");
		return;
	default:
		SMTP_SAY(s, 503, "5.5.1", "Error: this server takes no mail from you");
		return;
	}
}

/* Whatever stands in the way of a known command, in the order in which it is told. */
static bool
is_refused(struct smtp_server *s, const struct command *c, struct slice args)
{
	const struct smtp_policy *p = s->policy;

	if (s->in.n && p->strict_pipelining && s->state != SMTP_REFUSED && c->flags & LAST) {
		SMTP_SAY(
		    s, 554, "5.5.0", "Error: SMTP protocol synchronization: wait for the reply");
		smtp_close(s);
		return true;
	}
	if (c->flags & JUNK && p->junk_command_limit && ++s->junk > p->junk_command_limit)
		s->errors++;
	if (!(c->states & IN(s->state))) {
		out_of_order(s, c);
		return true;
	}
	if (c->flags & NEEDS_TLS && p->tls_required && !s->tls) {
		SMTP_SAY(s, 530, "5.7.0", "Must issue a STARTTLS command first");
		return true;
	}
	if (c->flags & NEEDS_AUTH && p->auth_required && !s->authenticated) {
		SMTP_SAY(s, 530, "5.7.0", "Authentication required");
		return true;
	}
	if (c->flags & NO_ARGS && args.n) {
		SMTP_SAY(s, 501, "5.5.4", "Error: this command takes no arguments");
		return true;
	}
	return false;
}

void
smtp_command(struct smtp_server *s, struct slice line)
{
	struct slice args = line, verb;
	const struct command *c;

	while (args.n && args.p[args.n - 1] == ' ')
		args.n--;
	verb = slice_split(&args, ' ');
	while (args.n && args.p[0] == ' ')
		args = slice_sub(args, 1, args.n);
	if (is_forbidden(s, verb)) {
		SMTP_SAY(s, 500, "5.5.2", "Error: this is an SMTP server. Goodbye.");
		smtp_close(s);
		return;
	}
	c = find_command(verb);
	if (!is_printable(line, c && c->flags & UTF8_ARGS)) {
		SMTP_SAY(s, 500, "5.5.2", "Error: bad octet in the command line");
		return;
	}
	if (line.n + 2 > s->policy->line_limit && (!c || c->handler != smtp_do_auth)) {
		SMTP_SAY_LIMIT(s, 500, "5.5.2", "Error: line too long", "line_length_limit");
		return;
	}
	if (s->state == SMTP_REFUSED && (!c || c->handler != smtp_do_quit)) {
		SMTP_SAY(s, 503, "5.5.1", "Error: this server takes no mail from you");
		return;
	}
	if (!c || !belongs(s, c)) {
		SMTP_SAY(s, 500, "5.5.2", "Error: command not recognized");
		return;
	}
	if (!is_refused(s, c, args))
		c->handler(s, args);
}

/* RSET clears the transaction and nothing else (RFC 5321 4.1.1.5). */
void
smtp_do_rset(struct smtp_server *s, struct slice args)
{
	(void)args;
	if (s->tx.active) {
		smtp_tx_end(s);
		smtp_set_state(s, SMTP_READY);
	}
	SMTP_SAY(s, 250, "2.0.0", "Ok");
}

void
smtp_do_noop(struct smtp_server *s, struct slice args)
{
	(void)args;
	SMTP_SAY(s, 250, "2.0.0", "Ok");
}

void
smtp_do_quit(struct smtp_server *s, struct slice args)
{
	(void)args;
	SMTP_SAY(s, 221, "2.0.0", "Bye");
	smtp_close(s);
}

/* Never says whether a mailbox exists: RCPT does. */
void
smtp_do_vrfy(struct smtp_server *s, struct slice args)
{
	if (s->policy->vrfy_disabled)
		SMTP_SAY(s, 502, "5.5.1", "VRFY command is disabled");
	else if (!args.n)
		SMTP_SAY(s, 501, "5.5.4", "Syntax: VRFY address [SMTPUTF8]");
	else
		SMTP_SAY(
		    s, 252, "2.0.0", "Cannot VRFY user, but will take mail for it if it exists");
}

void
smtp_do_help(struct smtp_server *s, struct slice args)
{
	(void)args;
	SMTP_SAY(s, 214, "2.0.0",
	    "Commands: EHLO HELO LHLO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT\n"
	    "See RFC 5321");
}

void
smtp_do_no(struct smtp_server *s, struct slice args)
{
	(void)args;
	SMTP_SAY(s, 502, "5.5.1", "Error: command not implemented");
}
