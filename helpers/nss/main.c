/*
 * nss: answers which users the system has, and nothing else. Runs as bh-nss; may read what NSS
 * reads
 * (/etc, name service sockets). Asked by maps and auth with names that strangers chose.
 */
#include "daemon/daemon.h"
#include "helpers/nss/answer.h"

#include <errno.h>
#include <stdlib.h>

enum { THREADS = 2, TOLD_MAX = 256 };

/* One asking link; outlives its channel while threads still work for it. */
struct asker {
	struct ipc_chan *chan; /* NULL: gone */
	unsigned pending;
};

struct nss {
	struct daemon *d;
	struct lookup_pool *pool;
	uint64_t asked, unknown, failed;
	uid_t told[TOLD_MAX]; /* of whom it was said that they are in too many groups */
	size_t ntold;
};

static void
release(struct asker *a)
{
	if (!a->chan && !a->pending)
		free(a);
}

/* Once for each user: maps asks again and again. */
static void
tell_groups(struct nss *nss, const struct lookup *l)
{
	for (size_t i = 0; i < nss->ntold; i++)
		if (nss->told[i] == l->pw.pw_uid)
			return;
	if (nss->ntold == TOLD_MAX)
		return;
	nss->told[nss->ntold++] = l->pw.pw_uid;
	log_event(LOG_nss_groups, "user=%s groups=%zu kept=%zu", log_cstr(l->pw.pw_name),
	    l->member_of, l->ngroups);
}

static void
on_done(void *ctx, struct lookup *l)
{
	struct nss *nss = ctx;
	struct asker *a = l->ctx;

	if (l->status == LOOKUP_UNKNOWN)
		nss->unknown++;
	if (l->status == LOOKUP_FOUND && l->member_of > l->ngroups)
		tell_groups(nss, l);
	if (l->status == LOOKUP_TROUBLE) {
		nss->failed++;
		log_event(LOG_nss_error,
		    "user=%s reason=\"%s\" remedy=\"look at /etc/nsswitch.conf and the service "
		    "that "
		    "it names; mail for this user waits\"",
		    log_cstr(l->name), err_str(-l->error));
	}
	answer_send(a->chan, l->id, slice_str(l->name), l);
	a->pending--;
	release(a);
}

static void
nss_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct nss *nss = d->ctx;
	struct asker *a = ipc_chan_data(ch);
	int err;

	if (m->type != MSG_NSS_GET || !a)
		return;
	nss->asked++;
	err = lookup_start(nss->pool, m->nss_get.name, a, m->id);
	if (!err) {
		a->pending++;
	} else if (err == ERR_SYNTAX) {
		answer_send(ch, m->id, m->nss_get.name, NULL);
	} else {
		struct lookup busy = { .status = LOOKUP_TROUBLE };
		answer_send(ch, m->id, m->nss_get.name, &busy);
	}
}

static void
nss_link_up(struct daemon *d, struct ipc_chan *ch)
{
	struct asker *a;

	(void)d;
	if (ipc_chan_peer(ch) != ROLE_MAPS && ipc_chan_peer(ch) != ROLE_AUTH)
		return;
	a = xcalloc(1, sizeof(*a));
	a->chan = ch;
	ipc_chan_set_data(ch, a);
}

static void
nss_link_down(struct daemon *d, struct ipc_chan *ch)
{
	struct asker *a = ipc_chan_data(ch);

	(void)d;
	if (!a)
		return;
	a->chan = NULL;
	release(a);
}

/* Loads what nsswitch.conf names while libraries can still be opened anywhere. */
static int
nss_init(struct daemon *d)
{
	static const char *const paths[] = { "/etc", "/usr/lib", "/usr/lib64", "/lib", "/lib64",
		"/run", "/var/run", "/var/lib/extrausers", "/var/lib/sss", "/var/db",
		"/usr/share/zoneinfo" };
	static const char *const warm[] = { "root", "bulkhead-no-such-user" };

	for (size_t i = 0; i < sizeof(warm) / sizeof(warm[0]); i++) {
		struct lookup *l = xcalloc(1, sizeof(*l));

		if (slice_copy(slice_str(warm[i]), l->name, sizeof(l->name)))
			return ERR_LIMIT;
		lookup_run(l);
		lookup_free(l);
	}
	d->ctx = xcalloc(1, sizeof(struct nss));
	d->read_paths = paths;
	d->nread_paths = sizeof(paths) / sizeof(paths[0]);
	return 0;
}

static int
nss_start(struct daemon *d)
{
	struct nss *nss = d->ctx;

	nss->d = d;
	nss->pool = lookup_pool_new(d->base, THREADS, on_done, nss);
	return 0;
}

static void
nss_status(struct daemon *d, struct buf *out)
{
	const struct nss *nss = d->ctx;

	buf_addf(out, "asked=%llu unknown=%llu failed=%llu", (unsigned long long)nss->asked,
	    (unsigned long long)nss->unknown, (unsigned long long)nss->failed);
}

int
main(int argc, char **argv)
{
	static const struct daemon_desc desc = {
		.role = ROLE_NSS,
		.init = nss_init,
		.start = nss_start,
		.message = nss_message,
		.link_up = nss_link_up,
		.link_down = nss_link_down,
		.status = nss_status,
	};

	return daemon_run(argc, argv, &desc);
}
