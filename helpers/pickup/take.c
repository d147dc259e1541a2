/*
 * Takes in one file after the other: head, recipients, content, commit, unlink. Runs in pickup as
 * bh-pickup. Hostile: every byte of a file, and the owner who may change it meanwhile: it is
 * copied, read once, front to back. Invariants: a file is removed only after qmgr said that the
 * message is durable; one that cannot be taken now stays; one that never can is set aside, with a
 * line in the log.
 */
#include "helpers/pickup/pickup.h"

#include "mail/address.h"
#include "mail/date.h"
#include "receive/head.h"
#include "smtp/trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define RETRY_MS 60000
#define PATIENCE_MS 600000 /* for a whole file */

static void read_content(struct pickup *p);
static void take_rest(void *ctx);

static void
finish(struct pickup *p)
{
	ev_timer_clear(&p->patience);
	rcpt_cancel(&p->question);
	mail_abort(&p->mail);
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	p->busy = false;
	arena_reset(&p->arena);
	buf_free(&p->head);
	p->finals = NULL;
}

/* One file a turn; when all are done the folder is looked at again in a minute, or when something
 * new comes. */
static void
turn(struct pickup *p)
{
	take_next(p);
	if (!p->busy)
		ev_timer_set(p->d->base, &p->rescan, p->waiting ? 0 : RETRY_MS,
		    p->waiting ? take_rest : take_all, p);
}

static void
take_rest(void *ctx)
{
	turn(ctx);
}

void
take_all(void *ctx)
{
	struct pickup *p = ctx;

	p->again = true;
	turn(p);
}

static void
rest_later(struct pickup *p)
{
	ev_timer_set(p->d->base, &p->rescan, 0, take_rest, p);
}

/* Not now: the file stays, and the others have their turn. */
static void
postpone_for(struct pickup *p, const char *why, const char *remedy)
{
	log_event(LOG_maildrop_postponed, "uid=%u file=%s reason=%s remedy=\"%s\"", p->uid,
	    log_cstr(p->name), log_cstr(why), remedy);
	finish(p);
	rest_later(p);
}

static void
postpone(struct pickup *p, const char *why)
{
	postpone_for(p, why, "see the lines of that daemon; it is tried again in a minute");
}

static void
refuse(struct pickup *p, const char *why)
{
	folder_set_aside(p, p->name, p->uid, why);
	finish(p);
	rest_later(p);
}

/* The queue said no: for now, or for ever. */
static void
not_taken(struct pickup *p)
{
	const struct reply *r = mail_failure(&p->mail);

	if (r->code / 100 == 5) {
		char *why = slice_dup(r->text);

		refuse(p, why);
		free(why);
	} else {
		postpone(p, "the queue does not take it now");
	}
}

/* The disk or the lack of descriptors, not the file, is in the way. */
static void
cannot_read(struct pickup *p, int err)
{
	postpone_for(p, err_str(err), folder_remedy(err));
}

static bool
may_submit(const struct pickup *p, uint32_t uid)
{
	for (size_t i = 0; i < p->n_submit; i++)
		if (p->submit[i].uid == uid)
			return !p->submit[i].no;
	return p->anyone || !uid;
}

static void
out_of_patience(void *ctx)
{
	postpone(ctx, "no answer from maps or the queue");
}

/* --- the envelope --- */

static int
canonical(struct pickup *p, struct slice text, struct slice *out_r)
{
	const struct conf *c = p->d->conf;
	char address[ADDRESS_BUF_SIZE];
	struct address a;
	unsigned flags = ADDRESS_NO_DOMAIN | (p->envelope.smtputf8 ? ADDRESS_UTF8 : 0);
	int err = address_normalise(text, flags, address);

	if (!err)
		err = address_parse(slice_str(address), flags | ADDRESS_UTF8, &a);
	if (err)
		return err;
	*out_r = a.domain.n ? arena_dup(&p->arena, slice_str(address))
			    : slice_str(arena_printf(&p->arena, "%s@%s", address,
				  *c->myorigin ? c->myorigin : c->myhostname));
	return 0;
}

static void ask_rcpt(struct pickup *p);

static void
keep_finals(struct pickup *p, const struct rcpt_answer *a)
{
	struct final_list *f = &p->finals[p->next_rcpt];
	struct buf one = { 0 };

	f->list = arena_dup(&p->arena, a->finals);
	f->count = a->count;
	if (!reply_is_good(&a->reply)) {
		/* nobody waits for a reply here: the queue finds the same and returns the message
		 */
		struct item_final_addr item = { .address = f->original };
		item_final_addr_add(&one, &item);
		f->list = arena_dup(&p->arena, buf_slice(&one));
		f->count = 1;
		buf_free(&one);
	}
}

