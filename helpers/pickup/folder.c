/*
 * maildrop/ as a folder in which every local user may create files. Runs in pickup, as bh-pickup,
 * with that folder as its root. Hostile: names, types, sizes, links, owners, numbers of files.
 * Invariants: no link is followed and no file with a second name is read; a name that begins with a
 * dot is not looked at (it is being written, or was set aside); a file whose message is in the
 * queue is not taken again by this process, be it that it cannot be removed.
 */
#include "helpers/pickup/pickup.h"

#include "base/dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAITING_MAX 10000u /* names kept in memory; the rest waits for the next scan */
#define TAKEN_MAX 1000u
#define OWNERS 1024u

static void
on_change(evutil_socket_t fd, short what, void *ctx)
{
	struct pickup *p = ctx;
	char events[4096];

	(void)what;
	ev_turn();
	while (read(fd, events, sizeof(events)) > 0)
		;
	p->again = true;
	take_next(p);
}

int
folder_open(struct pickup *p)
{
	p->dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->dir < 0)
		return err_errno();
	p->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (p->inotify < 0 || inotify_add_watch(p->inotify, ".", IN_MOVED_TO | IN_ONLYDIR) < 0) {
		log_event(LOG_maildrop_watch,
		    "reason=\"%s\" remedy=\"raise fs.inotify.max_user_watches; maildrop is looked "
		    "at every minute meanwhile\"",
		    err_str(err_errno()));
		return 0;
	}
	p->changed = event_new(p->d->base, p->inotify, EV_READ | EV_PERSIST, on_change, p);
	event_add(p->changed, NULL);
	return 0;
}

static bool
is_candidate(const char *name)
{
	size_t n = strlen(name);

	if (!n || n >= PICKUP_NAME || name[0] == '.')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!ascii_is_alnum((unsigned char)name[i]) && !strchr(".-_", name[i]))
			return false;
	return true;
}

/* Files of one owner beyond the limit wait: they neither crowd others out nor are they lost. */
struct owners {
	struct {
		uint32_t uid, files;
	} v[OWNERS];
	size_t n;
};

static bool
over_limit(struct owners *o, uint32_t uid, int64_t limit, bool *first_r)
{
	size_t i = 0;

	*first_r = false;
	while (i < o->n && o->v[i].uid != uid)
		i++;
	if (i == OWNERS)
		return true;
	if (i == o->n)
		o->v[o->n++].uid = uid;
	*first_r = ++o->v[i].files == limit + 1;
	return limit && o->v[i].files > limit;
}

