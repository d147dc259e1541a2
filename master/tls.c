/*
 * Certificates and session ticket keys. master reads the PEM files, which only root may, and hands
 * them to the front ends as messages; it draws ticket keys per service and rotates them, so that
 * resumption works across processes and a ticket of one service is worth nothing to another.
 */
#include "master/master.h"

#include "tls/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static bool
uses_tls(const struct service *s)
{
	return s->role == ROLE_SMTPD || s->role == ROLE_SUBMISSION || s->role == ROLE_LOGIN;
}

static int
read_file(const char *path, struct buf *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ptrdiff_t n;

	if (fd < 0)
		return err_errno();
	do
		n = buf_read(out, fd, 16384);
	while (n > 0);
	close(fd);
	return n < 0 ? (int)n : 0;
}

static void
send_one(
    struct process *p, size_t index, size_t count, const char *chain_file, const char *key_file)
{
	struct buf chain, key;
	struct msg m = MSG_INIT(MSG_TLS_CERTIFICATE, 0);
	const char *file = chain_file;
	int err;

	buf_init(&chain, 49152);
	buf_init(&key, 49152);
	err = read_file(chain_file, &chain);
	if (!err && key_file && strcmp(key_file, chain_file)) {
		file = key_file;
		err = read_file(key_file, &key);
	}
	if (err) {
		log_event(LOG_E, "certificate-unreadable",
		    "service=%s file=%s reason=\"%s\" remedy=\"correct smtpd_tls_cert_file, "
		    "smtpd_tls_key_file or smtpd_tls_chain_files\"",
		    p->service->name, log_cstr(file), err_str(err));
	} else {
		m.tls_certificate.index = (uint8_t)index;
		m.tls_certificate.count = (uint8_t)count;
		m.tls_certificate.chain = buf_slice(&chain);
		m.tls_certificate.key = buf_slice(&key);
		(void)ipc_send(p->chan, &m);
	}
	buf_wipe(&chain);
	buf_wipe(&key);
}

void
tls_send_certificates(struct service *s, struct process *p)
{
	const struct conf *c = s->conf;

	if (!uses_tls(s) || !p->chan)
		return;
	for (size_t i = 0; i < c->smtpd_tls_chain_files.n; i++)
		send_one(p, i, c->smtpd_tls_chain_files.n, c->smtpd_tls_chain_files.v[i], NULL);
	if (!c->smtpd_tls_chain_files.n && c->smtpd_tls_cert_file && *c->smtpd_tls_cert_file)
		send_one(p, 0, 1, c->smtpd_tls_cert_file, c->smtpd_tls_key_file);
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
	m.tls_ticket_keys.keys = slice(s->ticket_keys, s->nkeys * TICKET_KEY);
	(void)ipc_send(p->chan, &m);
}

void
tls_rotate(struct master *m)
{
	struct service *s;
	struct process *p;

	TAILQ_FOREACH(s, &m->services, next) {
		if (!uses_tls(s))
			continue;
		draw_key(s);
		TAILQ_FOREACH(p, &s->processes, next)
			tls_send_keys(s, p);
	}
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
	while (!err && buf_len(&pem)) {
		ptrdiff_t n = buf_write(&pem, fd);
		if (n < 0)
			err = (int)n;
	}
	if (fd >= 0)
		close(fd);
	buf_wipe(&pem);
	if (err)
		log_event(LOG_E, "certificate-failed",
		    "file=%s reason=\"%s\" remedy=\"make data_directory writable, or name a "
		    "certificate\"",
		    log_cstr(c->smtpd_tls_cert_file), err_str(err));
	else
		log_event(LOG_W, "certificate-made",
		    "file=%s reason=\"none was there\" remedy=\"set smtpd_tls_cert_file to a real "
		    "one when you have it\"",
		    log_cstr(c->smtpd_tls_cert_file));
	return err;
}
