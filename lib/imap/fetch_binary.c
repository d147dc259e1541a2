/*
 * BINARY[...] and BINARY.SIZE[...] (RFC 3516). Runs in imapd-child on hostile messages. The size
 * stands before the bytes, so a section is decoded twice: one pass counts, one writes; both go in
 * steps.
 */
#include "imap/fetch.h"

#include <errno.h>

static int
binary_start(struct imap_session *s, struct fetch *f, const struct fetch_att *a)
{
	struct range r;
	const struct mime_part *p = NULL;
	enum mime_encoding encoding = MIME_BINARY;
	int err = imap_section_range(s, a, &r);

	if (err < 0)
		return err;
	if (a->depth && r.exists) {
		p = mime_find(s->root, a->path, a->depth);
		encoding = p->kind == MIME_LEAF ? p->encoding : MIME_BINARY;
	}
	if (!r.exists || encoding == MIME_UNKNOWN) {
		f->unknown_encoding |= r.exists;
		imap_fetch_item(s, f, a->label);
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
	imap_fetch_item(s, f, a->label);
	if (a->type == FETCH_BINARY_SIZE) {
		imap_putf(s, " %llu", (unsigned long long)f->size);
		f->binary = BINARY_IDLE;
		return;
	}
	f->from = 0;
	f->to = f->size;
	imap_section_cut(a, &f->from, &f->to);
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
	err = imap_section_range(s, a, &r);
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

int
imap_fetch_binary(struct imap_session *s, struct fetch *f, const struct fetch_att *a)
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
