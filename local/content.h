/* The content of a message in a delivery, and writing it down in the forms that mailboxes have. */
#ifndef LOCAL_CONTENT_H
#define LOCAL_CONTENT_H

#include "base/buf.h"

#define CONTENT_EXTENTS 16

/* Inline bytes, or extents of a descriptor. CRLF lines as they came. */
struct content {
	struct slice bytes; /* n is 0 where fd is used */
	int fd;             /* -1: inline */
	struct {
		uint64_t offset, length;
	} extents[CONTENT_EXTENTS];
	size_t nextents;
	uint64_t size;
	bool binary; /* BINARYMIME: not lines, written as it is */
};

/* The bytes from offset on, at most n, appended to out; 0 or a negative error. Less at the end. */
int content_read(const struct content *c, uint64_t offset, size_t n, struct buf *out) CHECKED;

enum content_form {
	CONTENT_LF,   /* CRLF becomes LF */
	CONTENT_MBOX, /* the same, and "From " at the head of a line becomes ">From " */
};

/* What was written: bytes in the file, and the same with CRLF line ends. */
struct content_sizes {
	uint64_t written, crlf;
};

/*
 * Writes prelude (lines that end with CRLF), then the content, to fd, both in that form. A small
 * message is one write(2). 0 or a negative error; then the file may hold a part.
 */
int content_write(const struct content *c, struct slice prelude, enum content_form form, int fd,
    struct content_sizes *sizes_r) CHECKED;
/* The sizes that content_write would report, without writing. Reads the content. */
int content_measure(
    const struct content *c, struct slice prelude, struct content_sizes *sizes_r) CHECKED;
/* True if the header of the content has "Delivered-To: address" (at most limit bytes looked at).
 * itself: what the alias of this address named again; the first line tells that and is no loop. */
int content_delivered_to(const struct content *c, struct slice address, bool itself, size_t limit,
    bool *found_r) CHECKED;

#endif
