/*
 * The IMAP dialogue before login. Runs in login-child (bh-login, empty root) on bytes of strangers.
 * Invariants: memory is bounded by max_command and max_auth; no answer of auth is awaited twice;
 * while one is owed no byte is taken; what was learnt before STARTTLS is dropped; names and
 * passwords are wiped when the command ends.
 */
#include "imap/login.h"
#include "imap/capability.h"
#include "imap/parse.h"
#include "imap/reader.h"
#include "mail/base64.h"

#include <stdio.h>
#include <stdlib.h>

enum login_state {
	L_COMMAND,  /* reads a command */
	L_RESPONSE, /* reads one base64 line of AUTHENTICATE */
	L_FINAL,    /* reads the empty answer to the mechanism's final data */
	L_AUTH,     /* auth owes an answer */
	L_TLS,      /* the driver owes tls_done */
	L_ACCEPTED, /* logged in; DONE is said at the next feed */
	L_HANDED,   /* DONE was said */
	L_CLOSED,
};

enum { TAG_MAX = 255 };

struct imap_login {
	struct imap_login_limits limits;
	enum login_state state;
	struct imap_reader reader;
	struct arena arena;
	struct buf out;
	struct buf line;    /* of AUTHENTICATE */
	struct buf decoded; /* what an action's data points to */
	char *mechanisms;
	char mechanism[32];
	unsigned char tag[TAG_MAX];
	size_t tag_len;
	bool can_starttls, tls;
	unsigned errors, commands, failures;
	const char *ended, *limit; /* for the log */
};

struct imap_login *
imap_login_new(
    const struct imap_login_limits *limits, const char *mechanisms, bool can_starttls, bool tls)
{
	struct imap_login *l = xcalloc(1, sizeof(*l));

	l->limits = *limits;
	l->mechanisms = xstrdup(mechanisms);
	l->can_starttls = can_starttls && !tls;
	l->tls = tls;
	imap_reader_init(&l->reader, limits->max_command, 4 * (uint64_t)limits->max_command);
	buf_init(&l->line, limits->max_auth + 2);
	return l;
}

void
imap_login_free(struct imap_login **lp)
{
	struct imap_login *l = *lp;

	if (!l)
		return;
	imap_reader_free(&l->reader);
	buf_wipe(&l->line);
	buf_wipe(&l->decoded);
	buf_free(&l->out);
	arena_free(&l->arena);
	free(l->mechanisms);
	free(l);
	*lp = NULL;
}

struct buf *
imap_login_out(struct imap_login *l)
{
	return &l->out;
}

static void
put(struct imap_login *l, const char *text)
{
	buf_add_str(&l->out, text);
}

static void
put_capability(struct imap_login *l)
{
	imap_capability_login(&l->out, l->mechanisms, l->can_starttls);
}

void
imap_login_greet(struct imap_login *l)
{
	put(l, "* OK [CAPABILITY ");
	put_capability(l);
	put(l, "] ");
	put(l, l->limits.greeting && *l->limits.greeting ? l->limits.greeting : "Ready");
	put(l, "\r\n");
}

void
imap_login_bye(struct imap_login *l, const char *text)
{
	if (l->state == L_CLOSED || l->state == L_HANDED)
		return;
	l->ended = text;
	put(l, "* BYE ");
	put(l, text);
	put(l, "\r\n");
	l->state = L_CLOSED;
}

/* The client met a limit: parameter is the one that sets it. */
static void
end_at_limit(struct imap_login *l, const char *text, const char *parameter)
{
	l->limit = parameter;
	imap_login_bye(l, text);
}

const char *
imap_login_ended(const struct imap_login *l, const char **limit_r)
{
	*limit_r = l->limit;
	return l->ended;
}

static void
tagged(struct imap_login *l, const char *text)
{
	if (l->tag_len)
		buf_add(&l->out, slice(l->tag, l->tag_len));
	else
		put(l, "*");
	put(l, " ");
	put(l, text);
	put(l, "\r\n");
}

static void
bad(struct imap_login *l, const char *text)
{
	if (l->tag_len)
		buf_add(&l->out, slice(l->tag, l->tag_len));
	else
		put(l, "*");
	put(l, " BAD ");
	put(l, text);
	put(l, "\r\n");
	if (++l->errors >= l->limits.max_errors)
		end_at_limit(l, "Too many bad commands", "login_error_limit");
}

