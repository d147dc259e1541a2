/*
 * One job from its message to its report. Runs on a thread of the delivery child, as the recipient;
 * the envelope and the content are hostile, the choice of what to do with a recipient (run,
 * argument) is qmgr's. Each recipient has its own outcome: one that fails does not touch the
 * others.
 */
#include "local/job.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

enum {
	PART_BYTES = 48 * 1024, /* of one deliver_result, which may have several parts */
	SIGN_US = 5000000,      /* how long qmgr may hear nothing, where there is a next step */
};

int
outcome_set(struct outcome *o, enum result_status status, const char *enhanced, const char *text)
{
	o->status = status;
	o->enhanced = enhanced;
	o->text = text;
	return 0;
}

int
outcome_error(struct job *j, struct outcome *o, int err, const char *what)
{
	enum result_status status = RESULT_DEFERRED;
	const char *enhanced = "4.2.0";

	if (err == ERR_LIMIT || err == -EDQUOT || err == -EFBIG)
		return outcome_set(o, RESULT_FAILED, "5.2.2",
		    arena_printf(&j->arena, "the mailbox of %s is full: its quota is used up",
			j->child->target->user));
	if (err == -ENOSPC)
		enhanced = "4.3.1";
	if (err == -EIO)
		enhanced = "4.3.0";
	return outcome_set(o, status, enhanced,
	    arena_printf(&j->arena, "cannot deliver to %s: %s%s", what,
		err == ERR_TEMPORARY ? "it is locked by another program"
		: err == ERR_DENIED  ? "it belongs to somebody else"
				     : err_str(err),
		err == -EACCES || err == -EPERM || err == ERR_DENIED
		    ? ": give it to its user (chown -R), who must be able to write there"
		    : ""));
}

/* One header field of one line: what came in an envelope holds no CR, LF or NUL (the decoder). */
static void
add_field(struct buf *b, const char *name, const char *left, struct slice value, const char *right)
{
	buf_addf(b, "%s: %s%.*s%s\r\n", name, left, SLICE_ARG(value), right);
}

struct slice
job_prelude(struct job *j, const struct item_job_rcpt *rcpt)
{
	struct buf b = { 0 };
	struct slice s;

	add_field(&b, "Return-Path", "<", j->m->sender, ">");
	add_field(&b, "X-Original-To", "", rcpt->original.n ? rcpt->original : rcpt->address, "");
	add_field(&b, "Delivered-To", "", rcpt->address, "");
	s = arena_dup(&j->arena, buf_slice(&b));
	buf_free(&b);
	return s;
}

struct slice
job_from_line(struct job *j)
{
	time_t now = time(NULL);
	char date[32];
	struct tm tm;

	gmtime_r(&now, &tm); /* the zone files are out of reach */
	strftime(date, sizeof(date), "%a %b %e %H:%M:%S %Y", &tm);
	if (!j->m->sender.n)
		return slice_str(arena_printf(&j->arena, "From MAILER-DAEMON %s\n", date));
	return slice_str(arena_printf(&j->arena, "From %.*s %s\n", SLICE_ARG(j->m->sender), date));
}

/* The mailbox as the admin knows it. */
static const char *
where(struct job *j)
{
	const struct target *t = j->child->target;

	if (t->path[0] == '/' || !t->root || !strcmp(t->root, "/"))
		return t->path;
	if (!t->path[0] || !strcmp(t->path, "."))
		return t->root;
	return arena_printf(&j->arena, "%s/%s", t->root, t->path);
}

