/*
 * Lines and message content from strangers: the only code that decides where a line ends. Runs in
 * every process that speaks a line protocol. Allocates nothing and keeps no input. Invariants: a
 * line that is returned holds no CR and no LF; a run of content without bare_cr and bare_lf set has
 * CR and LF in pairs only; with mend_lf a bare LF comes out as CRLF, but only CRLF.CRLF of the wire
 * ends the content.
 */
#include "smtp/line.h"

void
line_reset(struct line_reader *r)
{
	r->seen = 0;
	r->skipping = false;
}

/* Drops up to and including the next CRLF. A CR at the very end stays: its LF may follow. */
static bool
skip_line(struct line_reader *r, struct slice in, size_t *used_r)
{
	size_t at = 0;

	for (;;) {
		ptrdiff_t lf = slice_find(slice_sub(in, at, in.n), '\n');
		if (lf < 0)
			break;
		at += (size_t)lf + 1;
		if (at >= 2 && in.p[at - 2] == '\r') {
			*used_r = at;
			line_reset(r);
			return true;
		}
	}
	*used_r = in.n && in.p[in.n - 1] == '\r' ? in.n - 1 : in.n;
	return false;
}

static enum line_status
spoilt(struct line_reader *r, enum line_status status, size_t used, size_t *used_r)
{
	r->seen = 0;
	r->skipping = true;
	*used_r += used;
	return status;
}

/* The first CR or LF of in at or behind from, or in.n. */
static size_t
find_end(struct slice in, size_t from)
{
	struct slice rest = slice_sub(in, from, in.n);
	ptrdiff_t lf = slice_find(rest, '\n'), cr;

	if (lf >= 0)
		rest.n = (size_t)lf;
	cr = slice_find(rest, '\r');
	return from + (cr >= 0 ? (size_t)cr : rest.n);
}

enum line_status
line_read(struct line_reader *r, struct slice in, struct slice *line_r, size_t *used_r)
{
	size_t text_max = r->limit < 2 ? 0 : r->limit - 2, at;

	*line_r = SLICE_NULL;
	*used_r = 0;
	if (r->skipping) {
		if (!skip_line(r, in, used_r))
			return LINE_MORE;
		in = slice_sub(in, *used_r, in.n);
	}
	at = find_end(slice_sub(in, 0, text_max + 1), r->seen);
	if (at > text_max)
		return spoilt(r, LINE_TOO_LONG, at, used_r);
	r->seen = at;
	if (at == in.n || (in.p[at] == '\r' && at + 1 == in.n))
		return LINE_MORE;
	if (in.p[at] == '\n')
		return spoilt(r, LINE_BARE_LF, at + 1, used_r);
	if (in.p[at + 1] != '\n')
		return spoilt(r, LINE_BARE_CR, at + 1, used_r);
	*line_r = slice_sub(in, 0, at);
	*used_r += at + 2;
	r->seen = 0;
	return LINE_OK;
}

/* From inside a line: to behind its CRLF, or to the end of the input. Bare ones are noted and are
 * no line end. */
static size_t
read_text(struct content_reader *r, struct slice in, size_t at)
{
	size_t end = find_end(in, at);

	r->state = CONTENT_TEXT;
	if (end == in.n)
		return end;
	if (in.p[end] == '\n' && r->mend_lf) {
		r->state = CONTENT_LF;
		return end;
	}
	if (in.p[end] == '\n') {
		r->bare_lf = true;
		return end + 1;
	}
	if (end + 1 == in.n) {
		r->state = CONTENT_CR;
		return end + 1;
	}
	if (in.p[end + 1] != '\n') {
		r->bare_cr = true;
		return end + 1;
	}
	r->state = CONTENT_START;
	return end + 2;
}

size_t
content_read(struct content_reader *r, struct slice in, struct slice *run_r, bool *end_r)
{
	size_t at = 0, start = 0;

	*end_r = false;
	*run_r = SLICE_NULL;
	while (at < in.n) {
		unsigned char c = in.p[at];
		switch (r->state) {
		case CONTENT_START:
			if (r->dots && c == '.') {
				r->state = CONTENT_DOT;
				*run_r = slice_sub(in, start, at);
				return at + 1;
			}
			at = read_text(r, in, at);
			break;
		case CONTENT_TEXT:
		case CONTENT_MENDED:
			at = read_text(r, in, at);
			break;
		case CONTENT_LF:
			if (at > start) {
				*run_r = slice_sub(in, start, at);
				return at;
			}
			*run_r = SLICE_LIT("\r\n");
			r->state = CONTENT_MENDED;
			return at + 1;
		case CONTENT_CR:
			if (c == '\n') {
				r->state = CONTENT_START;
				at++;
			} else {
				r->bare_cr = true;
				r->state = CONTENT_TEXT;
			}
			break;
		case CONTENT_DOT:
			if (c == '\r') {
				r->state = CONTENT_DOT_CR;
				start = ++at;
			} else {
				r->state = CONTENT_TEXT;
			}
			break;
		case CONTENT_DOT_CR:
			if (c == '\n') {
				r->state = CONTENT_START;
				*end_r = true;
				return at + 1;
			}
			r->bare_cr = true;
			r->state = CONTENT_TEXT;
			break;
		}
	}
	*run_r = slice_sub(in, start, at);
	return at;
}
