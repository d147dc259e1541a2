/*
 * The list of folders, subscriptions, special uses, and the next UIDVALIDITY. Runs in the user's
 * session; the directory and the small files in it are the user's: names that are no folder names
 * are left out, lines that make no sense too.
 *
 *	subscriptions    as Dovecot writes it: "V\t2", an empty line, then levels divided by tabs in
 *	                 modified UTF-7; its older form (one name a line) is read
 *	bh-special-use   "\Sent name" lines
 *	bh-uidvalidity   the last one given out, so that no folder ever gets one that was in use
 */
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SMALL_FILE_MAX = 4 << 20 };

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

/* --- subscriptions --- */

static void
add_name(struct slice raw, struct buf *names)
{
	char name[STORE_NAME_MAX + 1];

	if (store_name(raw, name, NULL) == 0)
		buf_add(names, slice(name, strlen(name) + 1));
}

/* One level of version 2: tabs and the like are escaped by \001. */
static void
unescape(struct slice in, struct buf *out)
{
	for (size_t i = 0; i < in.n; i++) {
		unsigned char c = in.p[i];
		if (c == 1 && i + 1 < in.n) {
			c = in.p[++i];
			c = c == '1' ? 1 : c == 't' ? '\t' : c == 'n' ? '\n' : c == 'r' ? '\r' : 0;
		}
		buf_add_byte(out, c);
	}
}

static void
subscription_line(struct slice line, unsigned char divider, struct buf *names)
{
	struct buf raw = { 0 }, level = { 0 };
	bool good = line.n > 0;

	while (line.n && good) {
		struct slice part = slice_split(&line, divider);
		size_t before = buf_len(&raw) + (buf_len(&raw) ? 1 : 0);
		buf_clear(&level);
		unescape(part, &level);
		if (buf_len(&raw))
			buf_add_byte(&raw, STORE_SEPARATOR);
		if (mutf7_decode(buf_slice(&level), &raw) < 0) {
			buf_truncate(&raw, before);
			buf_add(&raw, buf_slice(&level));
		}
		good = part.n > 0;
	}
	if (good)
		add_name(buf_slice(&raw), names);
	buf_free(&raw);
	buf_free(&level);
}

/* NUL-terminated UTF-8 names. */
static int
subscriptions_load(struct store *s, struct buf *names)
{
	struct buf b = { 0 };
	int rc = read_file(s->rootfd, "subscriptions", SMALL_FILE_MAX, &b);

	if (rc == 0) {
		struct slice in = buf_slice(&b);
		bool v2 = slice_has_prefix(in, "V\t2\n");
		if (v2)
			slice_split(&in, '\n');
		while (in.n)
			subscription_line(slice_split(&in, '\n'), v2 ? '\t' : '.', names);
	}
	buf_free(&b);
	return rc;
}

static int
subscriptions_save(struct store *s, struct slice names)
{
	struct buf b = { 0 };
	int rc = 0;

	buf_add_str(&b, "V\t2\n\n");
	while (names.n && rc == 0) {
		struct slice name = slice_split(&names, '\0');
		bool first = true;
		while (name.n && rc == 0) {
			if (!first)
				buf_add_byte(&b, '\t');
			first = false;
			rc = mutf7_encode(slice_split(&name, STORE_SEPARATOR), &b);
		}
		buf_add_byte(&b, '\n');
	}
	if (rc == 0)
		rc = replace_file(s, s->rootfd, "subscriptions", buf_slice(&b));
	buf_free(&b);
	return rc;
}

int
store_subscribe(struct store *s, struct slice name, bool on)
{
	char canonical[STORE_NAME_MAX + 1];
	struct buf names = { 0 }, kept = { 0 };
	bool had = false;

	int rc = store_name(name, canonical, NULL);
	if (rc < 0)
		return rc;
	rc = subscriptions_load(s, &names);
	if (rc == ERR_NOT_FOUND)
		rc = 0;
	struct slice rest = buf_slice(&names);
	while (rest.n) {
		struct slice one = slice_split(&rest, '\0');
		bool this = slice_eq_str(one, canonical);
		had |= this;
		if (!this || on) {
			buf_add(&kept, one);
			buf_add_byte(&kept, 0);
		}
	}
	if (on && !had)
		buf_add(&kept, slice(canonical, strlen(canonical) + 1));
	if (rc == 0 && on != had)
		rc = subscriptions_save(s, buf_slice(&kept));
	buf_free(&names);
	buf_free(&kept);
	return rc;
}

/* --- special uses --- */

/* Gives "\Use name" lines; the usual names until something was written. */
int
special_load(struct store *s, struct buf *lines, bool *written_r)
{
	int rc = read_file(s->rootfd, SPECIAL_FILE, SMALL_FILE_MAX, lines);

	*written_r = rc == 0;
	if (rc != ERR_NOT_FOUND)
		return rc;
	return buf_add_str(
	    lines, "\\Drafts Drafts\n\\Sent Sent\n\\Archive Archive\n\\Junk Junk\n\\Trash Trash\n");
}

static unsigned
special_of(struct slice lines, const char *name)
{
	unsigned bits = 0;

	while (lines.n) {
		struct slice line = slice_split(&lines, '\n');
		struct slice use = slice_split(&line, ' ');
		if (slice_eq_str(line, name))
			bits |= special_use_parse(use);
	}
	return bits;
}

int
special_set(struct store *s, const char *name, unsigned bits)
{
	struct buf old = { 0 }, out = { 0 };
	bool written;
	int rc = special_load(s, &old, &written);
	struct slice rest = buf_slice(&old);

	if (special_of(rest, name) == bits && (written || bits)) {
		buf_free(&old);
		return rc;
	}
	while (rest.n) {
		struct slice line = slice_split(&rest, '\n'), copy = line;
		slice_split(&copy, ' ');
		if (slice_eq_str(copy, name) || line.n == 0)
			continue;
		buf_add(&out, line);
		buf_add_byte(&out, '\n');
	}
	for (unsigned bit = 1; bit <= SPECIAL_IMPORTANT; bit <<= 1)
		if (bits & bit)
			buf_addf(&out, "%s %s\n", special_use_name(bit), name);
	if (rc == 0)
		rc = replace_file(s, s->rootfd, SPECIAL_FILE, buf_slice(&out));
	buf_free(&old);
	buf_free(&out);
	return rc;
}

/* --- UIDVALIDITY --- */

int
next_uidvalidity(struct store *s, uint32_t above, uint32_t *out_r)
{
	struct buf b = { 0 };
	uint64_t last = 0;
	uint32_t now = (uint32_t)time(NULL);

	if (read_file(s->rootfd, UIDVALIDITY_FILE, 64, &b) == 0 &&
	    slice_u64(slice_trim(buf_slice(&b), true), UINT32_MAX - 1, &last) < 0)
		last = 0;
	if (above > last)
		last = above;
	if (last == UINT32_MAX)
		last = 0; /* there is none above */
	*out_r = now > last ? now : (uint32_t)last + 1;
	buf_clear(&b);
	buf_addf(&b, "%u\n", *out_r);
	int rc = replace_file(s, s->rootfd, UIDVALIDITY_FILE, buf_slice(&b));
	buf_free(&b);
	return rc;
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
