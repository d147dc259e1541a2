/*
 * The line and literal reader of IMAP. Runs in login-child and imapd-child on hostile input.
 * Invariants: cmd never holds more than max_command bytes; a literal's bytes are never scanned for
 * line ends; after a reject nothing of the command reaches the parser.
 */
#include "imap/reader.h"

enum { TAG_ROOM = 512 };
enum reader_state { R_LINE, R_LITERAL, R_ANNOUNCED, R_SKIP_LINE, R_SKIP_LITERAL, R_DONE };

void
imap_reader_init(struct imap_reader *r, size_t max_command, uint64_t max_skip)
{
	*r = (struct imap_reader){ .max_command = max_command, .max_skip = max_skip };
	buf_init(&r->cmd, max_command + 2);
}

void
imap_reader_free(struct imap_reader *r)
{
	buf_wipe(&r->cmd);
}

static void
start_line(struct imap_reader *r)
{
	r->state = R_LINE;
	r->line = buf_len(&r->cmd);
	r->quoted = r->escaped = false;
}

void
imap_reader_next(struct imap_reader *r)
{
	buf_clear(&r->cmd);
	r->skipped = 0;
	start_line(r);
}

/* Whether the line, without its end, announces a literal: ["~"] "{" number ["+"] "}". */
static bool
announces(struct imap_reader *r, struct slice line)
{
	ptrdiff_t open;
	struct slice digits;

	if (r->quoted || !line.n || line.p[line.n - 1] != '}')
		return false;
	open = slice_rfind(line, '{');
	if (open < 0)
		return false;
	digits = slice_sub(line, (size_t)open + 1, line.n - 1);
	r->literal_sync = true;
	if (digits.n && digits.p[digits.n - 1] == '+') {
		r->literal_sync = false;
		digits.n--;
	}
	r->literal_binary = open > 0 && line.p[open - 1] == '~';
	if (slice_u64(digits, INT64_MAX, &r->literal_size) < 0) {
		/* Digits without end are an announcement all the same, too large for anything. */
		for (size_t i = 0; i < digits.n; i++)
			if (!ascii_is_digit(digits.p[i]))
				return false;
		if (!digits.n)
			return false;
		r->literal_size = INT64_MAX;
	}
	return true;
}

/* Bytes of in up to and with the first LF, following the quoting as it goes. */
static size_t
scan_line(struct imap_reader *r, struct slice in, bool *ended_r)
{
	size_t i = 0;

	*ended_r = false;
	while (i < in.n) {
		unsigned char c = in.p[i++];

		if (c == '\n') {
			*ended_r = true;
			break;
		}
		if (r->escaped)
			r->escaped = false;
		else if (c == '"')
			r->quoted = !r->quoted;
		else if (c == '\\' && r->quoted)
			r->escaped = true;
	}
	return i;
}

static size_t
feed_line(struct imap_reader *r, struct slice in, enum imap_read *event)
{
	bool ended, quoted = r->quoted, escaped = r->escaped;
	size_t n = scan_line(r, in, &ended);
	struct slice line;

	if (buf_len(&r->cmd) + n > r->max_command + 2) {
		r->cmd.err = 0;
		r->quoted = quoted;
		r->escaped = escaped;
		/* What was looked at stays unread, so that reject finds the line's end; of a first
		 * line its beginning is shown, for the tag. */
		if (!buf_len(&r->cmd))
			buf_add(&r->cmd, slice_sub(in, 0, TAG_ROOM));
		r->state = R_ANNOUNCED;
		r->literal_size = 0;
		r->literal_sync = false;
		*event = IMAP_READ_TOO_LONG;
		return 0;
	}
	buf_add(&r->cmd, slice_sub(in, 0, n));
	if (!ended)
		return n;
	line = buf_slice(&r->cmd);
	line = slice_sub(line, r->line, line.n - 1);
	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	if (announces(r, line)) {
		r->state = R_ANNOUNCED;
		*event = IMAP_READ_LITERAL;
	} else {
		buf_truncate(&r->cmd, r->line + line.n);
		r->state = R_DONE;
		*event = IMAP_READ_COMMAND;
	}
	return n;
}

/* Skipping keeps the end of the line in cmd, at most 32 bytes, to see announcements. */
static size_t
feed_skip_line(struct imap_reader *r, struct slice in)
{
	bool ended;
	size_t n = scan_line(r, in, &ended);
	struct slice line = slice_sub(in, 0, n);

	r->skipped += n;
	if (line.n > 32)
		line = slice_sub(line, line.n - 32, line.n);
	if (buf_len(&r->cmd) + line.n > 64)
		buf_consume(&r->cmd, buf_len(&r->cmd) + line.n - 64);
	buf_add(&r->cmd, line);
	if (!ended)
		return n;
	line = buf_slice(&r->cmd);
	line.n--;
	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	if (announces(r, line) && !r->literal_sync) {
		r->state = R_SKIP_LITERAL;
		r->left = r->literal_size;
		buf_clear(&r->cmd);
		r->quoted = r->escaped = false;
	} else {
		imap_reader_next(r);
	}
	return n;
}

size_t
imap_reader_feed(struct imap_reader *r, struct slice in, enum imap_read *event_r)
{
	size_t taken = 0;

	*event_r = IMAP_READ_MORE;
	while (taken < in.n && *event_r == IMAP_READ_MORE) {
		struct slice rest = slice_sub(in, taken, in.n);
		size_t n = rest.n;

		switch (r->state) {
		case R_LINE:
			taken += feed_line(r, rest, event_r);
			break;
		case R_LITERAL:
			if (n > r->left)
				n = (size_t)r->left;
			buf_add(&r->cmd, slice_sub(rest, 0, n));
			r->left -= n;
			taken += n;
			if (!r->left)
				start_line(r);
			break;
		case R_SKIP_LINE:
			taken += feed_skip_line(r, rest);
			break;
		case R_SKIP_LITERAL:
			if (n > r->left)
				n = (size_t)r->left;
			r->left -= n;
			r->skipped += n;
			taken += n;
			if (!r->left)
				r->state = R_SKIP_LINE;
			break;
		default: /* the caller owes accept, stream, reject or next */
			return taken;
		}
		if (r->skipped > r->max_skip)
			*event_r = IMAP_READ_FLOOD;
	}
	return taken;
}

int
imap_reader_accept(struct imap_reader *r)
{
	if (r->literal_size > r->max_command || buf_len(&r->cmd) + r->literal_size > r->max_command)
		return ERR_LIMIT;
	r->left = r->literal_size;
	if (r->left)
		r->state = R_LITERAL;
	else
		start_line(r);
	return 0;
}

void
imap_reader_stream(struct imap_reader *r)
{
	start_line(r);
}

void
imap_reader_reject(struct imap_reader *r)
{
	bool literal = r->literal_size > 0;

	if (r->state == R_ANNOUNCED && r->literal_sync && buf_len(&r->cmd)) {
		imap_reader_next(r);
		return;
	}
	buf_clear(&r->cmd); /* a quoted string may be under way: what is skipped ends it */
	r->left = r->literal_size;
	r->state = literal ? R_SKIP_LITERAL : R_SKIP_LINE;
}
