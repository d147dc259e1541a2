/*
 * Part of `bulkhead check`: folders, programs, certificates: whether they exist, whose they are and
 * who else may write to them. Folders that master makes at a start need only a place to stand.
 */
#include "tools/check.h"
#include "db/db.h"
#include "tls/tls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SOON_SECONDS (14 * 86400)

/* Who may own what belongs to the admin: root, or the caller of an instance of their own. */
static bool
owner_good(const struct stat *st)
{
	return st->st_uid == 0 || (geteuid() != 0 && st->st_uid == geteuid());
}

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
}

/* A folder that is there must be one and must not be everybody's; else its nearest parent must be.
 */
static void
check_folder(struct tool *t, const char *param, const char *path)
{
	struct stat st;
	char *parent, *slash;

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
		else if (!owner_good(&st) && strcmp(param, "virtual_mailbox_base"))
			check_at(t, false, param, "chown root it", "%s = %s: belongs to uid %u",
			    param, path, (unsigned)st.st_uid);
		return;
	}
	if (errno != ENOENT) {
		check_at(t, false, param, "correct the name", "%s = %s: %s", param, path,
		    err_str(err_errno()));
		return;
	}
	parent = xstrdup(path);
	while ((slash = strrchr(parent, '/')) && slash != parent) {
		*slash = '\0';
		if (!stat(parent, &st)) {
			if (!S_ISDIR(st.st_mode))
				check_at(t, false, param, "name another folder",
				    "%s = %s: %s is not a folder", param, path, parent);
			break;
		}
	}
	free(parent);
}

static void
check_programs(struct tool *t)
{
	const struct conf_services *s = t->set->services;
	struct arena arena = { 0 };
	const char *path;
	size_t i;

	path = tool_program(t, "master", &arena);
	if (access(path, X_OK))
		check_at(t, false, "daemon_directory", "correct daemon_directory", "%s: %s", path,
		    err_str(err_errno()));
	for (i = 0; i < s->n; i++) {
		path = tool_program(t, s->v[i].command, &arena);
		if (access(path, X_OK))
			conf_problem(&t->problems, s->v[i].file, s->v[i].line,
			    "correct daemon_directory, or install the program",
			    "service %s: %s: %s", s->v[i].name, path, err_str(err_errno()));
	}
	arena_free(&arena);
}

/* A path of a file that must exist; those that a program may make are left out. */
static void
check_exists(struct tool *t, const char *param, const char *path)
{
	struct stat st;

	if (!path || !path[0])
		return;
	if (stat(path, &st))
		check_at(t, false, param, "create it, or correct the name", "%s = %s: %s", param,
		    path, err_str(err_errno()));
	else if (!S_ISREG(st.st_mode))
		check_at(t, false, param, "name a file", "%s = %s: is not a file", param, path);
}

void
check_files(struct tool *t)
{
	const struct conf *c = t->set->conf;
	char *log_folder = xstrdup(c->log_file);
	char *slash = strrchr(log_folder, '/');

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
	if (c->smtp_tls_security_level >= CONF_TLS_LEVEL_VERIFY ||
	    conf_raw_find(t->set->raw, "smtp_tls_CAfile"))
		check_exists(t, "smtp_tls_CAfile", c->smtp_tls_CAfile);
	check_exists(t, "smtp_tls_cert_file", c->smtp_tls_cert_file);
	check_exists(t, "smtp_tls_key_file", c->smtp_tls_key_file);
	free(log_folder);
}

/* --- certificates: loaded as the front ends load them --- */

static bool
read_pem(struct tool *t, const char *param, const char *path, struct buf *pem)
{
	struct stat st;
	int err = tls_read_file(path, pem);

	if (err) {
		check_at(t, false, param, "create it, correct the name, or remove the line",
		    "%s = %s: %s", param, path, err_str(err));
		return false;
	}
	if (slice_search(buf_slice(pem), SLICE_LIT("PRIVATE KEY")) >= 0 && !stat(path, &st) &&
	    (st.st_mode & (S_IROTH | S_IWOTH | S_IWGRP)))
		check_at(t, false, param, "chmod 600 it",
		    "%s = %s: holds a private key and has mode %04o", param, path,
		    (unsigned)st.st_mode & 07777);
	return true;
}

static void
check_pair(struct tool *t, const char *param, const char *chain_file, const char *key_file)
{
	struct buf chain = { 0 }, key = { 0 };
	struct tls_server_opts opts = { .service = "check", .identity_count = 1 };
	struct tls_identity identity = { 0 };
	struct tls_ctx *ctx = NULL;
	char why[256];
	int64_t left;

	if (!read_pem(t, param, chain_file, &chain))
		goto out;
	if (key_file && strcmp(key_file, chain_file) &&
	    !read_pem(t, "smtpd_tls_key_file", key_file, &key))
		goto out;
	identity.chain = buf_slice(&chain);
	identity.key = buf_slice(&key);
	opts.identities = &identity;
	if (tls_server_new(&opts, &ctx, why, sizeof(why))) {
		check_at(t, false, param,
		    "give a PEM file with the certificate first, and the key that belongs to it",
		    "%s = %s: %s", param, chain_file, why);
		goto out;
	}
	left = tls_server_expiry(ctx) - (int64_t)time(NULL);
	if (left < 0)
		check_at(t, false, param, "get a new one", "%s = %s: the certificate has expired",
		    param, chain_file);
	else if (left < SOON_SECONDS)
		check_at(t, true, param, "get a new one",
		    "%s = %s: the certificate expires in %lld days", param, chain_file,
		    (long long)(left / 86400));
out:
	tls_ctx_free(&ctx);
	buf_wipe(&chain);
	buf_wipe(&key);
}

static int
check_sni_entry(void *ctx, struct slice name, struct slice file)
{
	char *path = slice_dup(slice_trim(file, true));

	(void)name;
	check_pair(ctx, "tls_server_sni_maps", path, NULL);
	free(path);
	return 0;
}

static void
check_sni_table(struct tool *t, const struct conf_table *table)
{
	struct buf spec = { 0 }, why = { 0 };
	struct db *db = NULL;

	(void)buf_addf(&spec, "%s:%s", table->type, table->name);
	if (!db_open(buf_slice(&spec), 0, &db, &why) &&
	    db_each(db, check_sni_entry, t) == ERR_STATE)
		check_at(t, false, "tls_server_sni_maps",
		    "use a hash, texthash, inline or lmdb table",
		    "tls_server_sni_maps: %s does not tell which names it has", db_spec(db));
	db_free(&db); /* what cannot be opened is told with all tables */
	buf_free(&spec);
	buf_free(&why);
}

void
check_certificates(struct tool *t)
{
	const struct conf *c = t->set->conf;
	size_t i;

	for (i = 0; i < c->tls_server_sni_maps.n; i++)
		check_sni_table(t, &c->tls_server_sni_maps.v[i]);
	for (i = 0; i < c->smtpd_tls_chain_files.n; i++)
		check_pair(t, "smtpd_tls_chain_files", c->smtpd_tls_chain_files.v[i], NULL);
	if (c->smtpd_tls_chain_files.n || !c->smtpd_tls_cert_file[0])
		return;
	/* the default is made at the first start */
	if (!conf_raw_find(t->set->raw, "smtpd_tls_cert_file") &&
	    access(c->smtpd_tls_cert_file, F_OK))
		return;
	check_pair(t, "smtpd_tls_cert_file", c->smtpd_tls_cert_file, c->smtpd_tls_key_file);
}
