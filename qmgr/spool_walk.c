/*
 * The walk through a folder of the spool: what each file is, as far as a start has to know. Runs in
 * the threads of the pool. Hostile input: the files.
 */
#include "qmgr/spool.h"

#include "base/dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static void
copy_text(char *dst, size_t size, struct slice s)
{
	size_t n = s.n < size - 1 ? s.n : size - 1;

	if (n)
		memcpy(dst, s.p, n);
	dst[n] = '\0';
}

static void
summarise(const struct envelope *e, struct spool_found *f)
{
	f->arrival = e->arrival;
	f->size = e->size;
	f->flags = e->flags;
	copy_text(f->sender, sizeof(f->sender), e->sender);
	for (size_t i = 0; i < e->n_rcpts; i++) {
		const struct rcpt_status *s = e->rcpts[i].status;
		ptrdiff_t at = slice_rfind(e->rcpts[i].address, '@');
		char code[16];

		if (s->state == RCPT_DONE || s->state == RCPT_FAILED)
			continue;
		if (!f->open_rcpts)
			copy_text(f->domain, sizeof(f->domain),
			    slice_sub(e->rcpts[i].address, (size_t)(at + 1), SIZE_MAX));
		if (!f->reason[0] && s->text[0]) {
			rcpt_status_enhanced(s, code);
			snprintf(f->reason, sizeof(f->reason), "%s %s", code, s->text);
		}
		f->open_rcpts++;
	}
}

static void
look_at(const struct spool_op *o, int dir, struct spool_found *f)
{
	struct arena a = { 0 };
	struct envelope e;
	struct queue_layout l;
	struct stat st;
	int fd = -1;

	if (fstatat(dir, f->name, &st, AT_SYMLINK_NOFOLLOW)) {
		f->err = err_errno();
		return;
	}
	f->mtime_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
	f->held = (st.st_mode & 07777) == QUEUE_MODE_HELD;
	f->open = o->incoming || (st.st_mode & 07777) == QUEUE_MODE_OPEN;
	f->err = S_ISREG(st.st_mode) ? 0 : ERR_CORRUPT;
	if (f->open || f->err)
		return;
	fd = openat(dir, f->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	f->err = fd < 0 ? err_errno() : queue_file_read(fd, &a, &e, &l);
	if (!f->err && e.id != f->id)
		f->err = ERR_CORRUPT;
	if (!f->err)
		summarise(&e, f);
	if (fd >= 0)
		close(fd);
	arena_free(&a);
}

int
spool_walk(struct spool_op *o)
{
	int dir = o->incoming ? o->spool->incoming : o->spool->dirs[o->dir];
	struct dirent *d;
	DIR *walk;

	o->more = false;
	o->n_found = 0;
	if (!o->walk) {
		int err = dir_open(dir, ".", 0, &walk);

		if (err)
			return err;
		o->walk = walk;
		o->found = xcalloc(SPOOL_WALK_BATCH, sizeof(*o->found));
	}
	while (o->n_found < SPOOL_WALK_BATCH) {
		struct spool_found *f = &o->found[o->n_found];

		errno = 0;
		if (!(d = readdir(o->walk))) {
			int err = errno ? err_errno() : 0;

			closedir(o->walk);
			o->walk = NULL;
			return err;
		}
		if (d->d_name[0] == '.')
			continue;
		*f = (struct spool_found){ 0 };
		copy_text(f->name, sizeof(f->name), slice_str(d->d_name));
		f->junk = queue_id_parse(slice_str(d->d_name), &f->id) ||
			  (!o->incoming && queue_id_dir(f->id) != o->dir);
		if (!f->junk && f->id >= o->own_from && (f->id & 1023) == o->own_start)
			continue;
		if (!f->junk)
			look_at(o, dir, f);
		o->n_found++;
	}
	o->more = true;
	return 0;
}
