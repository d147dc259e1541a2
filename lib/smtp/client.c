/*
 * The outbound engine's outer face: bytes in, events out. Runs in smtp-client (bh-client); the
 * server's bytes are hostile. Invariants: a reply is only read when one is expected (or the session
 * is idle, where any reply ends it); events of one reply are given out before the next is read;
 * once STATE_OVER, nothing is read or written.
 */
#include "smtp/client_internal.h"

#include <stdlib.h>

struct client *
client_new(const struct client_opts *opts)
{
	struct client *c = xcalloc(1, sizeof(*c));

	c->opts = *opts;
	c->helo = xstrdup(opts->helo);
	c->tls_active = opts->tls_active;
	buf_init(&c->in, CLIENT_REPLY_TEXT_MAX * 4);
	client_expect(c, CLIENT_CMD_GREETING, 0);
	return c;
}

void
client_free(struct client **client)
{
	struct client *c = *client;

	if (!c)
		return;
	tx_reset(c);
	client_reply_free(&c->reader);
	buf_free(&c->in);
	buf_wipe(&c->out); /* may hold a password */
	buf_wipe(&c->auth_pending);
	buf_wipe(&c->challenge);
	free(c->queue);
	free(c->helo);
	free(c);
	*client = NULL;
}

struct buf *
client_output(struct client *c)
{
	return &c->out;
}

unsigned
client_replies(const struct client *c)
{
	return c->replies;
}

unsigned
client_features(const struct client *c)
{
	return c->features;
}

bool
client_ready(const struct client *c)
{
	return c->state == STATE_READY && c->event == CLIENT_NOTHING;
}

enum client_command
client_waiting(const struct client *c)
{
	if (c->queue_at < c->queue_n)
		return c->queue[c->queue_at].command;
	switch (c->state) {
	case STATE_TLS:
		return CLIENT_CMD_STARTTLS;
	case STATE_AUTH:
		return CLIENT_CMD_AUTH;
	case STATE_TX:
		return c->tx.content ? CLIENT_CMD_CONTENT : CLIENT_CMD_MAIL;
	default:
		return CLIENT_CMD_NONE;
	}
}

const char *
client_command_str(enum client_command command)
{
	static const char *const names[] = {
		[CLIENT_CMD_NONE] = "no command",
		[CLIENT_CMD_GREETING] = "connection",
		[CLIENT_CMD_EHLO] = "EHLO",
		[CLIENT_CMD_HELO] = "HELO",
		[CLIENT_CMD_STARTTLS] = "STARTTLS",
		[CLIENT_CMD_AUTH] = "AUTH",
		[CLIENT_CMD_MAIL] = "MAIL FROM",
		[CLIENT_CMD_RCPT] = "RCPT TO",
		[CLIENT_CMD_DATA] = "DATA",
		[CLIENT_CMD_CONTENT] = "message content",
		[CLIENT_CMD_FINAL] = "end of DATA",
		[CLIENT_CMD_RSET] = "RSET",
		[CLIENT_CMD_QUIT] = "QUIT",
	};

	return names[command];
}

void
client_expect(struct client *c, enum client_command command, size_t rcpt)
{
	if (c->queue_at == c->queue_n)
		c->queue_at = c->queue_n = 0;
	if (c->queue_n == c->queue_size) {
		c->queue_size = c->queue_size ? c->queue_size * 2 : 8;
		c->queue = xrealloc(c->queue, c->queue_size * sizeof(*c->queue));
	}
	c->queue[c->queue_n++] = (struct expected){ command, rcpt };
}

void
client_fail(struct client *c, enum client_failure failure)
{
	/* RFC 5321 3.1: a server that greets with 554 waits for QUIT; 3.8: 421 closes at once. */
	c->parted = (c->state == STATE_SETUP || c->state == STATE_AUTH) && c->reply.code != 421 &&
		    (failure == CLIENT_FAIL_REPLY || failure == CLIENT_FAIL_NO_TLS ||
			failure == CLIENT_FAIL_AUTH);
	c->state = STATE_OVER;
	c->failure = failure;
	c->event = CLIENT_FAILED;
	if (failure == CLIENT_FAIL_LOST || failure == CLIENT_FAIL_PROTOCOL)
		c->reply = (struct client_reply){ 0 };
}

void
client_report(struct client *c, size_t rcpt)
{
	if (rcpt == REPORT_ALL)
		c->report_all = true;
	else
		c->report_one = rcpt + 1;
}

void
client_local_reply(struct client *c, unsigned code, const char *enhanced, const char *text)
{
	c->reply = (struct client_reply){ .code = code, .text = slice_str(text) };
	if (slice_copy(slice_str(enhanced), c->reply.enhanced, sizeof(c->reply.enhanced)))
		c->reply.enhanced[0] = '\0';
	c->local = true;
}

void
client_feed(struct client *c, struct slice bytes)
{
	if (c->state == STATE_OVER)
		return;
	if (c->state == STATE_TLS || buf_add(&c->in, bytes))
		client_fail(c, CLIENT_FAIL_PROTOCOL);
}

void
client_eof(struct client *c)
{
	c->eof = true;
}

