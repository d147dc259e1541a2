/*
 * FETCH in steps. Runs in imapd-child. Invariants: the output never grows much beyond the watermark
 * (a section is streamed from the file), one step reads a bounded amount, and within one response
 * nothing else is written. A message that is gone gives no response; then the tagged reply is NO
 * [EXPUNGEISSUED].
 */
#include "imap/command.h"
#include "mail/date.h"
#include "mail/decode.h"
#include "mail/header.h"

#include <errno.h>
#include <stdlib.h>

enum { CACHE_ENVELOPE = 1, CACHE_BODY, CACHE_STRUCTURE, CACHE_BODY2, CACHE_STRUCTURE2 };
enum { MESSAGES_A_STEP = 100, SEEN_WINDOW = 32 };

struct fetch {
	struct fetch_att *atts;
	struct uid_list uids;
	size_t at;             /* the present message */
	struct fetch_att *att; /* what comes next for it */
	bool open;             /* its response has begun */
	bool sep;
	bool sets_seen, has_flags, has_uid, missing;
	int failed; /* an error that the tagged reply tells */
	bool unknown_encoding;
	size_t seen_end;      /* up to here \Seen was set */
	struct uid_list seen; /* those whose \Seen is new */
	/* A range of the content on its way out. */
	bool streaming;
	uint64_t from, to;
	/* A section that is decoded: counted first, then written. */
	enum { BINARY_IDLE, BINARY_COUNT, BINARY_WRITE } binary;
	struct transfer_decoder decoder;
	uint64_t read_at, read_end; /* encoded */
	uint64_t decoded;           /* bytes that came out so far */
	uint64_t size;              /* all of them, after counting */
	bool nul;
};

static void
fetch_free(struct imap_session *s)
{
	struct fetch *f = s->task;

	uid_list_free(&f->uids);
	uid_list_free(&f->seen);
	free(f);
}

/* --- what a section is --- */

struct range {
	uint64_t from, to;
	bool exists;
};

/* The range of the content that holds the section; for field lists, of the header block. */
static int
section_range(struct imap_session *s, const struct fetch_att *a, struct range *r)
{
	const struct mime_part *p;
	int err;

	*r = (struct range){ 0 };
	if (!a->depth) {
		uint64_t size = content_size(s->content);

		err = a->kind == SECTION_ALL ? 0 : imap_message_header(s);
		if (err < 0)
			return err;
		r->exists = true;
		r->from = a->kind == SECTION_TEXT ? s->body_at : 0;
		r->to = a->kind == SECTION_ALL || a->kind == SECTION_TEXT ? size : s->body_at;
		return 0;
	}
	err = imap_message_parse(s);
	if (err < 0)
		return err;
	p = mime_find(s->root, a->path, a->depth);
	if (p && a->kind != SECTION_ALL && a->kind != SECTION_MIME)
		p = p->kind == MIME_MESSAGE ? p->children : NULL;
	if (!p)
		return 0;
	r->exists = true;
	r->from = a->kind == SECTION_ALL || a->kind == SECTION_TEXT ? p->body_at : p->header_at;
	r->to = a->kind == SECTION_ALL || a->kind == SECTION_TEXT ? p->end : p->body_at;
	return 0;
}

static void
cut_partial(const struct fetch_att *a, uint64_t *from, uint64_t *to)
{
	if (!a->partial)
		return;
	if (a->origin >= *to - *from)
		*from = *to;
	else
		*from += a->origin;
	if (a->count < *to - *from)
		*to = *from + a->count;
}

static bool
wanted_field(const struct fetch_att *a, struct slice name)
{
	for (size_t i = 0; i < a->field_count; i++)
		if (slice_caseeq(a->fields[i], name))
			return a->kind == SECTION_FIELDS;
	return a->kind == SECTION_FIELDS_NOT;
}

/* Reads at most IMAP_HEADER_MAX bytes of a range. */
static int
read_range(struct imap_session *s, struct range r, struct buf *out)
{
	uint64_t n = r.to - r.from < IMAP_HEADER_MAX ? r.to - r.from : IMAP_HEADER_MAX;

	while (buf_len(out) < n) {
		size_t want = (size_t)n - buf_len(out);
		ptrdiff_t got =
		    content_read(s->content, r.from + buf_len(out), buf_reserve(out, want), want);

		if (got <= 0)
			return got < 0 ? (int)got : ERR_CORRUPT;
		buf_commit(out, (size_t)got);
	}
	return 0;
}

