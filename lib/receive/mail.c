/*
 * The way of a message from a receiver to qmgr. Runs in the children of smtpd and submission and in
 * pickup. Hostile: the content (not looked at here) and qmgr's answers as far as lib/ipc lets them
 * through. Invariants: a spool file's descriptor is closed before the envelope is sent, so that
 * qmgr's seal finds no writer; after mail_commit nothing of the content is changed; every message
 * gets one result.
 */
#include "receive/mail.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

/* Octets of recipients and content in one record; no small content is larger. */
#define RECORD_ROOM 48000u

void
mail_init(struct mail *m, struct receiver *r, const struct mail_ops *ops, void *ctx)
{
	*m = (struct mail){ .r = r, .ops = ops, .ctx = ctx, .fd = -1 };
}

static void
close_file(struct mail *m)
{
	if (m->fd >= 0)
		close(m->fd);
	m->fd = -1;
}

void
mail_abort(struct mail *m)
{
	struct msg abort = MSG_INIT(MSG_MAIL_ABORT, 0);

	if (m->request.active && m->state != MAIL_COMMIT)
		(void)!request_more(&m->request, &abort);
	request_end(&m->request);
	close_file(m);
	buf_free(&m->content);
	m->state = MAIL_IDLE;
	m->wait = false;
}

void
mail_free(struct mail *m)
{
	mail_abort(m);
}

void
mail_begin(struct mail *m)
{
	mail_abort(m);
	m->state = MAIL_MEMORY;
	m->queue_id[0] = '\0';
	m->written = m->limit = 0;
	m->hold_in_memory = false;
}

static void
fail(struct mail *m, unsigned code, struct slice enhanced, struct slice text)
{
	struct msg abort = MSG_INIT(MSG_MAIL_ABORT, 0);

	if (m->state == MAIL_FAILED)
		return;
	if (m->request.active && m->state == MAIL_FILE)
		(void)!request_more(&m->request, &abort);
	request_end(&m->request);
	close_file(m);
	buf_free(&m->content);
	m->state = MAIL_FAILED;
	snprintf(m->failure_enhanced, sizeof(m->failure_enhanced), "%.*s", SLICE_ARG(enhanced));
	snprintf(m->failure_text, sizeof(m->failure_text), "%.*s", SLICE_ARG(text));
	m->failure = reply_make(code, m->failure_enhanced, m->failure_text);
}

static void
fail_temporary(struct mail *m, const char *text)
{
	fail(m, 451, SLICE_LIT("4.3.0"), slice_str(text));
}

#define QUEUE_GONE "Error: the queue is not available, try again later"

const struct reply *
mail_failure(const struct mail *m)
{
	return m->state == MAIL_FAILED ? &m->failure : NULL;
}

/* --- the spool file --- */

static void
write_failed(struct mail *m, int err)
{
	bool full = err == -ENOSPC || err == -EDQUOT;

	log_event(LOG_queue_write, "qid=%s reason=\"%s\" remedy=\"%s\"", m->queue_id, err_str(err),
	    full ? "free space in queue_directory, or raise the quota"
		 : "check the disk of queue_directory and the kernel log");
	if (full)
		fail(m, 452, SLICE_LIT("4.3.1"), SLICE_LIT("Error: queue is full"));
	else
		fail_temporary(m, "Error: queue file write error");
}

static void
write_out(struct mail *m, size_t keep)
{
	while (m->state == MAIL_FILE && buf_len(&m->content) > keep) {
		ptrdiff_t n;
		if (m->written + buf_len(&m->content) > m->limit) {
			fail(m, 552, SLICE_LIT("5.3.4"),
			    SLICE_LIT("Error: message is larger than the limit"));
			m->failure.limit = "message_size_limit";
			return;
		}
		n = buf_write(&m->content, m->fd);
		if (n > 0)
			m->written += (uint64_t)n;
		else
			write_failed(m, (int)n);
	}
}

static void
be_ready(struct mail *m)
{
	if (!m->wait)
		return;
	m->wait = false;
	m->ops->ready(m->ctx);
}

