/* What the files of libsasl2's use share; nobody else includes it. */
#ifndef AUTH_SASL_PRIVATE_H
#define AUTH_SASL_PRIVATE_H

#include "helpers/auth/sasl.h"

#include <sasl/sasl.h>
#include <sasl/saslplug.h>

#define CB_EXCHANGE 0x5001 /* a callback of our own: its context is the exchange */

/* Makes x->conn with its callbacks and properties; a code of libsasl2. */
int sasl_open_conn(struct sasl_exchange *x);
/* sasl_users.c: x->user, x->found and x->claimed are name's; x->why tells what is missing. */
void sasl_look_up(struct sasl_exchange *x, struct slice name);
/* The plugin that serves verifiers, and the callback that checks a password. */
int sasl_auxprop_init(const sasl_utils_t *utils, int max_version, int *out_version,
    sasl_auxprop_plug_t **plug, const char *name);
int sasl_check_password(sasl_conn_t *conn, void *context, const char *user, const char *pass,
    unsigned len, struct propctx *props);
/* Callbacks of the client side. */
int sasl_client_name(void *context, int id, const char **result, unsigned *len);
int sasl_client_secret(sasl_conn_t *conn, void *context, int id, sasl_secret_t **secret);
/* One step of the client side. */
enum sasl_result sasl_client_do(
    struct sasl_exchange *x, struct slice in, bool has_in, struct buf *out, bool *has_out);

#endif
