/*
 * Fuzz target: lines, content, replies and maildrop files. Byte 0: the cut and the line limit; the
 * rest is text. Checked: however the text is cut, the line reader reports the same and the content
 * reader passes the same and ends at the same place, which is the first CRLF.CRLF that a plain
 * search finds; what maildrop_parse takes is written again as it was.
 */
#include "smtp/line.h"
#include "smtp/maildrop.h"
#include "fuzz/must.h"
#include "smtp/reply.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
read_lines(struct slice text, size_t limit, size_t step, struct buf *log)
{
	struct line_reader r = { .limit = limit };
	struct reply_reader replies = { .text_limit = 100 };
	struct reply reply;
	struct buf in = { 0 };

	for (size_t at = 0; at < text.n; at += step) {
		enum line_status status;
		buf_add(&in, slice_sub(text, at, at + step));
		do {
			struct slice line;
			size_t used;
			status = line_read(&r, buf_slice(&in), &line, &used);
			must(used <= buf_len(&in));
			if (status == LINE_OK) {
				must(line.n + 2 <= limit && slice_find(line, '\r') < 0 &&
				     slice_find(line, '\n') < 0);
				buf_add(log, line);
				(void)!reply_read(&replies, line, &reply);
			}
			if (status != LINE_MORE)
				buf_add_byte(log, (unsigned char)('0' + status));
			buf_consume(&in, used);
		} while (status != LINE_MORE);
	}
	reply_reader_free(&replies);
	buf_free(&in);
}

/* Where CRLF.CRLF ends, counted from the start of the content; SIZE_MAX if it does not. */
static size_t
plain_end(struct slice text)
{
	ptrdiff_t at;

	if (slice_has_prefix(text, ".\r\n"))
		return 3;
	at = slice_search(text, SLICE_LIT("\r\n.\r\n"));
	return at < 0 ? SIZE_MAX : (size_t)at + 5;
}

static size_t
read_content(struct slice text, bool mend, size_t step, struct buf *out, bool *bad_r)
{
	struct content_reader r = { .dots = true, .mend_lf = mend };
	size_t total = 0;

	for (size_t at = 0; at < text.n; at += step) {
		struct slice in = slice_sub(text, at, at + step);
		while (in.n) {
			struct slice run;
			bool end;
			size_t used = content_read(&r, in, &run, &end);
			must(used <= in.n && (used || run.n));
			total += used;
			buf_add(out, run);
			in = slice_sub(in, used, in.n);
			*bad_r = r.bare_cr || r.bare_lf;
			if (end)
				return total;
		}
	}
	return SIZE_MAX;
}

static void
try_content(struct slice text, bool mend, size_t step)
{
	struct buf whole = { 0 }, cut = { 0 };
	bool whole_bad = false, cut_bad = false;
	size_t a = read_content(text, mend, text.n ? text.n : 1, &whole, &whole_bad);
	size_t b = read_content(text, mend, step, &cut, &cut_bad);

	must(a == b && a == plain_end(text) && whole_bad == cut_bad);
	if (!whole_bad) {
		must(slice_eq(buf_slice(&whole), buf_slice(&cut)));
		for (size_t i = 0; i < buf_len(&whole); i++)
			if (buf_slice(&whole).p[i] == '\n')
				must(i && buf_slice(&whole).p[i - 1] == '\r');
	}
	buf_free(&whole);
	buf_free(&cut);
}

static void
try_maildrop(struct slice text)
{
	struct arena arena = { 0 };
	struct maildrop m, again;
	struct buf out = { 0 };

	if (!maildrop_parse(text, &arena, 20, &m)) {
		must(m.count && m.content <= text.n);
		must(!maildrop_format(&out, &m));
		must(!maildrop_parse(buf_slice(&out), &arena, 20, &again));
		must(again.count == m.count && slice_eq(again.sender, m.sender) &&
		     again.notify == m.notify && slice_eq(again.envid, m.envid));
	}
	buf_free(&out);
	arena_free(&arena);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = slice_sub(slice(data, size), 1, size);
	struct buf whole = { 0 }, cut = { 0 };
	size_t step, limit;

	if (!size)
		return 0;
	step = 1 + (data[0] & 15);
	limit = 2 + (data[0] >> 4) * 8u;
	read_lines(text, limit, text.n ? text.n : 1, &whole);
	read_lines(text, limit, step, &cut);
	must(slice_eq(buf_slice(&whole), buf_slice(&cut)));
	buf_free(&whole);
	buf_free(&cut);
	try_content(text, false, step);
	try_content(text, true, step);
	try_maildrop(text);
	return 0;
}
