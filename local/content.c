/*
 * Reading a message's content and writing it in the form of a mailbox. Runs in the delivery child,
 * as the recipient; the content is hostile, and is looked at only for line ends and for
 * Delivered-To. Memory is bounded: one piece of 64 KiB at a time.
 */
#include "local/content.h"

#include "base/io.h"

#include <errno.h>
#include <unistd.h>

enum {
	PIECE = 65536,
	HEAD_PIECE = 8192, /* most header sections are shorter */
};

/* Reads from the extents, which follow each other in the message. */
static int
read_extents(const struct content *c, uint64_t offset, size_t n, struct buf *out)
{
	for (size_t i = 0; i < c->nextents && n; i++) {
		uint64_t length = c->extents[i].length;

		if (offset >= length) {
			offset -= length;
			continue;
		}
		while (n && offset < length) {
			uint64_t want = length - offset < n ? length - offset : n;
			unsigned char *to = buf_reserve(out, (size_t)want);
			ssize_t got = to ? pread(c->fd, to, (size_t)want,
					       (off_t)(c->extents[i].offset + offset))
					 : 0;

			if (got < 0 && errno == EINTR)
				continue;
			if (got < 0)
				return err_errno();
			if (!got)
				return ERR_TRUNCATED; /* the file is shorter than the envelope says
						       */
			buf_commit(out, (size_t)got);
			offset += (uint64_t)got;
			n -= (size_t)got;
		}
		offset = 0;
	}
	return 0;
}

int
content_read(const struct content *c, uint64_t offset, size_t n, struct buf *out)
{
	if (c->fd >= 0)
		return read_extents(c, offset, n, out);
	if (offset < c->bytes.n)
		buf_add(
		    out, slice_sub(c->bytes, (size_t)offset,
			     c->bytes.n - (size_t)offset < n ? c->bytes.n : (size_t)offset + n));
	return out->err;
}

struct writer {
	enum content_form form;
	bool as_is;      /* no conversion at all */
	bool at_start;   /* of a line */
	bool pending_cr; /* a CR at the end of the last piece: the next byte decides */
	struct buf out;
	struct content_sizes sizes;
};

/* A "From " that a piece boundary cuts apart is seen because pieces are cut behind line ends. */
static void
convert_line(struct writer *w, struct slice line)
{
	static const struct slice from = { (const unsigned char *)"From ", 5 };

	if (w->form == CONTENT_MBOX && w->at_start && line.n >= 5 &&
	    slice_eq(slice_sub(line, 0, 5), from)) {
		buf_add_byte(&w->out, '>');
		w->sizes.crlf++;
	}
	buf_add(&w->out, line);
}

/* Appends a piece with each CRLF as LF. */
static void
convert(struct writer *w, struct slice in)
{
	bool split_crlf;

	w->sizes.crlf += in.n;
	if (w->as_is) {
		buf_add(&w->out, in);
		return;
	}
	split_crlf = w->pending_cr && in.n && in.p[0] == '\n';
	if (w->pending_cr && in.n && !split_crlf)
		buf_add_byte(&w->out, '\r');
	if (in.n)
		w->pending_cr = false;
	while (in.n) {
		const unsigned char *nl = memchr(in.p, '\n', in.n);
		size_t n = nl ? (size_t)(nl - in.p) : in.n;
		bool cr = n && in.p[n - 1] == '\r';

		if (!nl && cr)
			w->pending_cr = true;
		convert_line(w, slice(in.p, n - cr));
		w->at_start = nl != NULL;
		if (nl) {
			if (!cr && !split_crlf)
				w->sizes.crlf++; /* a bare LF counts as CRLF */
			buf_add_byte(&w->out, '\n');
		}
		split_crlf = false;
		in = slice_sub(in, nl ? n + 1 : n, in.n);
	}
}

/* Writes what was converted; without a descriptor it is only counted. */
static int
flush(struct writer *w, int fd)
{
	int err = fd < 0 ? 0 : io_write_all(fd, buf_slice(&w->out));

	w->sizes.written += buf_len(&w->out);
	buf_clear(&w->out);
	return err;
}

/* Cuts a piece behind its last line end, so that no "From " is cut; all of it if there is none. */
static size_t
whole_lines(struct slice piece, bool last)
{
	ptrdiff_t nl = last ? -1 : slice_rfind(piece, '\n');

	return nl < 0 ? piece.n : (size_t)nl + 1;
}

static int
run(const struct content *c, struct slice prelude, enum content_form form, int fd,
    struct content_sizes *sizes_r)
{
	struct writer w = { .form = form, .at_start = true };
	uint64_t at = 0, all = c->size + prelude.n;
	struct buf in = { 0 };
	int err = 0;

	/* All that it needs, mostly: it is written when a piece has come to a piece. */
	(void)buf_reserve(&w.out, all < 2 * PIECE ? (size_t)all : 2 * PIECE);

	convert(&w, prelude);
	w.as_is = c->binary;
	while (!err && at < c->size) {
		struct slice piece;

		buf_clear(&in);
		if (c->fd < 0) {
			piece = c->bytes;
		} else {
			err = content_read(c, at, PIECE, &in);
			piece = buf_slice(&in);
			piece.n = whole_lines(piece, at + piece.n >= c->size);
		}
		if (!err && !piece.n)
			err = ERR_TRUNCATED;
		if (err)
			break;
		convert(&w, piece);
		at += piece.n;
		if (buf_len(&w.out) >= PIECE)
			err = flush(&w, fd);
	}
	if (!err && w.pending_cr)
		buf_add_byte(&w.out, '\r');
	if (!err)
		err = flush(&w, fd);
	*sizes_r = w.sizes;
	buf_free(&in);
	buf_free(&w.out);
	return err;
}

int
content_write(const struct content *c, struct slice prelude, enum content_form form, int fd,
    struct content_sizes *sizes_r)
{
	return run(c, prelude, form, fd, sizes_r);
}

int
content_measure(const struct content *c, struct slice prelude, struct content_sizes *sizes_r)
{
	return run(c, prelude, CONTENT_LF, -1, sizes_r);
}

/* From the file, up to a blank line, or to the limit. */
static int
read_head(const struct content *c, size_t limit, struct buf *out)
{
	size_t at = 0;

	do {
		size_t n = limit - at < HEAD_PIECE ? limit - at : HEAD_PIECE,
		       from = at > 2 ? at - 2 : 0;
		int err = content_read(c, at, n, out);
		struct slice fresh = slice_sub(buf_slice(out), from, buf_len(out));

		if (err)
			return err;
		if (buf_len(out) < at + n || memmem(fresh.p, fresh.n, "\n\n", 2) ||
		    memmem(fresh.p, fresh.n, "\n\r\n", 3))
			return 0;
		at += n;
	} while (at < limit);
	return 0;
}

int
content_delivered_to(
    const struct content *c, struct slice address, bool itself, size_t limit, bool *found_r)
{
	struct buf copy = { 0 };
	struct slice head = slice_sub(c->bytes, 0, limit);
	int err = 0;

	*found_r = false;
	if (c->fd >= 0) {
		err = read_head(c, limit, &copy);
		head = buf_slice(&copy);
	}
	for (bool first = true; !err && head.n; first = false) {
		struct slice line = slice_trim(slice_split(&head, '\n'), true);

		if (!line.n)
			break;
		if (!slice_has_caseprefix(line, "delivered-to:") || (first && itself))
			continue;
		line = slice_trim(slice_sub(line, 13, line.n), true);
		if (slice_caseeq(line, address)) {
			*found_r = true;
			break;
		}
	}
	buf_free(&copy);
	return err;
}
