/*
 * Gathers the certificates that master hands to a front end and keeps the context made of them.
 * Runs in the acceptors and children of smtpd, submission and login, as their uids, in their jails.
 * The bytes come from master. Invariants: a set that cannot be used changes nothing; PEM bytes are
 * wiped when their context is made.
 */
#include "tls/serving.h"

#include <stdio.h>
#include <stdlib.h>

#define CERTIFICATES_MAX 64

struct tls_serving {
	struct tls_server_opts opts;
	struct tls_tickets *tickets;
	struct tls_ctx *ctx;
	struct buf pems[CERTIFICATES_MAX][2]; /* chain, key: of the set that is coming in */
};

struct tls_serving *
tls_serving_new(const struct tls_server_opts *opts)
{
	struct tls_serving *s = xcalloc(1, sizeof(*s));

	s->opts = *opts;
	s->tickets = tls_tickets_new();
	s->opts.tickets = s->tickets;
	return s;
}

static void
wipe(struct tls_serving *s)
{
	for (size_t i = 0; i < CERTIFICATES_MAX; i++) {
		buf_wipe(&s->pems[i][0]);
		buf_wipe(&s->pems[i][1]);
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
tls_serving_certificate(struct tls_serving *s, unsigned index, unsigned count, struct slice chain,
    struct slice key, char *error, size_t size)
{
	struct tls_identity ids[CERTIFICATES_MAX];
	struct tls_server_opts opts = s->opts;
	struct tls_ctx *ctx;
	int err;

	if (count == 0 || count > CERTIFICATES_MAX || index >= count) {
		snprintf(error, size, "more than %d certificates", CERTIFICATES_MAX);
		return ERR_LIMIT;
	}
	if (index == 0)
		wipe(s);
	buf_wipe(&s->pems[index][0]);
	buf_wipe(&s->pems[index][1]);
	buf_add(&s->pems[index][0], chain);
	buf_add(&s->pems[index][1], key);
	for (unsigned i = 0; i < count; i++) {
		if (buf_len(&s->pems[i][0]) == 0)
			return 0;
		ids[i] =
		    (struct tls_identity){ buf_slice(&s->pems[i][0]), buf_slice(&s->pems[i][1]) };
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
