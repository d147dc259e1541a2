/*
 * Logins of clients, in auth (bh-auth), for smtpd, submission and login. Hostile: the client's SASL
 * data, and a front end that is taken over: what a role may ask for stands in the table below.
 *
 * Invariants: an exchange is with a worker (RUNNING) or with the loop, and only one step of it is
 * under way; a failure is logged before its answer is delayed; a token is issued only for an
 * identity that libsasl2, PAM and NSS confirmed.
 */
#include "helpers/auth/exchange.h"

#include "base/inet.h"
#include "tls/openssl.h"

#include <stdio.h>
#include <stdlib.h>

/* status of auth_done */
enum { DONE_OK, DONE_REFUSED, DONE_TEMPORARY, DONE_NO_MECHANISM };

/* Who may log clients in to what, and what the token is good for. */
static const struct {
	enum role role;
	const char *service;
	bool once;
} services[] = {
	{ ROLE_SMTPD_CHILD, "smtp", false },
	{ ROLE_SUBMISSION_CHILD, "smtp", false },
	{ ROLE_LOGIN_CHILD, "imap", true },
	{ ROLE_LOGIN_CHILD, "pop3", true },
};
#define SERVICES (sizeof(services) / sizeof(services[0]))
#define SESSION_MAX_MS ((int64_t)24 * 3600 * 1000) /* of a submission token */

static void
exchange_free(struct exchange *e)
{
	struct auth *a = e->a;

	talk_close(a, &e->talk);
	if (e->waiting_key)
		hash_remove(&a->waiting, &e->waiting);
	sasl_exchange_free(&e->x);
	ev_timer_free(&e->delay);
	buf_wipe(&e->in);
	buf_wipe(&e->out);
	free(e);
}

/* The front end cancelled or died. A worker may still have it: then its end comes with the step's.
 */
static void
exchange_gone(struct talk *talk)
{
	struct exchange *e = CONTAINER(talk, struct exchange, talk);

	if (e->phase == PHASE_RUNNING)
		e->gone = true;
	else
		exchange_free(e);
}

/* --- answers --- */

static void
send_done(
    struct exchange *e, uint8_t status, struct slice user, struct slice token, const char *text)
{
	struct msg m = MSG_INIT(MSG_AUTH_DONE, e->talk.id), instead = m;

	instead.auth_done.status = DONE_TEMPORARY;
	instead.auth_done.text = SLICE_LIT("the login cannot be answered");
	m.auth_done.status = status;
	m.auth_done.user = user;
	m.auth_done.token = token;
	m.auth_done.text = slice_str(text);
	if (status == DONE_OK && e->has_out)
		m.auth_done.final = buf_slice(&e->out);
	if (e->talk.peer)
		(void)ipc_answer(e->talk.peer->chan, &m, &instead);
}

static void
late(void *ctx)
{
	struct exchange *e = ctx;

	send_done(e, e->late_status, SLICE_NULL, SLICE_NULL, e->late_text);
	exchange_free(e);
}

static void
fail(struct exchange *e, enum log_event event, uint8_t status, const char *why, const char *text)
{
	struct auth *a = e->a;
	const struct conf *conf = a->d->conf;
	int64_t wait = 0;
	char client[64];

	if (status == DONE_REFUSED) {
		struct slice who = penalty_client(
		    slice_str(e->client), (unsigned)conf->smtpd_client_ipv6_prefix_length, client);
		wait = penalty_fail(a->penalties, who, slice_str(e->x.claimed),
		    conf->auth_failure_delay, auth_now_ms());
		count(COUNT_logins_failed, 1);
	}
	log_event(event,
	    "sid=%s service=%s mechanism=%s user=%s client=%s reason=\"%s\" delay=%.1f",
	    log_cstr(e->session), e->x.service, log_cstr(e->x.mechanism), log_cstr(e->x.claimed),
	    log_cstr(e->client), why, (double)wait / 1000);
	log_flush();
	e->phase = PHASE_DELAY;
	e->late_status = status;
	e->late_text = text;
	if (wait)
		ev_timer_set(a->d->base, &e->delay, wait, late, e);
	else
		late(e);
}

void
exchange_refuse(struct exchange *e, const char *why)
{
	fail(e, LOG_auth_failed, DONE_REFUSED, why, "authentication failed");
}

void
exchange_temporary(struct exchange *e, const char *why)
{
	fail(e, LOG_auth_unavailable, DONE_TEMPORARY, why, "temporary authentication failure");
}

