/*
 * One message on a ready session: MAIL, RCPT, DATA or BDAT, in one group where the server has
 * PIPELINING (RFC 2920), step by step elsewhere; results per recipient. Part of the outbound engine
 * (see client.c). Invariants: a recipient gets exactly one result; nothing reaches the output that
 * could end a command line early; content is only asked for when a recipient was accepted; every
 * command that was issued has its reply in the queue.
 */
#include "smtp/client_internal.h"

#include "mail/domain.h"

#include <stdio.h>
#include <stdlib.h>

enum { ADDRESS_LENGTH_MAX = 1000, PARAMETER_LENGTH_MAX = 1000 };

void
tx_reset(struct client *c)
{
	free(c->tx.rcpts);
	c->tx = (struct client_tx){ 0 };
	c->report_all = false;
	c->report_one = c->report_next = 0;
}

static void
fail_all(struct client *c, unsigned code, const char *enhanced, const char *text)
{
	client_local_reply(c, code, enhanced, text);
	c->command = CLIENT_CMD_MAIL;
	c->tx.dead = true;
	client_report(c, REPORT_ALL);
}

/* No control character, and nothing outside a quoted string that could end the path. */
static bool
address_is_safe(struct slice s)
{
	bool quoted = false;

	if (s.n > ADDRESS_LENGTH_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		unsigned char ch = s.p[i];

		if (ch < ' ' || ch == 0x7f)
			return false;
		if (quoted && ch == '\\') {
			if (++i == s.n || s.p[i] < ' ' || s.p[i] == 0x7f)
				return false;
			continue;
		}
		if (ch == '"')
			quoted = !quoted;
		else if (!quoted && (ch == ' ' || ch == '<' || ch == '>' || ch == '\\'))
			return false;
	}
	return !quoted;
}

/* ENVID and ORCPT: printable ASCII without a space (xtext), else they are left out. */
static bool
parameter_is_safe(struct slice s)
{
	if (!s.n || s.n > PARAMETER_LENGTH_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= ' ' || s.p[i] >= 0x7f)
			return false;
	return true;
}

/* What this server cannot take at all. */
static void
check_message(struct client *c)
{
	const struct client_message *m = c->tx.m;
	unsigned f = c->features;

	if (!address_is_safe(m->sender))
		fail_all(c, 553, "5.1.7", "sender address cannot be sent over SMTP");
	else if ((m->utf8 || !slice_is_ascii(m->sender)) && !(f & CLIENT_SMTPUTF8))
		fail_all(c, 553, "5.6.7",
		    "message or addresses need SMTPUTF8, which the server does not offer");
	else if (m->body == CLIENT_BODY_BINARY && (f & (CLIENT_BINARYMIME | CLIENT_CHUNKING)) !=
						      (CLIENT_BINARYMIME | CLIENT_CHUNKING))
		fail_all(
		    c, 554, "5.6.3", "message is BODY=BINARYMIME, which the server does not offer");
	else if (m->body == CLIENT_BODY_8BIT && !(f & CLIENT_8BITMIME))
		fail_all(c, 554, "5.6.3",
		    "message has 8-bit content, and the server does not offer 8BITMIME");
	else if (c->size_limit && m->size > c->size_limit) {
		snprintf(c->local_text, sizeof(c->local_text),
		    "message of %llu bytes exceeds the server's size limit of %llu bytes",
		    (unsigned long long)m->size, (unsigned long long)c->size_limit);
		fail_all(c, 552, "5.3.4", c->local_text);
	}
}

int
client_send(struct client *c, const struct client_message *m)
{
	if (!client_ready(c) || !m->n)
		return ERR_STATE;
	c->state = STATE_TX;
	c->tx.m = m;
	c->tx.rcpts = xcalloc(m->n, 1);
	c->tx.open = m->n;
	c->tx.raw = m->body == CLIENT_BODY_BINARY;
	check_message(c);
	return 0;
}

static void
issue_mail(struct client *c)
{
	const struct client_message *m = c->tx.m;
	struct buf *out = &c->out;
	unsigned f = c->features;

	buf_add_str(out, "MAIL FROM:<");
	buf_add(out, m->sender);
	buf_add_byte(out, '>');
	if (f & CLIENT_SIZE)
		buf_addf(out, " SIZE=%llu", (unsigned long long)m->size);
	if (m->body == CLIENT_BODY_BINARY)
		buf_add_str(out, " BODY=BINARYMIME");
	else if (m->body == CLIENT_BODY_8BIT)
		buf_add_str(out, " BODY=8BITMIME");
	if (f & CLIENT_SMTPUTF8 && (m->utf8 || !slice_is_ascii(m->sender)))
		buf_add_str(out, " SMTPUTF8");
	if (f & CLIENT_DSN && m->ret != CLIENT_RET_NONE)
		buf_addf(out, " RET=%s", m->ret == CLIENT_RET_FULL ? "FULL" : "HDRS");
	if (f & CLIENT_DSN && parameter_is_safe(m->envid)) {
		buf_add_str(out, " ENVID=");
		buf_add(out, m->envid);
	}
	buf_add_str(out, "\r\n");
	client_expect(c, CLIENT_CMD_MAIL, 0);
	c->tx.mail = true;
}

