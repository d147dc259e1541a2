/*
 * Expansions: a delivery found a .forward or read an :include: and gives new addresses. They are
 * resolved by maps like those of any receiver, and become a message of their own, durable before
 * the recipient that they came from is done. Runs in the loop of qmgr. Hostile input: the
 * addresses, which a user wrote; the depth of expansions is bounded, and so is their number: at the
 * bound the recipient is refused whole, never cut. Questions outlive the death of maps and are
 * asked again; the share of the window that one expansion has leaves room for the others.
 */
#include "qmgr/deliver.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define DEPTH_MAX 20u
/* flags of rcpt_check */
#define RELAY_ALLOWED 1u /* a user may forward to anywhere */
#define ASK_MAILBOX 16u  /* \name */

#define SHARE (MAPS_WINDOW / 4) /* of one expansion */

struct expanded {
	struct slice address;
	bool mailbox; /* it was \address */
	bool open;    /* asked and not answered */
	const struct ipc_chan
	    *at; /* the maps that was asked; NULL: the next one that comes up is */
	unsigned int code;
	struct slice enhanced, text;
};

struct final {
	struct hash_node node; /* by address */
	struct envelope_rcpt rcpt;
};

struct expansion_job {
	struct expansion_job *next;      /* of the same parent */
	TAILQ_ENTRY(expansion_job) all;  /* in q->expansions */
	TAILQ_ENTRY(expansion_job) turn; /* in q->expansion_turns, while it may ask */
	struct message *parent, *child;
	uint32_t slot;
	bool started, in_turn;
	bool too_many; /* finals */
	size_t n, asked, open;
	uint32_t first_id; /* of the question for the first address; the others follow */
	size_t temporary;  /* index + 1 of an address that cannot be judged now */
	struct expanded *addresses;
	struct arena arena;
	struct hash known; /* the finals */
	struct final **finals;
	size_t n_finals;
};

static void
take_address(struct expansion_job *x, struct slice address)
{
	struct expanded *e = &x->addresses[x->n++];

	e->mailbox = address.n > 1 && address.p[0] == '\\';
	e->address = arena_dup(&x->arena, slice_sub(address, e->mailbox, address.n));
}

void
expand_result(struct qmgr *q, struct message *m, uint32_t slot, struct msg_list addresses)
{
	struct expansion_job *x = xcalloc(1, sizeof(*x));
	struct cursor c = cursor(addresses.raw);
	struct item_expansion item;

	x->parent = m;
	x->slot = slot;
	while (item_expansion_next(&c, &item))
		x->n += item.slot == slot && item.address.n;
	x->addresses = arena_alloc(&x->arena, (x->n + 1) * sizeof(*x->addresses));
	x->n = 0;
	for (c = cursor(addresses.raw); item_expansion_next(&c, &item);)
		if (item.slot == slot && item.address.n)
			take_address(x, item.address);
	x->next = m->expansions;
	m->expansions = x;
	TAILQ_INSERT_TAIL(&q->expansions, x, all);
	m->rcpts[slot].expanded = true;
	if (m->state == MSG_DIRECT)
		message_event(q, m, MSG_EXPANDED);
	else if (m->state == MSG_DONE) /* deleted meanwhile */
		expand_drop(q, m);
	else
		expand_continue(q, m);
}

static void
log_end(struct qmgr *q, const struct message *m, uint32_t slot, enum rcpt_event event)
{
	if (event == RCPT_LATER)
		count(COUNT_deferrals, 1);
	if (event == RCPT_REFUSED)
		count(COUNT_bounces, 1);
	result_log(q, m, slot,
	    event == RCPT_LATER     ? "deferred"
	    : event == RCPT_REFUSED ? "bounced"
				    : "expanded",
	    NULL, 0, 0);
}

static void
end(struct qmgr *q, struct expansion_job *x, enum rcpt_event event, const char *enhanced,
    const char *text)
{
	struct message *m = x->parent;
	struct expansion_job **at = &m->expansions;

	message_pin(q, m);
	while (*at != x)
		at = &(*at)->next;
	*at = x->next;
	TAILQ_REMOVE(&q->expansions, x, all);
	if (x->in_turn)
		TAILQ_REMOVE(&q->expansion_turns, x, turn);
	q->expansion_asked -= x->open;
	m->rcpts[x->slot].expanded = false;
	result_set(m, x->slot, slice_str(enhanced), slice_str(text), SLICE_NULL);
	message_rcpt(q, m, x->slot, event);
	log_end(q, m, x->slot, event);
	if (x->child)
		x->child->from = NULL;
	hash_free(&x->known);
	arena_free(&x->arena);
	free(x);
	if (m->state != MSG_DONE) {
		if (event == RCPT_LATER)
			deliver_resettle(q, m);
		message_judge(q, m);
	}
	message_unpin(q, m);
}

