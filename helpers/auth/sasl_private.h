/* What the two files of libsasl2's use share; nobody else includes it. */
#ifndef AUTH_SASL_PRIVATE_H
#define AUTH_SASL_PRIVATE_H

#include "helpers/auth/sasl.h"

#include <sasl/sasl.h>

/* Makes x->conn with its callbacks and properties; a code of libsasl2. */
int sasl_open_conn(struct sasl_exchange *x);
/* Callbacks of the client side. */
int sasl_client_name(void *context, int id, const char **result, unsigned *len);
int sasl_client_secret(sasl_conn_t *conn, void *context, int id, sasl_secret_t **secret);
/* One step of the client side. */
enum sasl_result sasl_client_do(
    struct sasl_exchange *x, struct slice in, bool has_in, struct buf *out, bool *has_out);

#endif
