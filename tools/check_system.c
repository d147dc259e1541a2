/*
 * Part of `bulkhead check`: accounts that are named, uid ranges, resolvers, and whose the files are
 * that daemons keep: after a change of uid_base or of the users they would not be able to read
 * them.
 */
#include "ipc/msgs.h"
#include "tools/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Packages create them. */
static void
check_daemon_users(struct tool *t)
{
	struct buf missing = { 0 };
	int i, last = 0; /* the children of a zygote follow it and have its number */

	for (i = 0; i < ROLE_COUNT; i++) {
		if (role_table[i].number <= last)
			continue;
		last = role_table[i].number;
		if (!getpwnam(role_table[i].user))
			(void)buf_addf(&missing, " %s", role_table[i].user);
	}
	if (buf_len(&missing))
		check_at(t, false, "uid_base",
		    "create them as system users, each with a group of its own, or set uid_base to "
		    "a free range, as in 700000",
		    "the daemons have no users:%.*s", SLICE_ARG(buf_slice(&missing)));
	buf_free(&missing);
}

/* The ranges of daemons and of virtual users must not meet, nor reach below first_valid_uid. */
static void
check_ranges(struct tool *t)
{
	const struct conf *c = t->set->conf;

	if (c->virtual_uid_base < c->first_valid_uid)
		check_at(t, false, "virtual_uid_base", "raise it",
		    "virtual_uid_base = %lld is below first_valid_uid = %lld",
		    (long long)c->virtual_uid_base, (long long)c->first_valid_uid);
	if (c->uid_base && c->uid_base + 100 > c->virtual_uid_base &&
	    c->uid_base < c->virtual_uid_base + c->virtual_uid_count)
		check_at(t, false, "uid_base", "move one of the two",
		    "uid_base = %lld lies in the range of virtual users", (long long)c->uid_base);
}

/* A person with the uid of a daemon or of a virtual user reads its files. */
static void
check_passwd(struct tool *t)
{
	const struct conf *c = t->set->conf;
	FILE *f = fopen("/etc/passwd", "re");
	const struct passwd *pw;

	while (f && (pw = fgetpwent(f))) {
		int64_t uid = pw->pw_uid;

		if (uid >= c->virtual_uid_base && uid < c->virtual_uid_base + c->virtual_uid_count)
			check_at(t, true, "virtual_uid_base", "move it, or that user",
			    "virtual_uid_base = %lld: uid %lld, of the user %s, is among those of "
			    "virtual users",
			    (long long)c->virtual_uid_base, (long long)uid, pw->pw_name);
		if (c->uid_base && uid >= c->uid_base && uid < c->uid_base + 100)
			check_at(t, true, "uid_base", "move it, or that user",
			    "uid_base = %lld: uid %lld, of the user %s, is among those of daemons",
			    (long long)c->uid_base, (long long)uid, pw->pw_name);
	}
	if (f)
		fclose(f);
}

/* Mail for others waits for ever without a resolver. */
static void
check_resolvers(struct tool *t)
{
	FILE *f;
	char line[512];
	bool found = false;

	if (t->set->conf->dns_resolvers.n)
		return;
	f = fopen("/etc/resolv.conf", "re");
	while (f && !found && fgets(line, sizeof(line), f))
		found = !strncmp(line, "nameserver", 10);
	if (f)
		fclose(f);
	if (!found)
		check_at(t, true, "dns_resolvers", "set dns_resolvers, or mend that file",
		    "/etc/resolv.conf names no server: mail for other domains waits");
}

bool
check_uid_of(const struct tool *t, enum role role, uid_t *uid_r)
{
	const struct role_row *row = &role_table[role];
	const struct passwd *pw;

	if (geteuid() || t->set->conf->uid_base) {
		*uid_r = geteuid() ? geteuid() : (uid_t)(t->set->conf->uid_base + row->number);
		return true;
	}
	pw = getpwnam(row->user);
	if (pw)
		*uid_r = pw->pw_uid;
	return pw != NULL;
}

/* Enough of a folder to notice a former owner; a queue may have a million files. */
#define ENTRIES_LOOKED_AT 16

/* What a daemon keeps in a folder of its own. */
struct kept {
	struct tool *t;
	const char *param, *folder;
	enum role role;
	uid_t uid;
};

static void
say_owner(const struct kept *k, const char *below, const char *name, uid_t owner)
{
	char *remedy = xasprintf("correct uid_base, or stop the suite and chown -R %u:%u %s",
	    (unsigned)k->uid, (unsigned)k->uid, k->folder);

	check_at(k->t, false, k->param, remedy,
	    "%s: %s%s%s/%s belongs to uid %u, but %s has uid %u", k->param, k->folder,
	    below ? "/" : "", below ? below : "", name, (unsigned)owner, role_table[k->role].name,
	    (unsigned)k->uid);
	free(remedy);
}

/* What lies in the folder, and in its folders, and is not of the daemon that keeps it: the first
 * one is told. The folders are given to the daemon at a start, never the files. Hostile: the names
 * and links that the daemon may have made there. */
static bool
check_kept(const struct kept *k, int parent, const char *name, const char *below)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;
	struct stat st;
	bool found = false;
	unsigned n = 0;

	while (dir && !found && (!below || n++ < ENTRIES_LOOKED_AT) && (e = readdir(dir))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		if (st.st_uid != k->uid) {
			say_owner(k, below, e->d_name, st.st_uid);
			found = true;
		} else if (!below && S_ISDIR(st.st_mode)) {
			found = check_kept(k, fd, e->d_name, e->d_name);
		}
	}
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
	return found;
}

void
check_owners(struct tool *t)
{
	char *queue = xasprintf("%s/queue", t->set->conf->queue_directory);
	struct kept k = { t, "queue_directory", queue, ROLE_QMGR, 0 };

	if (check_uid_of(t, k.role, &k.uid))
		(void)check_kept(&k, AT_FDCWD, queue, NULL);
	free(queue);
}

void
check_accounts(struct tool *t)
{
	const struct conf *c = t->set->conf;

	if (c->admin_group[0] && !getgrnam(c->admin_group))
		check_at(t, false, "admin_group", "create it, or correct the name",
		    "admin_group = %s: no such group", c->admin_group);
	if (geteuid() == 0 && !c->uid_base)
		check_daemon_users(t);
	if (c->default_privs[0] && !getpwnam(c->default_privs))
		check_at(t, false, "default_privs", "create it, or correct the name",
		    "default_privs = %s: no such user", c->default_privs);
	check_ranges(t);
	check_passwd(t);
	check_resolvers(t);
}
