/*
 * Maildir's file names and the durable writing of small files. Runs in the user's session. Names in
 * the directories are the user's and other programs': any bytes but NUL and '/'. Rule: content is
 * on disk before its name, and the name before anybody is told (sync_dir says where that needs a
 * call).
 */
#include "store/internal.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

static uint64_t
name_number(struct slice name, const char *mark)
{
	ptrdiff_t at = slice_search(name, slice_str(mark));
	uint64_t v;

	if (at < 0)
		return SIZE_UNKNOWN;
	struct slice rest = slice_sub(name, (size_t)at + 3, SIZE_MAX);
	rest = slice_split(&rest, ',');
	return slice_u64(rest, SIZE_UNKNOWN - 1, &v) < 0 ? SIZE_UNKNOWN : v;
}

static uint8_t
flag_of(char letter)
{
	switch (letter) {
	case 'S':
		return FLAG_SEEN;
	case 'R':
		return FLAG_ANSWERED;
	case 'F':
		return FLAG_FLAGGED;
	case 'T':
		return FLAG_DELETED;
	case 'D':
		return FLAG_DRAFT;
	case 'P':
		return FLAG_PASSED;
	default:
		return 0;
	}
}

void
maildir_parse(const char *name, size_t len, struct file_name *out)
{
	const char *colon = memchr(name, ':', len);

	*out = (struct file_name){ .base_len = colon ? (size_t)(colon - name) : len };
	struct slice base = slice(name, out->base_len);
	out->size = name_number(base, ",S=");
	out->vsize = name_number(base, ",W=");
	if (len - out->base_len < 3 || memcmp(colon, ":2,", 3) != 0)
		return;
	for (const char *p = colon + 3; p < name + len; p++) {
		if (*p >= 'a' && *p <= 'z')
			out->keywords |= 1ull << (*p - 'a');
		else
			out->flags |= flag_of(*p);
	}
}

size_t
maildir_info(struct slice old_info, uint8_t flags, uint64_t keywords, char *out)
{
	bool letter[128] = { false };
	size_t n = 0;

	for (size_t i = 3; i < old_info.n && slice_has_prefix(old_info, ":2,"); i++) {
		unsigned char c = old_info.p[i];
		if (c < 128 && !flag_of((char)c) && !(c >= 'a' && c <= 'z') && ascii_is_alnum(c))
			letter[c] = true; /* somebody else's letter: kept */
	}
	for (char c = 'A'; c <= 'Z'; c++)
		if (flags & flag_of(c))
			letter[(int)c] = true;
	for (int i = 0; i < 26; i++)
		if (keywords >> i & 1)
			letter['a' + i] = true;
	out[n++] = ':';
	out[n++] = '2';
	out[n++] = ',';
	for (int c = '0'; c < 128; c++)
		if (letter[c])
			out[n++] = (char)c;
	out[n] = '\0';
	return n;
}

void
maildir_unique(struct store *s, uint64_t size, uint64_t vsize, char *out)
{
	struct timespec now;
	uint32_t noise = 0;

	clock_gettime(CLOCK_REALTIME, &now);
	if (getrandom(&noise, sizeof(noise), 0) < 0)
		noise = (uint32_t)now.tv_nsec;
	int n = snprintf(out, 200, "%lld.M%06ldP%dQ%uR%08x.%s", (long long)now.tv_sec,
	    now.tv_nsec / 1000, (int)getpid(), s->counter++, noise, s->host);
	if (size != SIZE_UNKNOWN)
		snprintf(out + n, 256 - (size_t)n, ",S=%llu,W=%llu", (unsigned long long)size,
		    (unsigned long long)vsize);
}

int
maildir_rename(int from_dir, const char *from, int to_dir, const char *to)
{
	if (!renameat2(from_dir, from, to_dir, to, RENAME_NOREPLACE))
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return err_errno();
	/* A file system without RENAME_NOREPLACE (NFS, ZFS before 2.2): link refuses an old name as
	 * well. */
	if (linkat(from_dir, from, to_dir, to, 0))
		return err_errno();
	if (unlinkat(from_dir, from, 0)) {
		int err = err_errno();
		(void)unlinkat(to_dir, to, 0);
		return err;
	}
	return 0;
}

int
maildir_make(int rootfd, const char *disk)
{
	if (strcmp(disk, ".") != 0 && mkdirat(rootfd, disk, 0700) < 0)
		return err_errno();
	return maildir_complete(rootfd, disk);
}

int
maildir_complete(int rootfd, const char *disk)
{
	static const char *const subs[] = { "tmp", "new", "cur" };
	char path[HIDDEN_MAX + 8];

	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", disk, subs[i]);
		if (mkdirat(rootfd, path, 0700) < 0 && errno != EEXIST)
			return err_errno();
	}
	return 0;
}

int
sync_dir(struct store *s, int dirfd, const char *path, bool force)
{
	if (!force && !s->sync_names)
		return 0;
	int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno();
	int rc = fsync(fd) < 0 ? err_errno() : 0;
	close(fd);
	return rc;
}

int
read_file(int dirfd, const char *path, size_t max, struct buf *out)
{
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	int rc = 0;

	if (fd < 0)
		return errno == ENOENT ? ERR_NOT_FOUND : err_errno();
	if (fstat(fd, &st) < 0)
		rc = err_errno();
	else if (!S_ISREG(st.st_mode))
		rc = -EINVAL;
	while (rc == 0) {
		ptrdiff_t n = buf_read(out, fd, 65536);
		if (n < 0)
			rc = (int)n;
		else if (n == 0)
			break;
		else if (buf_len(out) > max)
			rc = ERR_LIMIT;
	}
	close(fd);
	return rc;
}

int
replace_file(struct store *s, int dirfd, const char *path, struct slice content)
{
	char tmp[HIDDEN_MAX + 1];
	int rc;

	snprintf(tmp, sizeof(tmp), "%s.tmp.%d.%u", path, (int)getpid(), s->counter++);
	int fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno();
	rc = io_write_all(fd, content);
	if (rc == 0 && fsync(fd) < 0)
		rc = err_errno();
	close(fd);
	if (rc == 0 && renameat(dirfd, tmp, dirfd, path) < 0)
		rc = err_errno();
	if (rc < 0)
		unlinkat(dirfd, tmp, 0);
	else
		rc = sync_dir(s, dirfd, ".", true);
	return rc;
}
