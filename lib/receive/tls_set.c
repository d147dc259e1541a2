/*
 * Certificates of a front end. Runs in the zygotes of smtpd and submission, and in their children
 * when certificates are renewed; master is believed. PEM bytes are wiped when the context is made
 * of a whole set. Invariant: ctx, once there, is always usable.
 */
#include "receive/tls_set.h"

/* A handshake with a throw-away certificate loads algorithms, configuration and random state. */
void
tls_set_init(struct tls_set *t, const char *service, const char *alpn)
{
	const char *names[] = { "localhost" };
	struct buf pem = { 0 };
	struct tls_identity identity;
	struct tls_server_opts opts = {
		.service = service, .identities = &identity, .identity_count = 1
	};
	struct tls_ctx *ctx = NULL;

	*t = (struct tls_set){ .service = service, .alpn = alpn, .tickets = tls_tickets_new() };
	if (!tls_selfsigned(names, 1, 1, &pem)) {
		identity = (struct tls_identity){ .chain = buf_slice(&pem) };
		if (!tls_server_new(&opts, &ctx, NULL, 0))
			tls_server_warm(ctx);
		tls_ctx_free(&ctx);
	}
	buf_wipe(&pem);
}

static void
forget(struct tls_set *t)
{
	for (size_t i = 0; i < t->count; i++) {
		buf_wipe(&t->items[i].chain);
		buf_wipe(&t->items[i].key);
		buf_wipe(&t->items[i].name);
	}
	t->count = 0;
}

static void
rebuild(struct tls_set *t, const struct conf *conf)
{
	struct tls_identity identities[TLS_IDENTITIES_MAX];
	struct tls_server_opts opts = { .service = t->service,
		.alpn = t->alpn,
		.identities = identities,
		.identity_count = t->count,
		.tickets = t->tickets,
		.ticket_lifetime = (unsigned)(conf->tls_session_lifetime / 1000),
		.min_version = conf->tls_minimum_version == CONF_TLS_VERSION_TLS1_3
				   ? TLS_VERSION_1_3
				   : TLS_VERSION_1_2,
		.ciphers = conf->tls_ciphers && *conf->tls_ciphers ? conf->tls_ciphers : NULL };
	struct tls_ctx *fresh = NULL;
	char why[256];

	for (size_t i = 0; i < t->count; i++)
		identities[i] = (struct tls_identity){ buf_slice(&t->items[i].chain),
			buf_slice(&t->items[i].key), buf_slice(&t->items[i].name) };
	if (tls_server_new(&opts, &fresh, why, sizeof(why))) {
		log_event(LOG_E, "certificate-unusable",
		    "service=%s reason=%s remedy=\"correct smtpd_tls_cert_file and reload\"",
		    t->service, log_cstr(why));
		return;
	}
	if (why[0])
		log_event(LOG_E, "certificate-left-out",
		    "service=%s reason=%s remedy=\"correct tls_server_sni_maps or "
		    "smtpd_tls_chain_files and reload\"",
		    t->service, log_cstr(why));
	tls_ctx_free(&t->ctx);
	t->ctx = fresh;
	tls_server_warm(fresh);
}

static void
add_certificate(struct tls_set *t, const struct conf *conf, const struct msg_tls_certificate *c)
{
	struct tls_set_item *item;

	if (c->index == 0)
		forget(t);
	if (c->index != t->count || c->count > TLS_IDENTITIES_MAX || c->index >= c->count)
		return;
	item = &t->items[t->count++];
	buf_add(&item->chain, c->chain);
	buf_add(&item->key, c->key);
	buf_add(&item->name, c->name);
	if (t->count < c->count)
		return;
	rebuild(t, conf);
	forget(t);
}

void
tls_set_message(struct tls_set *t, const struct conf *conf, const struct msg *m)
{
	if (m->type == MSG_TLS_CERTIFICATE)
		add_certificate(t, conf, &m->tls_certificate);
	else if (m->type == MSG_TLS_TICKET_KEYS &&
		 tls_tickets_set(t->tickets, m->tls_ticket_keys.keys))
		log_event(LOG_E, "ticket-keys",
		    "service=%s reason=\"bad length\" remedy=\"restart the suite\"", t->service);
}
