/*
 * The table of tokens, in auth (bh-auth). Hostile: tokens shown by broker and qmgr on behalf of
 * front ends that may be taken over; a guess has to hit 256 random bits, and the table is keyed, so
 * timing tells nothing. Invariants: a token of one service never answers for another; a token good
 * once is gone after its check, right or wrong service alike.
 */
#include "helpers/auth/token.h"

#include "tls/openssl.h"

#include <stdlib.h>
#include <sys/queue.h>

#define TOKENS_MAX 200000

struct token {
	struct hash_node node;
	TAILQ_ENTRY(token) next; /* in the order of issue */
	unsigned char bytes[TOKEN_SIZE];
	char service[17];
	const void *owner;
	bool once;
	int64_t expires;
	struct account *account;
};

struct tokens {
	struct hash table;
	TAILQ_HEAD(, token) all;
};

void
account_free(struct account **account)
{
	struct account *a = *account;

	*account = NULL;
	if (!a)
		return;
	arena_free(&a->arena);
	free(a);
}

struct tokens *
tokens_new(void)
{
	struct tokens *t = xcalloc(1, sizeof(*t));

	TAILQ_INIT(&t->all);
	return t;
}

static void
forget(struct tokens *t, struct token *token)
{
	hash_remove(&t->table, &token->node);
	TAILQ_REMOVE(&t->all, token, next);
	account_free(&token->account);
	OPENSSL_cleanse(token, sizeof(*token));
	free(token);
}

void
tokens_free(struct tokens **t_p)
{
	struct tokens *t = *t_p;

	*t_p = NULL;
	if (!t)
		return;
	while (!TAILQ_EMPTY(&t->all))
		forget(t, TAILQ_FIRST(&t->all));
	hash_free(&t->table);
	free(t);
}

int
tokens_issue(struct tokens *t, const char *service, const void *owner, bool once, int64_t expires,
    struct account **account, unsigned char out[TOKEN_SIZE])
{
	struct token *token;

	if (t->table.count >= TOKENS_MAX)
		return ERR_LIMIT;
	token = xcalloc(1, sizeof(*token));
	if (RAND_bytes(token->bytes, TOKEN_SIZE) != 1 ||
	    slice_copy(slice_str(service), token->service, sizeof(token->service)) < 0) {
		free(token);
		return ERR_TEMPORARY;
	}
	token->owner = owner;
	token->once = once;
	token->expires = expires;
	token->account = *account;
	*account = NULL;
	hash_insert(&t->table, &token->node, slice(token->bytes, TOKEN_SIZE));
	TAILQ_INSERT_TAIL(&t->all, token, next);
	memcpy(out, token->bytes, TOKEN_SIZE);
	return 0;
}

struct account *
tokens_check(struct tokens *t, struct slice bytes, struct slice service, int64_t now, bool *taken_r)
{
	struct hash_node *node = bytes.n == TOKEN_SIZE ? hash_find(&t->table, bytes) : NULL;
	struct token *token = node ? HASH_ELEMENT(node, struct token, node) : NULL;
	struct account *account = NULL;
	bool good;

	*taken_r = false;
	if (!token)
		return NULL;
	good = now < token->expires && slice_eq_str(service, token->service);
	if (good && !token->once)
		return token->account;
	if (good) {
		account = token->account;
		token->account = NULL;
		*taken_r = true;
	}
	forget(t, token);
	return account;
}

void
tokens_drop(struct tokens *t, const void *owner, int64_t expires)
{
	struct token *token;

	TAILQ_FOREACH(token, &t->all, next)
		if (token->owner == owner) {
			token->owner = NULL;
			if (token->expires > expires)
				token->expires = expires;
		}
}

void
tokens_drop_user(struct tokens *t, struct slice user)
{
	struct token *token, *after;

	for (token = TAILQ_FIRST(&t->all); token; token = after) {
		after = TAILQ_NEXT(token, next);
		if (slice_caseeq(token->account->user, user))
			forget(t, token);
	}
}

size_t
tokens_sweep(struct tokens *t, int64_t now)
{
	struct token *token, *after;

	for (token = TAILQ_FIRST(&t->all); token; token = after) {
		after = TAILQ_NEXT(token, next);
		if (now >= token->expires)
			forget(t, token);
	}
	return t->table.count;
}