static void
file_opened(struct mail *m, struct msg *msg)
{
	if (msg->fd < 0 || slice_copy(msg->mail_file.queue_id, m->queue_id, sizeof(m->queue_id))) {
		fail_temporary(m, QUEUE_GONE);
		return;
	}
	m->fd = msg->fd;
	msg->fd = -1;
	m->limit = m->r->d->conf->message_size_limit ? msg->mail_file.limit : UINT64_MAX;
	m->state = MAIL_FILE;
	write_out(m, 0);
}

/* Whether a positive result is about this message; one that met the wrong request would have the
 * client forget a message that nobody has. */
static bool
is_ours(const struct mail *m, const struct msg_mail_result *result)
{
	if (slice_eq_str(result->session, m->session) &&
	    (!m->queue_id[0] || slice_eq_str(result->queue_id, m->queue_id)))
		return true;
	log_event(LOG_odd_verdict, "sid=%s qid=%s reported=%s of=%s", m->session,
	    m->queue_id[0] ? m->queue_id : "-", log_value(result->queue_id),
	    log_value(result->session));
	return false;
}

static void
got_result(struct mail *m, const struct msg_mail_result *result)
{
	struct reply r = { result->code, result->enhanced, result->text, NULL };

	if (result->code < 200 || result->code > 599 || (result->code < 400 && !is_ours(m, result)))
		r = REPLY(451, "4.3.0", QUEUE_GONE);
	request_end(&m->request);
	m->state = MAIL_IDLE;
	buf_free(&m->content);
	m->ops->result(m->ctx, &r, result->queue_id, &result->results);
}

static void
on_answer(struct request *q, struct msg *msg)
{
	struct mail *m = q->ctx;
	struct msg_mail_result gone = {
		.code = 451, .enhanced = SLICE_LIT("4.3.0"), .text = SLICE_LIT(QUEUE_GONE)
	};

	if (m->state == MAIL_COMMIT) {
		if (!msg)
			got_result(m, &gone);
		else if (msg->type == MSG_MAIL_RESULT)
			got_result(m, &msg->mail_result);
		return;
	}
	if (msg && msg->type == MSG_MAIL_FILE && m->state == MAIL_OPENING)
		file_opened(m, msg);
	else if (msg && msg->type == MSG_MAIL_RESULT && msg->mail_result.code >= 400)
		fail(m, msg->mail_result.code, msg->mail_result.enhanced, msg->mail_result.text);
	else
		fail_temporary(m, QUEUE_GONE);
	be_ready(m);
}

static void
open_file(struct mail *m)
{
	struct msg open = MSG_INIT(MSG_MAIL_OPEN, 0);

	open.mail_open.size = buf_len(&m->content);
	m->state = MAIL_OPENING;
	if (request_send(m->r, ROLE_QMGR, &open, &m->request, on_answer, m))
		fail_temporary(m, QUEUE_GONE);
}

static void
decide(struct mail *m)
{
	if (m->state == MAIL_MEMORY && !m->hold_in_memory &&
	    buf_len(&m->content) > (size_t)m->r->d->conf->small_message_limit)
		open_file(m);
	if (m->state == MAIL_FILE && buf_len(&m->content) >= MAIL_WRITE_SIZE)
		write_out(m, 0);
}

bool
mail_add(struct mail *m, struct slice bytes)
{
	if (m->state == MAIL_FAILED || m->state == MAIL_IDLE)
		return true;
	buf_add(&m->content, bytes);
	decide(m);
	m->wait = m->state == MAIL_OPENING && buf_len(&m->content) >= MAIL_WRITE_SIZE;
	return !m->wait;
}

void
mail_insert(struct mail *m, size_t at, struct slice text)
{
	size_t len = buf_len(&m->content);
	unsigned char *p;

	if (m->state != MAIL_MEMORY || at > len || !text.n || !buf_reserve(&m->content, text.n))
		return;
	buf_commit(&m->content, text.n);
	p = m->content.data + m->content.head;
	memmove(p + at + text.n, p + at, len - at);
	memcpy(p + at, text.p, text.n);
}

void
mail_release(struct mail *m)
{
	m->hold_in_memory = false;
	decide(m);
}

/* --- the envelope --- */

