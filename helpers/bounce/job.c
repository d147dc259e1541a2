/*
 * Jobs of bounce: each becomes a notice, which is submitted as any receiver does it. Hostile
 * inputs: the content of the failed message (carried, not interpreted) and the answers of maps and
 * qmgr. A job ends in one bounce_done: with status 0 when the notice is durable, or when it is
 * certain that nobody is to be told.
 *
 * Who is told: the sender, unless it is the null sender. A notice that the sender's address cannot
 * take, and a failed notice itself, go to the postmaster if notify_classes says 2bounce, from
 * double_bounce_sender; if that fails too it is only logged, so no notice ever makes another for
 * ever.
 *
 * Invariants: a job speaks to the qmgr that gave it and to no other, and ends with it; an answer
 * counts on the channel where it was asked for.
 */
#include "helpers/bounce/bounce.h"
#include "helpers/bounce/compose.h"

#include "base/io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define RELAY_ALLOWED 1u /* flag of rcpt_check: notices go to anywhere */
#define JOBS_MAX 200u
#define RCPTS_MAX 8000u /* bytes of recipients beside a content; the others go before */

enum step { STEP_CHECK, STEP_OPEN, STEP_COMMIT };

struct job {
	TAILQ_ENTRY(job) link;
	struct ipc_chan *qmgr; /* who gave it; NULL once it is gone */
	uint32_t id;           /* of qmgr */
	uint32_t asked;        /* the question under way, to maps or qmgr */
	struct ipc_chan *asked_of;
	enum step step;
	struct arena arena;
	struct notice n;
	struct buf text; /* the notice */
	unsigned int flags;
	struct msg_list finals; /* the addresses that the recipient stands for */
	bool postmaster_too;    /* notify_classes: a copy follows */
	char first_id[32];      /* of the notice, when a copy follows */
	bool binary;
};

TAILQ_HEAD(jobs, job);

struct bounce {
	struct daemon *d;
	struct jobs jobs;
	size_t n_jobs;
	uint32_t next_id;
};

static void
job_free(struct bounce *b, struct job *j)
{
	TAILQ_REMOVE(&b->jobs, j, link);
	b->n_jobs--;
	buf_free(&j->text);
	arena_free(&j->arena);
	free(j);
}

static void
finish(
    struct bounce *b, struct job *j, unsigned int status, struct slice queue_id, const char *text)
{
	struct msg m = MSG_INIT(MSG_BOUNCE_DONE, j->id);

	m.bounce_done.about = j->n.queue_id;
	m.bounce_done.status = (uint8_t)status;
	m.bounce_done.queue_id = queue_id;
	m.bounce_done.text = slice_str(text);
	(void)ipc_send(j->qmgr, &m);
	job_free(b, j);
}

/* --- the job as qmgr gave it --- */

static struct slice
read_content(struct arena *a, const struct msg *m, size_t max)
{
	struct cursor c = cursor(m->bounce_job.extents.raw);
	struct item_extent x;
	unsigned char *p;
	size_t n = 0;

	if (m->fd < 0)
		return arena_dup(a, slice_sub(m->bounce_job.content, 0, max));
	p = arena_alloc(a, max);
	while (n < max && item_extent_next(&c, &x)) {
		uint64_t at = x.offset, end = x.offset + x.length;

		while (n < max && at < end) {
			size_t want = max - n < end - at ? max - n : (size_t)(end - at);
			ssize_t got = pread(m->fd, p + n, want, (off_t)at);

			if (got < 0 && errno == EINTR)
				continue;
			if (got <= 0) {
				log_event(LOG_notice_content, "qid=%s reason=\"%s\"",
				    log_value(m->bounce_job.queue_id),
				    got ? err_str(err_errno()) : "the file is too short");
				return slice(p, n);
			}
			n += (size_t)got;
			at += (uint64_t)got;
		}
	}
	return slice(p, n);
}

static void
take_rcpts(struct job *j, struct msg_list list)
{
	struct notice_rcpt *all = arena_alloc(&j->arena, (list.n + 1) * sizeof(*all));
	struct cursor c = cursor(list.raw);
	struct item_bounce_rcpt r;

	j->n.rcpts = all;
	while (item_bounce_rcpt_next(&c, &r))
		all[j->n.n_rcpts++] = (struct notice_rcpt){ arena_dup(&j->arena, r.address),
			arena_dup(&j->arena, r.original), arena_dup(&j->arena, r.orcpt),
			arena_dup(&j->arena, r.enhanced), arena_dup(&j->arena, r.text),
			arena_dup(&j->arena, r.remote), (int64_t)r.last_attempt };
}

