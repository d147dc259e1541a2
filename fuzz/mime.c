/*
 * The MIME parser and the decoders: fed in portions that the first byte chooses, the tree must come
 * out the same as in one piece, lie within the message, every decoder must take every part, and
 * what comes of a charset must be UTF-8.
 */
#include "mail/decode.h"
#include "mail/envelope.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(const struct mime_part *p, uint64_t size, unsigned depth)
{
	uint64_t at = p->body_at;

	if (p->header_at > p->body_at || p->body_at > p->end || p->end > size || depth > 200)
		abort();
	for (const struct mime_part *c = p->children; c; c = c->next) {
		if (c->header_at < at || c->end > p->end)
			abort();
		at = c->end;
		check(c, size, depth + 1);
	}
}

static bool
same(const struct mime_part *a, const struct mime_part *b)
{
	for (; a && b; a = a->next, b = b->next)
		if (a->kind != b->kind || a->header_at != b->header_at ||
		    a->body_at != b->body_at || a->end != b->end || a->lines != b->lines ||
		    !slice_eq(a->type, b->type) || !same(a->children, b->children))
			return false;
	return !a && !b;
}

static void
check_utf8(struct slice s)
{
	while (s.n) {
		uint32_t code;
		unsigned n = utf8_next(s, &code);

		if (!n)
			abort();
		s = slice_sub(s, n, s.n);
	}
}

static void
decode(const struct mime_part *p, struct slice in)
{
	static struct charsets *charsets;
	struct transfer_decoder d;
	struct buf out = { 0 }, text = { 0 }, folded = { 0 };
	const struct mime_param *charset = mime_param_find(p->params, "charset");
	struct slice body = slice_sub(in, (size_t)p->body_at, (size_t)p->end);

	transfer_decode_start(&d, p->encoding);
	transfer_decode(&d, slice_sub(body, 0, body.n / 2), &out);
	transfer_decode(&d, slice_sub(body, body.n / 2, body.n), &out);
	transfer_decode_end(&d, &out);
	if (!charsets)
		charsets = charsets_open();
	(void)charset_decode(
	    charsets, charset ? charset->value : SLICE_NULL, buf_slice(&out), &text);
	check_utf8(buf_slice(&text));
	casemap_fold(buf_slice(&text), &folded);
	check_utf8(buf_slice(&folded));
	buf_clear(&text);
	(void)decode_param(charsets, p->disposition_params, "filename", &text);
	decode_header(charsets, p->header, &text);
	check_utf8(buf_slice(&text));
	buf_free(&out);
	buf_free(&text);
	buf_free(&folded);
	for (const struct mime_part *c = p->children; c; c = c->next)
		decode(c, in);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct mime_limits small = { 5, 20, 8, 300, 2000, 70 };
	const struct mime_limits *limits = size && data[0] & 1 ? &small : NULL;
	size_t step = size ? 1 + data[0] / 2 : 1;
	struct slice in = slice(size ? data + 1 : data, size ? size - 1 : 0);
	struct mime *whole = mime_new(limits), *cut = mime_new(limits);
	struct arena arena = { 0 };
	struct envelope e;
	const struct mime_part *root;

	mime_feed(whole, in);
	for (size_t i = 0; i < in.n; i += step)
		mime_feed(cut, slice_sub(in, i, i + step));
	root = mime_finish(whole);
	check(root, in.n, 0);
	if (!same(root, mime_finish(cut)))
		abort();
	decode(root, in);
	envelope_read(root->header, &arena, 10, &e);
	arena_free(&arena);
	mime_free(&whole);
	mime_free(&cut);
	return 0;
}
