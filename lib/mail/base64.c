/*
 * Strict base64. Runs in every process that carries a SASL exchange; the input is hostile.
 * Invariant: what decodes, encodes to the same text again, so no two texts stand for one value.
 */
#include "mail/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int
base64_value(unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int
base64_encode(struct buf *out, struct slice in)
{
	for (size_t i = 0; i < in.n; i += 3) {
		size_t left = in.n - i;
		uint32_t v = (uint32_t)in.p[i] << 16;
		char four[4];

		if (left > 1)
			v |= (uint32_t)in.p[i + 1] << 8;
		if (left > 2)
			v |= in.p[i + 2];
		four[0] = alphabet[v >> 18];
		four[1] = alphabet[v >> 12 & 63];
		four[2] = left > 1 ? alphabet[v >> 6 & 63] : '=';
		four[3] = left > 2 ? alphabet[v & 63] : '=';
		buf_add(out, slice(four, 4));
	}
	return out->err;
}

int
base64_decode(struct buf *out, struct slice in)
{
	size_t before = buf_len(out);
	size_t pad = 0;

	if (in.n % 4)
		return ERR_SYNTAX;
	while (pad < 2 && pad < in.n && in.p[in.n - 1 - pad] == '=')
		pad++;
	for (size_t i = 0; i < in.n; i += 4) {
		size_t n = i + 4 == in.n ? 4 - pad : 4;
		uint32_t v = 0;

		for (size_t k = 0; k < 4; k++) {
			int six = k < n ? base64_value(in.p[i + k]) : 0;

			if (six < 0)
				goto bad;
			v = v << 6 | (uint32_t)six;
		}
		if ((n == 3 && v & 0xff) || (n == 2 && v & 0xffff))
			goto bad;
		unsigned char three[3] = { (unsigned char)(v >> 16), (unsigned char)(v >> 8),
			(unsigned char)v };
		buf_add(out, slice(three, n - 1));
	}
	return out->err;
bad:
	buf_truncate(out, before);
	return ERR_SYNTAX;
}
