/*
 * Fuzz target: the small decoders that others build on. The first byte chooses: base64, xtext, IP
 * addresses, queue IDs, mailbox specs, status codes. Checked: what is taken comes out the same when
 * it is written and read again.
 */
#include "base/inet.h"
#include "db/mailbox.h"
#include "mail/base64.h"
#include "queue/envelope.h"
#include "queue/id.h"
#include "fuzz/must.h"
#include "smtp/params.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
try_base64(struct slice in)
{
	struct buf plain = { 0 }, text = { 0 };

	if (!base64_decode(&plain, in)) {
		base64_encode(&text, buf_slice(&plain));
		must(slice_eq(buf_slice(&text), in));
	} else {
		must(!buf_len(&plain));
	}
	buf_clear(&plain);
	buf_clear(&text);
	base64_encode(&text, in);
	must(!base64_decode(&plain, buf_slice(&text)) && slice_eq(buf_slice(&plain), in));
	buf_free(&plain);
	buf_free(&text);
}

static void
try_xtext(struct slice in)
{
	struct buf plain = { 0 }, text = { 0 };

	must(!xtext_decode(&plain, in) || !xtext_valid(in)); /* which wants printable ASCII too */
	buf_clear(&plain);
	xtext_encode(&text, in);
	must(!xtext_decode(&plain, buf_slice(&text)) && slice_eq(buf_slice(&plain), in));
	buf_free(&plain);
	buf_free(&text);
}

static void
try_inet(struct slice in)
{
	struct inet_addr a, b;
	char text[INET_TEXT], word[64];
	const char *words[] = { word };

	if (!inet_parse(in, &a)) {
		inet_format(&a, text);
		must(!inet_parse(slice_str(text), &b) && !memcmp(&a, &b, sizeof(a)));
		words[0] = text;
		must(inet_in_list(&a, words, 1));
	} else {
		memset(&a, 0, sizeof(a));
	}
	words[0] = word;
	if (!slice_copy(in, word, sizeof(word)))
		(void)inet_in_list(&a, words, 1);
}

static void
try_id(struct slice in)
{
	queue_id id;
	char text[QUEUE_ID_SIZE];

	if (queue_id_parse(in, &id))
		return;
	queue_id_format(id, text);
	must(slice_eq_str(in, text) && queue_id_dir(id) < QUEUE_DIRS);
}

static void
try_mailbox(struct slice in)
{
	struct slice rest = in, first = slice_split(&rest, '\n'), below;
	struct mailbox m;
	struct buf spec = { 0 };

	if (!mailbox_parse(in, &m))
		must(m.path.n && m.path.p[0] == '/' && slice_find(m.path, 0) < 0 &&
		     slice_search(m.path, SLICE_LIT("/../")) < 0 &&
		     !slice_has_suffix(m.path, "/.."));
	if (!mailbox_of_user(rest, SLICE_LIT("/var/mail"), first, SLICE_LIT("/home/u"), &spec))
		must(!mailbox_parse(buf_slice(&spec), &m) &&
		     (!mailbox_below(m.path, SLICE_LIT("/home/u"), &below) ||
			 !mailbox_below(m.path, SLICE_LIT("/var/mail"), &below)));
	buf_clear(&spec);
	if (!mailbox_of_virtual(SLICE_LIT("/v"), in, &spec))
		must(!mailbox_parse(buf_slice(&spec), &m) &&
		     !mailbox_below(m.path, SLICE_LIT("/v"), &below));
	buf_free(&spec);
}

static void
try_status(struct slice in)
{
	struct rcpt_status a = { 0 }, b = { 0 };
	struct slice rest = in, first = slice_split(&rest, ' ');
	char code[16];

	rcpt_status_set(&a, first, rest, rest);
	rcpt_status_enhanced(&a, code);
	must(!code[0] || first.n >= strlen(code)); /* 05.001.1 is 5.1.1 */
	for (const char *c = a.text; *c; c++)
		must((unsigned char)*c >= 32 && *c != 127);
	rcpt_status_set(&b, slice_str(code), slice_str(a.text), slice_str(a.remote));
	must(!strcmp(a.text, b.text) && !strcmp(a.remote, b.remote) &&
	     !memcmp(a.enhanced, b.enhanced, sizeof(a.enhanced)));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	void (*const tries[])(
	    struct slice) = { try_base64, try_xtext, try_inet, try_id, try_mailbox, try_status };

	if (size)
		tries[data[0] % 6](slice(data + 1, size - 1));
	return 0;
}
