/*
 * Edits of main.cf in place: a line is replaced, dropped or commented out; all else stays byte for
 * byte, comments between the continuation lines of an edited parameter included. Runs in
 * bulkhead(8) as the caller. Invariant: the file is replaced whole by rename, or not at all; what
 * was reported as done is on disk, its name too.
 */
#include "tools/edit.h"

#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static bool
is_named(struct slice line, const char *name)
{
	return slice_find(line, '=') > 0 &&
	       slice_eq_str(slice_trim(slice_split(&line, '='), true), name);
}

/* The physical lines of an edited parameter: comments stay, the others go or get a #. */
static void
keep_comments(struct slice part, bool comment_out, struct buf *out)
{
	struct slice line;
	bool newline;

	while (part.n) {
		newline = slice_find(part, '\n') >= 0;
		line = slice_split(&part, '\n');
		if (!conf_line_ignored(line)) {
			if (!comment_out)
				continue;
			(void)buf_add_byte(out, '#');
		}
		(void)buf_add(out, line);
		if (newline)
			(void)buf_add_byte(out, '\n');
	}
}

size_t
edit_text(
    struct slice text, enum edit_kind kind, const char *name, const char *value, struct buf *out)
{
	struct conf_lines lines = { .in = text };
	struct arena scratch = { 0 };
	struct conf_line line;
	size_t at = 0, found = 0, seen = 0;
	bool orphan;

	while (conf_lines_next(&lines, &scratch, &line, &orphan))
		found += !orphan && is_named(line.text, name);
	lines = (struct conf_lines){ .in = text };
	while (conf_lines_next(&lines, &scratch, &line, &orphan)) {
		if (orphan || !is_named(line.text, name))
			continue;
		seen++;
		if (kind == EDIT_SET && seen < found)
			continue; /* only the last one counts */
		(void)buf_add(out, slice_sub(text, at, line.start));
		if (kind == EDIT_SET)
			(void)buf_addf(out, "%s = %s\n", name, value);
		keep_comments(slice_sub(text, line.start, line.end), kind == EDIT_COMMENT, out);
		at = line.end;
	}
	(void)buf_add(out, slice_sub(text, at, text.n));
	if (kind == EDIT_SET && !found) {
		if (text.n && text.p[text.n - 1] != '\n')
			(void)buf_add_byte(out, '\n');
		(void)buf_addf(out, "%s = %s\n", name, value);
	}
	arena_free(&scratch);
	return found;
}

/* full is cut at its last slash. */
static int
sync_folder(char *full)
{
	int fd, err = 0;

	strrchr(full, '/')[1] = '\0';
	fd = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd))
		err = err_errno();
	if (fd >= 0)
		close(fd);
	return err;
}

int
edit_replace(const char *path, struct slice text, struct buf *why)
{
	char *full = realpath(path, NULL), *tmp = NULL;
	struct stat st;
	int fd = -1, err = 0;

	if (!full || stat(full, &st)) {
		err = err_errno();
	} else {
		tmp = xasprintf("%s.XXXXXX", full);
		fd = mkostemp(tmp, O_CLOEXEC);
		if (fd < 0)
			err = err_errno();
	}
	if (fd >= 0) {
		if ((st.st_uid != geteuid() || st.st_gid != getegid()) &&
		    fchown(fd, st.st_uid, st.st_gid))
			err = err_errno();
		if (!err && fchmod(fd, st.st_mode & 07777))
			err = err_errno();
		if (!err)
			err = io_write_all(fd, text);
		if (!err && fsync(fd))
			err = err_errno();
		close(fd);
		if (!err && rename(tmp, full))
			err = err_errno();
		if (err)
			(void)unlink(tmp);
	}
	if (err) {
		(void)buf_addf(why, "%s: cannot be replaced: %s", path, err_str(err));
	} else if ((err = sync_folder(full))) {
		(void)buf_addf(
		    why, "%s: replaced, but its folder cannot be synced: %s", path, err_str(err));
	}
	free(tmp);
	free(full);
	return err;
}