static int64_t
mtime_ns(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static int
try_unlink(struct pickup *p, const char *name)
{
	int err = unlinkat(p->dir, name, 0) ? err_errno() : 0;

	if (err == -ENOENT)
		err = 0;
	if (err)
		log_event(LOG_maildrop_unlink, "file=%s reason=\"%s\" remedy=\"%s\"",
		    log_cstr(name), err_str(err), folder_remedy(err));
	return err;
}

/* The next try to remove it, if it is still the same file. */
static bool
was_taken(struct pickup *p, const char *name, const struct stat *st)
{
	struct taken *t;

	STAILQ_FOREACH(t, &p->taken, next)
		if (strcmp(t->name, name) == 0)
			break;
	if (!t)
		return false;
	bool same = t->inode == st->st_ino && t->mtime_ns == mtime_ns(st);
	if (same && try_unlink(p, name))
		return true;
	STAILQ_REMOVE(&p->taken, t, taken, next);
	p->n_taken--;
	free(t);
	return same;
}

void
folder_remove(struct pickup *p, const char *name, int fd)
{
	struct taken *t;
	struct stat st;

	if (!try_unlink(p, name) || fstat(fd, &st))
		return;
	t = xcalloc(1, sizeof(*t));
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->inode = st.st_ino;
	t->mtime_ns = mtime_ns(&st);
	STAILQ_INSERT_TAIL(&p->taken, t, next);
	p->n_taken++;
}

static void
add(struct pickup *p, const char *name, struct owners *owners)
{
	struct waiting *w;
	struct stat st;
	bool first;

	if (!is_candidate(name) || p->waiting >= WAITING_MAX)
		return;
	if (fstatat(p->dir, name, &st, AT_SYMLINK_NOFOLLOW)) {
		int err = err_errno();
		if (err != -ENOENT)
			log_event(LOG_maildrop_postponed, "file=%s reason=\"%s\" remedy=\"%s\"",
			    log_cstr(name), err_str(err), folder_remedy(err));
		return;
	}
	if (was_taken(p, name, &st))
		return;
	if (over_limit(owners, st.st_uid, p->d->conf->maildrop_owner_limit, &first)) {
		if (first)
			log_event(LOG_maildrop_limit,
			    "uid=%u file=%s reason=\"more than maildrop_owner_limit files\" "
			    "remedy=\"this one and others wait their turn\"",
			    st.st_uid, log_cstr(name));
		return;
	}
	w = xcalloc(1, sizeof(*w));
	snprintf(w->name, sizeof(w->name), "%s", name);
	STAILQ_INSERT_TAIL(&p->files, w, next);
	p->waiting++;
}

void
folder_scan(struct pickup *p)
{
	struct owners *owners;
	struct dirent *e;
	DIR *dir;
	int err = dir_open(p->dir, ".", 0, &dir);

	if (err) {
		log_event(LOG_maildrop_unreadable, "reason=\"%s\" remedy=\"%s\"", err_str(err),
		    err == -EACCES ? "correct the owner of maildrop in queue_directory"
				   : folder_remedy(err));
		return;
	}
	owners = xcalloc(1, sizeof(*owners));
	while ((errno = 0, e = readdir(dir)))
		add(p, e->d_name, owners);
	if (errno)
		log_event(LOG_maildrop_unreadable, "reason=\"%s\" remedy=\"%s\"",
		    err_str(err_errno()), folder_remedy(err_errno()));
	free(owners);
	closedir(dir);
}

bool
folder_next(struct pickup *p, char name_r[PICKUP_NAME])
{
	struct waiting *w = STAILQ_FIRST(&p->files);

	/* Where nothing can be removed, no more is taken than can be remembered. */
	if (!w || p->n_taken >= TAKEN_MAX)
		return false;
	snprintf(name_r, PICKUP_NAME, "%s", w->name);
	STAILQ_REMOVE_HEAD(&p->files, next);
	p->waiting--;
	free(w);
	return true;
}

bool
folder_is_odd(int err)
{
	return err <= ERR_TRUNCATED || err == -ELOOP || err == -ENXIO || err == -EACCES ||
	       err == -EPERM;
}

const char *
folder_remedy(int err)
{
	return err == -EMFILE || err == -ENFILE || err == -ENOMEM
		   ? "raise the limits of open files and memory; it is tried again in a minute"
	       : err == -EROFS ? "mount the file system of queue_directory for writing; it is "
				 "tried again in a minute"
			       : "check the disk of queue_directory and the kernel log; it is "
				 "tried again in a minute";
}

int
folder_take(struct pickup *p, const char *name, uint32_t *uid_r, uint64_t *size_r)
{
	int64_t limit = p->d->conf->maildrop_file_limit;
	struct stat st;
	int fd = openat(p->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	*uid_r = UINT32_MAX;
	if (fd < 0)
		return err_errno();
	if (fstat(fd, &st)) {
		int err = err_errno();
		close(fd);
		return err;
	}
	*uid_r = st.st_uid;
	*size_r = (uint64_t)st.st_size;
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1 ||
	    (limit && st.st_size > limit + (int64_t)MAILDROP_HEAD_MAX)) {
		close(fd);
		return S_ISREG(st.st_mode) && st.st_nlink == 1 ? ERR_LIMIT : ERR_DENIED;
	}
	return fd;
}

/* The jail lets us rename files and directories alone. What else a user can leave holds no message.
 */
static bool
remove_odd(struct pickup *p, const char *name)
{
	struct stat st;

	return fstatat(p->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode) &&
	       !S_ISDIR(st.st_mode) && unlinkat(p->dir, name, 0) == 0;
}

void
folder_set_aside(struct pickup *p, const char *name, uint32_t uid, const char *why)
{
	char aside[PICKUP_NAME + 8];

	snprintf(aside, sizeof(aside), ".bad.%s", name);
	if (remove_odd(p, name)) {
		log_event(LOG_maildrop_refused,
		    "uid=%u file=%s reason=%s remedy=\"it was removed; find out who made it\"", uid,
		    log_cstr(name), log_cstr(why));
		return;
	}
	if (renameat(p->dir, name, p->dir, aside)) /* it stays, and is refused at the next scan */
		snprintf(aside, sizeof(aside), "%s", name);
	log_event(LOG_maildrop_refused,
	    "uid=%u file=%s reason=%s remedy=\"look at %s in maildrop, then remove it\"", uid,
	    log_cstr(name), log_cstr(why), aside);
}
