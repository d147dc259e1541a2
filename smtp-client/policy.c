/*
 * Which TLS a destination gets: smtp_tls_policy_maps, else smtp_tls_security_level. Runs in
 * smtp-client: the contexts are made before the jail, since certificates and authorities are files.
 */
#include "sender.h"

#include <stdio.h>
#include <stdlib.h>

bool
policy_requires_tls(int level)
{
	return level != CONF_TLS_LEVEL_NONE && level != CONF_TLS_LEVEL_MAY &&
	       level != CONF_TLS_LEVEL_DANE;
}

struct tls_ctx *
policy_context(struct sender *s, int level)
{
	switch (level) {
	case CONF_TLS_LEVEL_ENCRYPT:
		return s->tls[KIND_ENCRYPT];
	case CONF_TLS_LEVEL_FINGERPRINT:
		return s->tls[KIND_FINGERPRINT];
	case CONF_TLS_LEVEL_VERIFY:
	case CONF_TLS_LEVEL_SECURE:
		return s->tls[KIND_VERIFY];
	default:
		return s->tls[KIND_MAY];
	}
}

static int
read_pem(const char *path, struct buf *out)
{
	int err = path[0] ? tls_read_file(path, out) : 0;

	if (err)
		log_event(LOG_smtp_tls_files,
		    "file=%s reason=\"%s\" remedy=\"mend smtp_tls_cert_file or smtp_tls_key_file\"",
		    log_cstr(path), err_str(err));
	return err;
}

int
policy_tls_init(struct sender *s)
{
	static const struct {
		enum tls_level level;
		const char *name;
	} kinds[KIND_COUNT] = {
		[KIND_MAY] = { TLS_OPPORTUNISTIC, "may" },
		[KIND_ENCRYPT] = { TLS_ENCRYPT, "encrypt" },
		[KIND_VERIFY] = { TLS_VERIFY, "verify" },
		[KIND_FINGERPRINT] = { TLS_FINGERPRINT, "fingerprint" },
	};
	const struct conf *conf = s->d->conf;
	enum tls_version minimum = conf->tls_minimum_version == CONF_TLS_VERSION_TLS1_3
				       ? TLS_VERSION_1_3
				       : TLS_VERSION_1_2;
	struct buf cert = { 0 }, key = { 0 };
	char why[256];
	int err = read_pem(conf->smtp_tls_cert_file, &cert);

	if (!err && strcmp(conf->smtp_tls_cert_file, conf->smtp_tls_key_file) != 0)
		err = read_pem(conf->smtp_tls_key_file, &key);
	for (int k = 0; !err && k < KIND_COUNT; k++) {
		struct tls_client_opts o = { .level = kinds[k].level,
			/* may takes what there is: better than the clear */
			.min_version = k == KIND_MAY ? TLS_VERSION_DEFAULT : minimum,
			.ciphers =
			    k == KIND_MAY || !conf->tls_ciphers[0] ? NULL : conf->tls_ciphers,
			/* authorities are only needed to verify, and take 25 ms to read */
			.ca_file = k == KIND_VERIFY && conf->smtp_tls_CAfile[0]
				       ? conf->smtp_tls_CAfile
				       : NULL,
			.identity = { .chain = buf_slice(&cert), .key = buf_slice(&key) } };

		if (!tls_client_new(&o, &s->tls[k], why, sizeof(why)))
			continue;
		log_event(LOG_smtp_tls_level,
		    "level=%s reason=%s remedy=\"mail that needs this level waits\"", kinds[k].name,
		    log_cstr(why));
	}
	buf_wipe(&cert);
	buf_wipe(&key);
	return err;
}

static void ask_next(struct job *j);

/* A domain has its own entry, or that of a domain above it: .example.com, as Postfix has them. A
 * next hop that a transport names ([host], host:port) has none but its own. */
static void
take_parent(struct job *j)
{
	struct slice name = j->policy_key;
	ptrdiff_t dot = slice_find(slice_sub(name, 1, name.n), '.');

	if (j->port || !name.n || name.p[0] == '[' || dot < 0)
		return;
	j->policy_key = slice_sub(name, (size_t)dot + 1, name.n);
	j->policy_at = 0;
}

static void
on_value(void *ctx, struct msg *m)
{
	struct job *j = ctx;
	const char *wrong;

	j->ask = NULL;
	if (!m || m->type != MSG_MAP_VALUE || m->map_value.status > 1) {
		job_reason(j, false, "4.3.0", "",
		    "smtp_tls_policy_maps cannot be read now; see the log of maps");
		job_finish(j);
		return;
	}
	if (m->map_value.status == 0) {
		wrong = policy_entry(&j->policy, slice_trim(m->map_value.value, true), &j->arena);
		if (!wrong) {
			job_route(j);
			return;
		}
		job_reason(j, false, "4.3.5", "", "smtp_tls_policy_maps: the entry of %.*s %s",
		    SLICE_ARG(j->nexthop), wrong);
		job_finish(j);
		return;
	}
	if (++j->policy_at >= j->s->d->conf->smtp_tls_policy_maps.n)
		take_parent(j);
	ask_next(j);
}

static void
ask_next(struct job *j)
{
	const struct conf_tables *tables = &j->s->d->conf->smtp_tls_policy_maps;
	struct msg m = MSG_INIT(MSG_MAP_GET, 0);

	if (j->policy_at >= tables->n) {
		job_route(j);
		return;
	}
	m.map_get.table = slice_str(arena_printf(
	    &j->arena, "%s:%s", tables->v[j->policy_at].type, tables->v[j->policy_at].name));
	m.map_get.key =
	    slice_str(j->port ? arena_printf(&j->arena, "%.*s:%u", SLICE_ARG(j->nexthop), j->port)
			      : arena_printf(&j->arena, "%.*s", SLICE_ARG(j->policy_key)));
	j->ask = ask_send(j->s, ROLE_MAPS, &m, 30000, on_value, j);
	if (!j->ask) {
		job_reason(j, false, "4.3.0", "",
		    "smtp_tls_policy_maps cannot be read now: maps is not there");
		job_finish(j);
	}
}

void
policy_find(struct job *j)
{
	const struct conf *conf = j->s->d->conf;

	j->policy = (struct policy){ .level = conf->smtp_tls_security_level,
		.wrapper = conf->smtp_tls_wrappermode };
	j->policy_key = j->nexthop;
	j->policy_at = 0;
	ask_next(j);
}