void
deliver_mailbox(struct job *j, const struct item_job_rcpt *rcpt, struct outcome *o)
{
	struct child *c = j->child;
	const struct target *t = c->target;
	struct slice prelude = job_prelude(j, rcpt);
	int err;

	if (c->conf->mailbox_command[0] && !(t->flags & ROUTE_VIRTUAL)) {
		deliver_command(j, rcpt, slice_str(c->conf->mailbox_command), true, o);
		return;
	}
	if (t->kind == TARGET_MAILDIR) {
		struct maildir_mail mail = { .content = &j->content,
			.prelude = prelude,
			.queue_id = j->m->queue_id,
			.recipient = rcpt->address,
			.arrival = j->m->arrival,
			.repeat = j->m->flags & MAIL_REPEAT };
		bool repeated;

		err = maildir_deliver(&c->maildir, &mail, &repeated);
		if (!err)
			outcome_set(o, RESULT_DONE, "2.0.0",
			    arena_printf(&j->arena, "delivered to maildir %s%s", where(j),
				repeated ? " before" : ""));
		else
			outcome_error(j, o, err, arena_printf(&j->arena, "maildir %s", where(j)));
		return;
	}
	err = mbox_append(t->path, -1, &j->content, job_from_line(j), prelude, &c->mbox);
	if (!err)
		outcome_set(o, RESULT_DONE, "2.0.0",
		    arena_printf(&j->arena, "delivered to mailbox %s", where(j)));
	else
		outcome_error(j, o, err, arena_printf(&j->arena, "mailbox %s", where(j)));
}

void
job_sign(struct job *j)
{
	struct msg m = MSG_INIT(MSG_DELIVER_RESULT, j->id);

	if (ev_now_us() - j->told_us < SIGN_US)
		return;
	m.deliver_result.queue_id = j->m->queue_id;
	m.deliver_result.more = true;
	if (!ipc_send_fd(j->fd, &m)) /* else it is gone: the report will meet that */
		j->told_us = ev_now_us();
}

static void
deliver_one(struct job *j, const struct item_job_rcpt *rcpt, struct outcome *o)
{
	const struct target *t = j->child->target;
	bool itself = !(t->flags & ROUTE_FORWARD) && t->kind != TARGET_ALIAS &&
		      slice_eq(rcpt->address, rcpt->original);
	bool looped = false;
	int err;

	if (t->trouble) {
		outcome_set(o, RESULT_DEFERRED, "4.2.0", t->trouble);
		return;
	}
	err = content_delivered_to(
	    &j->content, rcpt->address, itself, (size_t)j->child->conf->header_size_limit, &looped);
	if (err)
		outcome_set(o, RESULT_DEFERRED, "4.3.0",
		    arena_printf(&j->arena, "cannot read the message: %s", err_str(err)));
	else if (looped)
		outcome_set(o, RESULT_FAILED, "5.4.6",
		    arena_printf(
			&j->arena, "mail forwarding loop for %.*s", SLICE_ARG(rcpt->address)));
	else if (t->kind == TARGET_ALIAS)
		deliver_items(j, rcpt, &t->items, true, o);
	else if (rcpt->run != RUN_MAILBOX)
		outcome_set(
		    o, RESULT_DEFERRED, "4.3.5", "the delivery was started for something else");
	else if (!deliver_forward(j, rcpt, o))
		deliver_mailbox(j, rcpt, o);
}

/* --- the report --- */

struct report {
	struct buf results, envelopes, expansions;
	uint32_t nresults, nenvelopes, nexpansions;
	uint32_t id;
	struct slice queue_id;
	int fd;
};

static int
report_send(struct report *r, bool more)
{
	struct msg m = MSG_INIT(MSG_DELIVER_RESULT, r->id);
	int err;

	m.deliver_result.queue_id = r->queue_id;
	m.deliver_result.more = more;
	m.deliver_result.results = msg_list(&r->results, r->nresults);
	m.deliver_result.envelopes = msg_list(&r->envelopes, r->nenvelopes);
	m.deliver_result.expansions = msg_list(&r->expansions, r->nexpansions);
	err = ipc_send_fd(r->fd, &m);
	buf_clear(&r->results);
	buf_clear(&r->envelopes);
	buf_clear(&r->expansions);
	r->nresults = r->nenvelopes = r->nexpansions = 0;
	return err;
}

