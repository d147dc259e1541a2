/*
 * The POP3 dialogue before login. Runs in login-child (bh-login, empty root) on bytes of strangers.
 * Invariants: memory is bounded by POP3_LINE_MAX and max_auth; while an answer is owed (auth, TLS)
 * no byte is taken; what was learnt before STLS is dropped; names and passwords are wiped with
 * their line.
 */
#include "pop3/login.h"
#include "imap/login.h"
#include "mail/base64.h"

#include <stdio.h>
#include <stdlib.h>

enum login_state {
	L_COMMAND,  /* reads a command */
	L_RESPONSE, /* reads one base64 line of AUTH */
	L_FINAL,    /* reads the empty answer to the mechanism's final data */
	L_AUTH,     /* auth owes an answer */
	L_TLS,      /* the driver owes tls_done */
	L_ACCEPTED, /* logged in; DONE is said at the next feed */
	L_HANDED,   /* DONE was said */
	L_CLOSED,
};

struct pop3_login {
	struct pop3_login_limits limits;
	enum login_state state;
	struct buf line, out;
	struct buf decoded; /* what an action's data points to */
	struct buf user;    /* of USER, until PASS */
	char *mechanisms;
	char mechanism[32];
	bool can_stls, tls, has_user;
	unsigned errors, commands, failures;
	const char *ended, *limit; /* for the log */
};

struct pop3_login *
pop3_login_new(
    const struct pop3_login_limits *limits, const char *mechanisms, bool can_stls, bool tls)
{
	struct pop3_login *l = xcalloc(1, sizeof(*l));

	l->limits = *limits;
	l->mechanisms = xstrdup(mechanisms);
	l->can_stls = can_stls && !tls;
	l->tls = tls;
	return l;
}

void
pop3_login_free(struct pop3_login **lp)
{
	struct pop3_login *l = *lp;

	*lp = NULL;
	if (!l)
		return;
	buf_wipe(&l->line);
	buf_wipe(&l->decoded);
	buf_wipe(&l->user);
	buf_free(&l->out);
	free(l->mechanisms);
	free(l);
}

struct buf *
pop3_login_out(struct pop3_login *l)
{
	return &l->out;
}

static void
put(struct pop3_login *l, const char *text)
{
	buf_add_str(&l->out, text);
	buf_add_str(&l->out, "\r\n");
}

void
pop3_login_greet(struct pop3_login *l)
{
	buf_add_str(&l->out, "+OK ");
	put(l, l->limits.greeting && *l->limits.greeting ? l->limits.greeting : "POP3 ready");
}

void
pop3_login_bye(struct pop3_login *l, const char *text)
{
	if (l->state == L_CLOSED || l->state == L_HANDED)
		return;
	l->ended = text;
	buf_addf(&l->out, "-ERR %s\r\n", text);
	l->state = L_CLOSED;
}

/* The client met a limit: parameter is the one that sets it. */
static void
end_at_limit(struct pop3_login *l, const char *text, const char *parameter)
{
	l->limit = parameter;
	pop3_login_bye(l, text);
}

const char *
pop3_login_ended(const struct pop3_login *l, const char **limit_r)
{
	*limit_r = l->limit;
	return l->ended;
}

static void
bad(struct pop3_login *l, const char *text)
{
	buf_addf(&l->out, "-ERR %s\r\n", text);
	if (++l->errors >= l->limits.max_errors)
		end_at_limit(l, "Too many bad commands", "login_error_limit");
}

static bool
offered(const struct pop3_login *l, struct slice name)
{
	struct slice rest = slice_str(l->mechanisms);

	while (rest.n)
		if (slice_caseeq(slice_split(&rest, ' '), name))
			return true;
	return false;
}

static void
forget_user(struct pop3_login *l)
{
	buf_wipe(&l->user);
	l->has_user = false;
}

/* --- commands; args is what stands behind the keyword and one space --- */

static void
cmd_capa(struct pop3_login *l, struct slice args, struct pop3_login_action *a)
{
	(void)a;
	if (args.n) {
		bad(l, "CAPA takes no argument");
		return;
	}
	put(l, "+OK Capability list follows");
	put(l, "TOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING");
	if (l->can_stls)
		put(l, "STLS");
	if (offered(l, SLICE_LIT("PLAIN")))
		put(l, "USER");
	if (*l->mechanisms)
		buf_addf(&l->out, "SASL %s\r\n", l->mechanisms);
	put(l, "EXPIRE NEVER\r\nIMPLEMENTATION Bulkhead\r\n.");
}

static void
cmd_noop(struct pop3_login *l, struct slice args, struct pop3_login_action *a)
{
	(void)args;
	(void)a;
	put(l, "+OK");
}

static void
cmd_quit(struct pop3_login *l, struct slice args, struct pop3_login_action *a)
{
	(void)args;
	put(l, "+OK Good bye");
	l->state = L_CLOSED;
	a->want = POP3_LOGIN_CLOSE;
}

