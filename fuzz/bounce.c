/*
 * Fuzz target: notices. The first byte picks kind and options; then come the envelope's texts, a
 * line each, and after an empty line the content of the failed message. Checked: every line of the
 * notice ends with CRLF and holds no other CR or LF, the notice has its three parts whatever the
 * content says, and 7-bit stays 7-bit.
 */
#include "helpers/bounce/compose.h"

#include "mail/mime.h"
#include "fuzz/must.h"
#include "smtp/line.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What qmgr hands on: text fields of messages (no NUL, CR, LF). */
static struct slice
next_text(struct slice *in)
{
	struct slice line = slice_split(in, '\n');

	return slice_find(line, '\r') < 0 && slice_find(line, 0) < 0 ? line : SLICE_NULL;
}

/* Content as the spool has it: CRLF lines, no bare CR or LF. */
static void
canonical(struct slice in, struct buf *out)
{
	struct content_reader r = { .mend_lf = true };

	while (in.n) {
		struct slice run;
		bool end;
		size_t used = content_read(&r, in, &run, &end);
		buf_add(out, run);
		in = slice_sub(in, used, in.n);
	}
	if (slice_has_suffix(buf_slice(out), "\r"))
		buf_add_str(out, "\n");
	else if (!slice_has_suffix(buf_slice(out), "\r\n"))
		buf_add_str(out, "\r\n");
	if (r.bare_cr || r.bare_lf)
		buf_clear(out);
}

static void
check_lines(struct slice s, unsigned flags)
{
	unsigned char last = 0;

	must(s.n >= 2 && s.p[s.n - 1] == '\n');
	for (size_t i = 0; i < s.n; last = s.p[i++]) {
		must(!(s.p[i] == '\n' && last != '\r') && !(last == '\r' && s.p[i] != '\n'));
		must(s.p[i] < 128 || flags & MAIL_8BIT);
	}
}

static void
check_parts(struct slice s)
{
	struct mime *m = mime_new(NULL);
	const struct mime_part *p;
	int n = 0;

	mime_feed(m, s);
	p = mime_finish(m)->children;
	for (; p; p = p->next)
		n++;
	must(n == 3);
	mime_free(&m);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = slice(data, size);
	struct notice_rcpt r[2] = { { .last_attempt = 1764100000 } };
	struct notice n = { .arrival = 1764099000,
		.expires = 1764500000,
		.now = 1764100001,
		.hostname = "mx.example.org",
		.mail_name = "Bulkhead",
		.from = SLICE_LIT("MAILER-DAEMON@example.org"),
		.boundary = "0ABC.0123456789",
		.queue_id = SLICE_LIT("0ABC"),
		.rcpts = r,
		.n_rcpts = 2 };
	struct buf content = { 0 }, out = { 0 };
	unsigned flags;

	if (size < 1)
		return 0;
	n.kind = (enum notice_kind)(1 + data[0] % 3);
	n.to_postmaster = data[0] & 4;
	n.undeliverable = data[0] & 8;
	n.full = data[0] & 16;
	n.utf8 = data[0] & 32;
	in = slice_sub(in, 1, in.n);
	n.to = n.sender = next_text(&in);
	n.envid = next_text(&in);
	struct slice *const texts[] = { &r[0].address, &r[0].original, &r[0].orcpt, &r[0].enhanced,
		&r[0].text, &r[0].remote };
	for (size_t i = 0; i < 6; i++)
		*texts[i] = next_text(&in);
	r[1] = r[0];
	r[1].original = SLICE_NULL;
	canonical(in, &content);
	if (slice_search(buf_slice(&content), slice_str(n.boundary)) < 0 &&
	    slice_search(in, slice_str(n.boundary)) < 0 &&
	    slice_search(slice(data, size), slice_str(n.boundary)) < 0) {
		n.content = buf_slice(&content);
		flags = notice_compose(&n, &out);
		check_lines(buf_slice(&out), flags);
		check_parts(buf_slice(&out));
	}
	buf_free(&content);
	buf_free(&out);
	return 0;
}
