/*
 * Receivers: their transactions become messages. Runs in the loop of qmgr. Hostile input: a
 * receiver that was taken over. It can hand in any envelope that its policy would let it, and
 * nothing more: flags that its role does not own are taken off, a user is who auth says, a file is
 * only taken when no writer is left, and what it says about sizes is checked against what is there.
 */
#include "qmgr/qmgr.h"

#include <stdlib.h>
#include <unistd.h>

#define TRANSACTIONS_MAX 100000u

static void
make_key(unsigned char key[16], const struct ipc_chan *ch, uint32_t id)
{
	uintptr_t p = (uintptr_t)ch;

	memset(key, 0, 16);
	memcpy(key, &p, sizeof(p));
	memcpy(key + 8, &id, sizeof(id));
}

static struct transaction *
find(struct qmgr *q, const struct ipc_chan *ch, uint32_t id)
{
	unsigned char key[16];
	struct hash_node *n;

	make_key(key, ch, id);
	n = hash_find(&q->transactions, slice(key, sizeof(key)));
	return n ? HASH_ELEMENT(n, struct transaction, node) : NULL;
}

static struct transaction *
begin(struct qmgr *q, struct ipc_chan *ch, uint32_t id)
{
	struct transaction *t = find(q, ch, id);

	if (t)
		return t;
	t = xcalloc(1, sizeof(*t));
	t->chan = ch;
	t->id = id;
	t->msg = message_new(q);
	t->msg->waits = t;
	make_key(t->key, ch, id);
	hash_insert(&q->transactions, &t->node, slice(t->key, sizeof(t->key)));
	return t;
}

static void
end(struct qmgr *q, struct transaction *t)
{
	hash_remove(&q->transactions, &t->node);
	if (t->msg)
		t->msg->waits = NULL;
	free(t);
}

static void
answer(struct ipc_chan *ch, uint32_t id, unsigned int code, const char *enhanced, const char *text,
    const char *name)
{
	struct msg m = MSG_INIT(MSG_MAIL_RESULT, id);

	m.mail_result.code = (uint16_t)code;
	m.mail_result.enhanced = slice_str(enhanced);
	m.mail_result.text = slice_str(text);
	m.mail_result.queue_id = slice_str(name);
	(void)ipc_send(ch, &m);
}

void
receive_forget(struct qmgr *q, struct message *m)
{
	if (m->on_replies)
		TAILQ_REMOVE(&q->replies, m, direct);
	m->on_replies = false;
	if (m->waits)
		end(q, m->waits);
}

static void
refuse(struct qmgr *q, struct message *m, unsigned int code, const char *enhanced, const char *text)
{
	m->refuse_code = code;
	m->refuse_enhanced = enhanced;
	m->refuse_text = text;
	message_event(q, m, MSG_REFUSED);
}

static void
refuse_disk(struct qmgr *q, struct message *m, int err)
{
	const char *enhanced, *text;
	unsigned int code = qmgr_disk_reply(err, &enhanced, &text);

	refuse(q, m, code, enhanced, text);
}

/* --- a file for a large content --- */

/* The message has its file; the writable descriptor stays the caller's. */
static void
opened(struct qmgr *q, struct message *m, queue_id name, int read_fd, int write_fd)
{
	struct msg reply = MSG_INIT(MSG_MAIL_FILE, 0);

	m->has_file = true;
	m->incoming = name;
	m->read_fd = read_fd;
	if (m->state == MSG_DONE) {
		message_drop(q, m);
	} else if (m->waits) {
		reply.id = m->waits->id;
		reply.mail_file.queue_id = slice_str(m->name);
		reply.mail_file.limit = (uint64_t)q->d->conf->message_size_limit + 65536;
		reply.fd = write_fd;
		(void)ipc_send(m->waits->chan, &reply);
	}
}

static void
created(struct pool_op *op)
{
	struct spool_op *o = (struct spool_op *)(void *)op;
	struct qmgr *q = o->owner;
	struct message *m = o->ctx;

	message_pin(q, m);
	m->busy = false;
	if (op->err) {
		q->open_files--;
		log_event(LOG_queue_create,
		    "qid=%s reason=%s remedy=\"%s; the client keeps the message\"", m->name,
		    log_cstr(err_str(op->err)), qmgr_disk_remedy(op->err));
		if (m->state == MSG_RECEIVING)
			refuse_disk(q, m, op->err);
	} else {
		opened(q, m, o->id, o->read_fd, o->fd);
		o->read_fd = -1;
	}
	/* Our copy of the writable descriptor goes with the operation. */
	spool_op_free(o);
	message_unpin(q, m);
}

