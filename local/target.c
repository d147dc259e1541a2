/*
 * Where a delivery child may go. target_new runs in the zygote (uid bh-local) on fixed fields of a
 * request of qmgr; target_open runs in the child, as the recipient, with the one capability that
 * chroot needs, before the first byte of a message is read.
 *
 * The root is the home where the mailbox lies below it, else the Maildir or the directory of the
 * mailbox file; then ~/.forward is read beforehand. The files and lists of an alias are opened
 * beforehand too, and the root is the empty directory.
 */
#include "local/target.h"

#include "queue/mail.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- the zygote's part --- */

static int
parse_spec(struct target *t)
{
	struct slice spec = slice_str(t->spec);

	if (slice_has_prefix(spec, "alias:")) {
		t->kind = TARGET_ALIAS;
		return 0;
	}
	if (mailbox_parse(spec, &t->mailbox))
		return ERR_SYNTAX;
	t->kind = t->mailbox.kind == MAILBOX_MBOX ? TARGET_MBOX : TARGET_MAILDIR;
	return 0;
}

/* A mailbox file in a spool that its group may write (Debian's /var/mail) needs that group for the
 * lock file. */
static void
add_spool_group(struct target *t)
{
	struct slice rest;
	struct stat st;
	char *copy;

	if (t->kind != TARGET_MBOX || !mailbox_below(t->mailbox.path, slice_str(t->home), &rest))
		return;
	copy = arena_printf(&t->arena, "%.*s", SLICE_ARG(t->mailbox.path));
	if (stat(dirname(copy), &st) || !(st.st_mode & S_IWGRP) || (st.st_mode & S_IWOTH))
		return;
	if (t->ngroups < TARGET_GROUPS)
		t->groups[t->ngroups++] = st.st_gid;
}

static const char *
check(const struct daemon *d, const struct target *t)
{
	if (!t->user[0] || t->home[0] != '/')
		return "the user has no name or no home directory";
	/* An ordinary user's instance has one uid for all: what that user cannot reach fails by
	 * itself. */
	if (!d->unprivileged && ((int64_t)t->uid < d->conf->first_valid_uid ||
				    (int64_t)t->uid > d->conf->last_valid_uid))
		return "the uid is outside of first_valid_uid .. last_valid_uid: add an alias for "
		       "the user";
	return NULL;
}

int
target_new(struct daemon *d, const struct msg_deliver_start *m, struct target **target_r,
    const char **why_r)
{
	struct target *t = xcalloc(1, sizeof(*t));
	struct cursor groups = cursor(m->groups.raw);
	struct item_gid g;

	t->user = (const char *)arena_dup(&t->arena, m->user).p;
	t->home = (const char *)arena_dup(&t->arena, m->home).p;
	t->spec = (const char *)arena_dup(&t->arena, m->mailbox).p;
	t->uid = m->uid;
	t->gid = m->gid;
	t->flags = m->flags;
	while (t->ngroups < TARGET_GROUPS - 1 && item_gid_next(&groups, &g))
		t->groups[t->ngroups++] = g.gid;
	if (!t->ngroups)
		t->groups[t->ngroups++] = t->gid;
	*why_r = parse_spec(t) ? "the mailbox spec of the user is invalid" : NULL;
	/* In the instance of an ordinary user one uid stands for all but system users. */
	if (d->unprivileged && (t->kind == TARGET_ALIAS || (t->flags & ROUTE_VIRTUAL)))
		t->uid = getuid();
	if (!*why_r)
		*why_r = check(d, t);
	if (*why_r) {
		target_free(&t);
		return ERR_DENIED;
	}
	t->own_groups = t->ngroups;
	add_spool_group(t);
	*target_r = t;
	return 0;
}

void
target_free(struct target **tp)
{
	struct target *t = *tp;

	if (!t)
		return;
	buf_free(&t->forward);
	arena_free(&t->arena);
	free(t);
	*tp = NULL;
}

/* --- files that users write --- */

/* Reads a regular file; its owner must be the user or root, and nobody else may write it. *why_r is
 * NULL where the error says it all. */
