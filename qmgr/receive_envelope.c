/*
 * What a receiver says of a message becomes its envelope. Runs in the loop of qmgr. Hostile input:
 * a receiver that was taken over; every number is checked against what is there, and flags that its
 * role does not own are taken off.
 */
#include "qmgr/qmgr.h"

#include <stdlib.h>

bool
receive_rcpts(struct message *m, struct msg_list list)
{
	struct cursor c = cursor(list.raw);
	struct item_env_rcpt r;
	struct envelope_rcpt *all;
	size_t n = m->env.n_rcpts;

	if (list.n > ENVELOPE_RECIPIENTS_MAX - n)
		return false;
	if (!list.n)
		return true;
	all = arena_alloc(&m->arena, (n + list.n) * sizeof(*all));
	if (n)
		memcpy(all, m->env.rcpts, n * sizeof(*all));
	while (item_env_rcpt_next(&c, &r)) {
		if (!r.address.n)
			return false;
		all[n++] = (struct envelope_rcpt){ .address = arena_dup(&m->arena, r.address),
			.original = arena_dup(&m->arena, r.original),
			.orcpt = arena_dup(&m->arena, r.orcpt),
			.notify = r.notify &
				  (NOTIFY_NEVER | NOTIFY_SUCCESS | NOTIFY_FAILURE | NOTIFY_DELAY) };
	}
	m->env.rcpts = all;
	m->env.n_rcpts = n;
	return true;
}

/* What each kind of receiver may say of a message. */
static unsigned int
allowed_flags(enum role role)
{
	unsigned int all = MAIL_8BIT | MAIL_BINARY | MAIL_UTF8 | MAIL_HOLD | MAIL_QUEUE_FIRST |
			   MAIL_PER_RCPT | MAIL_DEFER;

	if (role == ROLE_SUBMISSION_CHILD || role == ROLE_PICKUP)
		all |= MAIL_LOCAL | MAIL_AUTHENTICATED;
	if (role == ROLE_BOUNCE)
		all |= MAIL_NOTICE | MAIL_POSTMASTER;
	return all;
}

static bool
add_extents(struct message *m, struct msg_list list)
{
	struct cursor c = cursor(list.raw);
	struct item_extent x;
	uint64_t sum = 0;

	while (item_extent_next(&c, &x)) {
		if (m->env.n_extents == ENVELOPE_EXTENTS_MAX || x.length > (uint64_t)1 << 40 ||
		    x.offset > (uint64_t)1 << 40)
			return false;
		m->env.extents[m->env.n_extents++] = (struct envelope_extent){ x.offset, x.length };
		sum += x.length;
	}
	return sum == m->env.size;
}

bool
receive_envelope(
    struct qmgr *q, struct message *m, struct transaction *t, const struct msg_mail_commit *c)
{
	struct envelope *e = &m->env;

	e->arrival = (uint64_t)ev_wall_us();
	/* The receiver's clock counts for delays, not for expiry: it may not be in the future. */
	if (c->arrival && c->arrival < e->arrival &&
	    e->arrival - c->arrival < (uint64_t)86400 * 1000000)
		e->arrival = c->arrival;
	m->arrived = qmgr_past(q, (int64_t)(e->arrival / 1000));
	e->size = c->size;
	e->flags = c->flags & allowed_flags(ipc_chan_peer(t->chan));
	e->ret = c->ret <= RET_HDRS ? c->ret : RET_NONE;
	e->sender = arena_dup(&m->arena, c->sender);
	e->envid = arena_dup(&m->arena, c->envid);
	e->session = arena_dup(&m->arena, c->session);
	e->client = arena_dup(&m->arena, c->client);
	if (!receive_rcpts(m, c->rcpts) || !e->n_rcpts)
		return false;
	/* busy: the file is not even there, so the receiver cannot have written it */
	if (t->opened)
		return !m->busy && c->content.n == 0 && slice_eq_str(c->queue_id, m->name) &&
		       add_extents(m, c->extents);
	if (c->size != c->content.n || c->queue_id.n)
		return false;
	buf_add(&m->content, c->content);
	m->has_content = true;
	e->n_extents = 1;
	e->extents[0] = (struct envelope_extent){ 0, e->size };
	return true;
}

uint64_t
receive_content_end(const struct envelope *e)
{
	uint64_t end = 0;

	for (size_t i = 0; i < e->n_extents; i++)
		if (e->extents[i].offset + e->extents[i].length > end)
			end = e->extents[i].offset + e->extents[i].length;
	return end;
}