static void
send_question(struct qmgr *q, struct expansion_job *x, size_t i)
{
	struct msg m = MSG_INIT(MSG_RCPT_CHECK, x->first_id + (uint32_t)i);

	m.rcpt_check.address = x->addresses[i].address;
	m.rcpt_check.sender = x->parent->env.sender;
	m.rcpt_check.flags = RELAY_ALLOWED | (x->addresses[i].mailbox ? ASK_MAILBOX : 0);
	x->addresses[i].at = daemon_send(q->d, ROLE_MAPS, &m) ? NULL : q->d->peers[ROLE_MAPS];
}

/* Its fate is known already: nothing more is asked for it. */
static bool
is_decided(const struct expansion_job *x)
{
	return x->temporary || x->too_many;
}

static void
take_turn(struct qmgr *q, struct expansion_job *x)
{
	if (x->in_turn || is_decided(x) || x->asked == x->n || x->open >= SHARE)
		return;
	x->in_turn = true;
	TAILQ_INSERT_TAIL(&q->expansion_turns, x, turn);
}

/* An address of each in turn, as far as the window goes. */
static void
ask_more(struct qmgr *q)
{
	struct expansion_job *x;

	while (q->expansion_asked < MAPS_WINDOW && (x = TAILQ_FIRST(&q->expansion_turns))) {
		TAILQ_REMOVE(&q->expansion_turns, x, turn);
		x->in_turn = false;
		if (is_decided(x))
			continue;
		x->addresses[x->asked].open = true;
		x->open++;
		q->expansion_asked++;
		send_question(q, x, x->asked++);
		take_turn(q, x);
	}
}

/* Numbers are taken for all at once. */
static void
start(struct qmgr *q, struct expansion_job *x)
{
	x->first_id = q->next_id + 1;
	q->next_id += (uint32_t)x->n;
	x->started = true;
	take_turn(q, x);
}

void
expand_continue(struct qmgr *q, struct message *m)
{
	message_pin(q, m);
	for (struct expansion_job *x = m->expansions, *next; x; x = next) {
		next = x->next;
		if (x->started || (m->state != MSG_QUEUED && m->state != MSG_HELD))
			continue;
		if (!x->n)
			end(q, x, RCPT_DELIVERED, "2.0.0", "expanded to nobody");
		else if (m->env.hops >= DEPTH_MAX)
			end(q, x, RCPT_REFUSED, "5.4.6", "mail forwarding loop");
		else if (x->n > ENVELOPE_RECIPIENTS_MAX)
			end(q, x, RCPT_REFUSED, "5.2.4", EXPAND_TOO_MANY);
		else
			start(q, x);
	}
	ask_more(q);
	message_unpin(q, m);
}

/* --- the new message --- */

/* "\address" of maps is a mailbox itself: such a recipient is its own original (route_key). */
static void
add_final(struct expansion_job *x, struct slice address, const struct expanded *failed)
{
	const struct envelope_rcpt *from = &x->parent->env.rcpts[x->slot];
	bool mailbox = !failed && address.n > 1 && address.p[0] == '\\';
	struct final **grown, *f;
	struct envelope_rcpt *r;

	if (hash_find(&x->known, address))
		return;
	address = arena_dup(&x->arena, address);
	x->too_many = x->too_many || x->n_finals == ENVELOPE_RECIPIENTS_MAX;
	if (x->too_many)
		return;
	if ((x->n_finals & (x->n_finals + 1)) == 0) { /* grow at 0, 1, 3, 7 ... */
		grown = arena_alloc(&x->arena, (x->n_finals * 2 + 1) * sizeof(*grown));
		if (x->n_finals)
			memcpy(grown, x->finals, x->n_finals * sizeof(*grown));
		x->finals = grown;
	}
	f = x->finals[x->n_finals++] = arena_alloc(&x->arena, sizeof(*f));
	r = &f->rcpt;
	*r = (struct envelope_rcpt){ .address = slice_sub(address, mailbox, address.n),
		.original = from->address,
		.orcpt = from->orcpt,
		.notify = from->notify };
	if (mailbox)
		r->original = r->address;
	hash_insert(&x->known, &f->node, address);
	if (failed) {
		struct rcpt_status *s = envelope_status(&x->arena, r);

		s->state = RCPT_FAILED;
		s->last_attempt = (uint64_t)ev_wall_us() / 1000000;
		rcpt_status_set(s, failed->enhanced, failed->text, SLICE_NULL);
	}
}

