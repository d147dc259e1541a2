/*
 * IMAP's part of the dialogue before login: its commands and its words. Runs in login-child
 * (bh-login, empty root) on bytes of strangers. Invariants: memory is bounded by max_command; the
 * command's bytes are wiped when it ends.
 */
#include "imap/login.h"
#include "imap/capability.h"
#include "imap/parse.h"
#include "imap/reader.h"

enum { TAG_MAX = 255 };

struct imap_dialogue {
	struct login login;
	struct imap_reader reader;
	struct arena arena;
	unsigned char tag[TAG_MAX];
	size_t tag_len;
};

static struct imap_dialogue *
own(struct login *l)
{
	return (struct imap_dialogue *)l;
}

static void
imap_init(struct login *l)
{
	imap_reader_init(
	    &own(l)->reader, l->limits.max_command, 4 * (uint64_t)l->limits.max_command);
}

static void
imap_clear(struct login *l)
{
	imap_reader_free(&own(l)->reader);
	arena_wipe(&own(l)->arena);
}

/* --- what it says --- */

static void
put(struct login *l, const char *text)
{
	buf_add_str(&l->out, text);
}

static void
put_capability(struct login *l)
{
	imap_capability_login(&l->out, l->mechanisms, l->can_starttls);
}

static void
imap_greet(struct login *l)
{
	put(l, "* OK [CAPABILITY ");
	put_capability(l);
	put(l, "] ");
	put(l, l->limits.greeting && *l->limits.greeting ? l->limits.greeting : "Ready");
	put(l, "\r\n");
}

static void
imap_bye(struct login *l, const char *text)
{
	buf_addf(&l->out, "* BYE %s\r\n", text);
}

static void
tagged(struct login *l, const char *status, const char *text)
{
	if (own(l)->tag_len)
		buf_add(&l->out, slice(own(l)->tag, own(l)->tag_len));
	else
		put(l, "*");
	buf_addf(&l->out, " %s%s\r\n", status, text);
}

static void
imap_bad(struct login *l, const char *text)
{
	tagged(l, "BAD ", text);
}

static void
imap_failed(struct login *l, enum login_failure why)
{
	static const char *const texts[] = {
		[LOGIN_FAIL_CREDENTIALS] = "NO [AUTHENTICATIONFAILED] Authentication failed",
		[LOGIN_FAIL_TEMPORARY] = "NO [UNAVAILABLE] Temporary failure, try again later",
		[LOGIN_FAIL_MECHANISM] = "BAD The mechanism's response is malformed",
		[LOGIN_FAIL_LIMIT] = "NO [LIMIT] Too many connections",
		[LOGIN_FAIL_MAILBOX] =
		    "NO [CONTACTADMIN] Your mail lies in a file, which is not served here: "
		    "the administrator can set home_mailbox = Maildir/",
	};

	tagged(l, "", texts[why]);
}

static void
wipe_command(struct login *l)
{
	struct imap_dialogue *d = own(l);
	struct slice all = buf_slice(&d->reader.cmd);

	if (all.n)
		explicit_bzero((void *)(uintptr_t)all.p, all.n);
	imap_reader_next(&d->reader);
	arena_wipe(&d->arena);
}

/* --- commands --- */

static void
cmd_capability(struct login *l, struct imap_parse *p, struct login_action *a)
{
	(void)a;
	if (!imap_end(p))
		return;
	put(l, "* CAPABILITY ");
	put_capability(l);
	put(l, "\r\n");
	tagged(l, "", "OK Done");
}

static void
cmd_noop(struct login *l, struct imap_parse *p, struct login_action *a)
{
	(void)a;
	if (imap_end(p))
		tagged(l, "", "OK Done");
}

static void
cmd_logout(struct login *l, struct imap_parse *p, struct login_action *a)
{
	if (!imap_end(p))
		return;
	put(l, "* BYE Good bye\r\n");
	tagged(l, "", "OK Logged out");
	l->state = LOGIN_CLOSED;
	a->want = LOGIN_CLOSE;
}

/* id = "ID" SP id-params-list */
static void
cmd_id(struct login *l, struct imap_parse *p, struct login_action *a)
{
	(void)a;
	if (!imap_sp(p) || !imap_id_params(p) || !imap_end(p))
		return;
	put(l, "* ID (\"name\" \"Bulkhead\")\r\n");
	tagged(l, "", "OK Done");
}

