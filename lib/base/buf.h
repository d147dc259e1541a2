/*
 * A growing byte buffer with a read end and a write end. Appends at the tail, consumes at the head;
 * memory moves only when the head has left room for it. Growth past the limit fails, sticky.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/slice.h"

#include <stdarg.h>

struct buf {
	unsigned char *data;
	size_t head, tail, size;
	size_t limit; /* of unread bytes; 0: none */
	int err; /* 0, or ERR_LIMIT after an append that did not fit: that append wrote nothing */
};

/* limit 0 is for data whose size is bounded elsewhere. A zeroed struct is an empty, unlimited
 * buffer. */
void buf_init(struct buf *b, size_t limit);
/* Frees the memory and leaves an empty buffer with the same limit. */
void buf_free(struct buf *b);
/* Empties without freeing, and clears the error. */
void buf_clear(struct buf *b);
/* Overwrites all memory with zeroes, then frees: for secrets. */
void buf_wipe(struct buf *b);

static inline size_t
buf_len(const struct buf *b)
{
	return b->tail - b->head;
}

/* The unread bytes, valid until the next call that changes the buffer. */
static inline struct slice
buf_slice(const struct buf *b)
{
	return slice(b->data ? b->data + b->head : NULL, b->tail - b->head);
}

/* Drops n unread bytes (at most all) from the head. */
void buf_consume(struct buf *b, size_t n);
/* Drops bytes from the tail so that len are left; len above the present length changes nothing. */
void buf_truncate(struct buf *b, size_t len);

/* Appends; on ERR_LIMIT nothing is written and b->err stays set. The return value may be ignored
 * for b->err later. */
int buf_add(struct buf *b, struct slice s);
int buf_add_str(struct buf *b, const char *s);
static inline int buf_add_byte(struct buf *b, unsigned char c);
int buf_addf(struct buf *b, const char *fmt, ...) PRINTF(2, 3);
int buf_addv(struct buf *b, const char *fmt, va_list ap);
/* Little-endian integers, and a u32 length followed by the bytes (what cursor_counted reads). */
int buf_add_u8(struct buf *b, uint8_t v);
int buf_add_u16(struct buf *b, uint16_t v);
int buf_add_u32(struct buf *b, uint32_t v);
int buf_add_u64(struct buf *b, uint64_t v);
int buf_add_counted(struct buf *b, struct slice s);

/* Room for at least n more bytes at the tail, to be filled by read(2) and claimed by buf_commit.
 * NULL on the limit. */
static inline unsigned char *buf_reserve(struct buf *b, size_t n);
static inline void buf_commit(struct buf *b, size_t n);

/* read(2) of at most max bytes to the tail: bytes read, 0 at end of file, or a negative error
 * (-EAGAIN included). */
ptrdiff_t buf_read(struct buf *b, int fd, size_t max);
/* write(2) from the head, consuming what was written: bytes written or a negative error. */
ptrdiff_t buf_write(struct buf *b, int fd);

/* What buf_reserve does where there is no such room, or a limit to look at. */
unsigned char *buf_make_room(struct buf *b, size_t n);

static inline unsigned char *
buf_reserve(struct buf *b, size_t n)
{
	if (b->limit || n >= b->size - b->tail)
		return buf_make_room(b, n);
	return b->data + b->tail;
}

static inline void
buf_commit(struct buf *b, size_t n)
{
	b->tail += n;
}

static inline int
buf_add_byte(struct buf *b, unsigned char c)
{
	unsigned char *p = buf_reserve(b, 1);

	if (!p)
		return ERR_LIMIT;
	*p = c;
	buf_commit(b, 1);
	return 0;
}

#endif