/* The chosen fields and the empty line (RFC 9051 section 6.4.5). */
static void
filter_fields(const struct fetch_att *a, struct slice header, struct buf *out)
{
	struct header_field field;
	enum header_step step;

	while ((step = header_next(&header, &field)) != HEADER_END) {
		if (!wanted_field(a, step == HEADER_FIELD ? field.name : SLICE_NULL))
			continue;
		buf_add(out, field.raw);
		if (!slice_has_suffix(field.raw, "\n"))
			buf_add_str(out, "\r\n");
	}
	buf_add_str(out, "\r\n");
}

/* --- items --- */

static void
item(struct imap_session *s, struct fetch *f, const char *name)
{
	imap_put(s, f->sep ? " " : "");
	imap_put(s, name);
	f->sep = true;
}

static int
put_fields(struct imap_session *s, struct fetch *f, const struct fetch_att *a, struct range r)
{
	struct buf header = { 0 }, out = { 0 };
	uint64_t from = 0, to;
	int err = read_range(s, r, &header);

	if (err == 0) {
		filter_fields(a, buf_slice(&header), &out);
		to = buf_len(&out);
		cut_partial(a, &from, &to);
		item(s, f, a->label);
		imap_putf(s, " {%llu}\r\n", (unsigned long long)(to - from));
		buf_add(&s->out, slice_sub(buf_slice(&out), (size_t)from, (size_t)to));
	}
	buf_free(&header);
	buf_free(&out);
	return err;
}

static int
put_section(struct imap_session *s, struct fetch *f, const struct fetch_att *a)
{
	struct range r;
	int err = section_range(s, a, &r);

	if (err < 0)
		return err;
	if (!r.exists) {
		item(s, f, a->label);
		imap_put(s, " NIL");
		return 0;
	}
	if (a->kind == SECTION_FIELDS || a->kind == SECTION_FIELDS_NOT)
		return put_fields(s, f, a, r);
	cut_partial(a, &r.from, &r.to);
	item(s, f, a->label);
	if (r.from == r.to) {
		imap_put(s, " \"\"");
		return 0;
	}
	imap_putf(s, " {%llu}\r\n", (unsigned long long)(r.to - r.from));
	f->streaming = true;
	f->from = r.from;
	f->to = r.to;
	return 0;
}

/* Sends on; -EAGAIN when the watermark is reached. */
static int
stream(struct imap_session *s, struct fetch *f)
{
	while (f->from < f->to) {
		size_t n = 32768;
		ptrdiff_t got;

		if (buf_len(&s->out) >= s->config.watermark)
			return -EAGAIN;
		if (n > f->to - f->from)
			n = (size_t)(f->to - f->from);
		got = content_read(s->content, f->from, buf_reserve(&s->out, n), n);
		if (got <= 0)
			return got < 0 ? (int)got : ERR_CORRUPT;
		buf_commit(&s->out, (size_t)got);
		f->from += (size_t)got;
	}
	f->streaming = false;
	return 0;
}

/* --- BINARY (RFC 3516): one pass counts, one writes --- */

static int
binary_start(struct imap_session *s, struct fetch *f, const struct fetch_att *a)
{
	struct range r;
	const struct mime_part *p = NULL;
	enum mime_encoding encoding = MIME_BINARY;
	int err = section_range(s, a, &r);

	if (err < 0)
		return err;
	if (a->depth && r.exists) {
		p = mime_find(s->root, a->path, a->depth);
		encoding = p->kind == MIME_LEAF ? p->encoding : MIME_BINARY;
	}
	if (!r.exists || encoding == MIME_UNKNOWN) {
		f->unknown_encoding |= r.exists;
		item(s, f, a->label);
		imap_put(s, a->type == FETCH_BINARY_SIZE ? " 0" : " NIL");
		return 0;
	}
	transfer_decode_start(&f->decoder, encoding);
	f->read_at = r.from;
	f->read_end = r.to;
	f->decoded = 0;
	f->nul = false;
	f->binary = BINARY_COUNT;
	return 0;
}