static void
on_open(struct qmgr *q, struct ipc_chan *ch, const struct msg *msg)
{
	const char *enhanced, *text;
	unsigned int code = qmgr_refuses(
	    q, msg->mail_open.size, true, ipc_chan_peer(ch) == ROLE_BOUNCE, &enhanced, &text);
	struct transaction *t;
	struct incoming_file f;
	struct message *m;
	struct spool_op *o;
	queue_id id = code ? 0 : qmgr_new_id(q);

	if (find(q, ch, msg->id) || code || !id) {
		answer(ch, msg->id, code ? code : 451, code ? enhanced : "4.3.0",
		    code ? text : "Temporary system problem", "");
		return;
	}
	t = begin(q, ch, msg->id);
	t->opened = true;
	m = t->msg;
	message_set_id(q, m, id);
	q->open_files++;
	if (incoming_take(q, &f)) {
		opened(q, m, f.name, f.read_fd, f.write_fd);
		close(f.write_fd);
		return;
	}
	m->busy = true;
	o = spool_op(&q->spool, SPOOL_CREATE, id, created, q, m);
	o->op.intake = ipc_chan_peer(ch) != ROLE_BOUNCE;
	pool_submit(q->pool, &o->op);
}

/* --- the envelope --- */

static void
sealed(struct pool_op *op)
{
	struct spool_op *o = (struct spool_op *)(void *)op;
	struct qmgr *q = o->owner;
	struct message *m = o->ctx;
	bool fits = !op->err;

	message_pin(q, m);
	m->busy = false;
	m->read_fd = o->read_fd;
	o->read_fd = -1;
	m->layout.record_offset = receive_content_end(&m->env);
	fits = fits && m->layout.record_offset <= o->size;
	if (m->state == MSG_DONE)
		message_drop(q, m);
	else if (op->err == ERR_DENIED || (op->err == 0 && !fits)) {
		log_event(LOG_queue_seal,
		    "qid=%s reason=\"%s\" remedy=\"the message was refused; look for a fault in "
		    "its receiver\"",
		    m->name,
		    fits ? "a writer of the file is left" : "the file is shorter than said");
		refuse(q, m, 451, "4.3.0", "Temporary system problem");
	} else if (op->err) {
		log_event(LOG_queue_commit,
		    "qid=%s reason=%s remedy=\"%s; the client keeps the message\"", m->name,
		    log_cstr(err_str(op->err)), qmgr_disk_remedy(op->err));
		refuse_disk(q, m, op->err);
	} else {
		message_event(q, m, MSG_COMMIT_RECEIVED);
		route_message(q, m);
	}
	spool_op_free(o);
	message_unpin(q, m);
	deliver_pump(q);
}

/* Envelope and user are accepted: seal what is large, then route. The seal asks the kernel about an
 * open file and touches no disk, so it is not worth the way through a thread. */
static void
accept_message(struct qmgr *q, struct message *m)
{
	struct spool_op *o;

	message_rcpts(m);
	message_account(q, m);
	if (m->has_content) {
		message_event(q, m, MSG_COMMIT_RECEIVED);
		route_message(q, m);
		return;
	}
	o = spool_op(&q->spool, SPOOL_SEAL, m->env.id, sealed, q, m);
	o->read_fd = m->read_fd;
	m->read_fd = -1;
	m->busy = true;
	o->op.work(&o->op);
	sealed(&o->op);
}

static bool
over_rate(struct qmgr *q, struct slice user, enum rate_kind kind, uint32_t n, int64_t limit)
{
	return limit > 0 &&
	       rate_count(&q->user_rates, user, kind, n, qmgr_now(q)) > (uint64_t)limit;
}

void
receive_checked(struct qmgr *q, struct message *m, struct slice user, unsigned int code,
    const char *enhanced, const char *text)
{
	const struct conf *conf = q->d->conf;

	if (m->state != MSG_RECEIVING)
		return;
	if (code) {
		refuse(q, m, code, enhanced, text);
		return;
	}
	m->env.user = arena_dup(&m->arena, user);
	if (user.n && over_rate(q, user, RATE_MESSAGES, 1, conf->submission_message_rate_limit))
		refuse(q, m, 450, "4.7.1",
		    "Too many messages in this hour (submission_message_rate_limit)");
	else if (user.n && over_rate(q, user, RATE_RECIPIENTS, (uint32_t)m->env.n_rcpts,
			       conf->submission_recipient_rate_limit))
		refuse(q, m, 450, "4.7.1",
		    "Too many recipients in this hour (submission_recipient_rate_limit)");
	else
		accept_message(q, m);
}

/* Whether the envelope has all its recipients. A part that was refused took its transaction along:
 * what comes behind it under the same id is a rest, of which the client has heard that it is not
 * taken. */
static unsigned int
recipients_refused(const struct message *m, const struct msg_mail_commit *c,
    const char **enhanced_r, const char **text_r)
{
	if (c->total > ENVELOPE_RECIPIENTS_MAX) {
		*enhanced_r = "5.5.3";
		*text_r = "Too many recipients for one message";
		return 554;
	}
	if (c->total == m->env.n_rcpts + c->rcpts.n)
		return 0;
	*enhanced_r = "4.5.3";
	*text_r = "Too many recipients just now";
	return 452;
}

