/*
 * How long a failed login waits for its answer: doubling per client and user, more slowly per
 * client over all users, so that neither many passwords for one user nor one password for many
 * users goes fast. Outlives the front ends' processes. The loop's only.
 */
#ifndef AUTH_PENALTY_H
#define AUTH_PENALTY_H

#include "base/slice.h"

struct penalties;
/* At most size clients and pairs are kept; the one that has been quiet longest goes first. */
struct penalties *penalties_new(size_t size);
void penalties_free(struct penalties **p);
/* Notes a failure; returns the delay of its answer in milliseconds: base, doubled with each failure
 * in a row. */
int64_t penalty_fail(
    struct penalties *p, struct slice client, struct slice user, int64_t base, int64_t now);
/* A login that succeeded ends the count of the pair, not that of the client. */
void penalty_ok(struct penalties *p, struct slice client, struct slice user);
/* Failures of the pair that still count. */
unsigned penalty_count(struct penalties *p, struct slice client, struct slice user, int64_t now);

/* The part of a client's address that counts: an IPv4 address whole, of IPv6 the first prefix bits.
 */
struct slice penalty_client(struct slice address, unsigned prefix6, char out[64]);

#endif
