/*
 * From the greeting to a session that is ready for messages: EHLO or HELO, STARTTLS, AUTH. Part of
 * the outbound engine (see client.c). Invariants: what was learned before TLS is forgotten when TLS
 * begins (RFC 3207 4.2), and not one byte may stand behind the server's reply to STARTTLS; with
 * tls_required nothing but EHLO, STARTTLS and QUIT goes out in the clear.
 */
#include "smtp/client_internal.h"

#include "mail/base64.h"

static const struct {
	const char *keyword;
	unsigned feature;
} features[] = {
	{ "PIPELINING", CLIENT_PIPELINING },
	{ "SIZE", CLIENT_SIZE },
	{ "8BITMIME", CLIENT_8BITMIME },
	{ "SMTPUTF8", CLIENT_SMTPUTF8 },
	{ "CHUNKING", CLIENT_CHUNKING },
	{ "BINARYMIME", CLIENT_BINARYMIME },
	{ "DSN", CLIENT_DSN },
	{ "STARTTLS", CLIENT_STARTTLS },
	{ "AUTH", CLIENT_AUTH },
	{ "ENHANCEDSTATUSCODES", CLIENT_ENHANCED },
};

/* RFC 4422 3.1: mechanism names are of these characters; others are not passed on. */
static bool
is_mechanism(struct slice s)
{
	if (!s.n || s.n > 20)
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (!ascii_is_alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_')
			return false;
	return true;
}

static void
add_mechanisms(struct client *c, struct slice words)
{
	size_t n = strlen(c->mechanisms);

	while (words.n) {
		struct slice word = slice_split(&words, ' ');

		if (!is_mechanism(word) || n + 1 + word.n + 1 > sizeof(c->mechanisms))
			continue;
		if (n)
			c->mechanisms[n++] = ' ';
		for (size_t i = 0; i < word.n; i++)
			c->mechanisms[n++] = (char)ascii_upper(word.p[i]);
		c->mechanisms[n] = '\0';
	}
}

/* RFC 5321 4.1.1.1: the first line is the name and a greeting; then a keyword and its parameters a
 * line. "AUTH=" is an old form of "AUTH " that is still sent along. */
static void
learn_features(struct client *c)
{
	struct slice rest = c->reply.text;

	c->features = CLIENT_ESMTP;
	c->size_limit = 0;
	c->mechanisms[0] = '\0';
	slice_split(&rest, '\n');
	while (rest.n) {
		struct slice line = slice_split(&rest, '\n'), word = line;
		uint64_t limit;

		for (size_t i = 0; i < line.n; i++)
			if (line.p[i] == ' ' || line.p[i] == '=') {
				word = slice_sub(line, 0, i);
				break;
			}
		line = slice_sub(line, word.n + 1, line.n);
		for (size_t i = 0; i < sizeof(features) / sizeof(*features); i++)
			if (slice_caseeq_str(word, features[i].keyword))
				c->features |= features[i].feature;
		if (slice_caseeq_str(word, "SIZE") &&
		    !slice_u64(slice_trim(line, false), UINT64_MAX, &limit))
			c->size_limit = limit;
		if (slice_caseeq_str(word, "AUTH"))
			add_mechanisms(c, line);
	}
}

static void
hello(struct client *c, enum client_command command)
{
	const char *word = command == CLIENT_CMD_HELO ? "HELO" : c->opts.lmtp ? "LHLO" : "EHLO";

	buf_addf(&c->out, "%s %s\r\n", word, c->helo);
	client_expect(c, command, 0);
}

/* TLS first, then AUTH, then ready. Nothing is outstanding: what the server has said beyond its
 * reply would be taken for the reply to the next command, and each later one for that before it. */
static void
go_on(struct client *c)
{
	bool offered = (c->features & CLIENT_STARTTLS) != 0;

	if (buf_len(&c->in)) {
		client_fail(c, CLIENT_FAIL_PROTOCOL);
		return;
	}
	if (!c->tls_active && (c->opts.tls || c->opts.tls_required) && offered) {
		buf_add_str(&c->out, "STARTTLS\r\n");
		client_expect(c, CLIENT_CMD_STARTTLS, 0);
		return;
	}
	if (!c->tls_active && c->opts.tls_required) {
		client_fail(c, CLIENT_FAIL_NO_TLS);
		return;
	}
	if (c->opts.auth && !c->authenticated) {
		c->state = STATE_AUTH;
		c->event = CLIENT_MECHANISMS;
		return;
	}
	c->state = STATE_READY;
	c->event = CLIENT_READY;
}

static void
starttls_reply(struct client *c)
{
	if (c->reply.code == 220) {
		if (buf_len(
			&c->in)) { /* plaintext that would be taken for the server's under TLS */
			client_fail(c, CLIENT_FAIL_PROTOCOL);
			return;
		}
		c->features = 0;
		c->mechanisms[0] = '\0';
		c->state = STATE_TLS;
		c->event = CLIENT_TLS;
	} else if (c->opts.tls_required) {
		client_fail(c, CLIENT_FAIL_NO_TLS);
	} else {
		c->features &= ~(unsigned)CLIENT_STARTTLS;
		go_on(c);
	}
}

/* One base64 line; RFC 4954 4: an empty initial response is "=". */
static void
send_response(struct client *c, struct slice data)
{
	base64_encode(&c->out, data);
	buf_add_str(&c->out, "\r\n");
	client_expect(c, CLIENT_CMD_AUTH, 0);
	c->state = STATE_SETUP;
}

void
client_auth(struct client *c, const char *mechanism, bool has_data, struct slice data)
{
	if (c->state != STATE_AUTH)
		return;
	if (c->auth_started) {
		send_response(c, data);
		return;
	}
	c->auth_started = true;
	c->state = STATE_SETUP;
	client_expect(c, CLIENT_CMD_AUTH, 0);
	buf_addf(&c->out, "AUTH %s", mechanism);
	/* RFC 4954 4: the line with the initial response is at most 512 bytes, CRLF included */
	if (has_data && 5 + strlen(mechanism) + 1 + (data.n + 2) / 3 * 4 + 2 <= 512) {
		buf_add_byte(&c->out, ' ');
		if (data.n)
			base64_encode(&c->out, data);
		else
			buf_add_byte(&c->out, '=');
	} else if (has_data) {
		buf_add(&c->auth_pending, data);
	}
	buf_add_str(&c->out, "\r\n");
}

void
client_auth_skip(struct client *c)
{
	if (c->state != STATE_AUTH || c->auth_started)
		return;
	c->authenticated = true;
	go_on(c);
}

void
client_auth_cancel(struct client *c)
{
	if (c->state != STATE_AUTH)
		return;
	if (!c->auth_started) { /* nothing to cancel at the server */
		c->reply = (struct client_reply){ 0 };
		client_fail(c, CLIENT_FAIL_AUTH);
		return;
	}
	c->state = STATE_SETUP;
	buf_add_str(&c->out, "*\r\n");
	client_expect(c, CLIENT_CMD_AUTH, 0);
}

static void
auth_reply(struct client *c)
{
	if (c->reply.code == 334) {
		struct slice text = c->reply.text;

		buf_wipe(&c->challenge);
		if (base64_decode(&c->challenge, text)) {
			c->state = STATE_AUTH;
			client_auth_cancel(c);
			return;
		}
		if (buf_len(&c->auth_pending)) {
			c->state = STATE_AUTH;
			send_response(c, buf_slice(&c->auth_pending));
			buf_wipe(&c->auth_pending);
			return;
		}
		c->state = STATE_AUTH;
		c->event = CLIENT_CHALLENGE;
	} else if (c->reply.code / 100 == 2) {
		c->authenticated = true;
		go_on(c);
	} else {
		client_fail(c, CLIENT_FAIL_AUTH);
	}
}

static void
hello_reply(struct client *c)
{
	if (c->reply.code / 100 == 2) {
		c->features = 0;
		c->mechanisms[0] = '\0';
		if (c->command == CLIENT_CMD_EHLO)
			learn_features(c);
		go_on(c);
	} else if (c->command == CLIENT_CMD_EHLO && c->reply.code / 100 == 5 && !c->opts.lmtp &&
		   !c->tls_active) {
		hello(c, CLIENT_CMD_HELO); /* RFC 5321 3.2: an old server */
	} else {
		client_fail(c, CLIENT_FAIL_REPLY);
	}
}

void
session_reply(struct client *c)
{
	switch (c->command) {
	case CLIENT_CMD_GREETING:
		if (c->reply.code == 220)
			hello(c, CLIENT_CMD_EHLO);
		else
			client_fail(c, CLIENT_FAIL_REPLY);
		break;
	case CLIENT_CMD_EHLO:
	case CLIENT_CMD_HELO:
		hello_reply(c);
		break;
	case CLIENT_CMD_STARTTLS:
		starttls_reply(c);
		break;
	case CLIENT_CMD_AUTH:
		auth_reply(c);
		break;
	default:
		client_fail(c, CLIENT_FAIL_PROTOCOL);
		break;
	}
}
