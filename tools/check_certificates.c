/*
 * Part of `bulkhead check`: certificates, keys and authorities, loaded as the front ends and
 * smtp-client load them.
 */
#include "db/db.h"
#include "tls/tls.h"
#include "tools/check.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SOON_SECONDS (14 * 86400)

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

/* key_file NULL or the same: the key is in chain_file, too. */
static void
check_pair(struct tool *t, const char *param, const char *chain_file, const char *key_param,
    const char *key_file)
{
	struct buf chain = { 0 }, key = { 0 };
	struct tls_server_opts opts = { .service = "check", .identity_count = 1 };
	struct tls_identity identity = { 0 };
	struct tls_ctx *ctx = NULL;
	char why[256];
	int64_t left;

	if (!read_pem(t, param, chain_file, &chain))
		goto out;
	if (key_file && strcmp(key_file, chain_file) && !read_pem(t, key_param, key_file, &key))
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
	check_pair(ctx, "tls_server_sni_maps", path, NULL, NULL);
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

static void
check_authorities(struct tool *t, const char *param, const char *file)
{
	struct tls_client_opts opts = { .level = TLS_VERIFY, .ca_file = file };
	struct tls_ctx *ctx = NULL;
	struct buf pem = { 0 };
	char why[256];

	if (read_pem(t, param, file, &pem) && tls_client_new(&opts, &ctx, why, sizeof(why)))
		check_at(t, false, param, "give a PEM file of the certificates of authorities",
		    "%s = %s", param, why);
	tls_ctx_free(&ctx);
	buf_wipe(&pem);
}

static void
check_ciphers(struct tool *t)
{
	const char *ciphers = t->set->conf->tls_ciphers;
	struct tls_client_opts opts = { .level = TLS_ENCRYPT, .ciphers = ciphers };
	struct tls_ctx *ctx = NULL;
	char why[256];

	if (ciphers[0] && tls_client_new(&opts, &ctx, why, sizeof(why)))
		check_at(t, false, "tls_ciphers", "write it as openssl-ciphers(1) says",
		    "tls_ciphers = %s: %s", ciphers, why);
	tls_ctx_free(&ctx);
}

/* What smtp-client shows to next hops, and whom it believes. */
static void
check_client(struct tool *t)
{
	const struct conf *c = t->set->conf;

	if (c->smtp_tls_cert_file[0])
		check_pair(t, "smtp_tls_cert_file", c->smtp_tls_cert_file, "smtp_tls_key_file",
		    c->smtp_tls_key_file[0] ? c->smtp_tls_key_file : NULL);
	else if (c->smtp_tls_key_file[0])
		check_at(t, false, "smtp_tls_key_file", "set smtp_tls_cert_file, or remove it",
		    "smtp_tls_key_file = %s: is the key of no certificate", c->smtp_tls_key_file);
	if (c->smtp_tls_CAfile[0] && (c->smtp_tls_security_level >= CONF_TLS_LEVEL_VERIFY ||
					 conf_raw_find(t->set->raw, "smtp_tls_CAfile")))
		check_authorities(t, "smtp_tls_CAfile", c->smtp_tls_CAfile);
}

void
check_certificates(struct tool *t)
{
	const struct conf *c = t->set->conf;
	size_t i;

	check_client(t);
	check_ciphers(t);
	if (c->auth_external && c->smtpd_tls_CAfile[0])
		check_authorities(t, "smtpd_tls_CAfile", c->smtpd_tls_CAfile);
	for (i = 0; i < c->tls_server_sni_maps.n; i++)
		check_sni_table(t, &c->tls_server_sni_maps.v[i]);
	for (i = 0; i < c->smtpd_tls_chain_files.n; i++)
		check_pair(t, "smtpd_tls_chain_files", c->smtpd_tls_chain_files.v[i], NULL, NULL);
	if (c->smtpd_tls_chain_files.n || !c->smtpd_tls_cert_file[0])
		return;
	/* the default is made at the first start */
	if (!conf_raw_find(t->set->raw, "smtpd_tls_cert_file") &&
	    access(c->smtpd_tls_cert_file, F_OK))
		return;
	check_pair(t, "smtpd_tls_cert_file", c->smtpd_tls_cert_file, "smtpd_tls_key_file",
	    c->smtpd_tls_key_file);
}
