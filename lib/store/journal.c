/*
 * Encoding and decoding of the folder journal (format in journal.h). Pure: no file is touched here.
 * Runs in the user's session. The file is the user's own, so damaged and hostile content is
 * expected: every length is bounded by its frame, a frame counts only as a whole and with its CRC.
 */
#include "store/journal.h"

#include <zlib.h>

#define MAGIC "BHJRNL1\n"

enum { FRAME_SHORT = 4096, SEARCH_BUDGET = 256 << 20 };

static uint32_t
crc(struct slice a, struct slice b)
{
	uLong c = crc32(0, a.p, (uInt)a.n);

	return (uint32_t)crc32(c, b.p, (uInt)b.n);
}

static uint32_t
get32(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void
set32(unsigned char *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

void
journal_put_header(struct buf *out, const struct journal_header *h)
{
	size_t start = buf_len(out);

	buf_add(out, SLICE_LIT(MAGIC));
	buf_add_u64(out, h->mailboxid);
	buf_add_u32(out, h->uidvalidity);
	buf_add_u32(out, h->generation);
	buf_add_u32(out, 0);
	buf_add_u32(out, crc(slice_sub(buf_slice(out), start, SIZE_MAX), SLICE_LIT("")));
}

int
journal_get_header(struct slice in, struct journal_header *h_r)
{
	if (in.n < JOURNAL_HEADER)
		return ERR_TRUNCATED;
	if (memcmp(in.p, MAGIC, 8) != 0)
		return ERR_CORRUPT;
	if (get32(in.p + 28) != crc(slice(in.p, 28), SLICE_LIT("")))
		return ERR_CORRUPT;
	struct cursor c = cursor(slice(in.p + 8, 20));
	h_r->mailboxid = cursor_u64(&c);
	h_r->uidvalidity = cursor_u32(&c);
	h_r->generation = cursor_u32(&c);
	return h_r->uidvalidity ? 0 : ERR_CORRUPT;
}

size_t
journal_begin_frame(struct buf *out)
{
	size_t mark = buf_len(out);

	buf_add_u64(out, 0);
	return mark;
}

void
journal_end_frame(struct buf *out, size_t mark)
{
	unsigned char *p = out->data + out->head + mark;
	size_t n = buf_len(out) - mark - JOURNAL_FRAME_HEAD;

	set32(p, (uint32_t)n);
	set32(p + 4, crc(slice(p, 4), slice(p + JOURNAL_FRAME_HEAD, n)));
}

static void
put_short(struct buf *out, struct slice s)
{
	buf_add_u8(out, (uint8_t)s.n);
	buf_add(out, slice_sub(s, 0, 255));
}

void
journal_put(struct buf *out, const struct record *r)
{
	buf_add_u8(out, (uint8_t)r->type);
	switch (r->type) {
	case RECORD_ASSIGN:
		buf_add_u32(out, r->uid);
		buf_add_u64(out, r->modseq);
		buf_add_u64(out, (uint64_t)r->savedate);
		buf_add_u64(out, r->emailid);
		buf_add_u8(out, r->flags);
		buf_add_u64(out, r->keywords);
		buf_add_u8(out, r->dir);
		put_short(out, r->name);
		put_short(out, r->info);
		break;
	case RECORD_FLAGS:
		buf_add_u32(out, r->uid);
		buf_add_u64(out, r->modseq);
		buf_add_u8(out, r->flags);
		buf_add_u64(out, r->keywords);
		buf_add_u8(out, r->dir);
		put_short(out, r->info);
		break;
	case RECORD_EXPUNGE:
	case RECORD_FLOOR:
		buf_add_u32(out, r->uid);
		buf_add_u64(out, r->modseq);
		break;
	case RECORD_LOCATION:
		buf_add_u32(out, r->uid);
		buf_add_u8(out, r->dir);
		put_short(out, r->info);
		break;
	case RECORD_KEYWORD:
	case RECORD_POP3_UIDL:
		buf_add_u32(out, r->uid);
		put_short(out, r->name);
		break;
	case RECORD_HISTORY:
		buf_add_u64(out, r->modseq);
		break;
	case RECORD_META:
		put_short(out, r->name);
		buf_add_counted(out, r->info);
		break;
	}
}

static struct slice
get_short(struct cursor *c)
{
	return cursor_bytes(c, cursor_u8(c));
}

static void
get_record(struct cursor *c, struct record *r)
{
	*r = (struct record){ .type = cursor_u8(c) };
	switch (r->type) {
	case RECORD_ASSIGN:
		r->uid = cursor_u32(c);
		r->modseq = cursor_u64(c);
		r->savedate = (int64_t)cursor_u64(c);
		r->emailid = cursor_u64(c);
		r->flags = cursor_u8(c);
		r->keywords = cursor_u64(c);
		r->dir = cursor_u8(c);
		r->name = get_short(c);
		r->info = get_short(c);
		if (r->name.n == 0 || slice_find(r->name, '/') >= 0 || slice_find(r->name, 0) >= 0)
			c->err = ERR_SYNTAX;
		break;
	case RECORD_FLAGS:
		r->uid = cursor_u32(c);
		r->modseq = cursor_u64(c);
		r->flags = cursor_u8(c);
		r->keywords = cursor_u64(c);
		r->dir = cursor_u8(c);
		r->info = get_short(c);
		break;
	case RECORD_EXPUNGE:
	case RECORD_FLOOR:
		r->uid = cursor_u32(c);
		r->modseq = cursor_u64(c);
		break;
	case RECORD_LOCATION:
		r->uid = cursor_u32(c);
		r->dir = cursor_u8(c);
		r->info = get_short(c);
		break;
	case RECORD_KEYWORD:
	case RECORD_POP3_UIDL:
		r->uid = cursor_u32(c);
		r->name = get_short(c);
		break;
	case RECORD_HISTORY:
		r->modseq = cursor_u64(c);
		break;
	case RECORD_META:
		r->name = get_short(c);
		r->info = cursor_counted(c, JOURNAL_FRAME_MAX);
		return;
	default:
		c->err = ERR_SYNTAX;
	}
	if (r->dir > DIR_NEW || r->name.n + r->info.n > 255 || slice_find(r->info, '/') >= 0 ||
	    slice_find(r->info, 0) >= 0)
		c->err = ERR_SYNTAX;
}

/* The payload of the frame at the start of in, if it is whole and sound. */
static bool
frame(struct slice in, struct slice *payload_r)
{
	if (in.n < JOURNAL_FRAME_HEAD)
		return false;
	uint32_t n = get32(in.p);
	if (n == 0 || n > JOURNAL_FRAME_MAX || n > in.n - JOURNAL_FRAME_HEAD)
		return false;
	*payload_r = slice(in.p + JOURNAL_FRAME_HEAD, n);
	return get32(in.p + 4) == crc(slice(in.p, 4), *payload_r);
}

/* A short sound frame anywhere behind the first byte; budget bounds the bytes whose CRC is taken.
 */
static bool
short_frame_within(struct slice in, size_t budget)
{
	struct slice payload;

	for (size_t at = 1; at + JOURNAL_FRAME_HEAD < in.n; at++) {
		uint32_t n = get32(in.p + at);
		unsigned char type = in.p[at + JOURNAL_FRAME_HEAD];

		if (n == 0 || n > FRAME_SHORT || type < RECORD_ASSIGN || type > RECORD_POP3_UIDL)
			continue;
		if (n > budget)
			return false;
		budget -= n;
		if (frame(slice_sub(in, at, SIZE_MAX), &payload))
			return true;
	}
	return false;
}

/* A bad frame with a sound one behind it was whole once: that is damage, not a torn write. What
 * stands behind must not be cut off: its UIDs would be given out again. Where the frame's own
 * length is bad, the next one has to be looked for. */
static bool
damaged(struct slice in)
{
	struct slice payload;

	if (in.n < JOURNAL_FRAME_HEAD)
		return false;
	uint32_t n = get32(in.p);
	if (n > 0 && n <= JOURNAL_FRAME_MAX && n < in.n - JOURNAL_FRAME_HEAD &&
	    frame(slice_sub(in, JOURNAL_FRAME_HEAD + n, SIZE_MAX), &payload))
		return true;
	return short_frame_within(in, SEARCH_BUDGET);
}

size_t
journal_parse(struct slice in, journal_fn *fn, void *ctx, bool *damaged_r)
{
	size_t at = 0;
	struct slice payload;

	*damaged_r = false;
	while (at < in.n) {
		struct slice rest = slice_sub(in, at, SIZE_MAX);
		if (!frame(rest, &payload)) {
			*damaged_r = damaged(rest);
			break;
		}
		struct cursor c = cursor(payload);
		while (c.at < payload.n && !c.err) {
			struct record r;
			get_record(&c, &r);
			if (!c.err)
				fn(ctx, &r);
		}
		if (c.err) {
			*damaged_r = true;
			break;
		}
		at += JOURNAL_FRAME_HEAD + payload.n;
	}
	return at;
}
