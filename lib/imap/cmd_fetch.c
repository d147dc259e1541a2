/*
 * FETCH in steps. Runs in imapd-child. Invariants: the output never grows much beyond the watermark
 * (a section is streamed from the file), one step reads a bounded amount, and within one response
 * nothing else is written. A message that is gone gives no response; then the tagged reply is NO
 * [EXPUNGEISSUED].
 */
#include "imap/fetch.h"
#include "mail/date.h"

#include <errno.h>
#include <stdlib.h>

enum { CACHE_ENVELOPE = 1, CACHE_BODY, CACHE_STRUCTURE, CACHE_BODY2, CACHE_STRUCTURE2 };
enum { MESSAGES_A_STEP = 100, SEEN_WINDOW = 32 };

static void
fetch_free(struct imap_session *s)
{
	struct fetch *f = s->task;

	uid_list_free(&f->uids);
	uid_list_free(&f->seen);
	free(f);
}

void
imap_fetch_item(struct imap_session *s, struct fetch *f, const char *name)
{
	imap_put(s, f->sep ? " " : "");
	imap_put(s, name);
	f->sep = true;
}

/* --- attributes --- */

static int
put_cached(
    struct imap_session *s, struct fetch *f, uint32_t uid, unsigned char kind, const char *name)
{
	struct buf text = { 0 };
	int err = mailbox_cache_get(s->mailbox, uid, kind, &text);

	if (err == 0) {
		imap_fetch_item(s, f, name);
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
	imap_fetch_item(s, f, name);
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
	imap_fetch_item(s, f, "INTERNALDATE");
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
	imap_fetch_item(s, f, "RFC822.SIZE");
	imap_putf(s, " %llu", (unsigned long long)size);
	return 0;
}

/* One attribute, or more of it: 0 when it is written, -EAGAIN when it takes another step. */
static int
put_attribute(struct imap_session *s, struct fetch *f, const struct fetch_att *a, uint32_t uid)
{
	int err;

	switch (a->type) {
	case FETCH_UID:
		imap_fetch_item(s, f, "UID");
		imap_putf(s, " %u", uid);
		return 0;
	case FETCH_FLAGS:
		imap_fetch_item(s, f, "");
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
		err = imap_message(s, uid);
		return err == 0 ? imap_fetch_section(s, f, a) : err;
	case FETCH_BINARY:
	case FETCH_BINARY_SIZE:
		err = imap_message(s, uid);
		return err == 0 ? imap_fetch_binary(s, f, a) : err;
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

/* What cannot be read is not gone: a client would drop it from its own store. */
static void
note_failure(struct fetch *f, int err)
{
	if (err == ERR_NOT_FOUND)
		f->missing = true;
	else
		f->failed = err;
}

/* ERR_NOT_FOUND: the message is gone. */
static int
open_response(struct imap_session *s, struct fetch *f, uint32_t uid)
{
	uint32_t seq = mailbox_seq(s->mailbox, uid);
	int err = seq && mailbox_message(s->mailbox, seq) ? 0 : ERR_NOT_FOUND;

	if (err == 0 && needs_file(f))
		err = imap_message(s, uid);
	if (err < 0)
		return err;
	imap_putf(s, "* %u FETCH (", seq);
	f->open = true;
	f->sep = false;
	f->att = f->atts;
	if (s->uid && !f->has_uid) {
		imap_fetch_item(s, f, "UID");
		imap_putf(s, " %u", uid);
	}
	return 0;
}

static void
close_response(struct imap_session *s, struct fetch *f, uint32_t uid)
{
	if (!f->has_flags && newly_seen(f, uid)) {
		imap_fetch_item(s, f, "");
		imap_put_flags(s, mailbox_seq(s->mailbox, uid));
	}
	if (!f->sep) /* nothing could be read, and "()" is no msg-att */
		imap_putf(s, "UID %u", uid);
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
	int err;

	if (!f->open) {
		set_seen(s, f);
		err = open_response(s, f, uid);
		if (err < 0) {
			note_failure(f, err);
			f->at++;
			return 0;
		}
	}
	for (; f->att; f->att = f->att->next) {
		err = put_attribute(s, f, f->att, uid);
		if (err == -EAGAIN)
			return err;
		if (err < 0 && (f->streaming || f->binary == BINARY_WRITE)) {
			/* The literal's size is told and cannot be kept. */
			imap_session_bye(s, "[CORRUPTION] A stored message is damaged");
			return -EAGAIN;
		}
		if (err < 0) {
			note_failure(f, err);
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
	else if (f->failed)
		imap_store_failed(s, f->failed);
	else if (f->missing)
		imap_no(s, "[EXPUNGEISSUED] Some messages are gone");
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
