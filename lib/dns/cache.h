/* A cache of DNS answers: bounded in entries and bytes, oldest use thrown out first. */
#ifndef DNS_CACHE_H
#define DNS_CACHE_H

#include "dns/message.h"

struct dns_cache;

struct dns_cache *dns_cache_new(size_t max_entries, size_t max_bytes);
void dns_cache_free(struct dns_cache **cache);
/* The answer if it is there and has not expired at now (seconds of a monotonic clock); borrowed,
 * valid until the next call on the cache. */
const struct dns_answer *dns_cache_get(
    struct dns_cache *cache, const struct dns_name *name, enum dns_type type, int64_t now);
/* Takes the answer (from malloc) and keeps it for its ttl; one with ttl 0 is freed at once. */
void dns_cache_put(struct dns_cache *cache, const struct dns_name *name, enum dns_type type,
    struct dns_answer *answer, int64_t now);
/* What name and type are found by: at most DNS_KEY_MAX bytes, written to key and borrowed from it.
 */
enum { DNS_KEY_MAX = 2 + DNS_NAME_MAX };
struct slice dns_key(
    unsigned char key[DNS_KEY_MAX], const struct dns_name *name, enum dns_type type);
size_t dns_cache_count(const struct dns_cache *cache);

#endif
