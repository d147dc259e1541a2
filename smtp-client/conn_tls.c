/*
 * TLS of a connection: what its certificate has to name, the handshake, and sessions to resume.
 * Runs in smtp-client; the server is hostile. Invariants: no command goes out before the level's
 * check has passed; a session is resumed only where as much is asked of the server as when it was
 * made.
 */
#include "sender.h"

#include <stdio.h>
#include <stdlib.h>

static void
tls_failed(struct conn *c)
{
	const char *why = tls_error(c->tls);

	log_event(LOG_smtp_tls_failed, "qid=%s remote=%s reason=%s remedy=\"%s\"",
	    log_value(c->job->queue_id), log_cstr(c->remote), log_cstr(why),
	    policy_requires_tls(c->level)
		? "mend the certificate there, or set a laxer level for it in smtp_tls_policy_maps"
		: "the message is sent in the clear, as its level, may, lets it; set encrypt if it "
		  "must not be");
	if (policy_requires_tls(c->level)) {
		session_lost(c, "4.7.5", "TLS with %s failed: %s", c->remote, why);
		return;
	}
	c->job->at--; /* the same address again, in the clear */
	c->job->candidates[c->job->at].plain = true;
	if (c->job->sessions)
		c->job->sessions--;
	session_lost(c, "4.7.5", "TLS with %s failed: %s", c->remote, why);
}

static void
handshake_done(struct conn *c)
{
	const struct conf *conf = c->s->d->conf;

	tls_info(c->tls, &c->tls_info);
	snprintf(c->job->tls, sizeof(c->job->tls), "%s with %s", c->tls_info.protocol,
	    c->tls_info.cipher);
	if (conf->smtp_tls_loglevel > 0)
		log_event(LOG_smtp_tls,
		    "qid=%s remote=%s protocol=%s cipher=%s bits=%d verified=%s resumed=%s",
		    log_value(c->job->queue_id), log_cstr(c->remote), c->tls_info.protocol,
		    c->tls_info.cipher, c->tls_info.bits, c->tls_info.peer_verified ? "yes" : "no",
		    c->tls_info.resumed ? "yes" : "no");
	c->state = CONN_OPEN;
	c->moved = true;
	client_tls_up(c->client); /* nothing in the wrapped form: the greeting comes next */
	if (tls_pending(c->tls))  /* bytes that came with the handshake make no event */
		conn_read(c);
	else
		session_run(c);
}

void
conn_handshake(struct conn *c)
{
	int rc = tls_handshake(c->tls);

	switch (rc) {
	case 0:
		handshake_done(c);
		break;
	case TLS_WANT_READ:
		break;
	case TLS_WANT_WRITE:
		conn_want_write(c);
		break;
	default:
		tls_failed(c);
		break;
	}
}

/* The names that the certificate must have, by the words of a match list. */
static size_t
match_names(struct conn *c, const char *names[8], struct arena *a)
{
	const struct conf *conf = c->s->d->conf;
	const struct conf_list *list = c->level == CONF_TLS_LEVEL_SECURE
					   ? &conf->smtp_tls_secure_cert_match
					   : &conf->smtp_tls_verify_cert_match;
	struct slice nexthop = c->job->nexthop, match = c->job->policy.match;
	size_t n = 0;

	if (nexthop.n > 2 && nexthop.p[0] == '[')
		nexthop = slice_sub(nexthop, 1, nexthop.n - 1);
	for (size_t i = 0; n < 8 && (match.n || (!c->job->policy.match.n && i < list->n)); i++) {
		struct slice word = c->job->policy.match.n
					? slice_split(&match, c->job->policy.separator)
					: slice_str(list->v[i]);

		if (slice_caseeq_str(word, "hostname"))
			names[n++] = c->to.host;
		else if (slice_caseeq_str(word, "nexthop"))
			names[n++] = arena_printf(a, "%.*s", SLICE_ARG(nexthop));
		else if (slice_caseeq_str(word, "dot-nexthop"))
			names[n++] = arena_printf(a, ".%.*s", SLICE_ARG(nexthop));
		else if (word.n)
			names[n++] = arena_printf(a, "%.*s", SLICE_ARG(word));
	}
	return n;
}

static char *
names_text(const char *const names[8], size_t n)
{
	struct buf b = { 0 };
	char *text;

	for (size_t i = 0; i < n; i++)
		buf_addf(&b, "%s\n", names[i]);
	text = slice_dup(buf_slice(&b));
	buf_free(&b);
	return text;
}

bool
conn_start_tls(struct conn *c)
{
	struct tls_ctx *ctx = policy_context(c->s, c->level);
	const char *names[8] = { 0 };
	struct tls_peer peer = { .sni = strchr(c->to.host, '.') ? c->to.host : NULL,
		.names = names };
	int err = ERR_NOT_FOUND;

	if (c->level == CONF_TLS_LEVEL_FINGERPRINT) {
		peer.fingerprints = names;
		peer.fingerprint_count = match_names(c, names, &c->job->arena);
	} else {
		peer.name_count = match_names(c, names, &c->job->arena);
	}
	c->names = names_text(names, peer.name_count + peer.fingerprint_count);
	/* No certificate is looked at when a session is resumed: what was asked for then must be
	 * what is asked for now. */
	if (c->dest->session && c->dest->session_level == c->level &&
	    !strcmp(c->dest->session_names, c->names))
		peer.session = c->dest->session;
	if (ctx)
		err = tls_conn_new_client(ctx, c->fd, &peer, &c->tls);
	if (err) {
		session_lost(c, ctx ? "4.7.5" : "4.3.5", "TLS with %s cannot begin: %s", c->remote,
		    ctx ? err_str(err) : "this level is not available; see the log of the start");
		return false;
	}
	c->state = CONN_HANDSHAKE;
	conn_timer(c);
	conn_handshake(c);
	return true;
}

void
conn_save_session(struct conn *c)
{
	struct tls_session *session = c->tls ? tls_session_take(c->tls) : NULL;

	if (!session)
		return;
	tls_session_free(&c->dest->session);
	c->dest->session = session;
	c->dest->session_level = c->level;
	free(c->dest->session_names);
	c->dest->session_names = xstrdup(c->names);
}
