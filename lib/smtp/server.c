/*
 * The engine's frame: life cycle, input, the loop, replies, errors, and the one function in which a
 * transaction ends. Runs in smtpd and submission under their uids; all input is hostile.
 * Invariants: the loop runs only while nothing is awaited; tx.active is true exactly in the states
 * MAIL to COMMIT (and while MAIL itself is being checked); in SMTP_CLOSED no input is looked at.
 */
#include "smtp/server_priv.h"

#include <stdlib.h>

static const char *const state_names[] = { "connected", "hello", "ready", "mail", "rcpt", "data",
	"chunk", "chunks", "commit", "auth", "tls", "refused", "closed" };

const char *
smtp_state_name(enum smtp_state state)
{
	return state_names[state];
}

static const struct {
	const char *keyword;
	unsigned bit;
} extensions[] = {
	{ "PIPELINING", SMTP_EXT_PIPELINING },
	{ "SIZE", SMTP_EXT_SIZE },
	{ "8BITMIME", SMTP_EXT_8BITMIME },
	{ "SMTPUTF8", SMTP_EXT_SMTPUTF8 },
	{ "CHUNKING", SMTP_EXT_CHUNKING },
	{ "BINARYMIME", SMTP_EXT_BINARYMIME },
	{ "DSN", SMTP_EXT_DSN },
	{ "ENHANCEDSTATUSCODES", SMTP_EXT_ENHANCEDSTATUSCODES },
	{ "STARTTLS", SMTP_EXT_STARTTLS },
	{ "AUTH", SMTP_EXT_AUTH },
};

unsigned
smtp_extension_bit(struct slice keyword)
{
	for (size_t i = 0; i < sizeof(extensions) / sizeof(extensions[0]); i++)
		if (slice_caseeq_str(keyword, extensions[i].keyword))
			return extensions[i].bit;
	return 0;
}

bool
smtp_offers(const struct smtp_server *s, enum smtp_extension e)
{
	if (!(s->policy->extensions & e))
		return false;
	switch (e) {
	case SMTP_EXT_STARTTLS:
		return !s->tls && !s->no_tls;
	case SMTP_EXT_AUTH:
		return !s->authenticated && (s->tls || !s->policy->auth_needs_tls);
	case SMTP_EXT_BINARYMIME:
		return s->policy->extensions & SMTP_EXT_CHUNKING;
	default:
		return true;
	}
}

struct smtp_server *
smtp_server_new(const struct smtp_policy *policy, const struct smtp_ops *ops, void *ctx)
{
	struct smtp_server *s = xcalloc(1, sizeof(*s));

	s->policy = policy;
	s->ops = ops;
	s->ctx = ctx;
	STAILQ_INIT(&s->tx.rcpts);
	return s;
}

void
smtp_server_free(struct smtp_server **sp)
{
	struct smtp_server *s = *sp;

	if (!s)
		return;
	smtp_auth_end(s);
	smtp_tx_end(s);
	arena_free(&s->tx.arena);
	buf_wipe(&s->pending);
	buf_free(&s->out);
	free(s);
	*sp = NULL;
}

void
smtp_set_state(struct smtp_server *s, enum smtp_state state)
{
	if (s->state != SMTP_CLOSED)
		s->state = state;
}

void
smtp_tx_end(struct smtp_server *s)
{
	struct arena arena;

	if (s->tx.active && s->ops->tx_end)
		s->ops->tx_end(s->ctx, s);
	arena_reset(&s->tx.arena);
	arena = s->tx.arena;
	s->tx = (struct smtp_tx){ .arena = arena };
	STAILQ_INIT(&s->tx.rcpts);
	s->candidate = NULL;
	s->commit_answers = 0;
	s->paused = false; /* it was for this content */
}

void
smtp_close(struct smtp_server *s)
{
	if (s->state == SMTP_CLOSED)
		return;
	smtp_auth_end(s);
	smtp_tx_end(s);
	smtp_set_state(s, SMTP_CLOSED);
	s->wait = WAIT_NONE;
	s->in = SLICE_NULL;
	s->ops->close(s->ctx, s);
}

/* RFC 2034: no enhanced code in the greeting, nor in replies to HELO and EHLO. */
static bool
wants_enhanced(const struct smtp_server *s)
{
	return s->policy->extensions & SMTP_EXT_ENHANCEDSTATUSCODES && s->state != SMTP_CONNECTED;
}

