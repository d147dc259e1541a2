/*
 * Fuzz target: the CRLF view of a message that another program left in a Maildir. The first byte:
 * how many octets are read at once, and in which order. Checked: whatever the order, the view is
 * the file with a CR before each LF that had none, and its size is the one that is told.
 */
#include "fuzz/must.h"
#include "store/store.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int
gone(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void
expected(struct slice in, struct buf *out)
{
	for (size_t i = 0; i < in.n; i++) {
		if (in.p[i] == '\n' && (!i || in.p[i - 1] != '\r'))
			buf_add_byte(out, '\r');
		buf_add_byte(out, in.p[i]);
	}
}

static void
look(struct content *c, struct slice want, size_t step, bool backward)
{
	unsigned char got[64];
	size_t turns = want.n / step + 1;

	must(content_size(c) == want.n);
	for (size_t k = 0; k < turns; k++) {
		size_t at = (backward ? turns - 1 - k : k) * step;
		ptrdiff_t n = content_read(c, at, got, step);
		must(n >= 0 && (n > 0 || at == want.n));
		must(slice_eq(slice(got, (size_t)n), slice_sub(want, at, at + (size_t)n)));
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char root[] = "/dev/shm/bulkhead-fuzz-XXXXXX", path[64];
	struct buf want = { 0 };
	struct store *s;
	struct mailbox *m;
	struct content *c;

	if (!size || size > 8192 || !mkdtemp(root))
		return 0;
	struct slice in = slice(data + 1, size - 1);
	must(!store_open(root, NULL, &s));
	snprintf(path, sizeof(path), "%s/cur/1.other", root);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	must(fd >= 0 && write(fd, in.p, in.n) == (ssize_t)in.n);
	close(fd);
	must(!mailbox_open(s, SLICE_LIT("INBOX"), 0, &m));
	must(!content_open(m, 1, &c));
	expected(in, &want);
	look(c, buf_slice(&want), 1 + (data[0] & 63) % 64, data[0] & 64);
	look(c, buf_slice(&want), 1 + (data[0] & 31), !(data[0] & 64));
	content_free(&c);
	mailbox_free(&m);
	store_free(&s);
	buf_free(&want);
	must(!nftw(root, gone, 8, FTW_DEPTH | FTW_PHYS));
	return 0;
}
