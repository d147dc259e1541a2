/*
 * maps: owns all look-up tables and all resolution of addresses. Runs as bh-maps; may read the
 * directories of its tables and nothing else, and writes nothing. Asked by receivers and qmgr with
 * addresses that strangers chose; asks nss and auth for users.
 *
 * A request that needs an answer of nss or auth waits; it is then run again from its start, which
 * is cheap: tables are in memory, and what was answered is kept. Who has asked is told when a table
 * changes, so that others may keep positive answers.
 */
#include "daemon/daemon.h"
#include "daemon/private.h"
#include "helpers/maps/own.h"
#include "helpers/maps/tables.h"
#include "helpers/maps/users.h"
#include "helpers/maps/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum {
	WAITING_LIMIT = 5000,
	USERS_PUSH_MS = 600000, /* answers of other user sources than files end after this time */
};

struct request {
	TAILQ_ENTRY(request) next;
	struct ipc_chan *chan;
	enum msg_type type;
	uint32_t id, flags;
	struct slice address, table; /* table: of map_get; in memory of the request */
};

struct peer {
	TAILQ_ENTRY(peer) next;
	struct ipc_chan *chan;
	bool asked;
};

struct maps {
	struct daemon *d;
	struct tables *tables;
	struct users_cache *users;
	struct watch *watch;
	struct own *own;
	struct resolver resolver;
	struct arena arena; /* of the request that is being answered */
	TAILQ_HEAD(, request) waiting;
	size_t nwaiting;
	TAILQ_HEAD(, peer) peers;
	uint32_t generation;
	struct ev_timer push_users, again;
	struct timespec passwd_mtime, group_mtime;
	uint64_t checks, routes, gets;
	bool running_again;
};

/* --- what resolution asks --- */

static int
list_get(
    struct maps *maps, const struct db_list *list, struct slice key, bool whole, struct buf *value)
{
	struct resolve_user user;
	size_t nss = 0, from = 0;
	int err;

	while ((err = db_list_get(list, from, key, whole, value, &nss)) == -EAGAIN) {
		err = slice_find(key, '@') >= 0
			  ? ERR_NOT_FOUND
			  : users_ask(maps->users, USERS_NSS, key, &maps->arena, &user);
		if (!err)
			err = buf_add_str(value, user.name);
		if (err != ERR_NOT_FOUND)
			return err;
		from = nss + 1;
	}
	return err;
}

static int
op_lookup(void *ctx, enum resolve_table table, struct slice key, bool whole, struct buf *value)
{
	struct maps *maps = ctx;

	return list_get(maps, tables_of(maps->tables, table), key, whole, value);
}

static bool
op_defined(void *ctx, enum resolve_table table)
{
	struct maps *maps = ctx;

	return tables_of(maps->tables, table)->n;
}

static int
op_named(void *ctx, struct slice spec, struct slice key, struct buf *value)
{
	struct maps *maps = ctx;
	const struct db_list *list = tables_named(maps->tables, spec);

	return list ? list_get(maps, list, key, true, value) : ERR_TEMPORARY;
}

static int
op_passwd(void *ctx, struct slice name, struct arena *a, struct resolve_user *user_r)
{
	return users_ask(((struct maps *)ctx)->users, USERS_NSS, name, a, user_r);
}

static int
op_account(void *ctx, struct slice address, struct arena *a, struct resolve_user *user_r)
{
	return users_ask(((struct maps *)ctx)->users, USERS_AUTH, address, a, user_r);
}

static bool
op_own(void *ctx, struct slice literal)
{
	return own_has(((struct maps *)ctx)->own, literal);
}

static const struct resolve_ops ops = { op_lookup, op_defined, op_named, op_passwd, op_account,
	op_own };

/* --- requests --- */

static int
run_check(struct maps *maps, struct ipc_chan *ch, uint32_t id, struct slice address, uint32_t flags)
{
	struct msg m = MSG_INIT(MSG_RCPT_VERDICT, id);
	struct resolve_verdict v;
	struct buf finals = { 0 };
	int err = resolve_rcpt(&maps->resolver, address, flags, &maps->arena, &v);

	if (err)
		return err;
	m.rcpt_verdict.code = (uint16_t)v.code;
	m.rcpt_verdict.enhanced = slice_str(v.enhanced);
	m.rcpt_verdict.text = slice_sub(slice_str(v.text), 0, 512);
	m.rcpt_verdict.flags = v.cacheable;
	for (size_t i = 0; i < v.nfinals; i++)
		item_final_addr_add(&finals, &(struct item_final_addr){ v.finals[i] });
	m.rcpt_verdict.finals = msg_list(&finals, (uint32_t)v.nfinals);
	(void)ipc_send(ch, &m);
	buf_free(&finals);
	return 0;
}

static int
run_route(struct maps *maps, struct ipc_chan *ch, uint32_t id, struct slice address)
{
	struct msg m = MSG_INIT(MSG_ROUTE_ANSWER, id);
	struct msg_route_answer *out = &m.route_answer;
	struct resolve_route r;
	struct buf groups = { 0 };
	int err = resolve_route(&maps->resolver, address, &maps->arena, &r);

	if (err)
		return err;
	out->status = (uint8_t)r.status;
	out->enhanced = slice_str(r.enhanced);
	out->text = slice_sub(slice_str(r.text), 0, 512);
	out->kind = (uint8_t)r.kind;
	out->transport = slice_sub(r.transport, 0, 64);
	out->nexthop = slice_sub(r.nexthop, 0, 1024);
	out->port = (uint16_t)r.port;
	out->user = slice_sub(slice_str(r.user.name), 0, 256);
	out->uid = r.user.uid;
	out->gid = r.user.gid;
	for (size_t i = 0; i < r.user.ngroups; i++)
		item_gid_add(&groups, &(struct item_gid){ r.user.groups[i] });
	out->groups = msg_list(&groups, (uint32_t)r.user.ngroups);
	out->home = slice_str(r.user.home);
	out->mailbox = r.mailbox;
	out->extension = slice_sub(r.extension, 0, 256);
	out->run = (uint8_t)r.run;
	out->flags = r.flags;
	out->argument = r.argument;
	(void)ipc_send(ch, &m);
	buf_free(&groups);
	return 0;
}

