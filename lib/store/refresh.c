/*
 * Bringing a folder up to date at the least cost: what inotify told, mtimes, and only then a whole
 * scan. Runs in the user's session. A hint is a name only; what is there now is looked up under the
 * lock.
 *
 * An mtime has the grain of a clock tick: a directory that changed within the last tick is not
 * taken as known and is read once more next time.
 */
#include "store/scan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define TICK_NS 12000000 /* a little over a tick of the slowest usual clock */

/* --- what a directory looks like --- */

void
dir_state_read(int dirfd, const char *sub, struct dir_state *out)
{
	struct stat st;
	struct timespec now;

	*out = (struct dir_state){ 0 };
	if (fstatat(dirfd, sub, &st, 0) < 0)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	out->sec = st.st_mtim.tv_sec;
	out->nsec = st.st_mtim.tv_nsec;
	int64_t age = (int64_t)(now.tv_sec - st.st_mtim.tv_sec) * 1000000000 +
		      (now.tv_nsec - st.st_mtim.tv_nsec);
	out->known = age > (st.st_mtim.tv_nsec ? TICK_NS : 2000000000);
}

/* b is what stands there now. Whether b's mtime is old enough does not matter: a was. */
bool
dir_state_same(const struct dir_state *a, const struct dir_state *b)
{
	return a->known && a->sec == b->sec && a->nsec == b->nsec;
}

/* --- names that inotify told --- */

/* Nothing to do: our own rename, or a file that we know by another name by now. */
static bool
hint_idle(struct folder *f, const struct hint *h)
{
	size_t len = strlen(h->name), base_len = strcspn(h->name, ":");
	const struct slot *s = folder_find_base(f, h->name, base_len);

	if (!s)
		return h->gone;
	bool same = (s->state & SLOT_NEW) == (h->dir == DIR_NEW ? SLOT_NEW : 0) &&
		    s->name_len == len && memcmp(slot_name(f, s), h->name, len) == 0;
	return h->gone ? !same : same;
}

static bool
hint_exists(struct folder *f, const struct hint *h)
{
	char path[272];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%.255s", h->dir == DIR_NEW ? "new" : "cur", h->name);
	return folder_file_exists(f, path, &st) && S_ISREG(st.st_mode);
}

static int
hints_under_lock(struct folder *f)
{
	struct scan s;
	int rc;

	folder_pack(f);
	scan_init(&s, f);
	for (size_t i = 0; i < f->hint_count; i++) {
		const struct hint *h = &f->hints[i];
		bool again = false;
		for (size_t j = i + 1; j < f->hint_count && !again && f->hint_count < 200; j++)
			again = !f->hints[j].gone && names_same_base(h->name, f->hints[j].name);
		if (h->gone || again || hint_idle(f, h) || !hint_exists(f, h))
			continue;
		scan_see(&s, h->dir, h->name);
	}
	scan_clear_marks(f);
	rc = scan_assign(&s);
	if (rc == 0)
		rc = scan_flush(&s, true);
	for (size_t i = 0; i < f->hint_count && rc == 0; i++) {
		const struct hint *h = &f->hints[i];
		if (h->gone && !hint_idle(f, h) && !hint_exists(f, h))
			f->scan_due = true;
	}
	scan_free(&s);
	hints_clear(f);
	if (rc < 0)
		f->scan_due = true;
	return rc == 0 && f->scan_due ? folder_scan(f) : rc;
}

static bool
hints_all_idle(struct folder *f)
{
	for (size_t i = 0; i < f->hint_count; i++)
		if (!hint_idle(f, &f->hints[i]))
			return false;
	hints_clear(f);
	return true;
}

/* Call when the state is known to be that of the directories (all events read). */
void
folder_note_dirs(struct folder *f)
{
	if (f->wd_cur < 0 || f->wd_new < 0 || f->scan_due || f->gone)
		return;
	dir_state_read(f->dirfd, "cur", &f->cur);
	dir_state_read(f->dirfd, "new", &f->new);
	(void)watch_read(f->store);
	if (f->hint_count && !hints_all_idle(f))
		f->cur.known = f->new.known = false;
}

int
folder_refresh(struct folder *f, bool force)
{
	struct dir_state cur, new;
	int rc = folder_tail(f);

	if (rc < 0)
		return rc;
	(void)watch_read(f->store);
	if (f->wd_cur < 0 || f->wd_new < 0) {
		dir_state_read(f->dirfd, "cur", &cur);
		dir_state_read(f->dirfd, "new", &new);
		if (!dir_state_same(&f->cur, &cur) || !dir_state_same(&f->new, &new))
			f->scan_due = true;
	}
	if (force)
		f->scan_due = true;
	if (!f->scan_due && (f->hint_count == 0 || hints_all_idle(f)))
		return 0;
	rc = folder_lock(f);
	if (rc < 0)
		return rc;
	rc = f->scan_due ? folder_scan(f) : hints_under_lock(f);
	folder_unlock(f);
	return rc;
}

/* At the opening of a read-write view: files that got their UIDs in new/ go to cur/. */
int
folder_take_new(struct folder *f)
{
	struct scan s;
	bool any = false;
	int rc;

	for (size_t i = 0; i < f->slot_count && !any; i++)
		any = (f->slots[i].state & (SLOT_DEAD | SLOT_NEW)) == SLOT_NEW;
	if (!any)
		return 0;
	rc = folder_lock(f);
	if (rc < 0)
		return rc;
	scan_init(&s, f);
	for (size_t i = 0; i < f->slot_count; i++) {
		struct slot *sl = &f->slots[i];
		char name[256];
		if ((sl->state & (SLOT_DEAD | SLOT_NEW)) != SLOT_NEW)
			continue;
		memcpy(name, slot_name(f, sl), sl->name_len);
		name[sl->name_len] = '\0';
		scan_update(&s, sl, DIR_NEW, name);
	}
	rc = scan_flush(&s, true);
	scan_free(&s);
	folder_unlock(f);
	return rc;
}