/* A list with an owner: what goes wrong behind it is the owner's. */
static bool
is_list(const struct expansion_job *x)
{
	const struct route *r = x->parent->rcpts[x->slot].route;

	return r && r->run == RUN_ALIAS && r->argument.n;
}

/* RFC 3461 5.2.7.3 (c): of several only the alias itself reports success, as expanded. */
static unsigned int
without_success(unsigned int notify)
{
	unsigned int left = notify & ~(unsigned int)NOTIFY_SUCCESS;

	return notify && !left ? NOTIFY_NEVER : left;
}

/* What the sender asked for goes on with the message, but not beyond a list (RFC 3461 5.2.7.1 (b)),
 * which has a sender of its own. The null sender stays: what fails behind a notice is told to
 * nobody. */
static void
child_envelope(struct message *m, const struct expansion_job *x)
{
	const struct message *p = x->parent;
	struct envelope *e = &m->env;
	bool list = is_list(x);

	e->sender = arena_dup(
	    &m->arena, list && p->env.sender.n ? p->rcpts[x->slot].route->argument : p->env.sender);
	e->ret = list ? RET_NONE : p->env.ret;
	e->envid = list ? SLICE_NULL : arena_dup(&m->arena, p->env.envid);
	e->n_rcpts = x->n_finals;
	e->rcpts = arena_alloc(&m->arena, x->n_finals * sizeof(*e->rcpts));
	for (size_t i = 0; i < x->n_finals; i++) {
		struct envelope_rcpt *r = &e->rcpts[i], *f = &x->finals[i]->rcpt;

		*r = (struct envelope_rcpt){ .address = arena_dup(&m->arena, f->address),
			.original = arena_dup(&m->arena, f->original) };
		if (!list) {
			r->orcpt = arena_dup(&m->arena, f->orcpt);
			r->notify = x->n_finals > 1 ? without_success(f->notify) : f->notify;
		}
		if (f->status)
			*envelope_status(&m->arena, r) = *f->status;
	}
}

static struct message *
make_child(struct qmgr *q, struct expansion_job *x, queue_id id)
{
	const struct message *p = x->parent;
	struct message *m = message_new(q);
	struct envelope *e = &m->env;
	char *header = arena_printf(
	    &m->arena, "Delivered-To: %.*s\r\n", SLICE_ARG(p->env.rcpts[x->slot].address));
	struct slice head = slice_str(header);

	*e = (struct envelope){ .arrival = p->env.arrival,
		.hops = p->env.hops + 1,
		/* a hold is over once the parent was delivered */
		.flags = (p->env.flags | MAIL_QUEUE_FIRST) &
			 ~(unsigned int)(MAIL_PER_RCPT | MAIL_DEFER | MAIL_HOLD) };
	m->arrived = p->arrived;
	child_envelope(m, x);
	e->session = arena_dup(&m->arena, p->env.session);
	e->client = arena_dup(&m->arena, p->env.client);
	e->user = arena_dup(&m->arena, p->env.user);
	e->size = head.n + p->env.size;
	e->n_extents = 1;
	e->extents[0] = (struct envelope_extent){ 0, e->size };
	buf_add(&m->content, head);
	if (p->has_content) {
		buf_add(&m->content, buf_slice(&p->content));
		m->has_content = true;
	}
	message_set_id(q, m, id);
	return m;
}

/* The address and what maps said of it; lives as long as x. */
static const char *
why_later(struct expansion_job *x)
{
	const struct expanded *e = &x->addresses[x->temporary - 1];

	return arena_printf(
	    &x->arena, "<%.*s> of the expansion: %.*s", SLICE_ARG(e->address), SLICE_ARG(e->text));
}

