/*
 * The message that sendmail(1) is given: lines of a Unix text file, or CRLF lines. Runs as the
 * caller. Invariants: what leaves here has CRLF lines without bare CR or LF; Bcc is gone with -t;
 * nothing of the body is changed but line ends, nothing of the header but bare addresses.
 */
#include "submission/sendmail/sendmail.h"

#include "mail/address.h"
#include "mail/address_list.h"
#include "mail/header.h"
#include "smtp/params.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LIST_MAX 10000u

/* --- recipients --- */

static void
append_rcpt(struct job *job, struct slice address)
{
	struct maildrop *m = &job->envelope;

	if (m->count == job->rcpt_size) {
		size_t size = job->rcpt_size ? job->rcpt_size * 2 : 16;
		struct slice *more = arena_alloc(&job->arena, size * sizeof(*more));
		if (m->count)
			memcpy(more, m->rcpts, m->count * sizeof(*more));
		m->rcpts = more;
		job->rcpt_size = size;
	}
	m->rcpts[m->count++] = arena_dup(&job->arena, address);
}

static int
add_entry(struct job *job, const struct address_entry *e, bool strict)
{
	char text[ADDRESS_BUF_SIZE];
	struct buf mailbox = { 0 };
	int err;

	address_entry_mailbox(e, &mailbox);
	err = address_normalise(buf_slice(&mailbox), ADDRESS_NO_DOMAIN | ADDRESS_UTF8, text);
	if (!err) {
		append_rcpt(job, slice_str(text));
		if (!slice_is_ascii(slice_str(text)))
			job->envelope.smtputf8 = true;
	} else {
		complain(EX_DATAERR, "bad recipient address: %.*s", (int)buf_len(&mailbox),
		    (const char *)buf_slice(&mailbox).p);
	}
	buf_free(&mailbox);
	return err && strict ? EX_DATAERR : EX_OK;
}

int
message_add_recipients(struct job *job, struct slice list, bool strict)
{
	struct address_list parsed;
	struct address_entry *e;
	int status = EX_OK;

	if (address_list_parse(list, &job->arena, LIST_MAX, &parsed))
		return complain(EX_DATAERR, "more than %u recipients in one list", LIST_MAX);
	if (parsed.errors && strict)
		return complain(EX_DATAERR, "bad recipient address: %.*s", SLICE_ARG(list));
	STAILQ_FOREACH(e, &parsed.entries, next)
		if (!status && e->kind == ADDRESS_MAILBOX)
			status = add_entry(job, e, strict);
	return status;
}

/* --- reading --- */

static int
check_size(const struct job *job, const struct buf *text)
{
	size_t limit = (size_t)job->conf->message_size_limit;

	if (limit && buf_len(text) > limit)
		return complain(
		    EX_DATAERR, "message is larger than message_size_limit (%zu bytes)", limit);
	return EX_OK;
}

static int
read_all(struct job *job, struct buf *raw)
{
	ptrdiff_t n;

	do {
		n = buf_read(raw, STDIN_FILENO, 65536);
		if (n < 0)
			return complain(EX_IOERR, "standard input: %s", err_str((int)n));
		if (check_size(job, raw))
			return EX_DATAERR;
	} while (n > 0);
	return EX_OK;
}

static void
add_line(struct buf *out, struct slice line)
{
	for (size_t i = 0; i < line.n; i++)
		buf_add_byte(out, line.p[i] == '\r' ? ' ' : line.p[i]);
	buf_add_str(out, "\r\n");
}

/* Every line ends in CRLF afterwards; a CR elsewhere becomes a blank. Without -i a dot ends. */
static void
convert_lines(struct job *job, struct slice raw, struct buf *out)
{
	bool first = true;

	while (raw.n) {
		struct slice line = slice_split(&raw, '\n');
		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		if (job->options.dot_ends && line.n == 1 && line.p[0] == '.')
			return;
		/* the separator of a mailbox file is not part of the message */
		if (!first ||
		    !(slice_has_prefix(line, "From ") || slice_has_prefix(line, ">From ")))
			add_line(out, line);
		first = false;
	}
}

/* --- the header --- */

enum { RESENT = 1, FROM = 2, RESENT_FROM = 4 };

static unsigned
look_at_header(struct slice text)
{
	struct header_field f;
	enum header_step step;
	unsigned seen = 0;

	while ((step = header_next(&text, &f)) == HEADER_FIELD) {
		if (slice_has_caseprefix(f.name, "Resent-"))
			seen |= RESENT;
		if (slice_caseeq_str(f.name, "From"))
			seen |= FROM;
		if (slice_caseeq_str(f.name, "Resent-From"))
			seen |= RESENT_FROM;
	}
	return seen;
}

static bool
is_one_of(struct slice name, const char *const *names)
{
	for (; *names; names++)
		if (slice_caseeq_str(name, *names))
			return true;
	return false;
}

/* RFC 5322 3.6.6: a message that was resent goes to its Resent- recipients. */
static int
take_field(struct job *job, const struct header_field *f, unsigned seen, bool *drop_r)
{
	static const char *const plain[] = { "To", "Cc", "Bcc", NULL };
	static const char *const resent[] = { "Resent-To", "Resent-Cc", "Resent-Bcc", NULL };
	static const char *const hidden[] = { "Bcc", "Resent-Bcc", NULL };

	*drop_r = slice_caseeq_str(f->name, "Return-Path");
	if (!job->options.headers)
		return EX_OK;
	if (is_one_of(f->name, hidden))
		*drop_r = true;
	if (!is_one_of(f->name, seen & RESENT ? resent : plain))
		return EX_OK;
	return message_add_recipients(job, f->body, false);
}

