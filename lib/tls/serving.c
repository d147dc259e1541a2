/*
 * Gathers the certificates that master hands to a front end and keeps the context made of them.
 * Runs in the acceptors and children of smtpd, submission and login, as their uids, in their jails.
 * The bytes come from master. Invariants: a set that cannot be used changes nothing; PEM bytes are
 * wiped when their context is made.
 */
#include "tls/serving.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SOON_SECONDS (14 * 86400)
#define AGAIN_SECONDS 3600

struct tls_serving {
	struct tls_server_opts opts;
	struct tls_tickets *tickets;
	struct tls_ctx *ctx;
	time_t told; /* when the log last heard that a certificate expires */
	struct coming {
		struct buf chain, key, name;
	} coming[TLS_IDENTITIES_MAX]; /* the set that is coming in */
};

struct tls_serving *
tls_serving_new(const struct tls_server_opts *opts)
{
	struct tls_serving *s = xcalloc(1, sizeof(*s));

	s->tickets = tls_tickets_new();
	tls_serving_options(s, opts);
	return s;
}

void
tls_serving_options(struct tls_serving *s, const struct tls_server_opts *opts)
{
	s->opts = *opts;
	s->opts.tickets = s->tickets;
}

static void
wipe(struct tls_serving *s)
{
	for (size_t i = 0; i < TLS_IDENTITIES_MAX; i++) {
		buf_wipe(&s->coming[i].chain);
		buf_wipe(&s->coming[i].key);
		buf_wipe(&s->coming[i].name);
	}
}

void
tls_serving_free(struct tls_serving **s)
{
	if (!*s)
		return;
	wipe(*s);
	tls_ctx_free(&(*s)->ctx);
	tls_tickets_free(&(*s)->tickets);
	free(*s);
	*s = NULL;
}

int
tls_serving_certificate(struct tls_serving *s, unsigned index, unsigned count, struct slice name,
    struct slice chain, struct slice key, char *error, size_t size)
{
	struct tls_identity ids[TLS_IDENTITIES_MAX];
	struct tls_server_opts opts = s->opts;
	struct tls_ctx *ctx;
	struct coming *c;
	int err;

	if (size)
		*error = '\0';
	if (count == 0 || count > TLS_IDENTITIES_MAX || index >= count) {
		snprintf(error, size, "more than %d certificates", TLS_IDENTITIES_MAX);
		return ERR_LIMIT;
	}
	if (index == 0)
		wipe(s);
	c = &s->coming[index];
	buf_wipe(&c->chain);
	buf_wipe(&c->key);
	buf_wipe(&c->name);
	buf_add(&c->chain, chain);
	buf_add(&c->key, key);
	buf_add(&c->name, name);
	for (unsigned i = 0; i < count; i++) {
		c = &s->coming[i];
		if (buf_len(&c->chain) == 0)
			return 0;
		ids[i] = (struct tls_identity){ buf_slice(&c->chain), buf_slice(&c->key),
			buf_slice(&c->name) };
	}
	opts.identities = ids;
	opts.identity_count = count;
	err = tls_server_new(&opts, &ctx, error, size);
	wipe(s);
	if (err)
		return err;
	tls_ctx_free(&s->ctx);
	s->ctx = ctx;
	return 1;
}

int
tls_serving_keys(struct tls_serving *s, struct slice keys)
{
	return tls_tickets_set(s->tickets, keys);
}

struct tls_ctx *
tls_serving_ctx(const struct tls_serving *s)
{
	return s->ctx;
}

bool
tls_serving_expiring(struct tls_serving *s, char text_r[64])
{
	time_t now = time(NULL);
	int64_t left = s->ctx ? tls_server_expiry(s->ctx) - (int64_t)now : SOON_SECONDS;

	if (left >= SOON_SECONDS || (s->told && now - s->told < AGAIN_SECONDS))
		return false;
	s->told = now;
	if (left < 0)
		snprintf(text_r, 64, "the certificate has expired");
	else
		snprintf(
		    text_r, 64, "the certificate expires in %lld days", (long long)(left / 86400));
	return true;
}
