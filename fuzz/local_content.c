/*
 * Fuzz target: what a delivery does with content (local/content.h). The first byte: mbox form and
 * the size of an extent. Checked: inline and in extents give the same octets, the sizes are those
 * that were measured and written, and a field is found whichever way the content lies.
 */
#include "local/content.h"
#include "fuzz/must.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int
memory_file(void)
{
	int fd = memfd_create("content", MFD_CLOEXEC);

	must(fd >= 0);
	return fd;
}

/* The same octets in a file, in extents with others between them. */
static struct content
in_extents(struct slice s, size_t step)
{
	struct content c = { .fd = memory_file(), .size = s.n };
	uint64_t at = 3;

	for (size_t from = 0; from < s.n; from += step) {
		struct slice part = slice_sub(s, from, from + step);
		must(c.nextents < CONTENT_EXTENTS &&
		     pwrite(c.fd, part.p, part.n, (off_t)at) == (ssize_t)part.n);
		c.extents[c.nextents].offset = at;
		c.extents[c.nextents++].length = part.n;
		at += part.n + 7;
	}
	return c;
}

static void
written(const struct content *c, enum content_form form, struct buf *out)
{
	struct slice prelude = SLICE_LIT("Return-Path: <a@b>\r\n");
	struct content_sizes sizes, measured;
	int fd = memory_file();

	must(!content_write(c, prelude, form, fd, &sizes));
	must(lseek(fd, 0, SEEK_SET) == 0);
	while (buf_read(out, fd, 65536) > 0)
		;
	close(fd);
	must(buf_len(out) == sizes.written && sizes.written <= sizes.crlf + buf_len(out));
	must(!content_measure(c, prelude, &measured));
	must(form == CONTENT_MBOX ||
	     (measured.written == sizes.written && measured.crlf == sizes.crlf));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf a = { 0 }, b = { 0 };
	bool found[2] = { false, false };

	if (!size || size > 65536)
		return 0;
	enum content_form form = data[0] & 1 ? CONTENT_MBOX : CONTENT_LF;
	struct slice in = slice(data + 1, size - 1);
	struct content whole = { .bytes = in, .fd = -1, .size = in.n, .binary = data[0] & 2 };
	struct content parts = in_extents(in, in.n / (1 + (data[0] >> 4)) + 1);
	parts.binary = whole.binary;
	written(&whole, form, &a);
	written(&parts, form, &b);
	must(slice_eq(buf_slice(&a), buf_slice(&b)));
	if (form == CONTENT_LF && slice_search(in, SLICE_LIT("\r")) < 0)
		must(slice_eq(slice_sub(buf_slice(&a), buf_len(&a) - in.n, buf_len(&a)), in));
	for (int itself = 0; itself < 2; itself++) {
		must(!content_delivered_to(&whole, SLICE_LIT("u@d"), itself, 8192, &found[0]));
		must(!content_delivered_to(&parts, SLICE_LIT("u@d"), itself, 8192, &found[1]));
		must(found[0] == found[1]);
	}
	close(parts.fd);
	buf_free(&a);
	buf_free(&b);
	return 0;
}
