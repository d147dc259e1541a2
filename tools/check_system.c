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

/* Packages create these; roles.def has them. */
static const char *const daemon_users[] = { "bh-smtpd", "bh-submit", "bh-login", "bh-auth",
	"bh-dns", "bh-maps", "bh-nss", "bh-queue", "bh-pickup", "bh-client", "bh-bounce",
	"bh-local", "bh-broker", "bh-imapd", "bh-pop3d", "bh-log", "bh-metrics" };

static void
check_daemon_users(struct tool *t)
{
	struct buf missing = { 0 };
	size_t i;

	for (i = 0; i < sizeof(daemon_users) / sizeof(daemon_users[0]); i++)
		if (!getpwnam(daemon_users[i]))
			(void)buf_addf(&missing, " %s", daemon_users[i]);
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

/* The uid of a daemon in this configuration; false if it has none. */
static bool
uid_of(const struct tool *t, enum role role, uid_t *uid_r)
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

/* What lies in folder, and in its folders, and is not of the daemon that keeps it: the first one is
 * told. The folders are given to the daemon at a start, never the files. */
static bool
check_kept(struct tool *t, const char *param, const char *folder, enum role role, bool deeper)
{
	DIR *dir = opendir(folder);
	const struct dirent *e;
	struct stat st;
	bool found = false;
	unsigned n = 0;
	uid_t uid;

	while (dir && !found && (deeper || n++ < ENTRIES_LOOKED_AT) && uid_of(t, role, &uid) &&
	       (e = readdir(dir))) {
		char *remedy;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		if (st.st_uid == uid) {
			char *below = xasprintf("%s/%s", folder, e->d_name);

			found = deeper && S_ISDIR(st.st_mode) &&
				check_kept(t, param, below, role, false);
			free(below);
			continue;
		}
		remedy = xasprintf("correct uid_base, or stop the suite and chown -R %u:%u %s",
		    (unsigned)uid, (unsigned)uid, folder);
		check_at(t, false, param, remedy, "%s: %s/%s belongs to uid %u, but %s has uid %u",
		    param, folder, e->d_name, (unsigned)st.st_uid, role_table[role].name,
		    (unsigned)uid);
		free(remedy);
		found = true;
	}
	if (dir)
		closedir(dir);
	return found;
}

void
check_owners(struct tool *t)
{
	char *queue = xasprintf("%s/queue", t->set->conf->queue_directory);

	(void)check_kept(t, "queue_directory", queue, ROLE_QMGR, true);
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
	check_resolvers(t);
}
