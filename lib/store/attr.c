/*
 * Dates, sizes and content of messages. Runs in the user's session; the files are the user's and
 * may hold anything, change or vanish. Invariant of the CRLF view: every LF without a CR before it
 * is shown as CRLF, unless the name says that size and CRLF size are equal (",S=n,W=n", true for
 * what this suite wrote): then the file is shown as it is, binary content included.
 */
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { CHUNK = 65536, CHECKPOINT = 1 << 20 };

struct checkpoint {
	uint64_t view, file;
	bool cr; /* the byte before is CR */
};

struct content {
	int fd;
	uint64_t size, file_size;
	bool convert;
	struct checkpoint at;
	struct checkpoint *points; /* one each CHECKPOINT bytes of the view */
	size_t point_count, point_size;
	unsigned char *chunk;
	uint64_t chunk_at; /* file offset of chunk[0] */
	size_t chunk_len;
	bool half; /* the LF of a shown CRLF is still to come at at.view */
};

static int
folder_open_file(struct folder *f, uint32_t uid, int *fd_r)
{
	char path[272];

	for (int tries = 0; tries < 3; tries++) {
		struct slot *s = folder_slot(f, uid);
		if (!s)
			return ERR_NOT_FOUND;
		slot_path(f, s, path);
		*fd_r = openat(f->dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (*fd_r >= 0)
			return 0;
		if (errno != ENOENT)
			return err_errno();
		int rc = folder_rescan(f);
		if (rc < 0)
			return rc;
	}
	return ERR_NOT_FOUND;
}

/* Bytes of the CRLF view. */
static int
count_file(int fd, uint64_t *out_r)
{
	unsigned char *buf = xmalloc(CHUNK);
	uint64_t total = 0;
	unsigned char last = 0;
	ssize_t n;
	off_t at = 0;

	while ((n = pread(fd, buf, CHUNK, at)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		total += (uint64_t)n;
		for (const unsigned char *p = buf, *end = buf + n; p < end; p++) {
			p = memchr(p, '\n', (size_t)(end - p));
			if (!p)
				break;
			total += (p == buf ? last : p[-1]) != '\r';
		}
		last = buf[n - 1];
		at += n;
	}
	int rc = n < 0 ? err_errno() : 0;
	free(buf);
	*out_r = total;
	return rc;
}

/* What the open file says, kept in the slot and in the index. */
static int
measure(struct folder *f, uint32_t uid, int fd, struct stat *st, bool want_size, bool *convert_r)
{
	struct slot *s = folder_slot(f, uid);
	struct file_name fn;
	uint64_t size;

	if (fstat(fd, st) < 0)
		return err_errno();
	if (!S_ISREG(st->st_mode))
		return -EINVAL;
	if (!s)
		return ERR_NOT_FOUND;
	folder_load_attr(f, s);
	bool news = s->date != st->st_mtim.tv_sec;
	s->date = st->st_mtim.tv_sec;
	maildir_parse(slot_name(f, s), s->base_len, &fn);
	bool told =
	    fn.size == (uint64_t)st->st_size && fn.vsize != SIZE_UNKNOWN && fn.vsize >= fn.size;
	if (told)
		size = fn.vsize;
	else if (s->size != SIZE_UNKNOWN && fn.vsize == SIZE_UNKNOWN &&
		 s->size >= (uint64_t)st->st_size)
		size = s->size;
	else if (!want_size)
		size = SIZE_UNKNOWN;
	else {
		int rc = count_file(fd, &size);
		if (rc < 0)
			return rc;
	}
	news |= size != s->size && size != SIZE_UNKNOWN && !told;
	if (size != SIZE_UNKNOWN)
		s->size = size;
	*convert_r = size != (uint64_t)st->st_size;
	if (news)
		folder_save_attr(f, s);
	return 0;
}

static int
look(struct folder *f, uint32_t uid, bool want_size)
{
	struct stat st;
	bool convert;
	int fd;
	int rc = folder_open_file(f, uid, &fd);

	if (rc < 0)
		return rc;
	rc = measure(f, uid, fd, &st, want_size, &convert);
	close(fd);
	return rc;
}

int
folder_slot_size(struct folder *f, uint32_t uid, uint64_t *out_r)
{
	struct slot *s = folder_slot(f, uid);
	struct file_name fn;

	if (!s)
		return ERR_NOT_FOUND;
	if (s->size == SIZE_UNKNOWN) {
		maildir_parse(slot_name(f, s), s->base_len, &fn);
		s->size = fn.vsize;
	}
	if (s->size == SIZE_UNKNOWN)
		folder_load_attr(f, s);
	if (s->size == SIZE_UNKNOWN) {
		int rc = look(f, uid, true);
		if (rc < 0)
			return rc;
		s = folder_slot(f, uid);
	}
	*out_r = s->size;
	return 0;
}

static int
folder_slot_date(struct folder *f, uint32_t uid, int64_t *out_r)
{
	struct slot *s = folder_slot(f, uid);

	if (!s)
		return ERR_NOT_FOUND;
	if (s->date == DATE_UNKNOWN)
		folder_load_attr(f, s);
	if (s->date == DATE_UNKNOWN) {
		int rc = look(f, uid, false);
		if (rc < 0)
			return rc;
		s = folder_slot(f, uid);
	}
	*out_r = s->date;
	return 0;
}

/* Sums of sizes, once per state of the folder. */
int
folder_totals(struct folder *f)
{
	if (f->total_modseq == f->modseq && f->total_uidnext == f->uidnext)
		return 0;
	uint64_t total = 0, deleted = 0;
	for (size_t i = 0; i < f->slot_count; i++) {
		uint64_t size = f->slots[i].size;
		if (f->slots[i].state & SLOT_DEAD)
			continue;
		if (size == SIZE_UNKNOWN) {
			uint32_t uid = f->slots[i].m.uid;
			int rc = folder_slot_size(f, uid, &size);
			if (rc < 0 && rc != ERR_NOT_FOUND)
				return rc;
			/* A scan may have moved the slots. */
			i = folder_first_slot(f, rc < 0 ? uid + 1 : uid) - (rc < 0);
			if (rc < 0)
				continue;
		}
		total += size;
		if (f->slots[i].m.flags & FLAG_DELETED)
			deleted += size;
	}
	f->total_size = total;
	f->total_deleted = deleted;
	f->total_modseq = f->modseq;
	f->total_uidnext = f->uidnext;
	return 0;
}

int
mailbox_date(struct mailbox *m, uint32_t uid, int64_t *out_r)
{
	return folder_slot_date(m->folder, uid, out_r);
}

int
mailbox_size(struct mailbox *m, uint32_t uid, uint64_t *out_r)
{
	return folder_slot_size(m->folder, uid, out_r);
}

int
mailbox_cache_get(struct mailbox *m, uint32_t uid, unsigned char kind, struct buf *out)
{
	char key[32];

	return index_get(m->store->index, message_key(m->folder, 'B', uid, kind, key), out);
}

void
mailbox_cache_put(struct mailbox *m, uint32_t uid, unsigned char kind, struct slice value)
{
	char key[32];

	if (folder_slot(m->folder, uid))
		index_put(m->store->index, message_key(m->folder, 'B', uid, kind, key), value);
}

/* --- content --- */

int
content_open(struct mailbox *m, uint32_t uid, struct content **out_r)
{
	struct stat st;
	bool convert;
	int fd;
	int rc = folder_open_file(m->folder, uid, &fd);

	*out_r = NULL;
	if (rc < 0)
		return rc;
	rc = measure(m->folder, uid, fd, &st, true, &convert);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	struct content *c = xcalloc(1, sizeof(*c));
	c->fd = fd;
	c->file_size = (uint64_t)st.st_size;
	c->convert = convert;
	c->size = folder_slot(m->folder, uid)->size;
	*out_r = c;
	return 0;
}

uint64_t
content_size(const struct content *c)
{
	return c->size;
}

static ptrdiff_t
read_plain(struct content *c, uint64_t offset, void *out, size_t n)
{
	ssize_t r;

	do {
		r = pread(c->fd, out, n, (off_t)offset);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return err_errno();
	return r == 0 ? ERR_CORRUPT : r;
}

/* Fills the chunk that holds file offset at.file; 0 at the end of the file. */
static ptrdiff_t
fill(struct content *c)
{
	ssize_t n;

	if (c->at.file >= c->chunk_at && c->at.file < c->chunk_at + c->chunk_len)
		return 1;
	if (!c->chunk)
		c->chunk = xmalloc(CHUNK);
	do {
		n = pread(c->fd, c->chunk, CHUNK, (off_t)c->at.file);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_errno();
	c->chunk_at = c->at.file;
	c->chunk_len = (size_t)n;
	return n > 0;
}

static void
note_point(struct content *c)
{
	if (c->half || c->at.view < (c->point_count + 1) * (uint64_t)CHECKPOINT)
		return;
	if (c->point_count == c->point_size) {
		c->point_size = c->point_size ? c->point_size * 2 : 8;
		c->points = xrealloc(c->points, c->point_size * sizeof(*c->points));
	}
	c->points[c->point_count++] = c->at;
}

/* Up to n bytes of the view from where it stands; out NULL skips. */
static ptrdiff_t
convert(struct content *c, unsigned char *out, size_t n)
{
	size_t done = 0;

	while (done < n) {
		if (c->half) {
			if (out)
				out[done] = '\n';
			done++;
			c->half = c->at.cr = false;
			c->at.file++;
			c->at.view++;
			continue;
		}
		ptrdiff_t rc = fill(c);
		if (rc < 0)
			return rc;
		if (rc == 0)
			break;
		const unsigned char *p = c->chunk + (c->at.file - c->chunk_at);
		size_t left = c->chunk_len - (size_t)(p - c->chunk);
		const unsigned char *lf = memchr(p, '\n', left);
		if (lf == p && !c->at.cr) {
			if (out)
				out[done] = '\r';
			done++;
			c->half = true;
			c->at.view++;
			continue;
		}
		size_t run = lf == p ? 1 : lf ? (size_t)(lf - p) : left;
		if (run > n - done)
			run = n - done;
		if (out)
			memcpy(out + done, p, run);
		c->at.cr = p[run - 1] == '\r';
		c->at.file += run;
		c->at.view += run;
		done += run;
		note_point(c);
	}
	return (ptrdiff_t)done;
}

static int
seek(struct content *c, uint64_t offset)
{
	if (offset < c->at.view) {
		size_t i = c->point_count;
		while (i > 0 && c->points[i - 1].view > offset)
			i--;
		c->at = i ? c->points[i - 1] : (struct checkpoint){ 0, 0, false };
		c->half = false;
	}
	while (c->at.view < offset) {
		uint64_t gap = offset - c->at.view;
		ptrdiff_t n = convert(c, NULL, gap > CHUNK ? CHUNK : (size_t)gap);
		if (n < 0)
			return (int)n;
		if (n == 0)
			return ERR_CORRUPT;
	}
	return 0;
}

ptrdiff_t
content_read(struct content *c, uint64_t offset, void *out, size_t n)
{
	if (offset >= c->size)
		return 0;
	if (n > c->size - offset)
		n = (size_t)(c->size - offset);
	if (n == 0)
		return 0;
	if (!c->convert)
		return read_plain(c, offset, out, n);
	int rc = seek(c, offset);
	if (rc < 0)
		return rc;
	ptrdiff_t got = convert(c, out, n);
	return got == 0 ? ERR_CORRUPT : got;
}

void
content_free(struct content **cp)
{
	struct content *c = *cp;

	*cp = NULL;
	if (!c)
		return;
	close(c->fd);
	free(c->points);
	free(c->chunk);
	free(c);
}
