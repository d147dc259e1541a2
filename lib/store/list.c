/*
 * The list of folders. Runs in the user's session; the directory is the user's: names that are no
 * folder names are left out.
 */
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* --- names on disk --- */

typedef int disk_fn(void *ctx, const char *disk, const char *name);

/* Every folder directory, in the order of the disk; INBOX first. Stops at the first non-zero. */
static int
each_disk(struct store *s, disk_fn *fn, void *ctx)
{
	struct buf name = { 0 };
	struct dirent *e;
	struct stat st;
	DIR *d;
	int rc = dir_open(s->rootfd, ".", 0, &d);

	if (rc < 0)
		return rc;
	rc = fn(ctx, ".", "INBOX");
	while (rc == 0 && (e = readdir(d))) {
		if (e->d_name[0] != '.' || (e->d_type != DT_DIR && e->d_type != DT_UNKNOWN))
			continue;
		if (e->d_type == DT_UNKNOWN &&
		    (fstatat(s->rootfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
			!S_ISDIR(st.st_mode)))
			continue;
		buf_clear(&name);
		if (strcmp(e->d_name, ".") == 0 || name_from_disk(e->d_name, &name) < 0)
			continue;
		buf_add_byte(&name, 0);
		rc = fn(ctx, e->d_name, (const char *)buf_slice(&name).p);
	}
	closedir(d);
	buf_free(&name);
	return rc;
}

struct find {
	const char *name;
	struct buf *disk;
};

static int
match_disk(void *ctx, const char *disk, const char *name)
{
	struct find *f = ctx;

	if (strcmp(name, f->name) != 0)
		return 0;
	buf_add(f->disk, slice(disk, strlen(disk) + 1));
	return 1;
}

/* The directory (NUL-terminated in disk) of an existing folder. */
int
store_find_disk(struct store *s, const char *name, struct buf *disk)
{
	struct find f = { name, disk };
	bool ascii = true;
	int rc = name_to_disk(name, disk);

	if (rc < 0)
		return ERR_NOT_FOUND;
	buf_add_byte(disk, 0);
	if (faccessat(s->rootfd, (const char *)buf_slice(disk).p, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	if (errno != ENOENT)
		return err_errno();
	buf_clear(disk);
	for (const char *p = name; *p; p++)
		ascii &= (unsigned char)*p < 128 && *p != '&';
	if (ascii)
		return ERR_NOT_FOUND;
	rc = each_disk(s, match_disk, &f); /* UTF-8 or another spelling on disk */
	return rc == 1 ? 0 : rc < 0 ? rc : ERR_NOT_FOUND;
}

/* --- the list --- */

struct collect {
	struct store_list *list;
	size_t size;
};

static void
list_add(struct collect *c, struct slice name, bool exists, bool subscribed)
{
	struct store_list *l = c->list;

	if (l->count == c->size) {
		c->size = c->size ? c->size * 2 : 32;
		l->folders = xrealloc(l->folders, c->size * sizeof(*l->folders));
	}
	l->folders[l->count++] = (struct store_folder){
		.name = slice_dup(name), .exists = exists, .subscribed = subscribed
	};
}

/* With the names above it, which may have no folder of their own. */
static void
list_add_tree(struct collect *c, struct slice name, bool exists, bool subscribed)
{
	list_add(c, name, exists, subscribed);
	for (size_t i = 0; i < name.n; i++)
		if (name.p[i] == STORE_SEPARATOR)
			list_add(c, slice_sub(name, 0, i), false, false);
}

static int
list_disk(void *ctx, const char *disk, const char *name)
{
	(void)disk;
	list_add_tree(ctx, slice_str(name), true, false);
	return 0;
}

/* INBOX and its children first, then by name; the separator sorts below every other byte. */
static int
list_order(const void *a, const void *b)
{
	const char *x = ((const struct store_folder *)a)->name;
	const char *y = ((const struct store_folder *)b)->name;
	bool xi = strncmp(x, "INBOX", 5) == 0 && (!x[5] || x[5] == STORE_SEPARATOR);
	bool yi = strncmp(y, "INBOX", 5) == 0 && (!y[5] || y[5] == STORE_SEPARATOR);

	if (xi != yi)
		return xi ? -1 : 1;
	while (*x && *x == *y)
		x++, y++;
	int cx = *x == STORE_SEPARATOR ? 1 : (unsigned char)*x;
	int cy = *y == STORE_SEPARATOR ? 1 : (unsigned char)*y;
	return cx - cy;
}

static void
list_merge(struct store_list *l)
{
	size_t n = 0;

	if (l->count)
		qsort(l->folders, l->count, sizeof(*l->folders), list_order);
	for (size_t i = 0; i < l->count; i++) {
		struct store_folder *f = &l->folders[i];
		if (n && strcmp(l->folders[n - 1].name, f->name) == 0) {
			l->folders[n - 1].exists |= f->exists;
			l->folders[n - 1].subscribed |= f->subscribed;
			free(f->name);
		} else {
			l->folders[n++] = *f;
		}
	}
	l->count = n;
}

static void
list_children(struct store_list *l)
{
	for (size_t i = 0; i < l->count; i++) {
		struct store_folder *f = &l->folders[i];
		size_t len = strlen(f->name);
		for (size_t j = i + 1; j < l->count; j++) {
			const struct store_folder *below = &l->folders[j];
			if (strncmp(below->name, f->name, len) != 0 ||
			    below->name[len] != STORE_SEPARATOR)
				break;
			f->has_children |= below->exists;
			f->has_subscribed_child |= below->subscribed;
			if (f->has_children && f->has_subscribed_child)
				break;
		}
	}
}

int
store_list(struct store *s, struct store_list *out_r)
{
	struct collect c = { .list = out_r };
	struct buf b = { 0 };
	bool written;

	*out_r = (struct store_list){ 0 };
	int rc = each_disk(s, list_disk, &c);
	if (rc == 0) {
		rc = subscriptions_load(s, &b);
		struct slice rest = buf_slice(&b);
		while (rest.n)
			list_add_tree(&c, slice_split(&rest, '\0'), false, true);
		rc = rc == ERR_NOT_FOUND ? 0 : rc;
	}
	list_merge(out_r);
	list_children(out_r);
	buf_clear(&b);
	if (rc == 0)
		rc = special_load(s, &b, &written);
	for (size_t i = 0; i < out_r->count && rc == 0; i++)
		out_r->folders[i].special_use = special_of(buf_slice(&b), out_r->folders[i].name);
	buf_free(&b);
	if (rc < 0)
		store_list_free(out_r);
	return rc;
}

void
store_list_free(struct store_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->folders[i].name);
	free(l->folders);
	*l = (struct store_list){ 0 };
}
