/*
 * Certificates and session ticket keys. master reads the PEM files, which only root may, and hands
 * them to the front ends as messages; it draws ticket keys per service and rotates them, so that
 * resumption works across processes and a ticket of one service is worth nothing to another.
 */
#include "master/master.h"

#include "base/io.h"
#include "db/db.h"
#include "tls/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static bool
uses_tls(const struct service *s)
{
	return s->role == ROLE_SMTPD || s->role == ROLE_SUBMISSION || s->role == ROLE_LOGIN;
}

#define ROTATE_MIN_MS ((int64_t)60 * 1000)

/* What a message of certificates has room for. */
enum { CHAIN_MAX = 49152, KEY_MAX = 8192, READ_SIZE = 4096 };

static int
read_file(const char *path, struct buf *out, size_t max)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ptrdiff_t n;

	if (fd < 0)
		return err_errno();
	buf_init(out, max + READ_SIZE);
	do
		n = buf_read(out, fd, READ_SIZE);
	while (n > 0);
	close(fd);
	if (n >= 0 && buf_len(out) > max)
		return ERR_LIMIT;
	if (n >= 0 && !buf_len(out))
		return ERR_TRUNCATED; /* an empty one would be waited for */
	return n < 0 ? (int)n : 0;
}

/* What a service gets: only files that could be read, so that the others are numbered without a
 * gap.
 */
struct pem {
	struct buf chain, key;
	char *name; /* of tls_server_sni_maps, or NULL */
};

struct pems {
	const struct service *s;
	struct pem v[TLS_IDENTITIES_MAX];
	size_t n;
};

static void
add_files(struct pems *all, const char *param, const char *name, const char *chain_file,
    const char *key_file)
{
	struct pem *p = &all->v[all->n];
	const char *file = chain_file;
	int err = all->n == TLS_IDENTITIES_MAX ? ERR_LIMIT : 0;

	if (!err)
		err = read_file(chain_file, &p->chain, CHAIN_MAX);
	if (!err && key_file && strcmp(key_file, chain_file)) {
		file = key_file;
		err = read_file(key_file, &p->key, KEY_MAX);
	}
	if (!err) {
		p->name = name ? xstrdup(name) : NULL;
		all->n++;
		return;
	}
	log_event(LOG_certificate_unreadable,
	    "service=%s file=%s reason=\"%s\" remedy=\"correct %s\"", all->s->name, log_cstr(file),
	    err_str(err), param);
	if (all->n < TLS_IDENTITIES_MAX) {
		buf_wipe(&p->chain);
		buf_wipe(&p->key);
	}
}

static int
add_entry(void *ctx, struct slice name, struct slice file)
{
	char *n = slice_dup(name), *f = slice_dup(slice_trim(file, true));

	if (name.n <= 255)
		add_files(ctx, "tls_server_sni_maps", n, f, NULL);
	free(n);
	free(f);
	return 0;
}

static void
add_table(struct pems *all, const struct conf_table *table)
{
	struct buf spec = { 0 }, why = { 0 };
	struct db *db = NULL;
	int err;

	buf_addf(&spec, "%s:%s", table->type, table->name);
	err = db_open(buf_slice(&spec), 0, &db, &why);
	if (!err)
		err = db_each(db, add_entry, all);
	if (err)
		log_event(LOG_certificate_table,
		    "service=%s table=%s reason=%s remedy=\"correct "
		    "tls_server_sni_maps: a hash, texthash, inline or lmdb table\"",
		    all->s->name, log_value(buf_slice(&spec)),
		    buf_len(&why) ? log_value(slice_trim(buf_slice(&why), true)) : err_str(err));
	db_free(&db);
	buf_free(&spec);
	buf_free(&why);
}

static void
send_all(struct process *p, struct pems *all)
{
	struct msg m = MSG_INIT(MSG_TLS_CERTIFICATE, 0);

	for (size_t i = 0; i < all->n; i++) {
		struct pem *pem = &all->v[i];
		m.tls_certificate.index = (uint8_t)i;
		m.tls_certificate.count = (uint8_t)all->n;
		m.tls_certificate.name = slice_str(pem->name ? pem->name : "");
		m.tls_certificate.chain = buf_slice(&pem->chain);
		m.tls_certificate.key = buf_slice(&pem->key);
		(void)ipc_send(p->chan, &m);
		buf_wipe(&pem->chain);
		buf_wipe(&pem->key);
		free(pem->name);
	}
}