static void
add_notify(struct buf *out, unsigned notify)
{
	static const struct {
		unsigned bit;
		const char *word;
	} words[] = { { CLIENT_NOTIFY_SUCCESS, "SUCCESS" }, { CLIENT_NOTIFY_FAILURE, "FAILURE" },
		{ CLIENT_NOTIFY_DELAY, "DELAY" } };
	const char *sep = " NOTIFY=";

	if (notify & CLIENT_NOTIFY_NEVER) {
		buf_add_str(out, " NOTIFY=NEVER");
		return;
	}
	for (size_t i = 0; i < 3; i++)
		if (notify & words[i].bit) {
			buf_addf(out, "%s%s", sep, words[i].word);
			sep = ",";
		}
}

/* False: this recipient cannot be sent, and has its reply. */
static bool
issue_rcpt(struct client *c, size_t i)
{
	const struct client_rcpt *r = &c->tx.m->rcpts[i];
	const char *enhanced = NULL, *text = NULL;

	if (!r->address.n || !address_is_safe(r->address)) {
		enhanced = "5.1.3";
		text = "recipient address cannot be sent over SMTP";
	} else if (!slice_is_ascii(r->address) && !(c->features & CLIENT_SMTPUTF8)) {
		enhanced = "5.6.7";
		text = "recipient address needs SMTPUTF8, which the server does not offer";
	}
	if (text) {
		client_local_reply(c, 553, enhanced, text);
		c->command = CLIENT_CMD_RCPT;
		client_report(c, i);
		return false;
	}
	buf_add_str(&c->out, "RCPT TO:<");
	buf_add(&c->out, r->address);
	buf_add_byte(&c->out, '>');
	if (c->features & CLIENT_DSN) {
		add_notify(&c->out, r->notify);
		if (parameter_is_safe(r->orcpt)) {
			buf_add_str(&c->out, " ORCPT=");
			buf_add(&c->out, r->orcpt);
		}
	}
	buf_add_str(&c->out, "\r\n");
	client_expect(c, CLIENT_CMD_RCPT, i);
	return true;
}

static void
begin_content(struct client *c)
{
	c->tx.content = true;
	c->tx.at_bol = true;
	c->tx.left = c->tx.m->size;
	c->event = CLIENT_CONTENT;
}

/* After the envelope, all replies in: BDAT needs no reply before its bytes (RFC 3030 2). */
static void
issue_bdat(struct client *c)
{
	buf_addf(&c->out, "BDAT %llu LAST\r\n", (unsigned long long)c->tx.m->size);
	c->tx.data = true;
	begin_content(c);
}

static void
finish(struct client *c)
{
	if (c->tx.mail_ok && !c->tx.ended)
		c->needs_rset = true;
	c->event = CLIENT_DONE;
}

/* Issues what may go out now: everything up to DATA with PIPELINING, else one command. */
void
tx_advance(struct client *c)
{
	struct client_tx *tx = &c->tx;
	bool group = c->features & CLIENT_PIPELINING && !c->opts.no_pipelining;

	while (!tx->dead && !tx->data && !tx->ended) {
		if (c->queue_at < c->queue_n && !group)
			return;
		if (c->needs_rset && !tx->rset) {
			tx->rset = true;
			buf_add_str(&c->out, "RSET\r\n");
			client_expect(c, CLIENT_CMD_RSET, 0);
		} else if (!tx->mail) {
			issue_mail(c);
		} else if (tx->next_rcpt < tx->m->n) {
			if (!issue_rcpt(c, tx->next_rcpt++))
				return; /* its result first */
		} else if (!tx->accepted && !tx->open) {
			tx->dead = true; /* nobody is left */
		} else if (tx->raw) {
			if (c->queue_at < c->queue_n)
				return;
			issue_bdat(c);
			return;
		} else {
			tx->data = true;
			buf_add_str(&c->out, "DATA\r\n");
			client_expect(c, CLIENT_CMD_DATA, 0);
		}
	}
	if (c->queue_at == c->queue_n && !tx->content)
		finish(c);
}

static void
rcpt_reply(struct client *c, size_t i)
{
	if (c->tx.dead || c->tx.rcpts[i] != RCPT_OPEN)
		return;
	if (c->reply.code / 100 == 2) {
		c->tx.rcpts[i] = RCPT_ACCEPTED;
		c->tx.open--;
		c->tx.accepted++;
		return;
	}
	/* RFC 5321 4.5.3.1.10: 552 was once the code for too many recipients */
	if (c->reply.code == 552 &&
	    (!c->reply.enhanced[0] || !strcmp(c->reply.enhanced, "5.5.3"))) {
		c->reply.code = 452;
		if (c->reply.enhanced[0])
			c->reply.enhanced[0] = '4';
	}
	client_report(c, i);
}