static void
cmd_stls(struct pop3_login *l, struct slice args, struct pop3_login_action *a)
{
	if (args.n || !l->can_stls) {
		bad(l, args.n   ? "STLS takes no argument"
		       : l->tls ? "TLS is already active"
				: "TLS is not available");
		return;
	}
	put(l, "+OK Begin TLS negotiation now");
	forget_user(l);
	l->state = L_TLS;
	a->want = POP3_LOGIN_STARTTLS;
}

static bool
plain_allowed(struct pop3_login *l)
{
	if (offered(l, SLICE_LIT("PLAIN")))
		return true;
	put(l, l->tls ? "-ERR [AUTH] USER is disabled"
		      : "-ERR [AUTH] Passwords need TLS: use STLS first");
	return false;
}

static void
cmd_user(struct pop3_login *l, struct slice args, struct pop3_login_action *a)
{
	(void)a;
	if (!args.n) {
		bad(l, "USER needs a name");
		return;
	}
	if (!plain_allowed(l))
		return;
	forget_user(l);
	buf_add(&l->user, args);
	l->has_user = true;
	put(l, "+OK");
}

static void
start_auth(struct pop3_login *l, const char *mechanism, bool has_data, struct pop3_login_action *a)
{
	(void)snprintf(l->mechanism, sizeof(l->mechanism), "%s", mechanism);
	l->state = L_AUTH;
	a->want = POP3_LOGIN_AUTH_START;
	a->mechanism = l->mechanism;
	a->has_data = has_data;
	a->data = has_data ? buf_slice(&l->decoded) : SLICE_NULL;
}

/* The whole rest of the line is the password, blanks included (RFC 1939 section 7). */
static void
cmd_pass(struct pop3_login *l, struct slice args, struct pop3_login_action *a)
{
	if (!l->has_user) {
		bad(l, "USER first");
		return;
	}
	if (!plain_allowed(l)) {
		forget_user(l);
		return;
	}
	buf_wipe(&l->decoded);
	buf_add_byte(&l->decoded, 0);
	buf_add(&l->decoded, buf_slice(&l->user));
	buf_add_byte(&l->decoded, 0);
	buf_add(&l->decoded, args);
	forget_user(l);
	start_auth(l, "PLAIN", true, a);
}

/* auth-command = "AUTH" SP sasl-mech [SP initial-response] */
static void
cmd_auth(struct pop3_login *l, struct slice args, struct pop3_login_action *a)
{
	char upper[32];
	struct slice rest = args;
	struct slice name = slice_split(&rest, ' ');
	bool has_initial = name.n < args.n;

	forget_user(l);
	if (!offered(l, name) || slice_copy(name, upper, sizeof(upper)) < 0) {
		bad(l, *l->mechanisms || l->tls
			   ? "Mechanism is not offered"
			   : "[AUTH] Authentication needs TLS: use STLS first");
		return;
	}
	for (char *c = upper; *c; c++)
		*c = (char)ascii_upper((unsigned char)*c);
	buf_wipe(&l->decoded);
	if (has_initial && !slice_eq_str(rest, "=") &&
	    (!rest.n || base64_decode(&l->decoded, rest) < 0)) {
		bad(l, "Initial response is not base64");
		return;
	}
	start_auth(l, upper, has_initial, a);
}

static const struct command {
	const char *name;
	void (*run)(struct pop3_login *, struct slice args, struct pop3_login_action *);
} commands[] = {
	{ "CAPA", cmd_capa },
	{ "NOOP", cmd_noop },
	{ "QUIT", cmd_quit },
	{ "STLS", cmd_stls },
	{ "USER", cmd_user },
	{ "PASS", cmd_pass },
	{ "AUTH", cmd_auth },
};

static void
run_command(struct pop3_login *l, struct slice line, struct pop3_login_action *a)
{
	struct slice args = line;
	struct slice name = slice_split(&args, ' ');

	if (++l->commands > l->limits.max_commands) {
		end_at_limit(l, "Too many commands before login", "login_command_limit");
		return;
	}
	if (slice_find(line, 0) >= 0) {
		bad(l, "NUL in a command");
		return;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		if (slice_caseeq_str(name, commands[i].name)) {
			commands[i].run(l, args, a);
			return;
		}
	}
	bad(l, "Unknown command, or not before login");
}

/* --- input --- */

