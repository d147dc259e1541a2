/*
 * The table of failed logins, in auth (bh-auth). Hostile: client addresses and user names, both
 * chosen freely, hence a keyed table of bounded size. Invariant: an entry is forgotten a quarter of
 * an hour after its last failure.
 */
#include "helpers/auth/penalty.h"

#include "base/buf.h"
#include "base/hash.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#define FORGET_MS ((int64_t)15 * 60 * 1000)
#define FACTOR_MAX 8     /* times the base */
#define CLIENT_GRACE 10u /* failures of a client over all users before its answers slow down */

struct entry {
	struct hash_node node;
	TAILQ_ENTRY(entry) next;
	unsigned count;
	int64_t last;
	unsigned char key[];
};

struct penalties {
	struct hash table;
	TAILQ_HEAD(, entry) all; /* quiet longest first */
	size_t size;
};

struct penalties *
penalties_new(size_t size)
{
	struct penalties *p = xcalloc(1, sizeof(*p));

	TAILQ_INIT(&p->all);
	p->size = size ? size : 1;
	return p;
}

static void
forget(struct penalties *p, struct entry *e)
{
	hash_remove(&p->table, &e->node);
	TAILQ_REMOVE(&p->all, e, next);
	free(e);
}

void
penalties_free(struct penalties **p)
{
	if (!*p)
		return;
	while (!TAILQ_EMPTY(&(*p)->all))
		forget(*p, TAILQ_FIRST(&(*p)->all));
	hash_free(&(*p)->table);
	free(*p);
	*p = NULL;
}

/* The pair's key, or with a null user the client's. */
static void
make_key(struct slice client, struct slice user, struct buf *out)
{
	buf_add_counted(out, client);
	for (size_t i = 0; i < user.n; i++)
		buf_add_byte(out, ascii_lower(user.p[i]));
	buf_add_u8(out, user.p ? 1 : 0);
}

static struct entry *
find(struct penalties *p, struct slice client, struct slice user)
{
	struct buf key = { 0 };
	struct hash_node *node;

	make_key(client, user, &key);
	node = hash_find(&p->table, buf_slice(&key));
	buf_free(&key);
	return node ? HASH_ELEMENT(node, struct entry, node) : NULL;
}

static unsigned
add(struct penalties *p, struct slice client, struct slice user, int64_t now)
{
	struct entry *e = find(p, client, user);
	struct buf key = { 0 };

	if (e) {
		e->count = now - e->last > FORGET_MS ? 1 : e->count + 1;
		TAILQ_REMOVE(&p->all, e, next);
	} else {
		if (p->table.count >= p->size)
			forget(p, TAILQ_FIRST(&p->all));
		make_key(client, user, &key);
		e = xcalloc(1, sizeof(*e) + buf_len(&key));
		memcpy(e->key, buf_slice(&key).p, buf_len(&key));
		e->count = 1;
		hash_insert(&p->table, &e->node, slice(e->key, buf_len(&key)));
		buf_free(&key);
	}
	e->last = now;
	TAILQ_INSERT_TAIL(&p->all, e, next);
	return e->count;
}

static int64_t
factor(unsigned failures)
{
	return failures > 3 ? FACTOR_MAX : (int64_t)1 << (failures ? failures - 1 : 0);
}

int64_t
penalty_fail(struct penalties *p, struct slice client, struct slice user, int64_t base, int64_t now)
{
	int64_t pair = factor(add(p, client, user.p ? user : SLICE_LIT(""), now));
	unsigned all = add(p, client, SLICE_NULL, now);
	int64_t whole = all > CLIENT_GRACE ? factor((all - CLIENT_GRACE) / 5 + 1) : 1;

	return base * (pair > whole ? pair : whole);
}

void
penalty_ok(struct penalties *p, struct slice client, struct slice user)
{
	struct entry *e = find(p, client, user.p ? user : SLICE_LIT(""));

	if (e)
		forget(p, e);
}

unsigned
penalty_count(struct penalties *p, struct slice client, struct slice user, int64_t now)
{
	struct entry *e = find(p, client, user.p ? user : SLICE_LIT(""));

	return e && now - e->last <= FORGET_MS ? e->count : 0;
}

struct slice
penalty_client(struct slice address, unsigned prefix6, char out[64])
{
	unsigned char a[16];

	if (slice_copy(address, out, 64) < 0)
		return slice_sub(address, 0, 64);
	if (inet_pton(AF_INET6, out, a) != 1)
		return slice_str(out);
	for (unsigned bit = prefix6; bit < 128; bit++)
		a[bit / 8] &= (unsigned char)~(0x80 >> bit % 8);
	inet_ntop(AF_INET6, a, out, 64);
	return slice_str(out);
}
