/*
 * A job of qmgr: one message for some recipients at one next hop, from send_job to send_result.
 * Runs in smtp-client. Invariants: every recipient gets exactly one result, and one send_result
 * ends the job; a recipient with a result is never sent again; content is only read, by pread from
 * a descriptor that is ours, so several jobs may share one description.
 */
#include "sender.h"

#include "smtp/client_convert.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void
job_free(struct job *j)
{
	struct sender *s = j->s;

	ask_cancel(&j->ask);
	ev_timer_free(&j->limit);
	TAILQ_REMOVE(&s->jobs, j, next);
	s->njobs--;
	dest_release(s, &j->dest);
	if (j->fd >= 0)
		close(j->fd);
	buf_free(&j->converted);
	arena_free(&j->arena);
	free(j);
	if (s->d->stopping && !s->njobs)
		daemon_exit(s->d);
}

static void
take_rcpts(struct job *j, const struct msg_list *list)
{
	struct cursor c = cursor(list->raw);
	struct item_job_rcpt r;

	j->rcpts = arena_alloc(&j->arena, RCPTS_MAX * sizeof(*j->rcpts));
	while (j->n < RCPTS_MAX && item_job_rcpt_next(&c, &r))
		j->rcpts[j->n++] = (struct rcpt){ .slot = r.slot,
			.address = arena_dup(&j->arena, r.address),
			.orcpt = arena_dup(&j->arena, r.orcpt),
			.notify = r.notify };
	j->left = j->n;
}

/* False: the parts do not make up the message that qmgr speaks of. */
static bool
take_content(struct job *j, struct msg *m)
{
	struct cursor c = cursor(m->send_job.extents.raw);
	struct item_extent e;

	j->fd = m->fd;
	m->fd = -1;
	if (j->fd < 0) {
		j->content = arena_dup(&j->arena, m->send_job.content);
		j->size = j->content.n;
		return j->size == m->send_job.size;
	}
	while (j->nextents < EXTENTS_MAX && item_extent_next(&c, &e))
		j->extents[j->nextents++] = (struct extent){ e.offset, e.length };
	j->size = 0;
	for (size_t i = 0; i < j->nextents; i++)
		j->size += j->extents[i].length;
	return j->size == m->send_job.size;
}

/* qmgr gives up a job that is not answered, and another attempt would deliver twice: it ends here,
 * before that. A server that has all of the message may still say so. */
static void
on_limit(void *ctx)
{
	struct job *j = ctx;
	struct conn *c = j->conn;
	const struct conf *conf = j->s->d->conf;
	bool at_end = c && c->state == CONN_OPEN && client_waiting(c->client) == CLIENT_CMD_FINAL;

	if (at_end && !j->over) {
		j->over = true;
		ev_timer_set(j->s->d->base, &j->limit, conf->smtp_data_done_timeout, on_limit, j);
		return;
	}
	job_reason(j, false, "4.4.2", "",
	    "the delivery to %s took longer than "
	    "smtp_delivery_time_limit%s",
	    c ? c->remote : "the next hop",
	    at_end ? " -- the message may be sent more than once" : "");
	if (c)
		conn_free(&c);
	job_finish(j);
}

void
job_start(struct sender *s, struct ipc_chan *ch, struct msg *m)
{
	struct job *j = xcalloc(1, sizeof(*j));

	*j = (struct job){ .s = s, .ch = ch, .id = m->id, .fd = -1, .begun_us = ev_now_us() };
	TAILQ_INSERT_TAIL(&s->jobs, j, next);
	s->njobs++;
	j->queue_id = arena_dup(&j->arena, m->send_job.queue_id);
	j->from = arena_dup(&j->arena, m->send_job.sender);
	j->envid = arena_dup(&j->arena, m->send_job.envid);
	j->nexthop = arena_dup(&j->arena, m->send_job.nexthop);
	j->flags = m->send_job.flags;
	j->ret = m->send_job.ret;
	j->lmtp = m->send_job.lmtp;
	j->port = m->send_job.port;
	take_rcpts(j, &m->send_job.rcpts);
	ev_timer_set(s->d->base, &j->limit, s->d->conf->smtp_delivery_time_limit, on_limit, j);
	j->dest = dest_get(s, j);
	if (!take_content(j, m)) {
		log_event(LOG_smtp_content,
		    "qid=%s reason=\"the content is not as long as the message\" remedy=\"report "
		    "this; the message stays in the queue\"",
		    log_value(j->queue_id));
		job_reason(j, false, "4.3.0", "", "the message's content is not complete");
		job_finish(j);
		return;
	}
	job_reason(j, false, "4.4.1", "", "no attempt was made");
	if (!conn_reuse(j))
		policy_find(j);
}

