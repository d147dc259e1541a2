/*
 * Looking for text in a message (RFC 9051 section 6.4.4: substrings, case-insensitive, decoded).
 * Runs in imapd-child on hostile messages. Headers are looked at at once (they are bounded), bodies
 * in steps: part by part, decoded, converted line by line, folded, with the last bytes kept so that
 * nothing is missed between two portions.
 */
#include "imap/command.h"
#include "mail/date.h"
#include "mail/header.h"

#include <errno.h>

static bool
folded_has(struct imap_session *s, struct slice value, struct slice needle)
{
	struct buf utf8 = { 0 }, folded = { 0 };
	bool found;

	decode_header(s->config.charsets, value, &utf8);
	casemap_fold(buf_slice(&utf8), &folded);
	found = slice_search(buf_slice(&folded), needle) >= 0;
	buf_free(&utf8);
	buf_free(&folded);
	return found;
}

bool
imap_header_has(struct imap_session *s, const char *field, struct slice needle)
{
	struct slice header = buf_slice(&s->header);
	struct header_field f;
	enum header_step step;

	while ((step = header_next(&header, &f)) != HEADER_END)
		if (step == HEADER_FIELD && slice_caseeq_str(f.name, field) &&
		    (!needle.n || folded_has(s, f.body, needle)))
			return true;
	return false;
}

static bool
block_has(struct imap_session *s, struct slice header, struct slice needle)
{
	struct header_field f;
	enum header_step step;

	while ((step = header_next(&header, &f)) != HEADER_END)
		if (folded_has(s, f.raw, needle))
			return true;
	return false;
}

bool
imap_header_text_has(struct imap_session *s, struct slice needle)
{
	return !needle.n || block_has(s, buf_slice(&s->header), needle);
}

bool
imap_sent_day(struct imap_session *s, int64_t *day_r)
{
	struct header_field f;
	int64_t when;
	int zone;

	if (header_find(buf_slice(&s->header), "Date", &f) < 0 ||
	    date_parse(f.body, &when, &zone) < 0)
		return false;
	when += (int64_t)zone * 60;
	*day_r = when >= 0 ? when / 86400 : -((86399 - when) / 86400);
	return true;
}

/* --- bodies --- */

/* The next part in the order of the message. */
static const struct mime_part *
next_part(const struct mime_part *p)
{
	if (p->children)
		return p->children;
	while (p && !p->next)
		p = p->parent;
	return p ? p->next : NULL;
}

static bool
all_hit(const struct search_keys *keys)
{
	for (const struct search_key *k = keys->texts; k; k = k->next_text)
		if (!k->hit)
			return false;
	return true;
}

static void
look(struct body_scan *b, struct search_keys *keys)
{
	struct slice text = buf_slice(&b->text);
	size_t keep = keys->longest ? keys->longest - 1 : 0;

	for (struct search_key *k = keys->texts; k; k = k->next_text)
		if (!k->hit && slice_search(text, k->needle) >= 0)
			k->hit = true;
	if (text.n > keep)
		buf_consume(&b->text, text.n - keep);
}

/* UTF-16 and UTF-32 cannot be cut at a line feed's byte. */
static bool
is_wide(struct slice charset)
{
	return slice_has_caseprefix(charset, "UTF-16") || slice_has_caseprefix(charset, "UTF-32") ||
	       slice_has_caseprefix(charset, "UCS-2");
}

/* Converts what was decoded up to the last line end, or all when the part is over or the line is
 * long. */
static void
convert(struct imap_session *s, struct body_scan *b, struct search_keys *keys, bool last)
{
	const struct mime_param *charset = mime_param_find(b->part->params, "charset");
	struct slice name = charset ? charset->value : SLICE_LIT("US-ASCII");
	struct slice in = buf_slice(&b->decoded);
	struct buf utf8 = { 0 };
	ptrdiff_t end = is_wide(name) ? -1 : slice_rfind(in, '\n');

	if (!last && end < 0 && in.n < IMAP_BYTES_A_STEP)
		return;
	if (!last && end >= 0)
		in.n = (size_t)end + 1;
	(void)charset_decode(s->config.charsets, name, in, &utf8);
	casemap_fold(buf_slice(&utf8), &b->text);
	buf_consume(&b->decoded, in.n);
	buf_free(&utf8);
	look(b, keys);
}

static void
start_part(struct imap_session *s, struct body_scan *b, struct search_keys *keys,
    const struct mime_part *p)
{
	b->part = p;
	buf_clear(&b->text);
	buf_clear(&b->decoded);
	if (!p)
		return;
	b->read_at = p->body_at;
	transfer_decode_start(&b->decoder, p->encoding);
	/* The header of a message within the message belongs to the body. */
	if (p->root && p->parent)
		for (struct search_key *k = keys->texts; k; k = k->next_text)
			if (!k->hit && block_has(s, p->header, k->needle))
				k->hit = true;
}

static bool
is_text(const struct mime_part *p)
{
	return p->kind == MIME_LEAF && slice_caseeq_str(p->type, "text");
}

int
imap_body_scan(struct imap_session *s, struct body_scan *b, struct search_keys *keys)
{
	/* Each string is looked for in each byte. */
	size_t budget = IMAP_BYTES_A_STEP / (1 + keys->text_count / 4);
	unsigned char chunk[16384];

	if (!b->begun) {
		int err = imap_message_parse(s);

		if (err < 0)
			return err;
		b->begun = true;
		for (struct search_key *k = keys->texts; k; k = k->next_text)
			k->hit = !k->needle.n;
		start_part(s, b, keys, s->root);
	}
	while (b->part && !all_hit(keys)) {
		size_t n = sizeof(chunk);
		ptrdiff_t got;

		if (!budget)
			return -EAGAIN;
		if (!is_text(b->part) || b->read_at >= b->part->end) {
			start_part(s, b, keys, next_part(b->part));
			budget -= budget < 64 ? budget : 64;
			continue;
		}
		if (n > b->part->end - b->read_at)
			n = (size_t)(b->part->end - b->read_at);
		got = content_read(s->content, b->read_at, chunk, n);
		if (got <= 0)
			return got < 0 ? (int)got : ERR_CORRUPT;
		b->read_at += (size_t)got;
		budget -= budget < (size_t)got ? budget : (size_t)got;
		transfer_decode(&b->decoder, slice(chunk, (size_t)got), &b->decoded);
		if (b->read_at >= b->part->end)
			transfer_decode_end(&b->decoder, &b->decoded);
		convert(s, b, keys, b->read_at >= b->part->end);
	}
	imap_body_scan_end(b);
	return 0;
}

void
imap_body_scan_end(struct body_scan *b)
{
	b->begun = false;
	b->part = NULL;
	buf_free(&b->decoded);
	buf_free(&b->text);
}