static void
got_response(struct pop3_login *l, struct slice line, struct pop3_login_action *a)
{
	const char *why = NULL;

	if (l->state == L_FINAL) {
		if (line.n == 0) {
			l->state = L_ACCEPTED;
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
		l->state = L_COMMAND;
		bad(l, why);
		a->want = POP3_LOGIN_AUTH_ABORT;
		return;
	}
	l->state = L_AUTH;
	a->want = POP3_LOGIN_AUTH_STEP;
	a->data = buf_slice(&l->decoded);
	a->has_data = true;
}

static size_t
feed_line(struct pop3_login *l, struct slice in, struct pop3_login_action *a)
{
	ptrdiff_t end = slice_find(in, '\n');
	size_t n = end < 0 ? in.n : (size_t)end + 1;
	size_t max = l->state == L_COMMAND ? POP3_LINE_MAX : l->limits.max_auth + 2;

	if (buf_len(&l->line) + n > max) {
		end_at_limit(l, "Line is too long",
		    l->state == L_COMMAND ? NULL : "smtpd_sasl_response_limit");
		return n;
	}
	buf_add(&l->line, slice_sub(in, 0, n));
	if (end < 0)
		return n;
	struct slice line = buf_slice(&l->line);
	line.n--;
	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	if (l->state == L_COMMAND)
		run_command(l, line, a);
	else
		got_response(l, line, a);
	buf_wipe(&l->line);
	return n;
}

size_t
pop3_login_feed(struct pop3_login *l, struct slice in, struct pop3_login_action *a)
{
	size_t taken = 0;

	*a = (struct pop3_login_action){ .want = POP3_LOGIN_MORE };
	while (a->want == POP3_LOGIN_MORE) {
		struct slice rest = slice_sub(in, taken, in.n);
		bool reads = l->state == L_COMMAND || l->state == L_RESPONSE || l->state == L_FINAL;

		if (l->state == L_CLOSED) {
			a->want = POP3_LOGIN_CLOSE;
		} else if (l->state == L_ACCEPTED) {
			l->state = L_HANDED;
			a->want = POP3_LOGIN_DONE;
		} else if (!rest.n || !reads) {
			break;
		} else {
			taken += feed_line(l, rest, a);
		}
	}
	return taken;
}

/* --- answers of the driver --- */

void
pop3_login_tls_done(struct pop3_login *l, const char *mechanisms)
{
	if (l->state != L_TLS)
		die("pop3_login_tls_done in state %d", l->state);
	free(l->mechanisms);
	l->mechanisms = xstrdup(mechanisms);
	l->can_stls = false;
	l->tls = true;
	l->errors = 0;
	forget_user(l);
	buf_wipe(&l->line);
	l->state = L_COMMAND;
}

static void
send_challenge(struct pop3_login *l, struct slice data)
{
	buf_add_str(&l->out, "+ ");
	base64_encode(&l->out, data);
	buf_add_str(&l->out, "\r\n");
}

void
pop3_login_challenge(struct pop3_login *l, struct slice data)
{
	if (l->state != L_AUTH)
		return;
	send_challenge(l, data);
	l->state = L_RESPONSE;
}

static void
refuse(struct pop3_login *l, enum pop3_login_failure why)
{
	static const char *const texts[] = {
		[POP3_LOGIN_FAIL_CREDENTIALS] = "-ERR [AUTH] Authentication failed",
		[POP3_LOGIN_FAIL_TEMPORARY] = "-ERR [SYS/TEMP] Temporary failure, try again later",
		[POP3_LOGIN_FAIL_EXPIRED] = "-ERR [AUTH] The password has expired",
		[POP3_LOGIN_FAIL_DENIED] = "-ERR [AUTH] Not allowed to log in here",
		[POP3_LOGIN_FAIL_PROTOCOL] = "-ERR The mechanism's response is malformed",
		[POP3_LOGIN_FAIL_LIMIT] = "-ERR [IN-USE] Too many connections",
		[POP3_LOGIN_FAIL_MAILBOX] =
		    "-ERR [SYS/PERM] Your mail lies in a file, which is not "
		    "served here: the administrator can set "
		    "home_mailbox = Maildir/",
	};

	buf_wipe(&l->decoded);
	l->state = L_COMMAND;
	put(l, texts[why]);
	if (++l->failures >= l->limits.max_auth_failures)
		end_at_limit(l, "Too many failed logins", "auth_failure_limit");
}

void
pop3_login_auth_failed(struct pop3_login *l, enum pop3_login_failure why)
{
	if (l->state == L_AUTH)
		refuse(l, why);
}

void
pop3_login_auth_ok(struct pop3_login *l, struct slice final, bool has_final)
{
	if (l->state != L_AUTH)
		return;
	if (has_final)
		send_challenge(l, final);
	buf_wipe(&l->decoded);
	l->state = has_final ? L_FINAL : L_ACCEPTED;
}

void
pop3_login_unavailable(struct pop3_login *l, enum pop3_login_failure why)
{
	if (l->state == L_HANDED || l->state == L_ACCEPTED)
		refuse(l, why);
}

void
pop3_login_handover(
    const struct pop3_login *l, struct slice peer, struct slice session_id, struct buf *out)
{
	struct imap_handover h = {
		.tag = slice_sub(slice_str(l->mechanisms), 0, 255),
		.tls = l->tls,
		.peer = peer,
		.id = session_id,
	};

	imap_handover_encode(&h, out);
}