static bool
offered(const struct imap_login *l, struct slice name)
{
	struct slice rest = slice_str(l->mechanisms);

	while (rest.n)
		if (slice_caseeq(slice_split(&rest, ' '), name))
			return true;
	return false;
}

static void
wipe_command(struct imap_login *l)
{
	struct slice all = buf_slice(&l->reader.cmd);

	if (all.n)
		explicit_bzero((void *)(uintptr_t)all.p, all.n);
	buf_wipe(&l->line);
	imap_reader_next(&l->reader);
	arena_free(&l->arena);
}

/* --- commands --- */

static void
cmd_capability(struct imap_login *l, struct imap_parse *p, struct imap_login_action *a)
{
	(void)a;
	if (!imap_end(p))
		return;
	put(l, "* CAPABILITY ");
	put_capability(l);
	put(l, "\r\n");
	tagged(l, "OK Done");
}

static void
cmd_noop(struct imap_login *l, struct imap_parse *p, struct imap_login_action *a)
{
	(void)a;
	if (imap_end(p))
		tagged(l, "OK Done");
}

static void
cmd_logout(struct imap_login *l, struct imap_parse *p, struct imap_login_action *a)
{
	if (!imap_end(p))
		return;
	put(l, "* BYE Good bye\r\n");
	tagged(l, "OK Logged out");
	l->state = L_CLOSED;
	a->want = IMAP_LOGIN_CLOSE;
}

/* id = "ID" SP id-params-list */
static void
cmd_id(struct imap_login *l, struct imap_parse *p, struct imap_login_action *a)
{
	(void)a;
	if (!imap_sp(p) || !imap_id_params(p) || !imap_end(p))
		return;
	put(l, "* ID (\"name\" \"Bulkhead\")\r\n");
	tagged(l, "OK Done");
}

static void
cmd_starttls(struct imap_login *l, struct imap_parse *p, struct imap_login_action *a)
{
	if (!imap_end(p))
		return;
	if (!l->can_starttls) {
		bad(l, l->tls ? "TLS is already active" : "TLS is not available");
		return;
	}
	tagged(l, "OK Begin TLS negotiation now");
	l->state = L_TLS;
	a->want = IMAP_LOGIN_STARTTLS;
}

static void
start_auth(struct imap_login *l, const char *mechanism, bool has_data, struct imap_login_action *a)
{
	(void)snprintf(l->mechanism, sizeof(l->mechanism), "%s", mechanism);
	l->state = L_AUTH;
	a->want = IMAP_LOGIN_AUTH_START;
	a->mechanism = l->mechanism;
	a->has_data = has_data;
	a->data = has_data ? buf_slice(&l->decoded) : SLICE_NULL;
}

/* login = "LOGIN" SP userid SP password: checked as PLAIN (RFC 4616) with an empty authzid. */
static void
cmd_login(struct imap_login *l, struct imap_parse *p, struct imap_login_action *a)
{
	struct slice user, password;

	if (!imap_sp(p) || !imap_astring(p, &user) || !imap_sp(p) || !imap_astring(p, &password) ||
	    !imap_end(p))
		return;
	if (!offered(l, SLICE_LIT("PLAIN"))) {
		tagged(l, l->tls ? "NO [CANNOT] LOGIN is disabled"
				 : "NO [PRIVACYREQUIRED] LOGIN needs TLS: use STARTTLS first");
		return;
	}
	buf_wipe(&l->decoded);
	buf_add_byte(&l->decoded, 0);
	buf_add(&l->decoded, user);
	buf_add_byte(&l->decoded, 0);
	buf_add(&l->decoded, password);
	start_auth(l, "PLAIN", true, a);
}

