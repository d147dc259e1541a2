/*
 * What libsasl2 asks about users, in auth's workers (bh-auth): verifiers for SCRAM, the check of a
 * password for PLAIN and LOGIN. Hostile: names and passwords. A name that nobody has costs and
 * looks like one that somebody has.
 */
#include "helpers/auth/sasl_private.h"

#include "ev/ev.h"
#include "tls/openssl.h"

#include <stdio.h>

#define NO_MEMORY "memory was refused"

/* By the name as it was given, or else at the domain of names without one. */
static int
user_of(struct sasl_exchange *x, struct slice name)
{
	int err = users_get(x->shared->users, name, &x->arena, &x->user);

	if (err == ERR_NOT_FOUND && x->local_domain[0] && slice_find(name, '@') < 0)
		err = users_get(x->shared->users,
		    slice_str(arena_printf(&x->arena, "%.*s@%s", SLICE_ARG(name), x->local_domain)),
		    &x->arena, &x->user);
	return err;
}

void
sasl_look_up(struct sasl_exchange *x, struct slice name)
{
	if (x->looked_up && slice_caseeq_str(name, x->claimed))
		return;
	x->looked_up = true;
	x->found = false;
	if (slice_copy(name, x->claimed, sizeof(x->claimed)) < 0) {
		snprintf(x->claimed, sizeof(x->claimed), "(unusable name)");
		x->why = "name not usable";
		return;
	}
	switch (user_of(x, name)) {
	case 0:
		x->found = true;
		break;
	case ERR_NOT_FOUND:
		x->why = "no such user";
		break;
	default:
		x->why = "user store not readable";
		x->undecided = true;
	}
}

/* A name that nobody has looks the same however it is written, as one that somebody has does. */
static void
fake_of(struct sasl_exchange *x, enum scram_hash hash, struct slice name, char *out)
{
	bool whole = slice_find(name, '@') >= 0 || !x->local_domain[0];
	struct slice full = slice_str(arena_printf(&x->arena, "%.*s%s%s", SLICE_ARG(name),
	    whole ? "" : "@", whole ? "" : x->local_domain));

	scram_fake(hash, users_fold(&x->arena, full), atomic_load(&x->shared->rounds),
	    x->shared->secret, out);
}

/* Without a verifier that is there the library takes the user for one who has none. */
static void
add_verifier(struct sasl_exchange *x, sasl_server_params_t *params, const char *property,
    struct slice stored, enum scram_hash hash, struct slice name)
{
	char fake[SCRAM_VERIFIER_MAX];

	if (stored.n == 0) {
		fake_of(x, hash, name, fake);
		stored = slice_str(fake);
	}
	if (params->utils->prop_set(
		params->propctx, property, (const char *)stored.p, (int)stored.n) != SASL_OK) {
		x->why = NO_MEMORY;
		x->undecided = true;
	}
}

/* Serves the verifiers of one user. Asked for the name that authenticates ("*" properties) and for
 * the one that acts. */
static int
auxprop_lookup(
    void *context, sasl_server_params_t *params, unsigned flags, const char *user, unsigned len)
{
	const struct propval *wanted = params->utils->prop_get(params->propctx);
	struct sasl_exchange *x = NULL;
	struct slice name = slice(user, len);
	unsigned char noise[32];
	sasl_callback_ft proc;
	void *found = NULL;

	(void)context;
	if (params->utils->getcallback(params->utils->conn, CB_EXCHANGE, &proc, &found) == SASL_OK)
		x = found;
	if (!x || !wanted)
		return SASL_FAIL;
	/* The library seeds its nonces from /dev/urandom, which an unprivileged instance's jail
	 * does not reach. */
	if (RAND_bytes(noise, sizeof(noise)) == 1)
		params->utils->churn(params->utils->rpool, (const char *)noise, sizeof(noise));
	sasl_look_up(x, name);
	for (; wanted->name; wanted++) {
		const char *property = wanted->name;
		bool mine = property[0] == '*';
		if (mine == ((flags & SASL_AUXPROP_AUTHZID) != 0))
			continue;
		if (wanted->values && !(flags & SASL_AUXPROP_OVERRIDE))
			continue;
		if (strcasecmp(mine ? property + 1 : property, "authPassword") != 0)
			continue;
		add_verifier(x, params, property, x->found ? x->user.scram256 : SLICE_NULL,
		    SCRAM_SHA_256, name);
		add_verifier(
		    x, params, NULL, x->found ? x->user.scram1 : SLICE_NULL, SCRAM_SHA_1, name);
	}
	return SASL_OK;
}

int
sasl_auxprop_init(const sasl_utils_t *utils, int max_version, int *out_version,
    sasl_auxprop_plug_t **plug, const char *name)
{
	static sasl_auxprop_plug_t plugin = { .auxprop_lookup = auxprop_lookup,
		.name = (char *)"bulkhead" };

	(void)utils;
	(void)name;
	if (max_version < SASL_AUXPROP_PLUG_VERSION)
		return SASL_BADVERS;
	*out_version = SASL_AUXPROP_PLUG_VERSION;
	*plug = &plugin;
	return SASL_OK;
}

/* PLAIN and LOGIN: the password itself. */
int
sasl_check_password(sasl_conn_t *conn, void *context, const char *user, const char *pass,
    unsigned len, struct propctx *props)
{
	struct sasl_exchange *x = context;
	struct slice password = slice(pass, len), verifier;
	char fake[SCRAM_VERIFIER_MAX];
	int err;

	(void)conn;
	(void)props;
	sasl_look_up(x, slice_str(user));
	if (x->undecided)
		return SASL_FAIL;
	if (!x->found && atomic_load(&x->shared->system_users)) {
		buf_wipe(&x->password);
		buf_add(&x->password, password);
		return SASL_BADAUTH;
	}
	if (!x->found) {
		fake_of(x, SCRAM_SHA_256, slice_str(user), fake);
		(void)!scram_check(fake, password);
		return SASL_BADAUTH;
	}
	verifier = x->user.scram256.n ? x->user.scram256 : x->user.crypt;
	if (cache_has(x->shared->cache, x->user.name, verifier, password, ev_now_us() / 1000)) {
		x->cached = true;
		return SASL_OK;
	}
	err = users_check(&x->user, password);
	if (err == ERR_TEMPORARY) {
		x->why = NO_MEMORY;
		x->undecided = true;
		return SASL_FAIL;
	}
	if (err) {
		x->why = err == ERR_DENIED ? "wrong password" : "stored hash not usable";
		return SASL_BADAUTH;
	}
	cache_put(x->shared->cache, x->user.name, verifier, password, ev_now_us() / 1000);
	if (x->user.scram256.n == 0) /* an imported hash has done its service */
		(void)!users_upgrade(x->shared->users, &x->user, password);
	return SASL_OK;
}
