/*
 * Queue files on disk. Runs in the threads of qmgr's pool and in tools. Hostile inputs: a file
 * that is damaged, cut, or whose content was written by a receiver that has been taken over; so
 * the footer's numbers are bounded by the size of the file before a byte is allocated, record and
 * footer carry digests, and extents must lie within the content.
 * Invariant: the footer is the last thing written before the fsync. Whatever part of a file a
 * crash leaves, it is either whole or has no valid footer; in the latter case nobody was told 250.
 */
#include "queue/file.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static const char magic[8] = "BHQUEUE1";

#define DIGEST_AT 56 /* of the footer: over all that stands before */

static void
footer_add(struct buf *out, const struct queue_layout *l)
{
	size_t from = buf_len(out);

	buf_add(out, slice(magic, sizeof(magic)));
	buf_add_u64(out, l->record_offset);
	buf_add_u32(out, l->record_length);
	buf_add_u32(out, l->slots);
	buf_add_u64(out, l->slots_offset);
	buf_add_u64(out, l->record_digest);
	buf_add_u64(out, l->file_size);
	buf_add_u64(out, l->slot_size == SLOT_SIZE_OLD ? 0 : l->slot_size);
	buf_add_u64(out, queue_digest(slice_sub(buf_slice(out), from, from + DIGEST_AT)));
}

int
queue_file_tail(
    const struct envelope *e, uint64_t content_size, struct buf *tail, struct queue_layout *out_r)
{
	struct queue_layout l = {
		.record_offset = content_size, .slots = (uint32_t)e->n_rcpts, .slot_size = SLOT_SIZE
	};
	size_t from = buf_len(tail), n;

	if (e->n_rcpts == 0 || e->n_rcpts > ENVELOPE_RECIPIENTS_MAX ||
	    e->n_extents > ENVELOPE_EXTENTS_MAX)
		return ERR_LIMIT;
	envelope_encode(e, tail);
	n = buf_len(tail) - from;
	if (n > ENVELOPE_RECORD_MAX)
		return ERR_LIMIT;
	l.record_length = (uint32_t)n;
	l.record_digest = queue_digest(slice_sub(buf_slice(tail), from, from + n));
	/* Slots are aligned to their size: none lies across a sector or page. */
	l.slots_offset = (content_size + n + SLOT_SIZE - 1) / SLOT_SIZE * SLOT_SIZE;
	for (uint64_t at = content_size + n; at < l.slots_offset; at++)
		buf_add_byte(tail, 0);
	for (size_t i = 0; i < e->n_rcpts; i++) {
		unsigned char slot[SLOT_SIZE];

		slot_encode(e->rcpts[i].status, SLOT_SIZE, slot);
		buf_add(tail, slice(slot, SLOT_SIZE));
	}
	l.file_size = l.slots_offset + (uint64_t)SLOT_SIZE * l.slots + QUEUE_FOOTER_SIZE;
	footer_add(tail, &l);
	*out_r = l;
	return tail->err;
}

int
queue_footer_decode(
    const unsigned char in[QUEUE_FOOTER_SIZE], uint64_t file_size, struct queue_layout *out_r)
{
	struct cursor c = cursor(slice(in, QUEUE_FOOTER_SIZE));
	struct queue_layout l;
	uint64_t slot_size;

	if (memcmp(cursor_bytes(&c, sizeof(magic)).p, magic, sizeof(magic)) != 0)
		return ERR_NOT_FOUND;
	l.record_offset = cursor_u64(&c);
	l.record_length = cursor_u32(&c);
	l.slots = cursor_u32(&c);
	l.slots_offset = cursor_u64(&c);
	l.record_digest = cursor_u64(&c);
	l.file_size = cursor_u64(&c);
	slot_size = cursor_u64(&c);
	l.slot_size = slot_size ? SLOT_SIZE : SLOT_SIZE_OLD;
	if (cursor_u64(&c) != queue_digest(slice(in, DIGEST_AT)) || l.file_size != file_size ||
	    (slot_size && slot_size != SLOT_SIZE))
		return ERR_CORRUPT;
	if (l.record_offset > file_size || l.record_length > ENVELOPE_RECORD_MAX || l.slots == 0 ||
	    l.slots > ENVELOPE_RECIPIENTS_MAX || l.slots_offset > file_size ||
	    l.slots_offset < l.record_offset + l.record_length ||
	    l.slots_offset - l.record_offset - l.record_length >= l.slot_size ||
	    file_size - l.slots_offset != (uint64_t)l.slot_size * l.slots + QUEUE_FOOTER_SIZE)
		return ERR_CORRUPT;
	*out_r = l;
	return 0;
}

