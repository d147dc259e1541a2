/*
 * The byte buffer behind every socket, record and reply. Runs in every process on hostile input.
 * Invariants: head <= tail <= size; unread bytes never exceed limit when there is one.
 */
#include "base/buf.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SIZE_MIN ((size_t)256)

void
buf_init(struct buf *b, size_t limit)
{
	*b = (struct buf){ .limit = limit };
}

void
buf_free(struct buf *b)
{
	free(b->data);
	buf_init(b, b->limit);
}

void
buf_clear(struct buf *b)
{
	b->head = b->tail = 0;
	b->err = 0;
}

void
buf_wipe(struct buf *b)
{
	if (b->data)
		explicit_bzero(b->data, b->size);
	buf_free(b);
}

void
buf_consume(struct buf *b, size_t n)
{
	size_t len = buf_len(b);

	b->head += n < len ? n : len;
	if (b->head == b->tail)
		b->head = b->tail = 0;
}

void
buf_truncate(struct buf *b, size_t len)
{
	if (len < buf_len(b))
		b->tail = b->head + len;
}

static void
make_room(struct buf *b, size_t n)
{
	size_t len = buf_len(b), size = b->size ? b->size : SIZE_MIN;

	if (b->size - b->tail >= n && b->data)
		return;
	if (b->head >= len && b->size - len >= n &&
	    b->data) { /* cheap move: no more than was consumed */
		memmove(b->data, b->data + b->head, len);
		b->head = 0;
		b->tail = len;
		return;
	}
	while (size - len < n) {
		if (size > SIZE_MAX / 2)
			die("buffer of %zu bytes cannot grow by %zu", len, n);
		size *= 2;
	}
	if (b->head && len)
		memmove(b->data, b->data + b->head, len);
	b->head = 0;
	b->tail = len;
	b->data = xrealloc(b->data, size);
	b->size = size;
}

/* Bytes that the limit lets in. */
static size_t
allowed(const struct buf *b)
{
	size_t len = buf_len(b);

	if (!b->limit)
		return SIZE_MAX;
	return len < b->limit ? b->limit - len : 0;
}

unsigned char *
buf_make_room(struct buf *b, size_t n)
{
	if (n > allowed(b)) {
		b->err = ERR_LIMIT;
		return NULL;
	}
	make_room(b, n);
	return b->data + b->tail;
}

int
buf_add(struct buf *b, struct slice s)
{
	unsigned char *p = buf_reserve(b, s.n);

	if (!p)
		return ERR_LIMIT;
	if (s.n)
		memcpy(p, s.p, s.n);
	buf_commit(b, s.n);
	return 0;
}

int
buf_add_str(struct buf *b, const char *s)
{
	return buf_add(b, slice_str(s));
}

/* Printed into the room that there is, and once more only where that is too small. */
int
buf_addv(struct buf *b, const char *fmt, va_list ap)
{
	size_t room = b->size - b->tail, most = allowed(b);
	va_list again;
	unsigned char *p;
	int n;

	if (room > most)
		room = most;
	va_copy(again, ap);
	n = vsnprintf(room ? (char *)b->data + b->tail : NULL, room, fmt, again);
	va_end(again);
	if (n < 0)
		return b->err = ERR_SYNTAX;
	if ((size_t)n >= room) {
		p = buf_reserve(b, (size_t)n + 1);
		if (!p)
			return ERR_LIMIT;
		vsnprintf((char *)p, (size_t)n + 1, fmt, ap);
	}
	buf_commit(b, (size_t)n);
	return 0;
}

int
buf_addf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int err;

	va_start(ap, fmt);
	err = buf_addv(b, fmt, ap);
	va_end(ap);
	return err;
}

static int
add_little_endian(struct buf *b, uint64_t v, size_t width)
{
	uint64_t bytes = htole64(v);

	return buf_add(b, slice(&bytes, width));
}

int
buf_add_u8(struct buf *b, uint8_t v)
{
	return add_little_endian(b, v, 1);
}

int
buf_add_u16(struct buf *b, uint16_t v)
{
	return add_little_endian(b, v, 2);
}

int
buf_add_u32(struct buf *b, uint32_t v)
{
	return add_little_endian(b, v, 4);
}

int
buf_add_u64(struct buf *b, uint64_t v)
{
	return add_little_endian(b, v, 8);
}

int
buf_add_counted(struct buf *b, struct slice s)
{
	if (s.n > UINT32_MAX)
		return b->err = ERR_LIMIT;
	if (!buf_reserve(b, s.n + 4))
		return ERR_LIMIT;
	buf_add_u32(b, (uint32_t)s.n);
	return buf_add(b, s);
}

ptrdiff_t
buf_read(struct buf *b, int fd, size_t max)
{
	unsigned char *p = buf_reserve(b, max);
	ssize_t n;

	if (!p)
		return ERR_LIMIT;
	do
		n = read(fd, p, max);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_errno();
	buf_commit(b, (size_t)n);
	return n;
}

ptrdiff_t
buf_write(struct buf *b, int fd)
{
	struct slice s = buf_slice(b);
	ssize_t n;

	if (!s.n)
		return 0;
	do
		n = write(fd, s.p, s.n);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_errno();
	buf_consume(b, (size_t)n);
	return n;
}
