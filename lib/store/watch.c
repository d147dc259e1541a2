/*
 * What other programs do in open folders, by inotify: one descriptor per store, two watches (new/
 * and cur/) per open folder. An event becomes a hint in its folder; scan.c looks at hinted names
 * only, so a new message or a foreign rename costs no directory read. When events were lost, or
 * watches cannot be had, the folder falls back to mtimes and whole scans.
 */
#include "store/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

enum { HINTS_MAX = 2000 };
#define WATCH_MASK (IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ONLYDIR)

void
watch_open(struct store *s)
{
	s->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
}

static int
add(struct folder *f, const char *sub)
{
	const char *root = f->store->path;
	char *path =
	    xasprintf("%s%s%s/%s", root, root[strlen(root) - 1] == '/' ? "" : "/", f->disk, sub);
	int wd = inotify_add_watch(f->store->inotify, path, WATCH_MASK);

	free(path);
	return wd;
}

void
watch_folder(struct folder *f)
{
	f->wd_cur = f->wd_new = -1;
	if (f->store->inotify < 0)
		return;
	f->wd_cur = add(f, "cur");
	f->wd_new = f->wd_cur < 0 ? -1 : add(f, "new");
	if (f->wd_new < 0)
		watch_drop(f);
}

void
watch_drop(struct folder *f)
{
	if (f->wd_cur >= 0)
		inotify_rm_watch(f->store->inotify, f->wd_cur);
	if (f->wd_new >= 0)
		inotify_rm_watch(f->store->inotify, f->wd_new);
	f->wd_cur = f->wd_new = -1;
	f->cur.known = f->new.known = false;
}

void
hints_clear(struct folder *f)
{
	for (size_t i = 0; i < f->hint_count; i++)
		free(f->hints[i].name);
	f->hint_count = 0;
}

static void
hint_add(struct folder *f, uint8_t dir, bool gone, const char *name)
{
	if (name[0] == '.' || f->scan_due)
		return;
	if (f->hint_count >= HINTS_MAX) {
		hints_clear(f);
		f->scan_due = true;
		return;
	}
	if (f->hint_count == f->hint_size) {
		f->hint_size = f->hint_size ? f->hint_size * 2 : 16;
		f->hints = xrealloc(f->hints, f->hint_size * sizeof(*f->hints));
	}
	f->hints[f->hint_count++] = (struct hint){ dir, gone, xstrdup(name) };
}

static bool
event(struct store *s, const struct inotify_event *e)
{
	struct folder *f;

	TAILQ_FOREACH(f, &s->folders, entry) {
		bool mine = e->wd == f->wd_cur || e->wd == f->wd_new;
		if (e->mask & IN_Q_OVERFLOW) {
			f->scan_due = true;
			hints_clear(f);
			continue;
		}
		if (!mine)
			continue;
		if (e->mask & IN_IGNORED) { /* the directory is gone */
			if (e->wd == f->wd_cur)
				f->wd_cur = -1;
			else
				f->wd_new = -1;
			f->scan_due = true;
		} else if (e->len) {
			hint_add(f, e->wd == f->wd_new ? DIR_NEW : DIR_CUR,
			    (e->mask & (IN_MOVED_FROM | IN_DELETE)) != 0, e->name);
		}
		return true;
	}
	return (e->mask & IN_Q_OVERFLOW) != 0;
}

bool
watch_read(struct store *s)
{
	_Alignas(struct inotify_event) char buf[16384];
	bool any = false;

	while (s->inotify >= 0) {
		ssize_t n = read(s->inotify, buf, sizeof(buf));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		for (char *p = buf; p < buf + n;) {
			const struct inotify_event *e = (const void *)p;
			any |= event(s, e);
			p += sizeof(*e) + e->len;
		}
		if ((size_t)n < sizeof(buf) / 2)
			break; /* nearly empty: no second call for EAGAIN */
	}
	return any;
}
