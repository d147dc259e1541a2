/*
 * POP3's part of the dialogue before login: its commands and its words. Runs in login-child
 * (bh-login, empty root) on bytes of strangers. Invariants: memory is bounded by POP3_LINE_MAX;
 * names and passwords are wiped with their line.
 */
#include "pop3/login.h"

struct pop3_dialogue {
	struct login login;
	struct buf user; /* of USER, until PASS */
	bool has_user;
};

static struct pop3_dialogue *
own(struct login *l)
{
	return (struct pop3_dialogue *)l;
}

static void
pop3_init(struct login *l)
{
	(void)l;
}

static void
forget_user(struct login *l)
{
	buf_wipe(&own(l)->user);
	own(l)->has_user = false;
}

/* --- what it says --- */

static void
put(struct login *l, const char *text)
{
	buf_add_str(&l->out, text);
	buf_add_str(&l->out, "\r\n");
}

static void
pop3_greet(struct login *l)
{
	buf_add_str(&l->out, "+OK ");
	put(l, l->limits.greeting && *l->limits.greeting ? l->limits.greeting : "POP3 ready");
}

static void
pop3_bad(struct login *l, const char *text)
{
	buf_addf(&l->out, "-ERR %s\r\n", text);
}

static void
pop3_failed(struct login *l, enum login_failure why)
{
	static const char *const texts[] = {
		[LOGIN_FAIL_CREDENTIALS] = "[AUTH] Authentication failed",
		[LOGIN_FAIL_TEMPORARY] = "[SYS/TEMP] Temporary failure, try again later",
		[LOGIN_FAIL_MECHANISM] = "The mechanism's response is malformed",
		[LOGIN_FAIL_LIMIT] = "[IN-USE] Too many connections",
		[LOGIN_FAIL_MAILBOX] =
		    "[SYS/PERM] Your mail lies in a file, which is not served here: the "
		    "administrator can set home_mailbox = Maildir/",
	};

	pop3_bad(l, texts[why]);
}

/* --- commands; args is what stands behind the keyword and one space --- */

static void
cmd_capa(struct login *l, struct slice args, struct login_action *a)
{
	(void)a;
	if (args.n) {
		login_bad(l, "CAPA takes no argument");
		return;
	}
	put(l, "+OK Capability list follows");
	put(l, "TOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING");
	if (l->can_starttls)
		put(l, "STLS");
	if (login_offered(l, SLICE_LIT("PLAIN")))
		put(l, "USER");
	if (*l->mechanisms)
		buf_addf(&l->out, "SASL %s\r\n", l->mechanisms);
	put(l, "EXPIRE NEVER\r\nIMPLEMENTATION Bulkhead\r\n.");
}

static void
cmd_noop(struct login *l, struct slice args, struct login_action *a)
{
	(void)args;
	(void)a;
	put(l, "+OK");
}

static void
cmd_quit(struct login *l, struct slice args, struct login_action *a)
{
	(void)args;
	put(l, "+OK Good bye");
	l->state = LOGIN_CLOSED;
	a->want = LOGIN_CLOSE;
}

static void
cmd_stls(struct login *l, struct slice args, struct login_action *a)
{
	if (args.n || !l->can_starttls) {
		login_bad(l, args.n   ? "STLS takes no argument"
			     : l->tls ? "TLS is already active"
				      : "TLS is not available");
		return;
	}
	put(l, "+OK Begin TLS negotiation now");
	forget_user(l);
	l->state = LOGIN_TLS;
	a->want = LOGIN_STARTTLS;
}

static bool
plain_allowed(struct login *l)
{
	if (login_offered(l, SLICE_LIT("PLAIN")))
		return true;
	put(l, l->tls ? "-ERR [AUTH] USER is disabled"
		      : "-ERR [AUTH] Passwords need TLS: use STLS first");
	return false;
}

static void
cmd_user(struct login *l, struct slice args, struct login_action *a)
{
	(void)a;
	if (!args.n) {
		login_bad(l, "USER needs a name");
		return;
	}
	if (!plain_allowed(l))
		return;
	forget_user(l);
	buf_add(&own(l)->user, args);
	own(l)->has_user = true;
	put(l, "+OK");
}

/* The whole rest of the line is the password, blanks included (RFC 1939 section 7). */
static void
cmd_pass(struct login *l, struct slice args, struct login_action *a)
{
	if (!own(l)->has_user) {
		login_bad(l, "USER first");
		return;
	}
	if (!plain_allowed(l)) {
		forget_user(l);
		return;
	}
	login_start_plain(l, buf_slice(&own(l)->user), args, a);
	forget_user(l);
}

/* auth-command = "AUTH" SP sasl-mech [SP initial-response] */
static void
cmd_auth(struct login *l, struct slice args, struct login_action *a)
{
	struct slice rest = args;
	struct slice name = slice_split(&rest, ' ');
	bool has_initial = name.n < args.n;

	forget_user(l);
	if (!login_offered(l, name)) {
		login_bad(l, *l->mechanisms || l->tls
				 ? "Mechanism is not offered"
				 : "[AUTH] Authentication needs TLS: use STLS first");
		return;
	}
	login_start(l, name, has_initial, rest, a);
}

static const struct command {
	const char *name;
	void (*run)(struct login *, struct slice args, struct login_action *);
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
run_command(struct login *l, struct slice line, struct login_action *a)
{
	struct slice args = line;
	struct slice name = slice_split(&args, ' ');

	if (!login_count_command(l))
		return;
	if (slice_find(line, 0) >= 0) {
		login_bad(l, "NUL in a command");
		return;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		if (slice_caseeq_str(name, commands[i].name)) {
			commands[i].run(l, args, a);
			return;
		}
	}
	login_bad(l, "Unknown command, or not before login");
}

static size_t
pop3_feed(struct login *l, struct slice in, struct login_action *a)
{
	struct slice line;
	size_t n = login_line(l, in, POP3_LINE_MAX, NULL, &line);

	if (line.p) {
		run_command(l, line, a);
		buf_wipe(&l->line);
	}
	return n;
}

static struct slice
pop3_tag(const struct login *l)
{
	return slice_str(l->mechanisms);
}

const struct login_protocol pop3_login = {
	.name = "pop3",
	.too_many = "-ERR [IN-USE] Too many connections\r\n",
	.gone = NULL,
	.input = 4096,
	.size = sizeof(struct pop3_dialogue),
	.init = pop3_init,
	.clear = forget_user,
	.forget = forget_user,
	.greet = pop3_greet,
	.bye = pop3_bad,
	.bad = pop3_bad,
	.failed = pop3_failed,
	.feed = pop3_feed,
	.tag = pop3_tag,
};