/* As Postfix has it for mail of this machine: a bare address gets our domain in the header too. */
static bool
complete(const struct conf *conf, struct slice body, struct buf *out)
{
	return address_complete(body,
	    conf->append_at_myorigin && *conf->myorigin ? conf->myorigin : NULL,
	    conf->append_dot_mydomain && *conf->mydomain ? conf->mydomain : NULL, out);
}

static void
add_field(struct job *job, const struct header_field *f)
{
	static const char *const names[] = { "From", "Sender", "Reply-To", "To", "Cc", "Bcc",
		"Resent-From", "Resent-Sender", "Resent-Reply-To", "Resent-To", "Resent-Cc",
		"Resent-Bcc", "Errors-To", "Return-Receipt-To", "Disposition-Notification-To",
		"Mail-Followup-To", "Apparently-To", NULL };
	struct buf body = { 0 };

	if (is_one_of(f->name, names) && complete(job->conf, f->body, &body)) {
		buf_addf(&job->content, "%.*s:", SLICE_ARG(f->name));
		buf_add(&job->content, buf_slice(&body));
		buf_add_str(&job->content, "\r\n");
	} else {
		buf_add(&job->content, f->raw);
	}
	buf_free(&body);
}

/* Of the envelope's sender, which was checked and has no brackets. */
static void
add_from(struct job *job, const char *name)
{
	struct buf text = { 0 }, whole = { 0 };
	const char *full = job->options.full_name;
	struct slice sender =
	    job->envelope.sender.n ? job->envelope.sender : SLICE_LIT("MAILER-DAEMON");

	if (full && *full) {
		header_add_phrase(&text, slice_str(full));
		buf_add_byte(&text, ' ');
	}
	buf_addf(&text, "<%.*s", SLICE_ARG(sender));
	if (slice_rfind(sender, '@') <= slice_rfind(sender, '"')) /* a local part may have one */
		buf_addf(&text, "@%s", job->conf->myorigin);
	buf_add_byte(&text, '>');
	header_add(&job->content, name,
	    complete(job->conf, buf_slice(&text), &whole) ? buf_slice(&whole) : buf_slice(&text));
	buf_free(&text);
	buf_free(&whole);
}

static int
convert_header(struct job *job, struct slice text)
{
	unsigned seen = look_at_header(text);
	struct slice rest = text;
	struct header_field f;
	int status = EX_OK;

	if (!(seen & FROM))
		add_from(job, "From");
	if (seen & RESENT && !(seen & RESENT_FROM))
		add_from(job, "Resent-From");
	while (!status) {
		struct slice before = rest;
		enum header_step step = header_next(&rest, &f);
		bool drop;
		if (step != HEADER_FIELD) {
			/* a body that begins without an empty line gets one */
			if (step == HEADER_MALFORMED || !before.n)
				buf_add_str(&job->content, "\r\n");
			buf_add(&job->content, before);
			return EX_OK;
		}
		status = take_field(job, &f, seen, &drop);
		if (!status && !drop)
			add_field(job, &f);
	}
	return status;
}

static void
look_at_body(struct job *job)
{
	struct slice s = buf_slice(&job->content);

	job->envelope.body_8bit =
	    job->options.body == 8 || (!job->options.body && !slice_is_ascii(s));
	job->envelope.notify = job->options.notify;
	job->envelope.ret = job->options.ret;
}

/* RFC 3461 4.4: printable ASCII, at most 100 octets as xtext. */
static int
take_envid(struct job *job)
{
	struct buf text = { 0 };
	int status = EX_OK;

	if (!job->options.envid)
		return EX_OK;
	xtext_encode(&text, slice_str(job->options.envid));
	if (!xtext_valid(buf_slice(&text)) || buf_len(&text) > 100)
		status = complain(EX_USAGE, "-V wants printable characters, 100 at most");
	else
		job->envelope.envid = arena_dup(&job->arena, buf_slice(&text));
	buf_free(&text);
	return status;
}

static int
check_sender(struct job *job)
{
	char text[ADDRESS_BUF_SIZE];
	struct slice s = slice_str(job->options.sender);

	if (!s.n)
		return EX_OK;
	if (s.n > 2 && s.p[0] == '<' && s.p[s.n - 1] == '>')
		s = slice_sub(s, 1, s.n - 1);
	if (address_normalise(s, ADDRESS_NO_DOMAIN | ADDRESS_UTF8, text))
		return complain(EX_DATAERR, "bad sender address: %s", job->options.sender);
	job->envelope.sender = arena_dup(&job->arena, slice_str(text));
	if (!slice_is_ascii(job->envelope.sender))
		job->envelope.smtputf8 = true;
	return EX_OK;
}

int
message_take(struct job *job, struct slice raw)
{
	struct buf lines = { 0 };
	int status = check_sender(job);

	if (!status)
		status = take_envid(job);
	if (!status) {
		convert_lines(job, raw, &lines);
		status = convert_header(job, buf_slice(&lines));
	}
	if (!status) /* CRLF and what was added count too: else pickup would find it too large */
		status = check_size(job, &job->content);
	if (!status)
		look_at_body(job);
	buf_free(&lines);
	return status;
}

int
message_read(struct job *job)
{
	struct buf raw = { 0 };
	int status = read_all(job, &raw);

	if (!status)
		status = message_take(job, buf_slice(&raw));
	buf_free(&raw);
	return status;
}