/* The next decoded bytes, at most what 32 KiB of text give; done_r: the last ones. */
static int
binary_some(struct imap_session *s, struct fetch *f, struct buf *out, bool *done_r)
{
	unsigned char chunk[32768];
	size_t n = sizeof(chunk);
	ptrdiff_t got;

	if (n > f->read_end - f->read_at)
		n = (size_t)(f->read_end - f->read_at);
	got = n ? content_read(s->content, f->read_at, chunk, n) : 0;
	if (got < 0 || (n && !got))
		return got < 0 ? (int)got : ERR_CORRUPT;
	f->read_at += (size_t)got;
	transfer_decode(&f->decoder, slice(chunk, (size_t)got), out);
	*done_r = f->read_at == f->read_end;
	if (*done_r)
		transfer_decode_end(&f->decoder, out);
	return 0;
}

static void
binary_counted(struct imap_session *s, struct fetch *f, const struct fetch_att *a, uint64_t start)
{
	f->size = f->decoded;
	item(s, f, a->label);
	if (a->type == FETCH_BINARY_SIZE) {
		imap_putf(s, " %llu", (unsigned long long)f->size);
		f->binary = BINARY_IDLE;
		return;
	}
	f->from = 0;
	f->to = f->size;
	cut_partial(a, &f->from, &f->to);
	imap_putf(
	    s, f->nul ? " ~{%llu}\r\n" : " {%llu}\r\n", (unsigned long long)(f->to - f->from));
	transfer_decode_start(&f->decoder, f->decoder.encoding);
	f->read_at = start;
	f->decoded = 0;
	f->binary = f->from < f->to ? BINARY_WRITE : BINARY_IDLE;
}

static int
binary_count(struct imap_session *s, struct fetch *f, const struct fetch_att *a)
{
	size_t budget = IMAP_BYTES_A_STEP;
	struct buf out = { 0 };
	bool done = false;
	int err = 0;
	struct range r;

	while (!done && budget && err == 0) {
		buf_clear(&out);
		err = binary_some(s, f, &out, &done);
		f->decoded += buf_len(&out);
		f->nul |= slice_find(buf_slice(&out), 0) >= 0;
		budget -= budget < 32768 ? budget : 32768;
	}
	buf_free(&out);
	if (err < 0)
		return err;
	if (!done)
		return -EAGAIN;
	err = section_range(s, a, &r);
	if (err == 0)
		binary_counted(s, f, a, r.from);
	return err;
}

static int
binary_write(struct imap_session *s, struct fetch *f)
{
	struct buf out = { 0 };
	bool done = false;
	int err = 0;

	while (err == 0 && !done && f->decoded < f->to) {
		uint64_t begin = f->decoded;
		struct slice bytes;

		if (buf_len(&s->out) >= s->config.watermark) {
			err = -EAGAIN;
			break;
		}
		buf_clear(&out);
		err = binary_some(s, f, &out, &done);
		bytes = buf_slice(&out);
		f->decoded += bytes.n;
		if (f->decoded > f->to)
			bytes.n -= (size_t)(f->decoded - f->to);
		if (begin < f->from)
			bytes = slice_sub(bytes, (size_t)(f->from - begin), bytes.n);
		buf_add(&s->out, bytes);
	}
	buf_free(&out);
	if (err == 0)
		f->binary = BINARY_IDLE;
	return err;
}

/* --- the other attributes --- */

static int
put_cached(
    struct imap_session *s, struct fetch *f, uint32_t uid, unsigned char kind, const char *name)
{
	struct buf text = { 0 };
	int err = mailbox_cache_get(s->mailbox, uid, kind, &text);

	if (err == 0) {
		item(s, f, name);
		imap_put(s, " ");
		buf_add(&s->out, buf_slice(&text));
	}
	buf_free(&text);
	return err;
}

static void
put_and_cache(struct imap_session *s, struct fetch *f, uint32_t uid, unsigned char kind,
    const char *name, struct buf *text)
{
	mailbox_cache_put(s->mailbox, uid, kind, buf_slice(text));
	item(s, f, name);
	imap_put(s, " ");
	buf_add(&s->out, buf_slice(text));
	buf_free(text);
}

static int
put_envelope(struct imap_session *s, struct fetch *f, uint32_t uid)
{
	struct buf text = { 0 };
	struct arena arena = { 0 };
	int err;

	if (put_cached(s, f, uid, CACHE_ENVELOPE, "ENVELOPE") == 0)
		return 0;
	err = imap_message(s, uid);
	if (err == 0)
		err = imap_message_header(s);
	if (err < 0)
		return err;
	imap_write_envelope(&text, buf_slice(&s->header), &arena);
	arena_free(&arena);
	put_and_cache(s, f, uid, CACHE_ENVELOPE, "ENVELOPE", &text);
	return 0;
}

