/*
 * All use of libsasl2, in auth (bh-auth): start-up in the loop's thread before the jail, steps in
 * workers. Hostile: what clients send to a mechanism, and what smarthosts answer.
 *
 * Quirks that live here: only two plugin files are loaded (the directory's others bring Kerberos
 * and Berkeley DB); no configuration file is read; verifiers are served as "authPassword", so no
 * plain password exists; an unknown user gets a verifier that nobody has a password for, because
 * SCRAM would end one step early otherwise; the channel binding is chosen by what the client's
 * first message names; a failed password check falls through to auxprop, which has no userPassword
 * and so refuses too.
 */
#include "helpers/auth/sasl_private.h"

#include "base/slice.h"
#include "tls/openssl.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* The library takes every kind of callback as this one. */
#define CB(f) ((int (*)(void))(void (*)(void))(f))

/* --- the library's hooks --- */

static void *
mutex_new(void)
{
	pthread_mutex_t *m = xmalloc(sizeof(*m));

	pthread_mutex_init(m, NULL);
	return m;
}

static int
mutex_lock(void *m)
{
	return pthread_mutex_lock(m) ? SASL_FAIL : SASL_OK;
}

static int
mutex_unlock(void *m)
{
	return pthread_mutex_unlock(m) ? SASL_FAIL : SASL_OK;
}

static void
mutex_free(void *m)
{
	pthread_mutex_destroy(m);
	free(m);
}

static int
get_option(
    void *context, const char *plugin, const char *option, const char **result, unsigned *len)
{
	static const struct {
		const char *name, *value;
	} options[] = {
		{ "pwcheck_method", "auxprop" },
		{ "auxprop_plugin", "bulkhead" },
		{ "mech_list", "PLAIN EXTERNAL SCRAM-SHA-1 SCRAM-SHA-256" },
		{ "canon_user_plugin", "INTERNAL" },
		{ "auto_transition", "no" },
		{ "log_level", "0" },
	};

	(void)context;
	(void)plugin;
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (strcmp(option, options[i].name) == 0) {
			*result = options[i].value;
			if (len)
				*len = (unsigned)strlen(*result);
			return SASL_OK;
		}
	return SASL_FAIL;
}

static int
no_log(void *context, int level, const char *message)
{
	(void)context;
	(void)level;
	(void)message;
	return SASL_OK;
}

static int
verify_file(void *context, const char *file, sasl_verify_type_t type)
{
	static const char *const wanted[] = { "libplain.", "libscram." };
	const char *base = strrchr(file, '/');

	(void)context;
	if (type != SASL_VRFY_PLUGIN)
		return SASL_CONTINUE;
	base = base ? base + 1 : file;
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		if (strncmp(base, wanted[i], strlen(wanted[i])) == 0)
			return SASL_OK;
	return SASL_CONTINUE;
}

static int
no_op(void)
{
	return SASL_OK;
}

/* --- start --- */

static void *
crypto_malloc(size_t n, const char *file, int line)
{
	(void)file;
	(void)line;
	return n ? xmalloc(n) : NULL;
}

static void
crypto_free(void *p, const char *file, int line)
{
	(void)file;
	(void)line;
	free(p);
}

static void *
crypto_realloc(void *p, size_t n, const char *file, int line)
{
	(void)file;
	(void)line;
	if (n)
		return xrealloc(p, n);
	free(p);
	return NULL;
}

void
sasl_setup_memory(void)
{
	sasl_set_alloc(xmalloc, xcalloc, xrealloc, free);
	if (!CRYPTO_set_mem_functions(crypto_malloc, crypto_realloc, crypto_free))
		die("libcrypto was used before its memory functions were set");
}

void
sasl_setup(struct sasl_shared *shared)
{
	static const sasl_callback_t global[] = {
		{ SASL_CB_GETOPT, CB(get_option), NULL },
		{ SASL_CB_LOG, CB(no_log), NULL },
		{ SASL_CB_VERIFYFILE, CB(verify_file), NULL },
		{ SASL_CB_LIST_END, NULL, NULL },
	};
	int rc;

	users_secret(shared->users, shared->secret);
	sasl_set_mutex(mutex_new, mutex_lock, mutex_unlock, mutex_free);
	rc = sasl_auxprop_add_plugin("bulkhead", sasl_auxprop_init);
	if (rc == SASL_OK)
		rc = sasl_server_init(global, "bulkhead");
	if (rc == SASL_OK)
		rc = sasl_client_init(global);
	if (rc != SASL_OK)
		die("libsasl2 cannot start: %s; install libsasl2-modules",
		    sasl_errstring(rc, NULL, NULL));
}

/* --- one exchange --- */

