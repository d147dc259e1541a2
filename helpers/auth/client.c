/*
 * Logins of our own at smarthosts, in auth (bh-auth), for smtp-client: the password never leaves
 * this process. Hostile: what the smarthost answers, and an smtp-client that is taken over: it can
 * use a password at the destination that it names, but not read it (SCRAM), and PLAIN is used only
 * where it says that TLS is on.
 */
#include "helpers/auth/mechanisms.h"
#include "helpers/auth/peer.h"

#include "tls/openssl.h"

#include <stdio.h>
#include <stdlib.h>

/* status of sasl_client_step */
enum { STEP_SEND, STEP_NO_CREDENTIALS, STEP_FAILED, STEP_TEMPORARY };

struct login {
	struct job job;
	struct talk talk;
	struct auth *a;
	struct sasl_exchange x;
	bool running, gone, first;
	char *user, *password, *host, *mechanisms;
	struct buf in, out;
	bool has_in, has_out;
	enum sasl_result result;
};

static void
login_free(struct login *l)
{
	talk_close(l->a, &l->talk);
	sasl_exchange_free(&l->x);
	if (l->password)
		OPENSSL_cleanse(l->password, strlen(l->password));
	free(l->user);
	free(l->password);
	free(l->host);
	free(l->mechanisms);
	buf_wipe(&l->in);
	buf_wipe(&l->out);
	free(l);
}

static void
login_gone(struct talk *talk)
{
	struct login *l = CONTAINER(talk, struct login, talk);

	if (l->running)
		l->gone = true;
	else
		login_free(l);
}

static void
answer(struct ipc_chan *ch, uint32_t id, uint8_t status, const char *mechanism, struct slice data,
    const char *text)
{
	struct msg m = MSG_INIT(MSG_SASL_CLIENT_STEP, id), instead = m;

	instead.sasl_client_step.status = STEP_FAILED;
	instead.sasl_client_step.text = SLICE_LIT("the mechanism's data cannot be sent");
	m.sasl_client_step.status = status;
	m.sasl_client_step.mechanism = slice_str(mechanism);
	m.sasl_client_step.has_data = status == STEP_SEND && data.p != NULL;
	m.sasl_client_step.data = data;
	m.sasl_client_step.text = slice_str(text);
	(void)ipc_answer(ch, &m, &instead);
}

static void
run(struct job *job)
{
	struct login *l = CONTAINER(job, struct login, job);

	buf_clear(&l->out);
	l->result = sasl_step(&l->x, buf_slice(&l->in), l->has_in, &l->out, &l->has_out);
}

static void
expired(struct talk *talk)
{
	struct login *l = CONTAINER(talk, struct login, talk);

	log_event(LOG_auth_expired,
	    "service=smarthost mechanism=%s host=%s user=%s "
	    "limit=auth_exchange_timeout",
	    log_cstr(l->x.mechanism), log_cstr(l->host), log_cstr(l->user));
	login_free(l);
}

static void
done(struct job *job)
{
	struct login *l = CONTAINER(job, struct login, job);
	struct ipc_chan *ch;
	struct slice data =
	    l->has_out ? slice(buf_len(&l->out) ? buf_slice(&l->out).p : (const unsigned char *)"",
			     buf_len(&l->out))
		       : SLICE_NULL;

	l->running = false;
	if (l->gone) {
		login_free(l);
		return;
	}
	ch = l->talk.peer->chan;
	if (l->result == SASL_STEP_OK || l->result == SASL_STEP_CONTINUE) {
		answer(ch, l->talk.id, STEP_SEND, l->first ? l->x.mechanism : "", data, "");
		l->first = false;
		talk_waits(&l->talk, expired);
		return;
	}
	log_event(LOG_smarthost_login,
	    "host=%s user=%s reason=\"%s\" remedy=\"see smtp_sasl_mechanism_filter and "
	    "the table in smtp_sasl_password_maps\"",
	    log_cstr(l->host), log_cstr(l->user), l->x.why ? l->x.why : "");
	answer(ch, l->talk.id, l->result == SASL_STEP_TEMPORARY ? STEP_TEMPORARY : STEP_FAILED, "",
	    SLICE_NULL, l->x.why ? l->x.why : "login failed");
	login_free(l);
}

