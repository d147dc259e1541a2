/*
 * Opening and closing a user's store, and what belongs to no other file: UID lists, special-use
 * names. Runs in the user's session, whose root is the mail directory.
 */
#include "store/internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/vfs.h>
#include <unistd.h>

/* On these an fsync of a file that was made or renamed also makes its name durable. */
static bool
names_follow(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 && (fs.f_type == 0xEF53 || fs.f_type == 0x58465342);
}

static void
host_name(struct store *s)
{
	if (gethostname(s->host, sizeof(s->host) - 1) < 0 || !s->host[0])
		memcpy(s->host, "localhost", 10);
	for (char *p = s->host; *p; p++)
		if (!ascii_is_alnum((unsigned char)*p) && !strchr("-._", *p))
			*p = '_';
}

int
store_open(const char *path, const struct store_options *options, struct store **out_r)
{
	struct store *s = xcalloc(1, sizeof(*s));
	int rc = 0;

	*out_r = NULL;
	s->path = xstrdup(path);
	s->inotify = -1;
	TAILQ_INIT(&s->folders);
	if (options)
		s->options = *options;
	s->rootfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->rootfd < 0)
		rc = err_errno();
	if (rc == 0 && getrandom(s->hash_key, sizeof(s->hash_key), 0) < 0)
		rc = err_errno();
	if (rc == 0 && faccessat(s->rootfd, "cur", F_OK, 0) < 0)
		rc = maildir_make(s->rootfd, ".");
	if (rc < 0) {
		store_free(&s);
		return rc;
	}
	s->sync_names = !names_follow(s->rootfd);
	host_name(s);
	watch_open(s);
	s->index = index_open(path, s->rootfd, s->options.read_only_index);
	*out_r = s;
	return 0;
}

int
store_root(struct slice spec, char *path, size_t size)
{
	if (!slice_has_prefix(spec, "maildir:/"))
		return ERR_NOT_FOUND;
	return slice_copy(slice_sub(spec, sizeof("maildir:") - 1, SIZE_MAX), path, size);
}

int
store_make_root(const char *path)
{
	struct stat st;
	char *copy;
	int rc = 0;

	if (stat(path, &st) == 0)
		return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
	copy = xstrdup(path);
	for (char *p = copy + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		(void)!mkdir(copy, 0755);
		*p = '/';
	}
	if (mkdir(copy, 0700) < 0 && errno != EEXIST)
		rc = err_errno();
	free(copy);
	return rc;
}

void
store_free(struct store **sp)
{
	struct store *s = *sp;

	*sp = NULL;
	if (!s)
		return;
	index_free(&s->index);
	if (s->inotify >= 0)
		close(s->inotify);
	if (s->rootfd >= 0)
		close(s->rootfd);
	free(s->path);
	free(s);
}

void
store_flush(struct store *s)
{
	struct folder *f;

	TAILQ_FOREACH(f, &s->folders, entry) {
		folder_compact_if_due(f); /* a folder may be open for months */
		folder_note_dirs(f);
		row_save(f);
	}
	index_flush(s->index);
}

bool
store_index_renewed(const struct store *s)
{
	return s->index && index_renewed(s->index);
}

int
store_watch_fd(const struct store *s)
{
	return s->inotify;
}

bool
store_unwatched(const struct store *s)
{
	const struct folder *f;

	TAILQ_FOREACH(f, &s->folders, entry)
		if (!f->gone && (f->wd_cur < 0 || f->wd_new < 0))
			return true;
	return false;
}

bool
store_changed(struct store *s)
{
	struct folder *f;

	(void)watch_read(s);
	TAILQ_FOREACH(f, &s->folders, entry) {
		if (f->scan_due || f->hint_count)
			return true;
	}
	return false;
}

/* --- small things --- */

void
uid_list_add(struct uid_list *l, uint32_t uid)
{
	if (l->count == l->size) {
		l->size = l->size ? l->size * 2 : 8;
		l->uids = xrealloc(l->uids, l->size * sizeof(*l->uids));
	}
	l->uids[l->count++] = uid;
}

void
uid_list_free(struct uid_list *l)
{
	free(l->uids);
	*l = (struct uid_list){ 0 };
}

void
copy_result_free(struct copy_result *r)
{
	uid_list_free(&r->from);
	uid_list_free(&r->to);
	r->uidvalidity = 0;
}

static const struct {
	enum special_use bit;
	const char *name;
} specials[] = {
	{ SPECIAL_ALL, "\\All" },
	{ SPECIAL_ARCHIVE, "\\Archive" },
	{ SPECIAL_DRAFTS, "\\Drafts" },
	{ SPECIAL_FLAGGED, "\\Flagged" },
	{ SPECIAL_JUNK, "\\Junk" },
	{ SPECIAL_SENT, "\\Sent" },
	{ SPECIAL_TRASH, "\\Trash" },
	{ SPECIAL_IMPORTANT, "\\Important" },
};

const char *
special_use_name(enum special_use bit)
{
	for (size_t i = 0; i < sizeof(specials) / sizeof(specials[0]); i++)
		if (specials[i].bit == bit)
			return specials[i].name;
	return NULL;
}

enum special_use
special_use_parse(struct slice s)
{
	for (size_t i = 0; i < sizeof(specials) / sizeof(specials[0]); i++)
		if (slice_caseeq_str(s, specials[i].name))
			return specials[i].bit;
	return SPECIAL_NONE;
}