static struct job *
take_job(struct bounce *b, struct ipc_chan *ch, const struct msg *m)
{
	const struct msg_bounce_job *x = &m->bounce_job;
	const struct conf *conf = b->d->conf;
	struct job *j = xcalloc(1, sizeof(*j));
	size_t max = (size_t)conf->header_size_limit;

	j->qmgr = ch;
	j->id = m->id;
	j->n.kind = x->kind == NOTICE_DELAY || x->kind == NOTICE_SUCCESS ? (enum notice_kind)x->kind
									 : NOTICE_FAILURE;
	/* All of it comes back only when it was asked for, failed, is text and is not too much. */
	j->n.full = x->ret == RET_FULL && j->n.kind == NOTICE_FAILURE &&
		    !(x->flags & MAIL_BINARY) && x->size <= (uint64_t)conf->bounce_size_limit;
	j->n.utf8 = x->flags & MAIL_UTF8;
	j->n.queue_id = arena_dup(&j->arena, x->queue_id);
	j->n.sender = arena_dup(&j->arena, x->sender);
	j->n.envid = arena_dup(&j->arena, x->envid);
	j->n.arrival = (int64_t)(x->arrival / 1000000);
	j->n.expires = (int64_t)(x->expires / 1000000);
	j->n.content = read_content(&j->arena, m, j->n.full ? (size_t)x->size : max);
	take_rcpts(j, x->rcpts);
	j->n.hostname = conf->myhostname;
	j->n.mail_name = conf->mail_name;
	TAILQ_INSERT_TAIL(&b->jobs, j, link);
	b->n_jobs++;
	return j;
}

/* --- one notice --- */

static const char *
at_origin(struct bounce *b, struct job *j, const char *local)
{
	return strchr(local, '@') ? arena_strdup(&j->arena, local)
				  : arena_printf(&j->arena, "%s@%s", local, b->d->conf->myorigin);
}

static const char *
make_boundary(struct job *j)
{
	unsigned char random[12];
	char *text = arena_alloc(&j->arena, 40);

	/* Unguessable: the content that is returned cannot hold it. */
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		die("no random numbers");
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(text + 2 * i, 3, "%02x", random[i]);
	return arena_printf(&j->arena, "%.*s.%s", SLICE_ARG(j->n.queue_id), text);
}

static void
ask_maps(struct bounce *b, struct job *j)
{
	struct msg m = MSG_INIT(MSG_RCPT_CHECK, ++b->next_id);

	buf_clear(&j->text);
	j->n.now = time(NULL);
	j->n.boundary = make_boundary(j);
	j->n.from = slice_str(at_origin(b, j, "MAILER-DAEMON"));
	j->flags = MAIL_NOTICE | notice_compose(&j->n, &j->text);
	if (j->n.to_postmaster)
		j->flags |= MAIL_POSTMASTER;
	j->step = STEP_CHECK;
	j->asked = m.id;
	j->asked_of = b->d->peers[ROLE_MAPS];
	m.rcpt_check.address = j->n.to;
	m.rcpt_check.flags = RELAY_ALLOWED;
	if (!j->asked_of || ipc_send(j->asked_of, &m))
		finish(b, j, 1, SLICE_NULL, "address look-ups are not running");
}

static void
to_postmaster(struct bounce *b, struct job *j, bool undeliverable)
{
	j->n.to_postmaster = true;
	j->n.undeliverable = undeliverable;
	j->n.full = false;
	j->n.to = slice_str(at_origin(b, j, b->d->conf->error_notice_recipient));
	ask_maps(b, j);
}

/* The sender cannot be told. */
static void
not_deliverable(struct bounce *b, struct job *j, const char *why)
{
	log_event(LOG_notice_undeliverable, "qid=%s to=%s reason=%s", log_value(j->n.queue_id),
	    j->n.to.n ? log_value(j->n.to) : "-", log_cstr(why));
	if (j->n.to_postmaster && !j->first_id[0])
		finish(b, j, 0, SLICE_NULL, "neither the sender nor the postmaster could be told");
	else if (j->first_id[0])
		finish(b, j, 0, slice_str(j->first_id), "no copy for the postmaster");
	else if (conf_list_has(&b->d->conf->notify_classes, SLICE_LIT("2bounce")))
		to_postmaster(b, j, true);
	else
		finish(b, j, 0, SLICE_NULL, "the sender's address takes no notice");
}