static void
submit(struct login *l, struct slice in, bool has_in)
{
	talk_goes_on(&l->talk);
	buf_wipe(&l->in);
	buf_add(&l->in, in);
	l->has_in = has_in;
	l->running = true;
	l->job.run = run;
	l->job.done = done;
	pool_submit(l->a->pool, &l->job);
}

/* Postfix's order: the next hop as configured, then the host. */
static int
find_password(struct auth *a, const struct msg_sasl_client_start *s, struct buf *out)
{
	size_t nss;
	int err = db_list_get(&a->passwords, 0, s->nexthop, true, out, &nss);

	if (err == ERR_NOT_FOUND)
		err = db_list_get(&a->passwords, 0, s->host, true, out, &nss);
	return err;
}

static struct login *
login_new(struct auth *a, const struct msg_sasl_client_start *s, struct slice credentials)
{
	struct login *l = xcalloc(1, sizeof(*l));
	struct slice user = slice_split(&credentials, ':');

	l->a = a;
	l->first = true;
	l->user = slice_dup(user);
	l->password = slice_dup(credentials);
	l->host = slice_dup(s->host);
	l->mechanisms = mechanisms_usable(&a->d->conf->smtp_sasl_mechanism_filter, s->mechanisms);
	l->x =
	    (struct sasl_exchange){ .shared = &a->sasl, .client = true, .ssf = s->tls ? 256 : 0 };
	l->x.login = l->user;
	l->x.secret = l->password;
	l->x.host = l->host;
	l->x.mechanisms = l->mechanisms;
	snprintf(l->x.service, sizeof(l->x.service), "smtp");
	return l;
}

void
client_start(struct auth *a, struct ipc_chan *ch, const struct msg *m)
{
	const struct msg_sasl_client_start *s = &m->sasl_client_start;
	struct buf credentials = { 0 };
	struct login *l;
	int err = find_password(a, s, &credentials);

	if (err) {
		answer(ch, m->id, err == ERR_NOT_FOUND ? STEP_NO_CREDENTIALS : STEP_TEMPORARY, "",
		    SLICE_NULL,
		    err == ERR_NOT_FOUND ? "no credentials for this destination" : err_str(err));
		buf_wipe(&credentials);
		return;
	}
	l = login_new(a, s, buf_slice(&credentials));
	buf_wipe(&credentials);
	if (talk_open(a, ch, m->id, &l->talk, login_gone) < 0) {
		answer(ch, m->id, STEP_TEMPORARY, "", SLICE_NULL, "too many logins under way");
		login_free(l);
	} else if (l->mechanisms[0] == 0) {
		answer(ch, m->id, STEP_FAILED, "", SLICE_NULL,
		    "the server offers no mechanism that may be used");
		login_free(l);
	} else {
		submit(l, SLICE_NULL, false);
	}
}

void
client_response(struct auth *a, struct ipc_chan *ch, const struct msg *m)
{
	struct talk *talk = talk_find(ch, m->id);
	struct login *l = talk ? CONTAINER(talk, struct login, talk) : NULL;

	(void)a;
	if (l && !l->running)
		submit(l, m->sasl_client_response.challenge, true);
	else if (!l)
		answer(ch, m->id, STEP_TEMPORARY, "", SLICE_NULL,
		    "no such login, or it took too long");
}

void
client_end(struct auth *a, struct ipc_chan *ch, uint32_t id)
{
	struct talk *talk = talk_find(ch, id);

	if (!talk)
		return;
	talk_close(a, talk);
	login_gone(talk);
}