static int
put_structure(struct imap_session *s, struct fetch *f, uint32_t uid, bool extended)
{
	struct buf text = { 0 };
	unsigned char kind = extended ? (s->rev2 ? CACHE_STRUCTURE2 : CACHE_STRUCTURE)
				      : (s->rev2 ? CACHE_BODY2 : CACHE_BODY);
	const char *name = extended ? "BODYSTRUCTURE" : "BODY";
	int err;

	if (put_cached(s, f, uid, kind, name) == 0)
		return 0;
	err = imap_message(s, uid);
	if (err == 0)
		err = imap_message_parse(s);
	if (err < 0)
		return err;
	imap_write_structure(&text, s->root, extended, s->rev2);
	put_and_cache(s, f, uid, kind, name, &text);
	return 0;
}

static int
put_date(struct imap_session *s, struct fetch *f, uint32_t uid)
{
	int64_t when, days;
	int year, month, day, err = mailbox_date(s->mailbox, uid, &when), second;

	if (err < 0)
		return err;
	days = when >= 0 ? when / 86400 : -((86399 - when) / 86400);
	second = (int)(when - days * 86400);
	date_civil(days, &year, &month, &day);
	item(s, f, "INTERNALDATE");
	imap_putf(s, " \"%2d-%s-%04d %02d:%02d:%02d +0000\"", day, date_months[month - 1], year,
	    second / 3600, second / 60 % 60, second % 60);
	return 0;
}

static int
put_size(struct imap_session *s, struct fetch *f, uint32_t uid)
{
	uint64_t size;
	int err = mailbox_size(s->mailbox, uid, &size);

	if (err < 0)
		return err;
	item(s, f, "RFC822.SIZE");
	imap_putf(s, " %llu", (unsigned long long)size);
	return 0;
}

static int
put_binary(struct imap_session *s, struct fetch *f, const struct fetch_att *a)
{
	int err = 0;

	if (f->binary == BINARY_IDLE)
		err = binary_start(s, f, a);
	if (err == 0 && f->binary == BINARY_COUNT)
		err = binary_count(s, f, a);
	if (err == 0 && f->binary == BINARY_WRITE)
		err = binary_write(s, f);
	return err;
}

/* One attribute, or more of it: 0 when it is written, -EAGAIN when it takes another step. */
static int
put_attribute(struct imap_session *s, struct fetch *f, const struct fetch_att *a, uint32_t uid)
{
	int err;

	switch (a->type) {
	case FETCH_UID:
		item(s, f, "UID");
		imap_putf(s, " %u", uid);
		return 0;
	case FETCH_FLAGS:
		item(s, f, "");
		imap_put_flags(s, mailbox_seq(s->mailbox, uid));
		return 0;
	case FETCH_DATE:
		return put_date(s, f, uid);
	case FETCH_SIZE:
		return put_size(s, f, uid);
	case FETCH_ENVELOPE:
		return put_envelope(s, f, uid);
	case FETCH_BODY:
	case FETCH_STRUCTURE:
		return put_structure(s, f, uid, a->type == FETCH_STRUCTURE);
	case FETCH_SECTION:
		if (f->streaming)
			return stream(s, f);
		err = imap_message(s, uid);
		if (err == 0)
			err = put_section(s, f, a);
		return err == 0 && f->streaming ? stream(s, f) : err;
	case FETCH_BINARY:
	case FETCH_BINARY_SIZE:
		err = imap_message(s, uid);
		return err == 0 ? put_binary(s, f, a) : err;
	}
	return ERR_STATE;
}

/* --- messages --- */

static bool
needs_file(const struct fetch *f)
{
	for (const struct fetch_att *a = f->atts; a; a = a->next)
		if (a->type >= FETCH_SECTION)
			return true;
	return false;
}

/* Sets \Seen on the next few messages, before their responses, so that these can tell it. */
static void
set_seen(struct imap_session *s, struct fetch *f)
{
	struct flag_change change = { .op = FLAG_OP_ADD, .flags = FLAG_SEEN };
	struct uid_list unseen = { 0 };
	int err;

	if (!f->sets_seen || f->at < f->seen_end)
		return;
	uid_list_free(&f->seen);
	f->seen_end = f->at + SEEN_WINDOW;
	for (size_t i = f->at; i < f->seen_end && i < f->uids.count; i++) {
		const struct message *m =
		    mailbox_message(s->mailbox, mailbox_seq(s->mailbox, f->uids.uids[i]));

		if (m && !(m->flags & FLAG_SEEN))
			uid_list_add(&unseen, f->uids.uids[i]);
	}
	if (unseen.count) {
		err = mailbox_store_flags(
		    s->mailbox, unseen.uids, unseen.count, &change, &f->seen, NULL);
		if (err < 0)
			f->failed = err;
	}
	uid_list_free(&unseen);
}