void
job_route(struct job *j)
{
	route_find(j);
}

void
job_reason(
    struct job *j, bool permanent, const char *enhanced, const char *remote, const char *fmt, ...)
{
	va_list ap;

	j->permanent = permanent;
	snprintf(j->enhanced, sizeof(j->enhanced), "%s", enhanced);
	snprintf(j->reason_remote, sizeof(j->reason_remote), "%s", remote);
	va_start(ap, fmt);
	vsnprintf(j->reason, sizeof(j->reason), fmt, ap);
	va_end(ap);
	for (char *p = j->reason; *p; p++)
		if (*p == '\n' || *p == '\r')
			*p = ' ';
}

void
job_attempt(struct job *j)
{
	const struct conf *conf = j->s->d->conf;

	j->conn = NULL;
	if (!j->ch) { /* nobody is there to hear of another attempt */
		job_finish(j);
		return;
	}
	if (!j->ncandidates) { /* a kept connection failed: now the whole way */
		policy_find(j);
		return;
	}
	if (!j->left || j->at >= j->ncandidates ||
	    j->sessions >= (unsigned)conf->smtp_mx_session_limit)
		job_finish(j);
	else
		conn_open(j, &j->candidates[j->at++]);
}

/* What recipients without a result of their own get: trouble of our own side does not count against
 * the destination. */
static enum result_status
rest_status(const struct job *j)
{
	if (j->permanent)
		return RESULT_FAILED;
	if (!j->reason_remote[0] && !strncmp(j->enhanced, "4.3.", 4))
		return RESULT_DEFERRED;
	return RESULT_UNREACHED;
}

/* One message has to hold all results: texts get an equal share of what the addresses leave. */
static size_t
text_limit(const struct job *j)
{
	size_t room = 60000, share;

	for (size_t i = 0; i < j->n && room > 10000; i++)
		room -= j->rcpts[i].address.n < 1024 ? j->rcpts[i].address.n : 1024;
	share = room / (j->n ? j->n : 1); /* none: a job that is none */
	return share > 1400 ? 1024 : share > 500 ? share - 340 : 160;
}

static void
add_results(struct job *j, struct buf *out)
{
	size_t text_max = text_limit(j);

	for (size_t i = 0; i < j->n; i++) {
		struct rcpt *r = &j->rcpts[i];
		struct item_rcpt_result item = { .slot = r->slot };

		item.status = (uint8_t)(r->done ? r->status : rest_status(j));
		item.enhanced = slice_str(r->done ? r->enhanced : j->enhanced);
		item.text = slice_sub(slice_str(r->done ? r->text : j->reason), 0, text_max);
		item.remote = slice_sub(slice_str(r->done ? r->remote : j->reason_remote), 0, 255);
		item.address = r->done ? r->said : r->address;
		item_rcpt_result_add(out, &item);
	}
}

/* "host", "[host]", "host:port", "[host]:port" of main.cf. */
static void
set_nexthop(struct job *j, struct slice s)
{
	struct slice host;

	j->port = (uint16_t)conf_nexthop_port(s, &host);
	j->nexthop = arena_dup(&j->arena, host);
}

/* What was not found or not reached goes to the next of fallback_relay; what a server, a policy or
 * a null MX refused does not, nor what was lost on the way (4.4.2), which may have arrived.
 */
static bool
take_fallback(struct job *j)
{
	static const char *const codes[] = { "4.4.1", "4.4.3", "4.4.4", "5.4.4", "5.1.2" };
	const struct conf_list *list = &j->s->d->conf->fallback_relay;
	size_t i = 0;

	while (i < sizeof(codes) / sizeof(*codes) && strcmp(codes[i], j->enhanced))
		i++;
	if (i == sizeof(codes) / sizeof(*codes) || !j->ch || j->lmtp || !j->left ||
	    j->fallback_at >= list->n)
		return false;
	set_nexthop(j, slice_str(list->v[j->fallback_at++]));
	log_event(LOG_smtp_fallback, "qid=%s nexthop=%s reason=%s", log_value(j->queue_id),
	    log_value(j->nexthop), log_cstr(j->reason));
	dest_release(j->s, &j->dest);
	j->dest = dest_get(j->s, j);
	j->conn = NULL;
	j->ncandidates = j->at = 0;
	j->sessions = 0;
	if (!conn_reuse(j))
		policy_find(j);
	return true;
}

