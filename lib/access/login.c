/*
 * The dialogue before login, as far as IMAP and POP3 have it in common: states, SASL, counts, the
 * way to TLS and to the session. Runs in login-child (bh-login, empty root) on bytes of strangers.
 * Invariants: no answer of auth is awaited twice; while one is owed no byte is taken; what was
 * learnt before TLS is dropped; names and passwords are wiped when the command ends; memory is
 * bounded by the limits.
 */
#include "access/protocol.h"
#include "mail/base64.h"

#include <stdlib.h>

struct login *
login_new(const struct login_protocol *protocol, const struct login_limits *limits,
    const char *mechanisms, bool can_starttls, bool tls)
{
	struct login *l = xcalloc(1, protocol->size);

	l->protocol = protocol;
	l->limits = *limits;
	l->mechanisms = xstrdup(mechanisms);
	l->can_starttls = can_starttls && !tls;
	l->tls = tls;
	protocol->init(l);
	return l;
}

void
login_free(struct login **lp)
{
	struct login *l = *lp;

	*lp = NULL;
	if (!l)
		return;
	l->protocol->clear(l);
	buf_wipe(&l->line);
	buf_wipe(&l->decoded);
	buf_free(&l->out);
	free(l->mechanisms);
	free(l);
}

struct buf *
login_out(struct login *l)
{
	return &l->out;
}

void
login_greet(struct login *l)
{
	l->protocol->greet(l);
}

void
login_bye(struct login *l, const char *text)
{
	if (l->state == LOGIN_CLOSED || l->state == LOGIN_HANDED)
		return;
	l->ended = text;
	l->protocol->bye(l, text);
	l->state = LOGIN_CLOSED;
}

void
login_end_at_limit(struct login *l, const char *text, const char *parameter)
{
	l->limit = parameter;
	login_bye(l, text);
}

const char *
login_ended(const struct login *l, const char **limit_r)
{
	*limit_r = l->limit;
	return l->ended;
}

void
login_bad(struct login *l, const char *text)
{
	l->protocol->bad(l, text);
	if (++l->errors >= l->limits.max_errors)
		login_end_at_limit(l, "Too many bad commands", "login_error_limit");
}

bool
login_count_command(struct login *l)
{
	if (++l->commands <= l->limits.max_commands)
		return true;
	login_end_at_limit(l, "Too many commands before login", "login_command_limit");
	return false;
}

bool
login_offered(const struct login *l, struct slice mechanism)
{
	struct slice rest = slice_str(l->mechanisms);

	while (rest.n)
		if (slice_caseeq(slice_split(&rest, ' '), mechanism))
			return mechanism.n > 0 && mechanism.n <= LOGIN_MECHANISM_MAX;
	return false;
}

/* --- towards auth --- */

static void
ask_auth(struct login *l, enum login_want want, bool has_data, struct login_action *a)
{
	l->state = LOGIN_AUTH;
	a->want = want;
	a->mechanism = want == LOGIN_AUTH_START ? l->mechanism : NULL;
	a->has_data = has_data;
	a->data = has_data ? buf_slice(&l->decoded) : SLICE_NULL;
}

void
login_start(struct login *l, struct slice mechanism, bool has_initial, struct slice initial,
    struct login_action *a)
{
	buf_wipe(&l->decoded);
	if (has_initial && !slice_eq_str(initial, "=") &&
	    (!initial.n || base64_decode(&l->decoded, initial) < 0)) {
		login_bad(l, "Initial response is not base64");
		return;
	}
	for (size_t i = 0; i < mechanism.n; i++)
		l->mechanism[i] = (char)ascii_upper(mechanism.p[i]);
	l->mechanism[mechanism.n] = 0;
	ask_auth(l, LOGIN_AUTH_START, has_initial, a);
}

void
login_start_plain(struct login *l, struct slice user, struct slice password, struct login_action *a)
{
	buf_wipe(&l->decoded);
	buf_add_byte(&l->decoded, 0);
	buf_add(&l->decoded, user);
	buf_add_byte(&l->decoded, 0);
	buf_add(&l->decoded, password);
	memcpy(l->mechanism, "PLAIN", sizeof("PLAIN"));
	ask_auth(l, LOGIN_AUTH_START, true, a);
}

/* --- input --- */

size_t
login_line(
    struct login *l, struct slice in, size_t max, const char *parameter, struct slice *line_r)
{
	ptrdiff_t end = slice_find(in, '\n');
	size_t n = end < 0 ? in.n : (size_t)end + 1;