static bool
newly_seen(const struct fetch *f, uint32_t uid)
{
	for (size_t i = 0; i < f->seen.count; i++)
		if (f->seen.uids[i] == uid)
			return true;
	return false;
}

static bool
open_response(struct imap_session *s, struct fetch *f, uint32_t uid)
{
	uint32_t seq = mailbox_seq(s->mailbox, uid);

	if (!seq || !mailbox_message(s->mailbox, seq) ||
	    (needs_file(f) && imap_message(s, uid) < 0))
		return false;
	imap_putf(s, "* %u FETCH (", seq);
	f->open = true;
	f->sep = false;
	f->att = f->atts;
	if (s->uid && !f->has_uid) {
		item(s, f, "UID");
		imap_putf(s, " %u", uid);
	}
	return true;
}

static void
close_response(struct imap_session *s, struct fetch *f, uint32_t uid)
{
	if (!f->has_flags && newly_seen(f, uid)) {
		item(s, f, "");
		imap_put_flags(s, mailbox_seq(s->mailbox, uid));
	}
	imap_put(s, ")\r\n");
	f->open = false;
	f->at++;
	s->counts.fetched++;
}

/* One message as far as it goes: 0, or -EAGAIN. */
static int
one_message(struct imap_session *s, struct fetch *f)
{
	uint32_t uid = f->uids.uids[f->at];

	if (!f->open) {
		set_seen(s, f);
		if (!open_response(s, f, uid)) {
			f->missing = true;
			f->at++;
			return 0;
		}
	}
	for (; f->att; f->att = f->att->next) {
		int err = put_attribute(s, f, f->att, uid);

		if (err == -EAGAIN)
			return err;
		if (err < 0 && (f->streaming || f->binary == BINARY_WRITE)) {
			/* The literal's size is told and cannot be kept. */
			imap_session_bye(s, "[CORRUPTION] A stored message is damaged");
			return -EAGAIN;
		}
		if (err < 0) {
			f->failed = err;
			f->binary = BINARY_IDLE;
		}
	}
	close_response(s, f, uid);
	return 0;
}

static enum imap_step
fetch_step(struct imap_session *s)
{
	struct fetch *f = s->task;

	for (unsigned n = 0; f->at < f->uids.count; n++) {
		if (n == MESSAGES_A_STEP || buf_len(&s->out) >= s->config.watermark)
			return STEP_AGAIN;
		if (one_message(s, f) == -EAGAIN)
			return STEP_AGAIN;
	}
	if (f->unknown_encoding)
		imap_no(s, "[UNKNOWN-CTE] A part has an unknown transfer encoding");
	else if (f->failed == ERR_CORRUPT)
		imap_no(s, "[CORRUPTION] Some messages are damaged");
	else if (f->missing || f->failed == ERR_NOT_FOUND)
		imap_no(s, "[EXPUNGEISSUED] Some messages are gone");
	else if (f->failed)
		imap_store_failed(s, f->failed);
	else
		imap_ok(s, s->uid, "Done");
	return STEP_DONE;
}

void
imap_cmd_fetch(struct imap_session *s, struct imap_parse *p)
{
	struct imap_set set;
	struct fetch_att *atts;
	struct fetch *f;

	if (!imap_sp(p) || !imap_set(p, &set) || !imap_sp(p) || !imap_fetch_atts(s, p, &atts) ||
	    !imap_end(p))
		return;
	f = xcalloc(1, sizeof(*f));
	if (!imap_resolve(s, &set, &f->uids)) {
		free(f);
		return;
	}
	f->atts = atts;
	for (const struct fetch_att *a = atts; a; a = a->next) {
		f->has_flags |= a->type == FETCH_FLAGS;
		f->has_uid |= a->type == FETCH_UID;
		f->sets_seen |= (a->type == FETCH_SECTION || a->type == FETCH_BINARY) && !a->peek;
	}
	f->sets_seen &= !mailbox_read_only(s->mailbox);
	imap_start(s, f, fetch_step, fetch_free);
}