static void
store64(unsigned char *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

void
queue_footer_repair(unsigned char *file, size_t n)
{
	unsigned char *footer = file + n - QUEUE_FOOTER_SIZE;
	struct cursor c = cursor(slice(footer, QUEUE_FOOTER_SIZE));
	uint64_t offset;
	uint32_t length;

	if (n < QUEUE_FOOTER_SIZE)
		return;
	cursor_u64(&c);
	offset = cursor_u64(&c);
	length = cursor_u32(&c);
	if (offset <= n && length <= n - offset)
		store64(footer + 32, queue_digest(slice(file + offset, length)));
	store64(footer + 40, n);
	store64(footer + DIGEST_AT, queue_digest(slice(footer, DIGEST_AT)));
}

int
queue_tail_decode(
    struct slice tail, const struct queue_layout *l, struct arena *a, struct envelope *out_r)
{
	struct slice record = slice_sub(tail, 0, l->record_length);
	const unsigned char *slots = tail.p + (l->slots_offset - l->record_offset);

	if (tail.n != l->slots_offset - l->record_offset + (uint64_t)l->slot_size * l->slots ||
	    queue_digest(record) != l->record_digest || envelope_decode(record, a, out_r) ||
	    out_r->n_rcpts != l->slots)
		return ERR_CORRUPT;
	for (size_t i = 0; i < out_r->n_extents; i++)
		if (out_r->extents[i].offset + out_r->extents[i].length > l->record_offset)
			return ERR_CORRUPT;
	for (size_t i = 0; i < out_r->n_rcpts; i++)
		if (slot_decode(slots + i * l->slot_size, l->slot_size,
			envelope_status(a, &out_r->rcpts[i])))
			out_r->rcpts[i].status->state = RCPT_TODO;
	return 0;
}

static int
read_all(int fd, unsigned char *p, size_t n, uint64_t offset)
{
	while (n) {
		ssize_t r = pread(fd, p, n, (off_t)offset);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_errno();
		if (r == 0)
			return ERR_CORRUPT;
		p += r, n -= (size_t)r, offset += (uint64_t)r;
	}
	return 0;
}

int
queue_file_read(int fd, struct arena *a, struct envelope *e_r, struct queue_layout *l_r)
{
	unsigned char footer[QUEUE_FOOTER_SIZE], *p;
	struct stat st;
	size_t n;
	int err;

	if (fstat(fd, &st))
		return err_errno();
	if (!S_ISREG(st.st_mode))
		return ERR_CORRUPT;
	if (st.st_size < (off_t)QUEUE_FOOTER_SIZE)
		return ERR_NOT_FOUND;
	err = read_all(fd, footer, sizeof(footer), (uint64_t)st.st_size - sizeof(footer));
	if (!err)
		err = queue_footer_decode(footer, (uint64_t)st.st_size, l_r);
	if (err)
		return err;
	n = (size_t)(l_r->file_size - QUEUE_FOOTER_SIZE - l_r->record_offset);
	p = arena_alloc(a, n);
	err = read_all(fd, p, n, l_r->record_offset);
	return err ? err : queue_tail_decode(slice(p, n), l_r, a, e_r);
}

int
queue_file_content(int fd, const struct envelope *e, size_t max, struct buf *out)
{
	size_t from = buf_len(out);

	if (e->size > max)
		return ERR_LIMIT;
	for (size_t i = 0; i < e->n_extents; i++) {
		size_t n = (size_t)e->extents[i].length;
		unsigned char *p = buf_reserve(out, n);
		int err;

		if (!p)
			return ERR_LIMIT;
		err = read_all(fd, p, n, e->extents[i].offset);
		if (err)
			return err;
		buf_commit(out, n);
	}
	if (e->content_digest &&
	    queue_digest(slice_sub(buf_slice(out), from, SIZE_MAX)) != e->content_digest)
		return ERR_CORRUPT;
	return 0;
}

int
queue_file_set_status(
    int fd, const struct queue_layout *l, size_t rcpt, const struct rcpt_status *s)
{
	unsigned char slot[SLOT_SIZE];
	struct slice part = slice(slot, l->slot_size);

	if (rcpt >= l->slots)
		return ERR_STATE;
	slot_encode(s, l->slot_size, slot);
	return queue_write_all(fd, &part, 1, l->slots_offset + rcpt * l->slot_size);
}

int
queue_write_all(int fd, const struct slice *parts, size_t n, uint64_t offset)
{
	struct iovec iov[8];
	size_t done = 0, total = 0;

	if (n > 8)
		return ERR_LIMIT;
	for (size_t i = 0; i < n; i++)
		total += parts[i].n;
	while (done < total) {
		size_t skip = done;
		int used = 0;
		ssize_t w;

		for (size_t i = 0; i < n; i++) {
			size_t cut = skip < parts[i].n ? skip : parts[i].n;

			skip -= cut;
			if (cut == parts[i].n)
				continue;
			iov[used].iov_base = (void *)(uintptr_t)(parts[i].p + cut);
			iov[used++].iov_len = parts[i].n - cut;
		}
		w = pwritev(fd, iov, used, (off_t)(offset + done));
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return err_errno();
		if (w == 0)
			return -ENOSPC;
		done += (size_t)w;
	}
	return 0;
}