static struct sasl_callback *
callbacks_of(struct sasl_exchange *x)
{
	struct sasl_callback *c = xcalloc(6, sizeof(*c)), *p = c;

	*p++ = (struct sasl_callback){ SASL_CB_GETOPT, CB(get_option), x };
	*p++ = (struct sasl_callback){ CB_EXCHANGE, no_op, x };
	if (x->client) {
		*p++ = (struct sasl_callback){ SASL_CB_USER, CB(sasl_client_name), x };
		*p++ = (struct sasl_callback){ SASL_CB_AUTHNAME, CB(sasl_client_name), x };
		*p++ = (struct sasl_callback){ SASL_CB_PASS, CB(sasl_client_secret), x };
	} else {
		*p++ = (struct sasl_callback){ SASL_CB_SERVER_USERDB_CHECKPASS,
			CB(sasl_check_password), x };
	}
	*p = (struct sasl_callback){ SASL_CB_LIST_END, NULL, NULL };
	return c;
}

int
sasl_open_conn(struct sasl_exchange *x)
{
	sasl_security_properties_t props = {
		.max_ssf = 0, .maxbufsize = 0, .security_flags = SASL_SEC_NOANONYMOUS
	};
	sasl_conn_t *conn = NULL;
	sasl_ssf_t ssf = x->ssf;
	int rc;

	x->callbacks = callbacks_of(x);
	if (x->client)
		rc = sasl_client_new(x->service, x->host, NULL, NULL, x->callbacks, 0, &conn);
	else
		rc = sasl_server_new(x->service, NULL, NULL, NULL, NULL, x->callbacks, 0, &conn);
	x->conn = conn;
	if (rc == SASL_OK && ssf == 0)
		props.security_flags |= SASL_SEC_NOPLAINTEXT;
	if (rc == SASL_OK)
		rc = sasl_setprop(conn, SASL_SEC_PROPS, &props);
	if (rc == SASL_OK && ssf)
		rc = sasl_setprop(conn, SASL_SSF_EXTERNAL, &ssf);
	if (rc == SASL_OK && x->external)
		rc = sasl_setprop(conn, SASL_AUTH_EXTERNAL, x->external);
	return rc;
}

/*
 * Sets the channel binding that the client's first message asks for ("p=tls-exporter,,"); libsasl2
 * compares the data, but not whether the wish, the mechanism and what is there fit together. A
 * client which says that it could bind, but believes that we cannot ("y,,"), was lied to by
 * somebody in the middle and is refused (RFC 5802, section 6).
 */
static int
choose_binding(struct sasl_exchange *x, struct slice first)
{
	bool plus = slice_has_suffix(slice_str(x->mechanism), "-PLUS"),
	     binds = slice_has_prefix(first, "p=");
	bool exporter = slice_has_prefix(first, "p=tls-exporter,"),
	     end_point = slice_has_prefix(first, "p=tls-server-end-point,");
	struct slice data = exporter ? x->exporter : end_point ? x->endpoint : SLICE_NULL;
	sasl_channel_binding_t *cb;

	if (binds != plus)
		return SASL_BADPROT;
	if (!binds)
		return slice_has_prefix(first, "y,") && x->plus_offered &&
			       x->exporter.n + x->endpoint.n > 0
			   ? SASL_BADBINDING
			   : SASL_OK;
	if (data.n == 0 || !x->plus_offered)
		return SASL_BADBINDING;
	cb = xcalloc(1, sizeof(*cb));
	cb->name = exporter ? "tls-exporter" : "tls-server-end-point";
	cb->critical = 1;
	cb->len = data.n;
	cb->data = data.p;
	x->binding = cb;
	return sasl_setprop(x->conn, SASL_CHANNEL_BINDING, cb);
}

static enum sasl_result
server_result(struct sasl_exchange *x, int rc)
{
	const void *name = NULL;

	if (x->undecided) /* also where SCRAM went on with a verifier that nobody has */
		return SASL_STEP_TEMPORARY;
	switch (rc) {
	case SASL_CONTINUE:
		return SASL_STEP_CONTINUE;
	case SASL_OK:
		break;
	case SASL_BADAUTH:
	case SASL_NOUSER:
	case SASL_NOAUTHZ:
	case SASL_NOVERIFY:
	case SASL_BADVERS:
		if (buf_len(&x->password))
			return SASL_STEP_PAM;
		if (!x->why)
			x->why = "wrong password";
		return SASL_STEP_REFUSED;
	case SASL_BADPROT:
	case SASL_BADPARAM:
	case SASL_BADBINDING:
		x->why = rc == SASL_BADBINDING ? "channel binding does not match"
					       : "mechanism's syntax broken";
		return rc == SASL_BADBINDING ? SASL_STEP_REFUSED : SASL_STEP_PROTOCOL;
	case SASL_NOMECH:
	case SASL_ENCRYPT:
	case SASL_TOOWEAK:
		x->why = "mechanism not available";
		return SASL_STEP_NO_MECHANISM;
	default:
		if ((rc == SASL_FAIL || rc == SASL_BUFOVER) && !x->looked_up) {
			x->why = "name not usable"; /* empty, or too long: nobody was asked for */
			return SASL_STEP_REFUSED;
		}
		x->why = x->why ? x->why : "libsasl2 failed";
		return buf_len(&x->password) ? SASL_STEP_PAM : SASL_STEP_TEMPORARY;
	}
	if (sasl_getprop(x->conn, SASL_USERNAME, &name) != SASL_OK || !name) {
		x->why = "no identity";
		return SASL_STEP_REFUSED;
	}
	/* The identity that the library confirmed, not the one that was looked up on the way. */
	sasl_look_up(x, slice_str(name));
	if (!x->found)
		return x->undecided ? SASL_STEP_TEMPORARY : SASL_STEP_REFUSED;
	if (x->user.flags & USER_DISABLED) {
		x->why = "login disabled";
		return SASL_STEP_REFUSED;
	}
	return SASL_STEP_OK;
}