void
job_finish(struct job *j)
{
	struct msg m = MSG_INIT(MSG_SEND_RESULT, j->id);
	struct buf items = { 0 };
	int64_t now = ev_now_us();

	if (take_fallback(j))
		return;
	if (j->ch) {
		add_results(j, &items);
		m.send_result.queue_id = j->queue_id;
		m.send_result.results = msg_list(&items, (uint32_t)j->n);
		m.send_result.remote = slice_str(j->remote);
		m.send_result.tls = slice_str(j->tls);
		if (j->connected_us) {
			m.send_result.connect_ms =
			    (uint32_t)((j->connected_us - j->begun_us) / 1000);
			m.send_result.transfer_ms = (uint32_t)((now - j->connected_us) / 1000);
		} else {
			m.send_result.connect_ms = (uint32_t)((now - j->begun_us) / 1000);
		}
		(void)ipc_send(j->ch, &m);
		buf_free(&items);
	}
	job_free(j);
}

/* The reply in one line, with the command that it answered. */
static const char *
reply_text(struct job *j, const struct client_event *ev)
{
	const struct client_reply *r = &ev->reply;
	char *text;

	if (ev->local)
		text = arena_printf(&j->arena, "%.*s", SLICE_ARG(r->text));
	else if (r->code / 100 == 2)
		text = arena_printf(&j->arena, "%u %s%s%.*s", r->code, r->enhanced,
		    r->enhanced[0] ? " " : "", SLICE_ARG(r->text));
	else
		text = arena_printf(&j->arena, "%u %s%s%.*s (in reply to %s)", r->code, r->enhanced,
		    r->enhanced[0] ? " " : "", SLICE_ARG(r->text), client_command_str(ev->command));
	for (char *p = text; *p; p++)
		if (*p == '\n')
			*p = ' ';
	return text;
}

void
job_result(struct job *j, size_t i, const struct client_event *ev, const char *remote)
{
	struct rcpt *r = &j->rcpts[j->map[i]];
	unsigned class = ev->reply.code / 100;

	if (r->done)
		return;
	r->done = true;
	r->said = arena_dup(&j->arena, ev->address);
	j->left--;
	r->status = class == 2   ? (j->dsn ? RESULT_PASSED : RESULT_DONE)
		    : class == 5 ? RESULT_FAILED
				 : RESULT_DEFERRED;
	snprintf(r->enhanced, sizeof(r->enhanced), "%s",
	    ev->reply.enhanced[0] ? ev->reply.enhanced
	    : class == 2          ? "2.0.0"
	    : class == 5          ? "5.0.0"
				  : "4.0.0");
	r->text = reply_text(j, ev);
	r->remote = ev->local ? "" : arena_strdup(&j->arena, remote);
}

/* Whether any byte has its top bit set: what BODY=8BITMIME claims, often without need. */
static bool
has_8bit(struct job *j)
{
	struct slice piece;
	bool found = false;

	job_content_rewind(j);
	while (!found && job_content(j, &piece) > 0)
		for (size_t i = 0; !found && i < piece.n; i++)
			found = piece.p[i] & 0x80;
	job_content_rewind(j);
	return found;
}

/* Reads the whole content and puts it into 7-bit lines: for this session only. 0 or an error. */
static int
convert(struct job *j)
{
	struct buf all = { 0 };
	struct slice piece;
	int got;

	if (j->size > CONVERT_MAX)
		return ERR_LIMIT;
	job_content_rewind(j);
	while ((got = job_content(j, &piece)) > 0)
		buf_add(&all, piece);
	if (!got) {
		client_convert(buf_slice(&all), &j->converted);
		j->is_converted = true;
	}
	buf_free(&all);
	job_content_rewind(j);
	return got;
}

