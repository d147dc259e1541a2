/*
 * maps: owns all look-up tables and all resolution of addresses. Runs as bh-maps; may read the
 * directories of its tables and nothing else, and writes nothing. Asked by receivers and qmgr with
 * addresses that strangers chose (requests.c); asks nss and auth for users. Who has asked is told
 * when a table changes, so that others may keep positive answers.
 */
#include "helpers/maps/maps.h"

#include "daemon/private.h"
#include "helpers/maps/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum {
	USERS_PUSH_MS = 600000, /* answers of other user sources than files end after this time */
};

struct peer {
	TAILQ_ENTRY(peer) next;
	struct ipc_chan *chan;
	bool asked;
};

/* --- changes --- */

static void
push_changed(struct maps *maps)
{
	struct msg m = MSG_INIT(MSG_MAPS_CHANGED, 0);
	struct peer *p;

	m.maps_changed.generation = ++maps->generation;
	TAILQ_FOREACH(p, &maps->peers, next)
		if (p->asked)
			(void)ipc_send(p->chan, &m);
}

static bool
file_changed(const char *path, struct timespec *last)
{
	struct stat st;
	struct timespec now = { 0 };
	bool changed;

	if (!stat(path, &st))
		now = st.st_mtim;
	changed = now.tv_sec != last->tv_sec || now.tv_nsec != last->tv_nsec;
	*last = now;
	return changed;
}

static void
look_again(void *ctx)
{
	struct maps *maps = ctx;
	bool users = file_changed("/etc/passwd", &maps->passwd_mtime);
	bool changed;

	users = file_changed("/etc/group", &maps->group_mtime) || users;
	changed = tables_refresh(maps->tables);
	if (users)
		users_forget(maps->users, USERS_NSS);
	if (users || changed)
		push_changed(maps);
}

/* Users may come from a directory that tells nobody of changes. */
static void
on_push_users(void *ctx)
{
	struct maps *maps = ctx;
	size_t n, pending;

	users_count(maps->users, &n, &pending);
	users_forget(maps->users, USERS_NSS);
	if (n)
		push_changed(maps);
	ev_timer_set(maps->d->base, &maps->push_users, USERS_PUSH_MS, on_push_users, maps);
}

static void
watch_all(struct maps *maps)
{
	size_t n;
	const char *const *dirs = tables_directories(maps->tables, &n);

	watch_free(&maps->watch);
	maps->watch = watch_new(maps->d->base, look_again, maps);
	for (size_t i = 0; i < n; i++) {
		int err = watch_add(maps->watch, dirs[i]);

		if (err)
			log_event(LOG_table_watch,
			    "directory=%s reason=\"%s\" remedy=\"changes there are seen at a "
			    "reload only\"",
			    log_cstr(dirs[i]), err_str(err));
	}
	(void)!watch_add(maps->watch, "/etc"); /* passwd and group */
}

/* --- the daemon --- */

static int
maps_init(struct daemon *d)
{
	struct maps *maps = xcalloc(1, sizeof(*maps));
	const char *const *dirs, **paths;
	size_t n;

	TAILQ_INIT(&maps->peers);
	maps->d = d;
	d->ctx = maps;
	maps->own = own_new();
	maps->tables = tables_open(d->conf);
	dirs = tables_directories(maps->tables, &n);
	paths = xcalloc(n + 1, sizeof(char *));
	for (size_t i = 0; i < n; i++)
		paths[i] = xstrdup(dirs[i]);
	if (!n)
		paths[n++] = "/nonexistent"; /* without a path the jail would open the whole root */
	d->read_paths = paths;
	d->nread_paths = n;
	return 0;
}

static int
maps_start(struct daemon *d)
{
	struct maps *maps = d->ctx;

	requests_init(maps);
	look_again(maps);
	watch_all(maps);
	ev_timer_set(d->base, &maps->push_users, USERS_PUSH_MS, on_push_users, maps);
	return 0;
}

static void
maps_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct maps *maps = d->ctx;
	struct peer *p = ipc_chan_data(ch);

	switch (m->type) {
	case MSG_RCPT_CHECK:
	case MSG_ROUTE:
	case MSG_MAP_GET:
		if (p)
			p->asked = true;
		request(maps, ch, m);
		return;
	case MSG_NSS_USER:
	case MSG_USER_ENTRY:
		users_answer(maps->users, m);
		return;
	case MSG_USERS_CHANGED:
		users_forget(maps->users, USERS_AUTH);
		push_changed(maps);
		return;
	default:
		return;
	}
}

static void
maps_link_up(struct daemon *d, struct ipc_chan *ch)
{
	struct maps *maps = d->ctx;
	enum role role = ipc_chan_peer(ch);
	struct peer *p;

	users_link_up(maps->users, role);
	if (role == ROLE_NSS || role == ROLE_MASTER)
		return;
	p = xcalloc(1, sizeof(*p));
	p->chan = ch;
	TAILQ_INSERT_TAIL(&maps->peers, p, next);
	ipc_chan_set_data(ch, p);
}

static void
maps_link_down(struct daemon *d, struct ipc_chan *ch)
{
	struct maps *maps = d->ctx;
	struct peer *p = ipc_chan_data(ch);

	requests_forget(maps, ch);
	if (!p)
		return;
	TAILQ_REMOVE(&maps->peers, p, next);
	free(p);
}

static void
maps_reload(struct daemon *d, const struct conf *old)
{
	struct maps *maps = d->ctx;

	(void)old;
	/* Landlock was drawn for the tables of the start: tables elsewhere need a new process. */
	if (!tables_below(d->conf, d->read_paths, d->nread_paths)) {
		log_event(LOG_maps_renew,
		    "reason=\"a table lies in a directory that was not named before\"");
		daemon_renew(d);
		return;
	}
	tables_free(&maps->tables);
	maps->tables = tables_open(d->conf);
	maps->resolver.conf = d->conf;
	watch_all(maps);
	push_changed(maps);
}

static void
maps_status(struct daemon *d, struct buf *out)
{
	const struct maps *maps = d->ctx;
	size_t tables, dead, users, pending;

	tables_count(maps->tables, &tables, &dead);
	tables_dead(maps->tables, out);
	users_count(maps->users, &users, &pending);
	buf_addf(out,
	    "tables=%zu dead_tables=%zu users_cached=%zu waiting=%zu checks=%llu routes=%llu "
	    "gets=%llu",
	    tables, dead, users, maps->nwaiting, (unsigned long long)maps->checks,
	    (unsigned long long)maps->routes, (unsigned long long)maps->gets);
}

int
main(int argc, char **argv)
{
	static const struct daemon_desc desc = {
		.role = ROLE_MAPS,
		.init = maps_init,
		.start = maps_start,
		.message = maps_message,
		.link_up = maps_link_up,
		.link_down = maps_link_down,
		.reload = maps_reload,
		.status = maps_status,
	};

	return daemon_run(argc, argv, &desc);
}