void
smtp_send(struct smtp_server *s, const struct reply *r)
{
	const struct smtp_policy *p = s->policy;

	reply_format(&s->out, r, wants_enhanced(s));
	if (r->code < 400)
		return;
	s->errors++;
	if (s->ops->refused)
		s->ops->refused(s->ctx, s, r);
	if (r->code == 421 || r->code == 521) { /* RFC 5321 3.8, RFC 7504: we hang up */
		smtp_close(s);
		return;
	}
	if (p->soft_error_limit && s->errors > p->soft_error_limit && p->error_delay_ms &&
	    s->ops->delay && s->state != SMTP_CLOSED && s->wait == WAIT_NONE) {
		s->wait = WAIT_DELAY;
		s->ops->delay(s->ctx, s, p->error_delay_ms);
	}
}

void
smtp_server_without_tls(struct smtp_server *s)
{
	s->no_tls = true;
}

void
smtp_server_greet(struct smtp_server *s, bool under_tls)
{
	struct reply r = { .code = 220 };
	struct buf text;

	s->tls = under_tls;
	buf_init(&text, 0);
	buf_add_str(&text, s->policy->banner);
	r.text = buf_slice(&text);
	smtp_send(s, &r);
	buf_free(&text);
	smtp_set_state(s, SMTP_HELLO);
	if (s->early && s->policy->strict_pipelining) {
		SMTP_SAY(s, 554, "5.5.0",
		    "Error: SMTP protocol synchronization: you spoke before the greeting");
		smtp_close(s);
		return;
	}
	smtp_server_resume(s);
}

void
smtp_server_refuse(struct smtp_server *s, const struct reply *r)
{
	smtp_send(s, r);
	if (r->code == 421 || s->early) {
		smtp_close(s);
		return;
	}
	smtp_set_state(s, SMTP_REFUSED);
	smtp_server_resume(s);
}

bool
smtp_count_discarded(struct smtp_server *s, size_t n)
{
	s->discarded += n;
	if (!s->policy->discard_limit || s->discarded <= s->policy->discard_limit)
		return true;
	SMTP_SAY_LIMIT(s, 421, "4.7.0", "Error: too much input that had to be discarded",
	    "smtpd_discard_limit");
	return false;
}

static bool
errors_end_session(struct smtp_server *s)
{
	if (!s->policy->hard_error_limit || s->errors < s->policy->hard_error_limit)
		return false;
	SMTP_SAY_LIMIT(s, 421, "4.7.0", "Error: too many errors",
	    s->junk > s->policy->junk_command_limit ? "smtpd_junk_command_limit"
						    : "smtpd_hard_error_limit");
	return true;
}

static void
take_input(struct smtp_server *s, size_t n)
{
	s->in = slice_sub(s->in, n, s->in.n);
}

/* A longer line is read for AUTH and its responses; see smtp_command for the others. */
static unsigned
line_limit(const struct smtp_server *s)
{
	if (s->state == SMTP_AUTH ||
	    (smtp_offers(s, SMTP_EXT_AUTH) && slice_has_caseprefix(s->in, "AUTH ")))
		return s->policy->auth_line_limit;
	return s->policy->line_limit;
}

static void
spoilt_line(struct smtp_server *s, enum line_status status)
{
	bool in_auth = s->state == SMTP_AUTH;

	if (in_auth) {
		smtp_auth_end(s);
		smtp_set_state(s, SMTP_READY);
	}
	if (status == LINE_BARE_LF)
		SMTP_SAY(s, 550, "5.5.2", "Error: bare <LF> received: lines end in <CR><LF>");
	else if (status == LINE_BARE_CR)
		SMTP_SAY(s, 550, "5.5.2", "Error: bare <CR> received: lines end in <CR><LF>");
	else if (in_auth)
		SMTP_SAY_LIMIT(s, 500, "5.5.6", "Error: authentication exchange line is too long",
		    "smtpd_sasl_response_limit");
	else
		SMTP_SAY_LIMIT(s, 500, "5.5.2", "Error: line too long", "line_length_limit");
}

/* Other protocols (HTTP, a TLS client hello) do not get the chance to send a whole line. */
static bool
is_foreign(struct smtp_server *s)
{
	unsigned char c = s->in.p[0];

	if (s->state == SMTP_AUTH || s->line.skipping || s->line.seen || ascii_is_alpha(c) ||
	    c == '\r' || c == '\n')
		return false;
	SMTP_SAY(s, 500, "5.5.2", "Error: this is an SMTP server. Goodbye.");
	smtp_close(s);
	return true;
}

/* Returns false when more input is needed. */
static bool
take_line(struct smtp_server *s)
{
	struct slice line;
	enum line_status status;
	size_t used, skipped;
	bool skipping = s->line.skipping;

	if (is_foreign(s))
		return true;
	s->line.limit = line_limit(s);
	status = line_read(&s->line, s->in, &line, &used);
	skipped = status == LINE_OK                 ? used - line.n - 2
		  : skipping || status != LINE_MORE ? used
						    : 0;
	take_input(s, used);
	if (skipped && !smtp_count_discarded(s, skipped))
		return true;
	switch (status) {
	case LINE_MORE:
		return false;
	case LINE_OK:
		if (s->state == SMTP_AUTH)
			smtp_auth_response(s, line);
		else
			smtp_command(s, line);
		return true;
	default:
		spoilt_line(s, status);
		return true;
	}
}