/* RFC 6152 3, RFC 3030 3: what the server cannot take as it is goes in another form, if that can be
 * made; else the engine refuses it by a text that says why. */
static enum client_body
choose_body(struct job *j, unsigned features)
{
	const unsigned binary = CLIENT_BINARYMIME | CLIENT_CHUNKING;

	buf_free(&j->converted);
	j->is_converted = false;
	if (j->flags & MAIL_BINARY) {
		if ((features & binary) == binary)
			return CLIENT_BODY_BINARY;
		return convert(j) ? CLIENT_BODY_BINARY : CLIENT_BODY_7BIT;
	}
	if (!(j->flags & MAIL_8BIT))
		return CLIENT_BODY_7BIT;
	if (features & CLIENT_8BITMIME)
		return CLIENT_BODY_8BIT;
	if (!has_8bit(j))
		return CLIENT_BODY_7BIT;
	return convert(j) ? CLIENT_BODY_8BIT : CLIENT_BODY_7BIT;
}

void
job_message(struct job *j, unsigned features)
{
	struct client_message *m = &j->message;

	*m = (struct client_message){ .sender = j->from,
		.rcpts = j->client_rcpts,
		.body = choose_body(j, features),
		.utf8 = (j->flags & MAIL_UTF8) != 0,
		.ret = j->ret == RET_FULL   ? CLIENT_RET_FULL
		       : j->ret == RET_HDRS ? CLIENT_RET_HDRS
					    : CLIENT_RET_NONE,
		.envid = j->envid };
	m->size = j->is_converted ? buf_len(&j->converted) : j->size;
	for (size_t i = 0; i < j->n; i++)
		if (!j->rcpts[i].done) {
			j->map[m->n] = i;
			j->client_rcpts[m->n++] = (struct client_rcpt){ j->rcpts[i].address,
				j->rcpts[i].orcpt, j->rcpts[i].notify };
		}
	j->dsn = (features & CLIENT_DSN) != 0;
	job_content_rewind(j);
}

void
job_content_rewind(struct job *j)
{
	j->extent_at = 0;
	j->extent_done = 0;
}

int
job_content(struct job *j, struct slice *piece_r)
{
	struct extent *e = &j->extents[j->extent_at];
	unsigned char *p;
	ssize_t n;

	*piece_r = SLICE_NULL;
	if (j->is_converted) {
		if (j->extent_at++)
			return 0;
		*piece_r = buf_slice(&j->converted);
		return piece_r->n > 0;
	}
	if (j->fd < 0) {
		if (j->extent_at++)
			return 0;
		*piece_r = j->content;
		return j->content.n > 0;
	}
	while (j->extent_at < j->nextents && j->extent_done == e->length) {
		j->extent_at++;
		j->extent_done = 0;
		e++;
	}
	if (j->extent_at >= j->nextents)
		return 0;
	uint64_t want = e->length - j->extent_done;

	buf_clear(&j->s->piece);
	p = buf_reserve(&j->s->piece, CONTENT_PIECE);
	n = pread(j->fd, p, want < CONTENT_PIECE ? (size_t)want : CONTENT_PIECE,
	    (off_t)(e->offset + j->extent_done));
	if (n <= 0)
		return n < 0 ? err_errno() : ERR_TRUNCATED;
	j->extent_done += (uint64_t)n;
	*piece_r = slice(p, (size_t)n);
	return 1;
}

/* The server can have the whole message: no byte of its end is still here. */
static bool
end_is_sent(const struct conn *c)
{
	return c->state == CONN_OPEN && client_waiting(c->client) == CLIENT_CMD_FINAL &&
	       !buf_len(client_output(c->client));
}

/* DESIGN.md 4: without qmgr a job is given up before its end of data, and finished after it. What
 * waits in our own buffer never goes: the next qmgr sends the message anew. */
void
job_forget_qmgr(struct sender *s, struct ipc_chan *ch)
{
	struct job *j, *next;

	for (j = TAILQ_FIRST(&s->jobs); j; j = next) {
		next = TAILQ_NEXT(j, next);
		if (j->ch != ch)
			continue;
		j->ch = NULL;
		if (!j->conn) {
			job_free(j);
		} else if (!end_is_sent(j->conn)) {
			struct conn *c = j->conn;

			conn_free(&c);
			job_free(j);
		}
	}
}
