/*
 * Slices and cursors: the only way in which the suite looks at bytes. Runs in every process on
 * hostile input. Invariant: no read outside [p, p+n), whatever the bytes say.
 */
#include "base/slice.h"

#include <stdlib.h>

bool
slice_eq(struct slice a, struct slice b)
{
	return a.n == b.n && (!a.n || !memcmp(a.p, b.p, a.n));
}

bool
slice_eq_str(struct slice a, const char *b)
{
	return slice_eq(a, slice_str(b));
}

bool
slice_caseeq(struct slice a, struct slice b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (ascii_lower(a.p[i]) != ascii_lower(b.p[i]))
			return false;
	return true;
}

bool
slice_caseeq_str(struct slice a, const char *b)
{
	return slice_caseeq(a, slice_str(b));
}

bool
slice_has_prefix(struct slice s, const char *prefix)
{
	return slice_eq_str(slice_sub(s, 0, strlen(prefix)), prefix);
}

bool
slice_has_caseprefix(struct slice s, const char *prefix)
{
	return slice_caseeq_str(slice_sub(s, 0, strlen(prefix)), prefix);
}

bool
slice_has_suffix(struct slice s, const char *suffix)
{
	size_t n = strlen(suffix);

	return s.n >= n && slice_eq_str(slice_sub(s, s.n - n, s.n), suffix);
}

bool
slice_has_casesuffix(struct slice s, const char *suffix)
{
	size_t n = strlen(suffix);

	return s.n >= n && slice_caseeq_str(slice_sub(s, s.n - n, s.n), suffix);
}

int
slice_cmp(struct slice a, struct slice b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int order = n ? memcmp(a.p, b.p, n) : 0;

	if (order)
		return order;
	return a.n < b.n ? -1 : a.n > b.n;
}

ptrdiff_t
slice_find(struct slice s, unsigned char c)
{
	const unsigned char *at = s.n ? memchr(s.p, c, s.n) : NULL;

	return at ? at - s.p : -1;
}

ptrdiff_t
slice_rfind(struct slice s, unsigned char c)
{
	const unsigned char *at = s.n ? memrchr(s.p, c, s.n) : NULL;

	return at ? at - s.p : -1;
}

ptrdiff_t
slice_search(struct slice s, struct slice needle)
{
	const unsigned char *at;

	if (!needle.n)
		return 0;
	at = s.n ? memmem(s.p, s.n, needle.p, needle.n) : NULL;
	return at ? at - s.p : -1;
}

static bool
is_blank(unsigned char c, bool crlf)
{
	return c == ' ' || c == '\t' || (crlf && (c == '\r' || c == '\n'));
}

struct slice
slice_trim(struct slice s, bool crlf)
{
	while (s.n && is_blank(s.p[0], crlf))
		s.p++, s.n--;
	while (s.n && is_blank(s.p[s.n - 1], crlf))
		s.n--;
	return s;
}

struct slice
slice_split(struct slice *s, unsigned char c)
{
	ptrdiff_t at = slice_find(*s, c);
	struct slice head = at < 0 ? *s : slice_sub(*s, 0, (size_t)at);

	*s = slice_sub(*s, at < 0 ? s->n : (size_t)at + 1, s->n);
	return head;
}

struct slice
slice_split_last(struct slice *s, unsigned char c)
{
	ptrdiff_t at = slice_rfind(*s, c);
	struct slice tail = at < 0 ? SLICE_NULL : slice_sub(*s, (size_t)at + 1, s->n);

	if (at >= 0)
		*s = slice_sub(*s, 0, (size_t)at);
	return tail;
}

char *
slice_dup(struct slice s)
{
	char *copy = xmalloc(s.n + 1);

	if (s.n)
		memcpy(copy, s.p, s.n);
	copy[s.n] = '\0';
	return copy;
}

int
slice_cstr(struct slice s, char **out_r)
{
	*out_r = NULL;
	if (slice_find(s, '\0') >= 0)
		return ERR_SYNTAX;
	*out_r = slice_dup(s);
	return 0;
}

int
slice_copy(struct slice s, char *dst, size_t size)
{
	if (s.n >= size)
		return ERR_LIMIT;
	if (slice_find(s, '\0') >= 0)
		return ERR_SYNTAX;
	if (s.n)
		memcpy(dst, s.p, s.n);
	dst[s.n] = '\0';
	return 0;
}

int
slice_u64(struct slice s, uint64_t max, uint64_t *out_r)
{
	uint64_t value = 0;

	if (!s.n)
		return ERR_SYNTAX;
	for (size_t i = 0; i < s.n; i++) {
		unsigned digit = (unsigned)s.p[i] - '0';
		if (digit > 9)
			return ERR_SYNTAX;
		if (digit > max || value > (max - digit) / 10)
			return ERR_LIMIT;
		value = value * 10 + digit;
	}
	*out_r = value;
	return 0;
}

struct slice
cursor_bytes(struct cursor *c, size_t n)
{
	struct slice out;

	if (c->err)
		return SLICE_NULL;
	if (n > c->in.n - c->at) {
		c->err = ERR_TRUNCATED;
		return SLICE_NULL;
	}
	out = slice_sub(c->in, c->at, c->at + n);
	c->at += n;
	return out;
}

static uint64_t
little_endian(struct cursor *c, size_t width)
{
	struct slice s = cursor_bytes(c, width);
	uint64_t value = 0;

	for (size_t i = s.n; i-- > 0;)
		value = value << 8 | s.p[i];
	return value;
}

uint8_t
cursor_u8(struct cursor *c)
{
	return (uint8_t)little_endian(c, 1);
}

uint16_t
cursor_u16(struct cursor *c)
{
	return (uint16_t)little_endian(c, 2);
}

uint32_t
cursor_u32(struct cursor *c)
{
	return (uint32_t)little_endian(c, 4);
}

uint64_t
cursor_u64(struct cursor *c)
{
	return little_endian(c, 8);
}

struct slice
cursor_counted(struct cursor *c, size_t max)
{
	uint32_t n = cursor_u32(c);

	if (!c->err && n > max)
		c->err = ERR_LIMIT;
	return cursor_bytes(c, n);
}

struct slice
cursor_rest(const struct cursor *c)
{
	return c->err ? SLICE_NULL : slice_sub(c->in, c->at, c->in.n);
}

int
cursor_end(const struct cursor *c)
{
	if (c->err)
		return c->err;
	return c->at == c->in.n ? 0 : ERR_SYNTAX;
}
