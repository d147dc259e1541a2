/*
 * The configuration as master holds it, the sealed snapshot that each daemon gets, and the
 * directories that the jails need. Runs as root on root's own files. A configuration with an error
 * is refused whole: the running one goes on.
 */
#include "master/master.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int
snapshot_fd(struct service *s)
{
	struct conf conf = *s->conf;
	struct buf out = { 0 };
	int err, fd;

	conf.default_process_limit = s->process_limit > 0 ? s->process_limit : 100000;
	err = conf_snapshot_encode(&conf, role_table[s->role].name, &out);
	fd = err ? err : memfd_create("config", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (!err && fd < 0)
		err = err_errno();
	if (!err)
		err = io_write_all(fd, buf_slice(&out));
	if (!err &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))
		err = err_errno();
	buf_free(&out);
	if (err) {
		log_event(LOG_snapshot_failed, "service=%s reason=\"%s\"", s->name, err_str(err));
		if (fd >= 0)
			close(fd);
		return err;
	}
	return fd;
}

bool
config_load(struct master *m, struct buf *problems)
{
	struct conf_problems p = { 0 };
	struct conf_set *set = conf_set_load(m->config_dir, &p);
	bool good = p.errors == 0;

	for (size_t i = 0; i < p.n; i++) {
		conf_problem_format(&p.v[i], problems);
		buf_add_str(problems, "\n");
	}
	conf_problems_free(&p);
	if (!good) {
		conf_set_free(&set);
		return false;
	}
	conf_set_free(&m->set);
	m->set = set;
	m->generation++;
	return true;
}

const char *
role_root(const struct master *m, enum role role, char *buf, size_t size)
{
	const struct conf *c = m->set->conf;
	const char *kind = role_table[role].root;

	if (!strcmp(kind, "-"))
		snprintf(buf, size, "%s", "");
	else if (!strcmp(kind, "spool"))
		snprintf(buf, size, "%s/queue", c->queue_directory);
	else if (!strcmp(kind, "maildrop"))
		snprintf(buf, size, "%s/maildrop", c->queue_directory);
	else if (!strcmp(kind, "auth"))
		snprintf(buf, size, "%s/auth", c->data_directory);
	else if (!strcmp(kind, "log") && c->log_target == CONF_LOG_TARGET_FILE &&
		 strrchr(c->log_file, '/') > c->log_file)
		snprintf(
		    buf, size, "%.*s", (int)(strrchr(c->log_file, '/') - c->log_file), c->log_file);
	else
		snprintf(buf, size, "%s/empty", c->run_directory);
	return buf;
}

static int
make_parents(const char *path)
{
	char part[4096];

	for (const char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(at - path), path);
		if (mkdir(part, 0755) && errno != EEXIST)
			return err_errno();
	}
	return 0;
}

static int
directory(struct master *m, const char *path, mode_t mode, enum role owner, bool enforce)
{
	uid_t uid = 0;
	gid_t gid = 0;
	bool made;
	int err = make_parents(path);

	if (!err)
		err = role_ids(m, owner, &uid, &gid);
	made = !err && !mkdir(path, 0700);
	if (!err && !made && errno != EEXIST)
		err = err_errno();
	if (!err && (made || enforce) &&
	    ((!m->unprivileged && chown(path, uid, gid)) || chmod(path, mode)))
		err = err_errno();
	if (err)
		log_event(LOG_directory_failed,
		    "path=%s reason=\"%s\" remedy=\"make it, or correct its parameter in main.cf\"",
		    log_cstr(path),
		    err == ERR_NOT_FOUND ? "its owner does not exist" : err_str(err));
	return err;
}

static int
make_urandom(struct master *m, const char *root)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/dev", root);
	if (directory(m, path, 0755, ROLE_MASTER, true))
		return ERR_DENIED;
	snprintf(path, sizeof(path), "%s/dev/urandom", root);
	if (m->unprivileged || !access(path, R_OK))
		return 0;
	(void)unlink(path);
	if (mknod(path, S_IFCHR | 0444, makedev(1, 9)) || chmod(path, 0444)) {
		log_event(LOG_directory_failed,
		    "path=%s reason=\"%s\" remedy=\"put data_directory on a file system without "
		    "nodev\"",
		    log_cstr(path), err_str(err_errno()));
		return ERR_DENIED;
	}
	return 0;
}

int
directories_make(struct master *m)
{
	const struct conf *c = m->set->conf;
	char path[4200];
	int err = directory(m, c->run_directory, 0755, ROLE_MASTER, false);

	snprintf(path, sizeof(path), "%s/empty", c->run_directory);
	if (!err)
		err = directory(m, path, 0755, ROLE_MASTER, true);
	if (!err)
		err = directory(m, c->data_directory, 0755, ROLE_MASTER, false);
	if (!err)
		err = directory(m, c->queue_directory, 0755, ROLE_MASTER, false);
	snprintf(path, sizeof(path), "%s/queue", c->queue_directory);
	if (!err)
		err = directory(m, path, 0700, ROLE_QMGR, true);
	snprintf(path, sizeof(path), "%s/maildrop", c->queue_directory);
	if (!err)
		err = directory(m, path, 03733, ROLE_PICKUP, true);
	if (!err && c->log_target == CONF_LOG_TARGET_FILE)
		err =
		    directory(m, role_root(m, ROLE_LOG, path, sizeof(path)), 0750, ROLE_LOG, false);
	snprintf(path, sizeof(path), "%s/auth", c->data_directory);
	if (!err)
		err = directory(m, path, 0755, ROLE_MASTER, true);
	if (!err)
		err = make_urandom(m, path);
	return err;
}