static void
data_reply(struct client *c)
{
	struct client_tx *tx = &c->tx;

	if (c->reply.code != 354) {
		if (c->reply.code / 100 < 4)
			client_fail(c, CLIENT_FAIL_PROTOCOL);
		else if (!tx->dead && tx->accepted)
			client_report(c, REPORT_ALL);
		tx->dead = true;
		return;
	}
	if (tx->accepted && !tx->dead) {
		begin_content(c);
		return;
	}
	/* RFC 2920 3.1: the server waits for content though nobody is to get it; an LMTP server
	 * would owe no reply to the end of it, so there the session cannot go on */
	if (c->opts.lmtp) {
		client_fail(c, CLIENT_FAIL_PROTOCOL);
		return;
	}
	buf_add_str(&c->out, ".\r\n");
	tx->ended = tx->dead = true;
	client_expect(c, CLIENT_CMD_FINAL, 0);
}

static void
final_reply(struct client *c, size_t rcpt)
{
	if (c->reply.code == 421)
		c->closing = true;
	if (c->tx.dead && !c->tx.accepted)
		return; /* of a message without recipients */
	if (c->reply.code / 100 == 3)
		client_fail(c, CLIENT_FAIL_PROTOCOL);
	else
		client_report(c, c->opts.lmtp ? rcpt : REPORT_ALL);
}

void
tx_reply(struct client *c, struct expected e)
{
	switch (e.command) {
	case CLIENT_CMD_RSET:
		if (c->reply.code / 100 != 2)
			client_fail(c, CLIENT_FAIL_PROTOCOL);
		c->needs_rset = false;
		break;
	case CLIENT_CMD_MAIL:
		if (c->reply.code / 100 == 2) {
			c->tx.mail_ok = true;
		} else {
			c->tx.dead = true;
			client_report(c, REPORT_ALL);
		}
		break;
	case CLIENT_CMD_RCPT:
		rcpt_reply(c, e.rcpt);
		break;
	case CLIENT_CMD_DATA:
		data_reply(c);
		break;
	case CLIENT_CMD_FINAL:
		final_reply(c, e.rcpt);
		break;
	default:
		client_fail(c, CLIENT_FAIL_PROTOCOL);
		break;
	}
}

/* Adds the run of bytes since from, then what replaces or follows it. */
static void
flush_run(struct buf *out, const unsigned char *from, const unsigned char *to, const char *then)
{
	buf_add(out, slice(from, (size_t)(to - from)));
	buf_add_str(out, then);
}

/* RFC 5321 4.5.2, and only CRLF ends a line: runs that need no change are copied as they are. */
static void
stuff(struct client *c, struct slice in)
{
	const unsigned char *p = in.p, *end = in.p + in.n, *from = p, *lf, *cr;
	struct client_tx *tx = &c->tx;

	if (in.n && tx->cr) { /* a CR ended the last piece */
		tx->cr = false;
		tx->at_bol = *p == '\n';
		buf_add_str(&c->out, tx->at_bol ? "\r\n" : " ");
		from = p += tx->at_bol;
	}
	while (p < end) {
		if (tx->at_bol && *p == '.') {
			flush_run(&c->out, from, p, ".");
			from = p;
		}
		lf = memchr(p, '\n', (size_t)(end - p));
		cr = memchr(p, '\r', (size_t)((lf ? lf : end) - p));
		if (cr && lf && cr + 1 == lf) {
			p = lf + 1;
			tx->at_bol = true;
		} else if (cr) {
			tx->at_bol = false;
			tx->cr = cr + 1 == end; /* what it means, the next piece will tell */
			flush_run(&c->out, from, cr, tx->cr ? "" : " ");
			from = p = cr + 1;
		} else if (lf) {
			flush_run(&c->out, from, lf, "\r\n");
			from = p = lf + 1;
			tx->at_bol = true;
		} else {
			tx->at_bol = false;
			p = end;
		}
	}
	flush_run(&c->out, from, end, "");
}

void
client_content(struct client *c, struct slice piece)
{
	if (c->state != STATE_TX || !c->tx.content)
		return;
	if (!c->tx.raw) {
		stuff(c, piece);
		return;
	}
	if (piece.n >
	    c->tx.left) { /* the chunk's size stands in the command: a bug of the driver */
		client_fail(c, CLIENT_FAIL_PROTOCOL);
		return;
	}
	c->tx.left -= piece.n;
	buf_add(&c->out, piece);
}

void
client_content_end(struct client *c)
{
	struct client_tx *tx = &c->tx;

	if (c->state != STATE_TX || !tx->content)
		return;
	tx->content = false;
	if (tx->raw && tx->left) {
		client_fail(c, CLIENT_FAIL_PROTOCOL);
		return;
	}
	if (!tx->raw) {
		if (tx->cr)
			buf_add_byte(&c->out, ' ');
		buf_add_str(&c->out, tx->at_bol && !tx->cr ? ".\r\n" : "\r\n.\r\n");
	}
	tx->ended = true;
	if (!c->opts.lmtp) {
		client_expect(c, CLIENT_CMD_FINAL, 0);
		return;
	}
	for (size_t i = 0; i < tx->m->n; i++)
		if (tx->rcpts[i] == RCPT_ACCEPTED)
			client_expect(c, CLIENT_CMD_FINAL, i);
}