static void
on_rcpt(void *ctx, const struct rcpt_answer *a)
{
	struct pickup *p = ctx;

	if (a->reply.code / 100 == 4) {
		postpone(p, "a recipient cannot be looked up now");
		return;
	}
	keep_finals(p, a);
	p->next_rcpt++;
	ask_rcpt(p);
}

static void
ask_rcpt(struct pickup *p)
{
	struct final_list *f = &p->finals[p->next_rcpt];

	if (p->next_rcpt == p->count) {
		read_content(p);
		return;
	}
	if (p->next_rcpt == p->envelope.count) {
		f->original = slice_str(p->d->conf->always_bcc);
	} else if (canonical(p, p->envelope.rcpts[p->next_rcpt], &f->original)) {
		refuse(p, "bad recipient address");
		return;
	}
	rcpt_ask(&p->receiver, &p->question, &p->arena, f->original, p->sender, "local",
	    RCPT_MAY_RELAY | RCPT_LOCAL, on_rcpt, p);
}

static int
read_head(struct pickup *p)
{
	size_t max = (size_t)p->d->conf->smtpd_recipient_limit;
	int err = ERR_TRUNCATED;

	while (err == ERR_TRUNCATED && buf_len(&p->head) < MAILDROP_HEAD_MAX) {
		ptrdiff_t n = buf_read(&p->head, p->fd, 65536);
		if (n <= 0)
			return n ? (int)n : ERR_SYNTAX;
		p->at += (uint64_t)n;
		arena_reset(&p->arena);
		err = maildrop_parse(
		    buf_slice(&p->head), &p->arena, max ? max : 1000000, &p->envelope);
	}
	return err;
}

/* --- content --- */

static void
add_trace(struct pickup *p)
{
	const struct conf *c = p->d->conf;
	struct buf text = { 0 };
	char local[64];
	int64_t now = p->began / 1000000;
	struct smtp_trace t = { .local = local,
		.hostname = c->myhostname,
		.mail_name = c->mail_name,
		.id = p->id,
		.time = now,
		.zone = date_local_zone(now) };

	snprintf(local, sizeof(local), "userid %u", p->uid);
	smtp_trace_format(&text, &t);
	p->trace_length = buf_len(&text);
	(void)mail_add(&p->mail, buf_slice(&text));
	buf_free(&text);
}

static void
complete_head(struct pickup *p)
{
	struct head head = {
		.scan = &p->header, .at = p->trace_length, .began = p->began, .id = p->id
	};

	p->head_done = true;
	mail_complete_head(&p->mail, &head, true);
}

/* Passes octets on; false: wait for the spool file. */
static bool
pass(struct pickup *p, struct slice bytes)
{
	struct slice rest = bytes;
	bool more;

	while (rest.n) {
		struct slice run;
		bool end;
		size_t used = content_read(&p->content, rest, &run, &end);
		rest = slice_sub(rest, used, rest.n);
	}
	header_scan_feed(&p->header, bytes);
	more = mail_add(&p->mail, bytes);
	if (!p->head_done && p->header.done) {
		complete_head(p);
		more = more && !p->mail.wait;
	}
	return more;
}

static void
send_envelope(struct pickup *p)
{
	struct mail_envelope env = { .session = p->id,
		.client = SLICE_LIT("local"),
		.sender = p->sender,
		.flags = MAIL_LOCAL | MAIL_QUEUE_FIRST,
		.ret = p->envelope.ret,
		.envid = p->envelope.envid,
		.arrival = (uint64_t)p->began };
	struct mail_rcpt *rcpts;
	size_t n = 0, total = 0;

	for (size_t i = 0; i < p->count; i++)
		total += p->finals[i].count;
	rcpts = arena_alloc(&p->arena, (total + 1) * sizeof(*rcpts));
	for (size_t i = 0; i < p->count; i++) {
		struct cursor c = cursor(p->finals[i].list);
		struct item_final_addr item;
		while (n < total && item_final_addr_next(&c, &item))
			rcpts[n++] = (struct mail_rcpt){ .address = item.address,
				.original = p->finals[i].original,
				.notify =
				    i < p->envelope.count ? p->envelope.notify : NOTIFY_NEVER };
	}
	if (p->envelope.body_8bit)
		env.flags |= MAIL_8BIT;
	if (p->envelope.smtputf8)
		env.flags |= MAIL_UTF8;
	env.rcpts = rcpts;
	env.count = n;
	mail_commit(&p->mail, &env);
}

