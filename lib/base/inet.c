/*
 * Addresses and networks. Runs in every process that meets an address; texts come from
 * configuration, DNS and EHLO lines.
 */
#include "base/inet.h"

#include <arpa/inet.h>
#include <netinet/in.h>

static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };

static struct inet_addr
from_v4(const void *four)
{
	struct inet_addr a;

	memcpy(a.b, mapped, 12);
	memcpy(a.b + 12, four, 4);
	return a;
}

int
inet_parse(struct slice text, struct inet_addr *out)
{
	char s[INET_TEXT];
	struct in_addr v4;

	if (text.n >= 2 && text.p[0] == '[' && text.p[text.n - 1] == ']')
		text = slice_sub(text, 1, text.n - 1);
	if (slice_copy(text, s, sizeof(s)))
		return ERR_SYNTAX;
	if (inet_pton(AF_INET, s, &v4) == 1) {
		*out = from_v4(&v4);
		return 0;
	}
	return inet_pton(AF_INET6, s, out->b) == 1 ? 0 : ERR_SYNTAX;
}

bool
inet_is_v4(const struct inet_addr *a)
{
	return !memcmp(a->b, mapped, 12);
}

void
inet_format(const struct inet_addr *a, char out[INET_TEXT])
{
	if (inet_is_v4(a))
		inet_ntop(AF_INET, a->b + 12, out, INET_TEXT);
	else
		inet_ntop(AF_INET6, a->b, out, INET_TEXT);
}

int
inet_from_sockaddr(const struct sockaddr_storage *ss, struct inet_addr *out, uint16_t *port)
{
	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)ss;
		*out = from_v4(&in->sin_addr);
		if (port)
			*port = ntohs(in->sin_port);
		return 0;
	}
	if (ss->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in = (const void *)ss;
		memcpy(out->b, &in->sin6_addr, 16);
		if (port)
			*port = ntohs(in->sin6_port);
		return 0;
	}
	return ERR_SYNTAX;
}

struct inet_addr
inet_mask(const struct inet_addr *a, unsigned bits)
{
	struct inet_addr out = *a;

	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = bits > i * 8 ? bits - i * 8 : 0;
		if (keep < 8)
			out.b[i] &= (unsigned char)(0xff00u >> keep);
	}
	return out;
}

static bool
word_matches(const struct inet_addr *a, struct slice word)
{
	struct slice rest = word, host = slice_split(&rest, '/');
	struct inet_addr net, masked, want;
	uint64_t bits = 128;

	if (inet_parse(host, &net))
		return false;
	if (rest.n) {
		unsigned width = inet_is_v4(&net) && slice_find(host, ':') < 0 ? 32 : 128;
		if (slice_u64(rest, width, &bits))
			return false;
		bits += 128 - width;
	}
	masked = inet_mask(a, (unsigned)bits);
	want = inet_mask(&net, (unsigned)bits);
	return !memcmp(masked.b, want.b, 16);
}

bool
inet_in_list(const struct inet_addr *a, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct slice w = slice_str(words[i]);
		bool out = w.n && w.p[0] == '!';
		if (word_matches(a, out ? slice_sub(w, 1, w.n) : w))
			return !out;
	}
	return false;
}