/* authenticate = "AUTHENTICATE" SP auth-type [SP initial-resp] */
static void
cmd_authenticate(struct imap_login *l, struct imap_parse *p, struct imap_login_action *a)
{
	struct slice name, initial = SLICE_NULL;
	char upper[32];
	bool has_initial = false;

	if (!imap_sp(p) || !imap_atom(p, &name))
		return;
	if (imap_try(p, ' ')) {
		has_initial = true;
		initial = slice_sub(p->in, p->at, p->in.n);
		p->at = p->in.n;
	}
	if (!imap_end(p))
		return;
	if (!offered(l, name) || slice_copy(name, upper, sizeof(upper)) < 0) {
		tagged(
		    l, *l->mechanisms || l->tls
			   ? "NO [CANNOT] Mechanism is not offered"
			   : "NO [PRIVACYREQUIRED] Authentication needs TLS: use STARTTLS first");
		return;
	}
	for (char *c = upper; *c; c++)
		*c = (char)ascii_upper((unsigned char)*c);
	buf_wipe(&l->decoded);
	if (has_initial && !slice_eq_str(initial, "=") &&
	    (!initial.n || base64_decode(&l->decoded, initial) < 0)) {
		imap_fail(p, "Initial response is not base64");
		return;
	}
	start_auth(l, upper, has_initial, a);
}

static const struct command {
	const char *name;
	void (*run)(struct imap_login *, struct imap_parse *, struct imap_login_action *);
} commands[] = {
	{ "CAPABILITY", cmd_capability },
	{ "NOOP", cmd_noop },
	{ "LOGOUT", cmd_logout },
	{ "ID", cmd_id },
	{ "STARTTLS", cmd_starttls },
	{ "LOGIN", cmd_login },
	{ "AUTHENTICATE", cmd_authenticate },
};

