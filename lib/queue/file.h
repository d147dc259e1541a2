/*
 * Queue files: content, envelope record, status slots, footer. A file is valid, and its message
 * acknowledged, only with a footer that fits; it was being written by a receiver while its mode is
 * QUEUE_MODE_OPEN. The format stands in docs/QUEUE.md. Functions that take a descriptor block:
 * only threads of the pool and tools call them.
 */
#ifndef QUEUE_FILE_H
#define QUEUE_FILE_H

#include "queue/envelope.h"

#include <sys/types.h>

#define QUEUE_FOOTER_SIZE 64u
#define QUEUE_MODE_OPEN ((mode_t)0200)  /* a receiver writes content */
#define QUEUE_MODE_VALID ((mode_t)0600) /* sealed: the footer decides */

struct queue_layout {
	uint64_t record_offset; /* where the content region ends */
	uint32_t record_length;
	uint32_t slots;
	uint32_t slot_size;
	uint64_t slots_offset;
	uint64_t record_digest;
	uint64_t file_size;
};

/* Appends to tail all that follows a content region of content_size bytes: record, padding, slots,
 * footer. ERR_LIMIT if the envelope is beyond the limits of the format. */
int queue_file_tail(const struct envelope *e, uint64_t content_size, struct buf *tail,
    struct queue_layout *out_r) CHECKED;

/* Checks a footer against the size of its file. ERR_NOT_FOUND: there is no footer, the file never
 * got one; ERR_CORRUPT: there is one and it lies. */
int queue_footer_decode(const unsigned char in[QUEUE_FOOTER_SIZE], uint64_t file_size,
    struct queue_layout *out_r) CHECKED;

/* Makes the digests of a file in memory right, whatever it holds: for tests and fuzzers. */
void queue_footer_repair(unsigned char *file, size_t n);

/* Decodes record and slots that were read from where the layout says: tail holds the bytes from
 * record_offset to the footer, and lives as long as the envelope. */
int queue_tail_decode(struct slice tail, const struct queue_layout *l, struct arena *a,
    struct envelope *out_r) CHECKED;

/* Reads and checks a whole envelope; all memory is the arena's. ERR_NOT_FOUND, ERR_CORRUPT, or the
 * error of the read. */
int queue_file_read(
    int fd, struct arena *a, struct envelope *e_r, struct queue_layout *l_r) CHECKED;
/* Appends the message that the extents make up; ERR_CORRUPT if a digest was taken and differs,
 * ERR_LIMIT if it is longer than max. */
int queue_file_content(int fd, const struct envelope *e, size_t max, struct buf *out) CHECKED;
/* Writes the slot of one recipient in place, without a sync. */
int queue_file_set_status(
    int fd, const struct queue_layout *l, size_t rcpt, const struct rcpt_status *s) CHECKED;
/* Writes all of the iovec at the offset. */
int queue_write_all(int fd, const struct slice *parts, size_t n, uint64_t offset) CHECKED;

#endif