static int
read_owned(
    uid_t uid, const char *path, const struct conf *conf, struct buf *text, const char **why_r)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), err = 0;
	struct stat st;
	ptrdiff_t n;

	*why_r = NULL;
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : err_errno();
	if (fstat(fd, &st)) {
		err = err_errno();
	} else if (!S_ISREG(st.st_mode)) {
		*why_r = "it is not a regular file";
		err = ERR_DENIED;
	} else if (st.st_uid != uid && st.st_uid != 0) {
		*why_r = "it belongs to somebody else";
		err = ERR_DENIED;
	} else if (st.st_mode & S_IWOTH) {
		*why_r = "everybody may write it (chmod o-w)";
		err = ERR_DENIED;
	}
	while (!err && (n = buf_read(text, fd, 65536)) != 0) {
		if (n < 0 && n != -EINTR)
			err = (int)n;
		else if ((int64_t)buf_len(text) > conf->forward_size_limit) {
			*why_r = "it is larger than forward_size_limit";
			err = ERR_LIMIT;
		}
	}
	close(fd);
	return err;
}

int
target_read_forward(const struct target *t, const char *path, const struct conf *conf,
    struct buf *text, const char **why_r)
{
	return read_owned(t->uid, path, conf, text, why_r);
}

/* --- aliases --- */

struct loading {
	struct target *t;
	struct alias_item *items;
	size_t n, size;
	const struct conf *conf;
};

static void
load_file(struct target *t, struct slice path)
{
	struct target_file *f;
	struct stat st;

	if (target_file(t, path))
		return;
	if (t->nfiles == TARGET_FILES) {
		t->trouble = "an alias names more than 64 files";
		return;
	}
	f = &t->files[t->nfiles++];
	*f = (struct target_file){ path, -1, 0 };
	f->fd = open((const char *)path.p,
	    O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
	if (f->fd < 0 || fstat(f->fd, &st)) {
		f->error = err_errno();
	} else if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode)) {
		f->error = -EINVAL;
		close(f->fd);
		f->fd = -1;
	}
}

static size_t
item_limit(const struct conf *conf)
{
	return (size_t)conf->alias_expansion_limit;
}

static void load_items(
    struct loading *l, const struct alias_items *items, unsigned depth, bool included);

static void
load_include(struct loading *l, struct slice path, unsigned depth)
{
	struct target *t = l->t;
	struct alias_items items;
	struct buf text = { 0 };
	const char *why = NULL;
	int err;

	if (depth == (unsigned)l->conf->alias_include_depth_limit) {
		t->trouble = ":include: is nested deeper than alias_include_depth_limit";
		return;
	}
	/* Whoever owns the list decides who is on it: any owner will do. */
	err = read_owned((uid_t)-1, (const char *)path.p, l->conf, &text, &why);
	if (err == ERR_DENIED && why && strstr(why, "somebody else")) {
		struct stat st;
		buf_clear(&text);
		if (!stat((const char *)path.p, &st))
			err = read_owned(st.st_uid, (const char *)path.p, l->conf, &text, &why);
	}
	if (err)
		t->trouble = arena_printf(&t->arena, "cannot read the list %.*s: %s",
		    SLICE_ARG(path), why ? why : err_str(err));
	else if ((err = alias_parse(
		      &t->arena, buf_slice(&text), true, item_limit(l->conf), &items, &why)) != 0)
		t->trouble = arena_printf(&t->arena, "the list %.*s: %s%s", SLICE_ARG(path), why,
		    err == ERR_LIMIT ? " (alias_expansion_limit)" : "");
	else
		load_items(l, &items, depth + 1, true);
	buf_free(&text);
}

static bool
is_allowed(const struct conf *conf, enum alias_kind kind, bool included)
{
	const struct conf_list *list =
	    kind == ALIAS_COMMAND ? &conf->allow_mail_to_commands : &conf->allow_mail_to_files;

	return conf_list_has(list, slice_str(included ? "include" : "alias"));
}

static void
load_item(struct loading *l, const struct alias_item *item, unsigned depth, bool included)
{
	struct target *t = l->t;

	if (item->kind == ALIAS_INCLUDE) {
		load_include(l, item->text, depth);
		return;
	}
	if ((item->kind == ALIAS_COMMAND || item->kind == ALIAS_FILE) &&
	    !is_allowed(l->conf, item->kind, included)) {
		t->trouble = item->kind == ALIAS_COMMAND
				 ? "an alias or list names a command where allow_mail_to_commands "
				   "does not allow it"
				 : "an alias or list names a file where allow_mail_to_files does "
				   "not allow it";
		return;
	}
	if (item->kind == ALIAS_FILE)
		load_file(t, item->text);
	if (l->n == l->size) {
		l->size = l->size ? l->size * 2 : 16;
		l->items = xrealloc(l->items, l->size * sizeof(*l->items));
	}
	l->items[l->n++] = *item;
}