void
exchange_succeed(struct exchange *e, struct account *account)
{
	struct auth *a = e->a;
	const struct conf *conf = a->d->conf;
	unsigned char token[TOKEN_SIZE];
	char client[64], user[USERS_NAME_MAX + 1];
	bool once = true;
	int err;

	for (size_t i = 0; i < SERVICES; i++)
		if (strcmp(services[i].service, e->x.service) == 0)
			once = services[i].once;
	if (slice_copy(account->user, user, sizeof(user)) < 0)
		user[0] = 0;
	/* One for submission is good while its front end's process lives, the others by themselves.
	 */
	err = tokens_issue(a->tokens, e->x.service, once ? NULL : e->talk.peer, once,
	    auth_now_ms() + (once ? conf->auth_token_lifetime : SESSION_MAX_MS), &account, token);
	if (err) {
		account_free(&account);
		exchange_temporary(e, err_str(err));
		return;
	}
	penalty_ok(a->penalties,
	    penalty_client(
		slice_str(e->client), (unsigned)conf->smtpd_client_ipv6_prefix_length, client),
	    slice_str(e->x.claimed));
	count(COUNT_logins, 1);
	log_event(LOG_auth_ok, "sid=%s service=%s mechanism=%s user=%s client=%s%s",
	    log_cstr(e->session), e->x.service, e->x.mechanism, log_cstr(user), log_cstr(e->client),
	    e->x.cached ? " cached=yes" : "");
	send_done(e, DONE_OK, slice_str(user), slice(token, sizeof(token)), "");
	OPENSSL_cleanse(token, sizeof(token));
	exchange_free(e);
}

/* --- steps --- */

static void
run(struct job *job)
{
	struct exchange *e = CONTAINER(job, struct exchange, job);

	buf_clear(&e->out);
	e->result = sasl_step(&e->x, buf_slice(&e->in), e->has_in, &e->out, &e->has_out);
}

static void
expired(struct talk *talk)
{
	struct exchange *e = CONTAINER(talk, struct exchange, talk);

	log_event(LOG_auth_expired,
	    "sid=%s service=%s mechanism=%s client=%s limit=auth_exchange_timeout",
	    log_cstr(e->session), e->x.service, log_cstr(e->x.mechanism), log_cstr(e->client));
	exchange_free(e);
}

static void
send_challenge(struct exchange *e)
{
	struct msg m = MSG_INIT(MSG_AUTH_CHALLENGE, e->talk.id);
	int err;

	m.auth_challenge.challenge = buf_slice(&e->out);
	e->phase = PHASE_IDLE;
	err = ipc_send(e->talk.peer->chan, &m);
	if (err == ERR_LIMIT)
		exchange_temporary(e, "the mechanism's challenge is longer than a message holds");
	else if (err)
		exchange_free(e);
	else
		talk_waits(&e->talk, expired);
}

static void
stepped(struct job *job)
{
	struct exchange *e = CONTAINER(job, struct exchange, job);
	const char *why = e->x.why ? e->x.why : "";

	e->phase = PHASE_IDLE;
	if (e->gone) {
		exchange_free(e);
		return;
	}
	switch (e->result) {
	case SASL_STEP_CONTINUE:
		send_challenge(e);
		break;
	case SASL_STEP_OK:
		exchange_succeed(e, account_of_user(e->a, &e->x.user));
		break;
	case SASL_STEP_PAM:
		exchange_ask_pam(e);
		break;
	case SASL_STEP_NO_MECHANISM:
		fail(e, LOG_auth_failed, DONE_NO_MECHANISM, why, "mechanism not available");
		break;
	case SASL_STEP_TEMPORARY:
		exchange_temporary(e, why);
		break;
	default:
		exchange_refuse(e, why);
	}
}

static void
submit(struct exchange *e, struct slice in, bool has_in)
{
	talk_goes_on(&e->talk);
	buf_wipe(&e->in);
	buf_add(&e->in, in);
	e->has_in = has_in;
	e->phase = PHASE_RUNNING;
	e->job.run = run;
	e->job.done = stepped;
	pool_submit(e->a->pool, &e->job);
}

static bool
offered(const struct conf *conf, const char *mechanism)
{
	for (size_t i = 0; i < conf->auth_mechanisms.n; i++)
		if (strcasecmp(conf->auth_mechanisms.v[i], mechanism) == 0)
			return true;
	return false;
}

static void
keep(struct slice in, unsigned char *out, size_t size, struct slice *kept)
{
	size_t n = in.n < size ? in.n : 0;

	if (n)
		memcpy(out, in.p, n);
	*kept = slice(out, n);
}

