/*
 * Part of `bulkhead check`: folders and programs: whether they exist, whose they are and who else
 * may write to them. Folders that master makes at a start need only a place to stand.
 */
#include "tools/check.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Who may own what belongs to the admin: root, or the caller of an instance of their own. */
static bool
owner_good(const struct stat *st)
{
	return st->st_uid == 0 || (geteuid() != 0 && st->st_uid == geteuid());
}

/* A file of the configuration, or the folder in which another could take its place. */
static void
check_config_file(struct tool *t, const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return; /* the loader has said so */
	if (!owner_good(&st))
		conf_problem(&t->problems, path, 0, "chown root",
		    "belongs to uid %u, who could become root by it", (unsigned)st.st_uid);
	if (st.st_mode & S_IWOTH)
		conf_problem(&t->problems, path, 0, "chmod go-w",
		    "can be written by everybody (mode %04o)", (unsigned)st.st_mode & 07777);
	else if ((st.st_mode & S_IWGRP) && st.st_gid != 0 && geteuid() == 0)
		conf_warning(&t->problems, path, 0, "chmod g-w, or see who is in that group",
		    "can be written by the group %u, whose members could become root by it",
		    (unsigned)st.st_gid);
}

/* master gives the folder of the log to its daemon, those of users belong to whom the admin likes.
 */
static bool
folder_owner_good(const struct tool *t, const char *param, const struct stat *st)
{
	uid_t uid;

	return owner_good(st) || !strcmp(param, "virtual_mailbox_base") ||
	       (!strcmp(param, "log_file") && check_uid_of(t, ROLE_LOG, &uid) && st->st_uid == uid);
}

/* A folder that is there must be one and must not be everybody's; master makes one that is not. */
static void
check_folder(struct tool *t, const char *param, const char *path)
{
	struct stat st;

	if (!path || path[0] != '/')
		return;
	if (!stat(path, &st)) {
		if (!S_ISDIR(st.st_mode))
			check_at(t, false, param, "name a folder", "%s = %s: is not a folder",
			    param, path);
		else if ((st.st_mode & S_IWOTH) && !(st.st_mode & S_ISVTX))
			check_at(t, false, param, "chmod o-w it",
			    "%s = %s: can be written by everybody (mode %04o)", param, path,
			    (unsigned)st.st_mode & 07777);
		else if (!folder_owner_good(t, param, &st))
			check_at(t, false, param, "chown root it", "%s = %s: belongs to uid %u",
			    param, path, (unsigned)st.st_uid);
		return;
	}
	if (errno != ENOENT)
		check_at(t, false, param, "correct the name", "%s = %s: %s", param, path,
		    err_str(err_errno()));
	else if (!lstat(path, &st))
		check_at(t, false, param, "make the folder that it points to, or remove the link",
		    "%s = %s: is a link to nothing", param, path);
}

/* access(2) alone finds a folder executable. */
static int
program_error(const char *path)
{
	struct stat st;

	if (stat(path, &st) || access(path, X_OK))
		return err_errno();
	return S_ISREG(st.st_mode) ? 0 : -EISDIR;
}

static void
check_programs(struct tool *t)
{
	const struct conf_services *s = t->set->services;
	struct arena arena = { 0 };
	const char *path;
	size_t i;
	int err;

	path = tool_program(t, "master", &arena);
	err = program_error(path);
	if (err)
		check_at(t, false, "daemon_directory", "correct daemon_directory", "%s: %s", path,
		    err_str(err));
	for (i = 0; i < s->n; i++) {
		path = tool_program(t, s->v[i].command, &arena);
		err = program_error(path);
		if (err)
			conf_problem(&t->problems, s->v[i].file, s->v[i].line,
			    "correct daemon_directory, or install the program",
			    "service %s: %s: %s", s->v[i].name, path, err_str(err));
	}
	arena_free(&arena);
}

void
check_files(struct tool *t)
{
	const struct conf *c = t->set->conf;
	char *log_folder = xstrdup(c->log_file);
	char *slash = strrchr(log_folder, '/');

	check_config_file(t, t->dir);
	check_config_file(t, t->set->main_cf);
	check_config_file(t, t->set->master_cf);
	check_folder(t, "queue_directory", c->queue_directory);
	check_folder(t, "data_directory", c->data_directory);
	check_folder(t, "run_directory", c->run_directory);
	check_folder(t, "virtual_mailbox_base", c->virtual_mailbox_base);
	if (c->log_target == CONF_LOG_TARGET_FILE && slash && slash != log_folder) {
		*slash = '\0';
		check_folder(t, "log_file", log_folder);
	}
	check_programs(t);
	free(log_folder);
}