void
tls_send_certificates(struct service *s, struct process *p)
{
	const struct conf *c = s->conf;
	struct pems *all;

	if (!uses_tls(s) || !p->chan)
		return;
	all = xcalloc(1, sizeof(*all));
	all->s = s;
	for (size_t i = 0; i < c->smtpd_tls_chain_files.n; i++)
		add_files(all, "smtpd_tls_chain_files", NULL, c->smtpd_tls_chain_files.v[i], NULL);
	if (!c->smtpd_tls_chain_files.n && c->smtpd_tls_cert_file && *c->smtpd_tls_cert_file)
		add_files(all, "smtpd_tls_cert_file or smtpd_tls_key_file", NULL,
		    c->smtpd_tls_cert_file, c->smtpd_tls_key_file);
	for (size_t i = 0; all->n && i < c->tls_server_sni_maps.n; i++)
		add_table(all, &c->tls_server_sni_maps.v[i]);
	send_all(p, all);
	free(all);
}

static void
draw_key(struct service *s)
{
	memmove(s->ticket_keys + TICKET_KEY, s->ticket_keys, (TICKET_KEYS - 1) * TICKET_KEY);
	if (getrandom(s->ticket_keys, TICKET_KEY, 0) != (ssize_t)TICKET_KEY)
		die("getrandom: no randomness");
	if (s->nkeys < TICKET_KEYS)
		s->nkeys++;
}

void
tls_send_keys(struct service *s, struct process *p)
{
	struct msg m = MSG_INIT(MSG_TLS_TICKET_KEYS, 0);

	if (!uses_tls(s) || !p->chan)
		return;
	if (!s->nkeys)
		draw_key(s);
	/* No key, no tickets. */
	if (s->conf->tls_session_lifetime)
		m.tls_ticket_keys.keys = slice(s->ticket_keys, s->nkeys * TICKET_KEY);
	(void)ipc_send(p->chan, &m);
}

/* As often as tickets expire; a short life still costs no more than a message a minute. */
static int64_t
rotate_ms(const struct master *m)
{
	int64_t ms = m->set->conf->tls_session_lifetime;

	return ms > ROTATE_MIN_MS ? ms : ROTATE_MIN_MS;
}

static void
on_rotate(void *arg)
{
	tls_rotate(arg);
}

void
tls_rearm(struct master *m)
{
	if (m->rotate_ms == rotate_ms(m))
		return;
	m->rotate_ms = rotate_ms(m);
	ev_timer_set(m->base, &m->rotate_timer, m->rotate_ms, on_rotate, m);
}

void
tls_rotate(struct master *m)
{
	struct service *s;
	struct process *p;

	TAILQ_FOREACH(s, &m->services, next) {
		if (!uses_tls(s) || s->obsolete)
			continue;
		draw_key(s);
		TAILQ_FOREACH(p, &s->processes, next)
			tls_send_keys(s, p);
	}
	m->rotate_ms = 0;
	tls_rearm(m);
}

/* A self-made certificate stands where the default points until there is a real one. */
int
tls_prepare(struct master *m)
{
	const struct conf *c = m->set->conf;
	const char *names[] = { c->myhostname, "localhost" };
	struct buf pem = { 0 };
	char prefix[4096];
	int fd, err;

	snprintf(prefix, sizeof(prefix), "%s/", c->data_directory);
	if (!c->smtpd_tls_cert_file || strncmp(c->smtpd_tls_cert_file, prefix, strlen(prefix)) ||
	    !access(c->smtpd_tls_cert_file, F_OK))
		return 0;
	err = tls_selfsigned(names, 2, 3650, &pem);
	fd = err ? -1 : open(c->smtpd_tls_cert_file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (!err && fd < 0)
		err = err_errno();
	if (!err)
		err = io_write_all(fd, buf_slice(&pem));
	if (err && fd >= 0)
		(void)unlink(c->smtpd_tls_cert_file); /* the next start makes a whole one */
	if (fd >= 0)
		close(fd);
	buf_wipe(&pem);
	if (err)
		log_event(LOG_certificate_failed,
		    "file=%s reason=\"%s\" remedy=\"make data_directory writable, or name a "
		    "certificate\"",
		    log_cstr(c->smtpd_tls_cert_file), err_str(err));
	else
		log_event(LOG_certificate_made,
		    "file=%s reason=\"none was there\" remedy=\"set smtpd_tls_cert_file to a real "
		    "one when you have it\"",
		    log_cstr(c->smtpd_tls_cert_file));
	return err;
}
