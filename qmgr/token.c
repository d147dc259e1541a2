/*
 * Users of tokens: whose the token of a submission is, and which senders are that user's own. Runs
 * in qmgr; asks auth and remembers the answer for a minute. Hostile input: the token, which a
 * receiver gave, and auth's answers; one that nobody asked for is counted and dropped. A message
 * waits here (m->routing) until auth has answered; what a dead auth was asked is asked of its
 * successor.
 */
#include "qmgr/qmgr.h"

#include <stdlib.h>

#define TOKEN_LIMIT 10000u
#define TOKEN_TTL_MS 60000

struct token_waiter {
	struct token_waiter *next;
	struct message *msg;
};

struct token_entry {
	struct hash_node node; /* by token */
	TAILQ_ENTRY(token_entry) lru;
	uint32_t id; /* of the question under way, or 0 */
	int64_t expires;
	struct token_waiter *waiters;
	struct arena arena;
	struct slice user;
	struct msg_list senders;
	unsigned char token[32];
};

static void
token_free(struct qmgr *q, struct token_entry *t)
{
	TAILQ_REMOVE(&q->token_lru, t, lru);
	hash_remove(&q->tokens, &t->node);
	arena_free(&t->arena);
	free(t);
}

/* user@example.com for user+box@example.com. */
static bool
same_but_extension(struct slice sender, struct slice own, const char *delimiters)
{
	ptrdiff_t at = slice_rfind(sender, '@');
	struct slice local = slice_sub(sender, 0, at < 0 ? SIZE_MAX : (size_t)at);
	struct slice domain = at < 0 ? SLICE_NULL : slice_sub(sender, (size_t)at, SIZE_MAX);

	for (size_t i = 1; i < local.n; i++)
		if (local.p[i] && delimiters && strchr(delimiters, local.p[i]) &&
		    own.n == i + domain.n &&
		    slice_caseeq(slice_sub(own, 0, i), slice_sub(local, 0, i)) &&
		    slice_caseeq(slice_sub(own, i, SIZE_MAX), domain))
			return true;
	return false;
}

static bool
owns(const struct qmgr *q, const struct token_entry *t, struct slice sender)
{
	struct cursor c = cursor(t->senders.raw);
	struct item_sender s;

	if (!sender.n || !q->d->conf->submission_sender_check)
		return true;
	while (item_sender_next(&c, &s)) {
		if (slice_caseeq(s.address, sender) || slice_eq_str(s.address, "*"))
			return true;
		if (s.address.n && s.address.p[0] == '@' && s.address.n < sender.n &&
		    slice_caseeq(slice_sub(sender, sender.n - s.address.n, SIZE_MAX), s.address))
			return true;
		if (same_but_extension(sender, s.address, q->d->conf->recipient_delimiter))
			return true;
	}
	return false;
}

static void
judge_token(struct qmgr *q, struct message *m, const struct token_entry *t)
{
	if (owns(q, t, m->env.sender)) {
		receive_checked(q, m, t->user, 0, NULL, NULL);
		return;
	}
	sender_judge(q, m, t->user);
}

static void
send_token(struct qmgr *q, struct token_entry *t)
{
	struct msg m = MSG_INIT(MSG_TOKEN_CHECK, t->id);

	m.token_check.token = slice(t->token, sizeof(t->token));
	m.token_check.service = SLICE_LIT("smtp");
	(void)daemon_send(q->d, ROLE_AUTH, &m);
}

void
token_ask(struct qmgr *q, struct message *m, struct slice token)
{
	struct hash_node *n = token.n == 32 ? hash_find(&q->tokens, token) : NULL;
	struct token_entry *t = n ? HASH_ELEMENT(n, struct token_entry, node) : NULL;
	struct token_waiter *w;

	if (token.n != 32) {
		receive_checked(q, m, SLICE_NULL, 530, "5.7.0", "Authentication required");
		return;
	}
	if (t && !t->id && t->expires > qmgr_now(q)) {
		judge_token(q, m, t);
		return;
	}
	if (t && !t->id) {
		token_free(q, t);
		t = NULL;
	}
	if (!t) {
		if (q->tokens.count >= TOKEN_LIMIT && !TAILQ_FIRST(&q->token_lru)->id)
			token_free(q, TAILQ_FIRST(&q->token_lru));
		t = xcalloc(1, sizeof(*t));
		memcpy(t->token, token.p, 32);
		t->id = ++q->next_id;
		hash_insert(&q->tokens, &t->node, slice(t->token, 32));
		TAILQ_INSERT_TAIL(&q->token_lru, t, lru);
		send_token(q, t);
	}
	w = xcalloc(1, sizeof(*w));
	*w = (struct token_waiter){ t->waiters, m };
	t->waiters = w;
	m->routing++; /* holds the message */
}

void
token_answer(struct qmgr *q, const struct msg *msg)
{
	const struct msg_token_user *a = &msg->token_user;
	struct token_entry *t;
	struct token_waiter *w, *next;

	TAILQ_FOREACH_REVERSE(t, &q->token_lru, token_lru, lru)
	if (t->id && t->id == msg->id)
		break;
	if (!t) {
		q->odd++;
		return;
	}
	t->id = 0;
	t->expires = qmgr_now(q) + TOKEN_TTL_MS;
	t->user = arena_dup(&t->arena, a->user);
	t->senders.raw = arena_dup(&t->arena, a->senders.raw);
	t->senders.n = a->senders.n;
	w = t->waiters;
	t->waiters = NULL;
	for (; w; w = next) {
		struct message *m = w->msg;

		next = w->next;
		message_pin(q, m);
		m->routing--;
		if (a->status == 0)
			judge_token(q, m, t);
		else if (a->status == 1)
			receive_checked(q, m, SLICE_NULL, 530, "5.7.0", "Authentication required");
		else
			receive_checked(
			    q, m, SLICE_NULL, 454, "4.7.0", "Temporary authentication failure");
		message_unpin(q, m);
		free(w);
	}
	if (a->status)
		token_free(q, t);
	deliver_pump(q);
}

void
token_link_up(struct qmgr *q)
{
	struct token_entry *t;

	TAILQ_FOREACH(t, &q->token_lru, lru)
		if (t->id)
			send_token(q, t);
}
