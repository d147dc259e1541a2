/*
 * BODY[...] (RFC 9051 section 6.4.5). Runs in imapd-child on hostile messages: a section is a range
 * of the file and is streamed from it; only chosen header fields are gathered in memory, bounded by
 * IMAP_HEADER_MAX.
 */
#include "imap/fetch.h"
#include "mail/header.h"

#include <errno.h>

/* The range of the content that holds the section; for field lists, of the header block. */
int
imap_section_range(struct imap_session *s, const struct fetch_att *a, struct range *r)
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

void
imap_section_cut(const struct fetch_att *a, uint64_t *from, uint64_t *to)
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

static int
put_fields(struct imap_session *s, struct fetch *f, const struct fetch_att *a, struct range r)
{
	struct buf header = { 0 }, out = { 0 };
	uint64_t from = 0, to;
	int err = read_range(s, r, &header);

	if (err == 0) {
		filter_fields(a, buf_slice(&header), &out);
		to = buf_len(&out);
		imap_section_cut(a, &from, &to);
		imap_fetch_item(s, f, a->label);
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
	int err = imap_section_range(s, a, &r);

	if (err < 0)
		return err;
	if (!r.exists) {
		imap_fetch_item(s, f, a->label);
		imap_put(s, " NIL");
		return 0;
	}
	if (a->kind == SECTION_FIELDS || a->kind == SECTION_FIELDS_NOT)
		return put_fields(s, f, a, r);
	imap_section_cut(a, &r.from, &r.to);
	imap_fetch_item(s, f, a->label);
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

int
imap_fetch_section(struct imap_session *s, struct fetch *f, const struct fetch_att *a)
{
	int err = f->streaming ? 0 : put_section(s, f, a);

	return err == 0 && f->streaming ? stream(s, f) : err;
}
