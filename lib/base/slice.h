/*
 * A slice is a borrowed range of bytes, passed by value; a cursor reads one with a sticky error.
 * NUL is data. Nothing here allocates but slice_dup and slice_cstr.
 */
#ifndef BASE_SLICE_H
#define BASE_SLICE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
	const unsigned char *p;
	size_t n;
};

#define SLICE_NULL ((struct slice){ NULL, 0 })
/* For printf("%.*s", SLICE_ARG(s)); evaluates its argument twice, so give it a variable. */
#define SLICE_ARG(s) (int)(s).n, (const char *)((s).p ? (s).p : (const unsigned char *)"")
/* A slice of a string literal, without its NUL. */
#define SLICE_LIT(lit) ((struct slice){ (const unsigned char *)("" lit), sizeof(lit) - 1 })

static inline struct slice
slice(const void *p, size_t n)
{
	return (struct slice){ p, n };
}

/* The bytes of a C string without its NUL; NULL gives the empty slice. */
static inline struct slice
slice_str(const char *s)
{
	return (struct slice){ (const unsigned char *)s, s ? strlen(s) : 0 };
}

/* Bytes [from, to), both clamped to the slice. */
static inline struct slice
slice_sub(struct slice s, size_t from, size_t to)
{
	if (to > s.n)
		to = s.n;
	if (from > to)
		from = to;
	return (struct slice){ s.p ? s.p + from : NULL, to - from };
}

bool slice_eq(struct slice a, struct slice b);
bool slice_eq_str(struct slice a, const char *b);
/* ASCII case-insensitive forms; bytes above 127 are compared as they are. */
bool slice_caseeq(struct slice a, struct slice b);
bool slice_caseeq_str(struct slice a, const char *b);
bool slice_has_prefix(struct slice s, const char *prefix);
bool slice_has_caseprefix(struct slice s, const char *prefix);
bool slice_has_suffix(struct slice s, const char *suffix);
bool slice_has_casesuffix(struct slice s, const char *suffix);
/* Bytewise order, shorter first when one is a prefix of the other. */
int slice_cmp(struct slice a, struct slice b);
/* Index of the first byte c, or -1. */
ptrdiff_t slice_find(struct slice s, unsigned char c);
/* Index of the last byte c, or -1. */
ptrdiff_t slice_rfind(struct slice s, unsigned char c);
/* Index of the first occurrence of needle, or -1. */
ptrdiff_t slice_search(struct slice s, struct slice needle);
/* Without leading and trailing SP and HTAB (CR and LF too when crlf). */
struct slice slice_trim(struct slice s, bool crlf);
/* Cuts *s at the first byte c: returns what stands before, leaves the rest behind it. Without c:
 * all, *s empty. */
struct slice slice_split(struct slice *s, unsigned char c);
/* Cuts *s at the last c: returns what stands behind it. Without c: nothing, *s as it was. */
struct slice slice_split_last(struct slice *s, unsigned char c);

/* Copies into new memory that the caller frees; NUL-terminated for convenience. */
char *slice_dup(struct slice s);
/* A C string for a library or syscall: *out_r is owned by the caller. ERR_SYNTAX if the slice holds
 * NUL. */
int slice_cstr(struct slice s, char **out_r) CHECKED;
/* Copies into a fixed array as a C string. ERR_LIMIT if it does not fit, ERR_SYNTAX if it holds
 * NUL. */
int slice_copy(struct slice s, char *dst, size_t size) CHECKED;

/* Decimal digits only, no sign, no blanks, at least one digit. ERR_SYNTAX, or ERR_LIMIT above max.
 */
int slice_u64(struct slice s, uint64_t max, uint64_t *out_r) CHECKED;

static inline unsigned char
ascii_lower(unsigned char c)
{
	return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}

static inline unsigned char
ascii_upper(unsigned char c)
{
	return c >= 'a' && c <= 'z' ? (unsigned char)(c - 32) : c;
}

static inline bool
ascii_is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

static inline bool
ascii_is_alpha(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static inline bool
ascii_is_alnum(unsigned char c)
{
	return ascii_is_digit(c) || ascii_is_alpha(c);
}

/* --- cursor: reads little-endian integers and counted bytes; after the first failure every read
 * gives zero --- */
struct cursor {
	struct slice in;
	size_t at;
	int err; /* 0 or the first error */
};

static inline struct cursor
cursor(struct slice in)
{
	return (struct cursor){ in, 0, 0 };
}

uint8_t cursor_u8(struct cursor *c);
uint16_t cursor_u16(struct cursor *c);
uint32_t cursor_u32(struct cursor *c);
uint64_t cursor_u64(struct cursor *c);
/* n bytes, borrowed from the input. */
struct slice cursor_bytes(struct cursor *c, size_t n);
/* u32 length, then at most max bytes; a longer length is ERR_LIMIT. */
struct slice cursor_counted(struct cursor *c, size_t max);
/* What is left, without reading it. */
struct slice cursor_rest(const struct cursor *c);
/* 0 if all was read without error; ERR_SYNTAX if bytes are left over. */
int cursor_end(const struct cursor *c) CHECKED;

#endif
