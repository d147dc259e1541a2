/*
 * STARTTLS (RFC 3207) and AUTH (RFC 4954):
 *   auth-command = "AUTH" SP sasl-mech [SP initial-response] *(CRLF [base64]) [CRLF cancel] CRLF
 * The SASL octets themselves are for the auth daemon. Runs in smtpd and submission on hostile
 * input. Invariants: after STARTTLS nothing that was read or learnt before it is used again;
 * between auth_start and its verdict exactly one of verdict and auth_cancel is seen; only strict
 * base64 is passed on.
 */
#include "mail/base64.h"
#include "smtp/server_priv.h"

void
smtp_do_starttls(struct smtp_server *s, struct slice args)
{
	(void)args;
	if (s->tls) {
		SMTP_SAY(s, 554, "5.5.1", "Error: TLS already active");
		return;
	}
	if (s->no_tls && s->policy->extensions & SMTP_EXT_STARTTLS) {
		SMTP_SAY(s, 454, "4.7.0", "TLS not available due to temporary reason");
		return;
	}
	if (!smtp_offers(s, SMTP_EXT_STARTTLS)) {
		SMTP_SAY(s, 502, "5.5.1", "Error: TLS is not offered");
		return;
	}
	SMTP_SAY(s, 220, "2.0.0", "Ready to start TLS");
	/* whatever the client sent after the command came in the clear: nobody may use it */
	s->in = SLICE_NULL;
	line_reset(&s->line);
	smtp_tx_end(s);
	s->hello[0] = '\0';
	s->esmtp = s->authenticated = false;
	smtp_set_state(s, SMTP_TLS);
	s->wait = WAIT_TLS;
	s->ops->start_tls(s->ctx, s);
}

void
smtp_server_answer_tls(struct smtp_server *s, bool ok)
{
	if (s->wait != WAIT_TLS)
		return;
	s->wait = WAIT_NONE;
	if (!ok) {
		smtp_close(s);
		return;
	}
	buf_wipe(&s->pending);
	s->tls = true;
	smtp_set_state(s, SMTP_HELLO);
}

/* sasl-mech = 1*20(UPPER-ALPHA / DIGIT / "-" / "_"), any case taken. */
static bool
is_mechanism(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!ascii_is_alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_')
			return false;
	return s.n >= 1 && s.n <= 20;
}

/* AUTH is known, but not now. */
static bool
is_barred(struct smtp_server *s)
{
	if (s->authenticated)
		SMTP_SAY(s, 503, "5.5.1", "Error: already authenticated");
	else if (!s->esmtp || !(s->policy->extensions & SMTP_EXT_AUTH))
		SMTP_SAY(s, 503, "5.5.1", "Error: authentication not enabled");
	else if (s->policy->auth_needs_tls && !s->tls)
		SMTP_SAY(s, 538, "5.7.11", "Encryption required for authentication");
	else
		return false;
	return true;
}

void
smtp_do_auth(struct smtp_server *s, struct slice args)
{
	struct slice mechanism = slice_split(&args, ' ');
	bool has_initial = args.n > 0;
	struct buf initial;

	if (is_barred(s))
		return;
	if (!is_mechanism(mechanism)) {
		SMTP_SAY(s, 501, "5.5.4", "Syntax: AUTH mechanism [initial-response]");
		return;
	}
	buf_init(&initial, 0);
	if (has_initial && !slice_eq_str(args, "=") && base64_decode(&initial, args)) {
		SMTP_SAY(s, 501, "5.5.2", "Error: bad base64 in the initial response");
	} else {
		smtp_set_state(s, SMTP_AUTH);
		s->wait = WAIT_AUTH;
		s->auth_active = true;
		s->ops->auth_start(s->ctx, s, mechanism, has_initial, buf_slice(&initial));
	}
	buf_wipe(&initial);
}

void
smtp_auth_response(struct smtp_server *s, struct slice line)
{
	struct buf response;

	buf_init(&response, 0);
	if (slice_eq_str(line, "*")) {
		smtp_auth_end(s);
		smtp_set_state(s, SMTP_READY);
		SMTP_SAY(s, 501, "5.7.0", "Authentication cancelled by the client");
	} else if (base64_decode(&response, line)) {
		smtp_auth_end(s);
		smtp_set_state(s, SMTP_READY);
		SMTP_SAY(s, 501, "5.5.2", "Error: bad base64 in the response");
	} else {
		s->wait = WAIT_AUTH;
		s->ops->auth_step(s->ctx, s, buf_slice(&response));
	}
	buf_wipe(&response);
}

void
smtp_auth_end(struct smtp_server *s)
{
	if (!s->auth_active)
		return;
	s->auth_active = false;
	s->ops->auth_cancel(s->ctx, s);
}

void
smtp_server_answer_auth_challenge(struct smtp_server *s, struct slice challenge)
{
	if (s->wait != WAIT_AUTH)
		return;
	s->wait = WAIT_NONE;
	buf_add_str(&s->out, "334 ");
	base64_encode(&s->out, challenge);
	buf_add_str(&s->out, "\r\n");
	smtp_server_resume(s);
}

void
smtp_server_answer_auth_ok(struct smtp_server *s)
{
	if (s->wait != WAIT_AUTH)
		return;
	s->wait = WAIT_NONE;
	s->auth_active = false;
	s->authenticated = true;
	smtp_set_state(s, SMTP_READY);
	SMTP_SAY(s, 235, "2.7.0", "Authentication successful");
	smtp_server_resume(s);
}

void
smtp_server_answer_auth_failed(struct smtp_server *s, const struct reply *r)
{
	if (s->wait != WAIT_AUTH)
		return;
	s->wait = WAIT_NONE;
	s->auth_active = false;
	smtp_set_state(s, SMTP_READY);
	smtp_send(s, r ? r : &REPLY(535, "5.7.8", "Error: authentication failed"));
	smtp_server_resume(s);
}