static void
cmd_starttls(struct login *l, struct imap_parse *p, struct login_action *a)
{
	if (!imap_end(p))
		return;
	if (!l->can_starttls) {
		login_bad(l, l->tls ? "TLS is already active" : "TLS is not available");
		return;
	}
	tagged(l, "", "OK Begin TLS negotiation now");
	l->state = LOGIN_TLS;
	a->want = LOGIN_STARTTLS;
}

/* login = "LOGIN" SP userid SP password: checked as PLAIN (RFC 4616) with an empty authzid. */
static void
cmd_login(struct login *l, struct imap_parse *p, struct login_action *a)
{
	struct slice user, password;

	if (!imap_sp(p) || !imap_astring(p, &user) || !imap_sp(p) || !imap_astring(p, &password) ||
	    !imap_end(p))
		return;
	if (!login_offered(l, SLICE_LIT("PLAIN"))) {
		tagged(l, "",
		    l->tls ? "NO [CANNOT] LOGIN is disabled"
			   : "NO [PRIVACYREQUIRED] LOGIN needs TLS: use STARTTLS first");
		return;
	}
	login_start_plain(l, user, password, a);
}

/* authenticate = "AUTHENTICATE" SP auth-type [SP initial-resp] */
static void
cmd_authenticate(struct login *l, struct imap_parse *p, struct login_action *a)
{
	struct slice name, initial = SLICE_NULL;
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
	if (!login_offered(l, name)) {
		tagged(l, "",
		    *l->mechanisms || l->tls
			? "NO [CANNOT] Mechanism is not offered"
			: "NO [PRIVACYREQUIRED] Authentication needs TLS: use STARTTLS first");
		return;
	}
	login_start(l, name, has_initial, initial, a);
}

static const struct command {
	const char *name;
	void (*run)(struct login *, struct imap_parse *, struct login_action *);
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
run_command(struct login *l, struct login_action *a)
{
	struct imap_dialogue *d = own(l);
	struct imap_parse p = imap_parse(buf_slice(&d->reader.cmd), &d->arena);
	struct slice tag, name;

	d->tag_len = 0;
	if (!login_count_command(l))
		return;
	if (!imap_tag(&p, &tag) || tag.n > TAG_MAX) {
		login_bad(l, "Tag expected");
		return;
	}
	memcpy(d->tag, tag.p, tag.n);
	d->tag_len = tag.n;
	if (!imap_sp(&p) || !imap_atom(&p, &name)) {
		login_bad(l, "Command expected");
		return;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (slice_caseeq_str(name, commands[i].name)) {
			commands[i].run(l, &p, a);
			if (p.why)
				login_bad(l, p.why);
			return;
		}
	login_bad(l, "Unknown command, or not before login");
}

/* --- input --- */

static void
announced(struct login *l)
{
	if (imap_reader_accept(&own(l)->reader) == 0) {
		if (own(l)->reader.literal_sync)
			put(l, "+ Ready\r\n");
		return;
	}
	login_end_at_limit(l, "Literal is too large", "login_command_size_limit");
}

static size_t
feed_command(struct login *l, struct slice in, struct login_action *a)
{
	enum imap_read event;
	size_t n = imap_reader_feed(&own(l)->reader, in, &event);

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
		login_end_at_limit(l, "Command is too long", "login_command_size_limit");
		break;
	default:
		break;
	}
	return n;
}

static struct slice
imap_tag_of(const struct login *l)
{
	const struct imap_dialogue *d = (const struct imap_dialogue *)l;

	return slice(d->tag, d->tag_len);
}

const struct login_protocol imap_login = {
	.name = "imap",
	.too_many = "* BYE [LIMIT] Too many connections\r\n",
	.gone = "* BYE [UNAVAILABLE] The session ended; connect again\r\n",
	.input = 8192,
	.size = sizeof(struct imap_dialogue),
	.init = imap_init,
	.clear = imap_clear,
	.forget = wipe_command,
	.greet = imap_greet,
	.bye = imap_bye,
	.bad = imap_bad,
	.failed = imap_failed,
	.feed = feed_command,
	.tag = imap_tag_of,
};
