/*
 * Mailbox specs. Runs in maps (which makes them), in local and the session daemons (which obey
 * them). User names may come from strangers, so a name that would climb in the tree is refused
 * here.
 */
#include "db/mailbox.h"

#include "base/hash.h"

#define PATH_MAX_LENGTH ((size_t)4000)

/* No NUL, no component "..", not empty. */
static bool
is_safe(struct slice path)
{
	struct slice rest = path;

	if (!path.n || path.n > PATH_MAX_LENGTH)
		return false;
	for (size_t i = 0; i < path.n; i++)
		if (path.p[i] < ' ' || path.p[i] == 127)
			return false;
	while (rest.n)
		if (slice_eq_str(slice_split(&rest, '/'), ".."))
			return false;
	return true;
}

static bool
is_name(struct slice user)
{
	return is_safe(user) && slice_find(user, '/') < 0 && user.p[0] != '.';
}

static struct slice
without_slashes(struct slice path)
{
	while (path.n > 1 && path.p[path.n - 1] == '/')
		path.n--;
	return path;
}

static int
make(struct slice directory, struct slice name, bool maildir, struct buf *out)
{
	while (name.n && name.p[0] == '/')
		name = slice_sub(name, 1, name.n);
	name = without_slashes(name);
	directory = without_slashes(directory);
	if (!is_safe(directory) || directory.p[0] != '/' || !is_safe(name) ||
	    directory.n + 1 + name.n > PATH_MAX_LENGTH)
		return ERR_SYNTAX;
	buf_add_str(out, maildir ? "maildir:" : "mbox:");
	if (directory.n > 1)
		buf_add(out, directory);
	buf_add_byte(out, '/');
	return buf_add(out, name);
}

int
mailbox_of_user(struct slice home_mailbox, struct slice mail_spool_directory, struct slice user,
    struct slice home, struct buf *out)
{
	if (!is_name(user))
		return ERR_SYNTAX;
	if (home_mailbox.n)
		return make(home, home_mailbox, slice_has_suffix(home_mailbox, "/"), out);
	return make(mail_spool_directory, user, slice_has_suffix(mail_spool_directory, "/"), out);
}

int
mailbox_of_virtual(struct slice base, struct slice value, struct buf *out)
{
	return make(base, value, slice_has_suffix(value, "/"), out);
}

/* The key is fixed: the uid of a user must outlive restarts. Users that share one by chance are
 * still kept apart by the root directory and Landlock. */
uint32_t
mailbox_virtual_uid(struct slice address, int64_t base, int64_t count)
{
	static const unsigned char key[16] = "virtual_uid_base";
	unsigned char folded[512];
	size_t n = address.n < sizeof(folded) ? address.n : sizeof(folded);

	for (size_t i = 0; i < n; i++)
		folded[i] = ascii_lower(address.p[i]);
	return (uint32_t)(base + (int64_t)(siphash(key, slice(folded, n)) % (uint64_t)count));
}

int
mailbox_parse(struct slice spec, struct mailbox *out_r)
{
	if (slice_has_prefix(spec, "maildir:"))
		*out_r = (struct mailbox){ MAILBOX_MAILDIR, slice_sub(spec, 8, spec.n) };
	else if (slice_has_prefix(spec, "mbox:"))
		*out_r = (struct mailbox){ MAILBOX_MBOX, slice_sub(spec, 5, spec.n) };
	else
		return ERR_SYNTAX;
	if (!is_safe(out_r->path) || out_r->path.p[0] != '/')
		return ERR_SYNTAX;
	out_r->path = without_slashes(out_r->path);
	return 0;
}

int
mailbox_below(struct slice path, struct slice directory, struct slice *rest_r)
{
	directory = without_slashes(directory);
	if (directory.n == 1 && directory.p[0] == '/')
		directory.n = 0;
	if (path.n < directory.n || !slice_eq(slice_sub(path, 0, directory.n), directory))
		return ERR_NOT_FOUND;
	path = slice_sub(path, directory.n, path.n);
	if (path.n && path.p[0] != '/')
		return ERR_NOT_FOUND;
	while (path.n && path.p[0] == '/')
		path = slice_sub(path, 1, path.n);
	*rest_r = path;
	return 0;
}
