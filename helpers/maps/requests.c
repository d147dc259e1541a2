/*
 * The requests of receivers and qmgr: what resolution asks of tables and users, the answers, and
 * what waits. Runs in maps (uid bh-maps). Hostile: addresses, which strangers chose; tables and the
 * user database give values of any bytes.
 *
 * A request that needs an answer of nss or auth waits for that one question; it is then run again
 * from its start, which is cheap: tables are in memory, and what was answered is kept. Invariant:
 * every request has one answer, also where it could not be sent as it is.
 */
#include "helpers/maps/maps.h"

#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>

enum {
	WAITING_LIMIT = 5000,
	RUN_LIMIT = 500, /* run in one turn of the loop */
};

#define TOLD_US                                                                                    \
	INT64_C(60000000) /* what strangers can bring about again and again is told so often */

struct request {
	TAILQ_ENTRY(request) next;
	struct users_waiter waiter;
	struct ipc_chan *chan;
	enum msg_type type;
	uint32_t id, flags;
	struct slice address, table; /* table: of map_get; in memory of the request */
};

static bool
may_tell(int64_t *told)
{
	int64_t now = ev_now_us();

	if (*told && now - *told < TOLD_US)
		return false;
	*told = now;
	return true;
}

/* --- what resolution asks --- */

/* To resolution it is a table that cannot answer: limits of its own are something else. */
static int
pattern_limit(struct maps *maps, const struct db *db, struct slice key)
{
	if (may_tell(&maps->told_pattern))
		log_event(
		    LOG_pattern_limit, "table=%s key=%s", log_cstr(db_spec(db)), log_value(key));
	return ERR_TEMPORARY;
}

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
	return err == ERR_LIMIT ? pattern_limit(maps, list->tables[nss], key) : err;
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

/* --- answers --- */

/* The answer to what cannot be answered now: as a table error would be. */
static struct msg
refusal(const struct request *r, struct slice why)
{
	struct msg m = MSG_INIT(MSG_MAP_VALUE, r->id);

	if (r->type == MSG_RCPT_CHECK) {
		m = (struct msg)MSG_INIT(MSG_RCPT_VERDICT, r->id);
		m.rcpt_verdict.code = 451;
		m.rcpt_verdict.enhanced = SLICE_LIT("4.3.0");
		m.rcpt_verdict.text = SLICE_LIT("Temporary lookup failure");
	} else if (r->type == MSG_ROUTE) {
		m = (struct msg)MSG_INIT(MSG_ROUTE_ANSWER, r->id);
		m.route_answer.status = 2;
		m.route_answer.enhanced = SLICE_LIT("4.3.0");
		m.route_answer.text = why;
	} else {
		m.map_value.status = 2;
	}
	return m;
}

static void
answer(const struct request *r, const struct msg *m)
{
	struct msg instead = refusal(r, SLICE_LIT("what tables say of it cannot be used"));
	int err = ipc_answer(r->chan, m, &instead);

	if (err == ERR_LIMIT || err == ERR_SYNTAX)
		log_event(LOG_maps_answer,
		    "address=%s table=%s reason=\"%s\" remedy=\"correct what tables or the user "
		    "database give for it\"",
		    log_value(r->address), r->table.n ? log_value(r->table) : "-", err_str(err));
}

static int
run_check(struct maps *maps, const struct request *r)
{
	struct msg m = MSG_INIT(MSG_RCPT_VERDICT, r->id);
	struct resolve_verdict v;
	struct buf finals = { 0 };
	int err = resolve_rcpt(&maps->resolver, r->address, r->flags, &maps->arena, &v);

	if (err)
		return err;
	m.rcpt_verdict.code = (uint16_t)v.code;
	m.rcpt_verdict.enhanced = slice_str(v.enhanced);
	m.rcpt_verdict.text = slice_sub(slice_str(v.text), 0, 512);
	m.rcpt_verdict.flags = v.cacheable;
	for (size_t i = 0; i < v.nfinals; i++)
		item_final_addr_add(&finals, &(struct item_final_addr){ v.finals[i] });
	m.rcpt_verdict.finals = msg_list(&finals, (uint32_t)v.nfinals);
	answer(r, &m);
	buf_free(&finals);
	return 0;
}

static int
run_route(struct maps *maps, const struct request *request)
{
	struct msg m = MSG_INIT(MSG_ROUTE_ANSWER, request->id);
	struct msg_route_answer *out = &m.route_answer;
	struct resolve_route r;
	struct buf groups = { 0 };
	int err = resolve_route(&maps->resolver, request->address, &maps->arena, &r);

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
	answer(request, &m);
	buf_free(&groups);
	return 0;
}

