/*
 * Fuzz target: the head of a submitted message (receive/head.h). Checked: behind it no field that
 * message_drop_headers names is left in the header section, the body is what it was, what was added
 * is there once, and a second time takes nothing more.
 */
#include "receive/head.h"
#include "fuzz/must.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The two calls into lib/receive/mail.c, whose other half is qmgr. */
void
mail_insert(struct mail *m, size_t at, struct slice text)
{
	struct buf whole = { 0 };
	struct slice old = buf_slice(&m->content);

	must(at <= old.n);
	buf_add(&whole, slice_sub(old, 0, at));
	buf_add(&whole, text);
	buf_add(&whole, slice_sub(old, at, old.n));
	buf_free(&m->content);
	m->content = whole;
}

void
mail_release(struct mail *m)
{
	m->hold_in_memory = false;
}

static struct header_scan
scan(struct slice text)
{
	struct header_scan h = { .field_limit = 4096, .section_limit = 65536, .count_limit = 1000 };

	header_scan_feed(&h, text);
	header_scan_end(&h);
	return h;
}

static void
complete(struct mail *m, const struct header_scan *h, size_t at)
{
	struct head head = { .scan = h, .at = at, .began = 1764100000000000, .id = "sid.1" };

	m->hold_in_memory = true;
	mail_complete_head(m, &head, true);
	must(!m->hold_in_memory);
}

static void
nothing_left(struct slice section)
{
	struct header_field f;

	while (section.n) {
		if (header_next(&section, &f) != HEADER_FIELD)
			continue;
		must(!slice_caseeq_str(f.name, "bcc") && !slice_caseeq_str(f.name, "x-mine"));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *names[] = { "bcc", "X-Mine" };
	static const struct slice trace = SLICE_LIT("Received: ours\r\n");
	struct conf conf = { .message_drop_headers = { 2, names },
		.submission_add_headers = true,
		.myhostname = "mx" };
	struct daemon d = { .conf = &conf };
	struct receiver r = { .d = &d };
	struct mail m = { .r = &r, .state = MAIL_MEMORY };
	struct slice in = slice(data, size);
	struct header_scan h = scan(in), again;

	if (h.err)
		return 0;
	buf_add(&m.content, trace);
	buf_add(&m.content, in);
	complete(&m, &h, trace.n);
	must(slice_has_prefix(buf_slice(&m.content), (const char *)trace.p));
	struct slice out = slice_sub(buf_slice(&m.content), trace.n, buf_len(&m.content));
	struct slice body = slice_sub(in, h.no_header ? 0 : h.bytes, in.n);
	must(out.n >= body.n && slice_eq(slice_sub(out, out.n - body.n, out.n), body));
	nothing_left(slice_sub(out, 0, out.n - body.n));
	again = scan(out);
	if (again.done && !again.err && !h.no_header && (again.seen & HEADER_DATE)) {
		size_t before = buf_len(&m.content);
		complete(&m, &again, trace.n);
		must(buf_len(&m.content) == before || !(again.seen & HEADER_MESSAGE_ID));
	}
	buf_free(&m.content);
	return 0;
}