static void
start(struct bounce *b, struct ipc_chan *ch, const struct msg *m)
{
	struct job *j = take_job(b, ch, m);
	const char *class = j->n.kind == NOTICE_FAILURE ? "bounce" : "delay";

	if (b->n_jobs > JOBS_MAX) {
		finish(b, j, 1, SLICE_NULL, "too many notices at once");
		return;
	}
	if (!j->n.sender.n) {
		to_postmaster(b, j, true);
		return;
	}
	j->postmaster_too = j->n.kind != NOTICE_SUCCESS &&
			    conf_list_has(&b->d->conf->notify_classes, slice_str(class));
	j->n.to = j->n.sender;
	ask_maps(b, j);
}

/* --- maps --- */

static struct job *
find(struct bounce *b, const struct ipc_chan *ch, uint32_t id)
{
	struct job *j;

	TAILQ_FOREACH(j, &b->jobs, link)
		if (j->asked == id && j->asked_of == ch)
			return j;
	return NULL;
}

/* Leaves in rcpts what goes with the envelope itself. */
static int
send_rcpts(struct job *j, struct buf *rcpts, uint32_t *n_r)
{
	struct cursor c = cursor(j->finals.raw);
	struct item_final_addr f;

	*n_r = 0;
	while (item_final_addr_next(&c, &f)) {
		struct item_env_rcpt r = {
			.address = f.address, .original = j->n.to, .notify = NOTIFY_NEVER
		};

		item_env_rcpt_add(rcpts, &r);
		if (++*n_r == 1000 || buf_len(rcpts) > RCPTS_MAX - 2200) {
			struct msg part = MSG_INIT(MSG_MAIL_RCPTS, j->asked);
			int err;

			part.mail_rcpts.rcpts = msg_list(rcpts, *n_r);
			err = ipc_send(j->qmgr, &part);
			if (err)
				return err;
			buf_clear(rcpts);
			*n_r = 0;
		}
	}
	return 0;
}

static void
commit(struct bounce *b, struct job *j, struct slice queue_id)
{
	struct msg m = MSG_INIT(MSG_MAIL_COMMIT, j->asked);
	struct msg_mail_commit *c = &m.mail_commit;
	struct buf extents = { 0 }, rcpts = { 0 };
	uint32_t n = 0;
	int err = send_rcpts(j, &rcpts, &n);
	const char *from =
	    j->n.to_postmaster ? at_origin(b, j, b->d->conf->double_bounce_sender) : "";

	j->step = STEP_COMMIT;
	c->queue_id = queue_id;
	c->session = j->n.queue_id;
	c->client = SLICE_LIT("bounce");
	c->sender = slice_str(from);
	c->flags = j->flags;
	c->arrival = (uint64_t)ev_wall_us();
	c->size = buf_len(&j->text);
	c->total = j->finals.n;
	c->rcpts = msg_list(&rcpts, n);
	if (queue_id.n) {
		item_extent_add(&extents, &(struct item_extent){ 0, c->size });
		c->extents = msg_list(&extents, 1);
	} else {
		c->content = buf_slice(&j->text);
	}
	if (err || ipc_send(j->qmgr, &m))
		finish(b, j, 1, SLICE_NULL, "the queue is not running");
	buf_free(&extents);
	buf_free(&rcpts);
}