static struct exchange *
exchange_new(struct auth *a, const struct msg_auth_start *s)
{
	struct exchange *e = xcalloc(1, sizeof(*e));
	char plus[48];

	e->a = a;
	e->x.shared = &a->sasl;
	e->x.ssf = s->tls ? 256 : 0;
	(void)!slice_copy(s->client, e->client, sizeof(e->client));
	(void)!slice_copy(s->session, e->session, sizeof(e->session));
	(void)!slice_copy(s->service, e->x.service, sizeof(e->x.service));
	if (slice_copy(s->mechanism, e->x.mechanism, sizeof(e->x.mechanism)) < 0)
		e->x.mechanism[0] = 0;
	for (char *p = e->x.mechanism; *p; p++)
		*p = (char)ascii_upper((unsigned char)*p);
	keep(s->exporter, e->exporter, sizeof(e->exporter), &e->x.exporter);
	keep(s->endpoint, e->endpoint, sizeof(e->endpoint), &e->x.endpoint);
	snprintf(plus, sizeof(plus), "%.32s%s", e->x.mechanism,
	    slice_has_suffix(slice_str(e->x.mechanism), "-PLUS") ? "" : "-PLUS");
	e->x.plus_offered = offered(a->d->conf, plus);
	(void)!slice_copy(slice_str(a->d->conf->smtpd_sasl_local_domain), e->x.local_domain,
	    sizeof(e->x.local_domain));
	if (a->d->conf->auth_external && s->external.n &&
	    slice_copy(s->external, e->external, sizeof(e->external)) == 0)
		e->x.external = e->external;
	return e;
}

/* Counts this login of its client; true if there are too many. */
static bool
too_often(struct exchange *e)
{
	struct auth *a = e->a;
	const struct conf *conf = a->d->conf;
	const struct conf_list *spared = &conf->smtpd_client_event_limit_exceptions;
	struct inet_addr addr;
	struct slice who;
	char client[64];

	if (!conf->smtpd_client_auth_rate_limit ||
	    (!inet_parse(slice_str(e->client), &addr) && inet_in_list(&addr, spared->v, spared->n)))
		return false;
	who = penalty_client(
	    slice_str(e->client), (unsigned)conf->smtpd_client_ipv6_prefix_length, client);
	return rate_count(&a->rates, who, 0, 1, auth_now_ms()) >
	       (uint64_t)conf->smtpd_client_auth_rate_limit;
}

void
exchange_start(struct auth *a, struct ipc_chan *ch, const struct msg *m)
{
	const struct msg_auth_start *s = &m->auth_start;
	struct exchange *e = exchange_new(a, s);
	bool permitted = false;

	for (size_t i = 0; i < SERVICES; i++)
		if (services[i].role == ipc_chan_peer(ch) &&
		    slice_eq_str(s->service, services[i].service))
			permitted = true;
	if (talk_open(a, ch, m->id, &e->talk, exchange_gone) < 0) {
		struct msg full = MSG_INIT(MSG_AUTH_DONE, m->id);
		full.auth_done.status = DONE_TEMPORARY;
		full.auth_done.text = SLICE_LIT("too many logins under way");
		(void)ipc_send(ch, &full);
		exchange_free(e);
		return;
	}
	if (!permitted)
		fail(e, LOG_auth_failed, DONE_NO_MECHANISM, "this front end has no such service",
		    "service not available");
	else if (!s->tls ||
		 !(offered(a->d->conf, e->x.mechanism) ||
		     (a->d->conf->auth_external && strcmp(e->x.mechanism, "EXTERNAL") == 0)))
		fail(e, LOG_auth_failed, DONE_NO_MECHANISM,
		    s->tls ? "mechanism not in auth_mechanisms" : "no TLS",
		    "mechanism not available");
	else if (too_often(e))
		fail(e, LOG_auth_limited, DONE_TEMPORARY,
		    "too many logins of this client: smtpd_client_auth_rate_limit",
		    "too many logins, try again later");
	else
		submit(e, s->initial, s->has_initial);
}

void
exchange_response(struct auth *a, struct ipc_chan *ch, const struct msg *m)
{
	struct talk *talk = talk_find(ch, m->id);
	struct exchange *e = talk ? CONTAINER(talk, struct exchange, talk) : NULL;
	struct msg done = MSG_INIT(MSG_AUTH_DONE, m->id);

	(void)a;
	if (e && e->phase == PHASE_IDLE)
		submit(e, m->auth_response.response, true);
	if (talk)
		return;
	done.auth_done.status = DONE_TEMPORARY;
	done.auth_done.text = SLICE_LIT("no such login, or it took too long");
	(void)ipc_send(ch, &done);
}

void
exchange_cancel(struct auth *a, struct ipc_chan *ch, uint32_t id)
{
	struct talk *talk = talk_find(ch, id);

	if (!talk)
		return;
	talk_close(a, talk);
	exchange_gone(talk);
}