/* Until something is awaited, the output is long, or the input is used up. */
void
smtp_run(struct smtp_server *s)
{
	bool more = true;

	s->running = true;
	while (more && s->wait == WAIT_NONE && !s->paused && s->state != SMTP_CLOSED &&
	       s->state != SMTP_CONNECTED && buf_len(&s->out) < SMTP_OUTPUT_HIGH) {
		if (errors_end_session(s))
			break;
		if (s->state == SMTP_CHUNK) {
			/* also without input: a chunk may be empty */
			more = s->in.n || !s->chunk_left;
			if (more)
				smtp_take_chunk(s);
		} else if (!s->in.n) {
			more = false;
		} else if (s->state == SMTP_DATA) {
			smtp_take_data(s);
		} else {
			more = take_line(s);
		}
	}
	s->running = false;
}

/* Runs on what is pending; the bytes stay in place until the end. */
static void
run_pending(struct smtp_server *s)
{
	size_t before = buf_len(&s->pending);

	s->in = buf_slice(&s->pending);
	smtp_run(s);
	buf_consume(&s->pending, before - s->in.n);
	s->in = SLICE_NULL;
	if (!buf_len(&s->pending))
		buf_wipe(&s->pending);
}

void
smtp_server_feed(struct smtp_server *s, struct slice bytes)
{
	if (s->state == SMTP_CLOSED || s->state == SMTP_TLS || !bytes.n)
		return;
	if (s->state == SMTP_CONNECTED)
		s->early = true;
	if (buf_len(&s->pending)) {
		buf_add(&s->pending, bytes);
		run_pending(s);
		return;
	}
	s->in = bytes;
	smtp_run(s);
	buf_add(&s->pending, s->in);
	s->in = SLICE_NULL;
}

void
smtp_server_resume(struct smtp_server *s)
{
	s->paused = false;
	if (!s->running && s->wait == WAIT_NONE)
		run_pending(s);
}

void
smtp_server_pause(struct smtp_server *s)
{
	s->paused = true;
}

size_t
smtp_server_pending(const struct smtp_server *s)
{
	return buf_len(&s->pending);
}

bool
smtp_server_wants_input(const struct smtp_server *s)
{
	return s->wait == WAIT_NONE && !s->paused && s->state != SMTP_CLOSED &&
	       s->state != SMTP_TLS && buf_len(&s->out) < SMTP_OUTPUT_HIGH;
}

struct buf *
smtp_server_output(struct smtp_server *s)
{
	return &s->out;
}

void
smtp_server_shutdown(struct smtp_server *s, const struct reply *r)
{
	if (s->state == SMTP_CLOSED)
		return;
	s->wait = WAIT_NONE;
	if (s->state != SMTP_TLS)
		smtp_send(s, r);
	smtp_close(s);
}

void
smtp_server_answer_delay(struct smtp_server *s)
{
	if (s->wait != WAIT_DELAY)
		return;
	s->wait = WAIT_NONE;
	smtp_server_resume(s);
}

enum smtp_state
smtp_server_state(const struct smtp_server *s)
{
	return s->state;
}

struct smtp_tx *
smtp_server_tx(struct smtp_server *s)
{
	return &s->tx;
}

struct slice
smtp_server_hello(const struct smtp_server *s)
{
	return slice_str(s->hello);
}

bool
smtp_server_under_tls(const struct smtp_server *s)
{
	return s->tls;
}

bool
smtp_server_authenticated(const struct smtp_server *s)
{
	return s->authenticated;
}

unsigned
smtp_server_errors(const struct smtp_server *s)
{
	return s->errors;
}

/* RFC 6531 4.3 has no form of UTF8SMTP without ESMTP. */
const char *
smtp_server_with(const struct smtp_server *s)
{
	static const char *const names[2][2][2][2] = {
		{ { { "ESMTP", "ESMTPA" }, { "ESMTPS", "ESMTPSA" } },
		    { { "UTF8SMTP", "UTF8SMTPA" }, { "UTF8SMTPS", "UTF8SMTPSA" } } },
		{ { { "LMTP", "LMTPA" }, { "LMTPS", "LMTPSA" } },
		    { { "UTF8LMTP", "UTF8LMTPA" }, { "UTF8LMTPS", "UTF8LMTPSA" } } },
	};

	if (!s->esmtp)
		return "SMTP";
	return names[smtp_is_lmtp(s)][s->tx.smtputf8][s->tls][s->authenticated];
}