	*line_r = SLICE_NULL;
	if (buf_len(&l->line) + n > max) {
		login_end_at_limit(l, "Line is too long", parameter);
		return n;
	}
	buf_add(&l->line, slice_sub(in, 0, n));
	if (end < 0)
		return n;
	*line_r = buf_slice(&l->line);
	line_r->n--;
	if (line_r->n && line_r->p[line_r->n - 1] == '\r')
		line_r->n--;
	return n;
}

static void
got_response(struct login *l, struct slice line, struct login_action *a)
{
	const char *why = NULL;

	if (l->state == LOGIN_FINAL) {
		if (!line.n) {
			l->state = LOGIN_ACCEPTED;
			return;
		}
		why = "Empty response expected";
	} else {
		buf_wipe(&l->decoded);
		if (slice_eq_str(line, "*"))
			why = "Authentication cancelled";
		else if (base64_decode(&l->decoded, line) < 0)
			why = "Response is not base64";
	}
	if (why) {
		l->state = LOGIN_COMMAND;
		login_bad(l, why);
		a->want = LOGIN_AUTH_ABORT;
		return;
	}
	ask_auth(l, LOGIN_AUTH_STEP, true, a);
}

static size_t
feed_response(struct login *l, struct slice in, struct login_action *a)
{
	struct slice line;
	size_t n = login_line(l, in, l->limits.max_auth + 2, "smtpd_sasl_response_limit", &line);

	if (line.p) {
		got_response(l, line, a);
		buf_wipe(&l->line);
	}
	return n;
}

size_t
login_feed(struct login *l, struct slice in, struct login_action *a_r)
{
	size_t taken = 0;

	*a_r = (struct login_action){ .want = LOGIN_MORE };
	while (a_r->want == LOGIN_MORE) {
		struct slice rest = slice_sub(in, taken, in.n);

		if (l->state == LOGIN_CLOSED) {
			a_r->want = LOGIN_CLOSE;
		} else if (l->state == LOGIN_ACCEPTED) {
			l->state = LOGIN_HANDED;
			a_r->want = LOGIN_DONE;
		} else if (rest.n && l->state == LOGIN_COMMAND) {
			taken += l->protocol->feed(l, rest, a_r);
		} else if (rest.n && (l->state == LOGIN_RESPONSE || l->state == LOGIN_FINAL)) {
			taken += feed_response(l, rest, a_r);
		} else {
			break;
		}
	}
	return taken;
}

/* --- answers of the driver --- */

void
login_tls_done(struct login *l, const char *mechanisms)
{
	if (l->state != LOGIN_TLS)
		die("login_tls_done in state %d", l->state);
	free(l->mechanisms);
	l->mechanisms = xstrdup(mechanisms);
	l->can_starttls = false;
	l->tls = true;
	l->errors = 0;
	buf_wipe(&l->line);
	l->protocol->forget(l);
	l->state = LOGIN_COMMAND;
}

static void
send_challenge(struct login *l, struct slice data)
{
	buf_add_str(&l->out, "+ ");
	base64_encode(&l->out, data);
	buf_add_str(&l->out, "\r\n");
}

void
login_challenge(struct login *l, struct slice data)
{
	if (l->state != LOGIN_AUTH)
		return;
	send_challenge(l, data);
	l->state = LOGIN_RESPONSE;
}

static void
refuse(struct login *l, enum login_failure why)
{
	buf_wipe(&l->decoded);
	l->state = LOGIN_COMMAND;
	l->protocol->failed(l, why);
	if (++l->failures >= l->limits.max_auth_failures)
		login_end_at_limit(l, "Too many failed logins", "auth_failure_limit");
}

void
login_auth_failed(struct login *l, enum login_failure why)
{
	if (l->state == LOGIN_AUTH)
		refuse(l, why);
}

void
login_auth_ok(struct login *l, struct slice final, bool has_final)
{
	if (l->state != LOGIN_AUTH)
		return;
	if (has_final)
		send_challenge(l, final);
	buf_wipe(&l->decoded);
	l->state = has_final ? LOGIN_FINAL : LOGIN_ACCEPTED;
}

void
login_unavailable(struct login *l, enum login_failure why)
{
	if (l->state == LOGIN_HANDED || l->state == LOGIN_ACCEPTED)
		refuse(l, why);
}

void
login_handover(const struct login *l, struct slice peer, struct slice session_id, struct buf *out)
{
	struct handover h = {
		.tag = slice_sub(l->protocol->tag(l), 0, 255),
		.tls = l->tls,
		.peer = peer,
		.id = session_id,
	};

	handover_encode(&h, out);
}