static void
on_commit(struct qmgr *q, struct ipc_chan *ch, const struct msg *msg)
{
	const struct msg_mail_commit *c = &msg->mail_commit;
	struct transaction *t = begin(q, ch, msg->id);
	struct message *m = t->msg;
	const char *enhanced = "4.3.0", *text = "Temporary system problem";
	unsigned int code =
	    qmgr_refuses(q, c->size, false, ipc_chan_peer(ch) == ROLE_BOUNCE, &enhanced, &text);
	queue_id id;

	if (t->committed) {
		q->odd++;
		return;
	}
	t->committed = true;
	message_pin(q, m);
	if (!code)
		code = recipients_refused(m, c, &enhanced, &text);
	if (!code && !m->env.id) {
		id = qmgr_new_id(q);
		if (id)
			message_set_id(q, m, id);
		else
			code = 451;
	}
	if (!code && !receive_envelope(q, m, t, c)) {
		log_event(LOG_mail_commit,
		    "qid=%s peer=%s reason=\"envelope and content do not fit together\"", m->name,
		    role_table[ipc_chan_peer(ch)].name);
		code = 451;
		enhanced = "4.3.0";
		text = "Temporary system problem";
	}
	if (code)
		refuse(q, m, code, enhanced, text);
	else if (ipc_chan_peer(ch) == ROLE_SUBMISSION_CHILD && c->token.n)
		token_ask(q, m, c->token);
	else if (ipc_chan_peer(ch) == ROLE_SUBMISSION_CHILD && !(m->env.flags & MAIL_LOCAL) &&
		 q->d->conf->submission_require_auth)
		refuse(q, m, 530, "5.7.0", "Authentication required");
	else
		accept_message(q, m);
	message_unpin(q, m);
	deliver_pump(q);
}

/* Part of a long envelope; memory for it is bounded like that of content. */
static void
on_rcpts(struct qmgr *q, struct ipc_chan *ch, const struct msg *msg)
{
	struct transaction *t = begin(q, ch, msg->id);
	struct message *m = t->msg;

	if (t->committed || m->state != MSG_RECEIVING) {
		q->odd++;
		return;
	}
	message_pin(q, m);
	if (q->memory > (size_t)q->d->conf->qmgr_inflight_limit ||
	    q->transactions.count > TRANSACTIONS_MAX)
		refuse(q, m, 452, "4.5.3", "Too many recipients just now");
	else if (!receive_rcpts(m, msg->mail_rcpts.rcpts))
		refuse(q, m, 554, "5.5.3", "Too many recipients for one message");
	else
		message_account(q, m);
	message_unpin(q, m);
}

static void
on_rate(struct qmgr *q, struct ipc_chan *ch, const struct msg *msg)
{
	const struct conf *conf = q->d->conf;
	struct msg m = MSG_INIT(MSG_RATE_ANSWER, msg->id);
	unsigned int kind = msg->rate_check.kind;
	int64_t limit = kind == RATE_MESSAGES     ? conf->smtpd_client_message_rate_limit
			: kind == RATE_RECIPIENTS ? conf->smtpd_client_recipient_rate_limit
						  : 0;

	m.rate_answer.allowed =
	    limit <= 0 || rate_count(&q->rates, msg->rate_check.client, kind, msg->rate_check.n,
			      qmgr_now(q)) <= (uint64_t)limit;
	(void)ipc_send(ch, &m);
}

static void
gone(struct qmgr *q, struct transaction *t)
{
	struct message *m = t->msg;

	message_pin(q, m);
	message_event(q, m, MSG_CLIENT_GONE);
	message_unpin(q, m);
}

void
receive_message(struct qmgr *q, struct ipc_chan *ch, struct msg *m)
{
	struct transaction *t;

	switch (m->type) {
	case MSG_MAIL_OPEN:
		on_open(q, ch, m);
		break;
	case MSG_MAIL_RCPTS:
		on_rcpts(q, ch, m);
		break;
	case MSG_MAIL_COMMIT:
		on_commit(q, ch, m);
		break;
	case MSG_MAIL_ABORT:
		t = find(q, ch, m->id);
		if (t)
			gone(q, t);
		break;
	case MSG_RATE_CHECK:
		on_rate(q, ch, m);
		break;
	default:
		q->odd++;
	}
}

void
receive_link_down(struct qmgr *q, struct ipc_chan *ch)
{
	for (struct hash_node *n = hash_next(&q->transactions, NULL), *next; n; n = next) {
		struct transaction *t = HASH_ELEMENT(n, struct transaction, node);

		next = hash_next(&q->transactions, n);
		if (t->chan == ch)
			gone(q, t);
	}
}
