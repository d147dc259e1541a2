/*
 * DATA and BDAT. Grammar of RFC 5321 4.1.1.4 and RFC 3030 2:
 *   data     = "DATA" CRLF
 *   bdat-cmd = "BDAT" SP chunk-size [ SP "LAST" ] CRLF
 * Runs in smtpd and submission on hostile input. Invariants: content that is refused is read to its
 * end (bounded by discard_limit) before the reply, and the transaction is over with that reply; the
 * octets of a chunk are never read as commands, whatever is wrong with the BDAT.
 */
#include "smtp/server_priv.h"

static void
fail(struct smtp_server *s, const struct reply *r)
{
	if (!s->tx.failure.code)
		s->tx.failure = *r;
}

#define FAIL(s, code, enhanced, text, parameter)                                                   \
	fail((s), &REPLY_LIMIT(code, enhanced, text, parameter))

void
smtp_server_fail_data(struct smtp_server *s, const struct reply *r)
{
	struct reply copy = *r;

	copy.enhanced = arena_dup(&s->tx.arena, r->enhanced);
	copy.text = arena_dup(&s->tx.arena, r->text);
	fail(s, &copy);
}

/* A reply to one of several recipients: what became of it is no error of the client. */
static void
send_one_of_many(struct smtp_server *s, const struct reply *r)
{
	unsigned errors = s->errors;

	smtp_send(s, r);
	s->errors = errors;
}

/* One reply to the end of the data, or with LMTP one for each recipient that has none yet; then
 * the transaction is over. */
static void
finish(struct smtp_server *s, const struct reply *r)
{
	unsigned times = smtp_is_lmtp(s) ? s->tx.rcpt_count - s->commit_answers : 1;
	bool good = reply_is_good(r);

	smtp_set_state(s, SMTP_READY);
	for (unsigned i = 1; i < times && s->state != SMTP_CLOSED; i++)
		send_one_of_many(s, r);
	if (s->state != SMTP_CLOSED)
		smtp_send(s, r);
	if (good)
		s->errors = s->junk = 0;
	smtp_tx_end(s);
}

static void
finish_failed(struct smtp_server *s)
{
	struct reply r = s->tx.failure;

	finish(s, &r);
}

static void
begin_content(struct smtp_server *s, bool dots)
{
	const struct smtp_policy *p = s->policy;

	s->tx.began = true;
	s->tx.reader = (struct content_reader){ .dots = dots, .mend_lf = p->mend_bare_lf };
	s->tx.header = (struct header_scan){ .field_limit = p->header_size_limit,
		.section_limit = p->header_section_limit,
		.count_limit = p->header_count_limit };
	s->wait = WAIT_DATA;
	if (s->ops->data_begin)
		s->ops->data_begin(s->ctx, s);
	else
		smtp_server_answer_data(s, NULL);
}

void
smtp_do_data(struct smtp_server *s, struct slice args)
{
	(void)args;
	if (s->tx.body == SMTP_BODY_BINARYMIME) {
		SMTP_SAY(s, 503, "5.5.1", "Error: BODY=BINARYMIME needs BDAT");
		return;
	}
	if (s->state == SMTP_MAIL) {
		if (smtp_is_lmtp(s))
			SMTP_SAY(s, 503, "5.5.1", "Error: no valid recipients");
		else
			SMTP_SAY(s, 554, "5.5.1", "Error: no valid recipients");
		return;
	}
	begin_content(s, true);
}

/* RFC 3030: when BDAT is refused, its octets are read and dropped first. */
void
smtp_server_answer_data(struct smtp_server *s, const struct reply *r)
{
	bool good = !r || reply_is_good(r);

	if (s->wait != WAIT_DATA)
		return;
	s->wait = WAIT_NONE;
	if (s->tx.reader.dots) {
		if (good) {
			smtp_set_state(s, SMTP_DATA);
			SMTP_SAY(s, 354, "", "End data with <CR><LF>.<CR><LF>");
		} else {
			smtp_set_state(s, SMTP_READY);
			smtp_send(s, r);
			smtp_tx_end(s);
		}
	} else {
		if (!good)
			smtp_server_fail_data(s, r);
		smtp_set_state(s, SMTP_CHUNK);
	}
	smtp_server_resume(s);
}