static void
load_items(struct loading *l, const struct alias_items *items, unsigned depth, bool included)
{
	for (size_t i = 0; i < items->n && !l->t->trouble; i++) {
		if (l->n == item_limit(l->conf))
			l->t->trouble =
			    "an alias stands for more addresses than alias_expansion_limit";
		else
			load_item(l, &items->items[i], depth, included);
	}
}

static void
open_alias(struct target *t, const struct conf *conf)
{
	struct loading l = { .t = t, .conf = conf };
	struct alias_items items;
	struct slice value = slice_str(t->spec);
	const char *why;
	int err;

	value = slice_sub(value, 6, value.n);
	err = alias_parse(&t->arena, value, false, item_limit(conf), &items, &why);
	if (err)
		t->trouble = arena_printf(&t->arena, "the alias has an invalid value: %s%s", why,
		    err == ERR_LIMIT ? " (alias_expansion_limit)" : "");
	else
		load_items(&l, &items, 0, false);
	t->items = (struct alias_items){ l.items, l.n };
}

const struct target_file *
target_file(const struct target *t, struct slice path)
{
	for (size_t i = 0; i < t->nfiles; i++)
		if (slice_eq(t->files[i].path, path))
			return &t->files[i];
	return NULL;
}

/* --- the root --- */

/* The directories of a virtual user are made here where its uid may; else the admin makes them. */
static int
open_directory(struct target *t, const char *path, bool make)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char *copy;

	if (fd >= 0 || errno != ENOENT || !make)
		return fd;
	copy = arena_strdup(&t->arena, path);
	for (char *p = copy + 1; *p; p++)
		if (*p == '/') {
			*p = 0;
			(void)mkdir(copy, 0755);
			*p = '/';
		}
	if (mkdir(copy, 0700) && errno != EEXIST) {
		errno = ENOENT;
		return -1;
	}
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void
preload_forward(struct target *t, const struct conf *conf)
{
	const char *path = arena_printf(&t->arena, "%s/.forward", t->home), *why = NULL;
	int err;

	if (!(t->flags & ROUTE_FORWARD))
		return;
	err = read_owned(t->uid, path, conf, &t->forward, &why);
	if (err == ERR_DENIED)
		log_event(LOG_forward_ignored, "user=%s file=%s reason=\"%s\"", log_cstr(t->user),
		    log_cstr(path), why);
	else if (err && err != ERR_NOT_FOUND)
		t->trouble =
		    arena_printf(&t->arena, "cannot read %s: %s", path, why ? why : err_str(err));
	t->has_forward = !err;
}

static void
choose_root(struct target *t, const struct conf *conf)
{
	struct slice rest;
	char *path = arena_printf(&t->arena, "%.*s", SLICE_ARG(t->mailbox.path));

	if (!mailbox_below(t->mailbox.path, slice_str(t->home), &rest) && rest.n) {
		t->root = t->home;
		t->path = arena_printf(&t->arena, "%.*s", SLICE_ARG(rest));
		t->home_is_root = true;
		return;
	}
	if (t->kind == TARGET_MBOX) {
		t->path = basename(arena_strdup(&t->arena, path));
		t->root = dirname(path);
	} else {
		t->path = ".";
		t->root = path;
	}
	preload_forward(t, conf);
}

static int
enter(const struct daemon *d, int fd)
{
	int err = 0;

	if (fchdir(fd) || (!d->unprivileged && chroot(".")))
		err = err_errno();
	close(fd);
	return err;
}

static int
enter_empty(const struct daemon *d, struct target *t)
{
	const char *path = arena_printf(&t->arena, "%s/empty", d->conf->run_directory);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		log_event(LOG_delivery_root,
		    "directory=%s reason=\"%s\" remedy=\"restart the suite\"", log_cstr(path),
		    err_str(err_errno()));
		return err_errno();
	}
	return enter(d, fd);
}

int
target_open(struct daemon *child, void *arg)
{
	struct target *t = arg;
	int fd;

	umask(077);
	if (t->kind == TARGET_ALIAS) {
		open_alias(t, child->conf);
		return enter_empty(child, t);
	}
	choose_root(t, child->conf);
	fd = open_directory(t, t->root, t->flags & ROUTE_VIRTUAL);
	if (fd < 0)
		t->trouble = arena_printf(&t->arena,
		    "cannot enter %s: %s; make this directory, owned by uid %u", t->root,
		    err_str(err_errno()), (unsigned)t->uid);
	return fd < 0 ? enter_empty(child, t) : enter(child, fd);
}