/*
 * LOGIN, as its draft has it: two prompts, then what PLAIN would have said in one. Not the
 * library's plugin: that one loses the memory of a user name that comes twice.
 */
static enum sasl_result
login_step(struct sasl_exchange *x, struct slice in, bool has_in, struct buf *out, bool *has_out)
{
	const char *data = NULL;
	unsigned n = 0;
	int rc;

	*has_out = true;
	if (!x->asked && in.n == 0) {
		x->asked = true;
		buf_add_str(out, "Username:");
		return SASL_STEP_CONTINUE;
	}
	if (!has_in || slice_find(in, 0) >= 0 || in.n > USERS_NAME_MAX * 4 ||
	    (in.n == 0 && buf_len(&x->message) == 0))
		return server_result(x, SASL_BADPROT);
	if (buf_len(&x->message) == 0) {
		buf_add_byte(&x->message, 0);
		buf_add(&x->message, in);
		buf_add_byte(&x->message, 0);
		buf_add_str(out, "Password:");
		return SASL_STEP_CONTINUE;
	}
	*has_out = false;
	buf_add(&x->message, in);
	rc = sasl_server_start(x->conn, "PLAIN", (const char *)buf_slice(&x->message).p,
	    (unsigned)buf_len(&x->message), &data, &n);
	buf_wipe(&x->message);
	return server_result(x, rc == SASL_CONTINUE ? SASL_FAIL : rc);
}

static enum sasl_result
server_step(struct sasl_exchange *x, struct slice in, bool has_in, struct buf *out, bool *has_out)
{
	bool scram = strncmp(x->mechanism, "SCRAM", 5) == 0;
	const char *data = NULL, *p = has_in ? (in.n ? (const char *)in.p : "") : NULL;
	unsigned n = 0;
	int rc = x->conn ? SASL_OK : sasl_open_conn(x);

	if (rc == SASL_OK && strcmp(x->mechanism, "LOGIN") == 0)
		return login_step(x, in, has_in, out, has_out);
	/* Without the client's first message the empty challenge is ours, not the library's: the
	 * binding has to be known before it starts. */
	if (rc == SASL_OK && scram && !x->started && in.n == 0) {
		if (x->asked)
			return server_result(x, SASL_BADPROT);
		x->asked = true;
		*has_out = true;
		return SASL_STEP_CONTINUE;
	}
	if (rc == SASL_OK && scram && !x->started)
		rc = choose_binding(x, in);
	if (rc == SASL_OK && !x->started) {
		x->started = true;
		rc = sasl_server_start(x->conn, x->mechanism, p, (unsigned)in.n, &data, &n);
	} else if (rc == SASL_OK) {
		rc = sasl_server_step(x->conn, p ? p : "", (unsigned)in.n, &data, &n);
	}
	if (data && (rc == SASL_CONTINUE || rc == SASL_OK)) {
		buf_add(out, slice(data, n));
		*has_out = true;
	}
	if (rc == SASL_CONTINUE)
		*has_out = true;
	return server_result(x, rc);
}

enum sasl_result
sasl_step(struct sasl_exchange *x, struct slice in, bool has_in, struct buf *out, bool *has_out)
{
	*has_out = false;
	return x->client ? sasl_client_do(x, in, has_in, out, has_out)
			 : server_step(x, in, has_in, out, has_out);
}

void
sasl_exchange_free(struct sasl_exchange *x)
{
	sasl_conn_t *conn = x->conn;

	if (conn)
		sasl_dispose(&conn);
	x->conn = NULL;
	if (x->secret_copy) {
		sasl_secret_t *s = x->secret_copy;
		OPENSSL_cleanse(s->data, s->len);
		free(s);
		x->secret_copy = NULL;
	}
	free(x->callbacks);
	free(x->binding);
	x->callbacks = x->binding = NULL;
	buf_wipe(&x->password);
	buf_wipe(&x->message);
	arena_free(&x->arena);
}