/* Makes room for an item of n bytes at most. */
static int
report_room(struct report *r, size_t n)
{
	size_t used = buf_len(&r->results) + buf_len(&r->envelopes) + buf_len(&r->expansions);

	if (used + n <= PART_BYTES && r->nexpansions < 1000)
		return 0;
	return report_send(r, true);
}

static int
report_expansions(
    struct report *r, struct job *j, const struct item_job_rcpt *rcpt, const struct outcome *o)
{
	struct item_new_envelope envelope = { .slot = rcpt->slot, .sender = o->sender };
	int err = 0;

	for (size_t i = 0; i < o->naddresses && !err; i++) {
		err = report_room(r, o->addresses[i].n + 16);
		item_expansion_add(
		    &r->expansions, &(struct item_expansion){ rcpt->slot, o->addresses[i] });
		r->nexpansions++;
	}
	if (!err)
		err = report_room(r, 4096);
	envelope.header =
	    slice_str(arena_printf(&j->arena, "Delivered-To: %.*s\r\n", SLICE_ARG(rcpt->address)));
	item_new_envelope_add(&r->envelopes, &envelope);
	r->nenvelopes++;
	return err;
}

static int
report_add(
    struct report *r, struct job *j, const struct item_job_rcpt *rcpt, const struct outcome *o)
{
	struct item_rcpt_result result = {
		.slot = rcpt->slot, .status = (uint8_t)o->status, .address = rcpt->address
	};
	int err = 0;

	if (o->status == RESULT_EXPANDED)
		err = report_expansions(r, j, rcpt, o);
	if (!err)
		err = report_room(r, 3072);
	result.enhanced = slice_str(o->enhanced);
	result.text = slice_sub(slice_str(o->text), 0, 1024);
	item_rcpt_result_add(&r->results, &result);
	r->nresults++;
	return err;
}

/* False: the parts do not make up the message that qmgr speaks of. */
static bool
set_content(struct job *j, const struct msg *m)
{
	const struct msg_deliver_job *job = &m->deliver_job;
	struct cursor c = cursor(job->extents.raw);
	struct item_extent e;

	j->content = (struct content){ .bytes = job->content,
		.fd = m->fd,
		.size = job->content.n,
		.binary = job->flags & MAIL_BINARY };
	if (m->fd < 0)
		return j->content.size == job->size;
	j->content.bytes = SLICE_NULL;
	j->content.size = 0;
	while (j->content.nextents < CONTENT_EXTENTS && item_extent_next(&c, &e)) {
		j->content.extents[j->content.nextents].offset = e.offset;
		j->content.extents[j->content.nextents++].length = e.length;
		j->content.size += e.length;
	}
	return j->content.size == job->size;
}

int
job_run(struct child *child, struct msg *m, int fd)
{
	struct job j = {
		.child = child, .m = &m->deliver_job, .id = m->id, .fd = fd, .told_us = ev_now_us()
	};
	struct report r = { .id = m->id, .fd = fd, .queue_id = m->deliver_job.queue_id };
	struct cursor rcpts = cursor(m->deliver_job.rcpts.raw);
	struct item_job_rcpt rcpt;
	bool complete = set_content(&j, m);
	int err = 0;

	while (!err && item_job_rcpt_next(&rcpts, &rcpt)) {
		struct outcome o = { .status = RESULT_DEFERRED, .enhanced = "4.3.0", .text = "" };

		o.sender = m->deliver_job.sender;
		job_sign(&j);
		if (complete)
			deliver_one(&j, &rcpt, &o);
		else
			outcome_set(
			    &o, RESULT_DEFERRED, "4.3.0", "the message's content is not complete");
		err = report_add(&r, &j, &rcpt, &o);
		arena_reset(&j.arena);
	}
	if (m->fd >= 0)
		close(m->fd); /* qmgr uses the file again when nobody has it open */
	m->fd = -1;
	if (!err)
		err = report_send(&r, false);
	arena_free(&j.arena);
	buf_free(&r.results);
	buf_free(&r.envelopes);
	buf_free(&r.expansions);
	return err;
}