static void
check_header(struct smtp_server *s)
{
	struct header_scan *h = &s->tx.header;

	if (h->err)
		FAIL(s, 552, "5.3.4", "Error: message header is too large",
		    h->fields > s->policy->header_count_limit ? "header_count_limit"
							      : "header_size_limit");
	if (s->policy->hop_limit && h->received > s->policy->hop_limit)
		FAIL(s, 554, "5.4.6", "Error: too many hops", "hopcount_limit");
}

/* Octets of content, in whatever state the transaction is. */
static void
pass_content(struct smtp_server *s, struct slice run)
{
	struct smtp_tx *tx = &s->tx;

	if (tx->reader.bare_lf)
		FAIL(s, 550, "5.5.2", "Error: bare <LF> received: lines end in <CR><LF>", NULL);
	if (tx->reader.bare_cr)
		FAIL(s, 550, "5.5.2", "Error: bare <CR> received: lines end in <CR><LF>", NULL);
	if (s->policy->size_limit && tx->size + run.n > s->policy->size_limit)
		FAIL(s, 552, "5.3.4", "Error: message is larger than the limit",
		    "message_size_limit");
	if (!tx->failure.code && run.n) {
		header_scan_feed(&tx->header, run);
		check_header(s);
	}
	tx->size += run.n;
	if (tx->failure.code)
		smtp_count_discarded(s, run.n);
	else if (run.n)
		s->ops->data_bytes(s->ctx, s, run);
}

static void
end_content(struct smtp_server *s)
{
	header_scan_end(&s->tx.header);
	s->tx.ended = true;
	if (s->tx.failure.code) {
		finish_failed(s);
		return;
	}
	smtp_set_state(s, SMTP_COMMIT);
	s->wait = WAIT_COMMIT;
	s->ops->commit(s->ctx, s);
}

void
smtp_take_data(struct smtp_server *s)
{
	struct slice run;
	bool end;
	size_t used = content_read(&s->tx.reader, s->in, &run, &end);

	s->in = slice_sub(s->in, used, s->in.n);
	pass_content(s, run);
	if (end && s->state == SMTP_DATA)
		end_content(s);
}

/* --- BDAT --- */

static bool
parse_bdat(struct smtp_server *s, struct slice args)
{
	struct slice size = slice_split(&args, ' ');

	while (args.n && args.p[0] == ' ')
		args = slice_sub(args, 1, args.n);
	if (slice_u64(size, UINT64_MAX / 2, &s->chunk_left))
		return false;
	s->chunk_last = slice_caseeq_str(args, "LAST");
	return s->chunk_last || !args.n;
}

/* A chunk that no transaction wants: its octets must go all the same. */
static void
refuse_chunk(struct smtp_server *s, const struct reply *r)
{
	smtp_tx_end(s);
	s->chunk_orphan = true;
	s->chunk_refusal = *r;
	smtp_set_state(s, SMTP_CHUNK);
}

/* What follows a BDAT whose size cannot be read might be content: it must not become commands. */
void
smtp_do_bdat(struct smtp_server *s, struct slice args)
{
	if (!parse_bdat(s, args)) {
		SMTP_SAY(s, 501, "5.5.4", "Syntax: BDAT count [LAST]; cannot go on after this");
		smtp_close(s);
		return;
	}
	s->chunk_orphan = false;
	switch (s->state) {
	case SMTP_HELLO:
		refuse_chunk(s, &REPLY(503, "5.5.1", "Error: send EHLO first"));
		return;
	case SMTP_READY:
		refuse_chunk(s, &REPLY(503, "5.5.1", "Error: need RCPT command"));
		return;
	case SMTP_MAIL:
		/* RFC 2033 4.3: no recipients, no replies */
		if (smtp_is_lmtp(s) && s->chunk_last)
			refuse_chunk(s, &(struct reply){ 0 });
		else
			refuse_chunk(s, smtp_is_lmtp(s)
					    ? &REPLY(503, "5.5.1", "Error: no valid recipients")
					    : &REPLY(554, "5.5.1", "Error: no valid recipients"));
		return;
	case SMTP_CHUNKS:
		if (s->policy->chunk_limit && ++s->tx.chunks >= s->policy->chunk_limit)
			FAIL(s, 552, "5.3.4", "Error: too many chunks", "smtpd_bdat_chunk_limit");
		smtp_set_state(s, SMTP_CHUNK);
		return;
	default:
		break;
	}
	if (!smtp_offers(s, SMTP_EXT_CHUNKING)) {
		refuse_chunk(s, &REPLY(502, "5.5.1", "Error: BDAT is not offered"));
		return;
	}
	begin_content(s, false);
}

