/*
 * The message that a session looks at: its content, header block and MIME tree, each read when it
 * is needed and kept until another message is looked at, since clients fetch sections one by one
 * and large ones in portions. Runs in imapd-child; the message is hostile. Each call reads a
 * bounded amount.
 */
#include "imap/command.h"

#include <errno.h>

int
imap_message(struct imap_session *s, uint32_t uid)
{
	int err;

	if (s->content && s->content_uid == uid)
		return 0;
	imap_drop_content(s);
	err = content_open(s->mailbox, uid, &s->content);
	if (err < 0) {
		s->content = NULL;
		return err;
	}
	s->content_uid = uid;
	return 0;
}

/* Offset behind the line at, if that is empty, else 0. Lines end as they do for the parser of MIME:
 * both must find the same header. */
static size_t
empty_line(struct slice in, size_t at)
{
	size_t cr = at < in.n && in.p[at] == '\r';

	return at + cr < in.n && in.p[at + cr] == '\n' ? at + cr + 1 : 0;
}

/* Offset behind the empty line within the bytes, or 0; from: where to look on. */
static size_t
header_end(struct slice in, size_t from)
{
	size_t i = from > 2 ? from - 2 : 0, end = from < 2 ? empty_line(in, 0) : 0;
	ptrdiff_t lf;

	while (!end && (lf = slice_find(slice_sub(in, i, in.n), '\n')) >= 0) {
		i += (size_t)lf + 1;
		end = empty_line(in, i);
	}
	return end;
}

int
imap_message_header(struct imap_session *s)
{
	if (s->header_known)
		return 0;
	buf_free(&s->header);
	for (;;) {
		size_t before = buf_len(&s->header), end;
		ptrdiff_t n =
		    content_read(s->content, before, buf_reserve(&s->header, 16384), 16384);

		if (n < 0)
			return (int)n;
		buf_commit(&s->header, (size_t)n);
		end = header_end(buf_slice(&s->header), before);
		if (end) {
			buf_truncate(&s->header, end);
			s->body_at = end;
			break;
		}
		if (!n || buf_len(&s->header) >= IMAP_HEADER_MAX) {
			/* No empty line: all is header; of an endless one the first part is. */
			s->body_at = buf_len(&s->header);
			break;
		}
	}
	s->header_known = true;
	return 0;
}

int
imap_message_parse(struct imap_session *s)
{
	unsigned char chunk[32768];
	size_t budget = IMAP_BYTES_A_STEP;
	struct mime_limits limits = mime_default_limits;

	if (s->root)
		return 0;
	if (!s->mime) {
		if (s->config.max_nesting)
			limits.depth = s->config.max_nesting;
		s->mime = mime_new(&limits);
		s->mime_at = 0;
	}
	while (budget) {
		ptrdiff_t n = content_read(s->content, s->mime_at, chunk, sizeof(chunk));

		if (n < 0)
			return (int)n;
		if (!n) {
			s->root = mime_finish(s->mime);
			return 0;
		}
		mime_feed(s->mime, slice(chunk, (size_t)n));
		s->mime_at += (size_t)n;
		budget -= (size_t)n < budget ? (size_t)n : budget;
	}
	return -EAGAIN;
}
