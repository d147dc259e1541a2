/*
 * Recent right answers: a phone that logs in every minute costs one key derivation an hour. Only a
 * keyed digest of user, verifier and password is kept, so a new password or a deleted user ends it
 * by itself. Safe from all threads.
 */
#ifndef AUTH_CACHE_H
#define AUTH_CACHE_H

#include "base/slice.h"

struct cache;
struct cache *cache_new(void);
void cache_free(struct cache **cache);
/* Bounds: entries (0: no cache) and milliseconds; may change at reload. */
void cache_bounds(struct cache *cache, size_t size, int64_t lifetime);
/* True if the same three were put in less than the lifetime ago. */
bool cache_has(struct cache *cache, struct slice user, struct slice verifier, struct slice password,
    int64_t now);
void cache_put(struct cache *cache, struct slice user, struct slice verifier, struct slice password,
    int64_t now);

#endif
