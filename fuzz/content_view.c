/*
 * Fuzz target: the CRLF view of a message that another program left in a Maildir. The first byte:
 * how many octets are read at once, and in which order. Checked: whatever the order, the view is
 * the file with a CR before each LF that had none, and its size is the one that is told, be it
 * measured or kept from before. One store serves the whole run: to make one takes a hundred times
 * as long as to look at a message.
 */
#include "fuzz/must.h"
#include "store/internal.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BACKWARD_MAX = 64 }; /* each read that goes back begins at the head of the file again */

static struct {
	char root[32];
	int fd;
	struct store *store;
	struct mailbox *mailbox;
} run;

static int
gone(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void
finish(void)
{
	close(run.fd);
	mailbox_free(&run.mailbox);
	store_free(&run.store);
	must(!nftw(run.root, gone, 8, FTW_DEPTH | FTW_PHYS));
}

static void
begin(void)
{
	char path[64];

	snprintf(run.root, sizeof(run.root), "/dev/shm/bulkhead-fuzz-XXXXXX");
	must(mkdtemp(run.root) && !store_open(run.root, NULL, &run.store));
	snprintf(path, sizeof(path), "%s/cur/1.other", run.root);
	run.fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	must(run.fd >= 0 && !mailbox_open(run.store, SLICE_LIT("INBOX"), 0, &run.mailbox));
	must(!atexit(finish));
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
look(struct slice want, size_t step, bool backward)
{
	unsigned char got[64];
	size_t turns = want.n / step + 1, stride = backward ? 1 + turns / BACKWARD_MAX : 1;
	struct content *c;

	must(!content_open(run.mailbox, 1, &c));
	must(content_size(c) == want.n);
	for (size_t k = 0; k < turns; k += stride) {
		size_t at = (backward ? turns - 1 - k : k) * step;
		ptrdiff_t n = content_read(c, at, got, step);
		must(n >= 0 && (n > 0 || at == want.n));
		must(slice_eq(slice(got, (size_t)n), slice_sub(want, at, at + (size_t)n)));
	}
	content_free(&c);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = slice(data + 1, size - 1);
	struct buf want = { 0 };
	struct slot *slot;

	if (!size || size > 8192)
		return 0;
	if (!run.store)
		begin();
	must(!ftruncate(run.fd, 0) && pwrite(run.fd, in.p, in.n, 0) == (ssize_t)in.n);
	expected(in, &want);
	slot = folder_slot(run.mailbox->folder, 1);
	slot->size = SIZE_UNKNOWN; /* as when it was found */
	slot->date = DATE_UNKNOWN;
	slot->state |= SLOT_LOOKED_UP;
	look(buf_slice(&want), 1 + data[0] % 64, data[0] & 64);
	slot->size = SIZE_UNKNOWN; /* as the next session has it, from the index */
	slot->state &= (uint8_t)~SLOT_LOOKED_UP;
	look(buf_slice(&want), 1 + data[0] % 32, !(data[0] & 64));
	buf_free(&want);
	return 0;
}
