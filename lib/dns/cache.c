/*
 * The cache of DNS answers. Runs in dns; names and answers are chosen by strangers, hence a keyed
 * hash and bounds on both entries and bytes. Invariant: every entry is in the hash and in the list,
 * whose head was used last; the sum of the entries' sizes is bytes.
 */
#include "dns/cache.h"

#include "base/hash.h"

#include <stdlib.h>
#include <sys/queue.h>

struct entry {
	struct hash_node node;
	TAILQ_ENTRY(entry) link;
	struct dns_answer *answer;
	int64_t expires;
	unsigned char key[DNS_KEY_MAX]; /* type, then the name */
};

TAILQ_HEAD(entries, entry);

struct dns_cache {
	struct hash by_key;
	struct entries used;
	size_t max_entries, max_bytes, bytes;
};

struct dns_cache *
dns_cache_new(size_t max_entries, size_t max_bytes)
{
	struct dns_cache *c = xcalloc(1, sizeof(*c));

	c->max_entries = max_entries;
	c->max_bytes = max_bytes;
	TAILQ_INIT(&c->used);
	return c;
}

static size_t
entry_size(const struct entry *e)
{
	return sizeof(*e) + e->answer->size;
}

static void
entry_drop(struct dns_cache *c, struct entry *e)
{
	c->bytes -= entry_size(e);
	hash_remove(&c->by_key, &e->node);
	TAILQ_REMOVE(&c->used, e, link);
	free(e->answer);
	free(e);
}

void
dns_cache_free(struct dns_cache **cache)
{
	struct dns_cache *c = *cache;

	if (!c)
		return;
	while (!TAILQ_EMPTY(&c->used))
		entry_drop(c, TAILQ_FIRST(&c->used));
	hash_free(&c->by_key);
	free(c);
	*cache = NULL;
}

struct slice
dns_key(unsigned char key[DNS_KEY_MAX], const struct dns_name *name, enum dns_type type)
{
	key[0] = (unsigned char)(type >> 8);
	key[1] = (unsigned char)type;
	memcpy(key + 2, name->wire, name->n);
	return slice(key, name->n + 2u);
}

static struct entry *
entry_find(struct dns_cache *c, const struct dns_name *name, enum dns_type type)
{
	unsigned char key[DNS_KEY_MAX];
	struct hash_node *node = hash_find(&c->by_key, dns_key(key, name, type));

	return node ? HASH_ELEMENT(node, struct entry, node) : NULL;
}

const struct dns_answer *
dns_cache_get(struct dns_cache *c, const struct dns_name *name, enum dns_type type, int64_t now)
{
	struct entry *e = entry_find(c, name, type);

	if (!e)
		return NULL;
	if (now >= e->expires) {
		entry_drop(c, e);
		return NULL;
	}
	TAILQ_REMOVE(&c->used, e, link);
	TAILQ_INSERT_HEAD(&c->used, e, link);
	return e->answer;
}

void
dns_cache_put(struct dns_cache *c, const struct dns_name *name, enum dns_type type,
    struct dns_answer *answer, int64_t now)
{
	struct entry *e = entry_find(c, name, type);

	if (e)
		entry_drop(c, e);
	if (!answer->ttl || !c->max_entries) {
		free(answer);
		return;
	}
	e = xcalloc(1, sizeof(*e));
	e->answer = answer;
	e->expires = now + answer->ttl;
	hash_insert(&c->by_key, &e->node, dns_key(e->key, name, type));
	TAILQ_INSERT_HEAD(&c->used, e, link);
	c->bytes += entry_size(e);
	while (c->by_key.count > c->max_entries || c->bytes > c->max_bytes)
		entry_drop(c, TAILQ_LAST(&c->used, entries));
}

size_t
dns_cache_count(const struct dns_cache *c)
{
	return c->by_key.count;
}
