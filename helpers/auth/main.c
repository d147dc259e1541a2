/*
 * auth (uid bh-auth, root with urandom alone): SASL for the front ends, the user store, passwords
 * for smarthosts. The store and the tables are opened before the jail; in it no path exists.
 * Hostile: every peer's data; what each may ask is checked by lib/ipc and by the handlers. The loop
 * never derives a key, nor syncs a file: workers do.
 */
#include "helpers/auth/auth.h"

#include "ev/ev.h"

#include <stdlib.h>

#define SWEEP_MS 10000
#define PENALTIES_MAX 100000

static void
take_bounds(struct auth *a)
{
	const struct conf *conf = a->d->conf;

	atomic_store(&a->sasl.rounds, (unsigned)conf->auth_scram_rounds);
	atomic_store(&a->sasl.system_users, conf->auth_system_users);
	a->rates.unit_ms = conf->anvil_rate_time_unit;
	cache_bounds(a->sasl.cache, (size_t)conf->auth_cache_size, conf->auth_cache_time);
}

static int
open_users(struct auth *a)
{
	const struct conf *conf = a->d->conf;
	struct users_opts opts = { .rounds = (unsigned)conf->auth_scram_rounds,
		.uid_base = (uint32_t)conf->virtual_uid_base,
		.uid_count = (uint32_t)conf->virtual_uid_count,
		.mailbox_base = conf->virtual_mailbox_base };
	char why[512];
	int err;

	for (size_t i = 0; i < conf->auth_mechanisms.n; i++)
		if (strncasecmp(conf->auth_mechanisms.v[i], "SCRAM-SHA-1", 11) == 0)
			opts.sha1 = true;
	err = users_open(conf->auth_user_store, true, &opts, &a->users, why, sizeof(why));
	if (err) {
		log_event(LOG_user_store, "reason=%s", log_cstr(why));
		return err;
	}
	if (!a->d->unprivileged)
		err = users_chown(a->users, conf->auth_user_store, a->d->uid, a->d->gid);
	if (err)
		log_event(LOG_user_store, "file=%s reason=\"cannot give it to its user: %s\"",
		    log_cstr(conf->auth_user_store), err_str(err));
	return err;
}

static int
init(struct daemon *d)
{
	struct auth *a = xcalloc(1, sizeof(*a));
	int err;

	a->d = d;
	d->ctx = a;
	err = open_users(a);
	if (err)
		return err;
	a->tokens = tokens_new();
	a->penalties = penalties_new(PENALTIES_MAX);
	rate_init(&a->rates, PENALTIES_MAX, d->conf->anvil_rate_time_unit);
	a->sasl.users = a->users;
	a->sasl.cache = cache_new();
	take_bounds(a);
	passwords_open(a);
	sasl_setup(&a->sasl);
	return 0;
}

static void
sweep(void *ctx)
{
	struct auth *a = ctx;

	tokens_sweep(a->tokens, auth_now_ms());
	ev_timer_set(a->d->base, &a->sweep, SWEEP_MS, sweep, a);
}

static int
start(struct daemon *d)
{
	struct auth *a = d->ctx;

	a->pool = pool_new(d->base, (unsigned)d->conf->auth_worker_count);
	sweep(a);
	return 0;
}

static void
message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	auth_message(d->ctx, ch, m);
}

static void
link_down(struct daemon *d, struct ipc_chan *ch)
{
	struct auth *a = d->ctx;

	if (ipc_chan_peer(ch) == ROLE_PAM || ipc_chan_peer(ch) == ROLE_NSS)
		exchange_helper_down(a, ch);
	peer_down(a, ch);
}

/* What init() and start() took. A table of passwords may have changed where nothing tells of it. */
static bool
needs_renewal(const struct conf *conf, const struct conf *old)
{
	static const char *const names[] = { "auth_user_store", "auth_worker_count",
		"auth_scram_rounds", "auth_mechanisms", "virtual_uid_base", "virtual_uid_count",
		"virtual_mailbox_base" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (conf_differs(conf, old, names[i]))
			return true;
	return old->smtp_sasl_password_maps.n > 0 || conf->smtp_sasl_password_maps.n > 0;
}

static void
reload(struct daemon *d, const struct conf *old)
{
	struct auth *a = d->ctx;

	take_bounds(a);
	if (needs_renewal(d->conf, old))
		auth_renew(a);
}

static void
control(struct daemon *d, struct ipc_chan *ch, uint32_t id, uint32_t uid, const struct slice *words,
    size_t n)
{
	(void)uid;
	if (n > 0 && slice_eq_str(words[0], "user"))
		control_user(d->ctx, ch, id, words + 1, n - 1);
	else
		daemon_control_reply(ch, id, 2, SLICE_LIT("auth knows the verb user\n"));
}

static void
status(struct daemon *d, struct buf *out)
{
	struct auth *a = d->ctx;

	buf_addf(out, "logins=%u workers-busy=%u tokens=%zu", a->exchanges, pool_busy(a->pool),
	    tokens_sweep(a->tokens, auth_now_ms()));
}

int
main(int argc, char **argv)
{
	static const struct daemon_desc desc = {
		.role = ROLE_AUTH,
		.init = init,
		.start = start,
		.message = message,
		.link_down = link_down,
		.reload = reload,
		.control = control,
		.status = status,
	};

	sasl_setup_memory();
	return daemon_run(argc, argv, &desc);
}
