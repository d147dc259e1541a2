/*
 * The cache of recent right passwords, in auth (bh-auth), used by its workers. Hostile: user and
 * password. Invariants: what is kept cannot be turned back into a password without the key, which
 * lives and dies with the process; the oldest goes when it is full; a wrong password never enters.
 */
#include "helpers/auth/cache.h"

#include "base/buf.h"
#include "base/hash.h"
#include "tls/openssl.h"

#include <openssl/hmac.h>

#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>

struct entry {
	struct hash_node node;
	TAILQ_ENTRY(entry) next;
	unsigned char digest[32];
	int64_t expires;
};

struct cache {
	pthread_mutex_t lock;
	unsigned char key[32];
	struct hash table;
	TAILQ_HEAD(, entry) all; /* oldest first */
	size_t size;
	int64_t lifetime;
};

struct cache *
cache_new(void)
{
	struct cache *c = xcalloc(1, sizeof(*c));

	TAILQ_INIT(&c->all);
	pthread_mutex_init(&c->lock, NULL);
	if (RAND_bytes(c->key, sizeof(c->key)) != 1)
		die("cannot draw a key: the random generator of OpenSSL fails");
	return c;
}

static void
forget(struct cache *c, struct entry *e)
{
	hash_remove(&c->table, &e->node);
	TAILQ_REMOVE(&c->all, e, next);
	OPENSSL_cleanse(e, sizeof(*e));
	free(e);
}

static void
trim(struct cache *c, size_t size, int64_t now)
{
	struct entry *e;

	while ((e = TAILQ_FIRST(&c->all)) && (c->table.count > size || now >= e->expires))
		forget(c, e);
}

void
cache_free(struct cache **c_p)
{
	struct cache *c = *c_p;

	*c_p = NULL;
	if (!c)
		return;
	trim(c, 0, 0);
	hash_free(&c->table);
	pthread_mutex_destroy(&c->lock);
	OPENSSL_cleanse(c, sizeof(*c));
	free(c);
}

void
cache_bounds(struct cache *c, size_t size, int64_t lifetime)
{
	pthread_mutex_lock(&c->lock);
	/* What was kept for longer than it may be now goes. */
	trim(c, lifetime < c->lifetime ? 0 : size, 0);
	c->size = size;
	c->lifetime = lifetime;
	pthread_mutex_unlock(&c->lock);
}

static void
digest_of(const struct cache *c, struct slice user, struct slice verifier, struct slice password,
    unsigned char out[32])
{
	struct buf b = { 0 };
	unsigned n = 0;

	buf_add_counted(&b, user);
	buf_add_counted(&b, verifier);
	buf_add_counted(&b, password);
	if (!HMAC(EVP_sha256(), c->key, sizeof(c->key), buf_slice(&b).p, buf_len(&b), out, &n))
		die("cannot compute an HMAC: OpenSSL is not usable");
	buf_wipe(&b);
}

bool
cache_has(
    struct cache *c, struct slice user, struct slice verifier, struct slice password, int64_t now)
{
	unsigned char digest[32];
	struct hash_node *node;
	bool found;

	digest_of(c, user, verifier, password, digest);
	pthread_mutex_lock(&c->lock);
	trim(c, c->size, now);
	node = hash_find(&c->table, slice(digest, sizeof(digest)));
	found = node && now < HASH_ELEMENT(node, struct entry, node)->expires;
	pthread_mutex_unlock(&c->lock);
	return found;
}

void
cache_put(
    struct cache *c, struct slice user, struct slice verifier, struct slice password, int64_t now)
{
	struct entry *e = xcalloc(1, sizeof(*e));

	digest_of(c, user, verifier, password, e->digest);
	pthread_mutex_lock(&c->lock);
	if (c->size == 0 || hash_find(&c->table, slice(e->digest, sizeof(e->digest)))) {
		free(e);
	} else {
		trim(c, c->size - 1, now);
		e->expires = now + c->lifetime;
		hash_insert(&c->table, &e->node, slice(e->digest, sizeof(e->digest)));
		TAILQ_INSERT_TAIL(&c->all, e, next);
	}
	pthread_mutex_unlock(&c->lock);
}
