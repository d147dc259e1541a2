/*
 * Certificates of smtpd, submission and login. Runs in their zygotes, and in their children when
 * certificates are renewed, as their uids; master is believed. Invariant: a context, once there, is
 * always usable.
 */
#include "tls/set.h"

#include <stdlib.h>

static struct tls_server_opts
options(struct tls_set *t, const struct conf *conf)
{
	free(t->ciphers);
	t->ciphers = xstrdup(conf->tls_ciphers);
	return (struct tls_server_opts){ .service = t->service,
		.alpn = t->alpn,
		.ticket_lifetime = (unsigned)(conf->tls_session_lifetime / 1000),
		.min_version = conf->tls_minimum_version == CONF_TLS_VERSION_TLS1_3
				   ? TLS_VERSION_1_3
				   : TLS_VERSION_1_2,
		.ciphers = *t->ciphers ? t->ciphers : NULL,
		.read_ahead = true,
		.ask_client_cert = buf_len(&t->authorities) > 0,
		.client_ca = buf_slice(&t->authorities) };
}

/* A handshake with a throw-away certificate loads algorithms, configuration and random state. */
static void
warm(const char *service)
{
	const char *names[] = { "localhost" };
	struct buf pem = { 0 };
	struct tls_identity identity;
	struct tls_server_opts opts = {
		.service = service, .identities = &identity, .identity_count = 1
	};
	struct tls_ctx *ctx = NULL;

	if (!tls_selfsigned(names, 1, 1, &pem)) {
		identity = (struct tls_identity){ .chain = buf_slice(&pem) };
		if (!tls_server_new(&opts, &ctx, NULL, 0))
			tls_server_warm(ctx);
		tls_ctx_free(&ctx);
	}
	buf_wipe(&pem);
}

static int
read_authorities(struct tls_set *t, const struct conf *conf)
{
	const char *file = conf->smtpd_tls_CAfile;
	int err = file && *file ? tls_read_file(file, &t->authorities) : ERR_NOT_FOUND;

	if (err)
		log_event(LOG_authorities,
		    "service=%s file=%s reason=\"%s\" remedy=\"auth_external needs "
		    "smtpd_tls_CAfile\"",
		    t->service, log_cstr(file ? file : ""), err_str(err));
	return err;
}

int
tls_set_init(
    struct tls_set *t, const char *service, const char *alpn, const struct conf *conf, bool clients)
{
	struct tls_server_opts opts;
	int err = 0;

	*t = (struct tls_set){ .service = service, .alpn = alpn };
	warm(service);
	if (clients && conf->auth_external)
		err = read_authorities(t, conf);
	opts = options(t, conf);
	t->serving = tls_serving_new(&opts);
	return err;
}

void
tls_set_reload(struct tls_set *t, const struct conf *conf)
{
	struct tls_server_opts opts = options(t, conf);

	tls_serving_options(t->serving, &opts);
}

static void
take_certificate(struct tls_set *t, const struct msg_tls_certificate *c, bool warm_it)
{
	char why[256] = "";
	int rc = tls_serving_certificate(
	    t->serving, c->index, c->count, c->name, c->chain, c->key, why, sizeof(why));

	if (rc < 0)
		log_event(LOG_certificate_unusable,
		    "service=%s reason=%s remedy=\"correct smtpd_tls_cert_file and reload\"",
		    t->service, log_cstr(why));
	else if (why[0])
		log_event(LOG_certificate_left_out,
		    "service=%s reason=%s remedy=\"correct tls_server_sni_maps or "
		    "smtpd_tls_chain_files and reload\"",
		    t->service, log_cstr(why));
	if (rc == 1 && warm_it)
		tls_server_warm(tls_serving_ctx(t->serving));
}

void
tls_set_message(struct tls_set *t, const struct msg *m, bool warm_it)
{
	char why[64];

	if (m->type == MSG_TLS_CERTIFICATE)
		take_certificate(t, &m->tls_certificate, warm_it);
	else if (m->type == MSG_TLS_TICKET_KEYS &&
		 tls_serving_keys(t->serving, m->tls_ticket_keys.keys))
		log_event(LOG_ticket_keys,
		    "service=%s reason=\"bad length\" remedy=\"restart the suite\"", t->service);
	if (warm_it && tls_serving_expiring(t->serving, why))
		log_event(LOG_certificate_expiry, "service=%s reason=\"%s\"", t->service, why);
}

struct tls_ctx *
tls_set_ctx(const struct tls_set *t)
{
	return tls_serving_ctx(t->serving);
}
