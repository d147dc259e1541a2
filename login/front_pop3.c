/*
 * POP3 before login, for login-child (bh-login): maps the engine of lib/pop3/login.h to
 * login/front.h. The engine meets the stranger's bytes; nothing is parsed here.
 */
#include "login/front.h"

#include "pop3/login.h"

static void *
engine_new(const struct conf *conf, const char *mechanisms, bool can_starttls, bool tls)
{
	struct pop3_login_limits limits = { .max_auth = (size_t)conf->smtpd_sasl_response_limit,
		.max_errors = (unsigned)conf->login_error_limit,
		.max_commands = (unsigned)conf->login_command_limit,
		.max_auth_failures = (unsigned)conf->auth_failure_limit,
		.greeting = conf->login_greeting };

	return pop3_login_new(&limits, mechanisms, can_starttls, tls);
}

static void
engine_free(void **engine)
{
	struct pop3_login *l = *engine;

	pop3_login_free(&l);
	*engine = NULL;
}

static struct buf *
engine_out(void *engine)
{
	return pop3_login_out(engine);
}

static void
engine_greet(void *engine)
{
	pop3_login_greet(engine);
}

static size_t
engine_feed(void *engine, struct slice in, struct front_action *a)
{
	static const enum front_want wants[] = {
		[POP3_LOGIN_MORE] = FRONT_MORE,
		[POP3_LOGIN_STARTTLS] = FRONT_STARTTLS,
		[POP3_LOGIN_AUTH_START] = FRONT_AUTH_START,
		[POP3_LOGIN_AUTH_STEP] = FRONT_AUTH_STEP,
		[POP3_LOGIN_AUTH_ABORT] = FRONT_AUTH_ABORT,
		[POP3_LOGIN_DONE] = FRONT_DONE,
		[POP3_LOGIN_CLOSE] = FRONT_CLOSE,
	};
	struct pop3_login_action action = { 0 };
	size_t n = pop3_login_feed(engine, in, &action);

	a->want = wants[action.want];
	a->mechanism = action.mechanism;
	a->data = action.data;
	a->has_data = action.has_data;
	return n;
}

static void
engine_tls_done(void *engine, const char *mechanisms)
{
	pop3_login_tls_done(engine, mechanisms);
}

static void
engine_challenge(void *engine, struct slice data)
{
	pop3_login_challenge(engine, data);
}

static enum pop3_login_failure
failure(enum front_failure why)
{
	switch (why) {
	case FRONT_FAIL_TEMPORARY:
		return POP3_LOGIN_FAIL_TEMPORARY;
	case FRONT_FAIL_MECHANISM:
		return POP3_LOGIN_FAIL_PROTOCOL;
	case FRONT_FAIL_LIMIT:
		return POP3_LOGIN_FAIL_LIMIT;
	case FRONT_FAIL_MAILBOX:
		return POP3_LOGIN_FAIL_MAILBOX;
	default:
		return POP3_LOGIN_FAIL_CREDENTIALS;
	}
}

static void
engine_failed(void *engine, enum front_failure why)
{
	pop3_login_auth_failed(engine, failure(why));
}

static void
engine_ok(void *engine, struct slice final, bool has_final)
{
	pop3_login_auth_ok(engine, final, has_final);
}

static void
engine_unavailable(void *engine, enum front_failure why)
{
	pop3_login_unavailable(engine, failure(why));
}

static void
engine_bye(void *engine, const char *text)
{
	pop3_login_bye(engine, text);
}

static const char *
engine_ended(const void *engine, const char **limit_r)
{
	return pop3_login_ended(engine, limit_r);
}

static void
engine_handover(const void *engine, struct slice peer, struct slice sid, struct buf *out)
{
	pop3_login_handover(engine, peer, sid, out);
}

const struct front front_pop3 = {
	.service = "pop3",
	.alpn = "pop3",
	.too_many = "-ERR [IN-USE] Too many connections\r\n",
	.gone = NULL,
	.input = POP3_LOGIN_INPUT,
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
