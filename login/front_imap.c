/*
 * IMAP before login, for login-child (bh-login): maps the engine of lib/imap/login.h to
 * login/front.h. The engine meets the stranger's bytes; nothing is parsed here.
 */
#include "login/front.h"

#include "imap/login.h"

static void *
engine_new(const struct conf *conf, const char *mechanisms, bool can_starttls, bool tls)
{
	struct imap_login_limits limits = { .max_auth = (size_t)conf->smtpd_sasl_response_limit,
		.max_command = (size_t)conf->login_command_size_limit,
		.max_errors = (unsigned)conf->login_error_limit,
		.max_commands = (unsigned)conf->login_command_limit,
		.max_auth_failures = (unsigned)conf->auth_failure_limit,
		.greeting = conf->login_greeting };

	return imap_login_new(&limits, mechanisms, can_starttls, tls);
}

static void
engine_free(void **engine)
{
	struct imap_login *l = *engine;

	imap_login_free(&l);
	*engine = NULL;
}

static struct buf *
engine_out(void *engine)
{
	return imap_login_out(engine);
}

static void
engine_greet(void *engine)
{
	imap_login_greet(engine);
}

static size_t
engine_feed(void *engine, struct slice in, struct front_action *a)
{
	static const enum front_want wants[] = {
		[IMAP_LOGIN_MORE] = FRONT_MORE,
		[IMAP_LOGIN_STARTTLS] = FRONT_STARTTLS,
		[IMAP_LOGIN_AUTH_START] = FRONT_AUTH_START,
		[IMAP_LOGIN_AUTH_STEP] = FRONT_AUTH_STEP,
		[IMAP_LOGIN_AUTH_ABORT] = FRONT_AUTH_ABORT,
		[IMAP_LOGIN_DONE] = FRONT_DONE,
		[IMAP_LOGIN_CLOSE] = FRONT_CLOSE,
	};
	struct imap_login_action action = { 0 };
	size_t n = imap_login_feed(engine, in, &action);

	a->want = wants[action.want];
	a->mechanism = action.mechanism;
	a->data = action.data;
	a->has_data = action.has_data;
	return n;
}

static void
engine_tls_done(void *engine, const char *mechanisms)
{
	imap_login_tls_done(engine, mechanisms);
}

static void
engine_challenge(void *engine, struct slice data)
{
	imap_login_challenge(engine, data);
}

static enum imap_login_failure
failure(enum front_failure why)
{
	switch (why) {
	case FRONT_FAIL_TEMPORARY:
		return IMAP_LOGIN_FAIL_TEMPORARY;
	case FRONT_FAIL_MECHANISM:
		return IMAP_LOGIN_FAIL_PROTOCOL;
	case FRONT_FAIL_LIMIT:
		return IMAP_LOGIN_FAIL_LIMIT;
	case FRONT_FAIL_MAILBOX:
		return IMAP_LOGIN_FAIL_MAILBOX;
	default:
		return IMAP_LOGIN_FAIL_CREDENTIALS;
	}
}

static void
engine_failed(void *engine, enum front_failure why)
{
	imap_login_auth_failed(engine, failure(why));
}

static void
engine_ok(void *engine, struct slice final, bool has_final)
{
	imap_login_auth_ok(engine, final, has_final);
}

static void
engine_unavailable(void *engine, enum front_failure why)
{
	imap_login_unavailable(engine, failure(why));
}

static void
engine_bye(void *engine, const char *text)
{
	imap_login_bye(engine, text);
}

static const char *
engine_ended(const void *engine, const char **limit_r)
{
	return imap_login_ended(engine, limit_r);
}

static void
engine_handover(const void *engine, struct slice peer, struct slice sid, struct buf *out)
{
	imap_login_handover(engine, peer, sid, out);
}

const struct front front_imap = {
	.service = "imap",
	.alpn = "imap",
	.too_many = "* BYE [LIMIT] Too many connections\r\n",
	.gone = "* BYE [UNAVAILABLE] The session ended; connect again\r\n",
	.input = IMAP_LOGIN_INPUT,
	.new = engine_new,
	.free = engine_free,
	.out = engine_out,
	.greet = engine_greet,
	.feed = engine_feed,
	.tls_done = engine_tls_done,
	.challenge = engine_challenge,
	.failed = engine_failed,
	.ok = engine_ok,
	.unavailable = engine_unavailable,
	.bye = engine_bye,
	.ended = engine_ended,
	.handover = engine_handover,
};