static void
on_verdict(struct bounce *b, struct ipc_chan *ch, const struct msg *m)
{
	const struct msg_rcpt_verdict *v = &m->rcpt_verdict;
	struct job *j = find(b, ch, m->id);

	if (!j || j->step != STEP_CHECK)
		return;
	if (v->code >= 500) {
		char *why = slice_dup(v->text);

		not_deliverable(b, j, why);
		free(why);
		return;
	}
	if (v->code >= 300 || !v->finals.n) {
		finish(b, j, 1, SLICE_NULL, "the sender's address cannot be looked up now");
		return;
	}
	j->finals = (struct msg_list){ arena_dup(&j->arena, v->finals.raw), v->finals.n };
	j->asked = ++b->next_id;
	j->asked_of = j->qmgr;
	if (buf_len(&j->text) <= (size_t)b->d->conf->small_message_limit) {
		commit(b, j, SLICE_NULL);
		return;
	}
	struct msg open = MSG_INIT(MSG_MAIL_OPEN, j->asked);
	j->step = STEP_OPEN;
	open.mail_open.size = buf_len(&j->text);
	if (ipc_send(j->qmgr, &open))
		finish(b, j, 1, SLICE_NULL, "the queue is not running");
}

/* --- qmgr --- */

static void
on_file(struct bounce *b, struct ipc_chan *ch, struct msg *m)
{
	struct job *j = find(b, ch, m->id);
	char why[160];
	int err;

	if (!j || j->step != STEP_OPEN)
		return;
	err = io_write_all(m->fd, buf_slice(&j->text));
	if (err) {
		struct msg abort = MSG_INIT(MSG_MAIL_ABORT, j->asked);

		(void)ipc_send(j->qmgr, &abort);
		snprintf(why, sizeof(why), "the notice cannot be written: %s", err_str(err));
		finish(b, j, 1, SLICE_NULL, why);
		return;
	}
	/* No writer may be left when qmgr seals it. */
	close(m->fd);
	m->fd = -1;
	commit(b, j, m->mail_file.queue_id);
}

static void
on_result(struct bounce *b, struct ipc_chan *ch, const struct msg *m)
{
	struct job *j = find(b, ch, m->id);
	unsigned int code = m->mail_result.code;
	char text[600];

	if (!j || j->step == STEP_CHECK)
		return;
	snprintf(text, sizeof(text), "%.*s", SLICE_ARG(m->mail_result.text));
	if (code >= 500) {
		not_deliverable(b, j, text);
	} else if (code >= 300) {
		finish(b, j, 1, SLICE_NULL, text);
	} else if (j->step != STEP_COMMIT || !slice_eq(m->mail_result.session, j->n.queue_id)) {
		finish(b, j, 1, SLICE_NULL, "the queue's answer is about another message");
	} else if (j->postmaster_too) {
		j->postmaster_too = false;
		snprintf(
		    j->first_id, sizeof(j->first_id), "%.*s", SLICE_ARG(m->mail_result.queue_id));
		to_postmaster(b, j, false);
	} else {
		struct slice id = j->first_id[0] ? slice_str(j->first_id) : m->mail_result.queue_id;

		finish(b, j, 0, id,
		    j->n.undeliverable ? "the postmaster was told" : "the sender was told");
	}
}

/* --- life --- */

static void
on_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct bounce *b = d->ctx;

	switch (m->type) {
	case MSG_BOUNCE_JOB:
		start(b, ch, m);
		return;
	case MSG_RCPT_VERDICT:
		on_verdict(b, ch, m);
		return;
	case MSG_MAIL_FILE:
		on_file(b, ch, m);
		return;
	case MSG_MAIL_RESULT:
		on_result(b, ch, m);
		return;
	default:
		return; /* maps_changed: nothing is kept */
	}
}

static void
on_link_down(struct daemon *d, struct ipc_chan *ch)
{
	struct bounce *b = d->ctx;
	struct job *j, *next;

	for (j = TAILQ_FIRST(&b->jobs); j; j = next) {
		next = TAILQ_NEXT(j, link);
		/* Its successor finds in the spool who is still to be told. */
		if (j->qmgr == ch)
			job_free(b, j);
		else if (j->asked_of == ch)
			finish(b, j, 1, SLICE_NULL, "a helper was restarted");
	}
}

static int
init(struct daemon *d)
{
	d->file_limit = d->conf->message_size_limit > 0 ? d->conf->message_size_limit + 1000000 : 0;
	tzset();
	return 0;
}

static int
start_daemon(struct daemon *d)
{
	struct bounce *b = xcalloc(1, sizeof(*b));

	b->d = d;
	TAILQ_INIT(&b->jobs);
	d->ctx = b;
	return 0;
}

const struct daemon_desc bounce_desc = {
	.role = ROLE_BOUNCE,
	.init = init,
	.start = start_daemon,
	.message = on_message,
	.link_down = on_link_down,
};