static void
end_of_content(struct pickup *p)
{
	const struct conf *c = p->d->conf;

	p->committing = true;
	if (p->content.state != CONTENT_START || p->content.bare_cr || p->content.bare_lf) {
		refuse(p, "content is not in CRLF lines");
		return;
	}
	header_scan_end(&p->header);
	if (p->header.err || p->header.received > c->hopcount_limit) {
		refuse(p, p->header.err ? "header is too large" : "too many hops");
		return;
	}
	if (!p->head_done)
		complete_head(p);
	if (p->mail.state == MAIL_OPENING)
		p->mail.wait = true; /* on_ready goes on */
	else
		send_envelope(p);
}

static void
read_content(struct pickup *p)
{
	unsigned char bytes[65536];

	if (!p->mail.request.active && p->mail.state == MAIL_IDLE) {
		mail_begin(&p->mail);
		p->mail.hold_in_memory = true;
		add_trace(p);
		if (!pass(
			p, slice_sub(buf_slice(&p->head), p->envelope.content, buf_len(&p->head))))
			return;
	}
	while (!mail_failure(&p->mail) && p->at < p->size) {
		ssize_t n = read(p->fd, bytes, sizeof(bytes));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			cannot_read(p, err_errno());
			return;
		}
		if (!n) {
			refuse(p, "file was cut while it was read");
			return;
		}
		p->at += (uint64_t)n;
		if (!pass(p, slice(bytes, (size_t)n)))
			return;
	}
	if (mail_failure(&p->mail))
		not_taken(p);
	else
		end_of_content(p);
}

static void
on_ready(void *ctx)
{
	struct pickup *p = ctx;

	if (mail_failure(&p->mail))
		not_taken(p);
	else if (p->committing)
		send_envelope(p);
	else
		read_content(p);
}

static void
on_result(void *ctx, const struct reply *r, struct slice queue_id, const struct msg_list *results)
{
	struct pickup *p = ctx;

	(void)results;
	log_event(LOG_pickup_message,
	    "sid=%s qid=%s uid=%u from=%s size=%llu nrcpt=%zu code=%u text=%s", p->id,
	    queue_id.n ? log_value(queue_id) : "-", p->uid, log_value(p->sender),
	    (unsigned long long)p->size, p->envelope.count, r->code, log_value(r->text));
	if (r->code / 100 == 4) {
		postpone(p, "the queue does not take it now");
		return;
	}
	if (r->code / 100 == 5) {
		refuse(p, "the queue refused it");
		return;
	}
	count(COUNT_messages_received, 1);
	folder_remove(p, p->name, p->fd);
	finish(p);
	rest_later(p);
}

const struct mail_ops take_mail_ops = { .ready = on_ready, .result = on_result };

/* --- the next file --- */

static void
begin(struct pickup *p)
{
	const struct conf *c = p->d->conf;
	int err = 0;

	p->busy = true;
	ev_timer_set(p->d->base, &p->patience, PATIENCE_MS, out_of_patience, p);
	p->committing = p->head_done = false;
	p->at = 0;
	p->next_rcpt = 0;
	p->began = ev_wall_us();
	p->header = (struct header_scan){ .section_limit = (size_t)c->header_size_limit * 16,
		.count_limit = (unsigned)c->header_count_limit };
	p->content = (struct content_reader){ 0 };
	receiver_session_id(&p->receiver, p->id);
	p->fd = folder_take(p, p->name, &p->uid, &p->size);
	if (p->fd == -ENOENT) {
		finish(p);
		rest_later(p);
	} else if (p->fd < 0 && !folder_is_odd(p->fd)) {
		cannot_read(p, p->fd);
	} else if (p->fd < 0) {
		refuse(p, p->fd == ERR_LIMIT ? "it is larger than maildrop_file_limit"
					     : "not a regular file of one name");
	} else if (!may_submit(p, p->uid)) {
		refuse(p, "its owner may not submit mail: authorized_submit_users");
	} else if ((err = read_head(p)) < 0 && err > ERR_TRUNCATED) {
		cannot_read(p, err);
	} else if (err) {
		refuse(p, err == ERR_LIMIT ? "it has more recipients than smtpd_recipient_limit"
					   : "not a file of sendmail(1)");
	} else if (p->envelope.sender.n && canonical(p, p->envelope.sender, &p->sender)) {
		refuse(p, "bad sender address");
	} else {
		if (!p->envelope.sender.n)
			p->sender = SLICE_NULL;
		p->count = p->envelope.count + (c->always_bcc[0] != '\0');
		p->finals = arena_alloc(&p->arena, p->count * sizeof(*p->finals));
		ask_rcpt(p);
	}
}

void
take_next(struct pickup *p)
{
	if (p->busy || p->d->stopping)
		return;
	if (!p->d->peers[ROLE_QMGR] || !p->d->peers[ROLE_MAPS])
		return; /* link_up comes back here */
	if (p->again && !p->waiting) {
		p->again = false;
		folder_scan(p);
	}
	if (folder_next(p, p->name))
		begin(p);
}