static void
run_command(struct imap_login *l, struct imap_login_action *a)
{
	struct imap_parse p = imap_parse(buf_slice(&l->reader.cmd), &l->arena);
	struct slice tag, name;

	l->tag_len = 0;
	if (++l->commands > l->limits.max_commands) {
		end_at_limit(l, "Too many commands before login", "login_command_limit");
		return;
	}
	if (!imap_tag(&p, &tag) || tag.n > TAG_MAX) {
		bad(l, "Tag expected");
		return;
	}
	memcpy(l->tag, tag.p, tag.n);
	l->tag_len = tag.n;
	if (!imap_sp(&p) || !imap_atom(&p, &name)) {
		bad(l, "Command expected");
		return;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (slice_caseeq_str(name, commands[i].name)) {
			commands[i].run(l, &p, a);
			if (p.why)
				bad(l, p.why);
			return;
		}
	bad(l, "Unknown command, or not before login");
}

/* --- input --- */

static void
announced(struct imap_login *l)
{
	if (imap_reader_accept(&l->reader) == 0) {
		if (l->reader.literal_sync)
			put(l, "+ Ready\r\n");
		return;
	}
	end_at_limit(l, "Literal is too large", "login_command_size_limit");
}

static size_t
feed_command(struct imap_login *l, struct slice in, struct imap_login_action *a)
{
	enum imap_read event;
	size_t n = imap_reader_feed(&l->reader, in, &event);

	switch (event) {
	case IMAP_READ_COMMAND:
		run_command(l, a);
		wipe_command(l);
		break;
	case IMAP_READ_LITERAL:
		announced(l);
		break;
	case IMAP_READ_TOO_LONG:
	case IMAP_READ_FLOOD:
		end_at_limit(l, "Command is too long", "login_command_size_limit");
		break;
	default:
		break;
	}
	return n;
}

static void
got_response(struct imap_login *l, struct slice line, struct imap_login_action *a)
{
	bool final = l->state == L_FINAL;

	if (final) {
		if (line.n) {
			l->state = L_COMMAND;
			bad(l, "Empty response expected");
			a->want = IMAP_LOGIN_AUTH_ABORT;
		} else {
			l->state = L_ACCEPTED;
		}
		return;
	}
	buf_wipe(&l->decoded);
	if (slice_eq_str(line, "*") || base64_decode(&l->decoded, line) < 0) {
		l->state = L_COMMAND;
		bad(l, slice_eq_str(line, "*") ? "Authentication cancelled"
					       : "Response is not base64");
		a->want = IMAP_LOGIN_AUTH_ABORT;
		return;
	}
	l->state = L_AUTH;
	a->want = IMAP_LOGIN_AUTH_STEP;
	a->data = buf_slice(&l->decoded);
	a->has_data = true;
}

static size_t
feed_response(struct imap_login *l, struct slice in, struct imap_login_action *a)
{
	ptrdiff_t end = slice_find(in, '\n');
	size_t n = end < 0 ? in.n : (size_t)end + 1;
	struct slice line;

	if (buf_add(&l->line, slice_sub(in, 0, n)) < 0) {
		end_at_limit(l, "Response is too long", "smtpd_sasl_response_limit");
		return n;
	}
	if (end < 0)
		return n;
	line = buf_slice(&l->line);
	line.n--;
	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	got_response(l, line, a);
	buf_wipe(&l->line);
	return n;
}

size_t
imap_login_feed(struct imap_login *l, struct slice in, struct imap_login_action *a)
{
	size_t taken = 0;

	*a = (struct imap_login_action){ .want = IMAP_LOGIN_MORE };
	while (a->want == IMAP_LOGIN_MORE) {
		struct slice rest = slice_sub(in, taken, in.n);

		if (l->state == L_CLOSED) {
			a->want = IMAP_LOGIN_CLOSE;
		} else if (l->state == L_ACCEPTED) {
			l->state = L_HANDED;
			a->want = IMAP_LOGIN_DONE;
		} else if (!rest.n || (l->state != L_COMMAND && l->state != L_RESPONSE &&
					  l->state != L_FINAL)) {
			break;
		} else if (l->state == L_COMMAND) {
			taken += feed_command(l, rest, a);
		} else {
			taken += feed_response(l, rest, a);
		}
	}
	return taken;
}

/* --- answers of the driver --- */

void
imap_login_tls_done(struct imap_login *l, const char *mechanisms)
{
	if (l->state != L_TLS)
		die("imap_login_tls_done in state %d", l->state);
	free(l->mechanisms);
	l->mechanisms = xstrdup(mechanisms);
	l->can_starttls = false;
	l->tls = true;
	l->errors = 0;
	wipe_command(l);
	l->state = L_COMMAND;
}

static void
send_challenge(struct imap_login *l, struct slice data)
{
	put(l, "+ ");
	base64_encode(&l->out, data);
	put(l, "\r\n");
}

void
imap_login_challenge(struct imap_login *l, struct slice data)
{
	if (l->state != L_AUTH)
		return;
	send_challenge(l, data);
	l->state = L_RESPONSE;
}

static void
refuse(struct imap_login *l, enum imap_login_failure why)
{
	static const char *const texts[] = {
		[IMAP_LOGIN_FAIL_CREDENTIALS] = "NO [AUTHENTICATIONFAILED] Authentication failed",
		[IMAP_LOGIN_FAIL_TEMPORARY] = "NO [UNAVAILABLE] Temporary failure, try again later",
		[IMAP_LOGIN_FAIL_EXPIRED] = "NO [EXPIRED] The password has expired",
		[IMAP_LOGIN_FAIL_DENIED] = "NO [AUTHORIZATIONFAILED] Not allowed to log in here",
		[IMAP_LOGIN_FAIL_PROTOCOL] = "BAD The mechanism's response is malformed",
		[IMAP_LOGIN_FAIL_LIMIT] = "NO [LIMIT] Too many connections",
		[IMAP_LOGIN_FAIL_MAILBOX] =
		    "NO [CONTACTADMIN] Your mail lies in a file, which is not "
		    "served here: the administrator can set "
		    "home_mailbox = Maildir/",
	};

	buf_wipe(&l->decoded);
	l->state = L_COMMAND;
	tagged(l, texts[why]);
	if (++l->failures >= l->limits.max_auth_failures)
		end_at_limit(l, "Too many failed logins", "auth_failure_limit");
}

void
imap_login_auth_failed(struct imap_login *l, enum imap_login_failure why)
{
	if (l->state == L_AUTH)
		refuse(l, why);
}

void
imap_login_auth_ok(struct imap_login *l, struct slice final, bool has_final)
{
	if (l->state != L_AUTH)
		return;
	if (has_final)
		send_challenge(l, final);
	buf_wipe(&l->decoded);
	l->state = has_final ? L_FINAL : L_ACCEPTED;
}

void
imap_login_unavailable(struct imap_login *l, enum imap_login_failure why)
{
	if (l->state == L_HANDED || l->state == L_ACCEPTED)
		refuse(l, why);
}

void
imap_login_handover(
    const struct imap_login *l, struct slice peer, struct slice session_id, struct buf *out)
{
	struct imap_handover h = {
		.tag = slice(l->tag, l->tag_len), .tls = l->tls, .peer = peer, .id = session_id
	};

	imap_handover_encode(&h, out);
}