static void
add_rcpt(struct buf *list, const struct mail_rcpt *rcpt)
{
	struct item_env_rcpt item = { .address = rcpt->address,
		.orcpt = rcpt->orcpt,
		.original = rcpt->original,
		.notify = (uint8_t)rcpt->notify };

	item_env_rcpt_add(list, &item);
}

/* Recipients that do not fit into the last record go before it. Leaves the rest in scratch. */
static int
send_rcpts(struct mail *m, const struct mail_envelope *e, size_t room, uint32_t *left_r)
{
	struct buf *list = &m->r->scratch;
	uint32_t n = 0;

	buf_clear(list);
	for (size_t i = 0; i < e->count; i++) {
		size_t before = buf_len(list);
		add_rcpt(list, &e->rcpts[i]);
		if (buf_len(list) > RECORD_ROOM || (n == 1000)) {
			struct msg part = MSG_INIT(MSG_MAIL_RCPTS, 0);
			int err;
			buf_truncate(list, before);
			part.mail_rcpts.rcpts = msg_list(list, n);
			err = m->request.active
				  ? request_more(&m->request, &part)
				  : request_send(m->r, ROLE_QMGR, &part, &m->request, on_answer, m);
			if (err)
				return err;
			buf_clear(list);
			n = 0;
			add_rcpt(list, &e->rcpts[i]);
		}
		n++;
	}
	if (buf_len(list) > room) {
		struct msg part = MSG_INIT(MSG_MAIL_RCPTS, 0);
		int err;
		part.mail_rcpts.rcpts = msg_list(list, n);
		err = m->request.active
			  ? request_more(&m->request, &part)
			  : request_send(m->r, ROLE_QMGR, &part, &m->request, on_answer, m);
		if (err)
			return err;
		buf_clear(list);
		n = 0;
	}
	*left_r = n;
	return 0;
}

static void
fill_commit(struct mail *m, const struct mail_envelope *e, struct msg *out)
{
	struct msg_mail_commit *c = &out->mail_commit;
	struct buf *extents = &m->r->scratch2;
	struct item_extent all = { 0, m->written };

	c->queue_id = slice_str(m->queue_id);
	c->session = slice_str(e->session);
	c->client = slice_sub(e->client, 0, 320);
	c->sender = e->sender;
	c->flags = e->flags;
	c->ret = (uint8_t)e->ret;
	c->envid = e->envid;
	c->token = e->token;
	c->arrival = e->arrival;
	c->total = (uint32_t)e->count;
	c->size = m->queue_id[0] ? m->written : buf_len(&m->content);
	if (m->queue_id[0]) {
		buf_clear(extents);
		item_extent_add(extents, &all);
		c->extents = msg_list(extents, 1);
	} else {
		c->content = buf_slice(&m->content);
	}
}

static void
refuse(struct mail *m)
{
	struct reply r = m->failure;

	m->state = MAIL_IDLE;
	m->ops->result(m->ctx, &r, SLICE_NULL, &(struct msg_list){ 0 });
}

/* A file that was asked for and is not there yet: the envelope waits for it in the owner. */
void
mail_commit(struct mail *m, const struct mail_envelope *e)
{
	struct msg out = MSG_INIT(MSG_MAIL_COMMIT, 0);
	uint32_t n = 0;
	int err;

	if (m->state == MAIL_FILE)
		write_out(m, 0);
	if (m->state == MAIL_FAILED) {
		refuse(m);
		return;
	}
	close_file(m);
	err =
	    send_rcpts(m, e, m->queue_id[0] ? RECORD_ROOM : RECORD_ROOM - buf_len(&m->content), &n);
	if (!err) {
		m->state = MAIL_COMMIT;
		snprintf(m->session, sizeof(m->session), "%s", e->session);
		fill_commit(m, e, &out);
		out.mail_commit.rcpts = msg_list(&m->r->scratch, n);
		err = m->request.active
			  ? request_more(&m->request, &out)
			  : request_send(m->r, ROLE_QMGR, &out, &m->request, on_answer, m);
	}
	if (err) {
		fail_temporary(m, QUEUE_GONE);
		refuse(m);
		return;
	}
	buf_free(&m->content);
}