static int
run_get(struct maps *maps, struct ipc_chan *ch, uint32_t id, struct slice table, struct slice key)
{
	struct msg m = MSG_INIT(MSG_MAP_VALUE, id);
	const struct db_list *list = tables_named(maps->tables, table);
	struct buf value = { 0 };
	int err = list ? list_get(maps, list, key, true, &value) : ERR_TEMPORARY;

	if (err == -EAGAIN) {
		buf_free(&value);
		return err;
	}
	if (!err && buf_len(&value) > 8192)
		err = ERR_LIMIT;
	m.map_value.status = !err ? 0 : err == ERR_NOT_FOUND ? 1 : 2;
	if (!err)
		m.map_value.value = buf_slice(&value);
	(void)ipc_send(ch, &m);
	buf_free(&value);
	return 0;
}

static int
run(struct maps *maps, const struct request *r)
{
	int err;

	switch (r->type) {
	case MSG_RCPT_CHECK:
		err = run_check(maps, r->chan, r->id, r->address, r->flags);
		break;
	case MSG_ROUTE:
		err = run_route(maps, r->chan, r->id, r->address);
		break;
	default:
		err = run_get(maps, r->chan, r->id, r->table, r->address);
	}
	arena_reset(&maps->arena);
	return err;
}

static void
request_free(struct maps *maps, struct request *r)
{
	TAILQ_REMOVE(&maps->waiting, r, next);
	maps->nwaiting--;
	free(r);
}

/* Too many wait: this one is answered as a table error would be. */
static void
refuse(struct ipc_chan *ch, const struct request *r)
{
	struct msg m = MSG_INIT(MSG_RCPT_VERDICT, r->id);

	if (r->type == MSG_RCPT_CHECK) {
		m.rcpt_verdict.code = 451;
		m.rcpt_verdict.enhanced = SLICE_LIT("4.3.0");
		m.rcpt_verdict.text = SLICE_LIT("Temporary lookup failure");
	} else if (r->type == MSG_ROUTE) {
		m = (struct msg)MSG_INIT(MSG_ROUTE_ANSWER, r->id);
		m.route_answer.status = 2;
		m.route_answer.enhanced = SLICE_LIT("4.3.0");
		m.route_answer.text = SLICE_LIT("look-ups are overloaded");
	} else {
		m = (struct msg)MSG_INIT(MSG_MAP_VALUE, r->id);
		m.map_value.status = 2;
	}
	(void)ipc_send(ch, &m);
}

static void
request(struct maps *maps, const struct request *r)
{
	struct request *kept;
	unsigned char *text;

	if (run(maps, r) != -EAGAIN)
		return;
	if (maps->nwaiting >= WAITING_LIMIT) {
		refuse(r->chan, r);
		return;
	}
	kept = xcalloc(1, sizeof(*kept) + r->address.n + r->table.n);
	*kept = *r;
	text = (unsigned char *)(kept + 1);
	if (r->address.n)
		memcpy(text, r->address.p, r->address.n);
	if (r->table.n)
		memcpy(text + r->address.n, r->table.p, r->table.n);
	kept->address = slice(text, r->address.n);
	kept->table = slice(text + r->address.n, r->table.n);
	TAILQ_INSERT_TAIL(&maps->waiting, kept, next);
	maps->nwaiting++;
}

/* One pass over what waits, after the answers of one loop turn. */
static void
run_waiting(void *ctx)
{
	struct maps *maps = ctx;
	struct request *r, *next;

	maps->running_again = false;
	for (r = TAILQ_FIRST(&maps->waiting); r; r = next) {
		next = TAILQ_NEXT(r, next);
		if (run(maps, r) != -EAGAIN)
			request_free(maps, r);
	}
}

static void
answered(void *ctx)
{
	struct maps *maps = ctx;

	if (maps->running_again)
		return;
	maps->running_again = true;
	ev_timer_set(maps->d->base, &maps->again, 0, run_waiting, maps);
}

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

	TAILQ_INIT(&maps->waiting);
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

	maps->resolver = (struct resolver){ d->conf, &ops, maps };
	maps->users = users_new(d, answered, maps);
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
	struct request r = { .chan = ch, .type = m->type, .id = m->id };

	switch (m->type) {
	case MSG_RCPT_CHECK:
		maps->checks++;
		r.address = m->rcpt_check.address;
		r.flags = m->rcpt_check.flags;
		break;
	case MSG_ROUTE:
		maps->routes++;
		r.address = m->route.address;
		break;
	case MSG_MAP_GET:
		maps->gets++;
		r.address = m->map_get.key;
		r.table = m->map_get.table;
		break;
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
	if (p)
		p->asked = true;
	request(maps, &r);
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
	struct request *r, *next;

	for (r = TAILQ_FIRST(&maps->waiting); r; r = next) {
		next = TAILQ_NEXT(r, next);
		if (r->chan == ch)
			request_free(maps, r);
	}
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
