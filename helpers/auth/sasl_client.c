/*
 * The client side of libsasl2, in auth's workers (bh-auth): our own logins at smarthosts. Hostile:
 * what the smarthost says. No channel binding is used, because TLS ends in smtp-client. The
 * password is copied once, into the form that the library wants, and wiped with the exchange.
 */
#include "helpers/auth/sasl_private.h"

#include <stdlib.h>

int
sasl_client_name(void *context, int id, const char **result, unsigned *len)
{
	const struct sasl_exchange *x = context;

	*result = id == SASL_CB_USER ? "" : x->login;
	if (len)
		*len = (unsigned)strlen(*result);
	return SASL_OK;
}

int
sasl_client_secret(sasl_conn_t *conn, void *context, int id, sasl_secret_t **secret)
{
	struct sasl_exchange *x = context;
	size_t n = strlen(x->secret);

	(void)conn;
	(void)id;
	if (!x->secret_copy) {
		sasl_secret_t *s = xcalloc(1, sizeof(*s) + n + 1);
		s->len = n;
		memcpy(s->data, x->secret, n);
		x->secret_copy = s;
	}
	*secret = x->secret_copy;
	return SASL_OK;
}

static enum sasl_result
client_result(struct sasl_exchange *x, int rc)
{
	switch (rc) {
	case SASL_CONTINUE:
	case SASL_OK:
		return rc == SASL_OK ? SASL_STEP_OK : SASL_STEP_CONTINUE;
	case SASL_NOMECH:
	case SASL_TOOWEAK:
	case SASL_ENCRYPT:
		x->why = "the server offers no mechanism that may be used";
		return SASL_STEP_NO_MECHANISM;
	case SASL_BADSERV:
		x->why = "the server does not know the password: it may be another server";
		return SASL_STEP_REFUSED;
	case SASL_BADPROT:
		x->why = "the server breaks the mechanism's syntax";
		return SASL_STEP_PROTOCOL;
	default:
		x->why = "libsasl2 failed";
		return SASL_STEP_TEMPORARY;
	}
}

enum sasl_result
sasl_client_do(
    struct sasl_exchange *x, struct slice in, bool has_in, struct buf *out, bool *has_out)
{
	const char *data = NULL, *mechanism = NULL;
	unsigned n = 0;
	int rc;

	if (!x->started) {
		rc = sasl_open_conn(x);
		if (rc == SASL_OK)
			rc = sasl_client_start(x->conn, x->mechanisms, NULL, &data, &n, &mechanism);
		x->started = true;
		if (mechanism)
			(void)!slice_copy(slice_str(mechanism), x->mechanism, sizeof(x->mechanism));
	} else {
		rc = sasl_client_step(x->conn, has_in && in.n ? (const char *)in.p : "",
		    (unsigned)in.n, NULL, &data, &n);
	}
	if (data && (rc == SASL_CONTINUE || rc == SASL_OK)) {
		buf_add(out, slice(data, n));
		*has_out = true;
	}
	return client_result(x, rc);
}