static int
run_get(struct maps *maps, const struct request *r)
{
	struct msg m = MSG_INIT(MSG_MAP_VALUE, r->id);
	const struct db_list *list = tables_named(maps->tables, r->table);
	struct buf value = { 0 };
	int err = list ? list_get(maps, list, r->address, true, &value) : ERR_TEMPORARY;

	if (err == -EAGAIN) {
		buf_free(&value);
		return err;
	}
	m.map_value.status = !err ? 0 : err == ERR_NOT_FOUND ? 1 : 2;
	if (!err)
		m.map_value.value = buf_slice(&value);
	answer(r, &m);
	buf_free(&value);
	return 0;
}

static int
run(struct maps *maps, const struct request *r)
{
	int err;

	switch (r->type) {
	case MSG_RCPT_CHECK:
		err = run_check(maps, r);
		break;
	case MSG_ROUTE:
		err = run_route(maps, r);
		break;
	default:
		err = run_get(maps, r);
	}
	arena_reset(&maps->arena);
	return err;
}

/* --- what waits --- */

static void
request_free(struct maps *maps, struct request *r)
{
	users_waiter_drop(&r->waiter);
	TAILQ_REMOVE(&maps->waiting, r, next);
	maps->nwaiting--;
	free(r);
}

static struct request *
keep(struct maps *maps, const struct request *r)
{
	struct request *kept = xcalloc(1, sizeof(*kept) + r->address.n + r->table.n);
	unsigned char *text = (unsigned char *)(kept + 1);

	*kept = *r;
	if (r->address.n)
		memcpy(text, r->address.p, r->address.n);
	if (r->table.n)
		memcpy(text + r->address.n, r->table.p, r->table.n);
	kept->address = slice(text, r->address.n);
	kept->table = slice(text + r->address.n, r->table.n);
	TAILQ_INSERT_TAIL(&maps->waiting, kept, next);
	maps->nwaiting++;
	return kept;
}

void
request(struct maps *maps, struct ipc_chan *ch, const struct msg *m)
{
	struct request r = { .chan = ch, .type = m->type, .id = m->id };

	if (m->type == MSG_RCPT_CHECK) {
		maps->checks++;
		r.address = m->rcpt_check.address;
		r.flags = m->rcpt_check.flags;
	} else if (m->type == MSG_ROUTE) {
		maps->routes++;
		r.address = m->route.address;
	} else {
		maps->gets++;
		r.address = m->map_get.key;
		r.table = m->map_get.table;
	}
	if (run(maps, &r) != -EAGAIN)
		return;
	if (maps->nwaiting < WAITING_LIMIT) {
		users_wait(maps->users, &keep(maps, &r)->waiter);
	} else {
		struct msg full = refusal(&r, SLICE_LIT("look-ups are overloaded"));

		if (may_tell(&maps->told_full))
			log_event(LOG_maps_full, "waiting=%zu", maps->nwaiting);
		(void)ipc_send(ch, &full);
	}
}

/* What the answers of one loop turn made ready, and no more of it than a turn may take. */
static void
run_ready(void *ctx)
{
	struct maps *maps = ctx;
	struct users_waiter *w;

	for (unsigned i = 0; i < RUN_LIMIT && (w = TAILQ_FIRST(&maps->ready)); i++) {
		struct request *r = HASH_ELEMENT(w, struct request, waiter);

		users_waiter_drop(w);
		if (run(maps, r) == -EAGAIN)
			users_wait(maps->users, w);
		else
			request_free(maps, r);
	}
	if (!TAILQ_EMPTY(&maps->ready))
		ev_timer_set(maps->d->base, &maps->again, 0, run_ready, maps);
}

static void
answered(void *ctx, struct users_waiters *waiters)
{
	struct maps *maps = ctx;

	if (TAILQ_EMPTY(&maps->ready) && !TAILQ_EMPTY(waiters))
		ev_timer_set(maps->d->base, &maps->again, 0, run_ready, maps);
	users_waiters_move(waiters, &maps->ready);
}

void
requests_forget(struct maps *maps, const struct ipc_chan *ch)
{
	struct request *r, *next;

	for (r = TAILQ_FIRST(&maps->waiting); r; r = next) {
		next = TAILQ_NEXT(r, next);
		if (r->chan == ch)
			request_free(maps, r);
	}
}

void
requests_init(struct maps *maps)
{
	TAILQ_INIT(&maps->waiting);
	TAILQ_INIT(&maps->ready);
	maps->resolver = (struct resolver){ maps->d->conf, &ops, maps };
	maps->users = users_new(maps->d, answered, maps);
}