static void
build(struct qmgr *q, struct expansion_job *x)
{
	struct message *p = x->parent, *m;
	queue_id id;

	if (x->temporary) {
		end(q, x, RCPT_LATER, "4.3.0", why_later(x));
		return;
	}
	for (size_t i = 0; i < x->n; i++)
		if (x->addresses[i].code >= 500)
			add_final(x, x->addresses[i].address, &x->addresses[i]);
	if (x->too_many) {
		end(q, x, RCPT_REFUSED, "5.2.4", EXPAND_TOO_MANY);
		return;
	}
	id = !p->has_content && p->read_fd < 0 ? 0 : qmgr_new_id(q);
	if (!id) {
		end(q, x, RCPT_LATER, "4.3.0", "the expansion could not be made a message");
		return;
	}
	if (!x->n_finals) {
		end(q, x, RCPT_DELIVERED, "2.0.0", "expanded to nobody");
		return;
	}
	m = make_child(q, x, id);
	m->from = x;
	x->child = m;
	message_pin(q, m);
	message_rcpts(m);
	message_account(q, m);
	if (!p->has_content) {
		m->copy_fd = fcntl(p->read_fd, F_DUPFD_CLOEXEC, 0);
		m->n_copy = p->env.n_extents;
		memcpy(m->copy, p->env.extents, sizeof(m->copy));
	}
	message_event(q, m, MSG_COMMIT_RECEIVED);
	route_message(q, m);
	message_unpin(q, m);
}

void
expand_drop(struct qmgr *q, struct message *m)
{
	if (!m->expansions)
		return;
	while (m->expansions)
		end(q, m->expansions, RCPT_LATER, "4.3.1", "the message was given up");
	ask_more(q); /* in the place of what it had asked */
}

void
expand_committed(struct qmgr *q, struct message *child)
{
	struct expansion_job *x = child->from;
	char text[64];

	child->from = NULL;
	if (!x)
		return;
	x->child = NULL;
	if (child->commit_err) {
		end(q, x, RCPT_LATER, "4.3.1", "the expansion could not be queued");
		return;
	}
	/* RFC 3461 5.2.7.1: the list is the final delivery; 5.2.7.2: where all of it went on to one
	 * address, success is reported from there. */
	if (!is_list(x) && child->env.n_rcpts == 1)
		x->parent->env.rcpts[x->slot].status->notices |= NOTIFY_SUCCESS;
	snprintf(text, sizeof(text), "%s %zu recipients as %s",
	    is_list(x) ? "delivered to the list:" : "expanded to", child->env.n_rcpts, child->name);
	end(q, x, RCPT_DELIVERED, "2.0.0", text);
}

static struct expansion_job *
find(struct qmgr *q, const struct ipc_chan *ch, uint32_t id, size_t *i_r)
{
	struct expansion_job *x;

	TAILQ_FOREACH(x, &q->expansions, all) {
		*i_r = (uint32_t)(id - x->first_id);
		if (x->open && *i_r < x->n && x->addresses[*i_r].open &&
		    x->addresses[*i_r].at == ch)
			return x;
	}
	return NULL;
}

/* A 2xx without an address would be a recipient lost. */
static bool
is_temporary(const struct msg_rcpt_verdict *v)
{
	return v->code < 500 && (v->code / 100 != 2 || !v->finals.n);
}

void
expand_verdict(struct qmgr *q, const struct ipc_chan *ch, const struct msg *msg)
{
	const struct msg_rcpt_verdict *v = &msg->rcpt_verdict;
	struct cursor c = cursor(v->finals.raw);
	struct item_final_addr f;
	size_t i;
	struct expansion_job *x = find(q, ch, msg->id, &i);

	if (!x) {
		q->odd++;
		return;
	}
	x->addresses[i].open = false;
	x->addresses[i].code = v->code;
	x->addresses[i].enhanced = arena_dup(&x->arena, v->enhanced);
	x->addresses[i].text = arena_dup(&x->arena, v->text);
	if (is_temporary(v))
		x->temporary = i + 1;
	while (v->code / 100 == 2 && item_final_addr_next(&c, &f))
		add_final(x, f.address, NULL);
	q->expansion_asked--;
	if (!--x->open && (x->asked == x->n || is_decided(x)))
		build(q, x);
	else
		take_turn(q, x);
	ask_more(q);
	deliver_pump(q);
}

static void
ask_again(struct qmgr *q, const struct ipc_chan *at)
{
	struct expansion_job *x;

	TAILQ_FOREACH(x, &q->expansions, all)
		for (size_t i = 0; x->open && i < x->asked; i++)
			if (x->addresses[i].open && x->addresses[i].at == at)
				send_question(q, x, i);
}

/* That maps is gone: what it did not answer another one is asked, now or when it comes up. */
void
expand_link_down(struct qmgr *q, const struct ipc_chan *ch)
{
	ask_again(q, ch);
}

void
expand_link_up(struct qmgr *q)
{
	ask_again(q, NULL);
}