void
client_tls_up(struct client *c)
{
	if (c->state != STATE_TLS)
		return;
	c->tls_active = true;
	c->state = STATE_SETUP;
	buf_addf(&c->out, "%s %s\r\n", c->opts.lmtp ? "LHLO" : "EHLO", c->helo);
	client_expect(c, CLIENT_CMD_EHLO, 0);
}

bool
client_quit(struct client *c)
{
	bool idle = c->event == CLIENT_NOTHING && c->queue_at == c->queue_n && !c->eof;

	if (!idle || (c->state != STATE_READY && !(c->state == STATE_OVER && c->parted) &&
			 !(c->state == STATE_AUTH && !c->auth_started)))
		return false;
	c->parted = false;
	buf_add_str(&c->out, "QUIT\r\n");
	client_expect(c, CLIENT_CMD_QUIT, 0);
	c->state = STATE_QUIT;
	return true;
}

/* The next recipient to whom the present reply belongs, SIZE_MAX for none. */
static size_t
next_report(struct client *c)
{
	size_t i;

	if (c->report_one) {
		i = c->report_one - 1;
		c->report_one = 0;
		return i;
	}
	for (i = c->report_next; c->report_all && i < c->tx.m->n; i++)
		if (c->tx.rcpts[i] != RCPT_REPORTED) {
			c->report_next = i + 1;
			return i;
		}
	c->report_all = false;
	c->report_next = 0;
	return SIZE_MAX;
}

static bool
give_result(struct client *c, struct client_event *ev)
{
	size_t i = next_report(c);

	if (i == SIZE_MAX)
		return false;
	if (c->tx.rcpts[i] == RCPT_ACCEPTED)
		c->tx.accepted--;
	else
		c->tx.open--;
	c->tx.rcpts[i] = RCPT_REPORTED;
	ev->rcpt = i;
	ev->address = c->tx.m->rcpts[i].address;
	return true;
}

static enum client_event_type
give_event(struct client *c, struct client_event *ev)
{
	enum client_event_type type = c->event;

	c->event = CLIENT_NOTHING;
	switch (type) {
	case CLIENT_MECHANISMS:
		ev->data = slice_str(c->mechanisms);
		break;
	case CLIENT_CHALLENGE:
		ev->data = buf_slice(&c->challenge);
		break;
	case CLIENT_FAILED:
		ev->failure = c->failure;
		ev->at_end = c->tx.ended;
		tx_reset(c);
		break;
	case CLIENT_DONE:
		tx_reset(c);
		c->state = STATE_READY;
		/* What was said beyond the last reply would be taken for that to the next MAIL, and
		 * each later one for that before it. */
		if (c->closing || buf_len(&c->in))
			client_fail(c, CLIENT_FAIL_REPLY);
		break;
	default:
		break;
	}
	return type;
}

/* Reads one reply and has it handled; false if there is none. */
static bool
take_reply(struct client *c)
{
	struct slice in = buf_slice(&c->in);
	size_t before = in.n;
	struct expected e = { CLIENT_CMD_NONE, 0 };
	int got = client_reply_read(&c->reader, &in, &c->reply);

	buf_consume(&c->in, before - in.n);
	c->local = false;
	if (got < 0) {
		c->command = client_waiting(c);
		client_fail(c, CLIENT_FAIL_PROTOCOL);
		return true;
	}
	if (!got) {
		c->reply = (struct client_reply){ 0 };
		return false;
	}
	c->replies++;
	if (c->queue_at < c->queue_n)
		e = c->queue[c->queue_at++];
	else if (c->tx.content)
		e.command = CLIENT_CMD_CONTENT; /* too early: it gave up before the end */
	c->command = e.command;
	if (c->state == STATE_QUIT) {
		c->state = STATE_OVER;
		c->event = CLIENT_CLOSED;
	} else if (e.command == CLIENT_CMD_NONE || e.command == CLIENT_CMD_CONTENT ||
		   (c->reply.code == 421 && e.command != CLIENT_CMD_FINAL)) {
		client_fail(c, CLIENT_FAIL_REPLY);
	} else if (c->state == STATE_SETUP) {
		session_reply(c);
	} else {
		tx_reply(c, e);
	}
	return true;
}

enum client_event_type
client_next(struct client *c, struct client_event *ev)
{
	for (;;) {
		*ev = (struct client_event){
			.command = c->command, .reply = c->reply, .local = c->local
		};
		if (c->tx.m && give_result(c, ev))
			return CLIENT_RESULT;
		if (c->event == CLIENT_NOTHING && c->state == STATE_TX)
			tx_advance(c);
		if (c->report_all || c->report_one)
			continue;
		if (c->event != CLIENT_NOTHING) {
			ev->command = c->command;
			ev->reply = c->reply;
			return give_event(c, ev);
		}
		if (c->state == STATE_OVER)
			return CLIENT_NOTHING;
		if (c->state != STATE_TLS && c->state != STATE_AUTH && take_reply(c))
			continue;
		if (!c->eof)
			return CLIENT_NOTHING;
		c->command = client_waiting(c);
		c->reply = (struct client_reply){ 0 };
		if (c->state == STATE_QUIT) {
			c->state = STATE_OVER;
			c->event = CLIENT_CLOSED;
		} else {
			client_fail(c, CLIENT_FAIL_LOST);
		}
	}
}