/* RFC 5321 4.1.1.4 lets the sender add a final CRLF; without one the dot could not be sent on. */
static void
complete_last_line(struct smtp_server *s)
{
	struct content_reader *r = &s->tx.reader;

	if (s->tx.body == SMTP_BODY_BINARYMIME)
		return;
	if (r->state == CONTENT_CR)
		r->bare_cr = true;
	if (r->state == CONTENT_TEXT)
		pass_content(s, SLICE_LIT("\r\n"));
	else
		pass_content(s, SLICE_NULL);
}

static void
end_chunk(struct smtp_server *s)
{
	struct reply r;

	if (s->chunk_orphan) {
		s->chunk_orphan = false;
		smtp_set_state(s, s->hello[0] ? SMTP_READY : SMTP_HELLO);
		if (s->chunk_refusal.code)
			smtp_send(s, &s->chunk_refusal);
		return;
	}
	if (s->chunk_last) {
		complete_last_line(s);
		if (s->state == SMTP_CHUNK)
			end_content(s);
		return;
	}
	if (s->tx.failure.code) {
		/* one reply to this command, whatever the service; later chunks are orphans */
		r = s->tx.failure;
		smtp_set_state(s, SMTP_READY);
		smtp_send(s, &r);
		smtp_tx_end(s);
		return;
	}
	smtp_set_state(s, SMTP_CHUNKS);
	SMTP_SAY(s, 250, "2.0.0", "Ok");
}

static void
pass_text_chunk(struct smtp_server *s, struct slice in)
{
	while (in.n && s->state == SMTP_CHUNK) {
		struct slice run;
		bool end;
		size_t used = content_read(&s->tx.reader, in, &run, &end);
		in = slice_sub(in, used, in.n);
		pass_content(s, run);
	}
}

void
smtp_take_chunk(struct smtp_server *s)
{
	struct slice in =
	    slice_sub(s->in, 0, s->chunk_left < s->in.n ? (size_t)s->chunk_left : s->in.n);

	s->in = slice_sub(s->in, in.n, s->in.n);
	s->chunk_left -= in.n;
	if (s->chunk_orphan) {
		if (!smtp_count_discarded(s, in.n))
			return;
	} else if (s->tx.body == SMTP_BODY_BINARYMIME) {
		pass_content(s, in);
	} else {
		pass_text_chunk(s, in);
	}
	if (!s->chunk_left && s->state == SMTP_CHUNK)
		end_chunk(s);
}

/* --- the verdict --- */

void
smtp_server_answer_commit(struct smtp_server *s, const struct reply *r)
{
	if (s->wait != WAIT_COMMIT)
		return;
	s->wait = WAIT_NONE;
	finish(s, r ? r : &REPLY(250, "2.0.0", "Ok"));
	smtp_server_resume(s);
}

void
smtp_server_answer_commit_rcpt(struct smtp_server *s, const struct reply *r)
{
	if (s->wait != WAIT_COMMIT)
		return;
	s->commit_answers++;
	if (s->commit_answers < s->tx.rcpt_count) {
		send_one_of_many(s, r ? r : &REPLY(250, "2.0.0", "Ok"));
		return;
	}
	s->commit_answers--; /* finish sends this one too */
	smtp_server_answer_commit(s, r);
}
