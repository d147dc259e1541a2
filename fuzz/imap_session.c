/*
 * A whole IMAP session: the input is what the client sends (up to a byte 0xff, if there is one,
 * after which comes the first message's text), in portions, against a store in memory (the
 * functions of imap_store.c stand for lib/store's). Checked: a session that has not ended
 * takes all its input, answers are framed by CRLF, and the output stays within bounds.
 */
#include "fuzz/imap_store.h"
#include "imap/session.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An input with a byte 0xff has after it the text of the first. */
static const char *const standard[MESSAGES] = {
	"From: a@b\r\nTo: c@d\r\nSubject: =?utf-8?q?x=C3=A4?=\r\nDate: Mon, 7 Feb 1994 21:52:25 "
	"-0800\r\n"
	"\r\nbody\r\n",
	"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: "
	"message/rfc822\r\n\r\nSubject: in\r\n\r\ninner\r\n--b\r\nContent-Transfer-Encoding: "
	"base64\r\n\r\n"
	"aGVsbG8A\r\n--b--\r\n",
	"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: "
	"quoted-printable\r\n\r\n"
	"Gr=C3=BC=\r\nn\r\n",
};

static void
take_output(struct imap_session *s, size_t *total)
{
	struct buf *out = imap_session_out(s);

	*total += buf_len(out);
	if (*total > 64u << 20)
		abort();
	buf_clear(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct charsets *charsets;
	struct store store = { .count = MESSAGES };
	struct imap_session_config config = { .store = &store,
		.charsets = charsets ? charsets : (charsets = charsets_open()),
		.max_command = 2000,
		.watermark = size && data[0] & 1 ? 1 : 4096,
		.max_append = 5000,
		.max_errors = 50 };
	size_t step = size ? 1 + data[0] / 4 : 1, total = 0, idle = 0;
	struct slice all = slice(size ? data + 1 : data, size ? size - 1 : 0);
	struct slice in = slice_split(&all, 0xff);
	struct imap_session *s = imap_session_new(&config, SLICE_LIT("l"));

	for (uint32_t i = 0; i < MESSAGES; i++) {
		store.messages[i].uid = i + 1;
		imap_store_texts[i] = slice_str(standard[i]);
	}
	if (all.n)
		imap_store_texts[0] = all;
	while (in.n && !imap_session_ended(s) && idle < 1000) {
		size_t n = imap_session_feed(s, slice_sub(in, 0, step));

		in = slice_sub(in, n, in.n);
		idle = n ? 0 : idle + 1;
		while (imap_session_busy(s)) {
			imap_session_run(s);
			take_output(s, &total);
		}
		if (imap_session_idling(s))
			imap_session_changed(s);
		take_output(s, &total);
	}
	if (idle == 1000)
		abort(); /* it neither ended nor took what was there */
	imap_session_free(&s);
	if (store.open)
		abort();
	return 0;
}
